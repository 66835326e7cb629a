"""What a scenario saw, and the table of all of them."""

import time
from dataclasses import dataclass, field

from ..console import note
from ..traffic import Operator, Tally

# Anything that comes at all comes sooner, on an emulated machine that shares its processors, too.
PATIENCE_S = 240
# The two clocks may disagree so far, which is what an answer of a loaded guest takes.
CLOCKS_S = 0.5


@dataclass
class Notes:
    """What one scenario did and saw; said at once, and kept for the verdict."""

    recoveries_s: list[float] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    faults: list[str] = field(default_factory=list)
    # Said below the table.
    findings: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def did(self, what: str) -> None:
        note(f"  {time.monotonic() - self.began:6.1f} s  did   {what}")

    def saw(self, what: str) -> None:
        note(f"  {time.monotonic() - self.began:6.1f} s  saw   {what}")

    def found(self, what: str) -> None:
        """A result that does not fit into the table's columns."""
        self.findings.append(what)
        self.saw(what)

    def recovered(self, seconds: float, what: str) -> None:
        if seconds < -CLOCKS_S:
            self.fault(f"{what}: {-seconds:.2f} s before it was asked for: the clocks disagree")
        self.recoveries_s.append(max(seconds, 0.0))
        self.saw(f"{what}: recovered in {max(seconds, 0.0):.2f} s")

    def fault(self, what: str) -> None:
        self.faults.append(what)
        note(f"  {time.monotonic() - self.began:6.1f} s  FAULT {what}")

    def obeys_again(self, operator: Operator, *, since: float, what: str, after: float | None = None) -> bool:
        """Waits for the first command that is done after a moment (`since`, if not said); recovery counts from `since`."""
        done = operator.wait_for_success(after=since if after is None else after, patience_s=PATIENCE_S)
        if done is None or done.answered_at is None:
            self.fault(f"{what}: none in {PATIENCE_S} s; {operator.describe()}")
            return False
        self.recovered(done.answered_at - since, what)
        return True

    def counted(self, tally: Tally) -> None:
        self.tally += tally
        self.saw(
            f"{tally.sent} sent, {tally.delivered} delivered, {tally.refused} refused, {tally.lost} lost, {tally.doubled} doubled"
        )

    def expect(self, is_so: bool, what: str) -> None:
        if is_so:
            self.saw(what)
        else:
            self.fault(f"not so: {what}")


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    claim: str
    bound_s: float
    notes: Notes
    seconds: float

    def faults(self, allowance: float) -> list[str]:
        """Why the claim does not hold; `allowance` multiplies the bound."""
        faults, bound_s = [*self.notes.faults, *self.notes.tally.faults], self.bound_s * allowance
        if self.notes.recoveries_s and max(self.notes.recoveries_s) > bound_s:
            faults.append(f"recovery took {max(self.notes.recoveries_s):.2f} s, the bound is {bound_s:g} s")
        return faults


HEAD = (
    "scenario",
    "claim",
    "bound s",
    "recovery s",
    "rounds",
    "sent",
    "delivered",
    "refused",
    "lost",
    "doubled",
    "verdict",
)


def table(rows: list[Row], allowance: float) -> str:
    """Markdown. `recovery` is the longest of the rounds."""
    head = list(HEAD)
    if allowance != 1:
        head[2] = f"bound x {allowance:g}, s"
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        recoveries, tally = row.notes.recoveries_s, row.notes.tally
        recovery = f"{max(recoveries):.2f}" if recoveries else "-"
        counts = [tally.sent, tally.delivered, tally.refused, tally.lost, tally.doubled]
        verdict = "FAILED" if row.faults(allowance) else "holds"
        cells = [row.name, row.claim, f"{row.bound_s * allowance:g}", recovery, len(recoveries), *counts, verdict]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    for row in rows:
        lines += [f"\n{row.name}: {finding}" for finding in row.notes.findings]
    for row in rows:
        lines += [f"\n{row.name}: {fault}" for fault in row.faults(allowance)]
    return "\n".join(lines)

"""The power plug: pulled at random moments, with the disk losing (or keeping some of, and tearing) what it had not flushed.

Two witnesses: the fleet's operator, whose answered commands must stay answered and not be done again; and a writer straight into a
store of its own, whose acknowledged records must be there, whole. Operator, broker and lamp are outside of the machine.
"""

import random
import subprocess
import time
from dataclasses import dataclass, field

from .. import writer as store_writer
from ..product import program
from ..traffic import Command, Operator
from ..writer import Found, Writer
from . import scenario
from .box import UNIT, Box
from .report import Notes

# A cold boot under emulation takes 5 to 20 s, and the daemon's start after it 3 to 15 s.
BOOT_S = 60
# Answered commands that are asked again after each cut.
ASKED_AGAIN = 8
# The power goes up to so many seconds after the first acknowledgement.
LONGEST_S = 3
STORE = "/var/lib/lab-store"
FLUSHED = "/var/lib/lab-flushed"


@dataclass
class Sums:
    """Over all cuts of one writer's store."""

    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    torn: int = 0
    wrong: int = 0
    rebuilt: int = 0
    unusable: int = 0
    # Cuts after which the store was not whole.
    harmful: int = 0
    blocks: dict[str, int] = field(default_factory=dict)

    def add(self, found: Found, acknowledged: int, blocks: dict[str, int]) -> None:
        self.cuts += 1
        self.acknowledged += acknowledged
        self.lost += found.lost
        self.torn += found.torn
        self.wrong += found.wrong
        self.rebuilt += "Rebuilt" in found.opened
        self.unusable += not found.is_usable
        self.harmful += not found.is_whole
        for fate in ("lost", "kept", "torn"):
            self.blocks[fate] = self.blocks.get(fate, 0) + blocks.get(fate, 0)

    def __str__(self) -> str:
        blocks = ", ".join(f"{count} {fate}" for fate, count in self.blocks.items())
        return (
            f"{self.cuts} cuts, {self.harmful} of them harmful; {self.acknowledged} records acknowledged, {self.lost} lost, "
            f"{self.torn} torn, {self.wrong} wrong; store rebuilt {self.rebuilt} times, unusable {self.unusable} times; "
            f"unflushed blocks: {blocks}"
        )


@scenario(bound_s=BOOT_S, is_cut=True, is_short=True)
def the_power_is_cut(box: Box, notes: Notes) -> None:
    """Over power cuts at random moments no acknowledgement is taken back, nothing is done twice, and the store is usable."""
    chance, sums = random.Random(box.seed), Sums()
    store_writer.put_into(box.machine)
    writer = Writer(box.machine, STORE)
    try:
        with box.operator(pause_ms=10) as operator:
            for number in range(box.cuts):
                writer.start()
                operator.wait_for_count(3, patience_s=240)
                writer.wait_for_acknowledgement()
                blocks = _cut(box, chance, notes, f"cut {number + 1} of {box.cuts}")
                answered = [one for one in operator.commands() if one.status == "SUCCEEDED"][-ASKED_AGAIN:]
                acknowledged = writer.ended()
                began = time.monotonic()
                notes.saw(f"the agent answers {box.boot():.1f} s after power-up")
                # Beside the daemon's start, which is waited for anyhow.
                found = writer.check()
                sums.add(found, acknowledged, blocks)
                if found.is_whole:
                    notes.saw(f"{acknowledged} records were acknowledged; {found}")
                else:
                    notes.fault(f"the writer's store: {found}")
                if not notes.obeys_again(operator, since=began, what="from power-up to the next command done"):
                    notes.saw(box.shell(f"journalctl -b -u {UNIT} -o cat | tail -20"))
                    break
                _check_store(box, notes)
                _ask_again(box, notes, answered)
            notes.counted(operator.stop())
    finally:
        # Interrupted, too: many cuts take their time.
        notes.found(str(sums))


@scenario(bound_s=BOOT_S, is_cut=True, is_on_demand=True)
def flush_alone_is_not_durable(box: Box, notes: Notes) -> None:
    """The same cuts take acknowledged records from a store that only calls sled's flush, and none from ours: they would be seen."""
    box.shell(f"systemctl disable --now --quiet {UNIT}; systemctl daemon-reload")
    chance = random.Random(box.seed)
    store_writer.put_into(box.machine)
    # In turn, on one disk and never at the same time: a flush of the disk by the one would save what the other wrote.
    kinds = {
        "ours": (Writer(box.machine, STORE), Sums()),
        "flush alone": (Writer(box.machine, FLUSHED, "--unsafe-flush-only"), Sums()),
    }
    for number in range(2 * box.cuts):
        name = tuple(kinds)[number % 2]
        writer, sums = kinds[name]
        writer.start()
        writer.wait_for_acknowledgement()
        if writer.is_fresh:
            # A new store's directory is not the matter here, but what is put into a store that is there.
            box.shell("sync")
        blocks = _cut(box, chance, notes, f"{name}, cut {number // 2 + 1} of {box.cuts}")
        acknowledged = writer.ended()
        box.boot()
        found = writer.check()
        sums.add(found, acknowledged, blocks)
        notes.saw(f"{name}: {acknowledged} records were acknowledged; {found}")
        if not found.is_usable or "Rebuilt" in found.opened:
            box.shell(f"rm -rf {writer.store}")
            writer.is_fresh = True
        box.shell("sync")
    for name, (_, sums) in kinds.items():
        notes.found(f"{name}: {sums}")
    notes.expect(kinds["ours"][1].harmful == 0, "no cut harmed our store")
    notes.expect(kinds["flush alone"][1].harmful > 0, "cuts harmed the store that only flushes: they are seen")
    box.shell(f"systemctl enable --now --quiet {UNIT}")


def _cut(box: Box, chance: random.Random, notes: Notes, what: str) -> dict[str, int]:
    """At a random moment, every unflushed block lost or, as often, some kept and some torn."""
    time.sleep(chance.uniform(0, LONGEST_S))
    unflushed = chance.choice(["none", f"random:{chance.randrange(1 << 16)}"])
    blocks = box.cut(unflushed)
    of = sum(blocks.get(fate, 0) for fate in ("lost", "kept", "torn"))
    notes.did(
        f"{what}: of {of} unflushed blocks {blocks.get('lost')} lost, {blocks.get('kept')} kept, {blocks.get('torn')} torn"
    )
    return blocks


def _check_store(box: Box, notes: Notes) -> None:
    said = box.shell("autoglmctl status | grep ^store").strip()
    if not said.split(None, 1)[1].startswith("ready: opened"):
        notes.fault(f"the daemon's store was not simply opened: {said}")


def _ask_again(box: Box, notes: Notes, answered: list[Command]) -> None:
    """What was answered before the cut gets the same answer; the tally shows whether it is done again."""
    repeated = ",".join(f"{one.id}={one.level}" for one in answered)
    command = [
        str(program("fleet-operator")),
        "--port",
        str(box.broker_port),
        "--box",
        "edge",
        "--thing",
        Operator.THING,
    ]
    command += ["--run", f"again-{answered[0].id}", "--pause-ms", "1", "--repeat", repeated]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    except subprocess.TimeoutExpired:
        notes.fault("commands that were answered before the cut are not answered again")
        return
    same = said.count('"status":"SUCCEEDED"')
    if same != len(answered):
        notes.fault(
            f"of {len(answered)} commands that were done before the cut {same} are still known to be: {said[-300:]}"
        )

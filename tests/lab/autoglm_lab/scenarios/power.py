"""The power plug: pulled at random moments, with the disk losing (or keeping some of, and tearing) what it had not flushed.

Two witnesses: the fleet's operator, whose answered commands must stay answered and not be done again; and a writer straight into a
store of its own, whose acknowledged records must be there, whole. Operator, broker and lamp are outside of the machine.
"""

import random
import re
import subprocess
import tempfile
import threading
import time

from ..errors import LabError
from ..machine import channel
from ..product import binaries, program
from ..traffic import Command, Operator
from . import scenario
from .box import UNIT, Box
from .report import Notes

# A cold boot under emulation takes 8 to 40 s, and the daemon's start after it 5 s.
BOOT_S = 90
# Answered commands that are asked again after each cut.
ASKED_AGAIN = 12
# The writer removes a record when it has written 2,000 more, so older ones need not be remembered.
OWED_MAX = 6_000
WRITER = "/opt/lab/store-writer"
STORE = "/var/lib/lab-store"


@scenario(bound_s=BOOT_S, is_cut=True)
def the_power_is_cut(box: Box, notes: Notes) -> None:
    """Over power cuts at random moments no acknowledgement is taken back, nothing is done twice, and the store is usable."""
    chance = random.Random(box.seed)
    writer = Writer(box)
    cut: dict[str, int] = {}
    with box.operator(pause_ms=10) as operator:
        for number in range(box.cuts):
            writer.start()
            operator.wait_for_count(3, patience_s=240)
            writer.wait_for_acknowledgement()
            time.sleep(chance.uniform(0, 4))
            unflushed = chance.choice(["none", f"random:{chance.randrange(1 << 16)}"])
            tally = box.cut(unflushed)
            answered = [one for one in operator.commands() if one.status == "SUCCEEDED"][-ASKED_AGAIN:]
            acknowledged = writer.ended()
            notes.did(
                f"cut {number + 1} of {box.cuts}, of {sum(tally.get(kind, 0) for kind in ('lost', 'kept', 'torn'))} unflushed blocks "
                f"{tally.get('lost')} lost, {tally.get('kept')} kept, {tally.get('torn')} torn; {acknowledged} records acknowledged"
            )
            for kind, blocks in tally.items():
                cut[kind] = cut.get(kind, 0) + blocks
            began = time.monotonic()
            booted = box.boot()
            notes.saw(f"the agent answers {booted:.1f} s after power-up")
            if not notes.obeys_again(operator, since=began, what="from power-up to the next command done"):
                notes.saw(box.shell(f"journalctl -b -u {UNIT} -o cat | tail -20"))
                break
            _check_store(box, notes)
            notes.saw(writer.check(notes))
            _ask_again(box, notes, answered)
        notes.counted(operator.stop())
    notes.saw(
        f"{box.cuts} cuts, {writer.acknowledged} records acknowledged, {writer.lost} lost; blocks of the disk: {cut}"
    )


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


class Writer:
    """store-writer in the guest: what it acknowledged is owed."""

    def __init__(self, box: Box):
        self._box = box
        self._owed: list[int] = []
        self._next = 0
        self._rest = b""
        self._fresh = 0
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self.acknowledged = 0
        self.lost = 0
        stripped = binaries() / "lab-deb" / "store-writer"
        subprocess.run(["strip", "-o", str(stripped), str(program("store-writer"))], check=True)
        box.machine.push([stripped], "/opt/lab")
        box.shell("sync")

    def start(self) -> None:
        self._fresh, self._rest = 0, b""
        command = [WRITER, STORE, "--start", str(self._next)]
        self._thread = threading.Thread(
            target=channel.execute, args=(self._box.machine.directory, command, self._take), daemon=True
        )
        self._thread.start()

    def wait_for_acknowledgement(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._fresh > 0, 120):
                raise LabError("the writer acknowledged nothing in 120 s", "run store-writer by hand with `lab run`")

    def ended(self) -> int:
        """After a cut: how many records were acknowledged since the last start."""
        assert self._thread
        self._thread.join(30)
        self.acknowledged += self._fresh
        return self._fresh

    def _take(self, is_error: bool, data: bytes) -> None:
        if is_error:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        numbers = [int(line[4:]) for line in lines if line.startswith(b"ACK ")]
        with self._changed:
            self._owed += numbers
            self._fresh += len(numbers)
            self._changed.notify_all()

    def check(self, notes: Notes) -> str:
        self._owed = sorted(self._owed)[-OWED_MAX:]
        said: list[bytes] = []
        with tempfile.TemporaryFile() as owed:
            owed.write("".join(f"{number}\n" for number in self._owed).encode())
            owed.seek(0)
            command = [WRITER, STORE, "--check"]
            take = lambda _, data: said.append(data)  # noqa: E731
            status = channel.execute(self._box.machine.directory, command, take, stdin=owed, timeout_s=120)
        text = b"".join(said).decode(errors="replace").strip()
        found = re.search(r"CHECK lost (\d+) torn (\d+) wrong (\d+) next (\d+) (.*)", text)
        if status or not found:
            notes.fault(f"the writer's store cannot be read (status {status}): {text[-500:]}")
            return text
        lost, torn, wrong, self._next = (int(found[group]) for group in range(1, 5))
        self._next = max(self._next, max(self._owed, default=-1) + 1)
        self.lost += lost
        if lost or torn or wrong or "Rebuilt" in found[5]:
            notes.fault(f"the writer's store: {found[0]}")
            self._owed = []
        return f"of {len(self._owed)} records that are owed {lost} are lost, {torn} torn, {wrong} wrong; {found[5]}"

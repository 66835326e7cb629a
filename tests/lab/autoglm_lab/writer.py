"""A writer straight into a store of its own in the box (tests/src/bin/store-writer.rs): what it acknowledged is owed after a cut."""

import re
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError
from .machine import channel, transfer
from .machine.vm import Machine
from .product import binaries, program

PROGRAM = "/opt/lab/store-writer"
# The writer removes a record when it has written 2,000 more, so older ones need not be remembered.
OWED_MAX = 6_000
PATIENCE_S = 120


def put_into(machine: Machine) -> None:
    """The program, so that it is there after every cut."""
    transfer.push(machine, [stripped("store-writer")], str(Path(PROGRAM).parent))
    machine.shell("sync")


def stripped(name: str) -> Path:
    """One of the project's programs without what only a debugger reads: an emulated machine loads it sooner."""
    place = binaries() / "lab-deb" / name
    place.parent.mkdir(exist_ok=True)
    subprocess.run(["strip", "-o", str(place), str(program(name))], check=True)
    return place


@dataclass(frozen=True)
class Found:
    """What a check found of the records that were owed."""

    owed: int
    lost: int = 0
    torn: int = 0
    wrong: int = 0
    # How the store was opened, or why it could not be.
    opened: str = ""
    is_usable: bool = True

    @property
    def is_whole(self) -> bool:
        return self.is_usable and not (self.lost or self.torn or self.wrong or "Rebuilt" in self.opened)

    def __str__(self) -> str:
        how = self.opened if self.is_usable else f"UNUSABLE: {self.opened}"
        return f"of {self.owed} records that are owed {self.lost} lost, {self.torn} torn, {self.wrong} wrong; {how}"


class Writer:
    """Writes from `start` until the power goes; `check` afterwards."""

    def __init__(self, machine: Machine, store: str, *flags: str):
        self._machine = machine
        self.store = store
        self._flags = flags
        self._owed: list[int] = []
        self._next = 0
        self._rest = b""
        self._fresh = 0
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        # Since it was made.
        self.acknowledged = 0
        # Whether its store was not there when it started.
        self.is_fresh = True

    def start(self) -> None:
        self._fresh, self._rest = 0, b""
        command = [PROGRAM, self.store, "--start", str(self._next), *self._flags]
        self._thread = threading.Thread(
            target=channel.execute, args=(self._machine.directory, command, self._take), daemon=True
        )
        self._thread.start()

    def wait_for_acknowledgement(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._fresh > 0, PATIENCE_S):
                raise LabError(
                    f"the writer acknowledged nothing in {PATIENCE_S} s", "run store-writer by hand with `lab run`"
                )

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

    def check(self) -> Found:
        """Reads the store and holds it against what is owed. What is lost is owed no longer, so that it counts once."""
        self._owed = sorted(self._owed)[-OWED_MAX:]
        said: list[bytes] = []
        with tempfile.TemporaryFile() as owed:
            owed.write("".join(f"{number}\n" for number in self._owed).encode())
            owed.seek(0)
            command = [PROGRAM, self.store, "--check"]
            take = lambda _, data: said.append(data)  # noqa: E731
            status = channel.execute(self._machine.directory, command, take, stdin=owed, timeout_s=PATIENCE_S)
        text = b"".join(said).decode(errors="replace").strip()
        matched = re.search(r"CHECK lost (\d+) torn (\d+) wrong (\d+) next (\d+) (.*)", text)
        count = len(self._owed)
        if status or not matched:
            self._owed = []
            return Found(count, opened=f"status {status}: {text[-500:]}", is_usable=False)
        lost, torn, wrong, following = (int(matched[group]) for group in range(1, 5))
        self.is_fresh = False
        self._next = max(following, max(self._owed, default=-1) + 1)
        found = Found(count, lost, torn, wrong, matched[5])
        if not found.is_whole:
            self._owed = []
        return found

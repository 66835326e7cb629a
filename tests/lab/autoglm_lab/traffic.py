"""The operator outside the box, the device beyond it, and the count of what was asked against what was done."""

import contextlib
import ctypes
import json
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import LabError
from .product import program

# A level comes again after 97 commands; an execution belongs to a command this near.
NEAR = 48


def start(command: list[str], **options: Any) -> subprocess.Popen:
    """A process that dies with this one."""
    pr_set_pdeathsig = 1
    prepare = lambda: ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)  # noqa: E731
    return subprocess.Popen(command, start_new_session=True, preexec_fn=prepare, **options)


class Device:
    """A simulated lamp: its power can be switched, and its notes of what it carried out survive that."""

    def __init__(self, directory: Path):
        self.line = directory / "lamp"
        self._state = directory / "lamp.json"
        self._notes = directory / "lamp.executions"
        self._log = directory / "lamp.log"
        self._notes.touch()
        self._process: subprocess.Popen | None = None
        # Of simulated-device, besides: other ways by which it is reached.
        self.options: list[str] = []

    def power_on(self, delay_ms: int = 0) -> None:
        command = [str(program("simulated-device")), "lamp", "--pty", str(self.line), "--state", str(self._state)]
        command += ["--executions", str(self._notes), "--delay-ms", str(delay_ms), *self.options]
        with open(self._log, "ab") as log:
            self._process = start(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def power_off(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def is_working(self) -> bool:
        """Whether it carries out a command at this moment."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self._state.read_text("utf-8"))["working"] is not None
        return False

    def executed(self) -> list[int]:
        """The levels that it was set to, in order."""
        notes = [json.loads(line) for line in self._notes.read_text("utf-8").splitlines()]
        return [note["input"]["level"] for note in notes if note["action"] == "set_brightness"]


@dataclass
class Command:
    """One command of the operator's."""

    id: str
    level: int
    sent_at: float
    answered_at: float | None = None
    status: str = ""
    error: str = ""
    asked: int = 0


@dataclass(frozen=True)
class Tally:
    """What became of the commands. `lost`: no answer, or said to be done and not done."""

    sent: int = 0
    delivered: int = 0
    # The operator was told that it was not done, or that it is not known; it may ask again under a new id.
    refused: int = 0
    lost: int = 0
    doubled: int = 0
    faults: tuple[str, ...] = ()

    def __add__(self, other: "Tally") -> "Tally":
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__}
        return Tally(**sums)


class Operator:
    """Commands over the fleet door, one after the other, from its making until `stop`."""

    THING = "urn:dev:ops:32473-desk-lamp-1"

    def __init__(self, port: int, device: Device, run: str, pause_ms: int = 50):
        self._device = device
        self._before = len(device.executed())
        self._commands: list[Command] = []
        self._changed = threading.Condition()
        command = [
            str(program("fleet-operator")),
            "--port",
            str(port),
            "--box",
            "edge",
            "--thing",
            self.THING,
            "--run",
            run,
        ]
        command += ["--pause-ms", str(pause_ms)]
        self._process = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            said, now = json.loads(line), time.monotonic()
            with self._changed:
                if "sent" in said:
                    self._commands.append(Command(said["sent"], said["level"], now))
                else:
                    command = self._commands[-1]
                    command.answered_at, command.asked = now, said["asked"]
                    command.status = said["status"]
                    command.error = ": ".join(said[key] for key in ("error", "message") if said[key])
                self._changed.notify_all()

    def commands(self) -> list[Command]:
        with self._changed:
            return list(self._commands)

    def wait_for_success(self, *, after: float, patience_s: float) -> Command | None:
        """The first command that was done and answered after a moment."""
        deadline = time.monotonic() + patience_s
        with self._changed:
            while True:
                for command in self._commands:
                    if command.status == "SUCCEEDED" and command.answered_at and command.answered_at >= after:
                        return command
                rest = deadline - time.monotonic()
                if rest <= 0:
                    return None
                self._changed.wait(rest)

    def wait_for_count(self, count: int, patience_s: float = 60) -> None:
        """Until so many commands more were done."""
        deadline = time.monotonic() + patience_s
        at = time.monotonic()
        for _ in range(count):
            done = self.wait_for_success(after=at, patience_s=max(deadline - time.monotonic(), 0))
            if done is None or done.answered_at is None:
                raise LabError(f"{count} commands were not done in {patience_s:.0f} s", self.describe())
            at = done.answered_at + 1e-6

    def describe(self) -> str:
        last = [
            f"{command.id} {command.status or 'unanswered'} {command.error}".strip() for command in self.commands()[-3:]
        ]
        return "the last commands: " + ", ".join(last)

    def stop(self, patience_s: float = 60) -> Tally:
        """Ends after the command under way, and counts."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
        with self._changed:
            return count(self._commands, self._device.executed()[self._before :])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class _Matched:
    executions: dict[int, int] = field(default_factory=dict)
    strangers: int = 0


def count(commands: list[Command], executed: list[int]) -> Tally:
    """Holds the device's notes against the operator's commands. Commands and notes are both in the order in which they happened."""
    matched, at = _Matched(), 0
    # Refused ones are not counted on the way: many may stand between two that were done.
    live = [index for index, command in enumerate(commands) if command.status != "REJECTED"]
    for level in executed:
        near = [
            place
            for place in range(max(at - NEAR, 0), min(at + NEAR, len(live)))
            if commands[live[place]].level == level
        ]
        if near:
            at = min(near, key=lambda place: abs(place - at))
            index = live[at]
        else:
            here = live[at] if live else 0
            others = [index for index, command in enumerate(commands) if command.level == level]
            if not others:
                matched.strangers += 1
                continue
            index = min(others, key=lambda index: abs(index - here))
        matched.executions[index] = matched.executions.get(index, 0) + 1
    lost = doubled = delivered = refused = 0
    faults = [f"{matched.strangers} executions that nobody asked for"] if matched.strangers else []
    for index, command in enumerate(commands):
        times = matched.executions.get(index, 0)
        delivered += times > 0
        if times > 1:
            doubled += 1
            faults.append(f"{command.id} was done {times} times")
        if command.answered_at is None:
            lost += 1
            faults.append(f"{command.id} was never answered")
        elif command.status == "SUCCEEDED" and times == 0:
            lost += 1
            faults.append(f"{command.id} was said to be done and was not")
        elif command.status == "REJECTED" and times > 0:
            faults.append(f"{command.id} was refused ({command.error}) and done all the same")
            doubled += 1
        elif times == 0:
            refused += 1
    return Tally(len(commands), delivered, refused, lost, doubled, tuple(faults))


@contextlib.contextmanager
def operator(port: int, device: Device, run: str, pause_ms: int = 50):
    """An operator that ends with the block, whatever happens in it."""
    one = Operator(port, device, run, pause_ms)
    try:
        yield one
    finally:
        one.kill()

"""The guest's journal, followed as it grows: what scenarios wait for and measure by.

Times are the guest's CLOCK_MONOTONIC, as the journal stamps them; `on_host` turns them into this side's.
"""

import json
import re
import threading
import time
from dataclasses import dataclass

from .errors import LabError
from .machine import channel
from .machine.vm import Machine


@dataclass(frozen=True)
class Entry:
    """A line of the journal."""

    at: float
    unit: str
    message: str
    # What the daemon said besides, by name, without journald's prefix.
    fields: dict[str, str]

    def __str__(self) -> str:
        named = "".join(f" {name}={value}" for name, value in sorted(self.fields.items()))
        return f"{self.at:12.6f} {self.unit}: {self.message}{named}"


class Journal:
    """Follows one boot's journal; a machine that was booted again gets a new one."""

    def __init__(self, machine: Machine, *, is_whole: bool):
        self._machine = machine
        self._entries: list[Entry] = []
        self._changed = threading.Condition()
        self._rest = b""
        self._kill = None
        self._thread = threading.Thread(target=self._follow, args=("all" if is_whole else "0",), daemon=True)
        self._thread.start()
        self._wait_until_following()

    def on_host(self, guest_time: float) -> float:
        """A guest's time as time.monotonic() of this side. The clocks are compared anew: the guest's stands still while the machine does."""
        before = time.monotonic()
        guest = channel.guest_monotonic(self._machine.directory)
        # The answer was made some milliseconds before it came.
        return guest_time + (before + time.monotonic()) / 2 - guest

    def now(self) -> int:
        """A place in the journal; what comes later is after it."""
        with self._changed:
            return len(self._entries)

    def since(self, place: int) -> list[Entry]:
        with self._changed:
            return self._entries[place:]

    def wait_for(self, pattern: str, *, after: int, unit: str = "", patience_s: float = 60, **fields: str) -> Entry:
        """The first entry after a place whose message matches, and whose fields are so. Raises LabError when none comes."""
        deadline, at = time.monotonic() + patience_s, after
        expression = re.compile(pattern)
        with self._changed:
            while True:
                for entry in self._entries[at:]:
                    is_meant = entry.unit.startswith(unit) and fields.items() <= entry.fields.items()
                    if is_meant and expression.search(entry.message):
                        return entry
                at = len(self._entries)
                if time.monotonic() >= deadline:
                    raise LabError(
                        f"the journal did not say {pattern!r} ({unit or 'any unit'}) in {patience_s:.0f} s",
                        self._tail(),
                    )
                self._changed.wait(max(deadline - time.monotonic(), 0))

    def stop(self) -> None:
        if self._kill:
            self._kill(15)
        self._thread.join(5)

    def _tail(self) -> str:
        return "its last lines: " + " | ".join(f"{entry.unit}: {entry.message}" for entry in self._entries[-6:])

    def _follow(self, lines: str) -> None:
        command = ["journalctl", "-b", "-f", "-n", lines, "-o", "json"]

        def started(kill) -> None:
            self._kill = kill

        channel.execute(self._machine.directory, command, self._take, started=started)

    def _take(self, is_error: bool, data: bytes) -> None:
        if is_error:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        entries = [entry_of(json.loads(line)) for line in lines if line]
        with self._changed:
            self._entries += entries
            self._changed.notify_all()

    def _wait_until_following(self) -> None:
        mark = f"lab follows {time.monotonic()}"
        self._machine.shell(
            f"n=0; until systemd-cat echo '{mark}'; do sleep 0.1; n=$((n+1)); [ $n -lt 100 ] || exit 1; done"
        )
        deadline = time.monotonic() + 60
        while True:
            with self._changed:
                if any(entry.message == mark for entry in self._entries):
                    return
                self._changed.wait(0.5)
            if time.monotonic() > deadline:
                raise LabError("the guest's journal cannot be followed", "see `lab run journalctl`")
            # Said before the follower was there: say it again.
            self._machine.run(["systemd-cat", "echo", mark])


def entry_of(record: dict) -> Entry:
    """From a line of `journalctl -o json`."""
    # A kernel's line is stamped when it is said, not when it is read; a daemon's by journald.
    stamp = record.get("_SOURCE_MONOTONIC_TIMESTAMP") or record["__MONOTONIC_TIMESTAMP"]
    unit = "kernel" if record.get("_TRANSPORT") == "kernel" else record.get("_SYSTEMD_UNIT") or ""
    # systemd speaks about a unit in its own name.
    if record.get("UNIT"):
        unit = "systemd:" + record["UNIT"]
    message = record.get("MESSAGE")
    if isinstance(message, list):
        message = bytes(message).decode(errors="replace")
    fields = {name[2:].lower(): str(value) for name, value in record.items() if name.startswith("F_")}
    return Entry(int(stamp) / 1e6, unit, message or "", fields)

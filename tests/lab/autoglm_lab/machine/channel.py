"""Commands in the guest, over a virtio-serial port to guest/agent.py, which describes the frames.

A port carries one session at a time; a lock file per port says which are taken, across processes. Works without any network in the
guest, and from the first moments of its boot.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ..errors import EXIT_POWER_LOST, EXIT_TIMEOUT, LabError
from .hardware import CHANNELS

MAGIC = b"\x00LAB1\x00"
# Given (is_stderr, bytes) as they come.
OnOutput = Callable[[bool, bytes], None]


class PowerLost(Exception):
    """The machine ended while a session was open."""


@contextlib.contextmanager
def session(directory: Path, hello_s: float) -> Iterator[socket.socket]:
    """A free port with a freshly greeted agent. Raises PowerLost, or TimeoutError when the agent does not greet back."""
    for number in range(CHANNELS):
        with open(directory / f"ch{number}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            with socket.socket(socket.AF_UNIX) as port:
                try:
                    port.connect(str(directory / f"ch{number}.sock"))
                except OSError as error:
                    raise PowerLost from error
                _greet(port, hello_s)
                yield port
                return
    raise LabError(f"all {CHANNELS} channels into the machine are in use", "end a `lab run` of this machine")


def _greet(port: socket.socket, hello_s: float) -> None:
    """What an earlier session left in the port is skipped by waiting for our own number."""
    mark = MAGIC + os.urandom(16)
    port.sendall(mark)
    port.settimeout(hello_s)
    seen = b""
    while not seen.endswith(mark):
        byte = port.recv(1)
        if not byte:
            raise PowerLost
        seen = (seen + byte)[-64:]
    port.settimeout(None)


def guest_monotonic(directory: Path) -> float:
    """The guest's CLOCK_MONOTONIC in seconds, by which its journal is stamped."""
    with session(directory, 60) as port:
        port.sendall(b"T\0\0\0\0")
        stream: IO[bytes] = port.makefile("rb")
        kind, length = struct.unpack(">cI", _read(stream, 5))
        assert kind == b"Q", "the agent answers a clock question with one frame"
        return struct.unpack(">d", _read(stream, length))[0]


def execute(
    directory: Path,
    argv: list[str],
    on_output: OnOutput,
    *,
    user: str | None = None,
    environment: dict[str, str] | None = None,
    cwd: str | None = None,
    stdin: IO[bytes] | None = None,
    timeout_s: float | None = None,
    hello_s: float = 60,
    started: Callable[[Callable[[int], None]], None] | None = None,
) -> int:
    """Runs a command and returns its exit status: 124 when it was killed after `timeout_s`, 255 when the power went under it.

    `started` is given a function that sends the command's process group a signal.
    """
    request = json.dumps({"argv": argv, "user": user, "env": environment, "cwd": cwd}).encode()
    timer: threading.Timer | None = None
    expired = threading.Event()
    try:
        with session(directory, hello_s) as port:
            _send(port, b"X", request)
            if stdin is None:
                _send(port, b"E")
            else:
                threading.Thread(target=_feed, args=(port, stdin), daemon=True).start()

            def kill(number: int) -> None:
                with contextlib.suppress(OSError):
                    _send(port, b"S", bytes([number]))

            def expire() -> None:
                expired.set()
                kill(signal.SIGKILL)

            if timeout_s is not None:
                timer = threading.Timer(timeout_s, expire)
                timer.daemon = True
                timer.start()
            if started is not None:
                started(kill)
            stream: IO[bytes] = port.makefile("rb", 1 << 18)  # type: ignore[assignment]
            status = _pump(stream, on_output)
            return EXIT_TIMEOUT if expired.is_set() else status
    except (PowerLost, TimeoutError, ConnectionError):
        return EXIT_POWER_LOST
    finally:
        if timer is not None:
            timer.cancel()


def _pump(stream: IO[bytes], on_output: OnOutput) -> int:
    while True:
        kind, length = struct.unpack(">cI", _read(stream, 5))
        payload = _read(stream, length)
        if kind == b"Q":
            return struct.unpack(">i", payload)[0]
        on_output(kind == b"R", payload)


def _feed(port: socket.socket, stdin: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        while part := os.read(stdin.fileno(), 65536):
            _send(port, b"I", part)
        _send(port, b"E")


def _send(port: socket.socket, kind: bytes, payload: bytes = b"") -> None:
    port.sendall(kind + struct.pack(">I", len(payload)) + payload)


def _read(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise PowerLost
    return data

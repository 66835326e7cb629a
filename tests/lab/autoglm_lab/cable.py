"""The cable between a virtual USB serial adapter (qemu's end, a unix socket) and a simulated device's pseudo-terminal.

A thread of its own carries the bytes. Device and adapter come and go independently: a device that reboots leaves the adapter plugged in,
an adapter that is pulled leaves the device its power and its memory. Faults are done here, between the two.
"""

import contextlib
import os
import random
import select
import socket
import threading
import time
import tty
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import LabError
from .machine.qmp import Monitor

# How often a device's pseudo-terminal, or a fault that was switched, is looked for.
TURN_S = 0.02


@dataclass
class Faults:
    """What the cable does to what it carries, each way; chances are per byte."""

    garbled: float = 0.0
    lost: float = 0.0
    # Nothing arrives any more, and nobody is told.
    is_silent: bool = False
    # Bytes per turn that nobody sent, towards the box.
    flood: int = 0


class Cable:
    """Carries bytes from its making until `close`."""

    def __init__(self, socket_path: Path, device_path: Path, seed: int):
        self.socket_path = socket_path
        self.faults = Faults()
        self.carried = {"to the box": 0, "to the device": 0}
        self._device_path = device_path
        self._chance = random.Random(seed)
        with contextlib.suppress(FileNotFoundError):
            socket_path.unlink()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(socket_path))
        self._listener.listen(1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._listener.close()

    def _carry(self) -> None:
        box: socket.socket | None = None
        device: int | None = None
        while not self._ended.is_set():
            if device is None:
                device = self._open_device()
            wanted: list[Any] = [self._listener, *([box] if box else []), *([device] if device is not None else [])]
            ready, _, _ = select.select(wanted, [], [], TURN_S)
            if self._listener in ready:
                if box:
                    box.close()
                box = self._listener.accept()[0]
                box.settimeout(1)
            if box and box in ready:
                data = _receive(box)
                if not data:
                    box.close()
                    box = None
                elif device is not None and not _write(device, self._spoiled(data, "to the device")):
                    os.close(device)
                    device = None
            if device is not None and device in ready:
                data = _read(device)
                if not data:
                    os.close(device)
                    device = None
                else:
                    self._send(box, self._spoiled(data, "to the box"))
            if self.faults.flood:
                self._send(box, self._chance.randbytes(self.faults.flood))
        if box:
            box.close()
        if device is not None:
            os.close(device)

    def _open_device(self) -> int | None:
        try:
            device = os.open(self._device_path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            tty.setraw(device)
        except OSError:
            return None
        return device

    def _spoiled(self, data: bytes, way: str) -> bytes:
        faults, chance = self.faults, self._chance
        if faults.is_silent:
            return b""
        self.carried[way] += len(data)
        if not faults.garbled and not faults.lost:
            return data
        kept = (byte for byte in data if chance.random() >= faults.lost)
        return bytes(byte ^ chance.randrange(1, 256) if chance.random() < faults.garbled else byte for byte in kept)

    @staticmethod
    def _send(box: socket.socket | None, data: bytes) -> None:
        # Without an adapter, or with one that takes nothing (nobody has opened the port), bytes go nowhere, as on a real line.
        if box and data:
            with contextlib.suppress(OSError):
                box.sendall(data)


class Socket:
    """A socket of the box's USB controller, into which an adapter is plugged. Two of one name are the same socket."""

    def __init__(self, name: str, serial_number: str, far_end: Path):
        self._name = name
        self._serial_number = serial_number
        self._far_end = far_end
        self.is_plugged = False

    def plug(self, monitor: Monitor) -> None:
        """The far end is a cable's socket or a terminal device."""
        address = {"type": "unix", "data": {"path": str(self._far_end)}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        if not self._far_end.is_socket():
            backend = {"type": "serial", "data": {"device": str(self._far_end)}}
        line, device = f"line-{self._name}", f"adapter-{self._name}"
        monitor("chardev-add", id=line, backend=backend)
        monitor("device_add", driver="usb-serial", id=device, chardev=line, bus="usb0.0", serial=self._serial_number)
        self.is_plugged = True

    def unplug(self, monitor: Monitor) -> None:
        monitor("device_del", id=f"adapter-{self._name}")
        self.is_plugged = False
        # The line is free once the device is gone, which is a moment later.
        for _ in range(200):
            try:
                monitor("chardev-remove", id=f"line-{self._name}")
                return
            except LabError:
                time.sleep(0.01)
        raise LabError(f"the adapter {self._name} did not let its line go", "this is a fault of the lab")


def _receive(box: socket.socket) -> bytes:
    try:
        return box.recv(4096)
    except OSError:
        return b""


def _read(device: int) -> bytes:
    try:
        return os.read(device, 4096)
    except BlockingIOError:
        return b""
    except OSError:
        # EIO: the other end is gone, and so is the device.
        return b""


def _write(device: int, data: bytes) -> bool:
    try:
        while data:
            data = data[os.write(device, data) :]
    except BlockingIOError:
        # The device does not read: the rest is lost, as in a full receive buffer.
        return True
    except OSError:
        return False
    return True

"""Bluetooth devices around the box, played outside of it (tests/lab/radio/air.py), and the controllers by which the box hears them."""

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from .errors import LabError
from .machine import transfer
from .machine.vm import Machine, free_port
from .places import checkout, lab_directory
from .traffic import start

UNIT = "lab-vhci"
# A controller that is made takes the emulated kernel a second or two; its first HCI command may time out and is tried again.
TRIES = 4
CONTROLLER_S = 20


def tools() -> Path:
    """Where bumble is."""
    command = ["python3", str(checkout() / "models/setup.py"), "lab-tools", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise LabError(f"the lab's tools could not be set up: {run.stderr.strip()[-500:]}", " ".join(command))
    return Path(json.loads(run.stdout)["lab-tools"])


class Air:
    """Until `close`; from `plug` on the box has as many adapters, hci0 and so on."""

    def __init__(self, machine: Machine, directory: Path, devices: list[dict[str, Any]], adapters: int = 1):
        self._machine = machine
        self._events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._ports = [free_port() for _ in range(adapters)]
        radio = lab_directory() / "radio"
        with open(directory / "air.log", "ab") as log:
            self._process = start(
                ["python3", str(radio / "air.py"), ",".join(map(str, self._ports)), json.dumps(devices)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PYTHONPATH": str(tools()), "PYTHONNOUSERSITE": "1", "PATH": "/usr/bin:/bin"},
            )
        threading.Thread(target=self._listen, daemon=True).start()
        self.wait_for("ready")
        transfer.push(machine, [radio / "vhci.py"], "/opt/lab")

    def plug(self, *adapters: int) -> None:
        """The box gets these adapters (all, if none is named), in the order of their numbers, and switches them on."""
        for number in adapters or range(len(self._ports)):
            self._plug(number)

    def _plug(self, number: int) -> None:
        unit, port = f"{UNIT}-{number}", self._ports[number]
        for _ in range(TRIES):
            self._machine.shell(
                f"systemctl stop {unit} 2>/dev/null; systemctl reset-failed {unit} 2>/dev/null; modprobe -a bluetooth hci_vhci && "
                f"systemctl start bluetooth && systemd-run -q --unit={unit} -p Nice=-10 python3 /opt/lab/vhci.py 10.0.2.2 {port}"
            )
            deadline = time.monotonic() + CONTROLLER_S
            while time.monotonic() < deadline:
                switched = f"busctl set-property org.bluez /org/bluez/hci{number} org.bluez.Adapter1 Powered b true"
                if self._machine.run(["sh", "-c", switched]).status == 0:
                    return
                time.sleep(0.5)
        raise LabError(f"adapter hci{number} did not come up", f"lab run 'dmesg | tail; journalctl -u {unit}'")

    def unplug(self, *adapters: int) -> None:
        for number in adapters or range(len(self._ports)):
            self._machine.shell(f"systemctl stop {UNIT}-{number}")
            self.do("unplugged", adapter=number)

    def do(self, what: str, device: str = "", **more: Any) -> None:
        """Returns when it was done."""
        place = self.now()
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": what, "device": device, **more}).encode() + b"\n")
        self._process.stdin.flush()
        self.wait_for("obeyed", after=place)

    def now(self) -> int:
        """A place in what the devices tell; what comes later is after it."""
        with self._changed:
            return len(self._events)

    def wait_for(self, event: str, *, after: int = 0, patience_s: float = 60, **fields: Any) -> dict[str, Any]:
        """The first event of that kind and with these fields after a place."""
        deadline = time.monotonic() + patience_s
        with self._changed:
            while True:
                for told in self._events[after:]:
                    if told["event"] == event and fields.items() <= told.items():
                        return told
                rest = deadline - time.monotonic()
                if rest <= 0 or self._process.poll() is not None:
                    wanted = f"{event} {fields or ''}".strip()
                    raise LabError(f"the devices did not tell: {wanted}", f"the last: {self._events[-5:]}")
                self._changed.wait(min(rest, 1))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            told = {**json.loads(line), "at": time.monotonic()}
            with self._changed:
                self._events.append(told)
                self._changed.notify_all()

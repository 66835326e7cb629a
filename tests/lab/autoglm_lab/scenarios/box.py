"""The box under test: the machine with the daemon installed, a lamp at the end of a cable, and a fleet's broker.

The lamp and the operator live outside the machine, so they keep what they know when its power is cut. The broker runs in the machine,
or outside of it where the machine's power is cut.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .. import product
from ..cable import Cable, Faults, Socket
from ..errors import LabError
from ..fresh import start as start_machine
from ..journal import Entry, Journal
from ..machine.vm import Machine, free_port
from ..traffic import Device, Operator, operator
from ..traffic import start as start_process

SERIAL_NUMBER = "LAB0001"
PORT = f"/dev/autoglm-edge/serial-{SERIAL_NUMBER}-if00-port0"
UNIT = "autoglm-edged.service"
CONFIG = """[box]
id = "edge"
[log]
filter = "warn,autoglm_edge=debug,autoglm_drivers=debug"
[fleet]
broker = "{broker}"
[[device]]
name = "desk"
links = ["serial://{port}?baud=115200"]
"""
INNER_BROKER = "mqtt://127.0.0.1:1883"
MOSQUITTO = "listener {port} {address}\nallow_anonymous true\nset_tcp_nodelay true\nmax_packet_size 1048576\n"
# Anything that comes at all comes sooner on an emulated machine that shares its processors.
PATIENCE_S = 90


class Box:
    """One box, from `start` until `close`."""

    def __init__(self, name: str, seed: int, *, cuts: int = 0, is_bound: bool = True):
        self.seed = seed
        # How often its power will be cut.
        self.cuts = cuts
        self.machine = Machine(name)
        self.has_inner_broker = cuts == 0
        self._is_volatile = cuts > 0
        self._is_bound = is_bound
        # Short, because a socket's path is short.
        self.directory = Path(tempfile.mkdtemp(prefix="autoglm-lab-"))
        self.device = Device(self.directory)
        self.cable = Cable(self.directory / "cable.sock", self.device.line, seed)
        self.socket = Socket("desk", SERIAL_NUMBER, self.directory / "cable.sock")
        self._journal: Journal | None = None
        self._broker: subprocess.Popen | None = None
        self._broker_port = 0
        self._runs = 0

    # -- its life

    def start(self) -> None:
        """Up, installed, plugged in and obeying."""
        package = product.package()
        self.machine = start_machine(self.machine.name, is_volatile=self._is_volatile, is_bound=self._is_bound)
        if not self.has_inner_broker:
            self.start_outer_broker()
        self._journal = Journal(self.machine, is_whole=False)
        self.machine.push([package], "/root")
        broker = INNER_BROKER if self.has_inner_broker else f"mqtt://10.0.2.2:{self._broker_port}"
        self.machine.shell(
            f"mkdir -p /etc/autoglm-edge; cat > /etc/autoglm-edge/config.toml <<'E'\n{CONFIG.format(broker=broker, port=PORT)}E\n"
            f"cat > /etc/mosquitto/conf.d/lab.conf <<'E'\n{MOSQUITTO.format(port=1883, address='0.0.0.0')}E\n"
            + ("systemctl enable --now --quiet mosquitto\n" if self.has_inner_broker else "")
            + f"dpkg -i --force-confold /root/{package.name} >/dev/null",
            timeout_s=300,
        )
        self.device.power_on()
        self.plug()

    def close(self) -> None:
        with contextlib.suppress(LabError):
            self.machine.destroy()
        if self._broker:
            self._broker.kill()
            self._broker.wait()
        self.device.power_off()
        self.cable.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def boot(self) -> float:
        """Boots again after a cut or an orderly end; returns how long the guest took until its agent answered."""
        seconds = self.machine.boot()
        self._journal = Journal(self.machine, is_whole=True)
        # The emulator forgets what was plugged in when it ends; the cable is still in its socket.
        if self.socket.is_plugged:
            self.plug()
        return seconds

    def cut(self, unflushed: str = "none") -> dict[str, int]:
        return self.machine.cut(unflushed)

    def settle(self) -> None:
        """Puts everything right that a scenario may have left wrong; raises when the box does not obey then."""
        self.cable.faults = Faults()
        if not self.socket.is_plugged:
            self.plug()
        restored = f"systemctl is-active --quiet {UNIT} || systemctl restart {UNIT}"
        if self.has_inner_broker:
            restored = f"systemctl is-active --quiet mosquitto || systemctl restart mosquitto; {restored}"
        self.machine.shell(restored)
        with self.operator() as one:
            began = time.monotonic()
            if not one.wait_for_success(after=began, patience_s=PATIENCE_S):
                raise LabError(f"the box does not obey after {PATIENCE_S} s", one.describe())

    # -- what is done to it

    def plug(self) -> None:
        with self.machine.monitor() as monitor:
            self.socket.plug(monitor)

    def unplug(self) -> None:
        with self.machine.monitor() as monitor:
            self.socket.unplug(monitor)

    def shell(self, script: str) -> str:
        return self.machine.shell(script, timeout_s=300)

    def start_outer_broker(self) -> None:
        self._broker_port = self._broker_port or free_port()
        config = self.directory / "mosquitto.conf"
        config.write_text(MOSQUITTO.format(port=self._broker_port, address="127.0.0.1"), "utf-8")
        command = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
        if not command:
            raise LabError("there is no mosquitto on this side", "python3 models/setup.py system --groups demo")
        with open(self.directory / "mosquitto.log", "ab") as log:
            self._broker = start_process([command, "-c", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._broker_port), 1):
                return
            time.sleep(0.05)
        raise LabError("mosquitto did not come up on this side", str(self.directory / "mosquitto.log"))

    # -- what is seen of it

    @property
    def journal(self) -> Journal:
        assert self._journal, "the box was started"
        return self._journal

    @property
    def broker_port(self) -> int:
        """Where an operator on this side finds the fleet's broker."""
        return self.machine.settings.broker_port if self.has_inner_broker else self._broker_port

    @contextlib.contextmanager
    def operator(self, pause_ms: int = 50) -> Iterator[Operator]:
        self._runs += 1
        with operator(self.broker_port, self.device, f"lab{self.seed}-{self._runs}", pause_ms) as one:
            yield one

    def wait_for(self, pattern: str, *, after: int, unit: str = "", patience_s: float = PATIENCE_S) -> Entry:
        return self.journal.wait_for(pattern, after=after, unit=unit, patience_s=patience_s)

    def property(self, name: str) -> str:
        """A property of the unit."""
        return self.shell(f"systemctl show {UNIT} -p {name} --value").strip()

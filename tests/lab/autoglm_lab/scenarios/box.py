"""The box under test: the machine with the daemon installed, a lamp at the end of a cable, and a fleet's broker.

The lamp and the operator live outside the machine, so they keep what they know when its power is cut. The broker runs in the machine,
or outside of it where the machine's power is cut.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import product
from ..cable import Cable, Faults, Socket
from ..errors import LabError
from ..fresh import start as start_machine
from ..journal import Entry, Journal
from ..machine import transfer
from ..machine.vm import Machine
from ..outside import COMMON, OutsideBroker
from ..traffic import Device, Operator, operator
from .report import Notes

SERIAL_NUMBER = "LAB0001"
PORT = f"/dev/autoglm-edge/serial-{SERIAL_NUMBER}-if00-port0"
UNIT = "autoglm-edged.service"
CONFIG = """[box]
id = "edge"
[log]
filter = "warn,autoglm_edge=debug,autoglm_drivers=debug"
[fleet]
broker = "{broker}"
"""
LINE = f"serial://{PORT}?baud=115200"
DESK = f"""[[device]]
name = "desk"
links = ["{LINE}"]
"""
INNER_BROKER = "mqtt://127.0.0.1:1883"
INNER_MOSQUITTO = f"listener 1883 0.0.0.0\n{COMMON}"
KEYS = "/etc/autoglm-edge/keys"
# For the broker outside: whatever leaves the box is guarded by TLS.
TLS = f"""[fleet.tls]
ca = "{KEYS}/ca.pem"
certificate = "{KEYS}/box.pem"
key = "{KEYS}/box.key"
"""
# The daemon's own words: for a device that has introduced itself, or whose connection goes on over a link that is back ...
CONNECTED = "^device connected( again: its connection goes on)?$"
# ... and for one that is gone.
LOST = "^(link|connection) lost"
# Anything that comes at all comes sooner on an emulated machine that shares its processors.
PATIENCE_S = 90


# What scenarios share, as `_radio` in radio.py.
Equipment = Callable[["Box"], contextlib.AbstractContextManager[None]]


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
        self._broker: OutsideBroker | None = None
        self._runs = 0
        self._equipment: tuple[Equipment, contextlib.ExitStack] | None = None

    # -- its life

    def start(self) -> None:
        """Up, installed, plugged in and obeying."""
        package = product.package()
        self.machine = start_machine(self.machine.name, is_volatile=self._is_volatile, is_bound=self._is_bound)
        self._journal = Journal(self.machine, is_whole=False)
        self.push([package], "/root")
        if self.has_inner_broker:
            self.shell(
                f"cat > /etc/mosquitto/conf.d/lab.conf <<'E'\n{INNER_MOSQUITTO}E\nsystemctl enable --now --quiet mosquitto"
            )
        else:
            self._broker = OutsideBroker(self.directory)
            self.push(self._broker.certificates(), KEYS)
        self.shell(f"dpkg -i --force-confold /root/{package.name} >/dev/null")
        self.configure()
        self.device.power_on()
        self.plug()

    def close(self) -> None:
        with contextlib.suppress(LabError):
            self.machine.destroy()
        if self._broker:
            self._broker.close()
        self.device.power_off()
        self.cable.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def boot(self) -> float:
        """Boots again after a cut or an orderly end; returns how long the guest took until its agent answered."""
        seconds = self.machine.boot()
        self._journal = None
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
            # To the end of its command under way, which would be counted in the scenario otherwise.
            one.stop()

    def equip(self, equipment: Equipment) -> None:
        """Puts something up that scenarios share, unless it stands already; `unequip` takes it down."""
        if self._equipment and self._equipment[0] == equipment:
            return
        self.unequip()
        stack = contextlib.ExitStack()
        stack.enter_context(equipment(self))
        self._equipment = (equipment, stack)

    def unequip(self) -> None:
        if self._equipment:
            stack, self._equipment = self._equipment[1], None
            stack.close()

    # -- what is done to it

    def configure(self, devices: str = DESK) -> None:
        """Gives the daemon these devices, and starts it anew."""
        fleet = CONFIG.format(broker=self._broker.url) + TLS if self._broker else CONFIG.format(broker=INNER_BROKER)
        # Nobody speaks to this box, and hearing would keep an emulated processor busy for a minute.
        fleet += '[inference]\nstt = ""\n'
        # Keys must be the daemon's user's, whom the package makes.
        self.shell(
            f"cat > /etc/autoglm-edge/config.toml <<'E'\n{fleet}{devices}E\n"
            f"[ ! -d {KEYS} ] || chown -R autoglm-edge: {KEYS} && systemctl restart {UNIT}"
        )

    def plug(self) -> None:
        with self.machine.monitor() as monitor:
            self.socket.plug(monitor)

    def unplug(self) -> None:
        with self.machine.monitor() as monitor:
            self.socket.unplug(monitor)

    def push(self, sources: list[Path], destination: str) -> None:
        transfer.push(self.machine, sources, destination)

    def shell(self, script: str) -> str:
        return self.machine.shell(script, timeout_s=300)

    # -- what is seen of it

    @property
    def journal(self) -> Journal:
        # After a boot all of it, from the boot's first line; made when it is asked for, since reading it costs the guest seconds.
        if self._journal is None:
            self._journal = Journal(self.machine, is_whole=True)
        return self._journal

    @property
    def broker_port(self) -> int:
        """Where an operator on this side finds the fleet's broker."""
        return self._broker.clear_port if self._broker else self.machine.settings.broker_port

    @contextlib.contextmanager
    def operator(self, pause_ms: int = 50) -> Iterator[Operator]:
        self._runs += 1
        with operator(self.broker_port, self.device, f"lab{self.seed}-{self._runs}", pause_ms) as one:
            yield one

    @contextlib.contextmanager
    def traffic(self, notes: Notes, *, first: int = 10, last: int = 10, pause_ms: int = 50) -> Iterator[Operator]:
        """An operator at work: so many commands before the block, so many after it, and all of them counted."""
        with self.operator(pause_ms) as one:
            one.wait_for_count(first)
            yield one
            one.wait_for_count(last)
            notes.counted(one.stop())

    def wait_for(
        self, pattern: str, *, after: int, unit: str = "", patience_s: float = PATIENCE_S, **fields: str
    ) -> Entry:
        return self.journal.wait_for(pattern, after=after, unit=unit, patience_s=patience_s, **fields)

    def property(self, name: str) -> str:
        """A property of the unit."""
        return self.shell(f"systemctl show {UNIT} -p {name} --value").strip()

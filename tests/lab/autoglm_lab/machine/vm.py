"""A machine's life: up, commands, cut, boot, down. Its state is a directory (places.py), so any process can take it up by name.

Three kinds of disk: `overlay` (a power cut loses the guest's page cache), `volatile` (it also loses what the guest wrote and did not
flush; see volatile_disk.py), `plain` (writes into the image itself: only for making the snapshot).
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from .. import places
from ..console import note
from ..errors import LabError
from . import channel
from .hardware import MEMORY_MB, TRANSFER_BYTES, Wiring, arguments
from .qmp import Monitor

# A cold boot takes 8 to 40 s under emulation; a guest that needs longer hangs.
BOOT_LIMIT_S = int(os.environ.get("LAB_BOOT_LIMIT", "120"))
SET_CLOCK = (
    "import time,fcntl,struct,sys;time.clock_settime(0,float(sys.argv[1]));d=bytes.fromhex(sys.argv[2]);"
    "f=open('/dev/urandom','wb');fcntl.ioctl(f,0x40085203,struct.pack('ii',256,32)+d);fcntl.ioctl(f,0x5207)"
)


@dataclass(frozen=True)
class Settings:
    """What a machine was made with; vm.json in its directory."""

    image: str
    disk: str
    base: str
    accelerator: str
    broker_port: int
    # Killed with the process that started it, as a scenario's machine must be.
    is_bound: bool


@dataclass(frozen=True)
class Output:
    """What came of a command in the guest."""

    status: int
    stdout: str
    stderr: str


class Machine:
    """One virtual machine, running or not."""

    def __init__(self, name: str):
        self.name = name
        self.directory = places.machine(name)
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            try:
                text = (self.directory / "vm.json").read_text("utf-8")
            except FileNotFoundError:
                raise LabError(f"there is no machine {self.name!r}", "start one with `lab up`") from None
            self._settings = Settings(**json.loads(text))
        return self._settings

    # -- life

    def create(self, settings: Settings) -> None:
        self.destroy()
        self.directory.mkdir(parents=True)
        (self.directory / "vm.json").write_text(json.dumps(asdict(settings)), "utf-8")
        self._settings = settings

    def is_running(self) -> bool:
        return self._process("qemu.pid") is not None

    def boot(self, *, is_warm: bool = False) -> float:
        """Starts it and waits for the agent; returns the seconds that took.

        An emulated guest hangs early in the kernel now and then (one boot in a hundred was seen to): it is started again. What
        was not flushed is kept then, so this is no power cut.
        """
        began = time.monotonic()
        for is_last in (False, False, True):
            self.launch(is_warm=is_warm)
            if self.wait_for_agent(BOOT_LIMIT_S):
                if is_warm:
                    self._set_clock()
                return time.monotonic() - began
            if not is_last:
                note(f"{self.name} did not come up in {BOOT_LIMIT_S} s; starting it again")
                self.cut("all")
        console = (self.directory / "console.log").read_text("utf-8", errors="replace")[-2000:]
        raise LabError(f"the agent did not answer in {BOOT_LIMIT_S} s; the console's end:\n{console}", "see `lab log`")

    def launch(self, *, is_warm: bool = False) -> None:
        if self.is_running():
            raise LabError(
                f"the machine {self.name!r} is running already", "use `lab down` first, or another name (-n)"
            )
        for path in self.directory.glob("*.sock"):
            path.unlink()
        settings = self.settings
        wiring = Wiring(
            self.directory, Path(settings.image), settings.accelerator, self._root_drive(), settings.broker_port
        )
        with open(self.directory / "transfer.raw", "a") as transfer:
            transfer.truncate(TRANSFER_BYTES)
        command = arguments(wiring)
        if is_warm:
            command += ["-incoming", f"exec:cat '{settings.image}/warm.state'"]
        process = self._spawn(command, "qemu.log")
        deadline = time.monotonic() + 20
        while not wiring.socket("qmp").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                words = (self.directory / "qemu.log").read_text("utf-8", errors="replace")[-2000:]
                raise LabError(f"qemu did not start: {words}", _remedy(words))
            time.sleep(0.01)
        if is_warm:
            with self.monitor() as monitor:
                while monitor("query-status")["status"] == "inmigrate":
                    time.sleep(0.02)
                monitor("cont")

    def wait_for_agent(self, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if not self.is_running():
                words = (self.directory / "qemu.log").read_text("utf-8", errors="replace")[-1500:]
                raise LabError(f"qemu ended: {words}", "see `lab log` for the guest's console")
            if self.run(["/bin/true"], hello_s=max(deadline - time.monotonic(), 0.1)).status == 0:
                return True
            time.sleep(0.05)
        return False

    def wait_for_system(self) -> str:
        """Until systemd has started everything; `running`, or `degraded` when a unit failed."""
        return self.run(["systemctl", "is-system-running", "--wait"]).stdout.strip()

    def _set_clock(self) -> None:
        """After a resume the guest's clock is the snapshot's, and so is its random pool."""
        self.run(["/usr/bin/python3", "-I", "-S", "-c", SET_CLOCK, f"{time.time():.3f}", os.urandom(32).hex()])

    def cut(self, unflushed: str = "none") -> dict[str, int]:
        """Pulls the plug. For a volatile disk `unflushed` is none, all or random:SEED, and its tally is returned."""
        if self.settings.disk != "volatile":
            self.kill()
            return {}
        mode, _, seed = unflushed.partition(":")
        qemu, disk = self._process("qemu.pid"), self._process("disk.pid")
        if qemu:
            # The processor stops first, so that nothing reaches the disk after the moment of the cut.
            os.kill(qemu, signal.SIGKILL if mode == "all" else signal.SIGSTOP)
        if disk:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control, contextlib.suppress(OSError):
                control.sendto(
                    f"cut {mode} {seed or os.urandom(4).hex()}".encode(), str(self.directory / "control.sock")
                )
            self._wait_until_gone("disk.pid")
        self.kill()
        with contextlib.suppress(OSError):
            return json.loads((self.directory / "disk.volatile.stat").read_text("ascii"))
        return {}

    def kill(self) -> None:
        if process := self._process("qemu.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            self._wait_until_gone("qemu.pid")

    def power_off(self) -> bool:
        """An orderly end; false when the guest had to be killed."""
        self.run(["systemctl", "poweroff"])
        deadline = time.monotonic() + 60
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(0.1)
        was_orderly = not self.is_running()
        self.kill()
        return was_orderly

    def destroy(self) -> None:
        if self.directory.exists():
            self.kill()
            if disk := self._process("disk.pid"):
                os.kill(disk, signal.SIGKILL)
            shutil.rmtree(self.directory, ignore_errors=True)

    # -- inside

    def run(
        self, argv: list[str], *, hello_s: float = 60, timeout_s: float | None = None, user: str | None = None
    ) -> Output:
        """Runs a command and keeps what it says."""
        out, err = bytearray(), bytearray()
        status = channel.execute(
            self.directory,
            argv,
            lambda is_error, data: (err if is_error else out).extend(data),
            hello_s=hello_s,
            timeout_s=timeout_s,
            user=user,
        )
        return Output(status, out.decode(errors="replace"), err.decode(errors="replace"))

    def shell(self, script: str, *, timeout_s: float | None = 120, user: str | None = None) -> str:
        """Runs a shell script that has to succeed; returns its output."""
        output = self.run(["/bin/bash", "-c", script], timeout_s=timeout_s, user=user)
        if output.status:
            words = (output.stdout + output.stderr).strip()[-1500:]
            raise LabError(
                f"in the guest: {script.strip()[:300]!r} ended with status {output.status}: {words}", "see `lab log`"
            )
        return output.stdout

    def monitor(self) -> Monitor:
        return Monitor(self.directory / "qmp.sock")

    # -- processes

    def _root_drive(self) -> str:
        place, settings = self.directory, self.settings
        if settings.disk == "plain":
            return f"file={settings.base},format=raw,cache=writeback"
        if settings.disk == "overlay":
            overlay = place / "disk.qcow2"
            if not overlay.exists():
                command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", settings.base, str(overlay)]
                subprocess.run(command, check=True)
            return f"file={overlay},format=qcow2,cache=writeback"
        server = [sys.executable, str(Path(__file__).with_name("volatile_disk.py")), str(place / "disk.sock")]
        server += [str(place / "disk.volatile"), settings.base, str(place / "control.sock")]
        process = self._spawn(server, "disk.log")
        (place / "disk.pid").write_text(str(process.pid), "ascii")
        while not (place / "disk.sock").exists():
            if process.poll() is not None:
                raise LabError(
                    f"the volatile disk did not start: {(place / 'disk.log').read_text()[-1500:]}",
                    "this is a fault of the lab",
                )
            time.sleep(0.01)
        return f"file.driver=nbd,file.server.type=unix,file.server.path={place}/disk.sock,format=raw,cache=writeback"

    def _spawn(self, command: list[str], log: str) -> subprocess.Popen:
        niceness = int(os.environ.get("LAB_NICE", "0"))

        def prepare() -> None:
            os.nice(niceness)
            if self.settings.is_bound:
                pr_set_pdeathsig = 1
                ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

        output: IO[bytes]
        with open(self.directory / log, "ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Deaf to this terminal's Ctrl-C; but no session of its own, for its first terminal (a device that is plugged in)
                # would become the one whose end is the emulator's.
                process_group=0,
                preexec_fn=prepare,
            )

    def _process(self, file: str) -> int | None:
        """The process, if it lives and is this machine's: numbers are used again."""
        try:
            number = int((self.directory / file).read_text("ascii"))
            command_line = Path(f"/proc/{number}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return number if os.fsencode(self.directory) in command_line else None

    def _wait_until_gone(self, file: str) -> None:
        while number := self._process(file):
            # A child of ours stays a zombie (with an empty command line) until it is waited for; others' children are not ours to.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(number, os.WNOHANG)
            time.sleep(0.005)


def _remedy(words: str) -> str:
    """What helps against what qemu says when it does not start."""
    remedies = {
        "not compiled": "this qemu has no user networking: take Debian's (python3 models/setup.py system --groups lab)",
        "host forwarding": "another program holds the port: try again, another one is taken",
        "memory": f"{MEMORY_MB} MB of free memory are needed",
    }
    hints = (hint for part, hint in remedies.items() if part in words)
    return next(hints, "see its words above, and qemu.log in `lab dir`")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def existing() -> list[Machine]:
    return [Machine(path.name) for path in sorted(places.machines().glob("*")) if (path / "vm.json").exists()]

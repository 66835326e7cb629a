"""Stage two: from the plain root to the lab's disk: our agent, the network, users, and what is quiet. Needs root."""

import contextlib
import shutil
from pathlib import Path

from ..console import stage
from ..places import lab_directory
from .kernel import write_initrd, write_kernel
from .recipe import COLDPLUGGED, DISABLED_UNITS, DISK_SIZE, MASKED_UNITS
from .rootfs import build_rootfs, run

FILES = {
    "etc/hostname": "edge\n",
    "etc/hosts": "127.0.0.1 localhost edge\n::1 localhost\n10.0.2.2 outside\n",
    "etc/fstab": "",
    "etc/machine-id": "1ab01ab01ab01ab01ab01ab01ab01ab0\n",
    # Logs are what scenarios measure by: all of them, and none held back.
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=32M\nRateLimitBurst=0\n",
    "etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStopSec=20s\n",
    # Only what a box has, or its daemon meets: the processor's and the board's drivers cost seconds, and nobody uses them.
    "etc/systemd/system/systemd-udev-trigger.service.d/lab.conf": "[Service]\nExecStart=\nExecStart=-udevadm trigger "
    "--type=devices --action=add " + " ".join(f"--subsystem-match={kind}" for kind in COLDPLUGGED) + "\n",
}
# Two people who are nobody in particular, for the tests of who may do what.
USERS = ("alice", "bob")


def build_disk(place: Path) -> None:
    """Makes `place` with base.raw, vmlinux and initrd, whole or not at all."""
    archive = build_rootfs()
    work = place.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    root = work / "root"
    root.mkdir(parents=True)
    try:
        with stage("disk, kernel and initial ram disk"):
            run("tar", "-C", str(root), "--numeric-owner", "-xpf", str(archive))
            write_kernel(root / "boot/vmlinuz", work / "vmlinux")
            write_initrd(root, work / "initrd")
            shutil.rmtree(root / "boot")
            (root / "boot").mkdir()
            _furnish(root)
            filesystem = ["-t", "ext4", "-E", "lazy_itable_init=0,root_owner=0:0", "-d", str(root)]
            run("mke2fs", "-q", *filesystem, str(work / "base.raw"), DISK_SIZE)
            shutil.rmtree(root)
            work.rename(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _furnish(root: Path) -> None:
    guest = lab_directory() / "guest"
    (root / "usr/local/lib/lab").mkdir(parents=True, exist_ok=True)
    shutil.copy(guest / "agent.py", root / "usr/local/lib/lab/agent.py")
    units = sorted(path.name for path in guest.glob("*.service"))
    for name in units:
        shutil.copy(guest / name, root / "etc/systemd/system" / name)
    for path in guest.glob("lab-*"):
        if path.suffix != ".service":
            shutil.copy(path, root / "usr/local/bin" / path.name)
            (root / "usr/local/bin" / path.name).chmod(0o755)
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    for unit in MASKED_UNITS:
        with contextlib.suppress(FileExistsError):
            (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    _without_generators(root)
    run("chroot", str(root), "systemctl", "-q", "set-default", "multi-user.target")
    run("chroot", str(root), "systemctl", "-q", "enable", *units)
    run("chroot", str(root), "systemctl", "-q", "disable", *DISABLED_UNITS)
    for user in USERS:
        run("chroot", str(root), "useradd", "-m", "-s", "/bin/bash", user)
    # udev would read 11 MB of names at each boot.
    run("chroot", str(root), "sh", "-c", "rm -rf /usr/lib/udev/hwdb.d /usr/lib/udev/hwdb.bin")


def _without_generators(root: Path) -> None:
    """Twelve programs that look for what this box has not (encrypted disks, sysvinit scripts), at each boot and reload."""
    masks = root / "etc/systemd/system-generators"
    masks.mkdir(parents=True, exist_ok=True)
    for generator in (root / "usr/lib/systemd/system-generators").iterdir():
        (masks / generator.name).symlink_to("/dev/null")

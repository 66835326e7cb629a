"""Stage three: boots the disk once and keeps memory and disk of the moment when the box is up: later starts take a second.

Also decides between KVM and emulation, by a boot: on some hosts /dev/kvm is there and a stock kernel dies under it.
"""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ..console import note, stage
from ..errors import LabError
from ..machine.vm import Machine, Settings, free_port
from ..places import images, lab_directory
from .disk import build_disk
from .recipe import image_directory

# A kernel that works under KVM answers within five seconds.
KVM_PATIENCE_S = 20
# Root, its archive, and two disks of the image, of which a third is filled.
NEEDED_BYTES = 4 << 30
# Images that nobody used for so long are deleted when a new one is built.
UNUSED_AFTER_S = 14 * 24 * 3600


def ensure_image() -> Path:
    """The image of this checkout's recipe, built if it is not there. One build at a time; others wait."""
    images().mkdir(parents=True, exist_ok=True)
    image = image_directory()
    with open(images() / "build.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("another build of an image is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not (image / "base.raw").exists():
            _look_for_space()
            _as_root(image)
        if not (image / "warm.state").exists():
            _boot_once(image)
        os.utime(image)
        _clear_unused(image)
    return image


def accelerator() -> str:
    """`kvm` or `tcg`, as found when the image was built; LAB_ACCEL overrides."""
    if chosen := os.environ.get("LAB_ACCEL"):
        return chosen
    verdicts = _verdicts()
    return verdicts.get(_host(), "tcg")


def _look_for_space() -> None:
    free = shutil.disk_usage(images()).free
    if free < NEEDED_BYTES:
        raise LabError(
            f"{images()} has {free >> 20} MB of space, and building the image takes {NEEDED_BYTES >> 20}",
            "make space there, or set XDG_CACHE_HOME to a larger disk",
        )


def _as_root(image: Path) -> None:
    """Making files of other owners needs root: directly, or this one step through sudo."""
    if os.geteuid() == 0:
        build_disk(image)
        return
    if not shutil.which("sudo"):
        raise LabError(
            "building the lab's image needs root, and there is no sudo", f"run as root: {lab_directory()}/lab build"
        )
    note("building the image needs root: asking sudo")
    environment = [f"XDG_CACHE_HOME={images().parent.parent}"]
    command = [
        "sudo",
        "env",
        *environment,
        sys.executable,
        str(lab_directory() / "lab"),
        "_build-disk",
        str(os.getuid()),
    ]
    if subprocess.run(command, check=False).returncode:
        raise LabError(
            "building the lab's image as root was refused or failed", f"run as root: {lab_directory()}/lab build"
        )


def build_disk_for(user: int) -> None:
    """The part behind sudo: builds, and gives what it built to the user."""
    image = image_directory()
    build_disk(image)
    for path in [*images().glob("rootfs-*.tar"), image, *image.iterdir()]:
        os.chown(path, user, -1)


def _boot_once(image: Path) -> None:
    _try_kvm(image)
    with stage("first boot and snapshot"):
        disk = image / "warm.raw"
        subprocess.run(["cp", "--sparse=always", str(image / "base.raw"), str(disk)], check=True)
        machine = Machine(f"image{os.getpid()}")
        machine.create(_settings(image, "plain", disk, accelerator()))
        try:
            machine.boot()
            state = machine.wait_for_system()
            if state != "running":
                failed = machine.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout.strip()
                note(f"the fresh box is {state}: {failed}")
            machine.shell("sync; sleep 1; sync")
            with machine.monitor() as monitor:
                monitor("stop")
                monitor("migrate-set-parameters", **{"max-bandwidth": 8 << 30})
                partial = image / "warm.partial"
                monitor("migrate", uri=f"exec:cat > '{partial}'")
                while (status := monitor("query-migrate").get("status")) != "completed":
                    if status == "failed":
                        raise LabError("qemu could not write the snapshot", f"is the disk full? {image}")
                    time.sleep(0.1)
                monitor("quit")
            machine.kill()
            partial.rename(image / "warm.state")
        finally:
            machine.destroy()


def _try_kvm(image: Path) -> None:
    if os.environ.get("LAB_ACCEL") or _host() in _verdicts() or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return
    machine = Machine(f"kvm{os.getpid()}")
    machine.create(_settings(image, "overlay", image / "base.raw", "kvm"))
    try:
        machine.launch()
        verdict = "kvm" if machine.wait_for_agent(KVM_PATIENCE_S) else "tcg"
    except LabError:
        verdict = "tcg"
    finally:
        machine.destroy()
    note(
        "KVM boots the box" if verdict == "kvm" else "there is /dev/kvm, but the box does not boot under it: emulating"
    )
    (images() / "accelerators.json").write_text(json.dumps({**_verdicts(), _host(): verdict}), "utf-8")


def _settings(image: Path, disk: str, base: Path, chosen: str) -> Settings:
    return Settings(str(image), disk, str(base), chosen, free_port(), is_bound=True)


def _verdicts() -> dict[str, str]:
    try:
        return json.loads((images() / "accelerators.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _host() -> str:
    return f"{platform.node()} {platform.release()}"


def _clear_unused(current: Path) -> None:
    for path in images().glob("*-????????????*"):
        is_ours = path.name.startswith(("image-", "rootfs-")) and path != current
        if is_ours and time.time() - path.stat().st_mtime > UNUSED_AFTER_S:
            note(f"deleting {path.name}, unused for {UNUSED_AFTER_S // 86400} days")
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()

"""Stage one: a plain Debian root with a kernel, as an archive. Needs root, for it makes files of other owners.

The kernel package is unpacked rather than installed: no initramfs-tools, no boot loader, no triggers.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from ..console import stage
from ..errors import LabError
from .recipe import PACKAGES, PRUNED_MODULES, SUITE, rootfs_archive

KERNEL_HOOK = """#!/bin/sh
set -e
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \\(linux-image-[0-9][^ ]*\\).*/\\1/p' | head -1)
cd '{work}'
apt-get download -q "$kernel" >&2
dpkg-deb -x linux-image-*.deb unpacked
mkdir -p "$1/usr/lib/modules"
mv unpacked/lib/modules/* "$1/usr/lib/modules/"
mv unpacked/boot/vmlinuz-* "$1/boot/vmlinuz"
"""
# Nobody reads manuals in the lab.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def build_rootfs() -> Path:
    archive = rootfs_archive()
    if archive.exists():
        return archive
    work = archive.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    work.chmod(0o755)
    try:
        with stage(f"Debian root from {len(PACKAGES)} packages and what they need (some minutes, once)"):
            _bootstrap(work)
            partial = work / "rootfs.tar"
            run("tar", "-C", str(work / "root"), "--numeric-owner", "-cf", str(partial), ".")
            partial.rename(archive)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return archive


def _bootstrap(work: Path) -> None:
    root, hook = work / "root", work / "kernel.sh"
    hook.write_text(KERNEL_HOOK.format(work=work), "utf-8")
    hook.chmod(0o755)
    run(
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        f"--customize-hook={hook}",
        SUITE,
        str(root),
    )
    version = next((root / "lib/modules").iterdir()).name
    for pruned in PRUNED_MODULES:
        shutil.rmtree(root / "lib/modules" / version / "kernel" / pruned, ignore_errors=True)
    run("chroot", str(root), "depmod", version)
    run("chroot", str(root), "sh", "-c", "rm -rf /var/cache/apt/* /var/lib/apt/lists/*")


def run(*command: str) -> None:
    """Runs a step of the build; its own words go to stderr, where people look."""
    status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode
    if status:
        raise LabError(
            f"building the image failed: {' '.join(command)[:200]} ended with status {status}",
            "see its lines above; the build starts over the next time. In a container it must be allowed to mount and chroot "
            "(CAP_SYS_ADMIN); or build elsewhere and copy ~/.cache/autoglm-edge/lab here",
        )

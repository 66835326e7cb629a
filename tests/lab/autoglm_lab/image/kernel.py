"""The kernel as qemu wants it, and an initial ram disk of busybox and six modules that mounts the root and leaves.

qemu boots an uncompressed ELF kernel directly, which saves the decompression: seconds under emulation.
"""

import gzip
import io
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path

from ..errors import LabError
from .recipe import INITRD_MODULES

INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs dev /dev; $B mount -t proc proc /proc
{modules}
n=0; while [ ! -b /dev/vda ] && [ $n -lt 500 ]; do $B usleep 10000; n=$((n+1)); done
$B mount -t ext4 -o rw /dev/vda /r || {{ echo LAB-ROOT-MOUNT-FAILED >/dev/ttyS0; $B sleep 5; $B reboot -f; }}
$B mount --move /dev /r/dev; $B mount --move /proc /r/proc
exec $B switch_root /r /lib/systemd/systemd
"""


def write_kernel(compressed: Path, place: Path) -> None:
    """Takes the ELF kernel out of a bzImage; where that is not possible the bzImage serves as well, only slower."""
    data = compressed.read_bytes()
    packers: list[tuple[bytes, Callable[[bytes], bytes]]] = [
        (b"\xfd7zXZ\x00", lambda packed: lzma.LZMADecompressor().decompress(packed)),
        (b"\x1f\x8b\x08", lambda packed: gzip.GzipFile(fileobj=io.BytesIO(packed)).read()),
    ]
    for magic, unpack in packers:
        at = data.find(magic)
        while at >= 0:
            try:
                unpacked = unpack(data[at:])
            except (OSError, EOFError, lzma.LZMAError):
                unpacked = b""
            if unpacked[:4] == b"\x7fELF":
                place.write_bytes(unpacked)
                return
            at = data.find(magic, at + 1)
    shutil.copy(compressed, place)


def write_initrd(root: Path, place: Path) -> None:
    busybox = next((path for path in (Path("/bin/busybox"), Path("/usr/bin/busybox")) if path.exists()), None)
    if busybox is None:
        raise LabError("there is no busybox for the initial ram disk", "python3 models/setup.py system --groups lab")
    modules = _with_dependencies(root, INITRD_MODULES)
    init = INIT.format(modules="\n".join(f"$B insmod /m/{path.name}" for path in modules))
    entries = [(name, 0o40755, b"") for name in ("bin", "m", "r", "dev", "proc")]
    entries += [("bin/busybox", 0o100755, busybox.read_bytes()), ("init", 0o100755, init.encode())]
    entries += [(f"m/{path.name}", 0o100644, path.read_bytes()) for path in modules]
    place.write_bytes(_cpio(entries))


def _with_dependencies(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The modules' files in an order in which each finds what it needs. Names that are built into the kernel are left out."""
    base = next((root / "lib/modules").iterdir())
    needs = {}
    for line in (base / "modules.dep").read_text("ascii").splitlines():
        module, _, needed = line.partition(":")
        needs[module] = needed.split()
    by_name = {Path(module).name.split(".ko")[0].replace("-", "_"): module for module in needs}
    order: list[str] = []

    def add(module: str) -> None:
        if module not in order:
            for needed in reversed(needs[module]):
                add(needed)
            order.append(module)

    for name in names:
        if name in by_name:
            add(by_name[name])
    return [base / module for module in order]


def _cpio(entries: list[tuple[str, int, bytes]]) -> bytes:
    """The "newc" form (kernel: Documentation/driver-api/early-userspace/buffer-format.rst)."""
    out = io.BytesIO()
    for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        name_bytes = name.encode() + b"\0"
        fields = (inode if mode else 0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name_bytes), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields))
        for part in (name_bytes, data):
            out.write(part)
            out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()

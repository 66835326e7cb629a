"""Files into the guest and out of it, through the scratch disk: a hundred times as fast as through a channel."""

import contextlib
import fcntl
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..errors import LabError
from .hardware import TRANSFER_BYTES
from .vm import Machine

PACK = (
    'blockdev --flushbufs /dev/vdb; for f; do set -- "$@" -C "$(dirname "$f")" "$(basename "$f")"; shift; done; '
    'tar -cf - "$@" | dd of=/dev/vdb bs=256k conv=fsync status=none && blockdev --flushbufs /dev/vdb'
)


def push(machine: Machine, sources: list[Path], destination: str) -> None:
    """Copies files and directories of this side into a directory of the guest, which is made if it is not there."""
    with _empty_disk(machine) as disk:
        names = [part for source in sources for part in ("-C", str(source.parent), source.name)]
        subprocess.run(["tar", "--format=gnu", "-cf", "-", *names], stdout=disk, check=True)
        disk.flush()
        place = shlex.quote(destination)
        machine.shell(
            f"blockdev --flushbufs /dev/vdb; mkdir -p {place} && tar -xf /dev/vdb -C {place} --no-same-owner",
            timeout_s=None,
        )


def pull(machine: Machine, sources: list[str], destination: Path) -> None:
    """Copies files and directories of the guest into a directory of this side, which is made if it is not there."""
    with _empty_disk(machine) as disk:
        output = machine.run(["/bin/bash", "-o", "pipefail", "-c", PACK, "sh", *sources])
        if output.status:
            raise LabError(f"cannot copy out of the guest: {output.stderr.strip()}", "do the files exist?")
        destination.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-xf", disk.name, "-C", str(destination)], check=True)


@contextlib.contextmanager
def _empty_disk(machine: Machine) -> Iterator[IO[bytes]]:
    """One transfer at a time."""
    place = machine.directory
    with open(place / "transfer.lock", "w") as lock, open(place / "transfer.raw", "r+b") as disk:
        fcntl.flock(lock, fcntl.LOCK_EX)
        disk.truncate(0)
        disk.truncate(TRANSFER_BYTES)
        yield disk

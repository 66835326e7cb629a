"""ONNX Runtime's shared library, taken out of the Python package that carries it. The Python part is left behind."""

from pathlib import Path

from .cachedir import ENGINE_VERSION, CacheDir, publish
from .errors import HashMismatch
from .fetch import extract_member, fetch
from .hashing import sha256_of
from .lock import Package, this_machine
from .progress import Reporter
from .stamps import Stamp

LIBRARY = "libonnxruntime.so"
MEMBERS = {
    f"onnxruntime/capi/libonnxruntime.so.{ENGINE_VERSION}": LIBRARY,
    "onnxruntime/LICENSE": "LICENSE",
    "onnxruntime/ThirdPartyNotices.txt": "ThirdPartyNotices.txt",
}
STAMP = "runtime.json"


def recipe_of(package: Package) -> str:
    """Changes when the pinned file does."""
    return package.wheel_for(this_machine()).sha256


def ensure_runtime(package: Package, cache: CacheDir, reporter: Reporter) -> Path:
    """Installs the library unless it lies there already; gives its path. The cache's lock must be held."""
    stamp = Stamp.read(cache.stamps / STAMP)
    if stamp and stamp.recipe == recipe_of(package) and not stamp.quick_faults(cache.runtime):
        return cache.runtime / LIBRARY
    reporter.say(f"ONNX Runtime {package.version}")
    wheel_path = fetch(package, cache, reporter)
    unfinished = cache.scratch / "runtime"
    unfinished.mkdir()
    pinned = package.wheel_for(this_machine()).members
    for member, name in MEMBERS.items():
        extract_member(wheel_path, member, unfinished / name)
        if member in pinned and sha256_of(unfinished / name) != pinned[member]:
            raise HashMismatch(
                f"{member} in {wheel_path.name} is not the pinned library", f"remove {wheel_path} and run this again"
            )
    publish(unfinished, cache.runtime, cache.scratch)
    Stamp.of(cache.runtime, recipe_of(package)).write(cache.stamps / STAMP)
    # The wheel is large and its useful part is now unpacked; a repair fetches it again.
    wheel_path.unlink()
    return cache.runtime / LIBRARY

"""The Python packages that recipes need (numpy, onnx and so on), in a private directory of the cache.

Not a virtual environment: a fresh Debian has pip without venv, forbids installing beside its own packages (PEP 668),
and allows `--target`.
"""

import os
import sys
from pathlib import Path

from .cachedir import CacheDir, publish
from .hashing import sha256_of
from .pip import COMMON, run_pip
from .progress import Reporter, megabytes

MODELS_DIR = Path(__file__).resolve().parent.parent
REQUIREMENTS = MODELS_DIR / "build-requirements.txt"
TEST_REQUIREMENTS = MODELS_DIR / "test-requirements.txt"
PEER_REQUIREMENTS = MODELS_DIR / "peer-requirements.txt"
LAB_REQUIREMENTS = MODELS_DIR / "lab-requirements.txt"
# The wheels for CPython 3.11 on x86_64; others differ by little, and only the bar depends on it.
TOOLS_BYTES = 55_300_000
# Official builds of ONNX Runtime 1.31 report to their maker from Linux too, and write a device id below ~/.cache, as
# soon as the library is loaded. Only this variable, set before that, stops both (onnxruntime pull request 27379);
# the API that disables events comes too late.
NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}


def ensure_build_tools(cache: CacheDir, reporter: Reporter) -> Path:
    """A directory to put on PYTHONPATH. Named after its contents, so that it is either whole or absent."""
    key = f"python{sys.version_info[0]}.{sys.version_info[1]}-{sha256_of(REQUIREMENTS)[:16]}"
    place = cache.build_tools / key
    if place.exists():
        return place
    reporter.say(
        f"  build tools, {megabytes(TOOLS_BYTES)}: numpy, onnx, onnxruntime and others, into a private directory"
    )
    temporary = cache.scratch / "build-tools"
    temporary.mkdir()
    unfinished = temporary / "finished"
    arguments = ["install", *COMMON, "--target", str(unfinished), "--requirement", str(REQUIREMENTS)]
    with reporter.stage("installing the build tools"), reporter.bar("build tools", TOOLS_BYTES) as bar:
        run_pip(arguments, "the build tools", temporary, lambda: bar.advance_to(_fetched_bytes(temporary)))
        bar.advance_to(TOOLS_BYTES)
        publish(unfinished, place, cache.scratch)
    return place


def ensure_test_tools(cache: CacheDir, reporter: Reporter) -> Path:
    """Foreign devices and a foreign engine (llama.cpp) that nobody here wrote, for the tests: a directory to put on PYTHONPATH."""
    return _ensure_tools("test tools", TEST_REQUIREMENTS, cache.test_tools, cache, reporter)


def ensure_peer_tools(cache: CacheDir, reporter: Reporter) -> Path:
    """Other engines, to be measured beside ours: a directory to put on PYTHONPATH, after the build tools, which they need."""
    return _ensure_tools("peer tools", PEER_REQUIREMENTS, cache.peer_tools, cache, reporter)


def ensure_lab_tools(cache: CacheDir, reporter: Reporter) -> Path:
    """Bluetooth devices that nobody here wrote, for the lab: a directory to put on PYTHONPATH."""
    return _ensure_tools("lab tools", LAB_REQUIREMENTS, cache.lab_tools, cache, reporter)


def _ensure_tools(name: str, requirements: Path, shelf: Path, cache: CacheDir, reporter: Reporter) -> Path:
    key = f"python{sys.version_info[0]}.{sys.version_info[1]}-{sha256_of(requirements)[:16]}"
    place = shelf / key
    if place.exists():
        return place
    temporary = cache.scratch / name.replace(" ", "-")
    temporary.mkdir()
    unfinished = temporary / "finished"
    arguments = ["install", *COMMON, "--target", str(unfinished), "--requirement", str(requirements)]
    with reporter.stage(f"installing the {name} into a private directory"):
        run_pip(arguments, f"the {name}", temporary)
        publish(unfinished, place, cache.scratch)
    return place


def _fetched_bytes(temporary: Path) -> int:
    return sum(path.stat().st_size for path in temporary.glob("pip-*/*.whl"))


def environment_for(build_tools: Path) -> dict[str, str]:
    """The process environment in which recipes run: these packages and no others of this user's, and no telemetry."""
    return {
        **os.environ,
        **NO_TELEMETRY,
        "PYTHONPATH": f"{MODELS_DIR}{os.pathsep}{build_tools}",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

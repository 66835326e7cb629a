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
from .progress import Reporter

MODELS_DIR = Path(__file__).resolve().parent.parent
REQUIREMENTS = MODELS_DIR / "build-requirements.txt"
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
    with reporter.stage("build tools: numpy, onnx, onnxruntime and others into a private directory, 60 MB to fetch"):
        temporary = cache.scratch / "build-tools"
        temporary.mkdir()
        unfinished = temporary / "finished"
        run_pip(["install", *COMMON, "--target", str(unfinished), "--requirement", str(REQUIREMENTS)], "the build tools", temporary)
        publish(unfinished, place, cache.scratch)
    return place


def environment_for(build_tools: Path) -> dict[str, str]:
    """The process environment in which recipes run: these packages and no others of this user's, and no telemetry."""
    return {
        **os.environ,
        **NO_TELEMETRY,
        "PYTHONPATH": f"{MODELS_DIR}{os.pathsep}{build_tools}",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

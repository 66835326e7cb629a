"""What is tested: the project's programs as cargo built them, and the package made of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from .console import stage
from .errors import LabError
from .places import cache, checkout

MAKE_DEB = checkout() / "systemd/debian/make_deb.py"


def binaries() -> Path:
    """Directory of the built programs; LAB_PROFILE names another profile than `debug`."""
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "metadata", "--format-version", "1", "--no-deps", "--offline"]
    described = subprocess.run(command, cwd=checkout(), capture_output=True, text=True, check=False)
    if described.returncode:
        raise LabError(
            f"cargo does not describe the workspace: {described.stderr.strip()[-500:]}", "is Rust installed?"
        )
    return Path(json.loads(described.stdout)["target_directory"]) / os.environ.get("LAB_PROFILE", "debug")


def program(name: str) -> Path:
    path = binaries() / name
    if not path.exists():
        raise LabError(f"there is no {path}", "cargo build --workspace --bins")
    return path


def package() -> Path:
    """The Debian package of the daemon, made anew when a program is newer than it."""
    built = [program("autoglm-edged"), program("autoglmctl")]
    sources = [*built, *(path for path in (checkout() / "systemd").rglob("*") if path.is_file())]
    return _package("autoglm-edge", sources)


def models_package() -> Path:
    """The Debian package of ONNX Runtime and the models that the set-up has put into the cache."""
    bundles = [path for kind in ("runtime", "models") for path in (cache() / kind).glob("*/*")]
    if not bundles:
        raise LabError("there are no models", "make models")
    return _package("autoglm-edge-models", [MAKE_DEB, *bundles], "--models", str(cache()))


def _package(name: str, sources: list[Path], *options: str) -> Path:
    into = binaries() / "lab-deb"
    made = sorted(into.glob(f"{name}_*.deb"))
    if made and made[-1].stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return made[-1]
    with stage(f"package {name}"):
        command = [sys.executable, str(MAKE_DEB), "--binaries", str(binaries()), "--into", str(into), "--uncompressed"]
        run = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if run.returncode:
        raise LabError(f"the package could not be made: {run.stderr.strip()[-800:]}", f"run {MAKE_DEB} by hand")
    return next(path for line in run.stdout.splitlines() if (path := Path(line)).name.startswith(f"{name}_"))

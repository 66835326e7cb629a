"""What is tested: the project's programs as cargo built them, and the package made of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from .console import stage
from .errors import LabError
from .places import checkout


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
    script = checkout() / "systemd/debian/make_deb.py"
    sources = [*built, *(path for path in (checkout() / "systemd").rglob("*") if path.is_file())]
    into = binaries() / "lab-deb"
    made = sorted(into.glob("autoglm-edge_*.deb"))
    if made and made[-1].stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return made[-1]
    with stage("package of the daemon"):
        command = [sys.executable, str(script), "--binaries", str(binaries()), "--into", str(into), "--uncompressed"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise LabError(f"the package could not be made: {run.stderr.strip()[-800:]}", f"run {script} by hand")
    return Path(run.stdout.split()[-1])

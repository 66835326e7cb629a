"""The bundle format: a directory with model.toml, which lists every other file with its size and SHA-256.

It is the contract with the daemon, whose reader is strict; README.md explains each table.
"""

import tomllib
from pathlib import Path

from .hashing import sha256_of
from .toml_text import to_toml

FORMAT = 1
MANIFEST = "model.toml"


def write_manifest(directory: Path, description: dict) -> None:
    """Writes model.toml beside files that are finished. `[files]` comes after the description's plain keys."""
    files = {
        str(path.relative_to(directory)): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    document = {"format": FORMAT, **description, "files": files}
    (directory / MANIFEST).write_text(to_toml(document), "utf-8")


def read_manifest(directory: Path) -> dict:
    """Raises OSError or tomllib.TOMLDecodeError when it is not a bundle."""
    return tomllib.loads((directory / MANIFEST).read_text("utf-8"))


def faults_against_manifest(directory: Path) -> list[str]:
    """Every way in which the files differ from what model.toml promises; empty when all is well. Hashes everything."""
    try:
        promised = read_manifest(directory)["files"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        return [f"{MANIFEST}: {error}"]
    present = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()} - {MANIFEST}
    faults = [f"{name} is not in {MANIFEST}" for name in sorted(present - set(promised))]
    for name, expected in promised.items():
        path = directory / name
        if name not in present:
            faults.append(f"{name} is missing")
        elif path.stat().st_size != expected["bytes"]:
            faults.append(f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}")
        elif sha256_of(path) != expected["sha256"]:
            faults.append(f"{name} does not match its SHA-256")
    return faults

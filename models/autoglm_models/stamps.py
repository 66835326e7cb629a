"""Remembers what was installed, so that a second run takes milliseconds and a damaged file is still found.

A stamp lies outside of what it describes. The quick look compares sizes and modification times, the full one hashes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from .hashing import sha256_of


@dataclass(frozen=True)
class Stamp:
    """`recipe` is the hash of whatever made the directory: another recipe means that it must be made again."""

    recipe: str
    files: dict[str, dict]

    @classmethod
    def of(cls, directory: Path, recipe: str) -> "Stamp":
        files = {}
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            status = path.stat()
            files[str(path.relative_to(directory))] = {
                "bytes": status.st_size,
                "mtime_ns": status.st_mtime_ns,
                "sha256": sha256_of(path),
            }
        return cls(recipe, files)

    @classmethod
    def read(cls, place: Path) -> "Stamp | None":
        """None when there is no stamp, or none that can be read: then the directory counts as not installed."""
        try:
            document = json.loads(place.read_text("utf-8"))
            return cls(document["recipe"], document["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_suffix(".tmp")
        unfinished.write_text(json.dumps({"recipe": self.recipe, "files": self.files}, indent=1), "utf-8")
        unfinished.rename(place)

    def quick_faults(self, directory: Path) -> list[str]:
        """What is wrong, judged by size and time; a file whose time changed is hashed before it is blamed."""
        return self._faults(directory, trust_times=True)

    def full_faults(self, directory: Path) -> list[str]:
        """What is wrong, judged by hashing every file."""
        return self._faults(directory, trust_times=False)

    def _faults(self, directory: Path, *, trust_times: bool) -> list[str]:
        faults = []
        for name, expected in self.files.items():
            path = directory / name
            if not path.is_file():
                faults.append(f"{name} is missing")
                continue
            status = path.stat()
            if status.st_size != expected["bytes"]:
                faults.append(f"{name} has {status.st_size} bytes instead of {expected['bytes']}")
            elif trust_times and status.st_mtime_ns == expected["mtime_ns"]:
                continue
            elif sha256_of(path) != expected["sha256"]:
                faults.append(f"{name} does not match its SHA-256")
        return faults

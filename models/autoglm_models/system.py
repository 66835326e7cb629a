"""Debian packages: which are missing, why they are needed, and their installation through apt-get."""

import os
import shutil
import subprocess
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .errors import SystemPackages
from .progress import Reporter

GROUPS = ("build", "demo", "test", "lab")
# What `make test` needs; an emulator is only for who asks for the lab.
DEFAULT_GROUPS = ("build", "demo", "test")
LISTS = Path("/var/lib/apt/lists")
# Package lists older than this may name files that the archive no longer has.
LISTS_AGE_MAX_S = 24 * 3600


@dataclass(frozen=True)
class SystemPackage:
    name: str
    group: str
    reason: str


def read_wanted(path: Path, groups: tuple[str, ...] = GROUPS) -> list[SystemPackage]:
    document = tomllib.loads(path.read_text("utf-8"))
    return [SystemPackage(name, group, reason) for group in groups for name, reason in document[group].items()]


def missing_of(wanted: list[SystemPackage]) -> list[SystemPackage]:
    """One call of dpkg-query, some milliseconds. Raises SystemPackages where there is no dpkg."""
    if not shutil.which("dpkg-query"):
        raise SystemPackages(
            "this is no Debian system: dpkg-query is missing",
            "install by other means what `setup.py system --list` names, and leave this step out",
        )
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *(package.name for package in wanted)],
        capture_output=True,
        text=True,
        check=False,  # it fails whenever one of the names is unknown, which is an answer here
        env={**os.environ, "LC_ALL": "C"},
    )
    installed = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in wanted if package.name not in installed]


def ensure(wanted: list[SystemPackage], reporter: Reporter) -> None:
    """Installs what is missing. Raises SystemPackages when something is not there afterwards."""
    missing = missing_of(wanted)
    if not missing:
        return
    reporter.say(f"{len(missing)} of {len(wanted)} Debian packages are missing; installing them")
    install(missing, reporter)
    # apt removes what does not go with what it installs, for instance tools that came from backports.
    if removed := [package for package in missing_of(wanted) if package not in missing]:
        reporter.say(f"apt-get removed {', '.join(package.name for package in removed)} for them; installing that again")
        install(removed, reporter)
    if still := missing_of(wanted):
        raise SystemPackages(f"apt-get succeeded, yet {still[0].name} is not installed", "see its lines above")


def install(missing: list[SystemPackage], reporter: Reporter) -> None:
    """Installs through apt-get, as root or with sudo. Raises SystemPackages with the command to run by hand."""
    names = [package.name for package in missing]
    by_hand = f"run as root: apt-get update && apt-get install {' '.join(names)}"
    prefix = _privilege(by_hand)
    for package in missing:
        reporter.say(f"  {package.name} ({package.group}): {package.reason}")
    if _lists_are_old():
        _apt([*prefix, "apt-get", "update", "-qq"], by_hand, reporter)
    # `env` stands behind sudo, which would drop the variable; so apt asks nothing.
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    arguments = ["apt-get", "install", "--yes", "--no-install-recommends", "-q", *names]
    try:
        _apt([*prefix, *quiet, *arguments], by_hand, reporter)
    except SystemPackages:
        # Fresh-looking lists can be stale all the same, for instance from another mirror in an image.
        _apt([*prefix, "apt-get", "update", "-qq"], by_hand, reporter)
        _apt([*prefix, *quiet, *arguments], by_hand, reporter)


def _privilege(by_hand: str) -> list[str]:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        return ["sudo"]
    raise SystemPackages("Debian packages are missing, and installing them needs root or sudo", by_hand)


def _lists_are_old() -> bool:
    times = [path.stat().st_mtime for path in LISTS.glob("*_Packages*")]
    return not times or time.time() - max(times) > LISTS_AGE_MAX_S


def _apt(command: list[str], by_hand: str, reporter: Reporter) -> None:
    reporter.say(f"  $ {' '.join(command)}")
    try:
        # apt's own output is for people: stdout is kept for data.
        status = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=reporter.stream, stderr=reporter.stream, check=False
        ).returncode
    except FileNotFoundError as error:
        raise SystemPackages(f"{error.filename} is missing", by_hand) from error
    if status:
        raise SystemPackages(
            f"{command[command.index('apt-get')]} ended with status {status}; see its lines above", by_hand
        )

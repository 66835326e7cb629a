"""`check`: hashes everything installed and says what is whole, damaged, outdated or absent.

It mends nothing itself. What it finds damaged it strikes off the list of the installed (removes the stamp), because
damage that keeps size and time would pass the quick look of `all`; so the next `all` makes it again.
"""

import enum
from dataclasses import asdict, dataclass
from pathlib import Path

from .bundle import faults_against_manifest
from .bundles import DEFAULT_BUNDLES, recipe_hash
from .cachedir import CacheDir
from .lock import Package
from .progress import megabytes
from .runtime import STAMP, recipe_of
from .stamps import Stamp


class State(enum.Enum):
    WHOLE = "whole"
    DAMAGED = "damaged"
    OUTDATED = "outdated"
    ABSENT = "absent"


@dataclass(frozen=True)
class Finding:
    name: str
    kind: str
    state: State
    bytes: int
    place: str
    faults: tuple[str, ...] = ()

    def to_json(self) -> dict:
        return {**asdict(self), "state": self.state.value}


def inspect_all(lock: dict[str, Package], cache: CacheDir) -> list[Finding]:
    runtime = lock["onnxruntime"]
    findings = [_inspect(f"onnxruntime-{runtime.version}", "runtime", cache, cache.runtime, STAMP, recipe_of(runtime))]
    for spec in DEFAULT_BUNDLES:
        findings.append(
            _inspect(
                spec.name, f"bundle ({spec.recipe})", cache, cache.models / spec.name, spec.stamp, recipe_hash(spec)
            )
        )
    return findings


def _inspect(name: str, kind: str, cache: CacheDir, place: Path, stamp_name: str, recipe: str) -> Finding:
    stamp = Stamp.read(cache.stamps / stamp_name)
    if stamp is None or not place.is_dir():
        return Finding(name, kind, State.ABSENT, 0, str(place))
    size = sum(file["bytes"] for file in stamp.files.values())
    faults = stamp.full_faults(place)
    if kind != "runtime" and not faults:
        faults = faults_against_manifest(place)
    if faults:
        (cache.stamps / stamp_name).unlink(missing_ok=True)
        return Finding(name, kind, State.DAMAGED, size, str(place), tuple(faults))
    state = State.WHOLE if stamp.recipe == recipe else State.OUTDATED
    return Finding(name, kind, state, size, str(place))


def table(findings: list[Finding]) -> str:
    """For people: one row per thing, its faults below it."""
    rows = [("NAME", "KIND", "STATE", "SIZE", "PLACE")]
    rows += [(f.name, f.kind, f.state.value, megabytes(f.bytes) if f.bytes else "-", f.place) for f in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for index, row in enumerate(rows):
        lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]))
        if index:
            lines += [f"    {fault}" for fault in findings[index - 1].faults]
    return "\n".join(lines)

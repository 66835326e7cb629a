"""Compares what was measured with what is allowed. A bundle beyond its limit is never installed."""

from dataclasses import dataclass

from ..errors import ParityFailed
from ..progress import Reporter


@dataclass(frozen=True)
class AtMost:
    name: str
    limit: float

    @property
    def key(self) -> str:
        return f"limit_{self.name}"

    def holds(self, value: float) -> bool:
        return value <= self.limit

    def __str__(self) -> str:
        return f"at most {self.limit:g}"


@dataclass(frozen=True)
class AtLeast:
    name: str
    limit: float

    @property
    def key(self) -> str:
        return f"limit_{self.name}"

    def holds(self, value: float) -> bool:
        return value >= self.limit

    def __str__(self) -> str:
        return f"at least {self.limit:g}"


def enforce(measures: dict[str, float], limits: list[AtMost | AtLeast], reference: str, reporter: Reporter) -> dict:
    """The `[parity]` table. Raises ParityFailed naming each broken limit; a value that is not a number breaks any."""
    broken = []
    for limit in limits:
        value = measures[limit.name]
        verdict = "good" if limit.holds(value) else "TOO FAR"
        reporter.say(f"  parity: {limit.name} {value:.5f}, {limit}: {verdict}")
        if not limit.holds(value):
            broken.append(f"{limit.name} is {value:.5f}, allowed is {limit}")
    if broken:
        raise ParityFailed(
            "; ".join(broken) + f" (against {reference})",
            "this bundle was refused; the recipe that made it must be mended",
        )
    rounded = {name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in measures.items()}
    return {"reference": reference, **rounded, **{limit.key: limit.limit for limit in limits}}

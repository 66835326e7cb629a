"""Faults that are done to the box, each a function whose first line of documentation is a claim.

A scenario is registered with `@scenario(bound_s=...)`; runner.py puts a healthy box before it and traffic through it, report.py prints
what came of it. Scenarios of one kind share a file: service.py, serial.py, radio.py, broker.py, power.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .box import Box
from .report import Notes

Act = Callable[[Box, Notes], None]


@dataclass(frozen=True)
class Scenario:
    """A claim, and what is done to see whether it holds."""

    name: str
    claim: str
    # Recovery must be at most this long, in seconds of the guest's clock.
    bound_s: float
    act: Act
    # Also part of the short form.
    is_short: bool
    # Wants a box whose power can be cut: with the worse disk, and the broker outside of it.
    is_cut: bool
    # Runs only where a word names it.
    is_on_demand: bool


ALL: list[Scenario] = []


def scenario(
    *, bound_s: float, is_short: bool = False, is_cut: bool = False, is_on_demand: bool = False
) -> Callable[[Act], Act]:
    def register(act: Act) -> Act:
        claim = (act.__doc__ or "").strip().splitlines()[0].rstrip(".")
        ALL.append(Scenario(act.__name__.replace("_", "-"), claim, bound_s, act, is_short, is_cut, is_on_demand))
        return act

    return register

"""Runs scenarios one after the other on one box, and judges."""

import argparse
import contextlib
import fcntl
import json
import random
import re
import time
from collections.abc import Iterator

from ..console import note, say
from ..errors import EXIT_OK, EXIT_USAGE, EXIT_VERDICT, LabError
from ..journal import entry_of
from ..places import machines
from . import ALL, Scenario, bluetooth_lamps, bluetooth_things, broker, models, power, radio, serial, service, ways
from .box import Box
from .report import Notes, Row, table

# Registered by being imported; this is the order of the table.
KINDS = [
    kind.__name__ for kind in (service, serial, ways, radio, bluetooth_things, bluetooth_lamps, broker, models, power)
]
WAYS = {True: "short form", False: "all"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="run scenarios whose names contain one of the words (default: all)"
    )
    parser.add_argument("--short", action="store_true", help="the short form, for continuous integration")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--seed", type=int, help="of everything that is done by chance (default: a new one, printed)")
    parser.add_argument(
        "--cuts", type=int, help="how often the power is cut in each scenario that cuts it (default: 3, short: 1)"
    )
    parser.add_argument(
        "--allow",
        type=float,
        metavar="F",
        help="multiply the bounds: for a machine with other work (default: 1, short: 3)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the machine running at the end (`lab -n scenarios`, `lab down`)"
    )


def run(options: argparse.Namespace) -> int:
    in_order = sorted(ALL, key=lambda one: KINDS.index(one.act.__module__))
    chosen = [one for one in in_order if is_chosen(one, options)]
    if options.list:
        for one in chosen:
            print(f"{one.name:44} {'short' if one.is_short else '     '}  at most {one.bound_s:g} s: {one.claim}")
        return EXIT_OK
    if not chosen:
        say(f"error: no scenario's name contains {' or '.join(options.words)}\nhint: tests/lab/lab scenarios --list")
        return EXIT_USAGE
    # The short form is for machines that nobody looks at, whose other work nobody knows.
    options.cuts = options.cuts or (1 if options.short else 3)
    options.allow = options.allow or (3 if options.short else 1)
    seed = options.seed if options.seed is not None else random.randrange(1 << 20)
    note(f"{len(chosen)} scenarios, {WAYS[options.short]}, seed {seed}")
    rows: list[Row] = []
    try:
        with _alone():
            _run_all(chosen, seed, options, rows)
    finally:
        # Interrupted, it still says what it has seen.
        print(table(rows, options.allow), flush=True)
    failed = [row for row in rows if row.faults(options.allow)]
    say(f"{len(rows) - len(failed)} of {len(rows)} hold; seed {seed}")
    return EXIT_VERDICT if failed else EXIT_OK


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One run of scenarios in a checkout: a second one would take the machine from the first."""
    machines().mkdir(parents=True, exist_ok=True)
    with open(machines() / "scenarios.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(
                "scenarios are running in this checkout already", "wait for their end, or use another worktree"
            ) from None
        yield


def is_chosen(one: Scenario, options: argparse.Namespace) -> bool:
    """Whether a scenario runs (or is listed) with these arguments."""
    if options.words:
        return any(re.search(word, one.name) for word in options.words)
    if one.is_on_demand:
        return options.list
    return one.is_short or not options.short


def _run_all(chosen: list[Scenario], seed: int, options: argparse.Namespace, rows: list[Row]) -> None:
    """Adds to `rows`. One machine at a time: the one whose power is cut comes after the other."""
    box: Box | None = None
    kind = ""
    try:
        for one in chosen:
            if box is None or one.is_cut != (box.cuts > 0):
                if box is not None:
                    box.close()
                box = Box("scenarios", seed, cuts=options.cuts if one.is_cut else 0, is_bound=not options.keep)
                box.start()
            note(f"{one.name}: {one.claim} (at most {one.bound_s:g} s)")
            notes, began = Notes(), time.monotonic()
            try:
                if one.act.__module__ != kind:
                    box.unequip()
                kind = one.act.__module__
                box.settle()
                one.act(box, notes)
            except LabError as error:
                notes.fault(f"{error} ({error.hint})")
            except KeyboardInterrupt:
                notes.fault("interrupted")
                rows.append(Row(one.name, one.claim, one.bound_s, notes, time.monotonic() - began))
                raise
            row = Row(one.name, one.claim, one.bound_s, notes, time.monotonic() - began)
            rows.append(row)
            has_failed = bool(row.faults(options.allow))
            note(f"{one.name}: {'FAILED' if has_failed else 'holds'} after {row.seconds:.1f} s")
            if has_failed:
                _keep_log(box, one.name)
                # What it left in disorder is put up anew for the next one.
                with contextlib.suppress(LabError):
                    box.unequip()
    finally:
        if box is not None and not options.keep:
            box.close()


def _keep_log(box: Box, name: str) -> None:
    """What the daemon and the kernel said, for who looks into a failure."""
    place = machines() / "logs" / f"{name}.log"
    place.parent.mkdir(parents=True, exist_ok=True)
    said = box.machine.run(["journalctl", "-o", "json", "-n", "3000"], timeout_s=120)
    lines = [json.loads(line) for line in said.stdout.splitlines() if line.startswith("{")]
    place.write_text("".join(f"{entry_of(line)}\n" for line in lines), "utf-8")
    note(f"the box's journal is kept in {place}")

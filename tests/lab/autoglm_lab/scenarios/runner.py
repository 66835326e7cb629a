"""Runs scenarios one after the other on one box, and judges."""

import argparse
import random
import re
import sys
import time

from ..console import note, say
from ..errors import EXIT_OK, EXIT_USAGE, EXIT_VERDICT, LabError
from . import ALL, Scenario, broker, power, serial, service
from .box import Box
from .report import Notes, Row, table

# Registered by being imported; this is the order of the table.
KINDS = [kind.__name__ for kind in (service, serial, broker, power)]
WAYS = {True: "short form", False: "all"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="WORD", help="run scenarios whose names contain one of the words (default: all)")
    parser.add_argument("--short", action="store_true", help="the short form, for continuous integration")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--seed", type=int, help="of everything that is done by chance (default: a new one, printed)")
    parser.add_argument("--cuts", type=int, default=3, help="how often the power is cut in the scenario of that name (default: 3)")
    parser.add_argument("--keep", action="store_true", help="leave the machine running at the end (`lab -n scenarios`, `lab down`)")


def run(options: argparse.Namespace) -> int:
    in_order = sorted(ALL, key=lambda one: KINDS.index(one.act.__module__))
    chosen = [one for one in in_order if _is_chosen(one, options)]
    if options.list:
        for one in chosen:
            print(f"{one.name:44} {'short' if one.is_short else '     '}  at most {one.bound_s:g} s: {one.claim}")
        return EXIT_OK
    if not chosen:
        say(f"error: no scenario's name contains {' or '.join(options.words)}\nhint: tests/lab/lab scenarios --list")
        return EXIT_USAGE
    seed = options.seed if options.seed is not None else random.randrange(1 << 20)
    note(f"{len(chosen)} scenarios, {WAYS[options.short]}, seed {seed}")
    rows: list[Row] = []
    try:
        _run_all(chosen, seed, options.cuts, rows, is_kept=options.keep)
    finally:
        # Interrupted, it still says what it has seen.
        print(table(rows), flush=True)
    failed = [row for row in rows if row.faults]
    say(f"{len(rows) - len(failed)} of {len(rows)} hold; seed {seed}")
    return EXIT_VERDICT if failed else EXIT_OK


def _is_chosen(one: Scenario, options: argparse.Namespace) -> bool:
    if options.words:
        return any(re.search(word, one.name) for word in options.words)
    return one.is_short or not options.short


def _run_all(chosen: list[Scenario], seed: int, cuts: int, rows: list[Row], *, is_kept: bool) -> None:
    """Adds to `rows`. One machine at a time: the one whose power is cut comes after the other."""
    box: Box | None = None
    try:
        for one in chosen:
            if box is None or one.is_cut != (box.cuts > 0):
                if box is not None:
                    box.close()
                box = Box("scenarios", seed, cuts=cuts if one.is_cut else 0)
                box.start()
            note(f"{one.name}: {one.claim} (at most {one.bound_s:g} s)")
            notes, began = Notes(), time.monotonic()
            try:
                box.settle()
                one.act(box, notes)
            except LabError as error:
                notes.fault(f"{error} ({error.hint})")
            rows.append(Row(one.name, one.claim, one.bound_s, notes, time.monotonic() - began))
            note(f"{one.name}: {'FAILED' if rows[-1].faults else 'holds'} after {rows[-1].seconds:.1f} s")
    finally:
        if box is not None and not (is_kept and sys.exc_info()[0] is None):
            box.close()

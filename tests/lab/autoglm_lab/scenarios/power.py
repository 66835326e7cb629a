"""The power plug: pulled at random moments, with the disk losing what it had not flushed."""

import random
import time

from ..traffic import Tally
from . import scenario
from .box import UNIT, Box
from .report import Notes

# A cold boot under emulation, and the daemon's start after it.
BOOT_S = 90


@scenario(bound_s=BOOT_S)
def the_power_is_cut(box: Box, notes: Notes) -> None:
    """Over 3 power cuts at random moments no answered command is forgotten or done again, and the store is usable."""
    cut_power(box.seed, 3, notes)


def cut_power(seed: int, cuts: int, notes: Notes) -> None:
    """The operator, the broker and the device are outside, and keep what they know."""
    box = Box("power", seed, is_volatile=True, has_inner_broker=False)
    chance = random.Random(seed)
    try:
        box.start()
        box.settle()
        with box.operator(pause_ms=20) as operator:
            for number in range(cuts):
                operator.wait_for_count(5, patience_s=120)
                time.sleep(chance.uniform(0, 4))
                unflushed = chance.choice(["none", f"random:{chance.randrange(1 << 16)}"])
                tally = box.cut(unflushed)
                notes.did(f"cut {number + 1}, the disk keeps {unflushed}: {tally}")
                began = time.monotonic()
                booted = box.boot()
                notes.saw(f"the agent answers {booted:.1f} s after power-up")
                done = operator.wait_for_success(after=began, patience_s=240)
                if done is None or done.answered_at is None:
                    notes.fault(f"no command was done after cut {number + 1}: {operator.describe()}")
                    notes.saw(box.shell(f"journalctl -b -u {UNIT} -o cat | tail -20"))
                    break
                notes.recovered(done.answered_at - began, "from power-up to the next command done")
                status = box.shell("autoglmctl --json status")
                notes.expect('"state": "ready"' in status or '"state":"ready"' in status, "the store is ready")
            notes.counted(operator.stop())
    finally:
        box.close()


__all__ = ["Tally", "cut_power"]

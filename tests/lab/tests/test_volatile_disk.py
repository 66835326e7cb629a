"""The disk that is cut: if it kept what was not flushed, no power cut would show anything."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from autoglm_lab.machine import volatile_disk
from autoglm_lab.machine.volatile_disk import BLOCK, SECTOR, Disk

BLOCKS = 64


def after_cut(place: Path, mode: str, seed: str | None, act: str) -> tuple[Disk, dict]:
    """Runs `act` on a disk in a process that ends with the cut; returns the disk as the next process finds it, and the tally."""
    source = (
        f"import sys; sys.path.insert(0, {str(Path(volatile_disk.__file__).parent)!r})\n"
        f"from volatile_disk import Disk, BLOCK\ndisk = Disk({str(place / 'store')!r}, {str(place / 'base')!r})\n{act}\n"
        f"disk.cut({mode!r}, {seed!r})"
    )
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)
    return Disk(str(place / "store"), str(place / "base")), json.loads((place / "store.stat").read_text("ascii"))


class Cuts(unittest.TestCase):
    def setUp(self):
        self._directory = tempfile.TemporaryDirectory()
        self.addCleanup(self._directory.cleanup)
        self.place = Path(self._directory.name)
        (self.place / "base").write_bytes(b"o" * BLOCK * BLOCKS)

    def test_what_was_flushed_stays_and_what_was_not_is_lost(self):
        act = "disk.write(0, b'f' * BLOCK); disk.flush(); disk.write(BLOCK, b'u' * BLOCK)"
        disk, tally = after_cut(self.place, "none", None, act)
        self.assertEqual(disk.read(0, 2 * BLOCK), b"f" * BLOCK + b"o" * BLOCK)
        self.assertEqual((tally["lost"], tally["kept"]), (1, 0))

    def test_an_orderly_end_keeps_all(self):
        disk, _ = after_cut(self.place, "all", None, "disk.write(100, b'u' * BLOCK)")
        self.assertEqual(disk.read(0, 2 * BLOCK), b"o" * 100 + b"u" * BLOCK + b"o" * (BLOCK - 100))

    def test_a_cut_by_chance_keeps_some_loses_some_and_tears_some_at_a_sector(self):
        act = f"disk.write(0, b'u' * BLOCK * {BLOCKS})"
        disk, tally = after_cut(self.place, "random", "7", act)
        self.assertEqual(sum(tally[fate] for fate in ("kept", "torn", "lost")), BLOCKS)
        seen = {"kept": 0, "torn": 0, "lost": 0}
        for number in range(BLOCKS):
            block = disk.read(number * BLOCK, BLOCK)
            new = block.rstrip(b"o")
            self.assertEqual(new.strip(b"u"), b"")
            self.assertEqual(len(new) % SECTOR, 0)
            seen["kept" if len(new) == BLOCK else "torn" if new else "lost"] += 1
        self.assertEqual(seen, {fate: tally[fate] for fate in seen})
        self.assertTrue(all(seen.values()), seen)


if __name__ == "__main__":
    unittest.main()

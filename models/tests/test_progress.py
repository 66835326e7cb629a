"""What people see: lines where there is no terminal, bars where there is one, colour only where it is wanted."""

import io
import unittest

from autoglm_models.progress import Reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Progress(unittest.TestCase):
    def test_without_a_terminal_there_are_whole_lines_only(self):
        stream = io.StringIO()
        with Reporter(stream, {}).bar("weights", 2_000_000) as bar:
            bar.advance_to(500_000)
            bar.advance_to(2_000_000)
        self.assertNotIn("\r", stream.getvalue())
        self.assertNotIn("\x1b", stream.getvalue())
        self.assertTrue(stream.getvalue().startswith("  weights: 2.0 MB of 2.0 MB"), stream.getvalue())

    def test_on_a_terminal_a_bar_is_redrawn_in_place_and_ends_full(self):
        stream = Terminal()
        with Reporter(stream, {}).bar("weights", 1_000_000) as bar:
            bar.advance_to(500_000)
            bar.advance_to(1_000_000)
        last = stream.getvalue().rstrip("\n").split("\r")[-1]
        self.assertIn("[" + "#" * 28 + "]", last)

    def test_a_bar_never_goes_back_nor_past_its_end(self):
        with Reporter(io.StringIO(), {}).bar("weights", 100) as bar:
            bar.advance_to(70)
            bar.advance_to(30)
            self.assertEqual(bar.done_bytes, 70)
            bar.advance_to(1000)
            self.assertEqual(bar.done_bytes, 100)

    def test_no_color_takes_the_colour_and_leaves_the_words(self):
        plain, coloured = Terminal(), Terminal()
        Reporter(plain, {"NO_COLOR": "1"}).failure("it broke", "mend it")
        Reporter(coloured, {}).failure("it broke", "mend it")
        self.assertEqual(plain.getvalue(), "error: it broke\nhint: mend it\n")
        self.assertIn("\x1b[31;1merror", coloured.getvalue())

    def test_a_failed_stage_is_not_called_done(self):
        stream = io.StringIO()
        with self.assertRaises(ValueError), Reporter(stream, {}).stage("converting"):
            raise ValueError
        self.assertNotIn("done", stream.getvalue())

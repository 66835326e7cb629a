"""What a person sees while it works: on stderr, bars on a terminal, plain lines elsewhere. Data goes to stdout only."""

import contextlib
import os
import sys
import time
from typing import TextIO

BAR_WIDTH = 28
PLAIN_INTERVAL_S = 10.0
REDRAW_INTERVAL_S = 0.1


class Reporter:
    """Writes one line per fact. Colour only ever repeats what the words say, and NO_COLOR turns it off."""

    def __init__(self, stream: TextIO | None = None, environ: dict[str, str] | None = None):
        environ = dict(os.environ) if environ is None else environ
        self.stream = stream or sys.stderr
        self.interactive = self.stream.isatty() and environ.get("TERM") != "dumb"
        self.coloured = self.interactive and not environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        self._write(text + "\n")

    def failure(self, fact: str, hint: str) -> None:
        self.say(f"{self._paint('error', '31;1')}: {fact}")
        self.say(f"{self._paint('hint', '36')}: {hint}")

    @contextlib.contextmanager
    def stage(self, title: str):
        """Names a step before it starts and gives its wall time once it has succeeded."""
        self.say(f"  {title} ...")
        began = time.monotonic()
        yield
        self.say(f"  {self._paint('done', '32')} {title}: {time.monotonic() - began:.1f} s")

    @contextlib.contextmanager
    def bar(self, title: str, total_bytes: int):
        bar = Bar(self, title, total_bytes)
        try:
            yield bar
        finally:
            bar.close()

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.coloured else text

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class Bar:
    """Progress through a known number of bytes."""

    def __init__(self, reporter: Reporter, title: str, total_bytes: int):
        self.reporter = reporter
        self.title = title
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self.began = time.monotonic()
        self.shown = float("-inf") if reporter.interactive else self.began

    def advance_to(self, done_bytes: int) -> None:
        self.done_bytes = min(max(done_bytes, self.done_bytes), self.total_bytes)
        now = time.monotonic()
        interval = REDRAW_INTERVAL_S if self.reporter.interactive else PLAIN_INTERVAL_S
        if now - self.shown >= interval:
            self.shown = now
            self._draw()

    def close(self) -> None:
        self._draw()
        if self.reporter.interactive:
            self.reporter._write("\n")

    def _draw(self) -> None:
        elapsed = time.monotonic() - self.began
        rate = f"{megabytes(self.done_bytes / elapsed)}/s" if elapsed > 0.05 else ""
        figures = f"{megabytes(self.done_bytes)} of {megabytes(self.total_bytes)}  {rate}".rstrip()
        if not self.reporter.interactive:
            self.reporter.say(f"  {self.title}: {figures}")
            return
        filled = BAR_WIDTH * self.done_bytes // max(self.total_bytes, 1)
        self.reporter._write(f"\r\x1b[2K  {self.title} [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {figures}")


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"

"""What a person sees while the lab works: plain lines on stderr. stdout is kept for data (tables, a guest command's output)."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def note(text: str) -> None:
    if not os.environ.get("LAB_QUIET"):
        say(f"lab: {text}")


@contextlib.contextmanager
def stage(title: str) -> Iterator[None]:
    """Names a step before it starts and gives its wall time once it has succeeded."""
    note(f"{title} ...")
    began = time.monotonic()
    yield
    note(f"{title}: done in {time.monotonic() - began:.1f} s")

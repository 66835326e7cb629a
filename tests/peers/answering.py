"""What every peer does between its own doings: reads a question a line, answers it, and says how much memory it took at most."""

import json
import sys
from collections.abc import Callable
from pathlib import Path


def answer(peer: object, name: str, before: Callable[[], None] = lambda: None) -> int:
    """Says who it is, then calls the method that each line's `op` names, with the other members. `before` is called first, untimed."""
    print(json.dumps({"name": name, "load_ms": peer.load_ms}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        before()
        told = getattr(peer, question.pop("op"))(**question)
        # Peak resident memory of this process, in kB, as the kernel counts it.
        status = Path("/proc/self/status").read_text("ascii")
        told["peak_kb"] = int(next(row for row in status.splitlines() if row.startswith("VmHWM")).split()[1])
        print(json.dumps(told), flush=True)
    return 0

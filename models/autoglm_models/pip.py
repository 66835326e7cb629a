"""Runs the machine's own pip, with whatever index, proxy and certificates its user configured.

Never resolves dependencies and never runs a package's code: wheels only, each checked by hash.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .errors import FetchFailed, HashMismatch, StorageFailed

POLL_S = 0.1
TAIL_LINES = 4

COMMON = (
    "--no-deps",
    "--only-binary=:all:",
    "--require-hashes",
    "--no-cache-dir",
    "--progress-bar=off",
    "--disable-pip-version-check",
    "--no-input",
)


def run_pip(arguments: list[str], what: str, temporary: Path, on_poll: Callable[[], None] = lambda: None) -> None:
    """Runs pip to its end, calling `on_poll` ten times a second. `what` names the packages in an error.

    Raises FetchFailed, HashMismatch or StorageFailed with pip's own last lines.
    """
    # A user-wide `user = true` would clash with --target, and PIP_REQUIRE_VIRTUALENV would refuse a bare Python.
    environ = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "TMPDIR": str(temporary)}
    log = temporary / "pip.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pip", *arguments],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=environ,
        )
        try:
            while True:
                try:
                    status = process.wait(POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    on_poll()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status:
        raise _judge(log.read_text("utf-8", "replace"), what)


def _judge(output: str, what: str) -> FetchFailed | HashMismatch | StorageFailed:
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("WARNING: Retrying")]
    tail = "\n".join("    pip: " + line for line in lines[-TAIL_LINES:])
    if "DO NOT MATCH THE HASHES" in output:
        return HashMismatch(
            f"{what} is not the file that was pinned, and was refused\n{tail}",
            "if your index serves rebuilt packages use one that does not; otherwise report it: the package may have been tampered with",
        )
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return StorageFailed(
            f"no room to store {what}\n{tail}", "free about 0.8 GB, or set XDG_CACHE_HOME to a directory with room"
        )
    if "No module named pip" in output:
        return FetchFailed(
            f"{sys.executable} has no pip, which is needed to fetch {what}", "apt-get install python3-pip"
        )
    return FetchFailed(
        f"could not fetch {what}\n{tail}",
        "check the network and pip's index and proxy settings (python3 -m pip config list), then run this again: what was fetched is kept",
    )

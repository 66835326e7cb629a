"""Where things lie in the cache, and the lock that lets one setup at a time change it."""

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .progress import Reporter

ENGINE_VERSION = "1.31.1"


@dataclass(frozen=True)
class CacheDir:
    """`$XDG_CACHE_HOME/autoglm-edge`. The daemon's development defaults point at `runtime` and `models` in it."""

    root: Path

    @classmethod
    def of_this_user(cls) -> "CacheDir":
        base = os.environ.get("XDG_CACHE_HOME", "")
        # The base directory specification says that a relative value is to be ignored.
        home = Path(base) if base.startswith("/") else Path.home() / ".cache"
        return cls(home / "autoglm-edge")

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def stamps(self) -> Path:
        return self.root / "stamps"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def test_models(self) -> Path:
        """Bundles for tests and benches alone, which no daemon is to find."""
        return self.root / "test-models"

    @property
    def build_tools(self) -> Path:
        return self.root / "build-tools"

    @property
    def test_tools(self) -> Path:
        return self.root / "test-tools"

    @property
    def test_providers(self) -> Path:
        return self.root / "test-providers"

    @property
    def peer_tools(self) -> Path:
        return self.root / "peer-tools"

    @property
    def lab_tools(self) -> Path:
        return self.root / "lab-tools"

    @property
    def scratch(self) -> Path:
        """Everything unfinished. On the cache's own file system, so that publishing is one rename."""
        return self.root / "scratch"

    @property
    def runtime(self) -> Path:
        return self.root / "runtime" / f"onnxruntime-{ENGINE_VERSION}"

    @contextlib.contextmanager
    def exclusively(self, reporter: Reporter):
        """Holds the cache's lock; leftovers of a killed setup are cleared once it is ours."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "setup.lock", "w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                reporter.say("another setup is at work on this cache; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.scratch, ignore_errors=True)


def publish(finished: Path, place: Path, scratch: Path) -> None:
    """Puts a finished directory into place: readers see the old one, or the new one, or briefly none; never a half."""
    place.parent.mkdir(parents=True, exist_ok=True)
    _sync_tree(finished)
    if place.exists():
        place.rename(scratch / f"replaced-{place.name}")
    finished.rename(place)


def _sync_tree(directory: Path) -> None:
    """Forces the files to the disk before the rename, so that a pulled plug cannot leave a full name on empty files."""
    for path in [*directory.rglob("*"), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

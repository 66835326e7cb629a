"""Where the lab keeps what. Images are shared by all checkouts of one user; machines belong to one checkout each."""

import hashlib
import os
from pathlib import Path

# A unix socket's path has at most 107 bytes (unix(7)); the longest name in a machine's directory has 12.
SOCKET_PATH_MAX = 107 - 12


def lab_directory() -> Path:
    """tests/lab of this checkout."""
    return Path(__file__).resolve().parent.parent


def checkout() -> Path:
    return lab_directory().parent.parent


def cache() -> Path:
    """`$XDG_CACHE_HOME/autoglm-edge`, as for everything that the project fetches or builds once."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The base directory specification says that a relative value is to be ignored.
    home = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return home / "autoglm-edge"


def images() -> Path:
    return cache() / "lab"


def machines() -> Path:
    """The machines of this checkout: other checkouts (worktrees, too) have other directories, so their labs do not clash."""
    mark = hashlib.sha256(str(checkout()).encode()).hexdigest()[:8]
    return images() / "vm" / mark


def machine(name: str) -> Path:
    place = machines() / name
    if len(os.fsencode(place)) > SOCKET_PATH_MAX:
        # Sockets would not fit into sockaddr_un; /tmp is always short.
        mark = hashlib.sha256(os.fsencode(place)).hexdigest()[:12]
        place = Path("/tmp") / f"autoglm-lab-{os.geteuid()}-{mark}"
    return place

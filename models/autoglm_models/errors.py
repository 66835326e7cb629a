"""What can go wrong, by who can mend it. Each kind has its own exit code, documented in README.md."""

import errno
import signal

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


class SetupError(Exception):
    """A failure that a person can act on: one line of fact, one line of remedy."""

    exit_code = EXIT_UNEXPECTED

    def __init__(self, fact: str, hint: str):
        super().__init__(fact)
        self.hint = hint


class Absent(SetupError):
    """Something that `check` looked for is missing or no longer what was installed."""

    exit_code = 3


class FetchFailed(SetupError):
    """A package could not be had: no network, no such version for this machine, pip missing."""

    exit_code = 4


class HashMismatch(SetupError):
    """What arrived, or what lies in the cache, is not what was pinned."""

    exit_code = 5


class StorageFailed(SetupError):
    """The cache cannot be written: full, read-only, not ours."""

    exit_code = 6


class ParityFailed(SetupError):
    """A built model differs from its original by more than its limit; it is not installed."""

    exit_code = 7


class SystemPackages(SetupError):
    """Debian packages are missing and could not be installed."""

    exit_code = 8


class BuildFailed(SetupError):
    """A recipe ended with an error of its own."""

    exit_code = 9


STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def from_os_error(error: OSError) -> SetupError | None:
    """The typed error for an I/O failure on the cache, or None when it is a bug of ours."""
    if error.errno not in STORAGE_ERRNOS:
        return None
    where = f" ({error.filename})" if error.filename else ""
    return StorageFailed(
        f"cannot write the cache: {error.strerror}{where}",
        "about 0.8 GB is needed while building; free some, or set XDG_CACHE_HOME to a directory with room",
    )

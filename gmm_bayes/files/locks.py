"""One run in a directory: a lock that ends with the process that holds it.

The lock is on an open file, not the file's being there: what a killed process leaves behind locks
nobody out. `filelock` does not do: where a file system has no locks it takes the file's being there
for one, it cannot look at a lock that it may not write to, and it leaves its file behind.
"""

import errno
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["LOCK_FILE", "is_locked", "locked"]

logger = logging.getLogger(__name__)

LOCK_FILE = ".gmm-bayes.lock"
# Somebody who only looks whether a directory is locked holds the lock for a moment.
_ATTEMPTS, _SECONDS_BETWEEN = 5, 0.02


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other runs out of a directory, which must be there.

    Raises
    ------
    BlockingIOError
        If another run is in it.
    OSError
        If no file can be made in it.
    """
    path = directory / LOCK_FILE
    handle = _acquire(path)
    try:
        yield
    finally:
        # While it is held: whoever has the file open already sees that it is not the file there.
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def is_locked(directory: Path) -> bool:
    """Whether a run is in a directory now."""
    path = directory / LOCK_FILE
    try:
        # Somebody else's run may be looked at as well.
        handle = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(handle)
    finally:
        os.close(handle)


def _acquire(path: Path) -> int:
    for _ in range(_ATTEMPTS):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if _lock(handle) and _still_there(handle, path):
            return handle
        os.close(handle)
        time.sleep(_SECONDS_BETWEEN)
    raise BlockingIOError(f"another run holds {path}")


def _still_there(handle: int, path: Path) -> bool:
    """Whether the file that is open is the one of that name: a holder removes it at its end."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> bool:
        with suppress(OSError):
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            return True
        return False

else:
    import fcntl

    def _lock(handle: int) -> bool:
        """Lock an open file unless another has it; closing it lets go."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            # Some file systems of clusters have no locks; that must not keep anybody from working.
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            logger.info("no locks on this file system: two runs in one directory go unnoticed")
        return True

"""Locks between processes of one machine. The system releases them when their process ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coding_tasks.failures import RepositoryBusy

_PAUSE = 0.02  # seconds


@contextmanager
def locked(path: Path, deadline: float, *, exclusive: bool) -> Iterator[None]:
    """Hold a lock on the file, which is created if needed, until the block ends.

    Any number of blocks share a lock that is not exclusive. Raises `RepositoryBusy` if the lock
    cannot be had before the deadline, which is on the monotonic clock.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        while not _try_lock(file, kind):
            if time.monotonic() > deadline:
                raise RepositoryBusy("other work on the repository takes too long")
            time.sleep(_PAUSE)
        os.utime(file)
        yield
    finally:
        os.close(file)


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Locks between processes, which the kernel releases when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL_S = 0.002


@contextmanager
def file_lock(path: Path | str, wait_s: float | None = None) -> Iterator[bool]:
    """Hold an exclusive lock on a file, which is made for its user alone if it does not exist.

    Yields whether the lock is held, after waiting ``wait_s`` seconds for another holder. None waits
    without a limit and wakes at once, which polling does not. OSError if the file cannot be made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, file_lock(f"{folder}/lock") as is_held:
    ...     is_held
    True
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _lock(descriptor, wait_s)
    finally:
        # Unlocked explicitly: a process that was forked meanwhile would hold it on.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _lock(descriptor: int, wait_s: float | None) -> bool:
    if wait_s is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    until = time.monotonic() + wait_s
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL_S)

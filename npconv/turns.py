"""Taking turns with other processes, by locks on disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def turn(lock: Path, patience: float) -> Iterator[None]:
    """Hold a lock, a file, within a ``with`` block.

    Go without it where it cannot be had in so many seconds, and at once on a file system that has no locks.
    """
    with open(lock, "a+b") as file:  # closing it gives the lock back, and so does dying
        end = time.monotonic() + patience
        while _is_anothers(file) and time.monotonic() < end:
            time.sleep(0.01)
        yield


def _is_anothers(file: IO[bytes]) -> bool:
    """Take a lock if nobody has it; whether somebody has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:  # there are no locks here
        return False
    return False

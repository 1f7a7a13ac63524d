"""Taking turns with other processes, by locks on disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def turn(lock: Path, patience: float) -> Iterator[bool]:
    """Hold a lock, a file, within a ``with`` block; tell whether nobody else can have it.

    Go without it where it cannot be had in so many seconds, and at once where files or their locks are not to be had.
    """
    try:
        file = open(lock, "a+b")  # noqa: SIM115
    except OSError:
        yield True
        return
    with file:  # closing it gives the lock back, and so does dying
        end = time.monotonic() + patience
        while (anothers := _is_anothers(file)) and time.monotonic() < end:
            time.sleep(0.01)
        try:
            yield not anothers
        finally:
            if not anothers:
                _give_back(file)


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
    except BlockingIOError:
        return True
    except OSError as error:  # PermissionError says on Windows that another has it, elsewhere that nobody may
        return sys.platform == "win32" and isinstance(error, PermissionError)
    return False


def _give_back(file: IO[bytes]) -> None:
    """Give a lock back for a child, too, that was forked with it and would keep it for as long as it lives."""
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)

"""Memory that kernels work in, kept from call to call: what packed weights take, and what tasks write to themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SMALL = 2**16
"""Bytes up to which new memory is not worth keeping: to lend some takes 8 µs, to make some 2."""

LINE = 64
"""Bytes of a line of the cache: vectors that begin with one are loaded at once, others may take two lines."""


def odd_lines(numbers: int, itemsize: int) -> int:
    """Return how far apart arrays of so many numbers lie: an odd number of lines of the cache.

    Powers of two would meet in a few of its sets.
    """
    line = LINE // itemsize
    return (-(-numbers // line) | 1) * line


def _new(size: int) -> np.ndarray:
    """Return new memory, at the beginning of a line of the cache."""
    buffer = np.empty(size + LINE, np.uint8)
    start = -buffer.ctypes.data % LINE
    return buffer[start : start + size]


class _Pool:
    """Memory for packed weights, kept from call to call: new memory is cleared by the system, page by page.

    A megabyte so costs 80 to 400 µs; and what tasks allocate and free themselves, glibc gives back to the system each
    time, which made depthwise kernels three times slower.
    """

    KEPT = 4
    """Buffers kept, one for each Python thread that packs its weights at a time."""

    LARGEST = 2**24
    """Bytes of a buffer that is kept."""

    def __init__(self) -> None:
        self._free: dict[int, np.ndarray] = {}

    def take(self, size: int) -> np.ndarray:
        """Return at least ``size`` bytes, at the beginning of a line of the cache."""
        enough = [buffer for buffer in tuple(self._free.values()) if len(buffer) >= size]
        if enough and self._free.pop(id(best := min(enough, key=len)), None) is not None:
            return best
        return _new(size)

    def give(self, buffer: np.ndarray) -> None:
        """Take a buffer back, in the place of the smallest if there are enough."""
        if len(buffer) <= self.LARGEST:
            self._free[id(buffer)] = buffer
            while len(self._free) > self.KEPT:
                smallest = min(tuple(self._free.items()), key=lambda item: len(item[1]))
                self._free.pop(smallest[0], None)


_pool = _Pool()


class Room:
    """Memory that the tasks of a call work in, with the arrays that were made of it.

    Rows are as far apart as the longest were, so that workers of another kernel have theirs where they were: what
    another core has written comes slowly.
    """

    VIEWS = 64
    """Arrays that are kept: to make one takes as long as a small task."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)
        self._views: dict[Any, np.ndarray] = {}
        self._longest: dict[int, int] = {}  # bytes of a row, by how many there are
        self.size = 0  # in bytes

    def rows(self, place: tuple[int, tuple[int, np.dtype[Any]]]) -> np.ndarray:
        """Return a row for each worker, which begin with a line of the cache.

        A ``place`` is how many workers there are, how many numbers a row has at least, and of which dtype.
        """
        found = self._views.get(place)
        if found is None:
            workers, (numbers, dtype) = place
            size, longest = -(-numbers * dtype.itemsize // LINE) * LINE, self._longest.get(workers, 0)
            if size > longest or len(self._views) >= self.VIEWS:
                self._views.clear()
            size = max(size, longest)
            if len(self._buffer) < workers * size:
                self._buffer = _new(workers * size)
                self.size = len(self._buffer)
            self._longest[workers] = size  # when there was memory for it
            found = np.ndarray((workers, size // dtype.itemsize), dtype, self._buffer)
            self._views[place] = found
        return found


class _Rooms:
    """Rooms kept from call to call, for the reason of `_Pool`: the last one used first, as the caches hold it."""

    def __init__(self) -> None:
        self._free: list[Room] = []

    def take(self) -> Room:
        """Return a room that nobody else is in."""
        try:
            return self._free.pop()
        except IndexError:
            return Room()

    def give(self, room: Room) -> None:
        """Take a room back."""
        if room.size <= _Pool.LARGEST and len(self._free) < _Pool.KEPT:
            self._free.append(room)


rooms = _Rooms()


class _Lent:
    """Memory of the pool, which gets it back when no array uses it any more."""

    def __init__(self, size: int) -> None:
        self._buffer = _pool.take(size)
        self.__array_interface__ = {**self._buffer.__array_interface__, "shape": (size,)}

    def __del__(self, give: Callable[[np.ndarray], None] = _pool.give) -> None:
        if hasattr(self, "_buffer"):  # an interrupt may have come before
            give(self._buffer)


def aligned(size: int) -> np.ndarray:
    """Return ``size`` bytes, at the beginning of a line of the cache."""
    return _new(size) if size <= SMALL else np.asarray(_Lent(size))

"""How a result is cut into tasks: rectangles that fit a core's cache, enough of them for all threads."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


def _second_level() -> int:
    """Return the bytes of a core's second-level cache; half a mebibyte if the system does not tell."""
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text(encoding="ascii")
        return int(size.strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 2**19


CACHE = 2**18
"""Bytes that a task's input and result should fit: half of a small second-level cache, the weights stream through the
other half."""

LARGE_CACHE = min(max(_second_level() // 2, CACHE), 2**20)
"""The same for a task that loads its input once for many filters, on this machine."""

TASKS_PER_THREAD = 4
"""Tasks that each thread should get, so that none waits long for another."""

TOLERANCE = 1.02
"""How much longer than with the best cut it may take with more tasks, which even out what else the machine does."""


class Blocks(NamedTuple):
    """Rows and columns of a task's rectangle, and its panels of filters."""

    rows: int
    columns: int
    panels: int


def even(size: int, most: int) -> int:
    """Return the largest share when ``size`` is cut into as few pieces of at most ``most`` as there can be."""
    pieces = -(-size // max(most, 1))
    return -(-size // pieces)


def blocks(height: int, width: int, pixels: int, others: int, panels: int, threads: int, load: float = 0.1) -> Blocks:
    """Return rectangles of about ``pixels`` of height × width, and how many panels a task should have.

    ``others`` is the number of images, planes and groups, each of which is cut so. Each task loads its input, which
    takes as long as ``load`` panels: fewer tasks load less, more tasks are shared out better.
    """
    columns = even(width, pixels if width > pixels else width)
    rows = even(height, pixels // columns)
    rectangles = others * -(-height // rows) * -(-width // columns)
    shares = {-(-panels // parts) for parts in range(1, (panels if threads > 1 else 1) + 1)}
    times = {share: -(-rectangles * -(-panels // share) // threads) * (share + load) for share in shares}
    best = TOLERANCE * min(times.values())
    return Blocks(rows, columns, min(share for share, time in times.items() if time <= best))

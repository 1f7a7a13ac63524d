"""How a result is cut into tasks: rectangles that fit a core's cache, enough of them for all threads."""

from __future__ import annotations

from typing import NamedTuple

CACHE = 2**18
"""Bytes that a task's input and result should fit: half of a small second-level cache, the weights stream through the
other half."""

TASKS_PER_THREAD = 4
"""Tasks that each thread should get, so that none waits long for another."""


class Blocks(NamedTuple):
    """Rows and columns of a task's rectangle, and its panels of filters."""

    rows: int
    columns: int
    panels: int


def even(size: int, most: int) -> int:
    """Return the largest share when ``size`` is cut into as few pieces of at most ``most`` as there can be."""
    pieces = -(-size // max(most, 1))
    return -(-size // pieces)


def blocks(height: int, width: int, pixels: int, others: int, panels: int, threads: int, least: int = 1) -> Blocks:
    """Return rectangles of about ``pixels`` of height × width, with all panels if that makes tasks enough.

    ``others`` is the number of images, planes and groups, each of which is cut so. Tasks of fewer panels than ``least``
    are made only as long as there are threads without one.
    """
    columns = even(width, pixels if width > pixels else width)
    rows = even(height, pixels // columns)
    wanted = TASKS_PER_THREAD * threads if threads > 1 else 1
    parts = 1
    rectangles = others * -(-height // rows) * -(-width // columns)
    while parts < panels and rectangles * parts < (wanted if panels // (parts + 1) >= least else threads):
        parts += 1
    return Blocks(rows, columns, -(-panels // parts))

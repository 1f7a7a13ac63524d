"""The order of a task's tiles for Winograd's filtering, of which the last along an axis may be short.

Short tiles take fewer points (`npconv.kernels.filtering`), and products of a point are of tiles that lie one behind the
other. There are four *kinds* of tiles, two bits each: 1 is short down, 2 across. In the order

    1: short down    0: whole    2: short across    3: both

the tiles that take a point are a run of them, whichever it is: a point that those do not take which are short down is
one of 0 and 2, across of 1 and 0, and of both of 0 alone. Such points have kinds, too, with the same bits.
"""

from __future__ import annotations

from npconv.kernels.numba import jit

KINDS = 4
"""Of tiles, and of points."""


@jit.inline
def begins(tiles, down, across, both):  # type: ignore[no-untyped-def]
    """Return where the tiles of each kind begin, of so many in all, and so many that are short."""
    return down, 0, tiles - across - both, tiles - both


@jit.inline
def takers(begins, tiles, kind):  # type: ignore[no-untyped-def]
    """Return the first of the tiles that take a point of a kind, and behind the last."""
    first = begins[0] if kind & 1 else 0
    if kind & 2:
        return first, begins[2]
    return first, begins[3] if kind & 1 else tiles


@jit.inline
def rectangle(kind, rows, columns, short):  # type: ignore[no-untyped-def]
    """Return the first row and column of an image's tiles that are of a kind, and how many rows and columns there are.

    ``short`` are how many rows and columns of all are short, 1 or 0.
    """
    top, some_rows = (rows - short[0], short[0]) if kind & 1 else (0, rows - short[0])
    left, some_columns = (columns - short[1], short[1]) if kind & 2 else (0, columns - short[1])
    return (top, left), (some_rows, some_columns)

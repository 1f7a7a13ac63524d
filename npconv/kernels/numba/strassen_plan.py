"""How Strassen's algorithm is cut into tasks where pixels are in the vectors, and whether they are.

A *unit* is four vectors of pixels, whose halves are multiplied (`npconv.kernels.numba.strassen_planes`); what is left
of a plane is one that overlaps the one before, or half of one, or a few pixels. Where filters are in the vectors
(`npconv.kernels.numba.strassen_panels`), pixels are taken as they come, but have to be transposed, and results, too,
unless the channels are last.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from npconv.kernels.numba import blocking
from npconv.problem import ConvProblem

FEWEST = 8
"""Filters of each half that a part has, at least: as many as can be cut into tiles (`npconv.kernels.numba.tile`)."""

LOAD, FEWER = 12, 0.03
"""How long it takes to make a unit's sums, in products of it with a filter; and how much sooner tasks have to be done
for the filters to be cut into one more part."""

TASKS = 32
"""Tasks of a thread, at most: 16 took 4 to 6 % less than 4, of 256 channels at 56² and of 128 at 112², as they even out
what else the machine does."""

EVEN, TRANSPOSED = 1.02, 7.5
"""How many times as long as whole units, shared out evenly, the same pixels take with filters in the vectors; and what
is added, over the channels and over the filters, for what is transposed of both. (Of 196 pixels, in one thread: 1024 to
256 channels took 859 µs, and 831 with pixels in the vectors, 160 to 960 519 and 497, 96 to 576 200 and 185, 64 to 384
98 and 89, 384 to 64 102 and 90; of 28 × 28 in two threads 192 to 768 1010 and 975, with `Cut.waste` 1.06.)"""

HALVES, FEW = 0.02, 8
"""How much sooner tasks have to be done to begin with halves of units: as the weights then stream in for fewer pixels;
and tasks of a thread from which on it is no help."""


class Cut(NamedTuple):
    """Tasks: parts of the filters of a half, times pieces of the pixels of a plane."""

    parts: int
    pieces: int
    grain: int
    """Pixels, or a number of times as many, that a piece begins with."""

    shares: int
    """Pieces that have a share of the filters of what is left of a plane."""

    waste: float
    """How many times as long they take as if whole units were shared out evenly."""


def sizes_of(positions: int, pieces: int, grain: int) -> list[int]:
    """Return the pixels of each piece of a plane: whole grains, but for what the last one has besides.

    Examples
    --------
    >>> sizes_of(784, 4, 64)
    [192, 192, 192, 208]
    """
    number = positions // grain
    begins = [number * piece // pieces * grain for piece in range(pieces)]
    return [end - begin for begin, end in zip(begins, [*begins[1:], positions], strict=True)]


def before(positions: int, left: int, sliver: int) -> int:
    """Return the pixels of a plane that are computed in units: all, or whole slivers, if some are left."""
    return positions // sliver * sliver if left > 0 else positions


def share_of(piece: int, pieces: int, shares: int) -> int:
    """Return which share of the filters a piece has of what is left of a plane, or -1 if it has none.

    The last piece has one.

    Examples
    --------
    >>> [share_of(piece, 5, 2) for piece in range(5)]
    [-1, -1, 1, -1, 0]
    """
    behind = pieces - 1 - piece
    share = (behind * shares + pieces - 1) // pieces
    return share if share < shares and share * pieces // shares == behind else -1


@lru_cache(maxsize=4096)
def cut(problem: ConvProblem, lanes: int, threads: int, merged: bool = False) -> Cut:
    """Cut a problem of at least half a unit into tasks, with vectors of so many numbers.

    Of results that are ``merged`` with others, the last pixels are computed as all are.
    """
    *depth, height, width = (1, *problem.output_size)
    positions, planes, unit = height * width, problem.batch * math.prod(depth), 4 * lanes
    panels = max(problem.out_channels // 2 // FEWEST, 1)
    load = LOAD / (2 * FEWEST)
    cuts, half = {}, unit // 2
    left = 0 if merged else blocking.left_over(positions, half, problem.in_channels)
    others = blocking.others_for(left, half, problem.in_channels)
    alone = left == positions % half  # else another piece writes some of them, too, and the same task has to be last
    for parts in range(1, min(threads, panels) + 1):
        most = max(min(positions // unit, TASKS * threads // (planes * parts)), 1)
        ways = [(most, unit)]
        if most < FEW * threads:
            ways += [(number, half) for number in range(threads, positions // half + 1, threads)]
        for pieces, grain in ways:
            shares = min(pieces, threads, panels // parts) if alone and planes * parts < threads else 1
            sizes = sizes_of(before(positions, left, half), pieces, grain)
            units = [-(-2 * size // unit) / 2 for size in sizes]
            loads = [load * size for size in units]
            if left:
                for piece in range(pieces):
                    units[piece] += (share_of(piece, pieces, shares) >= 0) * others / unit / shares
            time = blocking.duration(units, loads, planes, panels, -(-panels // parts), threads)
            worse = FEWER * (parts - 1) + HALVES * (grain < unit)
            waste = time * threads * unit / (positions * planes * (panels + load))
            cuts[Cut(parts, pieces, grain, shares, waste)] = time * (1 + worse)
    return min(cuts, key=cuts.__getitem__)


def in_planes(problem: ConvProblem, lanes: int, threads: int, merged: bool = False) -> bool:
    """Whether pixels are in the vectors, of a problem that halves of channels and filters are multiplied of."""
    transposed = TRANSPOSED * (1 / problem.in_channels + 1 / problem.out_channels)
    return (
        problem.out_channels % 2 == 0
        and math.prod(problem.output_size[-2:]) >= 2 * lanes  # half a unit, lest it goes over the end of a plane
        and not any(map(any, problem.padding))
        and not problem.channels_last
        and cut(problem, lanes, threads, merged).waste <= EVEN + transposed
    )

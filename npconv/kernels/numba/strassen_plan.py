"""How Strassen's algorithm is cut into tasks where pixels are in the vectors, and whether they are.

A *unit* is four vectors of pixels, whose halves are multiplied (`npconv.kernels.numba.strassen_planes`); what is left
of a plane is one that overlaps the one before, or half of one. Where filters are in the vectors
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

TRANSPOSED = 1.08
"""How many times as long as whole units, shared out evenly, the same pixels take with filters in the vectors. (With
256 channels and filters, in two threads: 44.7 µs at 8² and 40.1 with pixels in the vectors, 65 and 74 at 10², 153 and
142 at 16², 175 and 207 at 17², 315 and 308 at 23².)"""


class Cut(NamedTuple):
    """Tasks: parts of the filters of a half, times pieces of the pixels of a plane."""

    parts: int
    pieces: int
    waste: float
    """How many times as long they take as if whole units were shared out evenly."""


def sizes_of(positions: int, pieces: int, unit: int) -> list[int]:
    """Return the pixels of each piece of a plane: whole units, but for what the last one has besides.

    Examples
    --------
    >>> sizes_of(784, 4, 64)
    [192, 192, 192, 208]
    """
    units = -(-positions // unit)
    begins = [units * piece // pieces * unit for piece in range(pieces)]
    return [end - begin for begin, end in zip(begins, [*begins[1:], positions], strict=True)]


@lru_cache(maxsize=4096)
def cut(problem: ConvProblem, lanes: int, threads: int) -> Cut:
    """Cut a problem of at least half a unit into tasks, with vectors of so many numbers."""
    *depth, height, width = (1, *problem.output_size)
    positions, planes, unit = height * width, problem.batch * math.prod(depth), 4 * lanes
    panels = max(problem.out_channels // 2 // FEWEST, 1)
    load = LOAD / (2 * FEWEST)
    cuts = {}
    for parts in range(1, min(threads, panels) + 1):
        pieces = max(min(positions // unit, TASKS * threads // (planes * parts)), 1)
        units = [-(-2 * size // unit) / 2 for size in sizes_of(positions, pieces, unit)]
        time = blocking.duration(units, [load * size for size in units], planes, panels, -(-panels // parts), threads)
        cuts[parts, pieces] = time * (1 + FEWER * (parts - 1))
    best = min(cuts, key=cuts.__getitem__)
    return Cut(*best, cuts[best] * threads * unit / (positions * planes * (panels + load)))


def in_planes(problem: ConvProblem, lanes: int, threads: int) -> bool:
    """Whether pixels are in the vectors, of a problem that halves of channels and filters are multiplied of."""
    return (
        problem.out_channels % 2 == 0
        and math.prod(problem.output_size[-2:]) >= 2 * lanes  # half a unit, lest it goes over the end of a plane
        and not any(map(any, problem.padding))
        and not problem.channels_last
        and cut(problem, lanes, threads).waste <= TRANSPOSED
    )

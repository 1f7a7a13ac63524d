"""How large kernels, and what they meet, are cut into pieces and tasks, for `npconv.kernels.numba.pieces`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from npconv.kernels.filtering import Filtering, of_gradient
from npconv.kernels.numba import blocking
from npconv.problem import ConvProblem

PIECES = 32
"""Pieces of a step, at most: as long as the chains of sums in registers. Beyond, sums go through memory. Not fewer
where there is less room, which so does not decide in which order sums are made."""

ROWS = 64
"""Rows of a task, at most: their sums of 36 points take 288 KiB, and those points of a step as much."""

ROOM = 5 * 2**18
"""Bytes that a task works in, at most. Sums and points that leave the second-level cache cost a twentieth."""

MORE = 8
"""Ways to cut rows that are tried, from the fewest parts on: more parts are for more threads, and for less room."""

LOAD, TILE, SLOPE = 6.5, 3.6, 1.9
"""What takes time besides, in products of a row with a vector of lanes, by 6,578 cuts of 1,600 gradients in one thread,
of which the time that they tell is a tenth off: to put the numbers of a pixel, a vector of them, side by side; and to
make a point of a tile of the input, or of a piece of the result's gradient."""

SUM, HEIGHT, BEGIN, BACK, WRITE = 0.45, 0.85, 130, 3.7, 0.42
"""To bring the sums of a row and a vector from and to the cache, and to begin with a row, for a point of a step; to
begin with a step; to transform a point of a row and a vector back, and to write a number."""


class Cut(NamedTuple):
    """How a problem is cut."""

    axes: tuple[Filtering, Filtering]
    swapped: bool
    """Whether rows are filters and lanes channels, and not the other way round."""

    rows: int
    share: int
    """Rows of a group, and of a task."""

    lanes: int
    """Of a group."""

    pieces: tuple[int, int]
    step: tuple[int, int, int]
    """Pieces down and across of an image; those of a step, and of how many images it has them."""

    numbers: int
    """That a task works in."""

    tasks: int
    time: float
    """Of all threads, in products of a row with a vector of lanes."""


def height(rows: int) -> int:
    """Return for how many rows sums have room: the lowest tiles of products write some that there are not."""
    return rows if rows >= 8 else 8


@lru_cache(maxsize=1024)
def cut(problem: ConvProblem, threads: int, wide: int) -> Cut:
    """Cut a canonical problem for panels of ``wide`` lanes, so that it takes the least time in what room there is."""
    room = min(ROOM, blocking.share(problem, threads)) // problem.compute_dtype.itemsize
    cuts = list(_cuts(problem, threads, wide))
    fitting = [cut for cut in cuts if cut.numbers <= room]
    return min(fitting, key=lambda cut: cut.time) if fitting else min(cuts, key=lambda cut: cut.numbers)


def _cuts(problem: ConvProblem, threads: int, wide: int) -> Iterator[Cut]:
    """Yield ways to cut it."""
    channels, filters = problem.batch, problem.out_channels // problem.groups
    ways = [(channels, filters, False)]
    if not problem.bias:  # which belongs to filters
        ways.append((filters, channels, True))
    for rows, lanes, swapped in ways:
        least = -(-rows // ROWS)
        for share in dict.fromkeys(blocking.even(rows, -(-rows // parts)) for parts in range(least, least + MORE)):
            yield _cut(problem, threads, wide, (rows, share, lanes), swapped)


def _cut(
    problem: ConvProblem, threads: int, wide: int, sizes: tuple[int, int, int], swapped: bool
) -> Cut:  # fmt: skip
    """Return a way to cut it."""
    (rows, share, lanes), axes, groups = sizes, of_gradient(problem), problem.groups
    _, *kernel = problem.three(problem.kernel_size)
    _, *residues = problem.three(problem.stride)
    down, across = (-(-n // (s * axis.results)) for n, s, axis in zip(kernel, residues, axes, strict=True))
    points, sums = (math.prod(of) for of in zip(*((axis.points, axis.number) for axis in axes), strict=True))
    columns, taps = blocking.even(across, PIECES), problem.positions
    lines = blocking.even(down, max(PIECES // columns, 1))
    images = problem.in_channels // groups * math.prod(residues)
    together = max(min(PIECES // (lines * columns), images), 1) if (lines, columns) == (down, across) else 1
    # What a step loads of rows and of lanes, in pixels, and what a point of either takes to make.
    of_input = math.prod((n - 1) * axis.pace + axis.reach for n, axis in zip((lines, columns), axes, strict=True))
    of_slope = math.prod(n * axis.results for n, axis in zip((lines, columns), axes, strict=True))
    made = [(of_input, TILE), (of_slope, SLOPE)]
    (of_row, to_row), (of_lane, to_lane) = reversed(made) if swapped else made
    pieces = lines * columns * together
    numbers = of_row * share + of_lane * min(lanes, wide) + share * taps * wide
    numbers += points * blocking.apart(pieces) * (max(share, wide // 2) + wide) + sums * height(share) * wide
    tasks, vectors = groups * -(-rows // share) * -(-lanes // wide), -(-2 * min(lanes, wide) // wide)
    steps = -(-down // lines) * -(-across // columns) * -(-images // together)
    row_vectors, number = -(-2 * share // wide), down * across * images
    time: float = points * number * max(share, 4) * vectors
    for vector, pixels, point in ((row_vectors, of_row, to_row), (vectors, of_lane, to_lane)):
        time += vector * (LOAD * pixels * together * steps + point * points * number)
    time += steps * (points * share * (SUM * vectors + HEIGHT) + BEGIN)
    time += share * (BACK * sums * vectors + WRITE * taps * min(lanes, wide))
    return Cut(
        axes, swapped, rows, share, lanes, (down, across), (lines, columns, together), numbers + 4 * wide, tasks,
        -(-tasks // threads) * time,
    )  # fmt: skip

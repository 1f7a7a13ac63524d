"""What engines load of an input, and copy: a slab of it, and slivers of pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from npconv.costs import tiles
from npconv.costs.machine import COPY, PACK, vector_bytes
from npconv.kernels import filtering
from npconv.kernels.numba.blocking import in_rows, may_be_halved
from npconv.kernels.numba.regions import Regions
from npconv.problem import ConvProblem

if TYPE_CHECKING:
    from npconv.costs.effort import Effort
    from npconv.costs.products import Products

ROW = 300
"""Copies that take as long as to find a row of a channel of which each stride's pixel is wanted."""

TURNED = 2.4
"""Copies that take as long as to transpose a number, of input and result, besides the copying."""

HALVED = 1
"""Copies that take as long as to cut every second pixel of a row, besides the copying."""

SPACED = 2.4
"""How many times as long it takes to copy what lies more than two apart, and is met by one tap alone."""


BORDERS = (4, 1.5)
"""Copies that take as long as to write a result to a plane that other tasks write to, as well: one of parts of
lines, and of whole ones. (128 → 1024 channels at 13² take 329 µs by `strassen`, as was expected to take 237, and
214 by `direct`.)"""

SUMS = 7 / 4
"""Numbers that are made of each of input and result where quarters are summed up."""

POINT = 1.2
"""Copies that take as long as to make a point of the input. (400 layers of one thread, measured by `winograd4`,
`winograd2` and `direct`: with one half, and 52e9 products a second, the slower of these was chosen for 35, which
took up to 2.3 times as long; with these numbers for 8, 1.2 times.)"""

NEARBY = 2**22
"""Bytes of an input whose tiles all have come before they are wanted. Of more, they are waited for: 668 to 34
channels at 45², 3 × 3 at stride 2, were computed by `winograd4` in 2.4 ms, as by `winograd2` in 1.9, and take 1.2
by `planes`."""

APART = 16
"""Tiles that a task has at least, where it is not panels that are shared out: of those each task makes all points.
(384 to 24 channels at 11², 5 × 5 at stride 2, took 280 µs by `winograd2` in two threads, and 160 by `direct`.)"""


def pointwise(problem: ConvProblem) -> bool:
    """Whether each pixel of a result meets one pixel."""
    return problem.taps == 1 and not any(map(any, problem.padding))


def patched(problem: ConvProblem) -> bool:
    """Whether numbers that lie more than two apart are met by one tap each."""
    return problem.stride[-1] > 2 and problem.kernel_size[-1] <= problem.stride[-1]


def loaded(effort: Effort, problem: ConvProblem) -> int:
    """Return how many numbers of the input are loaded: with one tap, those that the stride meets, and as many."""
    if effort.panel and effort.tile == (1, 1) and not effort.quarters and in_rows(problem):
        return 0
    if problem.taps > 1 or any(map(any, problem.padding)):
        return problem.padded_elements
    return min(2 * problem.batch * problem.in_channels * problem.positions, problem.padded_elements)


def slivers(effort: Effort, problem: ConvProblem) -> tuple[int, int]:
    """Return the pixels that are computed, some in vain, and the numbers that are copied.

    Planes that meet one tap each are cut as they are, others from a slab; one row goes on with the next.
    """
    lanes = vector_bytes() // problem.compute_dtype.itemsize
    *depth, height, width = (1, *problem.output_size)
    planes, channels = problem.batch * math.prod(depth), problem.in_channels
    alone = pointwise(problem)
    few = height * width <= lanes
    wide = lanes if few or not alone else 2 * lanes  # half of the last sliver may be all
    rows = -(-height * width // wide) * wide
    copied = planes * rows * channels * problem.taps  # into slivers
    if may_be_halved(problem, lanes) and not problem.channels_last:
        return planes * rows, copied + HALVED * planes * rows * channels
    if not alone or max(problem.stride) > 1 or problem.channels_last:
        spread = TURNED * (1 if alone else 2) if max(problem.stride) > 1 else 1
        spread *= SPACED if patched(problem) else 1
        copied += spread * loaded(effort, problem) * problem.kernel_size[0] ** (problem.rank == 3)
        if alone and max(problem.stride) > 1 and not few:
            copied += ROW * planes * channels * height
    if problem.channels_last:
        copied += planes * rows * problem.out_channels
    return planes * rows, copied


def copied(effort: Effort, problem: ConvProblem, threads: int, made: Products, parted: Regions | None) -> float:
    """Return how many numbers are copied, or what takes as long, of input and result; by the direct sum's regions."""
    if effort.slivers:
        return slivers(effort, problem)[1]
    in_panels = effort.panel > 0 and not problem.channels_last  # where results are transposed, and pixels
    direct = effort.tile == (1, 1) and not effort.quarters
    met = loaded(effort, problem) if parted is None else parted.bytes // problem.compute_dtype.itemsize
    results = made.pixels * made.filters
    numbers: float = met * problem.kernel_size[0] ** (problem.rank == 3)
    if effort.tile != (1, 1):
        numbers += _of_points(effort, problem, threads, made.filters, met)
    if effort.quarters:
        numbers = numbers if in_panels else 0
        numbers += SUMS * problem.batch * problem.positions * (problem.in_channels + problem.out_channels)
        _, parts = effort.pairs_and_parts(problem, made.filters)
        if parts > 1 and not problem.channels_last:  # several tasks write lines of one plane
            whole = problem.positions * problem.compute_dtype.itemsize % 64 == 0
            numbers += BORDERS[whole] * problem.batch * problem.positions * problem.out_channels
    numbers += results * (2 if in_panels and effort.tile == (1, 1) else 1)
    if in_panels and direct:
        numbers += TURNED * (met + results)
    if parted is not None and parted.bytes and not problem.channels_last:  # channels are put side by side first
        numbers += PACK * threads / COPY
    return numbers


def _of_points(effort: Effort, problem: ConvProblem, threads: int, filters: int, met: int) -> float:
    """Return the same of points of Winograd's tiles: more than one task may make them."""
    number = tiles.number(problem, effort.tile)
    points, lanes = number * tiles.points(problem, effort.tile), vector_bytes() // problem.compute_dtype.itemsize
    elements = filtering.elements_of(problem, tiles.axes(problem, effort.tile))
    made = POINT * points * -(-elements // lanes) * lanes * problem.groups
    far = min(max(problem.input_bytes / NEARBY - 1, 0), 4)
    return made * threads / min(max(number // APART, 1), threads) + points * filters / 4 + 2 * far * met

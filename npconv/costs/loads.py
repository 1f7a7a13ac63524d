"""What engines load of an input, and copy: a slab of it, and slivers of pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from npconv.costs.machine import vector_bytes
from npconv.kernels.numba.blocking import in_rows, may_be_halved
from npconv.problem import ConvProblem

if TYPE_CHECKING:
    from npconv.costs.effort import Effort

ROW = 300
"""Copies that take as long as to find a row of a channel of which each stride's pixel is wanted."""

TURNED = 2.4
"""Copies that take as long as to transpose a number, of input and result, besides the copying."""

HALVED = 1
"""Copies that take as long as to cut every second pixel of a row, besides the copying."""

SPACED = 2.4
"""How many times as long it takes to copy what lies more than two apart, and is met by one tap alone."""


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

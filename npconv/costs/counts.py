"""What the models of engines count alike: filters of panels, planes, numbers that are loaded."""

from __future__ import annotations

import math

from npconv.costs.machine import COPY, lanes, machine
from npconv.problem import ConvProblem

NARROW = 0.75
"""The share of its rate that an engine reaches of groups whose channels, side by side, fill no line of the cache."""


RESIDUES = 10
"""Copies that take as long as to put a number beside those of its residue by a larger dilation than 2, or to meet it
there alone. (The gradients of 3 → 16 filters of 11 × 11 at stride 4 took 1.4 to 1.9 times as long by `direct`, as it
was chosen without these, as by `dots`.)"""


def panel(problem: ConvProblem) -> int:
    """Return the filters of a panel: two vectors."""
    return 2 * lanes(problem)


def filled(problem: ConvProblem, number: int) -> int:
    """Return the filters of a group where so many at a time are computed."""
    return -(-problem.out_channels // problem.groups // number) * number


def rate_of(problem: ConvProblem, products: float) -> float:
    """Return the direct products a second of a thread that does so many in float32 with vectors of 32 bytes."""
    return products * machine().direct * 4 / problem.compute_dtype.itemsize * narrow(problem)


def narrow(problem: ConvProblem) -> float:
    """Return the share of its rate that an engine reaches for the channels of a group: `NARROW`, or 1."""
    few = problem.groups > 1 and problem.in_channels // problem.groups <= 64 // problem.compute_dtype.itemsize
    return NARROW if problem.channels_last and few else 1.0


def planes_of(problem: ConvProblem) -> tuple[int, int, int]:
    """Return how many planes a filter's results have, in all images, and their rows and columns."""
    *depth, height, width = (1, *problem.output_size)
    return problem.batch * math.prod(depth), height, width


def deep(problem: ConvProblem) -> int:
    """Return how often a plane of the input is loaded: for each one that a filter has."""
    return problem.kernel_size[0] if problem.rank == 3 else 1


def copy(problem: ConvProblem) -> float:
    """Return the seconds to copy a number."""
    return COPY * problem.compute_dtype.itemsize / 4


def pointwise(problem: ConvProblem) -> bool:
    """Whether each pixel of a result meets one pixel."""
    return problem.taps == 1 and not any(map(any, problem.padding))


def loaded(problem: ConvProblem) -> int:
    """Return how many numbers of the input are loaded: with one tap, those that the stride meets, and as many."""
    if not pointwise(problem):
        return problem.padded_elements
    return min(2 * problem.batch * problem.in_channels * problem.positions, problem.padded_elements)


def residues(problem: ConvProblem) -> int:
    """Return how many copies it takes to part the input's residues by the dilation."""
    return RESIDUES * problem.padded_elements if max(problem.dilation) > 2 else 0

"""What direct sums cost where few channels belong to a filter: one, or those of groups that fill a vector together."""

from __future__ import annotations

from npconv.costs import counts
from npconv.costs.engine import BEGIN, Composed, Products
from npconv.costs.machine import lanes, machine
from npconv.costs.slabs import BESIDE, SLAB
from npconv.problem import ConvProblem

STRIDE = (1.3, 0.4, 0.25)
"""The share of the rate with several filters of a channel, by the stride: at 1 each row is loaded once for some rows of
results."""

STRAIGHT = 0.5
"""What of the copies remains where an image is read as it is, for products that wait for it anyway. (80 layers took
0.63 to 0.73 times as long as was thought: one channel of 201² in two threads, 3 × 3, was computed by `planes` in 32 µs,
and takes 12.)"""

ABREAST = 8
"""Results of a row that are computed together where filters of several groups are in the vectors, or half of it."""

NUMPY = 6e-6
"""Seconds that a packing takes besides where NumPy packs, which no threads share."""


class Depthwise(Composed):
    """The engine `npconv.kernels.numba.depthwise`."""

    def _made(self, problem: ConvProblem, threads: int) -> Products:
        rate = counts.rate_of(problem, self.products)
        if problem.out_channels > problem.groups:  # each channel's rows are loaded for each of its filters
            rate *= STRIDE[min(max(problem.stride), 3) - 1]
            if problem.positions <= 64:  # a few results at a time
                rate *= 0.4 if problem.dilation[-1] == 1 else 0.22
        planes, height, width = counts.planes_of(problem)
        wide = 128 // problem.compute_dtype.itemsize  # pixels in whole vectors
        return Products(rate, problem.out_channels, planes * -(-height * width // wide) * wide, problem.products)

    def _copied(self, problem: ConvProblem, threads: int, made: Products) -> float:
        straight = max(problem.stride) == counts.deep(problem) == 1 and problem.taps > 1
        return super()._copied(problem, threads, made) * (STRAIGHT if straight else 1)


class Grouped(Composed):
    """The engine `npconv.kernels.numba.grouped`."""

    def _made(self, problem: ConvProblem, threads: int) -> Products:
        products, wide = problem.products, lanes(problem)
        filters, stepping = problem.out_channels, max(problem.stride) > 1
        rate = self.products * machine().direct * 4 / problem.compute_dtype.itemsize * products / (products + 2 * BEGIN)
        if stepping:
            rate *= 0.77
        if filters == 2 * problem.groups:
            rate *= 0.7
        if stepping and problem.channels_last and (problem.kernel_size[-1] == 1 or problem.dilation[-1] > 1):
            rate *= 0.4  # little of what a line of the cache brings is met
        if filters < wide * problem.groups and problem.kernel_size[-1] > 3:
            rate *= 0.8  # there are not registers for so many weights and addresses
        abreast = ABREAST if filters >= wide * problem.groups else ABREAST // 2
        planes, height, width = counts.planes_of(problem)
        return Products(rate, filters, planes * height * -(-width // abreast) * abreast, products)

    def _packing(
        self, problem: ConvProblem, threads: int, made: Products, packed: bool, within: bool
    ) -> tuple[float, float]:
        _, packing = super()._packing(problem, threads, made, packed, within)
        return (0 if packed else NUMPY + packing), 0

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        """Return about as many bytes as a thread works in: the channels of what it meets, or its results, in order."""
        results = problem.batch * problem.out_channels * problem.positions
        return min(SLAB, (problem.padded_elements + results) * problem.compute_dtype.itemsize) + BESIDE

"""What products of sums of quarters cost, by Strassen's algorithm."""

from __future__ import annotations

from npconv.costs import counts
from npconv.costs.engine import BEGIN, Panels, Products
from npconv.costs.machine import lanes, machine, vector_bytes
from npconv.kernels.numba import blocking, strassen_plan
from npconv.kernels.numba.blocking import PIXELS_OF_QUARTERS
from npconv.problem import ConvProblem

FEWER, NUMBERS = 8 / 7, 7 / 4
"""How many times fewer products there are than in the direct sum, and numbers that are made of each."""

LONG = 4096
"""Bytes of a pixel's channels from which on these come from beyond the second-level cache, where they are summed up."""

BORDERS = (2, 0.75)
"""Copies that take as long as to write a result to a plane that other tasks write to, as well: one of parts of
lines, and of whole ones. (128 → 1024 channels at 13² take 210 to 310 µs by `strassen`, as their memory happens to lie,
and 217 by `direct`.)"""

IN_PLANES, TILE, LOADED, SPACED = 1.1, 3, 3, 3
"""How many times as many products a second there are with pixels in the vectors; products that take as long as to begin
with a tile of them, and copies as long as to load a number, besides what its sums take, and to put a pixel beside those
that a stride meets."""

RAGGED = 0.8
"""The share of its rate that is reached with filters in the vectors if half of a pixel's channels are no whole lines of
the cache: ten drawn layers with such numbers of channels took 1.16 to 1.67 times as long as was thought."""

MAKE = 0.3
"""Nanoseconds that a thread takes to sum up filters, for each number of the weight."""


class Strassen(Panels):
    """The engine `npconv.kernels.numba.strassen`, of 1 × 1 kernels and one group."""

    def may_be_within(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether each thread can sum up all filters: if there is room for that."""
        if packed or not self._in_planes(problem, threads):
            return False
        return threads * self._own(problem, threads) <= blocking.engine_limit(problem)

    def workspace(self, problem: ConvProblem, threads: int, packed: bool) -> int:
        """Return about as many bytes as the threads work in, and those of the weights if they are packed for a call."""
        if self.within_tasks(problem, threads, packed):
            return threads * self._own(problem, threads)
        return super().workspace(problem, threads, packed)

    def _own(self, problem: ConvProblem, threads: int) -> int:
        """Return the bytes that a thread works in which sums up the filters."""
        return self._scratch(problem, threads) + int(NUMBERS * problem.weight_bytes)

    def _made(self, problem: ConvProblem, threads: int) -> Products:
        channels, itemsize = problem.in_channels, problem.compute_dtype.itemsize
        planes, height, width = counts.planes_of(problem)
        if self._in_planes(problem, threads):
            rate = FEWER * counts.rate_of(problem, IN_PLANES * self.products) * channels / (channels + TILE)
            pixels = int(planes * height * width * self._cut(problem, threads).waste)
            return Products(rate, problem.out_channels, pixels, problem.products)
        rate = FEWER * self.products * machine().transformed * 4 / itemsize
        rate *= channels / (channels + 2 * BEGIN)
        if channels // 2 * itemsize % 64:
            rate *= RAGGED
        if channels * itemsize >= LONG:
            rate *= 0.95
        if itemsize == 8:  # more bytes of sums
            rate *= 0.95
        pairs, parts = self._pairs_and_parts(problem)
        if problem.channels_last and (parts > 1 or pairs >= 8):
            rate *= 1.06
        plane = height * width
        return Products(rate, self._filters(problem), planes * (plane + plane % 2), problem.products)

    def _copied(self, problem: ConvProblem, threads: int, made: Products) -> float:
        pixels = problem.batch * problem.positions
        if self._in_planes(problem, threads):
            spaced = max(problem.stride) > 1
            return pixels * (problem.out_channels + problem.in_channels * (LOADED + SPACED * spaced))
        numbers = NUMBERS * pixels * (problem.in_channels + problem.out_channels) + self._transposed(problem, made)
        if not problem.channels_last:
            numbers += counts.loaded(problem)
            if self._pairs_and_parts(problem)[1] > 1:  # several tasks write lines of one plane
                whole = problem.positions * problem.compute_dtype.itemsize % 64 == 0
                numbers += BORDERS[whole] * pixels * problem.out_channels
        return numbers

    def _packing(
        self, problem: ConvProblem, threads: int, made: Products, packed: bool, within: bool
    ) -> tuple[float, float]:
        if not within:
            return super()._packing(problem, threads, made, packed, within)
        return problem.out_channels * problem.products * MAKE * 1e-9, 0

    def _busy(self, problem: ConvProblem, threads: int) -> int:
        if self._in_planes(problem, threads):
            return threads
        pairs, parts = self._pairs_and_parts(problem)
        return max(min(threads, problem.batch * pairs * parts), 1)

    def _points(self, problem: ConvProblem) -> float:
        return NUMBERS

    def _in_planes(self, problem: ConvProblem, threads: int) -> bool:
        """Whether pixels are in the vectors."""
        return strassen_plan.in_planes(problem, lanes(problem), threads)

    def _cut(self, problem: ConvProblem, threads: int) -> strassen_plan.Cut:
        return strassen_plan.cut(problem, lanes(problem), threads)

    def _filters(self, problem: ConvProblem) -> int:
        """Return the filters that are computed, of pairs of panels."""
        return counts.filled(problem, 2 * counts.panel(problem))

    def _pairs_and_parts(self, problem: ConvProblem) -> tuple[int, int]:
        """Return the pairs of panels, and the parts of a plane's pixels, whose quarters tasks sum up."""
        return self._filters(problem) // (2 * counts.panel(problem)), -(-problem.positions // PIXELS_OF_QUARTERS)

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        if self._in_planes(problem, threads):
            spaced = 4 * problem.in_channels if max(problem.stride) > 1 else 0
            return (7 * problem.in_channels + 72 + spaced) * vector_bytes() + 2**12
        numbers = 7 * problem.in_channels // 4 + 128 + 6 * counts.panel(problem)
        return min(problem.positions, PIXELS_OF_QUARTERS) * numbers * problem.compute_dtype.itemsize + 2**14

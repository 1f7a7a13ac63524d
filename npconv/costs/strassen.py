"""What products of sums of quarters cost, by Strassen's algorithm."""

from __future__ import annotations

from npconv.costs import counts
from npconv.costs.engine import BEGIN, Panels, Products
from npconv.costs.machine import machine
from npconv.kernels.numba.blocking import QUARTERED
from npconv.problem import ConvProblem

FEWER, NUMBERS = 8 / 7, 7 / 4
"""How many times fewer products there are than in the direct sum, and numbers that are made of each."""

LONG = 4096
"""Bytes of a pixel's channels from which on these come from beyond the second-level cache, where they are summed up."""

BORDERS = (4, 1.5)
"""Copies that take as long as to write a result to a plane that other tasks write to, as well: one of parts of
lines, and of whole ones. (128 → 1024 channels at 13² take 329 µs by `strassen`, as was expected to take 237, and
214 by `direct`.)"""


class Strassen(Panels):
    """The engine `npconv.kernels.numba.strassen`, of 1 × 1 kernels and one group."""

    def _made(self, problem: ConvProblem, threads: int) -> Products:
        channels, itemsize = problem.in_channels, problem.compute_dtype.itemsize
        rate = FEWER * self.products * machine().transformed * 4 / itemsize * channels / (channels + 2 * BEGIN)
        if channels * itemsize >= LONG:
            rate *= 0.95
        if itemsize == 8:  # more bytes of sums: as fast as the direct sum, or slower
            rate *= 0.9
        pairs, parts = self._pairs_and_parts(problem)
        if problem.channels_last and (parts > 1 or pairs >= 8):
            rate *= 1.06
        planes, height, width = counts.planes_of(problem)
        plane = height * width
        return Products(rate, self._filters(problem), planes * (plane + plane % 2), problem.products)

    def _copied(self, problem: ConvProblem, threads: int, made: Products) -> float:
        pixels = problem.batch * problem.positions
        numbers = NUMBERS * pixels * (problem.in_channels + problem.out_channels) + self._transposed(problem, made)
        if not problem.channels_last:
            numbers += counts.loaded(problem)
            if self._pairs_and_parts(problem)[1] > 1:  # several tasks write lines of one plane
                whole = problem.positions * problem.compute_dtype.itemsize % 64 == 0
                numbers += BORDERS[whole] * pixels * problem.out_channels
        return numbers

    def _busy(self, problem: ConvProblem, threads: int) -> int:
        pairs, parts = self._pairs_and_parts(problem)
        return max(min(threads, problem.batch * pairs * parts), 1)

    def _points(self, problem: ConvProblem) -> float:
        return NUMBERS

    def _filters(self, problem: ConvProblem) -> int:
        """Return the filters that are computed, of pairs of panels."""
        return counts.filled(problem, 2 * counts.panel(problem))

    def _pairs_and_parts(self, problem: ConvProblem) -> tuple[int, int]:
        """Return the pairs of panels, and the parts of a plane's pixels, whose quarters tasks sum up."""
        return self._filters(problem) // (2 * counts.panel(problem)), -(-problem.positions // QUARTERED)

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        numbers = 7 * problem.in_channels // 4 + 128 + 6 * counts.panel(problem)
        return min(problem.positions, QUARTERED) * numbers * problem.compute_dtype.itemsize + 2**14

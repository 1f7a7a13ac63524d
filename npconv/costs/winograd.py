"""What Winograd's convolutions cost: tiles, their points, and filters transformed before or within the tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from npconv.costs import counts, tiles
from npconv.costs.engine import Panels, Products
from npconv.costs.machine import LAST_LEVEL, PACK, lanes, machine
from npconv.kernels import filtering
from npconv.kernels.numba import bands
from npconv.kernels.numba.blocking import engine_limit
from npconv.problem import ConvProblem

INEXACT = 1e-6
"""Seconds by which direct sums may take longer and are still preferred: they are exact, and compiled sooner."""

BEGIN = 2
"""Products that take as long as to begin with a tile of those of points, and to store it."""

LOWEST = 4
"""Tiles that products of points take as long as, even if there are fewer."""

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

PLAIN, OF_PACKED = 0.33, 0.27
"""Nanoseconds to transform a number of the weight within a task: of a plain one, and of one that a layer has packed."""

ELSEWHERE = 0.4e-9
"""Seconds that it takes a packed number to come from the cache of another core, which has packed it."""

HEAVY, EXPOSED_THEN = LAST_LEVEL / 2, 0.6
"""Bytes of transformed filters from which on layers may transform them within the tasks, and what of the shorter time
is then not hidden beside the longer one. (60 layers of 20 to 140 MB of them took 1.1 times as long as the fastest of
six ways, in the geometric mean, when these were hidden as well and transformed once, and take 1.02 times.)"""


@dataclass(frozen=True)
class Winograd(Panels):
    """The engines of `npconv.kernels.numba.winograd`, by the results of their tiles down and across."""

    tile: tiles.Tile = (4, 4)

    def may_be_within(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether it can be tasks that transform filters: of one group, or plain ones of tasks that have all of one."""
        return problem.groups == 1 or (not packed and self._cut(problem, threads).own)

    def _pays_within(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether that is faster, or must be for the room that it takes.

        Plain ones are as fast to transform beforehand as a rule, or up to a fifth faster where there are many tiles;
        but not where few filters meet points of a task's own, and none wait for what another has packed. Packed ones
        are transformed anew where that takes less time than for transformed ones to come.
        """
        size = self.packed_bytes(problem)
        if packed:
            within, before = (self._seconds(problem, threads, packed, way) for way in (True, False))
            return size > HEAVY and within < before
        if self._cut(problem, threads).pays:
            weights = problem.out_channels * problem.products
            again = self._packings(problem, threads) * weights / threads * PLAIN * 1e-9
            if again <= PACK + size // problem.compute_dtype.itemsize * ELSEWHERE:
                return True
        return threads * self._scratch(problem, threads) + size > engine_limit(problem)

    def workspace(self, problem: ConvProblem, threads: int, packed: bool) -> int:
        """Return about as many bytes as the threads work in, and those of the weights if they are packed for a call."""
        if self.within_tasks(problem, threads, packed):
            return self._cut(problem, threads).bytes
        return super().workspace(problem, threads, packed)

    def _seconds(self, problem: ConvProblem, threads: int, packed: bool, within: bool) -> float:
        return super()._seconds(problem, threads, packed, within) + INEXACT

    def _made(self, problem: ConvProblem, threads: int) -> Products:
        axes, (_, of_image) = tiles.axes(problem, self.tile), tiles.images(problem, self.tile)
        elements, wide = filtering.elements_of(problem, axes), counts.panel(problem)
        rate = self.products * machine().transformed * 4 / problem.compute_dtype.itemsize * counts.narrow(problem)
        rate *= math.prod(axis.results for axis in axes) / (self._of_taps(problem)[0] * tiles.taken(problem, self.tile))
        rate *= min(of_image * tiles.together(problem, self.tile, threads) / LOWEST, 1) * elements / (elements + BEGIN)
        if problem.groups > 1 and problem.out_channels // problem.groups <= wide:
            rate *= 1.15
        if problem.taps > problem.positions:
            rate *= 0.5  # few tiles, and as many filters as of a large image's gradient
        pixels = tiles.number(problem, self.tile) * math.prod(axis.results for axis in axes)
        filters = counts.filled(problem, wide // 2) * problem.groups  # the last panel may be half of one
        return Products(rate, filters, pixels, problem.products)

    def _copied(self, problem: ConvProblem, threads: int, made: Products) -> float:
        """Return how many numbers are copied, or what takes as long: more than one task may make points of tiles."""
        met, number = counts.loaded(problem), tiles.number(problem, self.tile)
        points, wide = number * tiles.points(problem, self.tile), lanes(problem)
        elements = filtering.elements_of(problem, tiles.axes(problem, self.tile))
        of_points = POINT * points * -(-elements // wide) * wide * problem.groups
        of_points *= threads / min(max(number // APART, 1), threads)
        far = min(max(problem.input_bytes / NEARBY - 1, 0), 4)
        return met * (counts.deep(problem) + 2 * far) + of_points + points * made.filters / 4 + made.results

    def _packing(
        self, problem: ConvProblem, threads: int, made: Products, packed: bool, within: bool
    ) -> tuple[float, float]:
        if not within:
            return super()._packing(problem, threads, made, packed, within)
        packings = self._packings(problem, threads)
        if packed:
            return 0, packings * problem.out_channels * problem.products * OF_PACKED * 1e-9
        return 0, self._to_pack(problem, made.filters, packings * PLAIN, self._points(problem))

    def _packings(self, problem: ConvProblem, threads: int) -> int:
        """Return how many tasks meet a panel of filters, each of which transforms it."""
        cut = self._cut(problem, threads)
        return -(-cut.lines // cut.share)

    def _points(self, problem: ConvProblem) -> float:
        return self._of_taps(problem)[1]

    def _of_taps(self, problem: ConvProblem) -> tuple[float, float]:
        """Return, for each tap, the points of a tile that are multiplied, and the numbers that are packed."""
        axes = tiles.axes(problem, self.tile)
        points, numbers = (
            math.prod(n * axis.fold / axis.taps for n, axis in zip(of, axes, strict=True))
            for of in zip(*((axis.points, axis.number) for axis in axes), strict=True)
        )
        return points, numbers

    def _exposed(self, size: float) -> float:
        return EXPOSED_THEN if size > HEAVY else super()._exposed(size)

    def _cut(self, problem: ConvProblem, threads: int) -> bands.Cut:
        """Return how the tiles are cut where filters are packed within the tasks."""
        return bands.cut(problem, self.tile, threads, counts.panel(problem))

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        axes = tiles.axes(problem, self.tile)
        largest = tiles.largest(problem, self.tile, tiles.most(problem, self.tile, threads))
        pixels = math.prod((n - 1) * axis.pace + axis.reach for n, axis in zip(largest, axes, strict=True))
        together = tiles.together(problem, self.tile, threads)
        points = tiles.points(problem, self.tile) * math.prod(largest) * together
        itemsize, elements = problem.compute_dtype.itemsize, filtering.elements_of(problem, axes)
        planes = problem.three(problem.kernel_size)[0]
        pixels *= planes * filtering.pitch_of(elements // planes, itemsize)
        return (points * elements + max(pixels, 2 * points * counts.panel(problem))) * itemsize

"""What an engine costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from npconv.costs import products, tiles
from npconv.costs.loads import copied
from npconv.costs.machine import COPY, LAST_LEVEL, PACK, shared, streaming, vector_bytes
from npconv.costs.scratch import scratch
from npconv.costs.special import SWAPPED, outer_seconds, pairs_seconds, pieces_seconds, planes_seconds
from npconv.kernels.numba import bands, regions
from npconv.kernels.numba.blocking import (
    QUARTERED,
    SECOND_LEVEL,
    TASKS_PER_THREAD,
    engine_limit,
    in_pairs,
    in_slivers,
    meetings,
    shared_filters,
    side_by_side,
)
from npconv.problem import ConvProblem


@dataclass(frozen=True)
class Effort:
    """Rough speed of an engine, by what it does: products, copies of input and result, weights packed and streamed.

    ``products`` a second and thread in float32; ``panel`` vectors of filters that are computed together, ``tile``
    results of a Winograd tile down and across. ``pack`` is the cost of packing a number of the weight, in nanoseconds,
    and a quarter more for each that becomes of it, which calls that bring packed weights do not pay.
    """

    call: float
    products: float
    pack: float
    panel: int = 0
    tile: tuple[int, int] = (1, 1)
    dots: bool = False
    """Whether elements of the kernel are in the vectors, and not results."""

    dense: bool = False
    """Whether numbers of the weight are in the vectors, each read once."""

    pieces: bool = False
    """Whether it is the kernel that is cut into Winograd tiles, and not the result."""

    outer: bool = False
    """Whether it is images and filters that are multiplied, for one element of the kernel after the other."""

    quarters: bool = False
    """Whether matrices are cut into quarters, and sums of these multiplied, by Strassen's algorithm."""

    several: bool = False
    """Whether filters of several groups are in the vectors."""

    plain: float = 0
    """The same as ``pack`` where filters are packed within the tasks; 0 if they never are."""

    ONE_TAP, OFTEN, AS_THEY_LIE = 0.6, 2, 8
    """How long it takes to pack filters of one tap within the tasks, in comparison with others; the tasks that meet a
    panel of the direct sum, at most, for each to pack it, or to meet it where it is."""

    turned: float = 0
    """The same as ``pack`` where filters of one tap lie side by side."""

    slivers: bool = False
    """Whether an engine without panels cuts pixels into slivers, where filters are many."""

    ELSEWHERE = 0.4e-9
    """Seconds that it takes a packed number to come from the cache of another core, which has packed it."""

    NUMPY = 6e-6
    """The same where NumPy packs, which no threads share."""

    group: float = 0
    """Seconds that it takes to begin with a group."""

    BEHIND = 5
    """Copies that take as long as to put a number of a filter behind those of the image before."""

    LANES = 5e-9
    """Seconds to add up the lanes of a result of `dots`."""

    INEXACT = 1e-6
    """Seconds by which direct sums may take longer than others and are still preferred: they are exact, and compiled
    sooner."""

    AT_ONCE, NEAR, FAR = 8, 0.75, 1.35
    """Filters that are read at a time where each number of the weight is read once, and how long it takes them to come
    in comparison with panels, which are one stream: from the last level of cache sooner, from memory later. 2048 → 1000
    take 62 µs by `dense` and 81 by `direct`, 512 × 7 × 7 → 1024 2.24 and 1.55 ms."""

    BY_ONE = 10**5
    """Numbers of a gradient that one thread packs."""

    HEAVY, TRANSFORMED = LAST_LEVEL / 2, 0.27
    """Bytes of transformed filters from which on layers may transform them within the tasks, and the same as ``plain``
    for those."""

    EXPOSED = (0.2, 0.6)
    """What of the shorter time, of computing and of weights to come, is not hidden beside the longer one; and the same
    for so many transformed filters. (60 layers of 20 to 140 MB of them took 1.1 times as long as the fastest of six
    ways, in the geometric mean, when these were hidden as well and transformed once, and take 1.02 times.)"""

    def seconds(self, problem: ConvProblem, threads: int, packed: bool) -> float:
        """Return the time that a problem should take."""
        return self._seconds(problem, threads, packed, self.within_tasks(problem, threads, packed))

    def _seconds(self, problem: ConvProblem, threads: int, packed: bool, within: bool) -> float:
        """Return the same, if filters are made of them ``within`` the tasks or not."""
        if self.outer:
            return outer_seconds(self, problem, threads)
        if self.pieces:
            return pieces_seconds(self, problem, threads)
        if self.dense and in_pairs(problem):
            return pairs_seconds(self, problem, threads)
        if self.slivers and not in_slivers(problem):
            return planes_seconds(self, problem, threads, packed)
        itemsize = problem.compute_dtype.itemsize
        parted = self.far(problem)
        made = products.of(self, problem, threads, parted)
        copying = copied(self, problem, threads, made, parted) * itemsize / 4 * COPY
        call = self.call + (self.INEXACT if self.tile != (1, 1) else 0)
        work = made.pixels * made.filters * made.each / self._winograd(problem)[0] / made.rate + copying
        work += self.group * problem.groups * problem.batch
        if self.quarters:
            threads = max(min(threads, problem.batch * math.prod(self.pairs_and_parts(problem, made.filters))), 1)
        if self.dots:
            work += self.LANES * made.pixels * made.filters
            filters, tasks = made.filters // problem.groups, problem.batch * problem.groups
            if filters < products.TOGETHER:
                threads = max(tasks // -(-tasks // threads), 1)
            else:
                work *= shared_filters(filters, products.TOGETHER, tasks, threads)[1]
        weights = problem.out_channels * problem.products
        if packed and within:
            work += self._packings(problem, threads) * weights * self.TRANSFORMED * 1e-9
        if not packed:
            packing = self._packing(problem, threads, made.filters, within)
            if self.dots and problem.in_channels > problem.groups:  # some images, one behind the other for a filter
                work += self.BEHIND * weights * COPY
            if self.several:
                call += self.NUMPY + packing
            else:
                few = parted is not None and parted.bytes == 0 and weights < self.BY_ONE  # packed by one thread
                work += packing + (PACK * threads if self.panel and self.pack and not within and not few else 0)
        # Filters that are packed within the tasks come as they are.
        size = weights * (1 if within else self._winograd(problem)[1]) * itemsize
        computing, coming = shared(float(work), threads), streaming(size, threads)
        if self.dense:
            coming *= self.NEAR if weights * itemsize <= LAST_LEVEL else self.FAR
            if self.AT_ONCE * problem.products * itemsize > 2**15:  # more than a first-level cache, for each image anew
                coming *= problem.batch
        longer, shorter = max(computing, coming), min(computing, coming)
        return call + longer + shorter * self.EXPOSED[self.tile != (1, 1) and size > self.HEAVY]

    def _packing(self, problem: ConvProblem, threads: int, filters: int, within: bool) -> float:
        """Return the seconds that it takes to pack plain weights, as so many filters with those that fill up panels."""
        packing = self.turned if problem.turned and problem.taps == 1 else self.pack
        if within and self._as_they_lie(problem):
            packing = 0
        elif within:
            packing = self._packings(problem, threads) * self.plain * (self.ONE_TAP if problem.taps == 1 else 1)
        elif problem.turned and problem.taps > 1 and self.slivers:  # which takes filters as they lie, if in order
            packing = SWAPPED
        _, points = self._winograd(problem)
        return (problem.out_channels * problem.products + filters * problem.products * points / 4) * packing * 1e-9

    def pairs_and_parts(self, problem: ConvProblem, filters: int) -> tuple[int, int]:
        """Return the pairs of panels, and the parts of a plane's pixels, whose quarters tasks sum up."""
        return filters // (2 * self.wide(problem)), -(-problem.positions // QUARTERED)

    def far(self, problem: ConvProblem) -> regions.Regions | None:
        """Return the regions whose taps are met far from each other, if there are any: the direct sum's."""
        direct = self.panel and self.tile == (1, 1) and not self.quarters
        return regions.of(problem, self.wide(problem)) if direct else None

    def wide(self, problem: ConvProblem) -> int:
        """Return the filters of a panel, 0 without panels."""
        return self.panel * vector_bytes() // problem.compute_dtype.itemsize

    def _winograd(self, problem: ConvProblem) -> tuple[float, float]:
        """Return how many times fewer products there are than in the direct sum, and numbers packed for each tap."""
        if self.quarters:
            return 8 / 7, 7 / 4
        if self.tile == (1, 1):
            return 1.0, 1.0
        axes = tiles.axes(problem, self.tile)
        points, numbers = (
            math.prod(n * axis.fold / axis.taps for n, axis in zip(of, axes, strict=True))
            for of in zip(*((axis.points, axis.number) for axis in axes), strict=True)
        )
        return math.prod(axis.results for axis in axes) / points, numbers

    def workspace(self, problem: ConvProblem, threads: int, packed: bool) -> int:
        """Return about as many bytes as the threads work in, and those of the weights if they are packed for a call."""
        worked_in = threads * scratch(self, problem, threads)
        if self.within_tasks(problem, threads, packed):
            if self.tile != (1, 1):
                return self._cut(problem, threads).bytes
            return worked_in + threads * self._panel(problem)
        return worked_in + (0 if packed else self.packed_bytes(problem))

    def _cut(self, problem: ConvProblem, threads: int) -> bands.Cut:
        """Return how the tiles are cut where filters are packed within the tasks."""
        return bands.cut(problem, self.tile, threads, self.wide(problem))

    def within_tasks(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether it is tasks that make of filters, plain or ``packed``, what they meet.

        Of plain ones of a call Winograd's where all packed ones would take too much memory, else it is as fast to pack
        them beforehand, or up to a fifth faster where there are many tiles; or where few filters meet points of a
        task's own, and none wait for what another has packed. And those of the direct sum where a panel, which
        has to stay in the second-level cache, is met by few tasks. Of packed ones Winograd's, where it takes less time
        than for transformed ones to come.
        """
        if not self.may_be_within(problem, threads, packed):
            return False
        if packed:
            heavy = self.packed_bytes(problem) > self.HEAVY
            return heavy and self._seconds(problem, threads, True, True) < self._seconds(problem, threads, True, False)
        if self.tile == (1, 1):
            often = self.AS_THEY_LIE if self._as_they_lie(problem) else self.OFTEN
            return self._packings(problem, threads) <= often
        size = self.packed_bytes(problem)
        if self._cut(problem, threads).pays:
            weights = problem.out_channels * problem.products
            again = self._packings(problem, threads) * weights / threads * self.plain * 1e-9
            if again <= PACK + size // problem.compute_dtype.itemsize * self.ELSEWHERE:
                return True
        return threads * scratch(self, problem, threads) + size > engine_limit(problem)

    def may_be_within(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether it can be tasks that make of filters, plain or ``packed``, what they meet.

        The direct sum's, which once packed are so, if a panel fits the cache, and of regions, which meet it one after
        the other, if there are some for each thread; Winograd's of one group, or if they are not packed, of tasks that
        have all of a group.
        """
        if self.plain == 0:
            return False
        if self.tile == (1, 1):
            if self.far(problem) is not None and problem.out_channels < TASKS_PER_THREAD * threads * self.wide(problem):
                return False
            return not packed and self._panel(problem) <= SECOND_LEVEL // 2
        return problem.groups == 1 or (not packed and self._cut(problem, threads).own)

    def _as_they_lie(self, problem: ConvProblem) -> bool:
        """Whether the direct sum meets plain filters where they are."""
        matrix = problem.turned and problem.taps == problem.groups == 1 and self.tile == (1, 1)
        return matrix and side_by_side(problem, problem.out_channels)

    def _panel(self, problem: ConvProblem) -> int:
        """Return the bytes of a packed panel."""
        return problem.products * self.wide(problem) * problem.compute_dtype.itemsize

    def _packings(self, problem: ConvProblem, threads: int) -> int:
        """Return how many tasks meet a panel of filters, each of which packs it."""
        if self.tile == (1, 1):
            planes = problem.batch * problem.three(problem.output_size)[0]
            return meetings(problem) if self.far(problem) is None else planes
        cut = self._cut(problem, threads)
        return -(-cut.lines // cut.share)

    def packed_bytes(self, problem: ConvProblem) -> int:
        """Return the bytes of the weights when they are packed."""
        if self.pieces or self.outer or not (self.panel or self.pack):
            return 0  # they are taken as they are
        itemsize = problem.compute_dtype.itemsize
        panel = max(self.wide(problem), 1)
        filters = -(-problem.out_channels // problem.groups // panel) * panel * problem.groups
        return int(filters * problem.products * self._winograd(problem)[1]) * itemsize

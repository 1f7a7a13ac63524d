"""What direct sums cost, with filters in panels: of slabs, of rows where they are, and by regions."""

from __future__ import annotations

from npconv.costs import counts
from npconv.costs.engine import BEGIN, SLIVER, TURNED, Panels, Products
from npconv.costs.machine import COPY, PACK
from npconv.costs.slabs import BESIDE, between_taps, of_pixels
from npconv.kernels.numba import far_taps
from npconv.kernels.numba.blocking import SECOND_LEVEL, TASKS_PER_THREAD, in_rows, meetings, side_by_side
from npconv.problem import ConvProblem

BLOCK = 8
"""Channels of a group, at least, of which runs are long enough to be met in vectors wherever they lie."""

IN_ROWS = 1.1
"""How many times as many products a second there are of rows of an input that are met where they are, at a stride,
of whose slab little would be met."""

PLAIN, ONE_TAP = 0.19, 0.6
"""Nanoseconds to pack a number of the weight within a task, and how long it takes if it has one tap, in comparison."""

OFTEN, AS_THEY_LIE = 2, 8
"""The tasks that meet a panel, at most, for each to pack it, or to meet it where it is."""

BY_ONE = 10**5
"""Numbers of a gradient that one thread packs."""


class Direct(Panels):
    """The engine `npconv.kernels.numba.direct`."""

    def may_be_within(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether it can be tasks that pack, once: if a panel fits the cache, and there is a region for each thread."""
        if self._far(problem) is not None and problem.out_channels < TASKS_PER_THREAD * threads * counts.panel(problem):
            return False
        return not packed and self._panel_bytes(problem) <= SECOND_LEVEL // 2

    def _pays_within(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether a panel, which has to stay in the second-level cache, is met by few tasks."""
        return self._packings(problem) <= (AS_THEY_LIE if self._as_they_lie(problem) else OFTEN)

    def workspace(self, problem: ConvProblem, threads: int, packed: bool) -> int:
        """Return about as many bytes as the threads work in, and those of the weights if they are packed for a call."""
        if self.within_tasks(problem, threads, packed):
            return threads * (self._scratch(problem, threads) + self._panel_bytes(problem))
        return super().workspace(problem, threads, packed)

    def _made(self, problem: ConvProblem, threads: int) -> Products:
        wide, products, far = counts.panel(problem), problem.products, self._far(problem)
        rate = counts.rate_of(problem, self.products) * products / (products + BEGIN)
        if problem.groups > 1 and problem.out_channels // problem.groups <= wide:
            rate *= 0.9 * products / (products + 1.5 * SLIVER)  # one panel is soon done, and its weights have come
        if problem.taps > problem.positions:
            # For a few results at a time, filters that fill no cache; and if they are dilated, they meet short runs.
            run = problem.in_channels // problem.groups
            rate *= 0.95 if problem.dilation[-1] == 1 else 0.95 * (run + 0.5) / (run + 1)
        if far is not None:
            rate *= (IN_ROWS if max(problem.stride) > 1 and not far.bytes else 1) / far.products
        planes, height, width = counts.planes_of(problem)
        filters = counts.filled(problem, wide // 2) * problem.groups  # the last panel may be half of one
        return Products(rate, filters, planes * height * width, products)

    def _copied(self, problem: ConvProblem, threads: int, made: Products) -> float:
        far = self._far(problem)
        if far is None:
            met = 0 if in_rows(problem) else counts.loaded(problem)
        else:
            met = far.bytes // problem.compute_dtype.itemsize
        numbers: float = met * counts.deep(problem) + self._transposed(problem, made)
        if problem.taps > problem.positions and problem.in_channels // problem.groups < BLOCK:
            numbers += counts.residues(problem)
        if not problem.channels_last:
            numbers += TURNED * (met + made.results)
            if far is not None and far.bytes:  # channels are put side by side first
                numbers += PACK * threads / COPY
        return numbers

    def _packing(
        self, problem: ConvProblem, threads: int, made: Products, packed: bool, within: bool
    ) -> tuple[float, float]:
        if packed or not within:
            return super()._packing(problem, threads, made, packed, within)
        if self._as_they_lie(problem):
            return 0, 0
        pace = self._packings(problem) * PLAIN * (ONE_TAP if problem.taps == 1 else 1)
        return 0, self._to_pack(problem, made.filters, pace)

    def _waking(self, problem: ConvProblem, threads: int) -> float:
        far, numbers = self._far(problem), problem.out_channels * problem.products
        one = far is not None and far.bytes == 0 and numbers < BY_ONE
        return 0 if one else super()._waking(problem, threads)

    def _packings(self, problem: ConvProblem) -> int:
        """Return how many tasks meet a panel of filters, each of which packs it."""
        if self._far(problem) is None:
            return meetings(problem)
        return problem.batch * problem.three(problem.output_size)[0]

    def _as_they_lie(self, problem: ConvProblem) -> bool:
        """Whether plain filters are met where they are."""
        matrix = problem.turned and problem.taps == problem.groups == 1
        return matrix and side_by_side(problem, problem.out_channels)

    def _far(self, problem: ConvProblem) -> far_taps.Regions | None:
        """Return the regions whose taps are met far from each other, if there are any."""
        return far_taps.of(problem, counts.panel(problem))

    def _panel_bytes(self, problem: ConvProblem) -> int:
        """Return the bytes of a packed panel."""
        return problem.products * counts.panel(problem) * problem.compute_dtype.itemsize

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        far = self._far(problem)
        if far is not None:  # an image that all share, and results
            return far.bytes // max(threads, 1) + BESIDE
        return max(of_pixels(problem) + BESIDE, between_taps(problem, problem.in_channels // problem.groups))

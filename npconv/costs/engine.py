"""What engines have in common: products, copies, weights that are packed, and those that come from afar."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from npconv.costs import counts
from npconv.costs.cost import Cost
from npconv.costs.machine import PACK, SHORT, shared, streaming
from npconv.costs.slabs import BESIDE, SLAB
from npconv.problem import ConvProblem

TURNED = 2.4
"""Copies that take as long as to transpose a number, of input and result, besides the copying."""

EXPOSED = 0.2
"""What of the shorter time, of computing and of weights to come, is not hidden beside the longer one."""

BEGIN, SLIVER = 3, 16
"""Products that take as long as to begin with a tile of them, and to store it, in panels; and where these are short, or
pixels are in slivers. (With 3, and results copied twice, 3 and 4 channels were computed by `planes`, 4 to 64 at 202² in
1.06 ms, and take 0.73 by `winograd4`. 1 × 1 layers by pixels in slivers took up to 3 times as long as without 16, in
comparison with `direct`: the fewer the channels, the longer.)"""


class Products(NamedTuple):
    """What is multiplied."""

    rate: float
    """Products a second and thread."""

    filters: int
    """Of all groups, those in vain as well."""

    pixels: int
    """Results of a filter, those in vain as well."""

    each: int
    """Products of a result."""

    @property
    def results(self) -> int:
        """All of them, those in vain as well."""
        return self.pixels * self.filters

    @property
    def seconds(self) -> float:
        """Of one thread."""
        return self.results * self.each / self.rate


@dataclass(frozen=True)
class Engine(Cost):
    """Rough speed of an engine: seconds of a call, and what vectors of 32 bytes multiply.

    ``products`` a second and thread in float32. ``pack`` is the cost of packing a number of the weight, in nanoseconds,
    and a quarter more for each that becomes of it, which calls that bring packed weights do not pay; ``turned`` the
    same where filters of one tap lie side by side.

    Each engine, or a few that are alike, has a class of its own, which tells by the methods with an underscore what it
    does in another way.
    """

    products: float
    pack: float = 0
    turned: float = 0

    def seconds(self, problem: ConvProblem, threads: int, packed: bool) -> float:
        """Return the time that a problem should take."""
        return self._seconds(problem, threads, packed, self.within_tasks(problem, threads, packed))

    def workspace(self, problem: ConvProblem, threads: int, packed: bool) -> int:
        """Return about as many bytes as the threads work in, and those of the weights if they are packed for a call."""
        return threads * self._scratch(problem, threads) + (0 if packed else self.packed_bytes(problem))

    def packed_bytes(self, problem: ConvProblem) -> int:
        """Return the bytes of the weights when they are packed."""
        return problem.out_channels * problem.products * problem.compute_dtype.itemsize if self.pack else 0

    def within_tasks(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether it is tasks that make of filters, plain or ``packed``, what they meet."""
        return self.may_be_within(problem, threads, packed) and self._pays_within(problem, threads, packed)

    def may_be_within(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether it can be tasks that do so: if there is an engine for it."""
        return False

    def _pays_within(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether that is faster, or must be for the room that it takes, where it can be."""
        return True

    @abstractmethod
    def _seconds(self, problem: ConvProblem, threads: int, packed: bool, within: bool) -> float:
        """Return the time that a problem should take, if filters are made of them ``within`` the tasks or not."""

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        """Return about as many bytes as a thread works in: a slab of the input's channels, which threads share out."""
        size = problem.padded_elements * problem.compute_dtype.itemsize
        return min(SLAB, size, 2 * size // max(threads, 2)) + BESIDE


class Composed(Engine):
    """An engine whose time is that of its products, its copies, and of weights that are packed and come from afar."""

    least: ClassVar[float] = SHORT
    """Seconds of work from which on threads share it."""

    def _seconds(self, problem: ConvProblem, threads: int, packed: bool, within: bool) -> float:
        threads = self._busy(problem, threads)
        made = self._made(problem, threads)
        before, packing = self._packing(problem, threads, made, packed, within)
        work = self._work(problem, threads, made) + packing
        size = self._met_bytes(problem, within)
        computing, coming = shared(work, threads, self.least), self._coming(problem, threads, size)
        longer, shorter = max(computing, coming), min(computing, coming)
        return self.call + before + longer + shorter * self._exposed(size)

    @abstractmethod
    def _made(self, problem: ConvProblem, threads: int) -> Products:
        """Return what is multiplied."""

    def _copied(self, problem: ConvProblem, threads: int, made: Products) -> float:
        """Return how many numbers are copied, or what takes as long, of input and result."""
        return counts.loaded(problem) * counts.deep(problem) + made.results

    def _work(self, problem: ConvProblem, threads: int, made: Products) -> float:
        """Return the seconds that one thread takes to compute it, without packing."""
        return made.seconds + self._copied(problem, threads, made) * counts.copy(problem)

    def _busy(self, problem: ConvProblem, threads: int) -> int:
        """Return how many threads there is work for."""
        return threads

    def _packing(
        self, problem: ConvProblem, threads: int, made: Products, packed: bool, within: bool
    ) -> tuple[float, float]:
        """Return the seconds that it takes to pack plain weights: before all else, and those that threads share."""
        return 0, 0 if packed else self._to_pack(problem, made.filters, self._pace(problem))

    def _pace(self, problem: ConvProblem) -> float:
        """Return the nanoseconds that it takes to pack a number of a weight."""
        return self.turned if problem.turned and problem.taps == 1 else self.pack

    def _to_pack(self, problem: ConvProblem, filters: int, pace: float, points: float = 1) -> float:
        """Return the seconds to pack a weight as so many filters, of so many ``points`` for each of its numbers."""
        return (problem.out_channels + filters * points / 4) * problem.products * pace * 1e-9

    def _met_bytes(self, problem: ConvProblem, within: bool) -> float:
        """Return the bytes of the weights that come from beyond the second-level cache."""
        return problem.out_channels * problem.products * problem.compute_dtype.itemsize

    def _coming(self, problem: ConvProblem, threads: int, size: float) -> float:
        """Return how long so many bytes of weights take to come."""
        return streaming(size, threads)

    def _exposed(self, size: float) -> float:
        """Return `EXPOSED` for so many bytes of weights."""
        return EXPOSED


class Panels(Composed):
    """An engine that has filters in its vectors: panels of them, which fill up the last."""

    def packed_bytes(self, problem: ConvProblem) -> int:
        """Return the bytes of the weights when they are packed, panels filled up."""
        filters = counts.filled(problem, counts.panel(problem)) * problem.groups
        return int(filters * problem.products * self._points(problem)) * problem.compute_dtype.itemsize

    def _points(self, problem: ConvProblem) -> float:
        """Return how many numbers are packed for each of the weight."""
        return 1

    def _packing(
        self, problem: ConvProblem, threads: int, made: Products, packed: bool, within: bool
    ) -> tuple[float, float]:
        if packed:
            return 0, 0
        packing = self._to_pack(problem, made.filters, self._pace(problem), self._points(problem))
        return 0, packing + self._waking(problem, threads)

    def _waking(self, problem: ConvProblem, threads: int) -> float:
        """Return the seconds that packing takes besides, of all threads."""
        return PACK * threads

    def _met_bytes(self, problem: ConvProblem, within: bool) -> float:
        return super()._met_bytes(problem, within) * (1 if within else self._points(problem))

    def _transposed(self, problem: ConvProblem, made: Products) -> int:
        """Return the numbers that are written: twice each if channels come first, for filters lie side by side."""
        return made.results * (1 if problem.channels_last else 2)

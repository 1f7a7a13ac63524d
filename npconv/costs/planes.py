"""What direct sums cost that have pixels in their vectors: of planes where they are, or of slivers cut from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from npconv.costs import counts
from npconv.costs.engine import SLIVER, TURNED, Composed, Products
from npconv.costs.machine import lanes, machine, shared, vector_bytes
from npconv.costs.slabs import between_taps
from npconv.kernels.numba import blocking
from npconv.kernels.numba.blocking import GATHERED, in_slivers, may_be_halved
from npconv.problem import ConvProblem

HIGHEST = 4
"""Filters of a tile that meets planes, at most."""

TILE, VECTOR, LINES = 1.8, 3.6e-9, (3.3e-9, 6e-9)
"""Filters whose products take as long as what such a tile loads besides; seconds to begin with each of its vectors
of results, and with a row that is loaded, as it is or by the residues of a stride. (By 700 layers of 1 to 40 filters,
in one thread and two; as of their products alone, they were thought to take a quarter longer than they do, within a
factor of 1.4, now of 1.2.)"""

LOADED = (0.36, 1.6, 6.0)
"""Copies that take as long as to load a number for them, by the stride, and to write a result as the first. (At stride
2 once 0.67: 64 to 16 channels at 111 × 176, 3 × 3, were thought to take 500 µs, take 680, and by `winograd2` 477; once
2.5, and 6 with one tap: 192 to 10 at 69², 3 × 3, were computed by `winograd4` in 0.73 ms on a core, and take 0.60, 64
to 3 at 128², 1 × 1, by `direct` in 0.16, and take 0.08.)"""

SWAPPED = 0.6
"""Nanoseconds to put a number of a gradient's weight in order where an engine takes filters in rows."""

ROW = 300
"""Copies that take as long as to find a row of a channel of which each stride's pixel is wanted."""

HALVED = 1
"""Copies that take as long as to cut every second pixel of a row, besides the copying."""

SPACED = 2.4
"""How many times as long it takes to copy what lies more than two apart, and is met by one tap alone."""

FEW = 400
"""Products of channels that planes are met in parts of, at least."""

RESULTS = 3 * 2**17
"""Bytes of results and of a slab that a thread works in, at most, where there are slivers. (With a mebibyte, which
few tasks need, it was thought that two threads have no room for 296 of 5,238 layers where they have, and one of
them computed it alone; with this for 8, and for 5 that they have where they have not, which their plan tells.)"""

CUT = 2**17
"""Bytes of slivers, at most, unless two vectors of pixels take more."""


@dataclass(frozen=True)
class Planes(Composed):
    """The engine `npconv.kernels.numba.planes`; ``group`` are the seconds that it takes to begin with a group."""

    group: float = 0

    least: ClassVar[float] = 1.4e-5
    """Its threads share less work than others': 64 channels at 13² take 13 µs in two, and were thought to take 28."""

    def _seconds(self, problem: ConvProblem, threads: int, packed: bool, within: bool) -> float:
        if in_slivers(problem):
            return super()._seconds(problem, threads, packed, within)
        work = self._in_place(problem)
        if not packed and problem.taps > 1:
            work += problem.out_channels * problem.products * self._pace(problem) * 1e-9
        return self.call + shared(work, threads, self.least)

    def _in_place(self, problem: ConvProblem) -> float:
        """Return the seconds of one thread where few filters of a group meet planes where they lie.

        Tiles run over the rows' ends. Where numbers of a row lie apart, they are loaded one by one.
        """
        stride, products = problem.three(problem.stride), problem.products
        filters, (depth, height, width) = problem.out_channels // problem.groups, problem.three(problem.output_size)
        line, wide = width + (problem.span[-1] - 1) // stride[2], lanes(problem)
        vectors = -(-((height - 1) * line + width) // (2 * wide)) * 2
        vectors *= problem.batch * problem.groups * depth
        tiles = -(-filters // HIGHEST)
        rate = 1.5 * self.products * machine().direct * 4 / problem.compute_dtype.itemsize * _reached(problem)
        work = vectors * wide * (filters + TILE * tiles) * products / rate + VECTOR * vectors * tiles
        copied = LOADED[0] * problem.batch * problem.out_channels * problem.positions
        if not counts.pointwise(problem) or max(stride) > 1:
            rows, columns = _slab(problem)
            work += LINES[stride[2] > 1] * rows
            copied += LOADED[min(stride[2], 3) - 1] * rows * columns
        if problem.channels_last:
            copied += TURNED * (counts.loaded(problem) + problem.batch * problem.out_channels * problem.positions)
        if problem.groups > 1:
            work += self.group * problem.groups * problem.batch
        return work + copied * counts.copy(problem)

    def _made(self, problem: ConvProblem, threads: int) -> Products:
        rate, each = counts.rate_of(problem, self.products) * _reached(problem), problem.products
        if counts.pointwise(problem) or problem.taps >= problem.positions:  # or a gradient's elements
            rate *= each / (each + SLIVER)
        return Products(rate, problem.out_channels, _slivers(problem)[0], each)

    def _copied(self, problem: ConvProblem, threads: int, made: Products) -> float:
        return _slivers(problem)[1]

    def _work(self, problem: ConvProblem, threads: int, made: Products) -> float:
        return super()._work(problem, threads, made) + self.group * problem.groups * problem.batch

    def _pace(self, problem: ConvProblem) -> float:
        """Return the nanoseconds that it takes to put a number of a weight in order, which is in rows as a rule."""
        if not problem.turned:
            return 0
        return self.turned if problem.taps == 1 else SWAPPED

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        channels = problem.in_channels // problem.groups
        if in_slivers(problem):
            return max(_of_slivers(problem, threads), between_taps(problem, channels))
        met = min(channels, FEW // problem.taps + 1)
        return max(super()._scratch(problem, threads), between_taps(problem, met))


def _reached(problem: ConvProblem) -> float:
    """Return the share of its rate that is reached of a few results at a time, of which elements fill no cache.

    (By 300 weight gradients and 60 layers of one result to a few.)
    """
    if problem.taps <= problem.positions:
        return 1.0
    return 0.9 if problem.taps > 100 and not in_slivers(problem) else 0.7


def _slab(problem: ConvProblem) -> tuple[int, int]:
    """Return how many rows are loaded, of all planes that results meet, one for each residue of both axes, and columns.

    A residue of the stride that no tap meets is left out.
    """
    kernel, stride, dilation, sizes, spans = map(
        problem.three,
        (problem.kernel_size, problem.stride, problem.dilation, problem.output_size, problem.span),
    )
    rows = problem.batch * problem.in_channels * sizes[0] * kernel[0] * (sizes[1] + (spans[1] - 1) // stride[1])
    residues = (
        len({tap * d % s for tap in range(min(k, s))})
        for k, s, d in zip(kernel[1:], stride[1:], dilation[1:], strict=True)
    )
    return rows * math.prod(residues), sizes[2] + (spans[2] - 1) // stride[2]


def _slivers(problem: ConvProblem) -> tuple[int, float]:
    """Return the pixels that are computed, some in vain, and the numbers that are copied.

    Planes that meet one tap each are cut as they are, others from a slab; one row goes on with the next.
    """
    planes, height, width = counts.planes_of(problem)
    channels, alone, stepping = problem.in_channels, counts.pointwise(problem), max(problem.stride) > 1
    few = height * width <= lanes(problem)
    sliver, left = (lanes(problem), 0) if few or not alone else (2 * lanes(problem), channels)  # half may be all
    pixels = int(planes * sliver * blocking.slivers_of(height * width, sliver, 0 if problem.turned else left))
    copied: float = pixels * channels * problem.taps  # into slivers
    if may_be_halved(problem, lanes(problem)) and not problem.channels_last:
        return pixels, copied + HALVED * pixels * channels
    if not alone or stepping or problem.channels_last:
        spread = TURNED * (1 if alone else 2) if stepping else 1
        spread *= SPACED if _patched(problem) else 1
        copied += spread * (counts.loaded(problem) if alone else math.prod(_slab(problem)))
        if alone and stepping and not few:
            copied += ROW * planes * channels * height
    if problem.channels_last:
        copied += pixels * problem.out_channels
    return pixels, copied


def _patched(problem: ConvProblem) -> bool:
    """Whether numbers that lie more than two apart are met by one tap each."""
    return problem.stride[-1] > 2 and problem.kernel_size[-1] <= problem.stride[-1]


def _of_slivers(problem: ConvProblem, threads: int) -> int:
    """Return about as many bytes as a thread works in that cuts slivers."""
    itemsize, stepping = problem.compute_dtype.itemsize, max(problem.stride) > 1
    results = problem.batch * problem.out_channels * problem.positions
    slab = 0 if counts.pointwise(problem) and not stepping else problem.padded_elements
    size = min(RESULTS, 2 * (slab + results) * itemsize // max(threads, 2))
    size += max(min(CUT, problem.padded_elements * problem.taps * itemsize), problem.products * 2 * vector_bytes())
    if problem.turned and problem.taps == problem.groups == 1:  # a task copies its filters: some, or all
        size += problem.weight_bytes // 2
    if counts.pointwise(problem) and stepping:
        met = problem.batch * problem.in_channels * problem.positions * itemsize
        size += met // max(threads, 1) if met <= GATHERED else 0
    return size

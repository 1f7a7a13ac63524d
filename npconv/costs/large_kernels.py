"""What is cheap of kernels that are as large as their input, or larger than their results: gradients of weights."""

from __future__ import annotations

import math

from npconv.costs import counts
from npconv.costs.engine import Composed, Engine, Products
from npconv.costs.machine import (
    COPY,
    LAST_LEVEL,
    MANY,
    PACK,
    lanes,
    machine,
    registers,
    shared,
    streaming,
    vector_bytes,
)
from npconv.costs.slabs import BESIDE, SLAB, of_pixels
from npconv.kernels.numba import piecing
from npconv.kernels.numba.blocking import SIDE_BY_SIDE, in_pairs, results_at_once, shared_filters
from npconv.problem import ConvProblem

LANES = 5e-9
"""Seconds to add up the lanes of a result of `dots`."""

SHARE, OF_FIVE, LARGE = (1.85, 1.6), 1.05, (0.87, 0.72)
"""How many times as many products a second there are where filters are side by side in tiles of `dots`, and with a
larger dilation than 2; how many more in tiles of five results; and the share that tiles of fewer reach of a first
layer's planes, which are large, with 5 × 5 results and with more."""

BEHIND = 5
"""Copies that take as long as to put a number of a filter behind those of the image before."""

AT_ONCE, NEAR, FAR = 8, 0.75, 1.35
"""Filters that are read at a time where each number of the weight is read once, and how long it takes them to come
in comparison with panels, which are one stream: from the last level of cache sooner, from memory later. 2048 → 1000
take 62 µs by `dense` and 81 by `direct`, 512 × 7 × 7 → 1024 2.24 and 1.55 ms."""

PAIRS, ADDED, BESIDE_OTHERS = 1.38, 5, 4
"""How many times as many products a second there are where a number of a filter meets some images; steps that take
as long as to add up the lanes of a result; copies that take as long as to put a pixel beside others, from which it
lay apart."""

ALONE = 1.45
"""How many times as long outer products take of one position with a single panel."""

TURNING, ONE = (16, 80), 8
"""Rows that take as long as to transpose a panel, of rows of taps, and of such as are short; and the former for results
of one position, which are written where they belong."""


class Dots(Composed):
    """The engine `npconv.kernels.numba.dots`, with the kernel's elements in its vectors."""

    def _made(self, problem: ConvProblem, threads: int) -> Products:
        """Return what is multiplied; a row's last vector is masked."""
        planes, height, width = counts.planes_of(problem)
        across, rate, plane = problem.kernel_size[-1], counts.rate_of(problem, self.products), height * width
        if _several(problem):
            vectors = across // lanes(problem) + 2 * (across % lanes(problem) > 0)
            each, at_once = problem.products // across * vectors * lanes(problem), results_at_once(plane, registers())
            rate *= SHARE[max(problem.dilation) > 2] * (OF_FIVE if at_once == 5 else 1)
            if problem.batch * problem.groups <= 4 and at_once < 5:
                rate *= LARGE[problem.positions > 25]
        else:
            line = 64 // problem.compute_dtype.itemsize
            rate *= 0.25 if problem.taps < problem.positions else 1.0  # sums of short rows are many sums of lanes
            rate *= 1 if problem.dilation[-1] == 1 else 0.5
            each, at_once = problem.products // across * (-(-across // line) * line + line // 2), 9
        return Products(rate, problem.out_channels, planes * -(-plane // at_once) * at_once, each)

    def _copied(self, problem: ConvProblem, threads: int, made: Products) -> float:
        return super()._copied(problem, threads, made) + counts.residues(problem)

    def _work(self, problem: ConvProblem, threads: int, made: Products) -> float:
        work = super()._work(problem, threads, made) + LANES * made.results
        if _several(problem):
            planes = problem.batch * problem.groups
            work *= shared_filters(problem.out_channels // problem.groups, SIDE_BY_SIDE, planes, threads)[1]
        return work

    def _busy(self, problem: ConvProblem, threads: int) -> int:
        planes = problem.batch * problem.groups
        return threads if _several(problem) else max(planes // -(-planes // threads), 1)

    def _packing(
        self, problem: ConvProblem, threads: int, made: Products, packed: bool, within: bool
    ) -> tuple[float, float]:
        if packed or problem.in_channels == problem.groups:
            return 0, 0
        return 0, BEHIND * problem.out_channels * problem.products * COPY  # some images, behind each other for a filter

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        """Return about as many bytes as a thread works in: a whole plane of the input, and one of the kernel."""
        return 2 * (math.prod(problem.padded_size) + problem.taps) * problem.compute_dtype.itemsize + BESIDE


def _several(problem: ConvProblem) -> bool:
    return problem.out_channels >= SIDE_BY_SIDE * problem.groups


class Dense(Composed):
    """The engine `npconv.kernels.numba.dense`, with numbers of the weight in its vectors."""

    def _seconds(self, problem: ConvProblem, threads: int, packed: bool, within: bool) -> float:
        if in_pairs(problem):
            return self._of_pairs(problem, threads)
        return super()._seconds(problem, threads, packed, within)

    def _of_pairs(self, problem: ConvProblem, threads: int) -> float:
        """Return the time that inner products of some filters and images at a time should take."""
        wide, (height, width) = lanes(problem), (6, 4) if vector_bytes() == 64 else (3, 4)
        least, most = sorted((problem.batch, problem.out_channels))
        rate = self.products * PAIRS * machine().direct * 4 / problem.compute_dtype.itemsize
        if least < width:
            (height, width), rate = (8, 1), rate / 2
        results = -(-most // height) * height * -(-least // width) * width
        work = results * (-(-problem.products // wide) + ADDED) * wide / rate
        if problem.apart:
            work += BESIDE_OTHERS * problem.batch * problem.products * COPY + PACK
        return self.call + max(shared(work, threads), 1.2 * streaming(problem.weight_bytes, threads))

    def _made(self, problem: ConvProblem, threads: int) -> Products:
        planes, height, width = counts.planes_of(problem)
        return Products(
            counts.rate_of(problem, self.products), problem.out_channels, planes * height * width, problem.products
        )

    def _coming(self, problem: ConvProblem, threads: int, size: float) -> float:
        coming = streaming(size, threads) * (NEAR if size <= LAST_LEVEL else FAR)
        if AT_ONCE * problem.products * problem.compute_dtype.itemsize > 2**15:
            coming *= problem.batch  # more than a first-level cache, for each image anew
        return coming

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        return min(SLAB, problem.padded_elements * problem.compute_dtype.itemsize) + BESIDE


class Pieces(Engine):
    """The engine `npconv.kernels.numba.pieces`, Winograd's of pieces of the kernel."""

    def _seconds(self, problem: ConvProblem, threads: int, packed: bool, within: bool) -> float:
        """Return the time that a problem should take, as its cut tells."""
        products = self._cut(problem, threads).time * lanes(problem)
        work = products * problem.compute_dtype.itemsize / 4 / (self.products * machine().direct)
        # Tasks are alike, and few: what threads need not wait for is in the cut's time.
        return self.call + work + MANY * max(1 - 2 / threads, 0)

    def _cut(self, problem: ConvProblem, threads: int) -> piecing.Cut:
        return piecing.cut(problem, threads, counts.panel(problem))

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        return self._cut(problem, threads).numbers * problem.compute_dtype.itemsize + 2**12


class Outer(Engine):
    """The engine `npconv.kernels.numba.outer`: images times filters, for one element of the kernel after the other."""

    def _seconds(self, problem: ConvProblem, threads: int, packed: bool, within: bool) -> float:
        """Return the time that a problem should take by outer products.

        These are rows of results times panels of lanes. To transpose a panel takes as long as some rows do (`TURNING`);
        with one tap of images that leave a panel unfilled, whose lines of the cache take each other's place, as up to
        12000 (4 images of 1024 channels took 2.2 ms for 1000 filters, 48 of 512 0.79, and 0.28 by `dense`); and to
        bring sums from and to the cache, once for each block, as long as 10 products. Results of one position are
        written as they are, or as fast.
        """
        filters, wide = problem.out_channels // problem.groups, lanes(problem)
        depth, height, width = problem.three(problem.kernel_size)
        block = min(height * width * (problem.in_channels // problem.groups if depth == 1 else 1), 512)
        results = problem.batch * problem.out_channels * problem.positions
        if problem.positions == 1:
            ways, sums, copied = [(problem.batch, filters), (filters, problem.batch)], 0.0, results
        else:
            ways, sums, copied = [(problem.batch * problem.positions, filters)], 10 / max(block, 1), 2 * results
        if _padded(problem):
            copied += 2 * problem.padded_elements
        turning = TURNING[width < 8]
        if problem.groups > 1:
            turning += 80
        if problem.taps == 1:
            beyond = problem.batch % (2 * wide)  # whole panels
            turning = 40 if beyond == 0 or 2 * beyond > 3 * wide else 12000
        elif problem.positions == 1:
            turning = ONE
        # Where there is no second panel, nothing shares what is loaded.
        alone = 2 if problem.positions > 1 else ALONE
        tiles = min(
            (max(rows, 4) * (1 + sums) + turning) * -(-across // wide) * wide * (alone if across <= wide else 1)
            for rows, across in ways
        )
        rate = self.products * machine().direct * 4 / problem.compute_dtype.itemsize
        work = tiles * problem.groups * problem.products / rate + copied * counts.copy(problem)
        # Each is read twice if it comes from memory: 16 and 224 planes of 134 × 252 took 3.3 ms, and 1.6 by `dense`.
        met = problem.weight_bytes + problem.input_bytes
        size = 2 * met if met > LAST_LEVEL / 2 else problem.weight_bytes
        return self.call + max(shared(work, threads), streaming(size, threads))

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        """Return about as many bytes as a thread works in: parts of input and kernel, and sums."""
        itemsize, results = problem.compute_dtype.itemsize, problem.batch * problem.out_channels * problem.positions
        numbers = problem.out_channels * problem.products + results
        slab = min(SLAB, of_pixels(problem) + BESIDE + numbers * itemsize) + BESIDE
        if not _padded(problem):
            return slab
        # What all results meet of a plane is copied.
        sizes, stride = problem.three(problem.output_size)[1:], problem.three(problem.stride)[1:]
        return max(slab, math.prod((n - 1) * s + 1 for n, s in zip(sizes, stride, strict=True)) * itemsize)


def _padded(problem: ConvProblem) -> bool:
    return any(pad > 0 for pair in problem.padding for pad in pair)

"""What an engine costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from npconv.costs import tiles
from npconv.costs.loads import TURNED, loaded, pointwise, slivers
from npconv.costs.machine import COPY, LAST_LEVEL, PACK, machine, shared, streaming, vector_bytes
from npconv.costs.scratch import scratch
from npconv.costs.special import SWAPPED, outer_seconds, pairs_seconds, pieces_seconds, planes_seconds, reached
from npconv.kernels import filtering
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

    BORDERS = (4, 1.5)
    """Copies that take as long as to write a result to a plane that other tasks write to, as well: one of parts of
    lines, and of whole ones. (128 → 1024 channels at 13² take 329 µs by `strassen`, as was expected to take 237, and
    214 by `direct`.)"""

    SUMS, LONG = 7 / 4, 4096
    """Numbers that are made of each of input and result where quarters are summed up; bytes of a pixel's channels from
    which on these come from beyond the second-level cache."""

    BEHIND = 5
    """Copies that take as long as to put a number of a filter behind those of the image before."""

    TOGETHER, LANES = 4, 5e-9
    """Filters of a group from which on so many are computed together by `dots`, and twice as fast; seconds to
    add up the lanes of a result."""

    ABREAST = 8
    """Results of a row that are computed together where filters of several groups are in the vectors, or half of it."""

    INEXACT = 1e-6
    """Seconds by which direct sums may take longer than others and are still preferred: they are exact, and compiled
    sooner."""

    LOWEST = 4
    """Tiles that products of points take as long as, even if there are fewer."""

    BEGIN, BEGIN_POINT = 3, 2
    """Products that take as long as to begin with a tile of them, and to store it: direct ones, or of quarters; and of
    points. (With 3, and results copied twice, 3 and 4 channels were computed by `planes`, 4 to 64
    at 202² in 1.06 ms, and take 0.73 by `winograd4`.)"""

    SLIVER = 16
    """Products that take as long as to begin with a tile of slivers, and to store it. (1 × 1 layers by pixels in
    slivers took up to 3 times as long as without, in comparison with `direct`: the fewer the channels, the longer.)"""

    APART = 16
    """Tiles that a task has at least, where it is not panels that are shared out: of those each task makes all points.
    (384 to 24 channels at 11², 5 × 5 at stride 2, took 280 µs by `winograd2` in two threads, and 160 by `direct`.)"""

    POINT = 1.2
    """Copies that take as long as to make a point of the input. (400 layers of one thread, measured by `winograd4`,
    `winograd2` and `direct`: with one half, and 52e9 products a second, the slower of these was chosen for 35, which
    took up to 2.3 times as long; with these numbers for 8, 1.2 times.)"""

    NEARBY = 2**22
    """Bytes of an input whose tiles all have come before they are wanted. Of more, they are waited for: 668 to 34
    channels at 45², 3 × 3 at stride 2, were computed by `winograd4` in 2.4 ms, as by `winograd2` in 1.9, and take 1.2
    by `planes`."""

    STRIDE = (1.3, 0.4, 0.25)
    """The share of its rate that an engine without panels and slivers reaches with several filters of a channel, by the
    stride: at 1 each row is loaded once for some rows of results."""

    AT_ONCE, NEAR, FAR = 8, 0.75, 1.35
    """Filters that are read at a time where each number of the weight is read once, and how long it takes them to come
    in comparison with panels, which are one stream: from the last level of cache sooner, from memory later. 2048 → 1000
    take 62 µs by `dense` and 81 by `direct`, 512 × 7 × 7 → 1024 2.24 and 1.55 ms."""

    IN_ROWS = 1.1
    """How many times as many products a second there are of rows of an input that are met where they are, at a stride,
    of whose slab little would be met."""

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
        filters = problem.out_channels // problem.groups
        speed = machine()
        of_vectors = speed.transformed if self.tile != (1, 1) or self.quarters else speed.direct
        rate = self.products * of_vectors * 4 / itemsize
        if self.panel:
            wide = self.wide(problem) * (2 if self.quarters else 1)  # panels in pairs
            if filters <= wide and problem.groups > 1:  # one panel is soon done, and its weights have come
                products = problem.products
                rate *= 0.9 * products / (products + 1.5 * self.SLIVER) if self.tile == (1, 1) else 1.15
            computed = wide if self.quarters else wide // 2  # the last panel may be half of one
            filters = -(-filters // computed) * computed
        else:
            rate *= reached(problem) if self.slivers else 1
        if self.panel and self.tile == (1, 1) and not self.quarters:
            rate *= problem.products / (problem.products + self.BEGIN)
        if self.panel and self.tile == (1, 1) and problem.taps > problem.positions:
            # For a few results at a time, filters that fill no cache; and if they are dilated, they meet short runs.
            run = problem.in_channels // problem.groups
            rate *= 0.95 if problem.dilation[-1] == 1 else 0.95 * (run + 0.5) / (run + 1)
        if self.tile != (1, 1) and problem.taps > problem.positions:
            rate *= 0.5  # few tiles, and as many filters as of a large image's gradient
        last = problem.channels_last
        if last and problem.groups > 1 and not self.several and problem.in_channels // problem.groups <= 64 // itemsize:
            rate *= 0.75  # less than a line of the cache at a time
        filters *= problem.groups
        *depth, height, width = (1, *problem.output_size)
        outputs = [axis.results for axis in tiles.axes(problem, self.tile)]
        plane = math.prod(-(-n // tile) * tile for n, tile in zip((height, width), outputs, strict=True))
        products = problem.products
        if self.dots and filters >= self.TOGETHER * problem.groups:
            width, lanes = problem.kernel_size[-1], vector_bytes() // itemsize
            vectors = width // lanes + 2 * (width % lanes > 0)  # a row's last one is masked
            products = products // width * vectors * lanes
            plane = -(-plane // 3) * 3
            rate *= 1.85 if max(problem.dilation) <= 2 else 1.6
            if problem.batch * problem.groups <= 4:  # a first layer's planes, which are large
                rate *= 0.87 if problem.positions <= 25 else 0.72
        elif self.dots:
            lanes = 64 // itemsize
            products = products // problem.kernel_size[-1] * (-(-problem.kernel_size[-1] // lanes) * lanes + lanes // 2)
            plane = -(-plane // 9) * 9
            rate *= 0.25 if problem.taps < problem.positions else 1  # sums of short rows are many sums of lanes
            rate *= 1 if problem.dilation[-1] == 1 else 0.5
        elif self.several:
            lanes = vector_bytes() // itemsize
            wide = self.ABREAST if filters >= lanes * problem.groups else self.ABREAST // 2
            rate *= (0.77 if max(problem.stride) > 1 else 1) * products / (products + 2 * self.BEGIN)
            rate *= 0.7 if filters == 2 * problem.groups else 1
            if max(problem.stride) > 1 and last and (problem.kernel_size[-1] == 1 or problem.dilation[-1] > 1):
                rate *= 0.4  # little of what a line of the cache brings is met
            if filters < lanes * problem.groups and problem.kernel_size[-1] > 3:
                rate *= 0.8  # there are not registers for so many weights and addresses
            plane = height * -(-width // wide) * wide
        elif not self.panel and not self.dense:
            if filters > problem.groups and not self.slivers:  # each channel's rows are loaded for each of its filters
                rate *= self.STRIDE[min(max(problem.stride), 3) - 1]
                if problem.positions <= 64:  # a few results at a time
                    rate *= 0.4 if problem.dilation[-1] == 1 else 0.22
            plane = -(-plane // (128 // itemsize)) * (128 // itemsize)  # pixels in whole vectors
        if self.quarters:
            plane += plane % 2
        pixels = problem.batch * math.prod(depth) * plane
        weights = problem.out_channels * problem.products
        saving, points = self._winograd(problem)
        turned = self.panel > 0 and not problem.channels_last
        met, parted = loaded(self, problem), self.far(problem)
        if parted is not None:
            met, rate = parted.bytes // itemsize, rate / parted.products
            rate *= self.IN_ROWS if max(problem.stride) > 1 and not parted.bytes else 1
        copied = met * problem.kernel_size[0] ** (problem.rank == 3)
        again = 0.0  # what more than one task copies
        if self.tile != (1, 1):
            all_tiles, (_, tiles_of_image) = tiles.number(problem, self.tile), tiles.images(problem, self.tile)
            pixels = all_tiles * math.prod(outputs)
            rate *= min(tiles_of_image * tiles.together(problem, self.tile, threads) / self.LOWEST, 1)
            points_of_all = all_tiles * tiles.points(problem, self.tile)
            elements = filtering.elements_of(problem, tiles.axes(problem, self.tile))
            lanes = vector_bytes() // itemsize
            made = self.POINT * points_of_all * -(-elements // lanes) * lanes * problem.groups
            far = min(max(problem.input_bytes / self.NEARBY - 1, 0), 4)
            copied += made + points_of_all * filters / 4 + 2 * far * met
            again = made * (threads / min(max(all_tiles // self.APART, 1), threads) - 1)
            rate *= elements / (elements + self.BEGIN_POINT)
        if self.quarters:
            numbers = problem.batch * problem.positions * (problem.in_channels + problem.out_channels)
            copied = numbers * self.SUMS + (copied if turned else 0)
            rate *= 0.95 if problem.in_channels * itemsize >= self.LONG else 1
            rate *= problem.in_channels / (problem.in_channels + 2 * self.BEGIN)
            rate *= 0.9 if itemsize == 8 else 1  # more bytes of sums: as fast as the direct sum, or slower
            pairs, parts = filters // (2 * self.wide(problem)), -(-problem.positions // QUARTERED)
            threads = max(min(threads, problem.batch * parts * pairs), 1)
            if last:
                rate *= 1.06 if parts > 1 or pairs >= 8 else 1
            elif parts > 1:  # several tasks write lines of one plane
                whole = problem.positions * itemsize % 64 == 0
                copied += self.BORDERS[whole] * problem.batch * problem.positions * problem.out_channels
        copied += pixels * filters * (2 if turned and self.tile == (1, 1) else 1)
        if turned and self.tile == (1, 1) and not self.quarters:
            copied += TURNED * (met + pixels * filters)
        if parted is not None and parted.bytes and not last:  # channels are put side by side first
            again += PACK * threads / COPY
        if self.slivers:
            pixels, copied = slivers(self, problem)
            few = pointwise(problem) or problem.taps >= problem.positions  # or a gradient's elements
            rate *= products / (products + self.SLIVER) if few else 1
        call = self.call + (self.INEXACT if self.tile != (1, 1) else 0)
        work = pixels * filters * products / saving / rate + (copied + again) * itemsize / 4 * COPY
        work += self.group * problem.groups * problem.batch
        if self.dots:
            work += self.LANES * pixels * filters
            tasks = problem.batch * problem.groups
            if filters < self.TOGETHER * problem.groups:
                threads = max(tasks // -(-tasks // threads), 1)
            else:
                work *= shared_filters(filters // problem.groups, self.TOGETHER, tasks, threads)[1]
        if packed and within:
            work += self._packings(problem, threads) * weights * self.TRANSFORMED * 1e-9
        if not packed:
            packing = self.turned if problem.turned and problem.taps == 1 else self.pack
            if within and self._as_they_lie(problem):
                packing = 0
            elif within:
                packing = self._packings(problem, threads) * self.plain * (self.ONE_TAP if problem.taps == 1 else 1)
            elif problem.turned and problem.taps > 1 and self.slivers:  # which takes filters as they lie, if in order
                packing = SWAPPED
            taken = weights + filters * problem.products * points / 4  # panels are filled up
            packing = taken * packing * 1e-9
            if self.dots and problem.in_channels > problem.groups:  # some images, one behind the other for a filter
                work += self.BEHIND * weights * COPY
            if self.several:
                call += self.NUMPY + packing
            else:
                few = parted is not None and parted.bytes == 0 and weights < self.BY_ONE  # packed by one thread
                work += packing + (PACK * threads if self.panel and self.pack and not within and not few else 0)
        # Filters that are packed within the tasks come as they are.
        size = weights * (1 if within else points) * itemsize
        computing, coming = shared(float(work), threads), streaming(size, threads)
        if self.dense:
            coming *= self.NEAR if weights * itemsize <= LAST_LEVEL else self.FAR
            if self.AT_ONCE * problem.products * itemsize > 2**15:  # more than a first-level cache, for each image anew
                coming *= problem.batch
        longer, shorter = max(computing, coming), min(computing, coming)
        return call + longer + shorter * self.EXPOSED[self.tile != (1, 1) and size > self.HEAVY]

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

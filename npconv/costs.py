"""What an algorithm costs: how long it should take, and what memory it works in.

The figures of `Rate` for float32 are near what ``pytest bench`` shows for one core of a server of 2023; the others, and
all of CUDA's, are guesses from them. They serve to rank candidates and to tell milliseconds from minutes, no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache

from npconv import loading
from npconv.kernels import filtering
from npconv.kernels.numba import bands
from npconv.kernels.numba.blocking import (
    GATHERED,
    QUARTERED,
    SECOND_LEVEL,
    engine_limit,
    in_pairs,
    in_rows,
    in_slivers,
    meetings,
    tiles_at_once,
)
from npconv.problem import ConvProblem


@cache
def _vectors() -> tuple[int, bool]:
    """Return the width of this machine's vectors, and whether it computes them in halves; without Numba, the widest."""
    try:
        tile = loading.module("npconv.kernels.numba.tile")
    except ImportError:
        return 64, False
    return int(tile.VECTOR_BYTES), bool(tile.HALVED)


def vector_bytes() -> int:
    """Return the width of this machine's vectors."""
    return _vectors()[0]


@dataclass(frozen=True)
class Speed:
    """Products of vectors of some width to those of 32 bytes: direct ones, of transformed data, of pieces."""

    direct: float
    transformed: float
    pieces: float


SPEED = {
    (64, False): Speed(1.6, 1.25, 1.25),
    (64, True): Speed(1.15, 1.3, 1.75),
    (32, False): Speed(1.0, 1.0, 1.0),
    (16, False): Speed(0.5, 0.5, 0.5),
}
"""By the bytes of a vector, and whether it is computed in halves. On a Xeon of 2023 (AVX-512) products of transformed
data take the transforms' time as well: 256 channels at 56² 10.4 ms in one thread, 5.4 of it products. On a Zen 4, whose
halves gain registers above all, 1,360 layers and functions chosen with the Xeon's numbers took 1.054 times as long as
the fastest, in the geometric mean, and 95 of them more than 1.3 times; with its own 1.028 times, and 44."""


def machine() -> Speed:
    """Return the speed of this machine's vectors."""
    return SPEED[_vectors()]


@dataclass(frozen=True)
class Rate:
    """Rough speed of an algorithm: seconds a call, seconds a window of one channel, products a second and thread."""

    call: float
    window: float
    float32: float
    float64: float
    integer: float
    complex: float
    threaded: bool = True
    region: float = 0
    """Seconds for an element of a region matrix, or of a matrix of results."""

    weight: float = 0
    """Seconds to put a number of the weight in order."""

    vectors: bool = False
    """Whether floats are multiplied in Numba's vectors, whatever their width."""

    TURNED = 1.5e-9
    """Seconds to put a number of a weight in order whose filters are not."""

    SCALING = 0.6
    """16 threads are 3 to 8 times as fast as one, 2 are 1.5 to 1.8 times: the textbook's tasks are few, and uneven."""

    def seconds(self, problem: ConvProblem, threads: int) -> float:
        """Return the time that a problem should take."""
        dtype = problem.compute_dtype
        speed = {"i": self.integer, "u": self.integer, "c": self.complex}.get(dtype.kind)
        if speed is None:
            speed = self.float32 if dtype.itemsize == 4 else self.float64
            if self.vectors:
                speed *= machine().direct
        results = problem.batch * problem.out_channels * problem.positions
        windows = results * (problem.in_channels // problem.groups)
        # The results of all images come in one matrix, too, and are put in their places.
        regions = problem.batch * problem.in_channels * problem.positions * problem.taps + results
        work = windows * self.window + results * problem.products / speed + regions * self.region
        work += problem.out_channels * problem.products * max(self.weight, self.TURNED if problem.turned else 0)
        return float(self.call + work / (threads**self.SCALING if self.threaded else 1))


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

    ONE_TAP, OFTEN = 0.6, 2
    """How long it takes to pack filters of one tap within the tasks, in comparison with others; the tasks that meet a
    panel of the direct sum, at most, for each to pack it."""

    turned: float = 0
    """The same as ``pack`` where filters of one tap lie side by side."""

    slivers: bool = False
    """Whether an engine without panels cuts pixels into slivers, where filters are many."""

    PIXELS = 512
    """Pixels of a result whose part of the input a task with panels loads, with the borders of several images."""

    SHORT, MANY = 2e-5, 1.5e-5
    """Seconds of work that are not shared out; those that many threads take longer to begin and to end than two."""

    PACK = 16e-6
    """Seconds that the packing of a call takes besides, waking threads above all."""

    ELSEWHERE = 0.4e-9
    """Seconds that it takes a packed number to come from the cache of another core, which has packed it."""

    NUMPY = 6e-6
    """The same where NumPy packs, which no threads share."""

    RESULTS = 3 * 2**17
    """Bytes of results and of a slab that a thread works in, at most, where there are slivers. (With a mebibyte, which
    few tasks need, it was thought that two threads have no room for 296 of 5,238 layers where they have, and one of
    them computed it alone; with this for 8, and for 5 that they have where they have not, which their plan tells.)"""

    group: float = 0
    """Seconds that it takes to begin with a group."""

    ABREAST_OF = 4
    """Filters of a tile that meets planes, at most."""

    TILE, VECTOR, LINE = 1.8, 3.6e-9, 3.3e-9
    """Filters whose products take as long as what such a tile loads besides; seconds to begin with each of its vectors
    of results, and with a row that is loaded. (By 700 layers of 1 to 40 filters, in one thread and two; as of their
    products alone, they were thought to take a quarter longer than they do, within a factor of 1.4, now of 1.2.)"""

    LOADED = (0.36, 0.67, 6.0)
    """Copies that take as long as to load a number for them, by the stride, and to write a result as the first."""

    SUMS, LONG = 7 / 4, 4096
    """Numbers that are made of each of input and result where quarters are summed up; bytes of a pixel's channels from
    which on these come from beyond the second-level cache."""

    COPY = 0.12e-9
    """Seconds to load or store a number."""

    FROM_POINTS, BEHIND = 56, 5
    """Copies that take as long as to transform the sums of pieces to the results of an image and a filter in vectors of
    32 bytes, and as to put a number of a filter behind those of the image before."""

    TOGETHER, LANES = 4, 5e-9
    """Filters of a group from which on so many are computed together by `dots`, and twice as fast; seconds to
    add up the lanes of a result."""

    PAIRS, ADDED, BESIDE = 1.38, 5, 2.6
    """How many times as many products a second there are where a number of a filter meets some images; steps that take
    as long as to add up the lanes of a result; copies that take as long as to put a pixel beside others, from which it
    lay apart."""

    ABREAST = 8
    """Results of a row that are computed together where filters of several groups are in the vectors, or half of it."""

    LOWEST = 4
    """Tiles that products of points take as long as, even if there are fewer."""

    BEGIN, BEGIN_POINT = 3, 2
    """Products that take as long as to begin with a tile of them, and to store it: direct ones, or of quarters; and of
    points. (With 3, and results copied twice, 3 and 4 channels were computed by `planes`, 4 to 64
    at 202² in 1.06 ms, and take 0.73 by `winograd4`.)"""

    SLIVER, ROW = 16, 300
    """Products that take as long as to begin with a tile of slivers, and to store it; copies that take as long as to
    find a row of a channel of which each stride's pixel is wanted. (1 × 1 layers by pixels in slivers took up to 3
    times as long as without these, in comparison with `direct`: the fewer the channels, the longer.)"""

    TURNED = 2.4
    """Copies that take as long as to transpose a number, of input and result, besides the copying."""

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

    STREAM, OF_ONE, MEMORY, LAST_LEVEL = 60e9, 30e9, 32e9, 4e7
    """Bytes of packed weights a second that come from beyond the second-level cache, for all threads and for one; those
    that come from memory, as all do if they are more than so many: a large cache of the last level has then lost each
    by the time that it is wanted again. Points of 512 × 512 filters took 0.67 ms (57 GB/s), of 576 × 576 1.55 (31)."""

    STRIDE = (1.3, 0.4, 0.25)
    """The share of its rate that an engine without panels and slivers reaches with several filters of a channel, by the
    stride: at 1 each row is loaded once for some rows of results."""

    SWAPPED = 0.6
    """The same as ``pack`` where an engine takes filters in rows, and those of a gradient are not."""

    SPACED = 2.4
    """How many times as long it takes to copy what lies more than two apart, and is met by one tap alone."""

    AT_ONCE, NEAR, FAR = 8, 0.75, 1.35
    """Filters that are read at a time where each number of the weight is read once, and how long it takes them to come
    in comparison with panels, which are one stream: from the last level of cache sooner, from memory later. 2048 → 1000
    take 62 µs by `dense` and 81 by `direct`, 512 × 7 × 7 → 1024 2.24 and 1.55 ms."""

    def seconds(self, problem: ConvProblem, threads: int, packed: bool) -> float:
        """Return the time that a problem should take."""
        if self.outer:
            return self._outer_seconds(problem, threads)
        if self.dense and in_pairs(problem):
            return self._pairs_seconds(problem, threads)
        if self.slivers and not in_slivers(problem):
            return self._planes_seconds(problem, threads, packed)
        itemsize = problem.compute_dtype.itemsize
        filters = problem.out_channels // problem.groups
        plain = not packed and self.takes_plain(problem, threads)
        speed = machine()
        of_vectors = (
            speed.pieces if self.pieces else speed.transformed if self.tile != (1, 1) or self.quarters else speed.direct
        )
        rate = self.products * of_vectors * 4 / itemsize
        if self.panel:
            wide = self._wide(problem) * (2 if self.quarters else 1)  # panels in pairs
            if filters <= wide and problem.groups > 1:  # one panel is soon done, and its weights have come
                products = problem.products
                rate *= 0.9 * products / (products + 1.5 * self.SLIVER) if self.tile == (1, 1) else 1.15
            computed = wide if self.quarters or self.pieces else wide // 2  # the last panel may be half of one
            filters = -(-filters // computed) * computed
        else:
            rate *= self._reached(problem) if self.slivers else 1
        if self.panel and self.tile == (1, 1) and not (self.pieces or self.quarters):
            rate *= problem.products / (problem.products + self.BEGIN)
        if self.panel and self.tile == (1, 1) and not self.pieces and problem.taps > problem.positions:
            # For a few results at a time, filters that fill no cache; and if they are dilated, they meet short runs.
            run = problem.in_channels // problem.groups
            rate *= 0.95 if problem.dilation[-1] == 1 else 0.95 * (run + 0.5) / (run + 1)
        if self.pieces and max(problem.stride) > 1:
            rate *= 0.65  # their windows share less
        if self.tile != (1, 1) and problem.taps > problem.positions:
            rate *= 0.65  # few tiles, and as many filters as of a large image's gradient
        last = problem.channels_last
        if last and problem.groups > 1 and not self.several and problem.in_channels // problem.groups <= 64 // itemsize:
            rate *= 0.75  # less than a line of the cache at a time
        filters *= problem.groups
        *depth, height, width = (1, *problem.output_size)
        outputs = [axis.results for axis in self._axes(problem)]
        plane = math.prod(-(-n // tile) * tile for n, tile in zip((height, width), outputs, strict=True))
        products = problem.products
        if self.dots and filters >= self.TOGETHER * problem.groups:
            width, lanes = problem.kernel_size[-1], vector_bytes() // itemsize
            vectors = width // lanes + 2 * (width % lanes > 0)  # a row's last one is masked
            products = products // width * vectors * lanes
            plane = -(-plane // 3) * 3
            rate *= 2
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
        loaded = self._loaded(problem)
        copied = loaded * problem.kernel_size[0] ** (problem.rank == 3)
        again = 0.0  # what more than one task copies
        if self.tile != (1, 1):
            all_tiles, (_, tiles_of_image) = self._all_tiles(problem), self._images(problem)
            pixels = all_tiles * math.prod(outputs)
            rate *= min(tiles_of_image * self._together(problem, threads) / self.LOWEST, 1)
            tiles = pixels * self._points(problem) / math.prod(axis.results for axis in self._axes(problem))
            elements = filtering.elements_of(problem, self._axes(problem))
            lanes = vector_bytes() // itemsize
            made = self.POINT * tiles * -(-elements // lanes) * lanes * problem.groups
            copied += made + tiles * filters / 4 + loaded * 2 * min(max(problem.input_bytes / self.NEARBY - 1, 0), 4)
            again = made * (threads / min(max(all_tiles // self.APART, 1), threads) - 1)
            rate *= elements / (elements + self.BEGIN_POINT)
        if self.quarters:
            numbers = problem.batch * problem.positions * (problem.in_channels + problem.out_channels)
            copied = numbers * self.SUMS + (copied if turned else 0)
            rate *= 0.95 if problem.in_channels * itemsize >= self.LONG else 1
            rate *= problem.in_channels / (problem.in_channels + 2 * self.BEGIN)
            rate *= 0.9 if itemsize == 8 else 1  # more bytes of sums: as fast as the direct sum, or slower
        copied += pixels * filters * (2 if turned and self.tile == (1, 1) else 1)
        if self.pieces:
            copied += problem.batch * filters * self.FROM_POINTS * 32 // vector_bytes()
        if turned and self.tile == (1, 1) and not (self.pieces or self.quarters):
            copied += self.TURNED * (loaded + pixels * filters)
        if self.slivers:
            pixels, copied = self._in_slivers(problem)
            rate *= products / (products + self.SLIVER) if self._pointwise(problem) else 1
        call = self.call
        work = pixels * filters * products / saving / rate + (copied + again) * itemsize / 4 * self.COPY
        work += self.group * problem.groups * problem.batch
        if self.dots:
            work += self.LANES * pixels * filters
            planes = problem.batch * problem.groups  # tasks
            threads = max(planes // -(-planes // threads), 1)
        if not packed:
            packing = self.turned if problem.turned and problem.taps == 1 else self.pack
            if plain:
                packing = self._packings(problem, threads) * self.plain * (self.ONE_TAP if problem.taps == 1 else 1)
            elif problem.turned and problem.taps > 1 and self.slivers:  # which takes filters as they lie, if in order
                packing = self.SWAPPED
            taken = weights + filters * problem.products * points / 4  # panels are filled up
            packing = taken * packing * 1e-9
            if self.dots and problem.in_channels > problem.groups:  # some images, one behind the other for a filter
                work += self.BEHIND * weights * self.COPY
            if self.several:
                call += self.NUMPY + packing
            else:
                work += packing + (self.PACK * threads if self.panel and self.pack and not plain else 0)
        computing, streaming = self._shared(float(work), threads), self._streaming(weights * points * itemsize, threads)
        if self.dense:
            streaming *= self.NEAR if weights * itemsize <= self.LAST_LEVEL else self.FAR
            if self.AT_ONCE * problem.products * itemsize > 2**15:  # more than a first-level cache, for each image anew
                streaming *= problem.batch
        return call + max(computing, streaming) + min(computing, streaming) / 5

    def _streaming(self, size: float, threads: int) -> float:
        """Return how long it takes so many bytes of weights to come."""
        return size / min(self.STREAM if size <= self.LAST_LEVEL else self.MEMORY, threads * self.OF_ONE)

    def _wide(self, problem: ConvProblem) -> int:
        """Return the filters of a panel, 0 without panels."""
        return self.panel * vector_bytes() // problem.compute_dtype.itemsize

    def _in_slivers(self, problem: ConvProblem) -> tuple[int, int]:
        """Return the pixels that are computed, some in vain, and the numbers that are copied.

        Planes that meet one tap each are cut as they are, others from a slab; one row goes on with the next.
        """
        wide = 2 * vector_bytes() // problem.compute_dtype.itemsize
        *depth, height, width = (1, *problem.output_size)
        planes, channels = problem.batch * math.prod(depth), problem.in_channels
        pointwise = self._pointwise(problem)
        few = height * width <= wide // 2
        if few or not pointwise:  # half of the last sliver may be all
            wide //= 2
        rows = -(-height * width // wide) * wide
        copied = planes * rows * channels * problem.taps  # into slivers
        if not pointwise or max(problem.stride) > 1 or problem.channels_last:
            spread = self.TURNED * (1 if pointwise else 2) if max(problem.stride) > 1 else 1
            spread *= self.SPACED if self._patched(problem) else 1
            copied += spread * self._loaded(problem) * problem.kernel_size[0] ** (problem.rank == 3)
            if pointwise and max(problem.stride) > 1 and not few:
                copied += self.ROW * planes * channels * height
        if problem.channels_last:
            copied += planes * rows * problem.out_channels
        return planes * rows, copied

    @staticmethod
    def _patched(problem: ConvProblem) -> bool:
        """Whether numbers that lie more than two apart are met by one tap each."""
        return problem.stride[-1] > 2 and problem.kernel_size[-1] <= problem.stride[-1]

    def _loaded(self, problem: ConvProblem) -> int:
        """Return how many numbers of the input are loaded: with one tap, those that the stride meets, and as many."""
        if self.panel and self.tile == (1, 1) and not (self.pieces or self.quarters) and in_rows(problem):
            return 0
        if problem.taps > 1 or any(map(any, problem.padding)):
            return problem.padded_elements
        return min(2 * problem.batch * problem.in_channels * problem.positions, problem.padded_elements)

    def _outer_seconds(self, problem: ConvProblem, threads: int) -> float:
        """Return the same for outer products.

        These are rows of results times panels of lanes. To transpose a panel takes as long as 16 rows do, with short
        rows of taps as 200, with one tap of images that leave a panel unfilled, whose lines of the cache take each
        other's place, up to 12000 (4 images of 1024 channels took 2.2 ms for 1000 filters, 48 of 512 0.79, and 0.28 by
        `dense`); and to bring sums from and to the cache, once for each block, as long as 10 products. Results of one
        position are written as they are, or as fast.
        """
        itemsize = problem.compute_dtype.itemsize
        filters, wide = problem.out_channels // problem.groups, self._wide(problem)
        depth, height, width = problem.three(problem.kernel_size)
        block = min(height * width * (problem.in_channels // problem.groups if depth == 1 else 1), 512)
        results = problem.batch * problem.out_channels * problem.positions
        if problem.positions == 1:
            ways, sums, copied = [(problem.batch, filters), (filters, problem.batch)], 0.0, results
        else:
            ways, sums, copied = [(problem.batch * problem.positions, filters)], 10 / max(block, 1), 2 * results
        if any(pad > 0 for pair in problem.padding for pad in pair):
            copied += 2 * problem.padded_elements
        turning = 16 if width >= 8 else 200
        if problem.groups > 1:
            turning += 80
        if problem.taps == 1:
            beyond = problem.batch % (2 * wide)  # whole panels
            turning = 40 if beyond == 0 or 2 * beyond > 3 * wide else 12000
        tiles = min((max(rows, 4) * (1 + sums) + turning) * -(-lanes // wide) * wide for rows, lanes in ways)
        if problem.positions > 1 and filters <= wide:
            tiles *= 2  # there is no second panel that shares what is loaded
        work = tiles * problem.groups * problem.products * itemsize / 4 / (self.products * machine().direct)
        work += copied * itemsize / 4 * self.COPY
        # Each is read twice if it comes from memory: 16 and 224 planes of 134 × 252 took 3.3 ms, and 1.6 by `dense`.
        met = problem.weight_bytes + problem.input_bytes
        size = 2 * met if met > self.LAST_LEVEL / 2 else problem.weight_bytes
        return self.call + max(self._shared(work, threads), self._streaming(size, threads))

    def _pairs_seconds(self, problem: ConvProblem, threads: int) -> float:
        """Return the same for inner products of some filters and images at a time."""
        itemsize = problem.compute_dtype.itemsize
        lanes, (height, width) = vector_bytes() // itemsize, (6, 4) if vector_bytes() == 64 else (3, 4)
        least, most = sorted((problem.batch, problem.out_channels))
        rate = self.products * self.PAIRS * machine().direct * 4 / itemsize
        if least < width:
            (height, width), rate = (8, 1), rate / 2
        results = -(-most // height) * height * -(-least // width) * width
        work = results * (-(-problem.products // lanes) + self.ADDED) * lanes / rate
        if problem.apart:
            work += self.BESIDE * problem.batch * problem.products * self.COPY + self.PACK
        return self.call + max(self._shared(work, threads), 1.2 * self._streaming(problem.weight_bytes, threads))

    @staticmethod
    def _reached(problem: ConvProblem) -> float:
        """Return the share of its rate that an engine without panels reaches of a few results at a time.

        Elements fill no cache: 3 × 3 of 2048 → 512 at 3² and stride 2 took 1.96 ms, 63 × 63 of a gradient of 16 filters
        1.13, and 0.10 by `outer`.
        """
        if problem.taps <= problem.positions:
            return 1.0
        several = problem.taps <= 25 and problem.positions > 1 and problem.out_channels // problem.groups >= 12
        return 0.6 if several else 0.5 if problem.taps <= 100 else 0.3

    def _planes_seconds(self, problem: ConvProblem, threads: int, packed: bool) -> float:
        """Return the same for planes that few filters of a group meet where they lie.

        Tiles run over the rows' ends. Where numbers of a row lie apart, they are loaded one by one.
        """
        itemsize, lanes = problem.compute_dtype.itemsize, vector_bytes() // problem.compute_dtype.itemsize
        kernel, stride = problem.three(problem.kernel_size), problem.three(problem.stride)
        filters, (depth, height, width) = problem.out_channels // problem.groups, problem.three(problem.output_size)
        line = width + (problem.span[-1] - 1) // stride[2]
        vectors = -(-((height - 1) * line + width) // (2 * lanes)) * 2
        vectors *= problem.batch * problem.groups * depth
        tiles = -(-filters // self.ABREAST_OF)
        rate = 1.5 * self.products * machine().direct * 4 / itemsize * self._reached(problem)
        work = vectors * lanes * (filters + self.TILE * tiles) * problem.products / rate + self.VECTOR * vectors * tiles
        copied = self.LOADED[0] * problem.batch * problem.out_channels * problem.positions
        if not self._pointwise(problem) or max(stride) > 1:
            phases = kernel[0] * math.prod(min(k, s) for k, s in zip(kernel[1:], stride[1:], strict=True))
            work += self.LINE * problem.batch * depth * problem.in_channels * height * phases
            apart = 3 if kernel[2] == 1 and stride[2] > 1 else min(stride[2], 3)
            copied += self.LOADED[apart - 1] * self._loaded(problem) * kernel[0]
        if problem.channels_last:
            copied += self.TURNED * (self._loaded(problem) + problem.batch * problem.out_channels * problem.positions)
        work += copied * itemsize / 4 * self.COPY
        if problem.groups > 1:
            work += self.group * problem.groups * problem.batch
        if not packed and problem.turned and problem.taps > 1:  # which takes filters as they lie, if in order
            work += problem.out_channels * problem.products * self.SWAPPED * 1e-9
        return self.call + self._shared(work, threads)

    def _shared(self, work: float, threads: int) -> float:
        """Return the time that threads take which share out the work of one, if there is enough for that."""
        return work if work <= self.SHORT else work / threads + self.MANY * max(1 - 2 / threads, 0)

    @staticmethod
    def _pointwise(problem: ConvProblem) -> bool:
        """Whether each pixel of a result meets one pixel."""
        return problem.taps == 1 and not any(map(any, problem.padding))

    def _winograd(self, problem: ConvProblem) -> tuple[float, float]:
        """Return how many times fewer products there are than in the direct sum, and numbers packed for each tap."""
        if self.pieces:
            results = problem.output_size[-1]
            return ((results * (7 - results) / 6) ** 2 if results < 6 else 1.0), 1.0
        if self.quarters:
            return 8 / 7, 7 / 4
        if self.tile == (1, 1):
            return 1.0, 1.0
        axes = self._axes(problem)
        points = math.prod(axis.points * axis.fold / axis.taps for axis in axes)
        return math.prod(axis.results for axis in axes) / points, points

    def _axes(self, problem: ConvProblem) -> tuple[filtering.Filtering, filtering.Filtering]:
        """Return the filterings of height and width, which are none without tiles."""
        return filtering.axes(problem, self.tile)

    def _points(self, problem: ConvProblem) -> int:
        """Return the points of a Winograd tile."""
        return math.prod(axis.points for axis in self._axes(problem))

    def workspace(self, problem: ConvProblem, threads: int, packed: bool) -> int:
        """Return about as many bytes as the threads work in, and those of the weights if they are packed for a call."""
        scratch = threads * self._scratch(problem, threads)
        if packed:
            return scratch
        if self.takes_plain(problem, threads):
            if self.tile != (1, 1):
                return self._cut(problem, threads).bytes
            return scratch + threads * self._panel(problem)
        return scratch + self.packed_bytes(problem)

    def _cut(self, problem: ConvProblem, threads: int) -> bands.Cut:
        """Return how the tiles are cut where filters are packed within the tasks."""
        return bands.cut(problem, self.tile, threads, self._wide(problem))

    def takes_plain(self, problem: ConvProblem, threads: int) -> bool:
        """Whether a call packs filters within its tasks.

        So it does Winograd's where all packed ones would take too much memory, else it is as fast to pack them
        beforehand, or up to a fifth faster where there are many tiles; or where few filters meet points of a task's
        own, and none wait for what another has packed. And those of the direct sum where a panel, which
        has to stay in the second-level cache, is met by few tasks.
        """
        if not self.may_take_plain(problem):
            return False
        if self.tile == (1, 1):
            return self._packings(problem, threads) <= self.OFTEN
        packed = self.packed_bytes(problem)
        if self._cut(problem, threads).pays:
            weights = problem.out_channels * problem.products
            again = self._packings(problem, threads) * weights / threads * self.plain * 1e-9
            if again <= self.PACK + packed // problem.compute_dtype.itemsize * self.ELSEWHERE:
                return True
        return threads * self._scratch(problem, threads) + packed > engine_limit(problem)

    def may_take_plain(self, problem: ConvProblem) -> bool:
        """Whether filters can be packed within the tasks.

        The direct sum's, if a panel fits the cache; Winograd's of one group.
        """
        if self.plain == 0:
            return False
        if self.tile == (1, 1):
            return self._panel(problem) <= SECOND_LEVEL // 2
        return problem.groups == 1

    def _panel(self, problem: ConvProblem) -> int:
        """Return the bytes of a packed panel."""
        return problem.products * self._wide(problem) * problem.compute_dtype.itemsize

    def _packings(self, problem: ConvProblem, threads: int) -> int:
        """Return how many tasks meet a panel of filters, each of which packs it."""
        if self.tile == (1, 1):
            return meetings(problem)
        cut = self._cut(problem, threads)
        return -(-cut.lines // cut.share)

    def _most(self, problem: ConvProblem, threads: int) -> int:
        """Return how many Winograd tiles a task may have."""
        if self.tile == (1, 1):
            return 0
        return tiles_at_once(problem, self._axes(problem), threads)

    def _images(self, problem: ConvProblem) -> tuple[int, int]:
        """Return how many images are cut into Winograd tiles, one for each residue of a dilation, and their tiles."""
        steps, sizes = problem.three(problem.dilation)[1:], problem.three(problem.output_size)
        tiles = [-(-n // (d * axis.results)) for n, d, axis in zip(sizes[1:], steps, self._axes(problem), strict=True)]
        return problem.batch * sizes[0] * math.prod(steps), math.prod(tiles)

    def _all_tiles(self, problem: ConvProblem) -> int:
        """Return the Winograd tiles of a problem: images of some residues are a row, or a column, smaller than others.

        Of 32 to 224 channels at 25² with dilation 6 there are 49, and not 144: 200 µs, and not 496, as was thought.
        """
        steps, sizes = problem.three(problem.dilation)[1:], problem.three(problem.output_size)
        tiles = problem.batch * sizes[0]
        for n, d, axis in zip(sizes[1:], steps, self._axes(problem), strict=True):
            least, longer = divmod(n, d)  # results of a residue, and residues that have one more
            tiles *= longer * -(-(least + 1) // axis.results) + (d - longer) * -(-least // axis.results)
        return tiles

    def _together(self, problem: ConvProblem, threads: int) -> int:
        """Return of how many such images a task may have the tiles, as `npconv.kernels.numba.blocking.tiled` tells."""
        images, tiles = self._images(problem)
        images = 1 if problem.groups > 1 else images // (problem.three(problem.output_size)[0] or 1)
        return max(min(images, self._most(problem, threads) // max(tiles, 1)), 1)

    def _tiles(self, problem: ConvProblem, most: int) -> tuple[int, int]:
        """Return the tiles of a Winograd result down and across that a task may have, which has so many at most.

        As in `npconv.kernels.numba.blocking.tiled`: rows of tiles are cut into as few parts as can be, or one more.
        """
        sizes, steps = problem.three(problem.output_size)[1:], problem.three(problem.dilation)[1:]
        down, across = (
            max(-(-n // (d * axis.results)), 1) for n, d, axis in zip(sizes, steps, self._axes(problem), strict=True)
        )
        least = -(-across // most)
        shares = (-(-across // parts) for parts in range(least, min(least + 2, across + 1)))
        return max(((min(down, most // share), share) for share in shares), key=math.prod)

    def packed_bytes(self, problem: ConvProblem) -> int:
        """Return the bytes of the weights when they are packed."""
        if self.pieces or self.outer or not (self.panel or self.pack):
            return 0  # they are taken as they are
        itemsize = problem.compute_dtype.itemsize
        panel = max(self._wide(problem), 1)
        filters = -(-problem.out_channels // problem.groups // panel) * panel * problem.groups
        return int(filters * problem.products * self._winograd(problem)[1]) * itemsize

    def _scratch(self, problem: ConvProblem, threads: int) -> int:
        """Return about as many bytes as a thread works in."""
        itemsize = problem.compute_dtype.itemsize
        if self.dots:  # a whole plane of the input, and one of the kernel
            return 2 * (math.prod(problem.padded_size) + problem.taps) * itemsize + 2**15
        slab = min(2**18, problem.padded_elements * itemsize)
        if not self.panel and not self.dense:  # each thread has a few of the channels
            slab = min(slab, 2 * problem.padded_elements * itemsize // max(threads, 2))
        if self.panel and problem.positions > self.PIXELS:
            slab = min(slab, self.PIXELS * problem.padded_elements * itemsize // problem.positions)
        slab += 2**15
        if self.slivers and in_slivers(problem):
            results = problem.batch * problem.out_channels * problem.positions
            loaded = 0 if self._pointwise(problem) and set(problem.stride) == {1} else problem.padded_elements
            slab = min(self.RESULTS, 2 * (loaded + results) * itemsize // max(threads, 2))
            slivers = problem.products * 2 * vector_bytes()
            slab += max(min(2**17, problem.padded_elements * problem.taps * itemsize), slivers)
            if problem.turned and problem.taps == problem.groups == 1:  # a task copies its filters: some, or all
                slab += problem.weight_bytes // 2
            if self._pointwise(problem) and max(problem.stride) > 1:
                met = problem.batch * problem.in_channels * problem.positions * itemsize
                slab += met // max(threads, 1) if met <= GATHERED else 0
        if self.several:  # which puts the channels of what it meets side by side, or its results
            results = problem.batch * problem.out_channels * problem.positions
            slab = min(2**18, (problem.padded_elements + results) * itemsize) + 2**15
        if self.outer:  # a part of the kernel, too, and sums
            results = problem.batch * problem.out_channels * problem.positions
            slab = min(2**18, slab + (problem.out_channels * problem.products + results) * itemsize) + 2**15
        if self.quarters:
            pixels = min(problem.positions, QUARTERED)
            slab = pixels * (7 * problem.in_channels // 4 + 128 + 6 * self._wide(problem)) * itemsize + 2**14
        if self.pieces:
            pieces = min(32, problem.in_channels * math.prod(-(-n // 4) for n in problem.kernel_size))
            slab += 36 * (64 * 32 + pieces * 96) * 4
        if self.tile != (1, 1):
            tiles = self._tiles(problem, self._most(problem, threads))
            pixels = math.prod(
                (n - 1) * axis.pace + axis.reach for n, axis in zip(tiles, self._axes(problem), strict=True)
            )
            points = self._points(problem) * math.prod(tiles) * self._together(problem, threads)
            wide, elements = self._wide(problem), filtering.elements_of(problem, self._axes(problem))
            planes = problem.three(problem.kernel_size)[0]
            pixels *= planes * filtering.pitch_of(elements // planes, itemsize)
            slab = (points * elements + max(pixels, 2 * points * wide)) * itemsize
        return slab


@lru_cache(maxsize=64)  # it is the same for each of them
def prepared_bytes(problem: ConvProblem) -> int:
    """Return the bytes of the padded or cast copies that the textbook algorithms start from."""
    dtype = problem.compute_dtype
    padded = any(before or after for before, after in problem.padding)
    cast = dtype.name != problem.dtype
    copied = problem.padded_elements if padded or cast or problem.data_format == "channels_last" else 0
    if cast:
        copied += problem.out_channels * problem.products
    if cast or problem.data_format == "channels_last":
        copied += problem.batch * problem.out_channels * problem.positions
    return copied * dtype.itemsize


def plane_matrix(problem: ConvProblem) -> int:
    """Return the bytes of the region matrix of one plane, and of its products."""
    filters = problem.out_channels // problem.groups
    return problem.positions * (problem.taps + 2 * filters) * problem.compute_dtype.itemsize


def region_matrix(problem: ConvProblem) -> int:
    """Return the bytes of the region matrix of all images and channels."""
    elements = problem.batch * problem.in_channels * problem.taps * problem.positions
    return elements * problem.compute_dtype.itemsize

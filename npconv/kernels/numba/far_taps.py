"""Regions of a result whose pixels meet the same taps of a dilated kernel.

Where a dilation is about as long as the image, most taps of most windows lie in the padding: of 3 × 3 taps with
dilation 18 a pixel of 33 × 33 meets 3.6, not 9. Cut where a tap begins or ends to meet the image, a result has
regions that each meet all of some taps, and none of the others: 15 × 15 pixels in each corner meet 4, and 15 × 3
between these 2. Nothing of the padding is met, so that pixels can be met where they are, if their channels lie side by
side.

The gradient of a kernel, the other way about, has few results, a stride that is as long as the dilation was, and as
many taps as the forward result has pixels. Those that meet the image are some rows, and some of each: of each result
others, of all images the same. These meet the input where it is. The gradient of those 256 × 256 kernels takes 2.5 ms
in two threads, and took 6.0 from slabs; of 71 → 306 channels at 5², without dilation, 84 µs, and 97.

Chen et al., *Rethinking atrous convolution for semantic image segmentation* (2017), §3.3, count the taps that are left.
"""

from __future__ import annotations

import itertools
import math
import operator
from typing import NamedTuple

from npconv.kernels.numba import blocking
from npconv.problem import ConvProblem

FEW = 9
"""Taps along an axis, at most, that regions are made for: each of these may begin one, and end one. Or results, each of
which is a region."""

WORTH = 1.5
"""Products with a panel that are left out, for each number of the input, from which on that pays: to put the channels
side by side first takes as long, and rectangles are smaller."""

ROOM = 3 * blocking.ENGINE_LIMIT // 4
"""Bytes of an image whose channels are put side by side, at most."""

LEAST, MOST = 8, 1024
"""Pixels that take as long as fewer of a region: as long as the weights that they meet take to come. And images, at
least, of which single results are computed together; results of a task of these, at most."""


class Cut(NamedTuple):
    """How regions are cut into tasks."""

    images: int
    block: blocking.Blocks
    """The largest rectangle, and the panels of a task."""

    down: int
    across: int
    """How many rows and columns of rectangles there are."""

    places: list[tuple[int, ...]]
    """Where these rows and columns begin, how many results they have, and where taps are."""

    turns: int
    """How many rectangles a task computes, one after the other."""


class Regions(NamedTuple):
    """The regions of a result's planes: rectangles of some rows and some columns."""

    rows: tuple[tuple[int, int], ...]
    """The first row, and how many there are."""

    columns: tuple[tuple[int, int], ...]
    taps: int
    """Taps that a pixel meets, at most."""

    products: float
    """The share of all products that is computed, some of them in vain."""

    bytes: int
    """Of the image, if its channels lie side by side or are put so; 0 if regions are single results, that meet rows."""

    def cut(self, problem: ConvProblem, most: int, panels: int, threads: int, plain: bool) -> Cut:
        """Cut regions into rectangles, or single results of some images, of at most so many pixels.

        Rectangles differ in their sizes: the largest is a small part of what a thread does. If filters are ``plain``, a
        task packs a panel once, for all rectangles of a plane. Single results of an image lie side by side: they are
        one thread's.
        """
        computed = problem.batch * problem.groups * problem.positions * problem.taps * self.products
        share, parts = computed / (self.taps * threads * blocking.TASKS_PER_THREAD), panels if plain else 1
        if threads > 1 and not plain:
            parts = min(max(math.ceil(most / share), 1), panels)
            most = min(most, int(share * parts))
        taps: list[tuple[int, ...]] = []
        if self.bytes:
            columns = _pieces(self.columns, max(most, blocking.LEAST))
            widest = max(count for _, count in columns)
            rows, images = _pieces(self.rows, max(most // widest, 1)), 1
            taps = [
                tuple(map(operator.mul, tap, problem.dilation))
                for tap in itertools.product(*map(range, problem.kernel_size))
            ]
        else:
            columns, rows, widest, parts = list(self.columns), list(self.rows), 1, panels
            images = blocking.even(problem.batch, max(min(most, MOST // (len(rows) * len(columns))), blocking.LEAST))
        block = blocking.Blocks(max(count for _, count in rows), widest, -(-panels // parts))
        turns = len(rows) * len(columns) if plain or not self.bytes else 1
        return Cut(images, block, len(rows), len(columns), [*((*one, 0) for one in (*rows, *columns)), *taps], turns)


class _Segment(NamedTuple):
    """Some results of an axis: the first, how many, and how many taps they meet."""

    first: int
    number: int
    taps: int


def _segments(problem: ConvProblem, axis: int) -> list[_Segment]:
    """Cut an axis of the result where a tap begins or ends to meet the image, at every stride."""
    taps, dilation, stride = problem.kernel_size[axis], problem.dilation[axis], problem.stride[axis]
    size, results, before = problem.input_size[axis], problem.output_size[axis], problem.padding[axis][0]
    met = [
        [min(max(-(-(place + before - tap * dilation) // stride), 0), results) for place in (0, size)]
        for tap in range(taps)
    ]
    ends = sorted({0, results, *(place for span in met for place in span)})
    return [
        _Segment(first, end - first, sum(begin <= first and end <= last for begin, last in met))
        for first, end in itertools.pairwise(ends)
    ]


def _pieces(segments: tuple[tuple[int, int], ...], most: int) -> list[tuple[int, int]]:
    """Cut parts of an axis, of which the first element and the number are told, into even ones of at most so many."""
    cuts = []
    for first, count in segments:
        share = blocking.even(count, most)
        cuts += [(first + begin, min(share, count - begin)) for begin in range(0, count, share)]
    return cuts


def of(problem: ConvProblem, wide: int) -> Regions | None:
    """Return the regions of a problem's planes, if what is left out, by panels so ``wide``, is worth it."""
    # Filters that are packed once meet images of any size, of which one may have single results, and others not.
    single = problem.of_weight and problem.batch >= LEAST and max(problem.output_size) <= FEW
    single = single and problem.taps >= problem.positions  # or their rows are short
    single = single and problem.dilation[-1] == 1 and not problem.apart
    far = max(problem.dilation) > 1 and max(problem.kernel_size) <= FEW
    if problem.up or problem.positions == 0 or not (single or far):
        return None
    if not far:
        return _single(problem, wide)
    axes = [[_Segment(0, 1, 1)]] * (3 - problem.rank) + [_segments(problem, axis) for axis in range(problem.rank)]
    deep, rows, columns = axes
    depth = float(sum(one.number * one.taps for one in deep))
    sizes = [(down.number * across.number, down.taps * across.taps) for down in rows for across in columns]
    products = depth * sum(max(pixels, LEAST) * taps for pixels, taps in sizes) / problem.positions / problem.taps
    met = problem.batch * problem.in_channels * math.prod(problem.input_size) * problem.compute_dtype.itemsize
    if not _pays(problem, wide, products) or not 0 < met <= ROOM:
        return None
    of_rows, of_columns = (tuple(one[:2] for one in axis) for axis in (rows, columns))
    taps = max(taps for _, taps in sizes) * problem.three(problem.kernel_size)[0]
    return Regions(of_rows, of_columns, taps, products, met)


def _pays(problem: ConvProblem, wide: int, products: float) -> bool:
    """Whether it pays to compute this share of all products, by panels so wide, and leave out the others."""
    panels, pixels = -(-(problem.out_channels // problem.groups) // wide), math.prod(problem.input_size)
    return products > 0 and (1 - products) * problem.taps * panels * problem.positions >= WORTH * pixels


def _single(problem: ConvProblem, wide: int) -> Regions | None:
    """Return regions of one result each."""
    shares, before = [], (0,) * (3 - problem.rank)
    for axis in range(problem.rank):
        taps, dilation, stride = problem.kernel_size[axis], problem.dilation[axis], problem.stride[axis]
        size, first = problem.input_size[axis], -problem.padding[axis][0]
        places = range(first, first + problem.output_size[axis] * stride, stride)
        met = [
            min(max(-(-(size - place) // dilation), 0), taps) - min(max(-(place // dilation), 0), taps)
            for place in places
        ]
        shares.append(sum(met) / len(met) / taps)
    products = math.prod(shares)
    if not _pays(problem, wide, products):
        return None
    _, rows, columns = (*before, *problem.output_size)
    of_rows, of_columns = (tuple((place, 1) for place in range(number or 1)) for number in (rows, columns))
    return Regions(of_rows, of_columns, problem.taps, products, 0)

"""How tasks of `npconv.kernels.numba.planes` are cut.

A task is a rectangle of one plane of the result, for some groups, or some filters of one group. It has as many rows as
leave what it loads and what it computes in the second-level cache, and threads without waiting for each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import blocking, buffers, jit, product
from npconv.kernels.numba.blocking import in_slivers
from npconv.kernels.numba.moves import BLOCK
from npconv.kernels.numba.pixels import WIDEST
from npconv.kernels.numba.tile import COLUMNS, FEWEST, VECTOR_BYTES
from npconv.kernels.summation import chain_length, shortest_chain
from npconv.problem import ConvProblem

PIXELS = 1536
"""Pixels of a task, if the cache has room for what they need."""

LOAD, WHOLE, FEW = 1.0, 1024, 64
"""How long it takes to load a number of the input, in products with a few filters; pixels of a task, at most, where not
all channels of them fit the cache at once, and where all do not fit it anyway."""

CUT, SLAB = 2, 8
"""How many cycles it takes to cut two vectors of pixels into a sliver, and to load them; a product with a filter takes
one."""

PART, UNLOAD = 4, 4
"""How many cycles it takes to cut what a sliver has of another row, and to move two vectors of results."""

FILTERS = 16
"""Filters of a task, if they belong to several groups."""

MOST = 4
"""Filters of a group that have a task of their own."""

CHANNELS, IN_PLACE = 8, 1024
"""Channels whose pixels are read where they are, before those of the next ones, and pixels of such a task, whose sums
stay in the first-level cache. Each channel is a stream from memory: all of 64 at once, at 388², took up to three times
as long, and 16 of 256 at 64², whose planes meet in the sets of the cache, 0.35 ms for three filters instead of 0.15."""

ROOM = 2**20
"""Bytes of scratch that a task with slivers may need in the memory orders that are worst for it."""

SLIVERS = 2**17
"""Bytes of slivers that meet the weights together. With those that half a first-level cache holds, so that weights pass
by more often, 256 → 512 channels took 4 % longer."""


class Sizes(NamedTuple):
    """A problem's numbers, in threes: the kernel takes them as the rows of a matrix."""

    stride: tuple[int, ...]
    phases: tuple[int, ...]
    """The dilation of planes, and the residues of rows and pixels that taps meet."""

    before: tuple[int, ...]
    """Where the first window begins."""

    slab: tuple[int, ...]
    """Planes, rows and columns of a task's part of a channel."""

    block: tuple[int, ...]
    """Filters, rows and columns of a task."""

    channels: tuple[int, ...]
    """Channels and filters of a group, and how far apart planes are in a slab."""

    groups: tuple[int, ...]
    """Groups, those of a task, and all rows of a result that is merged with pixels that meet no tap."""

    slivers: tuple[int, ...]
    """Slivers that meet the weights together, whether they are cut from planes as they are, and, where filters lie side
    by side, how many numbers apart a filter's elements are, else 0."""

    parts: tuple[int, ...]
    """Channels that are met at a time, whether planes are met in place, and whether rows of results are closed."""

    sums: list[tuple[int, int, int]]
    """Of each problem: elements of a filter, those of a chain, and whether the problem before has cut its slivers."""

    def matrix(self) -> np.ndarray:
        """Return them as the kernel takes them."""
        return np.array([*self[:-1], *self.sums])


class Plan(NamedTuple):
    """How a problem is computed."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    turning: tuple[int, np.dtype[Any]]
    """The same where filters lie side by side, not one behind the other."""

    grid: np.ndarray
    sizes: Sizes
    matrices: tuple[np.ndarray, np.ndarray]
    """These, for filters one behind the other, and side by side."""

    offsets: np.ndarray
    kernel: str
    """Its key in `npconv.kernels.numba.planes._kernels`."""

    merges: bool
    """Whether results of several problems, or pixels that meet no tap, are merged."""

    gathering: tuple[int, np.dtype[Any], np.ndarray, np.ndarray] | None = None
    """Tasks that put pixels side by side first, their dtype, numbers, and the layout that comes of it."""

    @property
    def shared(self) -> int:
        """Bytes of these pixels, which all tasks read."""
        if self.gathering is None:
            return 0
        channels, dtype, _, layout = self.gathering
        return channels * math.prod(layout[5:].tolist()) * dtype.itemsize


class _Way(NamedTuple):
    """How filters meet pixels."""

    many: bool
    """Whether a group has many filters, that meet slivers."""

    pointwise: bool
    """Whether pixels are met alone, and lie at one distance from each other."""

    alone: bool
    """Whether nothing is merged."""

    phases: tuple[list[int], list[int]]
    """The residues of rows and columns that are met, modulo the stride."""

    beyond: tuple[int, int]
    """How many rows and columns of a residue a result meets beyond its own."""

    lanes: int
    all_rows: int

    @property
    def as_they_are(self) -> bool:
        """Whether planes need no slab: they are cut as they are, rows behind rows, where pixels meet one tap each."""
        return self.many and self.pointwise

    @property
    def planes(self) -> int:
        """Of how many residues a row of a channel's planes is kept in the slab."""
        return len(self.phases[0]) * len(self.phases[1])


class _Cut(NamedTuple):
    """Rectangles, and what of channels, groups and filters a task has."""

    some: int
    """Channels whose products are summed up before those of the next ones."""

    together: int
    """Groups of a task."""

    panels: int
    block: blocking.Blocks
    line: int
    """From one row of results to the next."""

    closed: bool


def plan_of(problems: Sequence[ConvProblem], threads: int, in_line: bool = False, all_rows: int = 0) -> Plan:
    """Cut a problem into tasks, or two that differ in the taps along a row, and whose results are merged.

    With ``all_rows``, one is merged with pixels that meet no tap, and its rows with such rows, which makes so many. The
    input's pixels are ``in_line`` if they, of several rows too, all lie at one distance from each other.
    """
    problem = problems[0]
    dtype, stride = problem.compute_dtype, problem.stride
    channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    depth, height, width = problem.output_size
    before = [max(one.padding[axis][0] for one in problems) for axis in range(3)]
    way = _way_of(problems, in_line, all_rows)
    work = sum(one.flops for one in problems) // 20
    # Numbers of a sliver, and how many meet the weights together.
    sliver = max(one.products for one in problems) * COLUMNS * way.lanes
    slivers = max(SLIVERS // (sliver * dtype.itemsize), 1) if way.many else 0
    room = slivers * (sliver + COLUMNS * way.lanes)
    cut = _cut(problems, way, threads, jit.sharing(work, threads), room)
    some, together, panels, block, line, closed = cut
    rows, columns = block.rows + way.beyond[0], block.columns + way.beyond[1]
    parts = -(-panels // block.panels)
    share = -(-filters // parts)
    plane = buffers.odd_lines(rows * columns, dtype.itemsize)
    grid = (problem.batch, -(-problem.groups // together), parts, depth,
            -(-height // block.rows), -(-width // block.columns))  # fmt: skip
    in_place = way.pointwise and not way.many and way.alone
    offsets, sums = _offsets(problems, way, columns, plane)
    sizes = Sizes(
        stride=stride,
        phases=(problem.dilation[0], *map(len, way.phases)),
        before=tuple(-pad for pad in before),
        slab=(problem.kernel_size[0], rows, columns),
        block=(share, *block[:2]),
        channels=(channels, filters, plane),
        groups=(problem.groups, together, all_rows),
        slivers=(slivers, way.as_they_are, 0),
        parts=(some, in_place, closed),
        sums=sums,
    )
    matrices = sizes.matrix(), sizes._replace(slivers=(slivers, way.as_they_are, filters)).matrix()
    spare = WIDEST * way.lanes
    pitch = -(-block.rows * line // way.lanes) * way.lanes + spare
    at_once = min(together, BLOCK)
    scratch = at_once * share * len(problems) * pitch + spare + room
    if not way.as_they_are:
        scratch += at_once * some * problem.kernel_size[0] * way.planes * plane
    if all_rows:
        scratch += 2 * share * block.columns
    turning = scratch + share * problem.products + COLUMNS * way.lanes
    if problem.turned and may_turn(problem):
        scratch = turning  # what threads are said to work in is what they do
    kernel = "planes" if not way.many else "whole" if way.as_they_are else "slivers"
    return Plan(math.prod(grid), work, (scratch, dtype), (turning, dtype), np.array(grid), sizes, matrices, offsets,
                kernel, not way.alone)  # fmt: skip


def may_turn(problem: ConvProblem) -> bool:
    """Whether tasks can turn filters that lie side by side."""
    return problem.taps == 1 and problem.groups == 1 and in_slivers(problem)


def _way_of(problems: Sequence[ConvProblem], in_line: bool, all_rows: int) -> _Way:
    """Return how filters meet pixels."""
    problem = problems[0]
    kernel, dilation, stride = problem.kernel_size, problem.dilation, problem.stride
    rows, pixels = (sorted({tap * dilation[axis] % stride[axis] for tap in range(kernel[axis])}) for axis in (1, 2))
    beyond = max((one.span[2] - 1) // stride[2] + shift for one, shift in zip(problems, _shifts(problems), strict=True))
    pointwise = (problem.output_size[1] == 1 or in_line) and all(
        one.taps == 1 and one.stride == (1, 1, 1) and not any(map(any, one.padding)) for one in problems
    )
    return _Way(
        in_slivers(problem), pointwise, len(problems) == 1 and not all_rows, (rows, pixels),
        ((problem.span[1] - 1) // stride[1], beyond), VECTOR_BYTES // problem.compute_dtype.itemsize, all_rows,
    )  # fmt: skip


def _shifts(problems: Sequence[ConvProblem]) -> list[int]:
    """Return how many pixels behind where the slab begins each problem does."""
    before = max(one.padding[2][0] for one in problems)
    return [before - one.padding[2][0] for one in problems]


def _cut(problems: Sequence[ConvProblem], way: _Way, threads: int, sharing: int, slivers: int) -> _Cut:
    """Cut the result into rectangles, which leave the cache room for ``slivers`` of so many numbers."""
    problem = problems[0]
    itemsize, (_, height, width) = problem.compute_dtype.itemsize, problem.output_size
    channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    many, as_they_are, limit = way.many, way.as_they_are, blocking.share(problem, threads)
    together, some = max(min(problem.groups, FILTERS // filters), 1), channels
    if not many and way.pointwise and way.alone and together == 1:
        some = blocking.even(channels, max(CHANNELS, shortest_chain(channels, problem.loose) + 1))
    least = _least(problem) if not many and way.alone else channels
    pixels = IN_PLACE if some < channels else PIXELS
    # Filters that a task has one or more of.
    unit = max(product.width(problem.compute_dtype), FEWEST) if many else MOST
    load = (CUT + SLAB / problem.taps) / unit if many else LOAD * way.planes / problem.taps
    # Pixels that are computed together: of the last sliver of a slab, half may be all. Groups are tasks enough.
    wide = (COLUMNS if as_they_are else 1) * way.lanes if many else int(together == 1)
    left = channels if as_they_are and not problem.turned else 0  # channels of the last pixels' vectors
    while True:
        planes = some * problem.kernel_size[0] * way.planes
        others = problem.batch * -(-problem.groups // together) * problem.output_size[0]
        panels = max(filters // unit, 1) if together == 1 else 1
        block = blocking.blocks(height, width, pixels, others, panels, sharing, load, wide, channels=left)
        columns = block.columns + way.beyond[1]
        inputs = 0 if as_they_are else planes * (block.rows + way.beyond[0]) * columns
        share = -(-filters // -(-panels // block.panels))
        shared = others * panels, sharing
        closed = many and _are_closed(height, block, columns, share, problem.products, wide, shared)
        line = block.columns if closed else columns
        results = min((block.panels + 1) * unit, filters) * len(problems) * block.rows * line
        in_place = way.alone and (line == width or block.rows == 1)
        used = inputs + (results if many and not in_place else 0)
        fits = used * itemsize <= blocking.CACHE // (8 if together > 1 else 1)
        if fits and (not many or (inputs + results) * itemsize <= ROOM):
            break
        in_parts = some > least and together == 1  # of all channels, which costs less than tasks of a few rows
        if pixels > (WHOLE if in_parts else FEW):
            pixels = pixels * 3 // 4
            continue
        met = (block.rows + way.beyond[0]) * columns
        taken = planes * buffers.odd_lines(met, itemsize) + filters * (met + WIDEST * way.lanes)
        if some <= least or (together > 1 and min(together, BLOCK) * taken * itemsize <= limit):
            break
        some, together = blocking.even(channels, max(some // 2, least)), 1
    if many:
        _, fitting = _fitting(height, block, line, wide, shared)
        block = blocking.blocks(
            height, width, fitting * block.columns, others, panels, sharing, load, wide, channels=left
        )
        columns = block.columns + way.beyond[1]  # fewer, perhaps, than those looked at
        line, inputs = block.columns if closed else columns, planes * (block.rows + way.beyond[0]) * columns
    inputs = 0 if as_they_are else inputs
    # Numbers of results, and of filters that are turned, for each filter of a task: fewer, lest one thread is left.
    each = (block.rows * line + WIDEST * way.lanes) * len(problems) + (2 * block.columns if way.all_rows else 0)
    each += problem.products if problem.turned and may_turn(problem) else 0
    room = limit // itemsize - slivers - inputs
    while block.panels > 1 and each * -(-filters // -(-panels // block.panels)) > room:
        block = block._replace(panels=-(-block.panels // 2))
    return _Cut(some, together, panels, block, line, closed)


def _offsets(
    problems: Sequence[ConvProblem], way: _Way, columns: int, plane: int
) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Return where taps meet the slab, and residues, of all problems; and their elements, chains, and what is cut.

    Rows of a slab have so many ``columns``; planes are as many numbers apart.
    """
    offsets: list[np.ndarray] = []
    sums = []
    rows, pixels = way.phases
    for one, shift in zip(problems, _shifts(problems), strict=True):
        depth, *_ = kernel = one.kernel_size
        _, down, across = one.stride
        _, lines, places = ([tap * d for tap in range(k)] for k, d in zip(kernel, one.dilation, strict=True))
        to_line = [rows.index(j % down) * len(pixels) * plane + j // down * columns for j in lines]
        to_pixel = [pixels.index(m % across) * plane + m // across + shift for m in places]
        to_plane = np.arange(one.in_channels // one.groups * depth) * (way.planes * plane)
        each = (to_plane[:, None, None] + np.array(to_line, np.int64)[:, None] + np.array(to_pixel, np.int64)).ravel()
        cut_before = bool(offsets) and np.array_equal(offsets[-1], each)  # what the problem before this one has cut
        sums.append((one.products, _even_chain(one), int(cut_before)))
        offsets.append(each)
    offsets.append(np.array(rows + pixels))
    return np.concatenate(offsets), sums


def _are_closed(
    height: int, block: blocking.Blocks, line: int, filters: int, products: int, wide: int, shared: tuple[int, int]
) -> bool:
    """Whether slivers have the pixels of one row behind those of another, and not what lies between them in the slab.

    That is, rows of a ``line`` there. To cut them takes longer, the more the shorter rows are, and what is computed
    between rows is saved, and need not be moved. In two threads 3 → 96 channels at 217², 3 × 3 at stride 2, so take 338
    µs instead of 399, and 48 → 96 at 13² 82 instead of 104; but 32 → 32 at 14² took 31.7 instead of 29.7.
    """
    others = COLUMNS * wide / block.columns if block.columns % wide else 0  # rows that a sliver has a part of, too
    closed, apart = (_fitting(height, block, pitch, wide, shared)[0] for pitch in (block.columns, line))
    return closed * (filters + CUT + PART * others) < apart * (filters + CUT + UNLOAD * filters / products)


def _fitting(height: int, block: blocking.Blocks, pitch: int, wide: int, shared: tuple[int, int]) -> tuple[int, int]:
    """Return how many vectors, or slivers, of a result a thread has, and by how many rows, that leave these least bare.

    Of at most as many rows as a block has, and at least half as many. ``shared`` are how many times each is computed,
    for other images, groups and panels, and by how many threads all are shared.
    """
    times, threads = shared

    def slivers(most: int) -> int:
        rows = blocking.even(height, most)  # as they are cut
        tasks = -(-times * -(-height // rows) // threads)
        return tasks * -(-((rows - 1) * pitch + block.columns) // wide)

    return min(((slivers(rows), rows) for rows in range(block.rows, block.rows // 2, -1)), key=lambda cut: cut[0])


def _least(problem: ConvProblem) -> int:
    """Return how few channels may be summed up by themselves.

    What they add goes one after the other into a result: as a chain of as many sums as a third of the chains that the
    direct sum has, which the channels have so many times fewer of.
    """
    channels = problem.in_channels // problem.groups
    return -(-channels // max(problem.products // _even_chain(problem) // 3, 1))


def _even_chain(problem: ConvProblem) -> int:
    """Return the length, an even number, of chains of sums that are about as long as each other."""
    products = problem.products
    longest = (chain_length(products, problem.loose) - 1) // 2 * 2  # the last one may be longer by an odd product
    return -(-blocking.even(products, longest) // 2) * 2

"""The direct sum, with filters in the vectors and nothing gathered.

With the channels last, as a slab has them, the elements that a filter meets in one row of its window lie side by side:
a window is one run of kw · C numbers for each row of the kernel (of C for each tap where it is dilated), and windows
overlap without being copied. So the slab itself is the matrix that meets the packed filters; no region matrix is made.

Of dilations about as long as the image, taps that a pixel meets are far from each other, and many are in the padding.
There a task has a rectangle whose pixels meet the same taps (`npconv.kernels.numba.far_taps`), and these meet the image
where it is; its channels are put side by side first, if they do not lie so. 256 channels at 33², 3 × 3 with dilation
18, take 2.4 ms in two threads, and took 11. (From slabs of what each tap meets it took 2.7, and 256 → 64 at 65² with
dilation 24 8.8 instead of 3.6: the short rows of many channels do not come as fast as they are wanted.)

A task is a rectangle of one plane of the result, of several images where they are tiny, and some panels of filters. It
loads its slab, padding and all, which stays in the second-level cache unless channels are many, and streams the weights
past it. Where the kernel has one element along an axis, only the input that the stride meets is loaded; 1 × 1 kernels
meet an input with the channels last as it is. So do patches that do not overlap, of images of few channels, meet these
with the channels first: their runs are rows of a channel, and filters are packed as they are ordered then.

Calls that bring plain weights, for so few pixels that few tasks meet a panel, have it packed by each of these: nothing
is written for other threads to read, nobody waits for a pass to end, and the panel is in the second-level cache when it
is met. Two threads so take 39 µs instead of 56 for 320 → 160 channels at 7², a quarter less for 3 × 3 of 288 → 112 at
8² and stride 2, and 2 to 3 % less for 512 → 2048 at 7² and 1024 → 256 at 14². Filters of one tap that lie side by side,
those of a gradient, are met where they are, but for the last ones: 1240 → 752 channels at 5² so take 243 µs, once 301.

Georganas et al., *Anatomy of high-performance deep learning convolutions on SIMD architectures* (2018), §II.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, DEPTH, HEIGHT, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import blocking, buffers, far_taps, jit, product, slab
from npconv.kernels.numba.blocking import LEAST, PIXELS, SMALL, SPARE, WAY
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, max, min, part_of, table, triple_table, triples, tuple_of
from npconv.kernels.numba.moves import BLOCK
from npconv.kernels.numba.product import MATRIX, multiply_and_finish, width_of
from npconv.kernels.numba.tile import FEWEST
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

BORDER = 2700
"""Products of an element with a panel that it takes as long as to write the lines of the cache that a rectangle shares
with others of its plane: 96 → 576 channels at 14² took 130 µs by two rectangles, and take 110 by halves of filters."""


class Sizes(NamedTuple):
    """A problem's numbers, in threes: the kernel takes them as the rows of a matrix."""

    stride: tuple[int, ...]
    pace: tuple[int, ...]
    """How far apart, in the slab, what neighbouring results meet is."""

    step: tuple[int, ...]
    """How far apart, in the image, what lies side by side in the slab is."""

    before: tuple[int, ...]
    """Where the first window begins."""

    window: tuple[int, ...]
    """Planes, rows and columns of a task's slab."""

    block: tuple[int, ...]
    """Panels, rows and columns of a task."""

    filters: tuple[int, ...]
    """Channels and filters of a group, and the taps of each."""

    images: tuple[int, ...]
    """All of them, those of a task, and the elements of a chain of sums."""

    slab: tuple[int, ...]
    """Whether pixels are met where they are, in how many parts channels are loaded, and where in the scratch a panel is
    that a task packs."""

    far: tuple[int, ...]
    """Numbers of the slab; the row at which `places` begin, 0 if there are none; rectangles of a task."""

    single: tuple[int, ...]
    """Whether results meet rows, each others, and not taps."""

    places: list[tuple[int, ...]]
    """Of regions: where rows and columns of rectangles begin and how many results these have, and where taps are."""

    def matrix(self) -> np.ndarray:
        """Return them as the kernel takes them."""
        return np.array([*self[:-1], *self.places])


class Plan(NamedTuple):
    """How a problem is computed."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    in_turns: bool
    sizes: Sizes
    matrices: tuple[np.ndarray, np.ndarray]
    """These, for pixels that are loaded, and for such as are met where they are."""

    runs: np.ndarray
    """Of the slab."""

    pointwise: bool
    """Whether pixels are met alone, and so where they are if their channels lie side by side."""

    rows: tuple[int, ...]
    """Channels, depth, rows and columns of patches whose rows are met where they are; none if they are not."""

    shared: int = 0
    """Bytes of the image with its channels last, which all tasks read."""


pack_bias = product.panel_bias


def _in_rows(problem: ConvProblem) -> bool:
    """Whether rows of patches are met where they are."""
    far = far_taps.of(problem, product.width(problem.compute_dtype))
    return blocking.in_rows(problem) if far is None else far.bytes == 0


order = _in_rows
"""The order in which filters are packed depends on the padding, which of ``"same_upper"`` follows from the size."""


def packer(problem: ConvProblem, weight: np.ndarray, plain: bool = False) -> Callable[[np.ndarray], Any]:
    """Return what packs filters (K, C/groups, kd, kh, kw) of this weight's strides, or prepares plain ones."""
    make = product.plain_packer if plain else product.packer
    if not _in_rows(problem):
        return make(problem, weight)
    shape = (problem.out_channels, problem.products, 1, 1, 1)
    whole = replace(problem, in_channels=problem.products * problem.groups, kernel_size=(1,) * problem.rank)
    pack = make(whole, weight.reshape(shape))
    return lambda weight: pack(weight.reshape(shape))


def plan(problem: ConvProblem, threads: int, plain: bool = False) -> Plan:
    """Cut a canonical problem into tasks, of packed weights or of plain ones."""
    itemsize = problem.compute_dtype.itemsize
    channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    kernel, dilation, stride = problem.kernel_size, problem.dilation, problem.stride
    # An axis with one tap needs no input between the strides.
    step = tuple(s if k == 1 else 1 for k, s in zip(kernel, stride, strict=True))
    pace = tuple(1 if k == 1 else s for k, s in zip(kernel, stride, strict=True))
    depth, height, width = problem.output_size
    wide = product.width(problem.compute_dtype)
    panels = -(-filters // wide)
    far = far_taps.of(problem, wide)
    image = math.prod(problem.padded_size) * channels * itemsize
    panel = problem.products * wide * itemsize
    results = (PIXELS + SPARE) * wide * itemsize
    packed = threads * panel if plain else problem.groups * panels * panel
    room = blocking.share(problem, threads, packed + threads * results)
    room = min(blocking.room_beside(panel), room)
    images = max(min(problem.batch, SMALL // (height * width), room // image), 1)
    others = -(-problem.batch // images) * problem.groups * depth

    def window(rows: int, columns: int) -> tuple[int, int]:
        return (rows - 1) * pace[1] + problem.span[1], (columns - 1) * pace[2] + problem.span[2]

    # A number of the input takes as long to load as half a product with a panel, three times as long where channels
    # are too few to transpose blocks of them.
    rows_of_patches = _in_rows(problem)
    load = (0.5 if channels >= BLOCK else 1.5) * math.prod(problem.padded_size) / (problem.positions * problem.taps)
    if rows_of_patches:
        load = 0
    border = 0 if problem.channels_last else BORDER / problem.products
    pixels, work = PIXELS, problem.flops // 40
    sharing = jit.sharing(work, threads)
    if far is not None:
        room = min(blocking.room_beside(panel * far.taps // problem.taps), room)
        most = room // max(far.taps * channels * itemsize, 1)
        images, block, down, across, places, turns = far.cut(problem, min(PIXELS, most), panels, sharing, plain)
        rows, columns, loaded, step = *kernel[1:], 0, (*dilation[:2], 1)
    while far is None:
        block = blocking.blocks(height, width, pixels, others, panels, sharing, load, 1, border)
        down, across, places, turns = -(-height // block.rows), -(-width // block.columns), [], 1
        rows, columns = window(block.rows, block.columns)
        loaded = 0 if rows_of_patches else images * kernel[0] * rows * columns * channels
        if pixels <= LEAST or loaded * itemsize <= room:
            break
        pixels = pixels * 3 // 4
    grid = (-(-problem.batch // images), problem.groups, -(-panels // block.panels), depth, down * across, across)
    in_turns = turns == 1 if places else blocking.in_turns(block, height, width, others, panels, threads)
    pointwise = problem.taps == 1 and not any(map(any, problem.padding))
    # Pixels a way of the first-level cache apart, those of 1024 channels, all meet in a few of its sets, which took 5 %
    # longer: where each is met alone, its channels are loaded in several parts.
    parts = 2 * channels * itemsize // WAY if pointwise and channels * itemsize % WAY == 0 else 1
    # A chain of sums may be a product longer: it ends after an even number of a run's elements.
    chain = blocking.even(problem.products, chain_length(problem.products, problem.loose) - 1)
    pixels = (images * block.rows * block.columns + SPARE) * (turns if rows_of_patches else 1)
    scratch, panel_at = loaded + pixels * wide, 0
    if plain:
        line = buffers.LINE // itemsize
        panel_at = -(-scratch // line) * line
        scratch = panel_at + (problem.products + problem.taps * blocking.piece(problem)) * wide
    sizes = Sizes(
        stride=stride,
        pace=pace,
        step=(dilation[0], step[1], step[2]),
        before=tuple(-pad for pad, _ in problem.padding),
        window=(kernel[0], rows, columns),
        block=(block.panels, *block[:2]),
        filters=(channels, filters, problem.taps),
        images=(problem.batch, images, chain),
        slab=(0, parts, panel_at),
        far=(loaded, len(Sizes._fields) - 1 if places else 0, turns),
        single=(far is not None and far.bytes == 0, 0, 0),
        places=places,
    )
    runs = _runs(problem, channels, rows, columns)
    if pointwise:
        share = channels // parts
        runs = np.array([(part * kernel[0] * rows * columns * share, share, part * share) for part in range(parts)])
    tasks = int(np.prod(grid[:5])) // turns
    return Plan(
        tasks, work, (scratch, problem.compute_dtype), np.array(grid), in_turns, sizes,
        (sizes.matrix(), sizes._replace(slab=(1, parts, panel_at)).matrix()), runs, pointwise,
        (channels, *kernel) if rows_of_patches else (), 0 if far is None else far.bytes,
    )  # fmt: skip


def _runs(problem: ConvProblem, channels: int, rows: int, columns: int) -> np.ndarray:
    """Return the offset and the length of each run of a window, and the filters' element that it begins with."""
    kernel, dilation = problem.kernel_size, problem.dilation
    joined = kernel[2] if dilation[2] == 1 else 1
    lines = kernel[1] if dilation[1] == 1 and joined == columns else 1  # rows of the kernel that are rows of the slab
    runs = [
        (((i * rows + j * dilation[1]) * columns + m * dilation[2]) * channels, lines * joined * channels)
        for i in range(kernel[0])
        for j in range(0, kernel[1], lines)
        for m in range(0, kernel[2], joined)
    ]
    return _beginning(runs)


def _beginning(runs: list[tuple[int, int]]) -> np.ndarray:
    """Return runs, offsets and lengths, with the elements that they begin with, if they have all of a filter's."""
    before = itertools.accumulate((length for _, length in runs), initial=0)
    return np.array([(*run, element) for run, element in zip(runs, before, strict=False)], np.int64).reshape(-1, 3)


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    return _fixed(_packed_block, plan, x_layout, epilogue, out_layout, threads)


def _fixed(
    kernel: jit.Kernel, plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    if plan.shared and x_layout[CHANNEL] != 1:
        return _of_turned(kernel, plan, x_layout, epilogue, out_layout, threads)
    if plan.rows and x_layout[PIXEL] != 1:
        return _of_copy(kernel, plan, x_layout, epilogue, out_layout, threads)
    in_place = bool(plan.rows or plan.shared or (plan.pointwise and x_layout[CHANNEL] == 1))
    runs, sizes = plan.runs, plan.matrices[in_place]
    if in_place and not plan.sizes.places:
        runs = _runs_in_place(plan, x_layout)
    load = slab.loads(x_layout, plan.sizes.step[2], plan.sizes.filters[0])
    parts = slab.parts_of(epilogue.dtype, load, slab.unloads(out_layout))
    return kernel.fixed(
        plan.tasks, plan.work, threads,
        (x_layout, epilogue, out_layout, plan.grid, sizes, runs, parts), plan.scratch, plan.in_turns,
    )  # fmt: skip


def _runs_in_place(plan: Plan, x_layout: np.ndarray) -> np.ndarray:
    """Return the runs of pixels, or of patches, that are met where they are."""
    if plan.pointwise:
        return np.array([(0, plan.sizes.filters[0], 0)])
    channels, depth, rows, columns = plan.rows
    _, to_channel, to_plane, to_row = x_layout[:4].tolist()
    starts = [
        c * to_channel + z * to_plane + y * to_row for c in range(channels) for z in range(depth) for y in range(rows)
    ]
    return _beginning([(start, columns) for start in starts])


def _of_turned(
    kernel: jit.Kernel, plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return what fills of an image that is put channels last first, by tasks that have some pixels of a plane."""
    if x_layout[ROW] != x_layout[WIDTH] * x_layout[PIXEL]:
        return _of_copy(kernel, plan, x_layout, epilogue, out_layout, threads)
    images, channels = plan.sizes.images[0], int(plan.grid[1]) * plan.sizes.filters[0]
    depth, height, width = x_layout[5:].tolist()
    pixels = height * width
    steps = [depth * pixels * channels, 1, pixels * channels, width * channels, channels]
    fill = _fixed(kernel, plan, np.array([*steps, depth, height, width]), epilogue, out_layout, threads)
    each = -(-pixels // TURNED)
    put = _put_last.fixed(images * depth * each, images * depth * pixels * channels, threads)
    parts = slab.parts_of(epilogue.dtype, slab.loads(x_layout, 1, channels), "")
    line = np.array([*x_layout[:5], depth, 1, pixels])  # each plane's rows as one
    sizes = np.array([each, depth, pixels, channels])

    def fill_of_turned(x: np.ndarray, *arrays: np.ndarray) -> None:
        turned = buffers.aligned(plan.shared).view(x.dtype)
        put(x, turned, line, sizes, parts)
        fill(turned, *arrays)

    return fill_of_turned


TURNED = 32
"""Pixels of a task that puts channels last."""


@jit.Kernel
def _put_last(task, x, out, layout, sizes, parts):  # type: ignore[no-untyped-def]
    """Put the channels of some pixels of a plane side by side."""
    each, depth, pixels, channels = tuple_of(sizes, 0, 4)
    plane, part = divmod(task, each)
    n, z = divmod(plane, depth)
    first = part * TURNED
    count = min(TURNED, pixels - first)
    at, start = (plane * pixels + first) * channels, n * layout[IMAGE]
    slab.load(parts, out, at, channels, x, layout, start, channels, (z, 0, first), (1, 1, 1), (1, 1, count))


def _of_copy(
    kernel: jit.Kernel, plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return what fills of a copy whose rows' pixels lie side by side."""
    images, channels = plan.sizes.images[0], int(plan.grid[1]) * plan.sizes.filters[0]
    shape = (images, channels, *x_layout[5:].tolist())
    steps = [math.prod(shape[axis + 1 :]) for axis in range(5)]
    fill = _fixed(kernel, plan, np.array([*steps, *shape[2:]]), epilogue, out_layout, threads)

    def fill_of_copy(x: np.ndarray, *arrays: np.ndarray) -> None:
        strides = [step * x.itemsize for step in x_layout[:5].tolist()]
        ordered = np.ascontiguousarray(np.lib.stride_tricks.as_strided(x, shape, strides))
        fill(ordered.reshape(-1), *arrays)

    return fill_of_copy


class Plain:
    """The engine for plain weights: `npconv.kernels.packed` tells what its methods do."""

    packer, pack_bias = staticmethod(partial(packer, plain=True)), staticmethod(product.panel_bias)

    def plan(self, problem: ConvProblem, threads: int) -> Plan:
        """Cut a canonical problem into tasks."""
        return plan(problem, threads, plain=True)

    def fixed(
        self, plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
    ) -> Callable[..., None]:
        """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
        compute = _fixed(_plain_block, plan, x_layout, epilogue, out_layout, threads)
        return lambda x, weights, bias, out: compute(x, *weights, bias, out)


plain = Plain()

_FORM = "nannNNn"
_taken = taking(_FORM)


@jit.inline
def _far_runs(far, x_layout, sizes, grid, origin):  # type: ignore[no-untyped-def]
    """Find the taps that a rectangle's pixels meet, and return how many there are; rows of ``far`` are runs."""
    ((channels, _, taps),), ((_, places, _),) = triples(sizes, 6, 1), triples(sizes, 9, 1)
    first, met = places + grid[4] // grid[5] + grid[5], 0
    for tap in range(taps):
        z_at, y_at, x_at = sizes[first + tap, 0], sizes[first + tap, 1], sizes[first + tap, 2]
        to = z_at * x_layout[PLANE] + y_at * x_layout[ROW] + x_at * x_layout[PIXEL]
        z_at, y_at, x_at = z_at + origin[0], y_at + origin[1], x_at + origin[2]
        if 0 <= z_at < x_layout[DEPTH] and 0 <= y_at < x_layout[HEIGHT] and 0 <= x_at < x_layout[WIDTH]:
            far[met, 0], far[met, 1], far[met, 2] = to, channels, tap * channels
            met += 1
    return met


@jit.inline
def _rows_within(far, x_layout, sizes, origin):  # type: ignore[no-untyped-def]
    """Find the parts of rows that a result meets within the image, in the same way."""
    ((z_step, y_step, _),), ((depth, rows, columns),), ((channels, _, _),) = (
        triples(sizes, 2, 1), triples(sizes, 4, 1), triples(sizes, 6, 1)
    )  # fmt: skip
    first, last = max(-origin[2], 0), min(x_layout[WIDTH] - origin[2], columns)
    met = 0
    for c in range(channels if first < last else 0):
        for z in range(depth):
            for y in range(rows):
                z_at, y_at = z * z_step, y * y_step
                if 0 <= z_at + origin[0] < x_layout[DEPTH] and 0 <= y_at + origin[1] < x_layout[HEIGHT]:
                    far[met, 0] = (
                        c * x_layout[CHANNEL] + z_at * x_layout[PLANE] + y_at * x_layout[ROW] + first * x_layout[PIXEL]
                    )
                    far[met, 1], far[met, 2] = last - first, ((c * depth + z) * rows + y) * columns + first
                    met += 1
    return met


def _rectangles(plain: bool):  # type: ignore[no-untyped-def]
    """Return what computes a rectangle of the result for some panels, of packed weights or of ``plain`` ones.

    A task packs plain ones by the numbers of ``packing``, if not done before; others need not. ``starts`` has room for
    its pixels, ``far`` for taps.
    """

    def rectangle(task, scratch, x, weights, packing, bias, out, starts, far, constants, done):  # type: ignore[no-untyped-def]
        x_layout, epilogue, out_layout, grid, sizes, runs, slabs = constants
        task, place = divmod(task, grid[4])
        vertical, horizontal = divmod(place, grid[5])
        task, z = divmod(task, grid[3])
        task, part = divmod(task, grid[2])
        n, g = divmod(task, grid[1])
        stride, pace, step, before, window, block, (channels, filters, taps), (batch, together, chain) = triples(
            sizes, 0, 8
        )
        (in_place, parts, panel_at), (room, places, _), (single, _, _) = triples(sizes, 8, 3)
        if places > 0:
            down, across = places + vertical, places + grid[4] // grid[5] + horizontal
            row, rows, column, columns = sizes[down, 0], sizes[down, 1], sizes[across, 0], sizes[across, 1]
        else:
            row, column = vertical * block[1], horizontal * block[2]
            rows, columns = min(block[1], out_layout[HEIGHT] - row), min(block[2], out_layout[WIDTH] - column)
        images = min(together, batch - n * together)
        origin = (before[0] + z * stride[0], before[1] + row * stride[1], before[2] + column * stride[2])
        size = window[0] * window[1] * window[2] * channels
        loaded, result = scratch, after(scratch, room)
        begin = n * together * x_layout[IMAGE] + g * channels * x_layout[CHANNEL]
        if places > 0:
            if single > 0:
                met = _rows_within(far, x_layout, sizes, origin)
            else:
                met = _far_runs(far, x_layout, sizes, grid, origin)
            runs = part_of(far, 0, met)
        if in_place > 0:
            size = x_layout[IMAGE]
            begin += origin[0] * x_layout[PLANE] + origin[1] * x_layout[ROW] + origin[2] * x_layout[PIXEL]
            to_row, to_column, numbers = stride[1] * x_layout[ROW], stride[2] * x_layout[PIXEL], x
        else:
            share = channels // parts
            for image in range(images):
                for some in range(parts):
                    start = begin + image * x_layout[IMAGE] + some * share * x_layout[CHANNEL]
                    to = image * size + some * (size // parts)
                    slab.load(slabs, loaded, to, share, x, x_layout, start, share, origin, step, window)
            begin, to_row, to_column, numbers = 0, pace[1] * window[2] * share, pace[2] * share, loaded
        pixels = rows * columns
        for pixel in range(images * pixels + SPARE):
            image, position = divmod(min(pixel, images * pixels - 1), pixels)
            i, j = divmod(position, columns)
            starts[pixel] = begin + image * size + i * to_row + j * to_column
        wide = width_of(out)
        panels = -(-filters // wide)
        met = images * pixels
        if single > 0:  # results are written when there are all of some images
            rows, columns, pixels = grid[4] // grid[5], grid[5], grid[4]
            row = column = 0
        # Whether the results of all images lie at one distance from each other, as those of a weight gradient do.
        in_line = out_layout[IMAGE] == pixels * out_layout[PIXEL] and (
            rows == 1 or out_layout[ROW] == columns * out_layout[PIXEL]
        )
        # If so, and a pixel's filters lie side by side, those of a whole panel are written where they belong: 64 to 256
        # channels at 56² so took 7 % less.
        straight = out_layout[CHANNEL] == 1 and images * pixels >= FEWEST and single == 0
        straight = straight and (
            in_line or (images == 1 and (rows == 1 or out_layout[ROW] == columns * out_layout[PIXEL]))
        )
        for panel in range(part * block[0], min((part + 1) * block[0], panels)):
            first = g * panels + panel
            count, step = min(wide, filters - panel * wide), wide
            if plain and packing[product.KIND] == MATRIX and count == wide:
                packed, panel_begin, step = weights, packing[product.FIRST] + panel * wide, packing[product.TO_CHANNEL]
            elif plain:
                packed, panel_begin = after(scratch, panel_at), 0
                taps_of = after(packed, taps * channels * wide)
                for piece in range(0 if done else packing[product.PIECES]):
                    product.pack_piece(packed, 0, first, piece, taps_of, weights, packing)
            else:
                packed, panel_begin = weights, first * taps * channels * wide
            k = g * filters + panel * wide
            at = n * together * out_layout[IMAGE] + k * out_layout[CHANNEL] + z * out_layout[PLANE]
            at += row * out_layout[ROW] + column * out_layout[PIXEL]
            if straight and count == wide:
                target, to, pitch = out, at, out_layout[PIXEL]
            elif single > 0:
                target, to, pitch = result, place * wide, pixels * wide
            else:
                target, to, pitch = result, 0, wide
            multiply_and_finish(
                target, to, pitch, numbers, starts, met, runs, chain, packed, panel_begin, step,
                bias, first * wide, epilogue, count,
            )  # fmt: skip
            if (straight and count == wide) or (single > 0 and place < pixels - 1):
                continue
            if in_line:
                slab.unload(slabs, out, at, out_layout[CHANNEL], 0, out_layout[PIXEL], count, 1, images * pixels,
                            result, 0, images * pixels)  # fmt: skip
            else:
                for image in range(images):
                    slab.unload(
                        slabs, out, image * out_layout[IMAGE] + at, out_layout[CHANNEL], out_layout[ROW],
                        out_layout[PIXEL], count, rows, columns, result, image * pixels * wide, columns,
                    )  # fmt: skip

    return jit.specialised(rectangle, plain, within=True)


_of_packed, _of_plain = _rectangles(False), _rectangles(True)


@jit.inline
def _numbers_of_task(sizes):  # type: ignore[no-untyped-def]
    """Return a task's pixels, with those that its last tile may repeat, a rectangle's taps or rows, and rectangles."""
    (depth, rows, _), (_, down, across), (channels, _, taps), (_, images, _) = triples(sizes, 4, 4)
    (_, places, turns), (single, _, _) = triples(sizes, 9, 2)
    met = 0 if places == 0 else channels * depth * rows if single > 0 else taps
    return images * down * across + SPARE, met, turns


@jit.scratch_kernel(_FORM)
@jit.makes_arrays
def _packed_block(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a rectangle for some panels of packed weights."""
    given = _taken(constants, x)
    sizes = given[4]
    pixels, taps, turns = _numbers_of_task(sizes)
    starts, far = table(pixels), triple_table(taps)
    for turn in range(turns):
        _of_packed(task * turns + turn, scratch, x, weights, sizes, bias, out, starts, far, given, True)


@jit.scratch_kernel(_FORM)
@jit.makes_arrays
def _plain_block(task, scratch, x, weights, packing, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a rectangle for some panels, and pack these; or several for one."""
    given = _taken(constants, x)
    sizes = given[4]
    pixels, taps, turns = _numbers_of_task(sizes)
    starts, far = table(pixels), triple_table(taps)
    for turn in range(turns):
        _of_plain(task * turns + turn, scratch, x, weights, packing, bias, out, starts, far, given, turn > 0)

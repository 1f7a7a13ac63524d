"""The direct sum where each filter meets one channel: sums that scroll over the input.

No number of the input is shared between filters, so that loads, not products, are what a depthwise convolution has to
save. Each number is loaded once or, for its neighbours in a row, as often as the kernel is wide, into a register tile
that scrolls over the input (`npconv.kernels.numba.scrolling`).

Where the pixels of a row lie side by side, vectors are of pixels and sums scroll down the image. Large kernels read a
slab, which has the padding. Small ones, and square ones of up to 7 × 7, compute some rows of results at once instead,
and read the image as it is: what lies outside is left out by rows and masked in vectors. (Scrolling, with the sums
carried from step to step, took a fifth longer for 3 × 3 elements, and for 5 × 5 of 28² 1.4 to 1.6 times as long.) Their
weights are loaded column by column, or kept in registers where most of a row's vectors meet nothing but the image.
Reading a row's ends takes numbers of the rows before and after it, so that the first and the last plane of an array are
copied to where there is room around them, and so are images whose pixels do not lie side by side.

Where the channels of the input lie side by side, vectors are of channels (`npconv.kernels.numba.channels`); so they are
for images of few rows, or of stride 2, whose channels are put side by side first.

A task is a rectangle of the result for some channels.

Rejected: F(4, 4) down the rows of 7 × 7 taps, half of whose products it saves. 2 × 7 products on the seven transformed
planes of a channel of 56² take 2.3 µs, as each number that is loaded meets two of them and not seven, and transforms
some 0.9; the direct sum takes 3.3.

Zhang, Lo and Lu, *High performance depthwise and pointwise convolutions on mobile devices* (2020), §3, keep rows of the
input in registers for the results that they reach; keeping the results instead needs no loads beyond the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, HEIGHT, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import blocking, buffers, channels, jit, planes
from npconv.kernels.numba.calls import calling, taking
from npconv.kernels.numba.channels import PIXELS, FiltersOfChannels, Way, first_channels, lanes, turns
from npconv.kernels.numba.lean import after, max, min, triples
from npconv.kernels.numba.moves import BLOCK
from npconv.kernels.numba.plane_slab import OTHERS, load_planes, loads, parts_of, unload_planes
from npconv.kernels.numba.scrolling import FEW, Sums, elements_of, full_ones, over_slab, sums_of
from npconv.kernels.numba.slab import clear
from npconv.kernels.numba.taps import (
    addresses_of,
    kept_numbers,
    mask_of,
    products_of_columns,
    products_of_rows,
    unfolded,
)
from npconv.kernels.numba.tile import REGISTERS
from npconv.kernels.numba.vector import activating, activation_of, filled, lanes_of, store
from npconv.problem import ConvProblem

ROWS, MANY = 4, 7
"""Rows of results of small kernels that are computed together, a vector of each: the more, the less often a number of
the image is loaded, and an unaligned vector takes 1.2 cycles of a Zen 3 core. At stride 2, 7 take 5 to 20 % longer."""

WIDE = 12
"""Vectors in a row of results from which on those that meet nothing but the image have a loop of their own, of four
rows: of 112 pixels 4 % faster than 7 rows that are masked anywhere, of 56 6 % slower."""

LARGEST = 7
"""Rows and columns of square kernels of which some rows of results are computed together."""

LOADED = 2**14
"""Bytes of small planes that are loaded at once: half of a first-level cache."""


class Plan(NamedTuple):
    """A problem's numbers in both memory orders."""

    work: int
    down: Way
    along: Way | None
    turned: Way | None

    @property
    def tasks(self) -> int:
        """The most that there are in any order."""
        return max(way.tasks for way in self._ways)

    @property
    def scratch(self) -> tuple[int, np.dtype[Any]]:
        """The largest of any order."""
        return max(way.scratch for way in self._ways)

    @property
    def _ways(self) -> list[Way]:
        return [way for way in (self.down, self.along, self.turned) if way is not None]


def pack(problem: ConvProblem, weight: np.ndarray) -> FiltersOfChannels:
    """Return filters (K, 1, kd, kh, kw), which are packed when channels that lie side by side are met."""
    return FiltersOfChannels(problem, weight)


pack_bias = planes.pack_bias


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks, for both memory orders."""
    down = _straight(problem, threads) if _is_small(problem) else _down(problem, threads)
    along = channels.way(problem, threads) if first_channels(problem) else None
    turned = channels.way(problem, threads, True) if turns(problem, threads) and not _is_tall(problem) else None
    if turned is not None and _is_tall(problem, turned.tasks / (-(-turned.tasks // threads) * threads)):
        turned = None
    skipped = max(math.prod(problem.input_shape) - math.prod(problem.result_shape), 0)  # which is loaded, too
    return Plan(problem.flops // 8 + skipped, down, along, turned)


def _is_small(problem: ConvProblem) -> bool:
    """Whether some rows of results are computed together, from the image as it is.

    Each form of a kernel is compiled by itself: other large ones than square ones are rare.
    """
    _, *kernel = problem.kernel_size
    _, *stride = problem.stride
    square = max(kernel) <= LARGEST and kernel[0] == kernel[1] and stride[0] == stride[1]
    return (
        (problem.products <= FEW or (square and set(problem.dilation) == {1}))
        and problem.kernel_size[0] == 1
        and problem.padding[0] == (0, 0)
        and problem.stride[2] <= 2
        and 1 in (problem.stride[1], problem.dilation[1])
    )


FILLED = ((49, 1.22), (25, 1.5)) if REGISTERS >= 32 else ((49, 1.6),)
"""How many times as many numbers as a row has its vectors may hold for it not to be turned, by the taps; else twice.

With AVX-512, 768 channels at 7² with 7 × 7 taps take 53 µs on a Zen 4 core when they are turned, else 81; 512 at 8² 41
instead of 100, with 3 × 3 taps 17 instead of 26. In two threads 752 at 19² with 7 × 7 taps take 178 µs instead of 240,
256 at 36² 194 instead of 226, and at 40² as long; 5 × 5 at 20² 42 instead of 45, 3 × 3 at 19² a tenth longer. With
AVX2, 7 × 7 at 9² 27 instead of 31, and at 11² 33.
"""


def _is_tall(problem: ConvProblem, busy: float = 1.0) -> bool:
    """Whether so many rows are, for several of which a number of the image is loaded, and that fill their vectors.

    And no less well than turned ones fill the threads, of which such a share is ``busy``. (16 channels are one vector,
    and at 51² took 53 µs in two threads as in one, with 7 × 7 taps, and take 30; 80, which are five, at 36² 96 and 72.)
    """
    _, height, width = problem.output_size
    if problem.stride[1:] != (1, 1) or height < MANY or not _is_small(problem):
        return False
    most = next((most for taps, most in FILLED if problem.taps >= taps), 2.0)
    return -(-width // lanes(problem)) * lanes(problem) * busy < most * width


def _share(problem: ConvProblem, threads: int) -> int:
    """Return how many channels a task has."""
    depth, height, width = problem.output_size
    wanted = 1 if threads == 1 else blocking.TASKS_PER_THREAD * threads
    share = problem.batch * problem.in_channels * depth // wanted
    return min(max(min(PIXELS // (height * width), share), 1), problem.in_channels)


def _straight(problem: ConvProblem, threads: int) -> Way:
    many = lanes(problem)
    kernel, dilation, stride = problem.kernel_size, problem.dilation, problem.stride
    depth, height, width = problem.output_size
    together = _share(problem, threads)
    parts = -(-problem.in_channels // together)
    span, multiplier = problem.span[1:], problem.out_channels // problem.in_channels
    pixels, limit = PIXELS, blocking.share(problem, threads) // problem.compute_dtype.itemsize
    while True:
        block = blocking.blocks(height, width, pixels, problem.batch * parts * depth, 1, threads)
        rows, columns = ((n - 1) * s + reach for n, s, reach in zip(block[:2], stride[1:], span, strict=True))
        # A plane that is copied, with room for what is read beyond its rows.
        size = rows * columns + max(problem.padding[2][0], 0) + 2 * (many + 1) * stride[2] + problem.span[2]
        at_once = min(max(LOADED // (size * problem.compute_dtype.itemsize), BLOCK), together)
        room = -(-block.columns // many) * many
        pitch = block.rows * room
        blank = stride[2] * (room + 1) + problem.span[2]  # a row outside of the image
        scratch = blank + kernel[2] * room + at_once * (size + multiplier * pitch) + 2 * many
        if scratch <= limit or pixels <= 64:  # of narrow images with many filters a channel, results take most
            break
        pixels = pixels * 3 // 4
    grid = (problem.batch, parts, depth, -(-height // block.rows), -(-width // block.columns))
    before = tuple(-pad for pad, _ in problem.padding)
    sizes = np.array(
        [stride, before, (1, *span), (together, *block[:2]), (multiplier, problem.products, at_once),
         (dilation[1] if kernel[1] > 1 else 1, dilation[2], size), (kernel[2], 0, 0)]
    )  # fmt: skip
    form = (kernel[1:], stride[1:], dilation[2] == 1 or kernel[2] == 1)
    return Way(
        _straight_block, lambda activation: _straight_rows(*form, activation), int(np.prod(grid)),
        (scratch, problem.compute_dtype), np.array(grid), sizes, np.zeros(2, np.int64),
    )  # fmt: skip


def _down(problem: ConvProblem, threads: int) -> Way:
    sums, many = sums_of(problem), lanes(problem)
    kernel, dilation, stride = problem.kernel_size, problem.dilation, problem.stride
    depth, height, width = problem.output_size
    multiplier = problem.out_channels // problem.in_channels
    phases = [sorted({tap * dilation[axis] % stride[axis] for tap in range(kernel[axis])}) for axis in (1, 2)]
    beyond = [(problem.span[axis] - 1) // stride[axis] for axis in (1, 2)]
    each = kernel[0] * len(phases[0]) * len(phases[1])
    together = _share(problem, threads)
    parts = -(-problem.in_channels // together)
    pixels = PIXELS
    while True:
        block = blocking.blocks(height, width, pixels, problem.batch * parts * depth, 1, threads)
        rows, columns = block.rows + beyond[0], -(-(block.columns + beyond[1]) // many) * many
        if pixels <= 64 or each * rows * columns * problem.compute_dtype.itemsize <= blocking.CACHE // 4:
            break
        pixels = pixels * 3 // 4
    grid = (problem.batch, parts, depth, -(-height // block.rows), -(-width // block.columns))
    before = tuple(-pad for pad, _ in problem.padding)
    elements = elements_of(problem)
    plane = rows * columns
    at_once = max(LOADED // (each * plane * problem.compute_dtype.itemsize), 1)
    wide = sums.columns * many
    line = buffers.LINE // problem.compute_dtype.itemsize
    room = -(-block.rows * wide * sums.chained // line) * line
    gap = before[2] % many if stride[2] == 1 else 0  # so that a row of the image begins with a line of the cache
    sizes = np.array(
        [stride, (dilation[0], len(phases[0]), len(phases[1])), before, (kernel[0], rows, columns),
         (together, *block[:2]), (multiplier, problem.products, full_ones(problem)),
         (dilation[1] if kernel[1] > 1 else 1, at_once, gap), (stride[1] * kernel[2], room, sums.columns)]
    )  # fmt: skip
    offsets = [
        ((i * len(phases[0]) + phases[0].index(j % stride[1])) * len(phases[1])
         + phases[1].index(m * dilation[2] % stride[2])) * plane + m * dilation[2] // stride[2]
        for i, j, m in elements
    ]  # fmt: skip
    offsets += [(i * kernel[1] + j) * kernel[2] + m for i, j, m in elements]
    most = min(max(at_once, BLOCK), together)
    scratch = room + most * (each * plane + multiplier * block.rows * -(-block.columns // wide) * wide) + 2 * wide
    return Way(
        _down_block, lambda _: _down_runs(sums), int(np.prod(grid)), (scratch, problem.compute_dtype), np.array(grid),
        sizes, np.array(offsets + phases[0] + phases[1]),
    )  # fmt: skip


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    way = plan.down
    if plan.along is not None and x_layout[CHANNEL] == 1:
        way = plan.along
    elif plan.turned is not None:
        way = plan.turned
    sums, in_vectors = (way.part(activation_of(epilogue)),), way is not plan.down
    if in_vectors:
        parts = jit.addresses(sums, epilogue.dtype)
    else:
        stride = 1 if way.kernel is _straight_block else way.sizes[0, 2]
        parts = parts_of(epilogue.dtype, loads(x_layout, stride), sums)
    constants = x_layout, epilogue, out_layout, way.grid, way.sizes, way.offsets, parts
    run = way.kernel.fixed(way.tasks, plan.work, threads, constants, way.scratch)

    def fill(x: np.ndarray, weights: FiltersOfChannels, bias: np.ndarray, out: np.ndarray) -> None:
        run(x, weights.in_vectors if in_vectors else weights.plain, bias, out)

    return fill


def _over_image(
    rows: int, kernel: tuple[int, int], stride: tuple[int, int], dense: bool, activation: int, wide: bool
) -> Any:
    """Return the sums of some rows of results, of an image as it is.

    Rows beyond the image are ``blank``; columns beyond it are masked. Taps of a row lie side by side if ``dense``.
    The ``activation`` is one of `npconv.kernels.numba.vector.activating`. If for ``wide`` images, vectors that meet
    nothing but these have a loop of their own, with all weights in registers.
    """
    taps, across, folded = kernel[0] * kernel[1], kernel[1], stride[1] == 2
    addresses_of_rows = addresses_of((rows - 1) * stride[0] + kernel[0])
    add_inside, add_anywhere = products_of_rows(kernel, stride, dense), products_of_columns(kernel, stride, dense)
    finished = activating(activation)

    def compute(  # type: ignore[no-untyped-def]
        out, at, step, x, begin, line, blank, y, jump, height, done, count, columns, long, apart, left, span, width,
        masks, weights, w, bias, b, epilogue,
    ):  # fmt: skip
        lanes = lanes_of(out)
        vectors, most = -(-columns // lanes), columns - lanes if long else columns
        first = last = 0
        if wide:
            kept = kept_numbers(weights, w + taps - 1, -1, taps)
            pace = lanes * stride[1]
            first = min(max(-(left // pace), 0), vectors)
            last = max(min((width - span - (lanes - 1) * stride[1] - left) // pace + 1, columns // lanes), first)
        while done < count:
            done = min(done, count - rows)  # the last ones may be computed twice
            addresses = addresses_of_rows(x, begin, line, y + done * jump * stride[0], jump, height, blank)
            to = at + done * step
            if wide:
                for vector in range(first, last):
                    tile = filled(bias, b, rows, 1)
                    tile = add_inside(tile, kept, addresses, vector * pace, apart)
                    if folded:
                        tile = unfolded(tile)
                    store(finished(tile, epilogue), out, to + vector * lanes, step)
            for other in range(vectors - last + first):
                vector = other if other < first else other + last - first
                x0 = min(vector * lanes, most)
                tile = filled(bias, b, rows, 1)
                tile = add_anywhere(tile, weights, w, addresses, x0 * stride[1], apart, masks, vector * across * lanes)
                if folded:
                    tile = unfolded(tile)
                store(finished(tile, epilogue), out, to + x0, step)
            done += rows

    return jit.specialised(compute, rows, kernel, stride, dense, activation, wide, within=True)


_ROWS_OF_PLANES = "aiiiaiiiaiiiiiiiiiiaaiiiiaa"
_compute_rows = calling(_ROWS_OF_PLANES)
_write_mask, _write_folded_mask = mask_of(1), mask_of(2, folded=True)


@cache
def _straight_rows(kernel: tuple[int, int], stride: tuple[int, int], dense: bool, activation: int) -> jit.Part:
    """Return the sums of rows of results, of planes that are read as they are."""
    products = kernel[0] * kernel[1]
    few, tall = products <= FEW, stride == (1, 1)
    form = kernel, stride, dense, activation
    one, several, many = (_over_image(n, *form, wide) for n, wide in ((1, False), (ROWS, few), (MANY, False)))

    def compute(  # type: ignore[no-untyped-def]
        out, at, to_plane, to_row, x, begin, next_plane, line, blank, top, jump, height, rows, columns, long, apart,
        left, span, width, masks, weights, f, end, first, multiplier, bias, epilogue,
    ):  # fmt: skip
        """Compute results of filters from ``f`` on, counted from ``first``, so many of each plane of the input."""
        wide = few and columns >= WIDE * lanes_of(out)
        while f < end:
            # A division takes as long as a vector of results.
            origin, k = begin + (f if multiplier == 1 else f // multiplier) * next_plane, first + f
            for residue in range(min(jump, rows)):
                count, done = rows if jump == 1 else -(-(rows - residue) // jump), 0
                to, y = at + f * to_plane + residue * to_row, top + residue * stride[0]
                if tall:  # noqa: SIM102 - what is behind a constant is left out, and not compiled
                    if count >= MANY and not wide:
                        done = min((count + MANY - 1 - ROWS) // MANY * MANY, count)  # few others are left for less
                        many(
                            out, to, jump * to_row, x, origin, line, blank, y, jump, height, 0, done,
                            columns, long, apart, left, span, width, masks, weights, k * products, bias, k, epilogue,
                        )  # fmt: skip
                if count >= ROWS:
                    several(
                        out, to, jump * to_row, x, origin, line, blank, y, jump, height, done, count, columns, long,
                        apart, left, span, width, masks, weights, k * products, bias, k, epilogue,
                    )  # fmt: skip
                else:
                    one(
                        out, to, jump * to_row, x, origin, line, blank, y, jump, height, done, count, columns, long,
                        apart, left, span, width, masks, weights, k * products, bias, k, epilogue,
                    )  # fmt: skip
            f += 1

    return jit.Part(compute, _ROWS_OF_PLANES, kernel, stride, dense, activation)


_FORM = "nannNnn"
_taken = taking(_FORM)


@jit.scratch_kernel(_FORM)
def _straight_block(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a rectangle of the result for some channels."""
    x_layout, epilogue, out_layout, grid, sizes, phases, parts = _taken(constants, x)
    task, horizontal = divmod(task, grid[4])
    task, vertical = divmod(task, grid[3])
    task, z = divmod(task, grid[2])
    n, part = divmod(task, grid[1])
    pace, before, span, share, (multiplier, _, at_once), (dilation, apart, size), (across, _, _) = triples(sizes, 0, 7)
    first = part * share[0]
    end = min(first + share[0], len(bias) // multiplier)
    row, column = vertical * share[1], horizontal * share[2]
    rows, columns = min(share[1], out_layout[HEIGHT] - row), min(share[2], out_layout[WIDTH] - column)
    height, width = x_layout[HEIGHT], x_layout[WIDTH]
    top, left = before[1] + row * pace[1], before[2] + column * pace[2]
    # The image's rows and columns that are met.
    upper, lower = max(top, 0), min(top + (rows - 1) * pace[1] + span[1], height)
    inner, outer = max(left, 0), min(left + (columns - 1) * pace[2] + span[2], width)
    lanes = lanes_of(x)
    # Rows of results are written where they belong. The last vector of a long row overlaps the one before; that of
    # a short one ends in the next row, which is written after it, and only the last plane takes a way around.
    lined = out_layout[PIXEL] == 1
    long = lined and columns >= lanes
    closed = lined and dilation == 1 and out_layout[ROW] == columns and out_layout[CHANNEL] == rows * columns >= lanes
    straight = end * multiplier if long else end * multiplier - 1 if closed else 0
    room = -(-columns // lanes) * lanes
    beyond = left + room * pace[2] + span[2]  # the columns that vectors read end there
    pitch = rows * room
    row_end = pace[2] * (room + 1) + span[2]
    blank, scratch = scratch, after(scratch, row_end)
    clear(blank, 0, row_end)
    masks, scratch = scratch, after(scratch, across * room)
    for vector in range(room // lanes):
        x0 = min(vector * lanes, columns - lanes) if long else vector * lanes
        for m in range(across):
            at, first_column = (vector * across + m) * lanes, left + x0 * pace[2] + m * apart
            if pace[2] == 1:
                _write_mask(masks, at, first_column, width)
            else:
                _write_folded_mask(masks, at, first_column, width)
    piece, result = scratch, after(scratch, at_once * size)
    begin = first
    while begin < end:
        number = min(at_once, end - begin)
        start = n * x_layout[IMAGE] + begin * x_layout[CHANNEL] + z * pace[0] * x_layout[PLANE]
        low = start + upper * x_layout[ROW] + left
        high = start + (number - 1) * x_layout[CHANNEL] + (lower - 1) * x_layout[ROW] + beyond
        as_it_is = x_layout[PIXEL] == 1 and low >= 0
        if as_it_is and high > len(x) and number > 1:  # the array's last plane, by itself
            number -= 1
            high -= x_layout[CHANNEL]
        if as_it_is and high <= len(x):
            numbers, origin, line, next_plane = x, start + left, x_layout[ROW], x_layout[CHANNEL]
        else:
            if x_layout[PIXEL] == 1 and low < 0:
                number = 1
            line = max(outer - inner, 0)
            margin = max(-before[2], 0)
            numbers, origin, next_plane = piece, margin + left - inner - upper * line, size
            if lower > upper and line > 0:
                load_planes(parts, piece, margin, size, x, x_layout, start, number, (0, upper, inner), 1, (1, 1, 1),
                            (1, lower - upper, line), phases, 1)  # fmt: skip
        k = begin * multiplier
        at = n * out_layout[IMAGE] + k * out_layout[CHANNEL] + z * out_layout[PLANE]
        at += row * out_layout[ROW] + column * out_layout[PIXEL]
        written = min(max(straight - k, 0), number * multiplier)
        if written > 0:
            _compute_rows(
                parts[OTHERS],
                (out, at, out_layout[CHANNEL], out_layout[ROW], numbers, origin, next_plane, line, blank, top, dilation,
                 height, rows, columns, np.int64(long), apart, left, span[2], width, masks, weights, 0, written, k,
                 multiplier, bias, epilogue),
            )  # fmt: skip
        if written < number * multiplier:
            _compute_rows(
                parts[OTHERS],
                (result, 0, pitch, room, numbers, origin, next_plane, line, blank, top, dilation, height,
                 rows, columns, np.int64(long), apart, left, span[2], width, masks, weights, written,
                 number * multiplier, k, multiplier, bias, epilogue),
            )  # fmt: skip
        at += written * out_layout[CHANNEL]
        unload_planes(parts, out, out_layout, at, number * multiplier - written, rows, columns, result, written * pitch,
                      pitch, room)  # fmt: skip
        begin += number


_RUNS_OF_PLANES = "aiiiiaiiiiiniiiaiiiiiaaa"
_compute_runs = calling(_RUNS_OF_PLANES)


@cache
def _down_runs(sums: Sums) -> jit.Part:
    """Return the sums that scroll down planes of a slab."""
    one = over_slab(sums, 1)
    several = one if sums.columns == 1 else over_slab(sums, sums.columns)

    def compute(  # type: ignore[no-untyped-def]
        out, at, to_plane, to_row, straight, piece, size, line, dilation, rows, columns, offsets, elements, full,
        apart, weights, f, end, first, multiplier, products, bias, epilogue, room,
    ):  # fmt: skip
        """Compute results of filters from ``f`` on, counted from ``first``, so many of each plane of the input.

        What is written ``straight`` into the result ends with its rows, but for rows that are shorter than a vector.
        """
        lanes = lanes_of(out)
        wide = sums.columns * lanes
        while f < end:
            w, k = (first + f) * products, first + f
            for residue in range(min(dilation, rows)):
                count = -(-(rows - residue) // dilation)
                source = f // multiplier * size + residue * line
                x0 = 0
                while x0 < columns:
                    many = columns - x0 > lanes and (columns >= wide or straight == 0)
                    if straight != 0:
                        x0 = min(x0, max(columns - (wide if many else lanes), 0))
                    to = at + f * to_plane + residue * to_row + x0
                    if many:
                        several(
                            out, to, dilation * to_row, piece, source + x0, dilation * line, count, offsets, elements,
                            full, apart, weights, w, bias, k, epilogue, room,
                        )  # fmt: skip
                        x0 += wide
                    else:
                        one(
                            out, to, dilation * to_row, piece, source + x0, dilation * line, count, offsets, elements,
                            full, apart, weights, w, bias, k, epilogue, room,
                        )  # fmt: skip
                        x0 += lanes
            f += 1

    return jit.Part(compute, _RUNS_OF_PLANES, *sums)


@jit.scratch_kernel(_FORM)
def _down_block(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a rectangle of the result for some channels."""
    x_layout, epilogue, out_layout, grid, sizes, offsets, parts = _taken(constants, x)
    task, horizontal = divmod(task, grid[4])
    task, vertical = divmod(task, grid[3])
    task, z = divmod(task, grid[2])
    n, part = divmod(task, grid[1])
    stride, (depth_step, down, across), before, window, share, (multiplier, products, full), others, more = triples(
        sizes, 0, 8
    )
    dilation, gap, apart = others[0], others[2], more[0]
    room, scratch = scratch, after(scratch, more[1])
    first = part * share[0]
    together = min(share[0], len(bias) // multiplier - first)
    row, column = vertical * share[1], horizontal * share[2]
    rows, columns = min(share[1], out_layout[HEIGHT] - row), min(share[2], out_layout[WIDTH] - column)
    elements = (len(offsets) - down - across) // 2
    phases = after(offsets, 2 * elements)
    plane = window[1] * window[2]
    size = window[0] * down * across * plane
    lanes = lanes_of(x)
    wide = more[2] * lanes
    # Rows of results are written where they belong. The last vector of a long row overlaps the one before; that of
    # a short one ends in the next row, which is written after it, and only the last plane takes a way around.
    lined = out_layout[PIXEL] == 1
    long = lined and columns >= lanes
    closed = lined and dilation == 1 and out_layout[ROW] == columns and out_layout[CHANNEL] == rows * columns >= lanes
    at_once = others[1] if x_layout[CHANNEL] != 1 and (lined or out_layout[CHANNEL] != 1) else max(others[1], BLOCK)
    at_once = min(at_once, together)
    piece, result = after(scratch, gap), after(scratch, at_once * size + wide)
    width = -(-columns // wide) * wide
    pitch = rows * width
    clear(piece, 0, at_once * size)  # once: padding is the same for all
    for begin in range(first, first + together, at_once):
        number = min(at_once, first + together - begin)
        start = n * x_layout[IMAGE] + begin * x_layout[CHANNEL]
        origin = (before[0] + z * stride[0], before[1] + row * stride[1], before[2] + column * stride[2])
        load_planes(parts, piece, 0, plane, x, x_layout, start, number, origin, depth_step, stride, window,
                    phases, down)  # fmt: skip
        k = begin * multiplier
        at = n * out_layout[IMAGE] + k * out_layout[CHANNEL] + z * out_layout[PLANE]
        at += row * out_layout[ROW] + column * out_layout[PIXEL]
        straight = number * multiplier if long else number * multiplier - 1 if closed else 0
        if straight > 0:
            _compute_runs(
                parts[OTHERS],
                (out, at, out_layout[CHANNEL], out_layout[ROW], 1, piece, size, window[2], dilation, rows, columns,
                 offsets, elements, full, apart, weights, 0, straight, k, multiplier, products, bias,
                 epilogue, room),
            )  # fmt: skip
        if straight < number * multiplier:
            _compute_runs(
                parts[OTHERS],
                (result, 0, pitch, width, 0, piece, size, window[2], dilation, rows, columns,
                 offsets, elements, full, apart, weights, straight, number * multiplier, k, multiplier, products, bias,
                 epilogue, room),
            )  # fmt: skip
        at += straight * out_layout[CHANNEL]
        unload_planes(parts, out, out_layout, at, number * multiplier - straight, rows, columns, result,
                      straight * pitch, pitch, width)  # fmt: skip

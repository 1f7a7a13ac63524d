"""The direct sum where each filter meets one channel: sums that scroll over the input.

No number of the input is shared between filters, so that loads, not products, are what a depthwise convolution has to
save. A register tile holds the unfinished results of one run, each a few vectors wide, that one step of the input
reaches: three in a 3 × 3 kernel. A step loads its part of the input once, adds its products to all of them, writes the
oldest, which is finished, and moves the others up. With a stride, a step is so much longer and reaches fewer results:
two of them in a 3 × 3 kernel of stride 2, the elder by the first row of the step alone.

Where the pixels of a row lie side by side, vectors are of pixels and sums scroll down the image. Where the channels do,
in input and result, vectors are of channels and sums scroll along the rows. Both read a slab, which has the padding.

A task is a rectangle of the result, for some channels, or for all where they are last.

Zhang, Lo and Lu, *High performance depthwise and pointwise convolutions on mobile devices* (2020), §3, keep rows of the
input in registers for the results that they reach; keeping the results instead needs no loads beyond the first.
"""

from __future__ import annotations

import itertools
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import blocking, jit, planes
from npconv.kernels.numba.slab import clear, load, load_planes, unload_planes
from npconv.kernels.numba.vector import (
    BLOCK,
    VECTOR_BYTES,
    activated,
    add,
    add_column,
    add_row,
    lanes_of,
    multiply_add,
    multiply_add_rows,
    scrolled,
    starts_from,
    store,
    top,
    zeros,
)  # fmt: skip
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

REGISTERS = 32 if VECTOR_BYTES == 64 else 16

FEW = 9
"""Elements of a kernel that is compiled for itself."""

LOADED = 2**14
"""Bytes of small planes that are loaded at once: half of a first-level cache."""

PIXELS = 16384
"""Pixels of a task, if the cache has room for what they need."""


class Sums(NamedTuple):
    """What a kernel is compiled for: the rows and columns of its tile, and more."""

    rows: int
    columns: int
    chained: bool
    """Whether the products of a step are a chain of their own."""

    full: int
    elements: int
    """How many elements of a step all rows meet, and how many there are; 0 if it is told at each call.

    To know a few of them saves a third of the time, as the loop over them becomes one block. To know many costs a half:
    LLVM then loads them all at once, more than there are registers.
    """


class Way(NamedTuple):
    """A problem's numbers in one memory order, as its kernel takes them."""

    tasks: int
    scratch: tuple[int, np.dtype[Any]]
    sums: Sums
    grid: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray


class Plan(NamedTuple):
    """A problem's numbers in both memory orders."""

    work: int
    down: Way
    along: Way | None


def _elements(problem: ConvProblem, axis: int) -> list[list[tuple[int, ...]]]:
    """Return what a step along an axis meets: for each of its elements the taps, that of the oldest result first."""
    kernel, stride = problem.kernel_size, problem.stride[axis]
    rows = -(-kernel[axis] // stride)
    others = [range(1 if k == axis else kernel[k]) for k in range(3)]
    elements = []
    for first in range(min(stride, kernel[axis])):
        taps = [tap for tap in range(first + (rows - 1) * stride, -1, -stride) if tap < kernel[axis]]
        for tap in itertools.product(*others):
            elements.append([tuple(along if k == axis else tap[k] for k in range(3)) for along in taps])
    return elements


def _sums(problem: ConvProblem, axis: int) -> Sums:
    """Return the tile for sums that scroll along an axis."""
    rows = -(-problem.kernel_size[axis] // problem.stride[axis])
    chained = problem.products > chain_length(problem.products)
    room = (REGISTERS - 2) // (rows * (1 + chained) + 1)
    elements = _elements(problem, axis) if problem.products <= FEW else []
    return Sums(rows, 1 if room < 2 else 2 if rows > 1 else 4, chained, _full(elements, rows), len(elements))


def _full(elements: list[list[tuple[int, ...]]], rows: int) -> int:
    """Return how many elements of a step meet all rows of a tile; these come first."""
    return sum(len(element) == rows for element in elements)


def _lanes(problem: ConvProblem) -> int:
    return VECTOR_BYTES // problem.compute_dtype.itemsize


def _firsts(problem: ConvProblem) -> list[int]:
    """Return the first channel of each block that sums along rows take, the last of which may overlap."""
    block = _sums(problem, 2).columns * _lanes(problem)
    channels = problem.in_channels
    if problem.out_channels != channels or channels < block:
        return []
    return [min(c, channels - block) for c in range(0, channels, block)]


def pack(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """Return filters (K, 1, kd, kh, kw) in the order of the sums that scroll down, then of those along the rows."""
    order = _order(problem.canonical_form())
    packed = jit.aligned(len(order) * weight.itemsize).view(weight.dtype)
    return np.take(np.ascontiguousarray(weight).reshape(-1), order, out=packed, mode="clip")  # the default copies out


@lru_cache
def _order(problem: ConvProblem) -> np.ndarray:
    """Return the places of the weight's numbers in the order in which they are packed."""
    shape = problem.canonical_form().weight_shape

    def taps(axis: int, filters: list[int] | range) -> np.ndarray:
        at = np.array([tap for element in _elements(problem, axis) for tap in element]).T
        return np.ravel_multi_index((np.array(filters)[:, None], 0, *at), shape)

    block = _sums(problem, 2).columns * _lanes(problem)
    order = [taps(1, range(problem.out_channels)).ravel()]
    order.append(np.zeros(_beyond(problem) - order[0].size, np.int64))
    order += [taps(2, range(first, first + block)).T.ravel() for first in _firsts(problem)]
    return np.concatenate(order)


def _beyond(problem: ConvProblem) -> int:
    """Return where the packed filters for sums along the rows begin: with a line of the cache."""
    line = jit.LINE // problem.compute_dtype.itemsize
    return -(-problem.out_channels * problem.products // line) * line


pack_bias = planes.pack_bias


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks, for both memory orders."""
    return Plan(problem.flops // 20, _down(problem, threads), _along(problem, threads) if _firsts(problem) else None)


def _down(problem: ConvProblem, threads: int) -> Way:
    sums, lanes = _sums(problem, 1), _lanes(problem)
    kernel, dilation, stride = problem.kernel_size, problem.dilation, problem.stride
    depth, height, width = problem.output_size
    multiplier = problem.out_channels // problem.in_channels
    phases = [sorted({tap * dilation[axis] % stride[axis] for tap in range(kernel[axis])}) for axis in (1, 2)]
    beyond = [(problem.span[axis] - 1) // stride[axis] for axis in (1, 2)]
    each = kernel[0] * len(phases[0]) * len(phases[1])
    wanted = 1 if threads == 1 else blocking.TASKS_PER_THREAD * threads
    share = problem.batch * problem.in_channels * depth // wanted
    together = min(max(min(PIXELS // (height * width), share), 1), problem.in_channels)
    parts = -(-problem.in_channels // together)
    pixels = PIXELS
    while True:
        block = blocking.blocks(height, width, pixels, problem.batch * parts * depth, 1, threads)
        rows, columns = block.rows + beyond[0], -(-(block.columns + beyond[1]) // lanes) * lanes
        if pixels <= 64 or each * rows * columns * problem.compute_dtype.itemsize <= blocking.CACHE // 4:
            break
        pixels = pixels * 3 // 4
    grid = (problem.batch, parts, depth, -(-height // block.rows), -(-width // block.columns))
    before = tuple(-pad for pad, _ in problem.padding)
    elements = _elements(problem, 1)
    full = _full(elements, sums.rows)
    plane = rows * columns
    at_once = max(LOADED // (each * plane * problem.compute_dtype.itemsize), 1)
    gap = before[2] % lanes if stride[2] == 1 else 0  # so that a row of the image begins with a line of the cache
    sizes = np.array(
        [stride, (dilation[0], len(phases[0]), len(phases[1])), before, (kernel[0], rows, columns),
         (together, *block[:2]), (multiplier, problem.products, full),
         (dilation[1] if kernel[1] > 1 else 1, at_once, gap)]
    )  # fmt: skip
    offsets = [
        ((i * len(phases[0]) + phases[0].index(j % stride[1])) * len(phases[1])
         + phases[1].index(m * dilation[2] % stride[2])) * plane + m * dilation[2] // stride[2]
        for i, j, m in (element[-1] for element in elements)
    ]  # fmt: skip
    wide = sums.columns * lanes
    most = min(max(at_once, BLOCK), together)
    scratch = most * (each * plane + multiplier * block.rows * -(-block.columns // wide) * wide) + 2 * wide
    return Way(
        int(np.prod(grid)), (scratch, problem.compute_dtype), sums, np.array(grid), sizes,
        np.array(offsets + phases[0] + phases[1]),
    )  # fmt: skip


def _along(problem: ConvProblem, threads: int) -> Way:
    sums = _sums(problem, 2)
    wide = sums.columns * _lanes(problem)
    kernel, dilation, stride = problem.kernel_size, problem.dilation, problem.stride
    depth, height, width = problem.output_size
    pixels = PIXELS
    while True:
        block = blocking.blocks(height, width, pixels, problem.batch * depth, 1, threads)
        rows = (block.rows - 1) * stride[1] + problem.span[1]
        steps = block.columns + (sums.rows - 1) * dilation[2]
        columns = steps * stride[2]  # whole steps, also where the last ones have elements that no result meets
        size = kernel[0] * rows * columns * wide
        if pixels <= 16 or size * problem.compute_dtype.itemsize <= blocking.CACHE // 2:
            break
        pixels = pixels * 3 // 4
    grid = (problem.batch, depth, -(-height // block.rows), -(-width // block.columns))
    before = tuple(-pad for pad, _ in problem.padding)
    elements = _elements(problem, 2)
    full = _full(elements, sums.rows)
    sizes = np.array(
        [stride, (dilation[0], 1, 1), before, (kernel[0], rows, columns), (0, *block[:2]),
         (problem.in_channels, problem.products, full), (dilation[2] if kernel[2] > 1 else 1, _beyond(problem), 0)]
    )  # fmt: skip
    offsets = [((i * rows + j * dilation[1]) * columns + m) * wide for i, j, m in (element[-1] for element in elements)]
    return Way(int(np.prod(grid)), (size, problem.compute_dtype), sums, np.array(grid), sizes, np.array(offsets))


def conv(
    plan: Plan, x: np.ndarray, x_layout: np.ndarray, weights: np.ndarray, bias: np.ndarray, epilogue: np.ndarray,
    out: np.ndarray, out_layout: np.ndarray,
) -> None:  # fmt: skip
    """Fill ``out``."""
    way, kernel = plan.down, _down_kernel
    if plan.along is not None and x_layout[1] == out_layout[1] == 1:
        way, kernel = plan.along, _along_kernel
    kernel(way.sums).run(
        way.tasks, plan.work, x, x_layout, weights, bias, epilogue, out, out_layout, way.grid, way.sizes, way.offsets,
        scratch=way.scratch,
    )  # fmt: skip


def _scrolling(sums: Sums, columns: int, channels: bool) -> Any:
    """Return the sums of one run of results, ``columns`` vectors wide, of channels or of pixels."""
    rows, _, chained, known_full, known_elements = sums
    known, fewer = known_elements > 0, max(rows - 1, 1)

    def scroll(out, at, step, piece, begin, pace, count, offsets, elements, full, weights, w, bias, b, epilogue):  # type: ignore[no-untyped-def]
        if known:
            full, elements = known_full, known_elements
        size = columns * lanes_of(out) if channels else 1
        every, newer = starts_from(0, size, rows), starts_from(0, size, fewer)
        tile = zeros(out, rows, columns)
        total = tile
        for k in range(1 - rows, count):
            i = w
            for element in range(full):
                if channels:
                    tile = multiply_add_rows(tile, weights, every, i, piece, begin + offsets[element])
                else:
                    tile = multiply_add(tile, weights, every, i, piece, begin + offsets[element])
                i += rows * size
            for element in range(full, elements):
                if channels:
                    tile = multiply_add_rows(tile, weights, newer, i, piece, begin + offsets[element])
                else:
                    tile = multiply_add(tile, weights, newer, i, piece, begin + offsets[element])
                i += fewer * size
            if chained:
                total = add(total, tile)
                tile = zeros(out, rows, columns)
            else:
                total = tile
            if k >= 0:
                done = add_row(top(total), bias, b) if channels else add_column(top(total), bias, b)
                if epilogue[0] != 0:
                    done = activated(done, epilogue)
                store(done, out, at, 0)
                at += step
            total = scrolled(total)
            if not chained:
                tile = total
            begin += pace

    return jit.specialised(scroll, *sums, columns, channels, within=True)


@cache
def _down_kernel(sums: Sums) -> jit.Kernel:
    """Return the kernel for planes."""
    one = _scrolling(sums, 1, False)
    several = one if sums.columns == 1 else _scrolling(sums, sums.columns, False)

    def block(task, scratch, x, x_layout, weights, bias, epilogue, out, out_layout, grid, sizes, offsets):  # type: ignore[no-untyped-def]
        """Compute a rectangle of the result for some channels."""
        task, horizontal = divmod(task, grid[4])
        task, vertical = divmod(task, grid[3])
        task, z = divmod(task, grid[2])
        n, part = divmod(task, grid[1])
        stride, (depth_step, down, across), before, window, share, (multiplier, products, full), others = sizes
        dilation, gap = others[0], others[2]
        first = part * share[0]
        together = min(share[0], len(bias) // multiplier - first)
        row, column = vertical * share[1], horizontal * share[2]
        rows, columns = min(share[1], out_layout[6] - row), min(share[2], out_layout[7] - column)
        elements = len(offsets) - down - across
        phases = offsets[elements:]
        plane = window[1] * window[2]
        size = window[0] * down * across * plane
        lanes = lanes_of(x)
        wide = sums.columns * lanes
        # Rows of results are written where they belong. The last vector of a long row overlaps the one before; that of
        # a short one ends in the next row, which is written after it, and only the last plane takes a way around.
        lined = out_layout[4] == 1
        long = lined and columns >= lanes
        closed = lined and dilation == 1 and out_layout[3] == columns and out_layout[1] == rows * columns >= lanes
        at_once = others[1] if x_layout[1] != 1 and (lined or out_layout[1] != 1) else max(others[1], BLOCK)
        at_once = min(at_once, together)
        piece, result = scratch[gap : at_once * size + wide], scratch[at_once * size + wide :]
        width = -(-columns // wide) * wide
        pitch = rows * width
        clear(piece, np.int64(0), at_once * size)  # once: padding is the same for all
        for begin in range(first, first + together, at_once):
            number = min(at_once, first + together - begin)
            start = n * x_layout[0] + begin * x_layout[1]
            origin = (before[0] + z * stride[0], before[1] + row * stride[1], before[2] + column * stride[2])
            load_planes(
                piece, np.int64(0), plane, x, x_layout, start, number, origin, depth_step, stride, window, phases, down
            )
            k = begin * multiplier
            at = n * out_layout[0] + k * out_layout[1] + z * out_layout[2]
            at += row * out_layout[3] + column * out_layout[4]
            straight = number * multiplier if long else number * multiplier - 1 if closed else 0
            for f in range(number * multiplier):
                for residue in range(min(dilation, rows)):
                    count = -(-(rows - residue) // dilation)
                    source = f // multiplier * size + residue * window[2]
                    x0 = np.int64(0)
                    while x0 < columns:
                        many = columns - x0 > lanes and (columns >= wide or f >= straight)
                        if f < straight:
                            x0 = min(x0, max(columns - (wide if many else lanes), np.int64(0)))
                            target, to = out, at + f * out_layout[1] + residue * out_layout[3] + x0
                            step = dilation * out_layout[3]
                        else:
                            target, to = result, f * pitch + residue * width + x0
                            step = dilation * width
                        if many:
                            several(target, to, step, piece, source + x0, dilation * window[2], count, offsets,
                                    elements, full, weights, (k + f) * products, bias, k + f, epilogue)  # fmt: skip
                            x0 += wide
                        else:
                            one(target, to, step, piece, source + x0, dilation * window[2], count, offsets,
                                elements, full, weights, (k + f) * products, bias, k + f, epilogue)  # fmt: skip
                            x0 += lanes
            at += straight * out_layout[1]
            unload_planes(out, out_layout, at, number * multiplier - straight, rows, columns, result, straight * pitch,
                          pitch, width)  # fmt: skip

    block.__qualname__ = f"_down{'-'.join(map(str, sums))}"
    return jit.scratch_kernel(block)


@cache
def _along_kernel(sums: Sums) -> jit.Kernel:
    """Return the kernel for channels that lie side by side."""
    scroll = _scrolling(sums, sums.columns, True)

    def block(task, piece, x, x_layout, weights, bias, epilogue, out, out_layout, grid, sizes, offsets):  # type: ignore[no-untyped-def]
        """Compute a rectangle of the result for all channels."""
        task, horizontal = divmod(task, grid[3])
        task, vertical = divmod(task, grid[2])
        n, z = divmod(task, grid[1])
        stride, step, before, window, share, (channels, products, full), (dilation, beyond, _) = sizes
        row, column = vertical * share[1], horizontal * share[2]
        rows, columns = min(share[1], out_layout[6] - row), min(share[2], out_layout[7] - column)
        origin = (before[0] + z * stride[0], before[1] + row * stride[1], before[2] + column * stride[2])
        wide = sums.columns * lanes_of(x)
        w = beyond
        for c in range(0, channels, wide):
            c = min(c, channels - wide)
            load(piece, np.int64(0), x, x_layout, n * x_layout[0] + c, wide, origin, step, window)
            for y in range(rows):
                for residue in range(min(dilation, columns)):
                    at = n * out_layout[0] + c + z * out_layout[2]
                    at += (row + y) * out_layout[3] + (column + residue) * out_layout[4]
                    begin = (y * stride[1] * window[2] + residue) * wide
                    scroll(out, at, dilation * out_layout[4], piece, begin, stride[2] * dilation * wide,
                           -(-(columns - residue) // dilation), offsets, len(offsets), full, weights, w, bias, c,
                           epilogue)  # fmt: skip
            w += products * wide

    block.__qualname__ = f"_along{'-'.join(map(str, sums))}"
    return jit.scratch_kernel(block)

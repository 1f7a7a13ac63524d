"""Strassen's algorithm with filters in the vectors: of pixels as they come, whose channels lie side by side.

The quarters are halves of the pixels of a task, of the channels, and of the panels of filters. Sums of the filters are
packed as panels, once. A task loads its slab some channels at a time, makes the sums of the pixels, and for each pair
of panels adds up seven products, which stay in the first-level cache until they are combined. Where channels do not lie
side by side, pixels and results are transposed, which takes 8 % of the time: pixels are better in the vectors then, if
they fill these (`npconv.kernels.numba.strassen_planes`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, HEIGHT, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import blocking, buffers, jit, product, slab
from npconv.kernels.numba.blocking import SPARE
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, max, min, table, triples, tuple_of
from npconv.kernels.numba.moves import BLOCK
from npconv.kernels.numba.product import multiply_whole, width_of
from npconv.kernels.numba.quarters import sums_of_filters, sums_of_pixels
from npconv.kernels.numba.tile import COLUMNS, LEAST_ROWS
from npconv.kernels.numba.vector import activated, add, add_row, load, store
from npconv.problem import ConvProblem

CHAIN = 64
"""Channels that are summed up in one chain, and loaded at a time. Chains of 128 took as long and lost twice as much
where each addition loses what it can. Chains of 32 that go on in a tile's registers, as those of direct sums do, lost
half as much and took 1 % longer for 1024 channels and 5 % for 256."""

ROOM = 2**21
"""Bytes of the sums of a task's pixels, at most."""

LOAD = 0.8
"""How long it takes to load a pixel and make its sums, in products with a pair of panels."""

BEGIN = 5
"""How long it takes to begin with a pair of panels, in products of a pixel with it."""


class Weights(NamedTuple):
    """Panels of the sums of filters, and what the channels are multiplied with: the scale of each, and its negative."""

    numbers: np.ndarray
    scale: np.ndarray


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    in_turns: bool
    sizes: np.ndarray


def pack(problem: ConvProblem, weight: np.ndarray) -> Weights:
    """Return filters (K, C, 1, 1, 1) as panels of their sums, seven for each pair of panels."""
    dtype, wide = problem.compute_dtype, product.width(problem.compute_dtype)
    filters, channels = weight.shape[:2]
    half, panels = channels // 2, -(-filters // wide)
    pairs = -(-panels // 2)
    single = product.pack(problem, weight)
    with np.errstate(all="ignore"):  # NaN and infinities spread
        largest = np.abs(single).reshape(panels, -1).max(axis=0).reshape(channels, wide).max(axis=1)
        exponents = np.where(np.isfinite(largest), np.frexp(largest)[1] - 1, 0)
        scale = np.ldexp((largest != 0).astype(dtype), exponents)
        factors = np.ldexp(np.ones(channels, dtype), -exponents)
        if not np.isfinite(factors).all():  # the smallest numbers there are
            single = product.pack(problem, np.ldexp(weight, -exponents.reshape(-1, 1, 1, 1)))
            factors = np.ones(channels, dtype)
    sums = buffers.aligned(pairs * 7 * half * wide * dtype.itemsize).view(dtype)
    parts = -(-half // AT_ONCE)
    sizes = np.array([channels, panels, pairs, parts])
    _sum_filters.run(
        pairs * parts, sums.size // product.WORTH, single, np.concatenate([factors, -factors]), sums, sizes
    )
    return Weights(sums, np.concatenate([scale, -scale]))


AT_ONCE = 64
"""Channels of a task that packs."""


_sum_up_filters = sums_of_filters(COLUMNS, along_channels=False)
_sum_up_pixels = sums_of_pixels(COLUMNS, along_channels=True)


@jit.Kernel
def _sum_filters(task, panels, factors, sums, sizes):  # type: ignore[no-untyped-def]
    """Make the sums of some channels of a pair of panels. Of an odd number, the one in the middle is in both halves."""
    channels, number, pairs, parts = tuple_of(sizes, 0, 4)
    pair, part = divmod(task, parts)
    half, wide = channels // 2, width_of(sums)
    for c in range(part * AT_ONCE, min((part + 1) * AT_ONCE, half)):
        left, right, to = pair * channels + c, (number - pairs + pair) * channels + c, (pair * 7 * half + c) * wide
        # Behind all of the factors are the negative ones.
        _sum_up_filters(
            sums, to, half * wide, panels, left * wide, (left + half) * wide, right * wide, (right + half) * wide,
            factors, c, c + half, channels,
        )  # fmt: skip


pack_bias = product.panel_bias


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    dtype = problem.compute_dtype
    channels, filters, wide = problem.in_channels, problem.out_channels, product.width(dtype)
    half = channels // 2
    depth, height, width = problem.output_size
    panels = -(-filters // wide)
    pairs = -(-panels // 2)
    pixels = min(blocking.PIXELS_OF_QUARTERS, max(ROOM // (7 * half * dtype.itemsize // 2), 1))
    block = blocking.lined(height, width, pixels, problem.batch * depth, pairs, threads, LOAD, BEGIN)
    down, across = -(-height // block.rows), -(-width // block.columns)
    grid = (problem.batch, -(-pairs // block.panels), depth, down * across, across)
    before = tuple(-pad for pad, _ in problem.padding)
    parts = -(-half // CHAIN)
    sizes = np.array(
        [problem.stride, before, (block.panels, *block[:2]), (channels, filters, parts),
         (not any(map(any, problem.padding)), 0, 0)]
    )  # fmt: skip
    pixels = -(-block.rows * block.columns // 2)
    share = -(-half // parts)
    scratch = 4 * pixels * share + 7 * pixels * half + LEAST_ROWS * share + (11 * pixels + SPARE) * wide
    scratch += 3 * buffers.LINE // dtype.itemsize
    return Plan(
        int(np.prod(grid[:4])), problem.flops // 40, (scratch, dtype), np.array(grid),
        blocking.in_turns(block, height, width, problem.batch * depth, pairs, threads), sizes,
    )  # fmt: skip


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    _, _, stride = plan.sizes[0]
    load = slab.loads(x_layout, stride, BLOCK)
    parts = slab.parts_of(epilogue.dtype, load, slab.unloads(out_layout))
    constants = x_layout, epilogue, out_layout, plan.grid, plan.sizes, parts
    run = _block.fixed(plan.tasks, plan.work, threads, constants, plan.scratch, plan.in_turns)
    return lambda x, weights, bias, out: run(x, *weights, bias, out)


@jit.inline
def _sum_up(sums, at, numbers, starts, size, begin, other, half, share, scale, c, to_second):  # type: ignore[no-untyped-def]
    """Make the sums of pixels, of some channels of both halves.

    The first channel is ``c``, or ``to_second`` more in the second half. A pixel's are ``begin`` behind ``size`` times
    its start, and in the second half ``other`` more.
    """
    wide = width_of(sums)
    for pixel in range(half):
        upper, lower = begin + starts[pixel] * size, begin + starts[pixel + half] * size
        for k in range(0, share, wide):
            k = min(k, share - wide)
            _sum_up_pixels(
                sums, at + pixel * share + k, half * share, numbers, upper + k, upper + other + k, lower + k,
                lower + other + k, scale, c + k, c + k + to_second, 2 * to_second,
            )  # fmt: skip


@jit.inline
def _finish(tile, result, at, bias, b, epilogue):  # type: ignore[no-untyped-def]
    """Write a sum with its bias and activation."""
    tile = add_row(tile, bias, b)
    if epilogue[0] != 0:
        tile = activated(tile, epilogue)
    store(tile, result, at, width_of(result))


@jit.inline
def _combine(result, first, second, pitch, last, products, half, bias, b, other, epilogue):  # type: ignore[no-untyped-def]
    """Add up products to two panels of a result, from ``result[first]`` and ``result[second]`` on, and finish them.

    Pixels are ``pitch`` apart, and the ``last`` one is written in the place of those beyond it. The panels' biases
    begin at ``bias[b]`` and ``bias[other]``.
    """
    wide = width_of(result)
    step = half * wide
    for pixel in range(half):
        at, upper, lower = pixel * wide, pixel * pitch, min(pixel + half, last) * pitch
        one = load(products, at, 1, COLUMNS)
        _finish(add(one, load(products, at + step, 1, COLUMNS)), result, first + upper, bias, b, epilogue)
        u = add(one, load(products, at + 2 * step, 1, COLUMNS))
        v = add(u, load(products, at + 3 * step, 1, COLUMNS))
        _finish(add(v, load(products, at + 4 * step, 1, COLUMNS)), result, first + lower, bias, b, epilogue)
        five = load(products, at + 5 * step, 1, COLUMNS)
        total = add(add(u, five), load(products, at + 6 * step, 1, COLUMNS))
        _finish(total, result, second + upper, bias, other, epilogue)
        _finish(add(v, five), result, second + lower, bias, other, epilogue)


_FORM = "nannNn"
_taken = taking(_FORM)


@jit.scratch_kernel(_FORM)
@jit.makes_arrays
def _block(task, memory, x, weights, scale, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a rectangle of the result for some pairs of panels."""
    x_layout, epilogue, out_layout, grid, sizes, slabs = _taken(constants, x)
    task, place = divmod(task, grid[3])
    vertical, horizontal = divmod(place, grid[4])
    task, z = divmod(task, grid[2])
    image, part = divmod(task, grid[1])
    stride, before, block, (channels, filters, parts), (whole, _, _) = triples(sizes, 0, 5)
    row, column = vertical * block[1], horizontal * block[2]
    rows, columns = min(block[1], out_layout[HEIGHT] - row), min(block[2], out_layout[WIDTH] - column)
    origin = (before[0] + z * stride[0], before[1] + row * stride[1], before[2] + column * stride[2])
    wide, to_second, pixels = width_of(out), channels // 2, rows * columns
    half = (pixels + 1) // 2
    # One array behind the other; each begins with a line of the cache.
    line, share = buffers.LINE // x.itemsize, -(-to_second // parts)
    second = (4 * half * share + line - 1) // line * line
    third = second + (7 * half * to_second + LEAST_ROWS * share + line - 1) // line * line
    fourth = third + (7 * half + SPARE) * wide
    piece, sums, products, result = memory, after(memory, second), after(memory, third), after(memory, fourth)
    # Pixels without padding, their channels side by side, are read where they are. The last one may be there twice.
    in_place = whole > 0 and x_layout[CHANNEL] == 1
    starts = table(2 * half)
    for pixel in range(2 * half):
        i, j = divmod(min(pixel, pixels - 1), columns)
        starts[pixel] = i * stride[1] * x_layout[ROW] + j * stride[2] * x_layout[PIXEL] if in_place else i * columns + j
    for chain in range(parts):
        first = to_second * chain // parts
        count = to_second * (chain + 1) // parts - first
        start = image * x_layout[IMAGE] + first * x_layout[CHANNEL]
        if in_place:
            start += origin[0] * x_layout[PLANE] + origin[1] * x_layout[ROW] + origin[2] * x_layout[PIXEL]
            _sum_up(sums, 7 * half * first, x, starts, 1, start, to_second, half, count, scale, first, to_second)
            continue
        for side in range(2):
            start += side * to_second * x_layout[CHANNEL]
            to = side * pixels * count
            slab.load(slabs, piece, to, count, x, x_layout, start, count, origin, stride, (1, rows, columns))
        other = pixels * count
        _sum_up(sums, 7 * half * first, piece, starts, count, 0, other, half, count, scale, first, to_second)
    # Filters that lie side by side, of pixels that do, are written where they belong.
    straight = out_layout[CHANNEL] == 1 and (rows == 1 or out_layout[ROW] == columns * out_layout[PIXEL])
    panels = -(-filters // wide)
    pairs = (panels + 1) // 2
    begin = part * block[0]
    number = min(block[0], pairs - begin)
    for step in range(number):
        # Rectangles of one plane share lines of the cache where they meet, which two threads that write to them at a
        # time take from each other again and again. So they do not begin with the same pair: 256 → 1024 channels at 14²
        # take 430 µs in two threads, and took 445 to 570.
        pair = begin + (step + place * number // grid[3]) % number
        for n in range(7):
            for chain in range(parts):
                first = to_second * chain // parts
                count = to_second * (chain + 1) // parts - first
                # What a tile spills over, the next products are written to.
                multiply_whole(
                    products, n * half, sums, (7 * first + n * count) * half, count, 1, half, weights,
                    ((pair * 7 + n) * to_second + first) * wide, count, chain == 0,
                )  # fmt: skip
        other = panels - pairs + pair
        alone = other < pairs  # the second one is the panel in the middle, another pair's first
        at = image * out_layout[IMAGE] + z * out_layout[PLANE] + row * out_layout[ROW] + column * out_layout[PIXEL]
        k, m = pair * wide, other * wide
        if straight and not alone and m + wide <= filters:
            _combine(out, at + k, at + m, out_layout[PIXEL], pixels - 1, products, half, bias, k, m, epilogue)
            continue
        second = 2 * half * wide
        _combine(result, 0, second, wide, 2 * half - 1, products, half, bias, k, m, epilogue)
        for side in range(1 if alone else 2):
            slab.unload(
                slabs, out, at + (m if side else k) * out_layout[CHANNEL], out_layout[CHANNEL], out_layout[ROW],
                out_layout[PIXEL], min(wide, filters - (m if side else k)), rows, columns, result, side * second,
                columns,
            )  # fmt: skip

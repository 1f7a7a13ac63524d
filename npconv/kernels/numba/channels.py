"""Sums of one channel a group where the channels of the input lie side by side: vectors are of channels.

A tile holds some results of a row, a line of the cache of each. Every line of the kernel brings a row of taps, whose
weights stay in registers while the pixels that it meets pass by: each is loaded once and goes to all results that it
reaches. Rows of taps that are too wide, or a greater stride, are taken tap by tap, one load a product, by a kernel that
serves all of them. Pixels beyond the image are zeros, for which nothing is read: tiles that reach there have a branch
for each pixel. All channels of a tile's pixels come before the next tile, since they lie side by side.

Results of any memory order are written, rows at a time; where their pixels lie side by side, in transposed blocks. A
task is a rectangle of the result for all channels.

Images of any memory order are computed so, too, where that is faster than with pixels in the vectors: a task then puts
some channels of some rows side by side first, and their results in their places last.

For a 3 × 3 kernel this takes 7 to 10 cycles for a vector of results, of which products take 4.5. Rejected: sums that
scroll along the row, three unfinished results and nine weights in registers, 13 to 40 cycles; 8 results and half a line
of the cache of each, as fast but for powers of 2, whose pixels take each other's place in the cache (512 channels at
14²: 103 µs instead of 58 on one core); 5 results, 20 % slower; the lines of a 3 × 3 kernel in one block of code, 15 %
faster where whole tiles are the most and as fast at 14²; channels that stay in the first-level cache from row to row, 8
at a time: 1.8 times as long; 16 at a time for 7 × 7 taps, 1.2 to 1.7 times; two rows of four results, by a table of
their pixels' addresses, with zeros for those beyond the image, and no branch: 2 to 18 % less for 3 × 3 taps, as long or
a fifth longer where much is read (512 channels at 56²), at a stride of 2, and for larger kernels; 16 to 64 channels of
an image put side by side first, as those of other memory orders are, 1.2 to 2 times as long, for 7 × 7 taps on one core
as long. (In C, 7 × 7 taps with a padded image take 32 cycles in this way, and no less with weights one by one and 6 to
14 results.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, HEIGHT, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import blocking, buffers, jit
from npconv.kernels.numba.calls import calling, taking
from npconv.kernels.numba.lean import after, max, min, table, triples, tuple_of
from npconv.kernels.numba.moves import BLOCK, move, transpose
from npconv.kernels.numba.slab import load_line, unload_line
from npconv.kernels.numba.stores import store_some
from npconv.kernels.numba.taps import products_of_pixels
from npconv.kernels.numba.tile import REGISTERS, VECTOR_BYTES
from npconv.kernels.numba.vector import activated, add, add_row, lanes_of, zeros
from npconv.kernels.summation import chain_length
from npconv.loading import once
from npconv.problem import ConvProblem

SUMS = 8
"""Vectors of results that are computed together, as chains of sums that hide each other's latency."""

TAPS = 7
"""Taps of the widest row whose weights stay in registers, beside the sums and a pixel."""

PIXELS = 16384
"""Numbers of a task's results: pixels, for each of some channels or of all."""

AT_ONCE, ROOM = 64, 2**19
"""Channels of a task that puts those of an image side by side, and bytes that it works in, at most: 96 channels at 56²
with 7 × 7 taps, which takes 800 KB with AVX-512, took twice as long so."""

BAND = 2
"""How many times as many rows a task has as a kernel, at least, if it has not all of an image."""

BEYOND = 2**40
"""Columns that are far enough to the right for a line to be none of the image."""


class Way(NamedTuple):
    """A problem's numbers in one memory order, as its kernel takes them."""

    kernel: jit.Kernel
    part: Callable[[int], jit.Part]
    """Which depends on the kind of activation, as `npconv.kernels.numba.vector.activating` tells."""

    tasks: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray


class Form(NamedTuple):
    """What the sums of a row are compiled for."""

    taps: int
    """Taps of a row that are taken together, their weights in registers; 1 for rows of any width."""

    pace: int
    """Taps from one result to the next."""

    columns: int
    """Vectors of channels of a tile: two, a line of the cache with AVX2, if their weights fit the registers."""

    chained: bool
    """Whether one chain of sums would lose accuracy."""


def lanes(problem: ConvProblem) -> int:
    """Return how many numbers a vector holds."""
    return VECTOR_BYTES // problem.compute_dtype.itemsize


def taps_together(problem: ConvProblem) -> tuple[int, int, bool]:
    """Return the taps of a row that are taken together, their pace, and whether a tile has room for two vectors.

    Rows of other taps are taken one by one.
    """
    width, stride = problem.kernel_size[2], problem.stride[2]
    taps, pace = (width, stride) if 1 < width <= TAPS and stride <= 2 else (1, 1)
    return taps, pace, 2 * taps + SUMS + 1 < REGISTERS and problem.in_channels >= 2 * lanes(problem)


def form_of(problem: ConvProblem) -> Form:
    """Return what the sums of a canonical problem are compiled for."""
    taps, pace, both = taps_together(problem)
    return Form(taps, pace, 2 if both else 1, problem.products > chain_length(problem.products))


def first_channels(problem: ConvProblem) -> list[int]:
    """Return the first channel of each tile, the last of which may overlap; none if the problem has no such sums."""
    channels, block = problem.in_channels, form_of(problem).columns * lanes(problem)
    if problem.out_channels != channels or channels < block:
        return []
    return [min(c, channels - block) for c in range(0, channels, block)]


class FiltersOfChannels:
    """Filters (K, 1, kd, kh, kw): as they are, and in vectors of channels, packed when such an input is met."""

    def __init__(self, problem: ConvProblem, weight: np.ndarray) -> None:
        self._problem = problem
        self.plain = np.ascontiguousarray(weight).reshape(-1)

    @once
    def in_vectors(self) -> np.ndarray:
        """Return a tap's weights for a tile's channels side by side, tap behind tap, tile behind tile."""
        sizes, numbers = _sizes_of_packing(self._problem)
        packed = buffers.aligned(numbers * self.plain.itemsize).view(self.plain.dtype)
        _pack.run(-(-int(sizes[0]) // TILES), len(packed) // WORTH, self.plain, packed, sizes)
        return packed


@lru_cache
def _sizes_of_packing(problem: ConvProblem) -> tuple[np.ndarray, int]:
    """Return tiles, channels, those of a tile, and products; and how many numbers are packed."""
    problem = problem.canonical_form()
    tiles, block = len(first_channels(problem)), form_of(problem).columns * lanes(problem)
    sizes = np.array([tiles, problem.in_channels, block, problem.products])
    return sizes, tiles * block * problem.products


WORTH, TILES = 2, 16
"""Numbers that take as long to put in order as one product of a kernel's work; tiles that a task has of them."""


@jit.Kernel
def _pack(task, plain, packed, sizes):  # type: ignore[no-untyped-def]
    """Put the filters of some tiles side by side, in square blocks: NumPy takes 30 µs for what is 2 µs of work."""
    tiles, channels, block, products = sizes
    for tile in range(task * TILES, min((task + 1) * TILES, tiles)):
        source, at = min(tile * block, channels - block) * products, tile * block * products
        if products >= BLOCK and block >= BLOCK:
            for lane in range(0, block, BLOCK):
                for product in range(0, products, BLOCK):
                    product = min(product, products - BLOCK)
                    transpose(
                        packed, at + product * block + lane, block, plain, source + lane * products + product, products
                    )
        else:
            for product in range(products):
                for lane in range(block):
                    move(packed, at + product * block + lane, plain, source + lane * products + product)


def turns(problem: ConvProblem, threads: int) -> bool:
    """Whether channels that do not lie side by side are put so first: for rows that fill vectors ill, or many taps.

    That is faster than to scroll, and slower than many rows together (`npconv.kernels.numba.depthwise`). At stride 2,
    in two threads with AVX-512, 256 channels at 24² take 24.6 µs instead of 26.7 with 5 × 5 taps, and with 3 × 3 taps
    20.9, where rows take 15.1; 192 at 32² with 5 × 5 taps 33.3, and 27.0 by rows; at 36², whose rows fill little more
    than half of two vectors, 40.5 instead of 56.6.
    """
    if problem.input_size[0] > 1 or problem.kernel_size[0] > 1 or any(problem.padding[0]):
        return False
    tiles, rows = len(first_channels(problem)), _rows(problem, threads)
    if rows == 0 or 2 * problem.batch * tiles < threads or tiles == 0:
        return False
    width, many = problem.output_size[2], lanes(problem)
    few, filled = problem.taps < 25 or problem.kernel_size[2] > TAPS, -(-width // many) * many
    return filled > 1.6 * width if few else 3 * filled > 4 * width or problem.taps >= 49


def _met(problem: ConvProblem, rows: int) -> int:
    """Return the pixels of an input that so many rows of results meet, and those of these."""
    met = min((rows - 1) * problem.stride[1] + problem.span[1], problem.input_size[1])
    return met * problem.input_size[2] + rows * problem.output_size[2]


def _rows(problem: ConvProblem, threads: int) -> int:
    """Return how many rows of results a task has whose channels it puts side by side; 0 if there is room for too few.

    All; or, where rows fill vectors worse than channels do, some that meet little that others meet, too, and are shared
    out evenly. In two threads 384 channels at 55 × 84 with 7 × 7 taps at stride 2 so take 360 µs instead of 440, 64 at
    90 × 70 86 instead of 129; where rows of 32 or 64 results fill vectors, it took a twentieth longer.
    """
    _, height, width = problem.output_size
    many, tiles = lanes(problem), problem.batch * len(first_channels(problem))
    wide = form_of(problem).columns * many
    pixel = wide * problem.compute_dtype.itemsize
    if _met(problem, height) * pixel <= ROOM:
        return height

    def time(rows: int) -> int:
        tasks = tiles * math.ceil(height / rows)
        return math.ceil(tasks / threads) * _met(problem, rows)

    # So many rows and what they meet have room, if the image does not end before.
    _, _, columns = problem.input_size
    most = ROOM // pixel - (problem.span[1] - problem.stride[1]) * columns
    most //= problem.stride[1] * columns + width
    if most < 1:
        return 0
    parts = -(-height // most)
    rows = min((-(-height // n) for n in range(parts, parts + threads)), key=time)
    worse = -(-width // many) * many * problem.batch * problem.in_channels > 1.03 * width * tiles * wide
    return rows if worse and rows * problem.stride[1] >= BAND * problem.span[1] else 0


def way(problem: ConvProblem, threads: int, turned: bool = False) -> Way:
    """Cut a canonical problem into tasks: rectangles for all channels, or, if ``turned``, rows for some of them."""
    kernel, dilation, stride = problem.kernel_size, problem.dilation, problem.stride
    depth, height, width = problem.output_size
    channels, form = problem.in_channels, form_of(problem)
    if turned:
        wide = form.columns * lanes(problem)
        tasks = problem.batch * -(-channels // wide)
        rows = max(_rows(problem, threads), 1)
        pixels = _met(problem, rows)
        most = min(AT_ONCE, ROOM // (pixels * problem.compute_dtype.itemsize)) // wide
        share = wide * max(min(tasks // (blocking.TASKS_PER_THREAD * threads), most), 1)
        block, numbers = blocking.Blocks(rows, width, 1), pixels * share
    else:
        pixels = max(PIXELS // channels, 16)
        block = blocking.blocks(height, width, pixels, problem.batch * depth, 1, threads)
        share, numbers = channels, block.columns * channels
    parts = -(-channels // share)
    grid = (problem.batch, depth, -(-height // block.rows), -(-width // block.columns), parts)
    # Results that are computed together lie as far apart as the taps do.
    apart = dilation[2] if form.taps > 1 else 1
    chain = max(chain_length(problem.products) // form.taps, 1)
    sizes = np.array(
        [stride, dilation, [-pad for pad, _ in problem.padding], (*kernel[:2], kernel[2] // form.taps),
         (block.rows, block.columns, apart), (channels, chain, problem.span[2]), (share, turned, 0),
         (form.taps, form.pace, form.columns)]
    )  # fmt: skip
    return Way(
        _block, lambda _: _row(form), int(np.prod(grid)), (numbers, problem.compute_dtype), np.array(grid), sizes,
        np.zeros(0, np.int64),
    )  # fmt: skip


def _tile(form: Form, masked: bool) -> Any:
    """Return the sums of some results, of ``lines`` that are met: each one's weights, place and column.

    Where one chain of sums would lose accuracy, each is of ``chain`` numbers of the table, the last of which are -1, as
    they are behind the last line. (LLVM computes two lines at once where it can tell how many there are, and runs out
    of registers: 1.7 times as long.)
    """
    taps, pace, columns, chained = form
    results, add_products = SUMS // columns, products_of_pixels(taps, pace, masked)

    def in_one(x, j, step, column, apart, width, lines, line, chain, weights, w):  # type: ignore[no-untyped-def]
        tile = zeros(x, results, columns)
        i, place, beyond = tuple_of(lines, line, 3)
        while i >= 0:
            tile = add_products(tile, weights, w + i, x, j + place, step, column + beyond, apart, width)
            line += 3
            i, place, beyond = tuple_of(lines, line, 3)
        return tile

    one = jit.specialised(in_one, *form, masked, within=True)
    if not chained:
        return one

    def in_several(x, j, step, column, apart, width, lines, line, chain, weights, w):  # type: ignore[no-untyped-def]
        tile = zeros(x, results, columns)
        while lines[line] >= 0:
            tile = add(tile, one(x, j, step, column, apart, width, lines, line, chain, weights, w))
            line += chain
        return tile

    return jit.specialised(in_several, *form, masked, within=True)


_ROW = "aiiaiiiiiiiiiiiniiiiiiaaa"
_compute_row = calling(_ROW)


@cache
def _row(form: Form) -> jit.Part:
    """Return the sums of a row of results."""
    inside, anywhere = (_tile(form, masked) for masked in (False, True))
    _, pace, vectors, _ = form
    results = SUMS // vectors

    def compute(  # type: ignore[no-untyped-def]
        target, to, next_pixel, numbers, origin, to_pixel, first_column, stride, columns, apart, step, between, reach,
        complete, width, lines, pitch, begin, end, channels, low, products, weights, bias, epilogue,
    ):  # fmt: skip
        """Compute ``columns`` results for channels from ``begin`` to ``end``; the first of them is read as ``low``.

        Each line that is met has its three numbers in ``lines``; if ``complete``, none of them is beyond the image.
        """
        wide, active = vectors * lanes_of(target), epilogue[0] != 0
        for residue in range(min(apart, columns)):
            count = -(-(columns - residue) // apart)
            left = first_column + residue * stride
            j, place = origin + left * to_pixel, to + residue * next_pixel
            for first in range(0, count, results):
                whole = complete != 0 and left >= 0 and left + reach <= width
                w = begin * products
                for c in range(begin, end, wide):
                    c = min(c, channels - wide)
                    i = c - low
                    if whole:
                        tile = inside(numbers, j + i, step, left, between, width, lines, 0, pitch, weights, w)
                    else:
                        tile = anywhere(numbers, j + i, step, left, between, width, lines, 0, pitch, weights, w)
                    tile = add_row(tile, bias, c)
                    if active:
                        tile = activated(tile, epilogue)
                    store_some(tile, target, place + i, apart * next_pixel, count - first)
                    w += products * wide
                left += results * pace * between
                j += results * pace * step
                place += results * apart * next_pixel

    return jit.Part(compute, _ROW, *form)


_FORM = "nannNnn"
_taken = taking(_FORM)


@jit.scratch_kernel(_FORM)
@jit.makes_arrays
def _block(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a rectangle of the result for all channels, or whole rows for some of them."""
    x_layout, epilogue, out_layout, grid, sizes, _, parts = _taken(constants, x)
    task, horizontal = divmod(task, grid[3])
    task, vertical = divmod(task, grid[2])
    task, part = divmod(task, grid[4])
    n, z = divmod(task, grid[1])
    stride, dilation, before, kernel, share, (channels, chain, span), (together, turned, _), form = triples(sizes, 0, 8)
    taps, pace, vectors = form
    results = SUMS // vectors
    wide, apart = vectors * lanes_of(x), share[2]
    row, column = vertical * share[0], horizontal * share[1]
    rows, columns = min(share[0], out_layout[HEIGHT] - row), min(share[1], out_layout[WIDTH] - column)
    _, to_channel, to_plane, to_line, to_pixel, depths, height, width = tuple_of(x_layout, 0, 8)
    # The last tile of channels may overlap the one before.
    begin, end = part * together, min((part + 1) * together, channels)
    low = min(begin, channels - wide)
    pitch_out, numbers, origin = channels, x, n * x_layout[IMAGE]
    if turned:
        pitch_out = end - low
        numbers = after(scratch, rows * columns * pitch_out)
        upper = max(before[1] + row * stride[1], 0)
        lower = before[1] + (row + rows - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1
        lower = max(min(lower, height), upper)
        start = origin + low * to_channel + upper * to_line
        if to_pixel == 1 and to_line == width:
            load_line(numbers, 0, pitch_out, x, start, pitch_out, (lower - upper) * width, to_channel, to_pixel)
        else:
            for y in range(lower - upper):
                to = y * width * pitch_out
                load_line(numbers, to, pitch_out, x, start + y * to_line, pitch_out, width, to_channel, to_pixel)
        to_pixel, to_line = pitch_out, width * pitch_out
        origin = -upper * to_line
    products = kernel[0] * kernel[1] * kernel[2] * taps
    # What neighbours in a row of taps, or without one neighbouring results, are apart.
    between = dilation[2] if taps > 1 else stride[2]
    step = between * to_pixel
    reach = (results - 1) * pace * between + span
    straight = out_layout[CHANNEL] == 1 and turned == 0
    pitch = 3 * (chain + 1)
    lines = table((-(-kernel[0] * kernel[1] * kernel[2] // chain) + 1) * pitch)
    for y in range(row, row + rows):
        lines[:] = -1
        met, complete = 0, True
        for i in range(kernel[0]):
            plane = before[0] + z * stride[0] + i * dilation[0]
            for j in range(kernel[1]):
                line = before[1] + y * stride[1] + j * dilation[1]
                there = 0 <= plane < depths and 0 <= line < height
                complete = complete and there
                for m in range(kernel[2]):
                    if met % pitch == 3 * chain:
                        met += 3
                    lines[met] = ((i * kernel[1] + j) * kernel[2] + m) * taps * wide
                    lines[met + 1] = plane * to_plane + line * to_line + m * dilation[2] * to_pixel
                    lines[met + 2] = m * dilation[2] if there else BEYOND
                    met += 3
        at = n * out_layout[IMAGE] + z * out_layout[PLANE] + y * out_layout[ROW] + column * out_layout[PIXEL]
        if straight:
            target, to, next_pixel = out, at, out_layout[PIXEL]
        else:
            target, to, next_pixel = scratch, ((y - row) * columns * pitch_out if turned else 0), pitch_out
        _compute_row(
            parts[0],
            (target, to, next_pixel, numbers, origin, to_pixel, before[2] + column * stride[2], stride[2], columns,
             apart, step, between, reach, np.int64(complete), width, lines, pitch, begin, end, channels, low, products,
             weights, bias, epilogue),
        )  # fmt: skip
        if not straight and turned == 0:
            unload_line(out, at, out_layout[CHANNEL], out_layout[PIXEL], channels, columns, scratch, 0, channels)
    if turned:
        at = n * out_layout[IMAGE] + low * out_layout[CHANNEL] + row * out_layout[ROW]
        if rows == 1 or out_layout[ROW] == columns * out_layout[PIXEL]:
            unload_line(
                out, at, out_layout[CHANNEL], out_layout[PIXEL], pitch_out, rows * columns, scratch, 0, pitch_out
            )
        else:
            for y in range(rows):
                line, to = y * columns * pitch_out, at + y * out_layout[ROW]
                unload_line(
                    out, to, out_layout[CHANNEL], out_layout[PIXEL], pitch_out, columns, scratch, line, pitch_out
                )

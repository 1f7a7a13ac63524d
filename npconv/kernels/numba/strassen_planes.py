"""Strassen's algorithm with pixels in the vectors: planes as they are, nothing transposed.

A *unit* is two slivers of neighbouring pixels, of two vectors each (`npconv.kernels.numba.pixels`); they are the halves
of its pixels, A1 and A2, of which a task makes the seven sums of `npconv.kernels.numba.strassen`, once, before it
multiplies them with its filters, and those of the other half (`npconv.kernels.numba.strassen_tile`). What is left of a
task's pixels is a unit that overlaps the one before, or half of one, whose slivers are a vector wide. A few pixels that
are left of a plane have their channels in the vectors (`npconv.kernels.numba.strassen_last`), and tasks take a share of
the filters each.

Filters are summed up in rows (`npconv.kernels.numba.filter_sums`), once, if they are packed. Of plain ones, each thread
makes the sums for itself, before its first task: so 512 → 256 channels at 28² take 4 % longer than with packed ones, 64
→ 256 at 56² 3 %. (Packed for all threads beforehand, they took 10 and 17 % longer: cores take lines that another has
written one by one, and the weights are as far away for them as for the products.)

A task is some units of one plane of the result, for some filters of each half. Pixels that lie side by side are read
where they are; of others, at a stride, those of a unit are put side by side first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, HEIGHT, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import (
    blocking,
    buffers,
    filter_sums,
    jit,
    product,
    strassen_last,
    strassen_plan,
    strassen_tile,
)
from npconv.kernels.numba.calls import calling, taking
from npconv.kernels.numba.filter_sums import find_scales, sum_filters
from npconv.kernels.numba.last_pixels import left_over
from npconv.kernels.numba.lean import after, flattened, max, min, table, triple_table, triples, tuple_of
from npconv.kernels.numba.moves import move
from npconv.kernels.numba.pairs import PAIR, find_lines
from npconv.kernels.numba.pixels import cut_halved, starts_halved
from npconv.kernels.numba.product import width_of
from npconv.kernels.numba.quarters import sums_of_pixels
from npconv.kernels.numba.rows import Filters
from npconv.kernels.numba.slab import copy_numbers, copy_spaced
from npconv.kernels.numba.tile import COLUMNS, ROWS, VECTOR_BYTES
from npconv.kernels.numba.vector import filled, lanes_of, store
from npconv.problem import ConvProblem

CHAIN = 64
"""Products that are summed up in one chain, at most. Chains of 32 took 1 to 4 % longer."""

FAR = 2**21
"""Bytes of an input from which on its pixels are asked for: so 392 → 132 channels at 64² take 3.6 ms on a core instead
of 4.2, 208 → 72 at 112² 3.6 instead of 4.6, and at stride 2 in two threads 160 → 96 at 200² 1.6 instead of 1.75, 408 →
136 at 143² 3.24 instead of 3.35 (464 → 192 at 150², whose filters fill the cache, as long); smaller ones took 2 to 3 %
longer. (Asked for in each step of the first tile's products, as `npconv.kernels.numba.pixels` does, they took as long
as if nobody had: what these load from the second-level cache then waits for what comes from memory.)"""


class Sums(NamedTuple):
    """Sums of filters, and of each channel the scale, its negative, and what undoes these."""

    numbers: np.ndarray
    scale: np.ndarray


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    sizes: np.ndarray
    plain: bool
    """Whether tasks make the sums of filters."""

    merged: str
    """How results are merged: one of `npconv.kernels.numba.strassen_tile.MERGED`."""

    heights: frozenset[int]
    """Rows of the tiles that tasks have."""

    widths: tuple[bool, bool]
    """Whether there are whole units, and halves."""

    left: int
    """Pixels beyond these, of the last task of a plane."""

    far: bool
    """Whether the input is so large that its pixels are asked for before they are met."""


def _wide(problem: ConvProblem) -> int:
    """Return the pixels of a sliver, or of half a unit."""
    return product.width(problem.compute_dtype)


AT_ONCE = 64
"""Channels of each half whose filters a task sums up."""


def pack(problem: ConvProblem, weight: Filters) -> Sums:
    """Return sums of filters, seven for each number of a quarter."""
    flat, turned = weight
    filters, channels = problem.out_channels, problem.in_channels
    sums = buffers.aligned(7 * flat.nbytes // 4).view(flat.dtype)
    scales = np.empty(filter_sums.SCALES * channels, flat.dtype)
    parts, scratch = max(channels // 2 // AT_ONCE, 1), (filter_sums.room(_wide(problem)), flat.dtype)
    _sum_filters.run(
        parts, sums.size // product.WORTH, flat, sums, scales, np.array([channels, filters, turned, parts]),
        scratch=scratch,
    )  # fmt: skip
    return Sums(sums, scales)


@jit.scratch_kernel()
def _sum_filters(task, memory, weight, sums, scales, sizes):  # type: ignore[no-untyped-def]
    """Make the sums of filters for some channels of each half."""
    channels, filters, turned, parts = tuple_of(sizes, 0, 4)
    half, others = channels // 2, filters // 2
    first, end = half * task // parts, half * (task + 1) // parts
    for side in range(0, channels, half):
        find_scales(scales, weight, turned > 0, channels, filters, first + side, end + side, memory)
    sum_filters(sums, scales, weight, turned > 0, channels, filters, first, end, 0, others, memory)


def plan(
    problem: ConvProblem,
    threads: int,
    plain: bool,
    merged: str = "",
    patch: tuple[int, ...] = (1, 1, 1),
    all_rows: int = 0,
) -> Plan:
    """Cut a canonical problem into tasks, of sums of filters or of plain ones.

    A pixel's results may be a ``patch`` of such a size, whose rows are ``merged`` of two elements each; or the even one
    of two, in the even rows of as many as ``all_rows``.
    """
    dtype, wide = problem.compute_dtype, _wide(problem)
    channels, filters, half = problem.in_channels, problem.out_channels // 2, problem.in_channels // 2
    depth, height, width = problem.output_size
    parts, pieces, grain, shares, _ = strassen_plan.cut(problem, wide // COLUMNS, threads, merged != "")
    grid = (problem.batch, depth, parts, pieces)
    chain = -(-blocking.even(half, CHAIN) // 2) * 2
    unit = strassen_tile.MERGED[merged]
    counts = {filters // unit * (part + 1) // parts - filters // unit * part // parts for part in range(parts)}
    left = 0 if merged else blocking.left_over(height * width, wide, channels)
    sizes = strassen_plan.sizes_of(strassen_plan.before(height * width, left, wide), pieces, grain)
    in_place = height == 1 and max(problem.stride) == 1
    scratch = (
        7 * half + strassen_tile.KEPT * ROWS + (PAIR * ROWS if merged else 0 if in_place else 2 * channels)
    ) * wide
    if plain:
        made = parts, 7 * half * filters, filter_sums.SCALES * channels
        scratch = max(scratch, filter_sums.room(wide)) + sum(_whole.py_func(count, wide) for count in made)
    return Plan(
        tasks=math.prod(grid),
        work=problem.flops // 20,
        scratch=(scratch, dtype),
        grid=np.array(grid),
        sizes=np.array([problem.stride, (channels, filters, chain), (*patch[:2], all_rows), (grain, shares, 0)]),
        plain=plain,
        merged=merged,
        heights=strassen_tile.heights((unit * count for count in counts), unit),
        widths=(
            any(size >= 2 * wide for size in sizes),
            any(0 < size % (2 * wide) <= wide or size < 2 * wide for size in sizes),
        ),
        left=left,
        far=math.prod(problem.input_shape) * dtype.itemsize >= FAR,
    )


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None] | None:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``; None for other memory orders.

    Pixels lie side by side, and a row of results goes on with the next.
    """
    in_row = out_layout[HEIGHT] == 1 or out_layout[ROW] == out_layout[WIDTH]
    side_by_side = all(layout[PIXEL] == 1 or layout[WIDTH] == 1 for layout in (x_layout, out_layout))
    if not side_by_side or not (in_row or plan.merged):
        return None
    _, _, step = plan.sizes[0].tolist()
    columns, to_row = int(out_layout[WIDTH]), int(plan.sizes[0, 1] * x_layout[ROW])
    lanes = VECTOR_BYTES // epilogue.itemsize
    halved = step == 2 and columns >= lanes and to_row >= 2 * columns
    tiles = strassen_tile.parts_of(epilogue.dtype, plan.heights, plan.widths, plan.merged)
    sums = tuple(part if there else None for part, there in zip(_SUMS[halved], plan.widths, strict=True))
    ways = jit.addresses((*sums, *strassen_last.parts_for(plan.left)), epilogue.dtype)

    def run(turned: bool) -> Callable[..., None]:
        flags = np.array([turned, halved, plan.far], np.int64)
        constants = x_layout, epilogue, out_layout, plan.grid, plan.sizes, tiles, ways, flags
        kernel, cleared = _kernels[plan.plain, plan.merged], int(plan.grid[2]) if plan.plain else 0
        return kernel.fixed(plan.tasks, plan.work, threads, constants, plan.scratch, cleared=cleared)

    in_rows = run(turned=False)
    if not plan.plain:
        return lambda x, sums, bias, out: in_rows(x, *sums, bias, out)
    turned = run(turned=True)

    def fill(x: np.ndarray, filters: Filters, bias: np.ndarray, out: np.ndarray) -> None:
        (turned if filters.turned else in_rows)(x, filters.numbers, filters.numbers, bias, out)

    return fill


_share_of = jit.inline(strassen_plan.share_of)

_UNIT = "aaiiiiana"
_sum_up = calling(_UNIT)


def _summing_up(columns: int, halved: bool) -> jit.Part:
    """Return what makes the sums of a unit, whose slivers are so many vectors, of pixels side by side.

    If ``halved``, they are every second one of rows: first put side by side, for a channel of each half at a time.
    """
    sum_pixels = sums_of_pixels(columns, along_channels=False)

    def sum_up(sums, x, upper, to_channel, half, to_second, scale, starts, near):  # type: ignore[no-untyped-def]
        """Make the sums of the pixels from ``x[upper]`` on, channels ``to_channel`` apart."""
        wide = width_of(sums)
        beside, across = columns * lanes_of(sums), 2 * wide if halved else to_second
        for c in range(half):
            source = upper + c * to_channel
            if halved:
                for second in range(2):
                    for sliver in range(columns):
                        at = (COLUMNS * second + sliver) * wide
                        cut_halved(near, at, x, source + second * to_second, starts, sliver)
                numbers, place = near, 0
            else:
                numbers, place = x, source
            below = place + beside
            sum_pixels(
                sums, c * wide, half * wide, numbers, place, place + across, below, below + across, scale, c, c + half,
                2 * half,
            )  # fmt: skip

    return jit.Part(sum_up, _UNIT, columns, halved)


_SUMS = {halved: [_summing_up(columns, halved) for columns in (COLUMNS, COLUMNS // 2)] for halved in (False, True)}


@jit.inline
def _cut(piece, pitch, x, start, layout, stride, channels, pixel, count, columns):  # type: ignore[no-untyped-def]
    """Put ``count`` pixels of rows of so many ``columns`` side by side, for each channel."""
    done, step = 0, stride[2] * layout[PIXEL]
    while done < count:
        row, column = divmod(pixel + done, columns)
        some = min(columns - column, count - done)
        source = start + row * stride[1] * layout[ROW] + column * step
        for c in range(channels):
            if step == 1:
                copy_numbers(piece, c * pitch + done, x, source + c * layout[CHANNEL], some)
            else:
                copy_spaced(piece, c * pitch + done, x, source + c * layout[CHANNEL], step, some)
        done += some


@jit.inline
def _fill(out, at, count, numbers, i):  # type: ignore[no-untyped-def]
    """Write ``numbers[i]`` so often to ``out[at:]``."""
    lanes = lanes_of(out)
    if count < lanes:
        for n in range(count):
            move(out, at + n, numbers, i)
        return
    tile = filled(numbers, i, 1, 1)
    for n in range(0, count, lanes):
        store(tile, out, at + min(n, count - lanes), lanes)


@jit.inline
def _whole(count, wide):  # type: ignore[no-untyped-def]
    """Return at least ``count`` numbers, whole slivers of them."""
    return (count + wide - 1) // wide * wide


_before = jit.inline(strassen_plan.before)

_FORM = "nannNnnn"
_taken = taking(_FORM)


def _kernel(plain: bool, merged: str) -> jit.Kernel:
    """Return the kernel that takes sums of filters, or that makes them of ``plain`` ones; results are ``merged``."""
    unit, beside, in_rows = strassen_tile.MERGED[merged], merged == "beside", merged != ""

    @jit.scratch_kernel(_FORM, plain, merged)
    @jit.makes_arrays
    def block(task, memory, x, weights, scale, bias, out, constants):  # type: ignore[no-untyped-def]
        """Compute some units of a plane of the result, for some filters of each half."""
        x_layout, epilogue, out_layout, grid, sizes, tiles, units_of, flags = _taken(constants, x)
        task, piece = divmod(task, grid[3])
        task, part = divmod(task, grid[2])
        n, z = divmod(task, grid[1])
        stride, (channels, filters, chain), (deep, down, all_rows), (grain, shares, _) = triples(sizes, 0, 4)
        wide, half, columns = width_of(x), channels // 2, x_layout[WIDTH] if in_rows else out_layout[WIDTH]
        positions = columns * (x_layout[HEIGHT] if in_rows else out_layout[HEIGHT])
        left = 0 if in_rows else left_over(positions, wide, channels)
        before = _before(positions, left, wide)
        grains = before // grain
        first, end = grains * piece // grid[3] * grain, grains * (piece + 1) // grid[3] * grain
        if piece + 1 == grid[3]:
            end = before
        k, stop = unit * (filters // unit * part // grid[2]), unit * (filters // unit * (part + 1) // grid[2])
        made, scales = weights, scale
        if plain:
            # One array behind the other; each begins with a line of the cache.
            made = after(memory, _whole(grid[2], wide))
            scales = after(made, _whole(7 * half * filters, wide))
            room = after(scales, _whole(filter_sums.SCALES * channels, wide))
            if memory[part] == 0:
                find_scales(scales, weights, flags[0] > 0, channels, 2 * filters, 0, channels, room)
                sum_filters(made, scales, weights, flags[0] > 0, channels, 2 * filters, 0, half, k, stop, room)
                memory[part] = 1
            memory = room
        kept = after(memory, 7 * half * wide)
        pixels = after(kept, strassen_tile.KEPT * ROWS * wide)
        in_place = in_rows or (
            stride[2] == 1 and (out_layout[HEIGHT] == 1 or (stride[1] == 1 and x_layout[ROW] == columns))
        )
        far = flags[2] > 0 and (in_place or flags[1] > 0) and positions >= 2 * wide
        start = n * x_layout[IMAGE] + z * stride[0] * x_layout[PLANE]
        to = n * out_layout[IMAGE] + z * out_layout[PLANE] + k * out_layout[CHANNEL]
        halved, starts, places = flags[1] > 0, table(2), triple_table(2 * COLUMNS)
        rows, belongs, runs = table(2 * filters // unit if in_rows else 1), table(6), table(3)
        if in_rows:
            find_lines(rows, 0, n * out_layout[IMAGE] + z * deep * out_layout[PLANE], out_layout, deep, down)
            to, belongs[4], belongs[5] = 0, columns, down * out_layout[ROW]
        if beside:  # the output's rows are the even ones: odd ones lie half as far behind as the next
            for row in range((first + columns - 1) // columns, (end + columns - 1) // columns):
                odd = row * out_layout[ROW] + out_layout[ROW] // 2
                if 2 * row + 1 < all_rows:
                    for f in range(k, stop):
                        _fill(out, rows[f] + odd, 2 * columns, bias, f)
                        _fill(out, rows[f + filters] + odd, 2 * columns, bias, f + filters)
        pixel = first
        while pixel < end:
            whole = end - pixel >= 2 * wide or (end - pixel > wide and end - first >= 2 * wide)
            size = 2 * wide if whole else wide
            pixel = min(pixel, end - size)
            source, at, to_channel = x, start + pixel, x_layout[CHANNEL]
            if halved:
                at, starts[0], starts[1] = 0, pixel, pixel + wide
                starts_halved(places, starts, 2 if whole else 1, start, stride[1] * x_layout[ROW], columns, wide)
            elif not in_place:
                _cut(pixels, size, x, start, x_layout, stride, channels, pixel, size, columns)
                source, at, to_channel = pixels, 0, size
            _sum_up(
                units_of[0 if whole else 1],
                (memory, source, at, to_channel, half, half * to_channel, scales, flattened(places), pixels),
            )  # fmt: skip
            following = min(pixel + size, positions - 2 * wide)
            runs[0], runs[1], runs[2] = 2 * wide, 0, 0
            if halved:
                row, column = divmod(following, columns)
                to_row = stride[1] * x_layout[ROW]
                following, runs[0] = row * to_row + 2 * column, min(2 * (columns - column), 4 * wide)
                runs[1] = to_row - 2 * column
                runs[2] = runs[1] + 4 * wide - runs[0]
            asked = x, start + following, x_layout[CHANNEL], runs, channels if far else 0
            if in_rows:
                for sliver in range(2):
                    first_pixel = pixel + sliver * size // 2
                    row, column = divmod(first_pixel, columns)
                    over_end = column + size // 2 > columns
                    belongs[2 * sliver] = -1 if over_end else row * belongs[5] + PAIR * column
                    belongs[2 * sliver + 1] = first_pixel
            strassen_tile.multiply(
                tiles, not whole, out, to + pixel, out_layout[CHANNEL], made, k, stop - k, filters, memory, half, chain,
                bias, epilogue, kept, asked, unit, (rows, belongs, pixels),
            )  # fmt: skip
            pixel += size
        share = _share_of(piece, grid[3], shares)
        if left > 0 and share >= 0:
            rest, some = table(left), stop - k
            for n in range(left):
                row, column = divmod(positions - left + n, columns)
                rest[n] = row * stride[1] * x_layout[ROW] + column * stride[2] * x_layout[PIXEL]
            begin, stop = some * share // shares, some * (share + 1) // shares
            strassen_last.multiply_last(
                units_of, 2, out, to + positions - left + begin * out_layout[CHANNEL], out_layout[CHANNEL], made,
                k + begin, stop - begin, filters, half, x, start, x_layout[CHANNEL], rest, scales, memory, chain,
                bias, epilogue,
            )  # fmt: skip

    return block


_kernels = {ways: _kernel(*ways) for ways in itertools.product((False, True), strassen_tile.MERGED)}
"""By whether filters are plain, and how results are merged."""

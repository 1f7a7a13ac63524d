"""The direct sum, with the kernel's elements in the vectors: for kernels larger than their results.

The weight gradient of a depthwise convolution is one: its kernel is the gradient of a whole plane, its result 3 × 3. A
register tile holds some results, a vector of partial sums for each. A step loads a vector of the kernel's row and, for
each result, the vector of the input that it meets there; the lanes are added up at the end. Where a group has some
filters, as those of grouped convolutions have, a tile is three to five results of four of them: a step loads nine
vectors for twenty products.

Few results, such as 3 × 3, of fewer filters or small planes are computed from these as they are: rows beyond the image
are one of zeros, and columns beyond it are masked in vectors, by masks that all rows share. Reading a row's ends takes
numbers of the rows before and after it, so that the first and the last plane of an array are copied to where there is
room around them, and so are planes whose pixels do not lie side by side.

Otherwise the input's plane lies in the slab with its padding; with a dilation, rows and columns of one residue lie
together, so that the elements that a row of the kernel meets are side by side. Of a row's last vector only the lanes
within the kernel count: zeros in the others would not do, for an infinity in the input would make them NaN.

A task is a plane of the result, for all filters of a group or of several; or, where planes are few, for some filters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, HEIGHT, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import blocking, jit, planes, rows
from npconv.kernels.numba.blocking import SIDE_BY_SIDE, results_at_once
from npconv.kernels.numba.calls import calling, taking
from npconv.kernels.numba.lean import after, max, min, table, triples, tuple_of
from npconv.kernels.numba.plane_slab import OTHERS, load_planes, loads, parts_of, unload_planes
from npconv.kernels.numba.slab import clear, copy_numbers
from npconv.kernels.numba.stores import store_sums
from npconv.kernels.numba.taps import address_of, mask_of, rows_of_taps
from npconv.kernels.numba.tile import REGISTERS, VECTOR_BYTES
from npconv.kernels.numba.vector import (
    activated,
    add,
    add_column,
    add_to,
    lanes_of,
    load,
    multiply_add_pairs,
    multiply_add_parts,
    starts_from,
    store,
    zeros,
)
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

RESULTS = 9
"""Results of a tile of one filter: all of a 3 × 3 plane."""

LARGE = 300
"""Elements of a kernel from which on it pays to load the slab for few results of some filters: 4 filters a group take
0.8 times as long at 28², 1.3 times at 14²."""

BAND = 64
"""Vectors of a filter's rows that are taken in one loop."""

TOGETHER = 4
"""Rows of the kernel that are taken at once, so that what two of them meet is loaded once.

With 16 registers some of the sums then wait in memory; two rows at once, which leave them in place, took a quarter
longer (32 channels of 112² on a Zen 3), three a tenth.
"""


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    kernel: jit.Kernel
    part: Callable[[], jit.Part]
    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    sizes: np.ndarray
    places: np.ndarray
    phases: np.ndarray


pack, pack_bias = rows.pack, planes.pack_bias


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    many = problem.out_channels // problem.groups >= SIDE_BY_SIDE
    if _is_small(problem) and (not many or problem.taps < LARGE):
        return _straight(problem, threads)
    return _over_slab(problem, many, threads)


def _is_small(problem: ConvProblem) -> bool:
    """Whether planes are read as they are."""
    return (
        math.prod(problem.output_size[1:]) <= RESULTS
        and problem.kernel_size[0] == 1
        and problem.padding[0] == (0, 0)
        and problem.dilation[2] <= 2
    )


NUMBERS = 2**14
"""Numbers of the input that make a task, if there are so many tasks that they are shared out well."""


def _straight(problem: ConvProblem, threads: int) -> Plan:
    lanes = VECTOR_BYTES // problem.compute_dtype.itemsize
    channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    _, rows, columns = problem.kernel_size
    dilation = problem.dilation
    depth, height, width = problem.output_size
    stride = tuple(s if n > 1 else 1 for n, s in zip((2, height, width), problem.stride, strict=True))
    met = problem.span[1] + (height - 1) * stride[1], problem.span[2] + (width - 1) * stride[2]
    # A plane that is copied, with room for what is read beyond its rows.
    size = math.prod(met) + max(problem.padding[2][0], 0) + 2 * (lanes + 1) * dilation[2] + width * stride[2]
    vectors = -(-columns // lanes)
    room = rows * vectors * lanes
    share = problem.batch * problem.groups * depth // (blocking.TASKS_PER_THREAD * threads)
    together = min(max(min(NUMBERS // (channels * math.prod(met)), share), 1), problem.groups)
    parts = -(-problem.groups // together)
    chain = math.isqrt(room // lanes) + 1
    pace = dilation[1] if dilation[1] <= 2 and stride[1] == 1 else 0
    # A row that is none of the image, and which lanes count: of each tap, and of the kernel's row.
    blank, masks = vectors * lanes * dilation[2] + width * stride[2] + 2 * lanes, vectors * (width + 1) * lanes
    sizes = np.array(
        [stride, dilation, tuple(-pad for pad, _ in problem.padding), (problem.groups, together, chain),
         (channels, filters, 0), (rows, columns, 0), (*met, size), (height, width, pace), (blank, masks, 0)]
    )  # fmt: skip
    form = (height, width, dilation[2], stride[2] == 1, pace)
    return Plan(
        _straight_block, lambda: _sums_of_plane(*form), problem.batch * parts * depth, problem.flops // 10,
        (blank + masks + size + room + RESULTS * lanes + together * filters * -(-RESULTS // lanes) * lanes,
         problem.compute_dtype),
        np.array((problem.batch, parts, depth)), sizes, np.zeros(0, np.int64), np.zeros(2, np.int64),
    )  # fmt: skip


def _over_slab(problem: ConvProblem, many: bool, threads: int) -> Plan:
    at_once = SIDE_BY_SIDE if many else 1
    results = results_at_once(math.prod(problem.output_size[1:]), REGISTERS) if many else RESULTS
    lanes = VECTOR_BYTES // problem.compute_dtype.itemsize
    channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    kernel, dilation, stride = problem.kernel_size, problem.dilation, problem.stride
    depth, height, width = problem.output_size
    # Each result's first element along an axis: the residue by the dilation, and the place among those of that residue.
    firsts = [[divmod(o * stride[axis], dilation[axis]) for o in range(problem.output_size[axis])] for axis in (1, 2)]
    phases = [sorted({residue for _, residue in first}) for first in firsts]
    rows, columns = (
        max(place for place, _ in first) + kernel[axis] for axis, first in zip((1, 2), firsts, strict=True)
    )
    pitch = -(-columns // lanes) * lanes
    plane = rows * pitch
    places = [
        (phases[0].index(down) * len(phases[1]) + phases[1].index(across)) * plane + row * pitch + column
        for row, down in firsts[0] for column, across in firsts[1]
    ]  # fmt: skip
    planes = problem.batch * problem.groups * depth
    share, _ = blocking.shared_filters(filters, at_once, planes, threads)
    tiles = -(-height * width // results)
    places += places[-1:] * (tiles * results - height * width)
    wide = -(-kernel[2] // lanes) * lanes
    slab = kernel[0] * len(phases[0]) * len(phases[1]) * plane + lanes
    sums = -(-share // at_once) * at_once * tiles * results
    copied = at_once * -(-lanes // kernel[2]) * wide
    parts = (slab, copied, sums * lanes, sums, share * -(-height * width // lanes) * lanes)
    before = tuple(-pad for pad, _ in problem.padding)
    # A chain is of so many vectors, of which a lane adds one number each: the chains of a plane, the planes, and the
    # lanes in pairs then leave the bound of `npconv.kernels.summation`, for what `npconv.refusals.dots` lets through.
    chains = channels * kernel[0]
    chain = max(math.isqrt(kernel[1] * wide // lanes) + 1, chain_length(problem.products) - lanes - 2 * chains - 4)
    band = max(min(BAND // (wide // lanes), chain // (wide // lanes), kernel[1]), 1)
    # Of a band, or of as much of a longer row as makes a chain, where vectors begin in the slab and in a filter.
    row, column = np.divmod(np.arange(min(band * (kernel[2] // lanes), chain)), max(kernel[2] // lanes, 1))
    steps = np.stack([row * pitch + column * lanes, row * kernel[2] + column * lanes], axis=1)
    sizes = np.array(
        [(stride[0], dilation[1], dilation[2]), (dilation[0], len(phases[0]), chain), before, (kernel[0], rows, pitch),
         kernel, (channels, filters, tiles), parts[:3], (band, results, at_once)]
    )  # fmt: skip
    grid = (problem.batch, problem.groups, depth, share)
    return Plan(
        _slab_block, lambda: _sums_over_slab(results, at_once), planes * -(-filters // share), problem.flops // 10,
        (sum(parts), problem.compute_dtype), np.array(grid), sizes, np.concatenate([places, steps.reshape(-1)]),
        np.array(phases[0] + phases[1]),
    )  # fmt: skip


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    stride = 1 if plan.kernel is _straight_block else plan.sizes[0, 2]
    parts = parts_of(epilogue.dtype, loads(x_layout, stride), (plan.part(),))
    constants = x_layout, epilogue, out_layout, plan.grid, plan.sizes, plan.places, plan.phases, parts
    return plan.kernel.fixed(plan.tasks, plan.work, threads, constants, plan.scratch)


@jit.inline
def _finish(result, first, count, bias, k, epilogue):  # type: ignore[no-untyped-def]
    """Add the bias to the results of a filter, whole vectors of them, and apply the activation."""
    for place in range(first, first + count, lanes_of(result)):
        row = add_column(load(result, place, 1, 1), bias, k)
        if epilogue[0] != 0:
            row = activated(row, epilogue)
        store(row, result, place, 0)


_TILE_OVER_SLAB = "aiaiininiaiiiiii"
_multiply = calling(_TILE_OVER_SLAB)


@cache
def _sums_over_slab(results: int, at_once: int) -> jit.Part:
    """Return the sums of so many results of so many filters over a plane that lies in the slab."""
    number = results * at_once

    def multiply(  # type: ignore[no-untyped-def]
        sums, at, piece, begin, pitch, places, place, steps, band, numbers, w, line, apart, rows, columns, chain
    ):
        """Add to ``sums`` a plane's products for a tile.

        The planes of the filters are so far ``apart``, and their rows a ``line``. Of a band of rows, the steps tell
        where whole vectors begin in both: a loop for each row, often of three vectors, took up to twice as long. Longer
        rows are bands of their own.
        """
        lanes = lanes_of(sums)
        starts, others = tuple_of(places, place, results), starts_from(w, apart, at_once)
        tile, added = zeros(sums, number, 1), 0
        total, whole = tile, columns // lanes
        for row in range(0, rows, band):
            count, i, j = min(band, rows - row), begin + row * pitch, row * line
            for first in range(0, count * whole, chain):
                end = min(first + chain, count * whole)
                if added + end - first > chain:
                    total = add(total, tile)
                    tile, added = zeros(sums, number, 1), 0
                for step in range(end - first):
                    one, other = tuple_of(steps, 2 * step, 2)
                    tile = multiply_add_pairs(tile, piece, starts, i + one, numbers, others, j + other)
                added += end - first
                i += (end - first) * lanes
                j += (end - first) * lanes
            i, j = begin + row * pitch, row * line
            left = whole * lanes
            if left < columns:
                if added + count > chain:
                    total = add(total, tile)
                    tile, added = zeros(sums, number, 1), 0
                for below in range(count):
                    one, other = i + below * pitch + left, j + below * line + left
                    tile = multiply_add_parts(tile, piece, starts, one, numbers, others, other, columns - left)
                added += count
        add_to(add(total, tile), sums, at, lanes)

    return jit.Part(multiply, _TILE_OVER_SLAB, results, at_once)


_FORM = "nannNnnn"
_taken = taking(_FORM)


@jit.scratch_kernel(_FORM)
def _slab_block(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a plane of the result for some filters of a group."""
    x_layout, epilogue, out_layout, grid, sizes, places, phases, parts = _taken(constants, x)
    stride, (depth_step, down, chain), before, window, kernel, (channels, all_filters, tiles), bounds, more = triples(
        sizes, 0, 8
    )
    task, part = divmod(task, -(-all_filters // grid[3]))
    task, z = divmod(task, grid[2])
    n, g = divmod(task, grid[1])
    of_part = g * all_filters + part * grid[3]
    filters = min(grid[3], all_filters - part * grid[3])
    ends, band = (bounds[0], bounds[0] + bounds[1], bounds[0] + bounds[1] + bounds[2]), more[0]
    piece, flat, sums, totals = scratch, after(scratch, ends[0]), after(scratch, ends[1]), after(scratch, ends[2])
    lanes = lanes_of(x)
    total = bounds[2] // lanes
    result = after(totals, total)
    wide, plane = -(-kernel[2] // lanes) * lanes, window[1] * window[2]
    results, at_once = more[1], more[2]
    steps = places[tiles * results :]
    clear(piece, 0, bounds[0])
    clear(sums, 0, bounds[2])
    origin = (before[0] + z * stride[0], before[1], before[2])
    across = len(phases) - down
    apart = channels * kernel[0] * kernel[1] * kernel[2]
    for c in range(channels):
        start = n * x_layout[IMAGE] + (g * channels + c) * x_layout[CHANNEL]
        load_planes(parts, piece, 0, plane, x, x_layout, start, 1, origin, depth_step, stride, window, phases, down)
        for i in range(kernel[0]):
            begin = i * down * across * plane
            for k in range(0, filters, at_once):
                first = of_part + min(k, filters - at_once)  # the last ones may overlap those before
                w = ((first * channels + c) * kernel[0] + i) * kernel[1] * kernel[2]
                # Rows whose last vector would be read behind the last filter are copied.
                there = (len(weights) - w - (at_once - 1) * apart - wide) // kernel[2] + 1
                rows = min(max(there, 0), kernel[1])
                others = kernel[1] - rows
                for f in range(at_once if others else 0):
                    for row in range(others):
                        source = w + f * apart + (rows + row) * kernel[2]
                        copy_numbers(flat, (f * others + row) * wide, weights, source, kernel[2])
                for tile in range(tiles):
                    at, place = (k * tiles + tile * at_once) * results * lanes, tile * results
                    _multiply(
                        parts[OTHERS],
                        (sums, at, piece, begin, window[2], places, place, steps, band, weights, w, kernel[2], apart,
                         rows, kernel[2], chain),
                    )  # fmt: skip
                    if others:
                        _multiply(
                            parts[OTHERS],
                            (sums, at, piece, begin + rows * window[2], window[2], places, place, steps, band, flat,
                             0, wide, others * wide, others, kernel[2], chain),
                        )  # fmt: skip
    number = results * at_once
    for some in range(0, total, number):
        if number == RESULTS:
            store_sums(load(sums, some * lanes, RESULTS, 1), totals, some)
        else:
            for row in range(some, some + number, SIDE_BY_SIDE):
                store_sums(load(sums, row * lanes, SIDE_BY_SIDE, 1), totals, row)
    rows, columns = out_layout[HEIGHT], out_layout[WIDTH]
    pitch = -(-rows * columns // lanes) * lanes
    for k in range(filters):
        first = min(k // at_once * at_once, filters - at_once)
        at = (k // at_once * tiles * results) * at_once + k - first
        for place in range(rows * columns):
            result[k * pitch + place] = totals[at + place * at_once]
        _finish(result, k * pitch, pitch, bias, of_part + k, epilogue)
    at = n * out_layout[IMAGE] + of_part * out_layout[CHANNEL] + z * out_layout[PLANE]
    unload_planes(parts, out, out_layout, at, filters, rows, columns, result, 0, pitch, columns)


_PLANE = "aaiiiiniiiiaiai"
_sum_up_plane = calling(_PLANE)


@cache
def _sums_of_plane(down: int, across: int, stride: int, dense: bool, pace: int) -> jit.Part:
    """Return a few results' sums over planes that are read as they are.

    ``pace`` is that of the kernel's rows over the image's, if those that a row meets are neighbours, else 0.
    """
    results = down * across
    rows_at_once, each = (TOGETHER, pace) if pace else (1, down)
    add_inside = rows_of_taps(down, across, stride, dense, False, rows_at_once, pace)
    add_anywhere = rows_of_taps(down, across, stride, dense, True, rows_at_once, pace)
    add_one = rows_of_taps(down, across, stride, dense, True)

    def sum_up(  # type: ignore[no-untyped-def]
        sums, weights, w, line_w, rows, columns, addresses, step, reach, width, left, masks, chain, result, place
    ):
        """Add to ``sums`` a plane's products; if it is the last one, write their lanes' sums to ``result[place:]``."""
        lanes = lanes_of(sums)
        total = load(sums, 0, results, 1)
        tile = zeros(sums, results, 1)
        left_over, mask = chain, 0
        for column in range(0, columns, lanes):
            edge, row, j = left + column * stride, 0, column * stride
            whole = edge >= 0 and edge + reach < width and columns - column >= lanes
            while row < rows:
                i, t = w + row * line_w + column, row * each
                if row + rows_at_once > rows:
                    tile = add_one(tile, weights, i, line_w, addresses, t, j, step, masks, mask)
                    row += 1
                    left_over -= 1
                else:
                    if whole:
                        tile = add_inside(tile, weights, i, line_w, addresses, t, j, step, masks, mask)
                    else:
                        tile = add_anywhere(tile, weights, i, line_w, addresses, t, j, step, masks, mask)
                    row += rows_at_once
                    left_over -= rows_at_once
                if left_over <= 0:
                    total = add(total, tile)
                    tile = zeros(sums, results, 1)
                    left_over = chain
            mask += (across + 1) * lanes
        total = add(total, tile)
        if place >= 0:
            store_sums(total, result, place)
        else:
            store(total, sums, 0, lanes)

    return jit.Part(sum_up, _PLANE, down, across, stride, dense, pace)


_write_mask, _write_mask_of_second = mask_of(1), mask_of(2)


@jit.scratch_kernel(_FORM)
@jit.makes_arrays
def _straight_block(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a plane of the result for some groups."""
    x_layout, epilogue, out_layout, grid, sizes, _, phases, parts = _taken(constants, x)
    task, z = divmod(task, grid[2])
    n, part = divmod(task, grid[1])
    step, paces, before, (groups, together, chain), (channels, filters, _), (rows, columns, _), met, form, own = (
        triples(sizes, 0, 9)
    )
    (down, across, pace), stride = form, paces[2]
    results = down * across
    lanes = lanes_of(x)
    room = -(-columns // lanes) * lanes
    plane, size = rows * columns, met[2]
    blank, masks, piece = scratch, after(scratch, own[0]), after(scratch, own[0] + own[1])
    flat = after(piece, size)
    first = size + rows * room + RESULTS * lanes
    sums, result = after(piece, first - RESULTS * lanes), after(piece, first)
    pitch = -(-results // lanes) * lanes
    height, width = x_layout[HEIGHT], x_layout[WIDTH]
    top, left = before[1], before[2]
    upper, lower = max(top, 0), min(top + met[0], height)
    inner, outer = max(left, 0), min(left + met[1], width)
    beyond = left + room * stride + across * step[2]  # the columns that vectors read end there
    reach = (lanes - 1) * stride + (across - 1) * step[2]
    clear(blank, 0, own[0])
    at = 0
    for column in range(0, columns, lanes):
        for m in range(across):
            from_column = left + m * step[2]
            # Of a row's last vector, only lanes of the kernel.
            within = max(min(width, from_column + columns * stride), 0)
            if stride == 1:
                _write_mask(masks, at, from_column + column, within)
            else:
                _write_mask_of_second(masks, at, from_column + column * stride, within)
            at += lanes
        _write_mask(masks, at, column, columns)
        at += lanes
    # Rows of the image that the kernel's rows meet, one behind the other if those of neighbours are neighbours.
    addresses, nothing = table((rows - 1) * (pace if pace else down) + down), address_of(blank, 0)
    begin, end = part * together, min((part + 1) * together, groups)
    for g in range(begin, end):
        for k in range(filters):
            at = ((g - begin) * filters + k) * pitch
            clear(sums, 0, RESULTS * lanes)
            for c in range(channels):
                start = n * x_layout[IMAGE] + (g * channels + c) * x_layout[CHANNEL] + z * step[0] * x_layout[PLANE]
                low, high = start + upper * x_layout[ROW] + left, start + (lower - 1) * x_layout[ROW] + beyond
                numbers, origin, line, y, tall = x, start + left, x_layout[ROW], top, height
                if x_layout[PIXEL] != 1 or low < 0 or high > len(x) or lower <= upper:
                    line, tall = max(outer - inner, 0), max(lower - upper, 0)
                    numbers, origin, y = piece, max(-left, 0) + left - inner, top - upper
                    if lower > upper and line > 0:
                        load_planes(parts, piece, max(-left, 0), size, x, x_layout, start, 1, (0, upper, inner), 1,
                                    (1, 1, 1), (1, lower - upper, line), phases, 1)  # fmt: skip
                if pace:
                    for slot in range(len(addresses)):
                        there = 0 <= y + slot < tall
                        addresses[slot] = address_of(numbers, origin + (y + slot) * line) if there else nothing
                else:
                    for row in range(rows):
                        for r in range(down):
                            met_row = y + row * paces[1] + r * step[1]
                            there = 0 <= met_row < tall
                            place = address_of(numbers, origin + met_row * line) if there else nothing
                            addresses[row * down + r] = place
                w = ((g * filters + k) * channels + c) * plane
                kernels, line_w = weights, columns
                if w + (rows - 1) * columns + room > len(weights):
                    for row in range(rows):
                        copy_numbers(flat, row * room, weights, w + row * columns, columns)
                    kernels, w, line_w = flat, 0, room
                _sum_up_plane(
                    parts[OTHERS],
                    (sums, kernels, w, line_w, rows, columns, addresses, step[2], reach, width, left, masks, chain,
                     result, at if c == channels - 1 else np.int64(-1)),
                )  # fmt: skip
            _finish(result, at, pitch, bias, g * filters + k, epilogue)
    at = n * out_layout[IMAGE] + begin * filters * out_layout[CHANNEL] + z * out_layout[PLANE]
    unload_planes(parts, out, out_layout, at, (end - begin) * filters, down, across, result, 0, pitch, across)

"""The direct sum as outer products: for kernels larger than their results, as those of weight gradients.

Each element of a kernel adds, to all results, the outer product of what it meets in the input with the elements of all
filters in its place. Results are *rows*, the image and the position, times *lanes*, the filters; a register tile is six
rows times two vectors of lanes, and takes one element after another: a number of each row, broadcast from the planes of
the input as they lie there, and two vectors from a *panel* of as many planes of the kernel as there are lanes,
transposed for the moment. Nothing is packed beforehand: a block of the kernel, some hundred elements of all planes, is
met by a task's rows while it stays in the caches, and sums go through memory between blocks.

Where the result has one position, as that of the gradient of a 1 × 1 convolution, input and filters may change places:
then images are the lanes, the filters are rows and are read as they are.

A row's numbers are found by a table of places, the same for all rows, so that the input is neither gathered nor sorted
by residues of the dilation; its planes are copied only to get their padding.

A task is some rows and some panels. In the words of this problem images are the channels of the convolution that the
gradient belongs to, and channels its images (`npconv.weight_gradient`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, IMAGE, PIXEL, PLANE, ROW
from npconv.kernels.numba import blocking, buffers, jit, product, slab
from npconv.kernels.numba.blocking import SPARE
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, max, min, table, triples, tuple_of
from npconv.kernels.numba.product import width_of
from npconv.kernels.numba.tile import COLUMNS, LEAST_ROWS, ROWS
from npconv.kernels.numba.vector import (
    activated,
    add_column,
    add_row,
    add_to,
    load,
    multiply_add,
    store,
    zeros,
)
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

ELEMENTS = (128, 256, 512)
"""Elements of a kernel that a block may have."""

ROOM = 2**21
"""Bytes that a task works in, at most, if there is a way to cut that keeps to it. Sums that leave the second-level
cache between two blocks cost less than planes that more tasks read: with a task's planes, panels and sums in half of
that cache, weight gradients of 512 channels at 7² took 1.1 to 1.3 times as long, of 128 at 56² at stride 2 1.1, of 1024
at 7² 1.3; with 4 MiB they take as long."""

LOAD, READ, COPY, CHAIN, SUMS, RESULT, LINE, STRAIGHT = 16, 0.1, 0.6, 5, 5, 16, 150, 50
"""What takes time beside the products, in those of a row with a panel (a cycle on two 256-bit FMA units): to transpose
an element of a panel, to read a number where it lies, to copy one, to add a row's chain to its sum, to bring a row's
sums from and to the cache, to transpose a row of results, and to write some of a row where it belongs: in steps of a
power of two, as rows often lie apart, these are in each other's way in all caches, so that 16 panels in one task took
60 % of the time of one panel a task. Fitted on a Zen 3. The last: to write some of a row where it belongs at once, and
which no other thread writes parts of: 1240 → 752 channels at 5² so take 262 µs, and 328 where two do."""


class Sizes(NamedTuple):
    """A problem's numbers, in threes: the kernel takes them as the rows of a matrix."""

    rows: tuple[int, ...]
    """All that there are, those of a task, and in how many shares they are cut; and the same of lanes."""

    lanes: tuple[int, ...]
    images: tuple[int, ...]
    """Groups, channels of a group, and images that are met together."""

    kernel: tuple[int, ...]
    block: tuple[int, ...]
    """Rows and columns of the kernel that are taken together, and how many of these a chain of sums has."""

    results: tuple[int, ...]
    """Of a row and a lane."""

    stride: tuple[int, ...]
    ways: tuple[int, ...]
    """Whether what rows meet is copied, whether rows are filters, and of how many blocks sums are added up by
    themselves, 0 if of all."""

    before: tuple[int, ...]
    """Where the first result meets the rows' images."""

    dilation: tuple[int, ...]
    step: tuple[int, ...]
    """How far apart, in the image, lies what is copied."""

    pace: tuple[int, ...]
    """How far apart, in the copy, lies what neighbouring elements meet."""

    window: tuple[int, ...]
    """What is copied for a block."""

    slab: tuple[int, ...]
    """How far apart copies lie, and whether results have a bias or an activation."""

    before_lanes: tuple[int, ...]
    """Where the lanes' images are met, and how far apart, if these are not filters."""

    dilation_of_lanes: tuple[int, ...]


class Plan(NamedTuple):
    """How a problem is computed."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    swapped: bool
    sizes: Sizes
    matrix: np.ndarray
    line: Plan | None
    """The same for arrays whose pixels all lie at one distance from each other, if that makes a difference."""


class _Cut(NamedTuple):
    """A way to cut a problem into tasks."""

    share: int
    """Images of a task's rows; filters if swapped."""

    together: int
    """Panels of a task."""

    images: int
    rows: int
    columns: int
    """A block's part of the kernel."""

    window: tuple[int, int, int]
    """Planes, rows and columns of the input that it meets."""


pack, pack_bias = slab.filters, product.panel_bias


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    costs = {swapped: _best(problem, threads, swapped) for swapped in (False, True)[: 1 + (problem.positions == 1)]}
    swapped = min(costs, key=lambda swapped: costs[swapped][0])
    line = None
    if problem.kernel_size == problem.input_size and not any(map(any, problem.padding)):
        size = (1, 1, problem.taps)
        if size != problem.kernel_size:
            one = (1, 1, 1)  # an axis of one element may have any dilation
            line = plan(replace(problem, input_size=size, kernel_size=size, dilation=one, stride=one), threads)
    cut = costs[swapped][1]
    padded = any(pad > 0 for pair in problem.padding for pad in pair)
    channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    rows, lanes = (filters, problem.batch) if swapped else (problem.batch, filters)
    wide = product.width(problem.compute_dtype)
    panels = -(-lanes // wide)
    step, pace = _steps(problem)
    plane = buffers.odd_lines(math.prod(cut.window), problem.compute_dtype.itemsize)
    chain, folded = _chains(problem, cut)
    before = tuple(-pad for pad, _ in problem.padding)
    nothing, one = (0, 0, 0), (1, 1, 1)
    copied = not swapped and padded
    sizes = Sizes(
        rows=(rows, cut.share, -(-rows // cut.share)),
        lanes=(lanes, cut.together, -(-panels // cut.together)),
        images=(problem.groups, channels, cut.images),
        kernel=problem.kernel_size,
        block=(cut.rows, cut.columns, chain),
        results=one if swapped else problem.output_size,
        stride=problem.stride,
        ways=(copied, swapped, folded),
        before=nothing if swapped else before,
        dilation=one if swapped else problem.dilation,
        step=step,
        pace=pace,
        window=cut.window,
        slab=(plane, bool(problem.bias or problem.activation), 0),
        before_lanes=before if swapped else nothing,
        dilation_of_lanes=problem.dilation if swapped else one,
    )
    tasks = problem.groups * -(-rows // cut.share) * -(-panels // cut.together)
    scratch = _numbers(problem, cut, swapped), problem.compute_dtype
    return Plan(tasks, problem.flops // 40, scratch, swapped, sizes, np.array(sizes), line)


def _chains(problem: ConvProblem, cut: _Cut) -> tuple[int, int]:
    """Return the length of a chain of sums, and of how many blocks sums are added up by themselves; 0 if of all."""
    elements, (depth, height, width) = cut.images * cut.rows * cut.columns, problem.kernel_size
    chain = blocking.even(elements, chain_length(problem.products))
    blocks = -(-problem.in_channels // problem.groups // cut.images) * depth
    blocks *= -(-height // cut.rows) * -(-width // cut.columns)
    short = chain + blocks * -(-elements // chain) <= 2 * (7 + math.sqrt(problem.products))
    return chain, 0 if short else math.isqrt(blocks)


def _numbers(problem: ConvProblem, cut: _Cut, swapped: bool) -> int:
    """Return how many numbers a task works in: panels, sums, and planes if they are copied."""
    itemsize, wide = problem.compute_dtype.itemsize, product.width(problem.compute_dtype)
    lanes = problem.batch if swapped else problem.out_channels // problem.groups
    number = cut.share * (1 if swapped else problem.positions)
    numbers = cut.together * (cut.images * cut.rows * cut.columns * min(wide, lanes) + wide + buffers.LINE)
    numbers += cut.together * (number + SPARE) * wide * (2 if _chains(problem, cut)[1] else 1)
    if not swapped and any(map(any, problem.padding)):
        numbers += cut.images * cut.share * buffers.odd_lines(math.prod(cut.window), itemsize)
    return numbers


def _steps(problem: ConvProblem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the steps in which the input is copied, and those between what successive elements meet in the copy."""
    one = [n == 1 for n in problem.output_size]  # what lies between the elements is not met
    step = tuple(d if alone else 1 for d, alone in zip(problem.dilation, one, strict=True))
    pace = tuple(1 if alone else d for d, alone in zip(problem.dilation, one, strict=True))
    return (problem.stride[0], *step[1:]), pace


def _best(problem: ConvProblem, threads: int, swapped: bool) -> tuple[float, _Cut]:
    """Return the time that the best cut takes, in products of a row with a panel, and the cut."""
    room = min(ROOM, blocking.share(problem, threads)) // problem.compute_dtype.itemsize
    cuts = sorted(_cuts(problem, threads, swapped), key=lambda found: found[0])
    fitting = (found for found in cuts if _numbers(problem, found[1], swapped) <= room)
    return next(fitting, None) or min(cuts, key=lambda found: _numbers(problem, found[1], swapped))


def _cuts(problem: ConvProblem, threads: int, swapped: bool) -> Iterator[tuple[float, _Cut]]:
    """Yield how long ways to cut a problem take, and the ways."""
    itemsize, wide = problem.compute_dtype.itemsize, product.width(problem.compute_dtype)
    channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    rows, lanes = (filters, problem.batch) if swapped else (problem.batch, filters)
    positions = 1 if swapped else problem.positions
    _, height, width = problem.kernel_size
    panels = -(-lanes // wide)
    padded = not swapped and any(pad > 0 for pair in problem.padding for pad in pair)
    _, pace = _steps(problem)
    longest = chain_length(problem.products)
    shares = dict.fromkeys(blocking.even(rows, -(-rows // parts)) for parts in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64))
    # More only where threads have other rows: else these write parts of a filter's numbers, 24 → 515 at 17², stride 2,
    # 133 µs, or 219.
    some = (1, 2, 3, 4, 6, 8, 12, 16, *[32] * swapped)
    panels_together = dict.fromkeys(blocking.even(panels, together) for together in some)
    for elements in ELEMENTS:
        columns = blocking.even(width, elements)
        lines = blocking.even(height, elements // columns)
        whole = (lines, columns) == (height, width)
        images = min(max(elements // (lines * columns), 1), channels) if whole else 1
        block = images * lines * columns
        _, o_height, o_width = problem.output_size
        window = (problem.output_size[0], (lines - 1) * pace[1] + (o_height - 1) * problem.stride[1] + 1,
                  (columns - 1) * pace[2] + (o_width - 1) * problem.stride[2] + 1)  # fmt: skip
        copied = images * buffers.odd_lines(math.prod(window), itemsize) if padded else 0
        for share, together in itertools.product(shares, panels_together):
            number = share * positions
            tasks = -(-rows // share) * -(-panels // together)
            chains = -(-block // longest)
            times: float = together * (block * (number + LOAD) + number * (SUMS + chains * CHAIN))
            times += share * copied * COPY if padded else number * block * READ
            blocks = problem.products / block
            straight = whole and images == channels and (together > 1 or lanes % wide == 0)
            straight = straight and share * threads <= rows + threads  # else several threads write parts of a row
            line = (STRAIGHT if straight else LINE) if swapped else together * RESULT
            times = times * blocks + number * line
            time = -(-tasks // threads) * threads * times * problem.groups
            yield time, _Cut(share, together, images, lines, columns, window)


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    x_layout = slab.swapped(x_layout)

    def cut(plan: Plan) -> Callable[[str], Callable[..., None]]:
        @cache
        def loading(load: str) -> Callable[..., None]:
            constants = epilogue, out_layout, plan.matrix, slab.parts_of(epilogue.dtype, load, "any")
            return _block.fixed(plan.tasks, plan.work, threads, constants, plan.scratch)

        return loading

    usual = plan, cut(plan), x_layout
    x_line = None if plan.line is None else _in_line(x_layout)
    in_line = None if plan.line is None or x_line is None else (plan.line, cut(plan.line), x_line)

    def fill(x: np.ndarray, weights: tuple[np.ndarray, np.ndarray], bias: np.ndarray, out: np.ndarray) -> None:
        (w, w_layout), (chosen, run, layout) = weights, usual
        w_line = None if in_line is None else _in_line(w_layout)
        if in_line is not None and w_line is not None:
            (chosen, run, layout), w_layout = in_line, w_line
        given = (w, w_layout, x, layout) if chosen.swapped else (x, layout, w, w_layout)
        # What is copied is loaded channel by channel, and other than panels are.
        sizes = chosen.sizes
        (lanes, _, _), (copied, _, _), (_, _, step) = sizes.lanes, sizes.ways, sizes.dilation_of_lanes
        run("any" if copied else slab.loads(given[3], step, lanes))(*given, bias, out)

    return fill


def _in_line(layout: np.ndarray) -> np.ndarray | None:
    """Return the layout of an array whose pixels all lie at one distance from each other, as those of a single row."""
    *strides, depth, height, width = layout.tolist()
    _, _, plane, line, pixel = strides
    if (height > 1 and line != width * pixel) or (depth > 1 and plane != height * width * pixel):
        return None
    return np.array([*strides, 1, 1, depth * height * width])


def _height(rows):  # type: ignore[no-untyped-def]
    """Return the product of ``rows`` rows with a panel."""

    def multiply(sums, at, step, numbers, starts, row, places, count, chain, panel, p, pitch, fresh):  # type: ignore[no-untyped-def]
        begins = tuple_of(starts, row, rows)
        for first in range(0, count, chain):
            tile = zeros(sums, rows, COLUMNS)
            for element in range(first, min(first + chain, count)):
                tile = multiply_add(tile, numbers, begins, tuple_of(places, element, 1)[0], panel, p)
                p += pitch
            if fresh and first == 0:
                store(tile, sums, at, step)
            else:
                add_to(tile, sums, at, step)

    return jit.specialised(multiply, rows, within=True)


_four, _five, _six = (_height(rows) for rows in range(LEAST_ROWS, ROWS + 1))


@jit.inline
def _multiply(  # type: ignore[no-untyped-def]
    sums, at, step, next_sums, back, number, numbers, starts, places, count, chain, panels, together, next_panel, pitch,
    fresh,
):  # fmt: skip
    """Add the products of all rows with some panels to their sums, or begin them; the last sums lie ``back``.

    In tiles as high as the others or one row less. The rows of a tile stay in the first-level cache for all panels,
    and these come from the second: the other way round took 2 to 4 % longer.
    """
    tiles = -(-number // ROWS)
    least, higher = divmod(number, tiles)
    row = 0
    for tile in range(tiles):
        height = least + 1 if tile < higher else least
        place, p = at + row * step, 0
        for k in range(together):
            if k == together - 1:
                place -= back
            if height == ROWS:
                _six(sums, place, step, numbers, starts, row, places, count, chain, panels, p, pitch, fresh)
            elif height == ROWS - 1:
                _five(sums, place, step, numbers, starts, row, places, count, chain, panels, p, pitch, fresh)
            else:
                _four(sums, place, step, numbers, starts, row, places, count, chain, panels, p, pitch, fresh)
            place += next_sums
            p += next_panel
        row += height


_FORM = "anNn"
_taken = taking(_FORM)


@jit.scratch_kernel(_FORM)
@jit.makes_arrays
def _block(task, memory, x, x_layout, lanes_of_all, lanes_layout, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute some rows for some panels; the layouts have images and channels in each other's place."""
    epilogue, out_layout, sizes, slabs = _taken(constants, x)
    (all_rows, share, shares), (lanes, together, groups_of_panels), (_, channels, images), kernel = triples(sizes, 0, 4)
    (block_rows, block_columns, chain), result, stride, (copied, swapped, folded) = triples(sizes, 4, 4)
    origin, dilation, step, pace, window, (plane, finished, _), lanes_origin, lanes_step = triples(sizes, 8, 8)
    task, panel_group = divmod(task, groups_of_panels)
    g, part = divmod(task, shares)
    wide = width_of(out)
    begin = part * share
    share = min(share, all_rows - begin)
    positions = result[0] * result[1] * result[2]
    number = share * positions
    panels = -(-lanes // wide)
    first_panel = panel_group * together
    together = min(together, panels - first_panel)
    # Filters of a group are rows or lanes, its channels are the images of the other array.
    if swapped:
        x_at, lanes_at = (g * all_rows + begin) * x_layout[CHANNEL], g * channels * lanes_layout[IMAGE]
        to_lane, to_row = out_layout[IMAGE], out_layout[CHANNEL]
        out_at = (g * all_rows + begin) * to_row
    else:
        x_at, lanes_at = begin * x_layout[CHANNEL] + g * channels * x_layout[IMAGE], g * lanes * lanes_layout[CHANNEL]
        to_lane, to_row = out_layout[CHANNEL], out_layout[IMAGE]
        out_at = g * lanes * to_lane + begin * to_row
    # The input may have its channels last, and keeps the order that it has.
    at_once = share if x_layout[CHANNEL] == 1 else 1
    if copied:
        to_image, to_line, to_pixel = share * plane, window[2] * at_once, at_once
        to_plane, to_x = window[1] * to_line, 1 if at_once > 1 else plane
        paces = pace
        z_step = 1
    else:
        to_image, to_x, to_plane, to_line, to_pixel = tuple_of(x_layout, 0, 5)
        paces = dilation
        z_step = stride[0]
    starts = table(number + SPARE)
    for row in range(number + SPARE):
        c, position = divmod(min(row, number - 1), positions)
        position, m = divmod(position, result[2])
        i, j = divmod(position, result[1])
        starts[row] = c * to_x + i * z_step * to_plane + j * stride[1] * to_line + m * stride[2] * to_pixel
    places = table(images * block_rows * block_columns)
    for element in range(len(places)):
        image, rest = divmod(element, block_rows * block_columns)
        j, m = divmod(rest, block_columns)
        places[element] = image * to_image + j * paces[1] * to_line + m * paces[2] * to_pixel
    line = buffers.LINE // x.itemsize
    pitch = min(lanes, wide)
    size = (number + SPARE) * wide
    # One array behind the other; each begins with a line of the cache.
    room = (len(places) * pitch + wide + line) // line * line
    first = together * room
    second = first + together * size
    third = second + (together * size if folded else 0)
    panel, sums, totals, piece = memory, after(memory, first), after(memory, second), after(memory, third)
    out_at += first_panel * wide * to_lane
    row_step = _step(out_layout, to_row, result)
    # Where one block is all, and vectors of lanes lie side by side, sums are the results. The last panel may overlap
    # the one before, if that is the task's own: no thread meets what another one writes.
    whole = channels <= images and kernel[0] == 1 and kernel[1] <= block_rows and kernel[2] <= block_columns
    straight = whole and to_lane == 1 and row_step != 0 and not finished
    back = max((first_panel + together) * wide - lanes, 0)
    straight = straight and (back == 0 or together > 1)
    straight = straight and number >= 2 * LEAST_ROWS  # as no tile has a row too many then
    blocks, added = 0, False
    for image in range(0, channels, images):
        many = min(images, channels - image)
        for z in range(kernel[0]):
            for y in range(0, kernel[1], block_rows):
                height = min(block_rows, kernel[1] - y)
                for left in range(0, kernel[2], block_columns):
                    width = min(block_columns, kernel[2] - left)
                    corner = (origin[0] + z * dilation[0], origin[1] + y * dilation[1], origin[2] + left * dilation[2])
                    numbers = piece
                    if copied:
                        rows = window[1] - (block_rows - height) * pace[1] if window[0] == 1 else window[1]
                        for n in range(many):
                            for c in range(0, share, at_once):
                                source = x_at + c * x_layout[CHANNEL] + (image + n) * x_layout[IMAGE]
                                slab.load(slabs, piece, n * to_image + c * to_x, at_once, x, x_layout, source, at_once,
                                          corner, step, (window[0], rows, window[2]))  # fmt: skip
                    else:
                        base = x_at + image * x_layout[IMAGE] + corner[0] * to_plane
                        numbers = x[base + corner[1] * to_line + corner[2] * to_pixel :]
                    for k in range(together):
                        lane = min((first_panel + k) * wide, max(lanes - wide, 0))  # the last panel may overlap
                        for n in range(many):
                            slab.load(
                                slabs, panel, k * room + n * height * width * pitch, pitch, lanes_of_all, lanes_layout,
                                lanes_at + lane * lanes_layout[CHANNEL] + (image + n) * lanes_layout[IMAGE], pitch,
                                (lanes_origin[0] + z * lanes_step[0], lanes_origin[1] + y * lanes_step[1],
                                 lanes_origin[2] + left * lanes_step[2]),
                                lanes_step, (1, height, width),
                            )  # fmt: skip
                    target, at, row_pace, next_sums, skipped = sums, 0, wide, size, 0
                    if straight:
                        target, at, row_pace, next_sums, skipped = out, out_at, row_step, wide, back
                    _multiply(
                        target, at, row_pace, next_sums, skipped, number, numbers, starts, places,
                        many * height * width, chain, panel, together, room, pitch, blocks == 0,
                    )  # fmt: skip
                    blocks += 1
                    if blocks == folded:
                        _fold(totals, sums, together * size, added)
                        blocks, added = 0, True
    if straight:
        return
    if added:
        if blocks:
            _fold(totals, sums, together * size, added)
        sums = totals
    for k in range(together):
        lane = (first_panel + k) * wide
        skipped = lane - min(lane, max(lanes - wide, 0))
        if finished:
            if swapped:
                _finish_rows(sums, k * size, number, bias, (g * -(-all_rows // wide)) * wide + begin, epilogue)
            else:
                _finish(sums, k * size, number, bias, g * panels * wide + lane - skipped, epilogue)
        at, count, begins = out_at + k * wide * to_lane, min(wide, lanes - lane), k * size + skipped
        if row_step != 0:
            slab.unload(slabs, out, at, to_lane, 0, row_step, count, 1, number, sums, begins, number)
        else:
            for row in range(0, number, result[1] * result[2]):
                c, i = divmod(row // (result[1] * result[2]), result[0])
                slab.unload(slabs, out, at + c * to_row + i * out_layout[PLANE], to_lane, out_layout[ROW],
                            out_layout[PIXEL], count, result[1], result[2], sums, begins + row * wide,
                            result[2])  # fmt: skip


@jit.inline
def _fold(totals, sums, count, added):  # type: ignore[no-untyped-def]
    """Add ``count`` sums to the totals, or begin these."""
    for i in range(0, count, width_of(totals)):
        tile = load(sums, i, 1, COLUMNS)
        if added:
            add_to(tile, totals, i, 0)
        else:
            store(tile, totals, i, 0)


@jit.inline
def _finish(sums, first, number, bias, b, epilogue):  # type: ignore[no-untyped-def]
    """Add the bias of a panel's lanes to all rows, and apply the activation."""
    wide = width_of(sums)
    for row in range(number):
        tile = add_row(load(sums, first + row * wide, 1, COLUMNS), bias, b)
        if epilogue[0] != 0:
            tile = activated(tile, epilogue)
        store(tile, sums, first + row * wide, wide)


@jit.inline
def _finish_rows(sums, first, number, bias, b, epilogue):  # type: ignore[no-untyped-def]
    """Add the bias of each row to all lanes, and apply the activation."""
    wide = width_of(sums)
    for row in range(number):
        tile = add_column(load(sums, first + row * wide, 1, COLUMNS), bias, b + row)
        if epilogue[0] != 0:
            tile = activated(tile, epilogue)
        store(tile, sums, first + row * wide, wide)


@jit.inline
def _step(layout, to_row, result):  # type: ignore[no-untyped-def]
    """Return how far the positions of all rows lie apart, 0 if they are not at one distance."""
    depth, height, width = result
    step = to_row if depth * height * width == 1 else layout[PIXEL]
    in_line = to_row == depth * height * width * step and (depth == 1 or layout[PLANE] == height * width * step)
    return step if in_line and (height == 1 or layout[ROW] == width * step) else 0

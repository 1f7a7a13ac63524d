"""The direct sum, with pixels in the vectors: for few channels a group, as depthwise ones, and for planes as they are.

A register tile is some filters times some vectors of neighbouring pixels, all of one group. The planes of the input lie
in the slab with their padding, row behind row, so that the pixels that one tap meets are those of another tap moved by
a constant: a tile runs over the rows' ends as if there were none, and what it computes in the padding between two rows
is left behind. With a stride, rows and columns of one residue lie together and the same holds again. So each product
takes one vector from the slab, wherever it begins, and one number of the weights, broadcast; nothing is gathered.

Where a group has many filters, what they all meet is first copied together: a *sliver* is two vectors of pixels for
each element of a filter, one behind the other, and stays in cache while the weights pass by. Its pixels are those of
results that lie side by side, where one row ends and goes on with the next: so nothing is computed between two rows,
and results are written where they belong. Of the last sliver one vector is computed, if that holds all pixels that are
left. Those of 1 × 1 kernels are cut from the planes as they are, without a slab, and a few pixels that are left have
their channels in the vectors (`npconv.kernels.numba.last_pixels`).

Where a group has few filters, these meet the slab, of some channels at a time if those of all do not fit the cache;
their sums are added to those of the channels before. So tasks have many rows, whose pixels come in long runs: with all
channels of a few rows, 256 to 8 channels at 117², 3 × 3 at stride 2, took 2.3 ms in two threads, and take 1.0, and 512
to 4 at 56² 0.97 and 0.65. By slivers 16 to 40 filters took a tenth longer or up to twice as long, and as long with one
or two channels.

Few filters of a 1 × 1 kernel meet pixels where they are, some channels at a time, too. From a slab of all channels it
took two to three times as long for one filter, and a tenth longer for eight.

Weights are not packed: a tile reads six filters as six streams, so that functions are as fast as layers. Where the
filters lie side by side, as the swapped ones of a 1 × 1 kernel's gradient do, a task copies its own; others whose
numbers lie apart are put in order (`npconv.kernels.numba.rows`).

At a stride, 1 × 1 kernels with many filters meet some pixels only. At 2, every second one is cut from where it is, by
the first tile that meets a sliver, as at stride 1. So the time that all of them, met or not, take to come passes with
products: 320 to 16 channels at 157 × 264 so take 1.3 ms, and took 2.4, 88 to 128 at 115² 0.41 and 0.59. Those of other
strides, or of other memory orders, are put side by side first, for all tasks. Loaded into slabs by each task, 512 to
512 channels at 28² took 8 % longer, 256 to 512 at 56² as long.

Two convolutions of one input whose results are the even and the odd pixels of a row, as the phases of a transposed
convolution of stride 2 are (`npconv.phasing`), are computed together, and their rows merged as they are written. One
of a 1 × 1 kernel is merged with pixels, and rows, that meet no tap.

A task is a rectangle of one plane of the result, for some groups, or some filters of one group
(`npconv.kernels.numba.plane_plan`).

Zhang, Franchetti and Low, *High performance zero-memory overhead direct convolutions* (2018), show that the memory
order of the input decides the speed of a direct sum; the running over the rows' ends is npconv's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from npconv.kernels.layout import CHANNEL, HEIGHT, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import blocking, buffers, jit
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.last_pixels import LAST, left_over, multiply_last
from npconv.kernels.numba.lean import (
    after,
    flattened,
    max,
    min,
    pair_table,
    part_of,
    table,
    triple_table,
    triples,
    tuple_of,
)
from npconv.kernels.numba.moves import BLOCK
from npconv.kernels.numba.pixels import (
    CUTTING,
    WIDEST,
    ahead_of,
    cut_planes,
    cut_slab,
    multiply_planes,
    multiply_slivers,
    starts_halved,
    tiles_of_planes,
    tiles_of_slivers,
    turn_filters,
)
from npconv.kernels.numba.plane_plan import Plan, may_turn, plan_of
from npconv.kernels.numba.plane_slab import OTHERS, load_planes, loads, merge_planes, parts_of, unload_planes
from npconv.kernels.numba.product import width_of
from npconv.kernels.numba.rows import Filters, as_they_lie, in_rows
from npconv.kernels.numba.slab import clear, copy_spaced
from npconv.kernels.numba.tile import COLUMNS, VECTOR_BYTES
from npconv.kernels.numba.vector import lanes_of
from npconv.problem import ConvProblem

MERGED = 32
"""Filters of a group up to which convolutions of several taps are computed together."""


def pack(problem: ConvProblem, weight: np.ndarray) -> Filters:
    """Return filters (K, C/groups, kd, kh, kw) as they are if they lie in C order, or if tasks can turn them."""
    return as_they_lie(weight, may_turn(problem))


def pack_all(problems: Sequence[ConvProblem], weights: Sequence[np.ndarray]) -> Filters:
    """Return the filters of some convolutions one behind the other."""
    if len(weights) == 1:
        return pack(problems[0], weights[0])
    return Filters(in_rows(weights), False)


def pack_bias(problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
    """Return the bias, zeros if there is none."""
    if bias is None:
        return np.zeros(problem.out_channels, problem.compute_dtype)
    return np.array(bias, problem.compute_dtype)


def takes_all(problems: Sequence[ConvProblem]) -> bool:
    """Whether the convolutions, of even and of odd pixels, are computed together.

    Of many filters a group, if each pixel meets one tap: with more, as of 4 × 4 kernels, it took 2 to 10 % longer than
    one after the other by `direct`; of 16 and 32 filters 10 to 25 % less.
    """
    return all(
        problem.stride == (1, 1, 1) and (problem.taps == 1 or problem.out_channels // problem.groups <= MERGED)
        for problem in problems
    )


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    if not blocking.gathers(problem, VECTOR_BYTES // problem.compute_dtype.itemsize):
        return plan_of([problem], threads)
    form = replace(problem, input_size=problem.output_size, stride=(1, 1, 1))
    depth, height, width = form.input_size
    sizes = np.array([form.in_channels, depth, height, width, *problem.stride])
    steps = np.cumprod([1, width, height, depth, form.in_channels])[[4, 3, 2, 1, 0]]
    gathering = (
        form.batch * form.in_channels, problem.compute_dtype, sizes, np.array([*steps, depth, height, width])
    )  # fmt: skip
    return plan_of([form], threads, in_line=True)._replace(gathering=gathering)


_LAST = OTHERS + 3 * CUTTING
"""The place of the part for the last pixels, behind those of slivers."""


@jit.inline
def _straight(rows, columns, line, lined, layout, least):  # type: ignore[no-untyped-def]
    """Whether results are written where they belong, as one row; else they are moved there.

    These make at least the ``least`` pixels, and the last tile goes over the end of the one before. Rows of results are
    computed a ``line`` apart; ``lined`` are those that lie side by side and are computed at once.
    """
    in_row = rows == 1 or (line == columns and layout[ROW] == columns * layout[PIXEL])
    return lined and in_row and (rows - 1) * line + columns >= least


@jit.inline
def _ends_with_half(positions, wide, as_they_are):  # type: ignore[no-untyped-def]
    """Whether half of the last sliver has all pixels that are left. Of planes as they are it would begin too late."""
    left = positions % wide
    return 0 < left <= wide // 2 and (not as_they_are or left == positions)


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    put: Callable[..., None] | None = None
    kept: tuple[np.ndarray, ...] = ()
    if plan.gathering is not None and _are_halved(plan, x_layout, out_layout):
        plan = plan._replace(kernel="halved")
        x_layout = _spaced(plan, x_layout)
    elif plan.gathering is not None:
        channels, dtype, numbers, layout = plan.gathering
        size = plan.shared // dtype.itemsize
        put, kept, x_layout = gather.fixed(channels, size, threads), (x_layout, numbers), layout
    load = "" if plan.kernel in ("whole", "halved") else loads(x_layout, plan.sizes.stride[2])
    unload = not plan.merges and _unloads(plan, out_layout)
    parts = parts_of(epilogue.dtype, load, _tiles(plan, out_layout), unload, plan.merges)

    def cut(sizes: np.ndarray, scratch: tuple[int, np.dtype[Any]]) -> Callable[..., None]:
        constants = x_layout, epilogue, out_layout, plan.grid, sizes, plan.offsets, parts
        return _kernels[plan.kernel].fixed(plan.tasks, plan.work, threads, constants, scratch)

    in_rows, turned = map(cut, plan.matrices, (plan.scratch, plan.turning))

    def fill(x: np.ndarray, weights: Filters, bias: np.ndarray, out: np.ndarray) -> None:
        if put is not None:
            gathered = buffers.aligned(plan.shared).view(x.dtype)
            put(x, gathered, *kept)
            x = gathered
        (turned if weights.turned else in_rows)(x, weights.numbers, bias, out)

    return fill


def _spaced(plan: Plan, layout: np.ndarray) -> np.ndarray:
    """Return the layout of those pixels of an image that are met, of a plan that puts them side by side otherwise."""
    assert plan.gathering is not None
    _, _, numbers, met = plan.gathering
    return np.array([*layout[:2], *layout[2:5] * numbers[4:], *met[5:]])


def _are_halved(plan: Plan, layout: np.ndarray, out_layout: np.ndarray) -> bool:
    """Whether slivers are cut from planes of every second pixel, and of every row that is met.

    A vector has those of two rows at most, and a sliver is full.
    """
    _, to_channel, _, to_row, to_pixel, _, _, width = _spaced(plan, layout).tolist()
    wide = COLUMNS * VECTOR_BYTES // plan.scratch[1].itemsize
    full = all(columns * COLUMNS >= wide for _, columns, _ in _rectangles(plan, out_layout))
    full = full and min(_positions(plan, out_layout)) >= wide
    return full and layout[PIXEL] == 1 and to_pixel == 2 and to_channel > 0 and to_row >= 2 * width


def _rectangles(plan: Plan, layout: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the rows and columns of tasks' results, and how far apart rows are."""
    merged, (_, _, closed) = 2 if plan.merges else 1, plan.sizes.parts
    height, width = layout[6:].tolist()
    sizes = (
        {min(size, most), size % most or most}
        for size, most in zip((height, -(-width // merged)), plan.sizes.block[1:], strict=True)
    )
    return [(rows, columns, columns if closed else plan.sizes.slab[2]) for rows, columns in itertools.product(*sizes)]


def _positions(plan: Plan, layout: np.ndarray) -> list[int]:
    """Return how many pixels tasks compute."""
    return [(rows - 1) * line + columns for rows, columns, line in _rectangles(plan, layout)]


def _tiles(plan: Plan, layout: np.ndarray) -> tuple[jit.Part | None, ...]:
    """Return the parts that multiply filters by what they meet."""
    filters, parts = plan.sizes.channels[1], int(plan.grid[2])
    counts = {(part + 1) * filters // parts - part * filters // parts for part in range(parts)}
    if plan.kernel == "planes":
        return tiles_of_planes(counts)
    wide, whole = COLUMNS * VECTOR_BYTES // plan.scratch[1].itemsize, plan.kernel != "slivers"
    cuts = {"whole": "cutting", "halved": "halving"}.get(plan.kernel, "")
    numbers = _positions(plan, layout)
    channels = plan.sizes.channels[0]
    rests = whole and any(left_over.py_func(number, wide, channels) for number in numbers)
    halves = {bool(_ends_with_half.py_func(number, wide, whole)) for number in numbers}
    return *tiles_of_slivers(counts, cuts, True in halves, max(numbers) <= wide // 2), LAST if rests else None


def _unloads(plan: Plan, layout: np.ndarray) -> bool:
    """Whether there are results, not to be merged, that tasks do not write where they belong."""
    lined = layout[PIXEL] == 1 and plan.sizes.parts[0] == plan.sizes.channels[0]
    least = (COLUMNS if plan.sizes.slivers[0] > 0 else WIDEST) * VECTOR_BYTES // plan.scratch[1].itemsize
    cuts = _rectangles(plan, layout)
    return not all(_straight.py_func(rows, columns, line, lined, layout, least) for rows, columns, line in cuts)


@jit.Kernel
def gather(task, x, out, layout, sizes):  # type: ignore[no-untyped-def]
    """Put the pixels of a channel that a stride meets side by side."""
    channels, depth, height, width, z_stride, y_stride, x_stride = tuple_of(sizes, 0, 7)
    n, c = divmod(task, channels)
    at, step = task * depth * height * width, x_stride * layout[PIXEL]
    for z in range(depth):
        for y in range(height):
            source = n * layout[IMAGE] + c * layout[CHANNEL] + z * z_stride * layout[PLANE] + y * y_stride * layout[ROW]
            copy_spaced(out, at, x, source, step, width)
            at += width


@jit.inline
def _at_once(groups, filters, to_filter, to_channel):  # type: ignore[no-untyped-def]
    """Return the groups, of a task's, that it works on at a time: one, whose planes stay in the first-level cache.

    Where the channels are last, enough of them to transpose straight blocks.
    """
    return min(groups, -(-BLOCK // filters)) if to_filter == 1 or to_channel == 1 else 1


@jit.specialised
def _in_planes(  # type: ignore[no-untyped-def]
    parts, result, at, pitch, weights, turned, k, count, x, start, x_layout, piece, begin, offsets, sums, slivers, fill,
    pixels, places, half, rest, positions, straight, bias, epilogue, channels, rows,
):  # fmt: skip
    """Compute some filters of a group, or sums of some channels, that meet planes in the slab or where they are."""
    weight = first_offset = 0  # where the filters of a convolution begin, and its offsets
    first, some, all_of_them, within = channels
    for phase in range(len(sums)):
        elements, chain, _ = sums[phase]
        taps = elements // all_of_them
        multiply_planes(
            parts, result, at + phase * count * pitch, pitch, weights, weight + k * elements + first * taps, count,
            piece, begin, positions, straight, within, places, after(offsets, first_offset),
            (chain, some * taps, elements), bias, k, epilogue, first == 0, first + some == all_of_them,
        )  # fmt: skip
        weight += len(bias) * elements
        first_offset += elements


def _slivers(whole: bool, halved: bool = False) -> Any:
    """Return the function for filters of a group that meet slivers, cut from the slab or from whole planes.

    Those are of pixels that lie at one distance from each other, or ``halved``, every second one of every row.
    """

    def in_slivers(  # type: ignore[no-untyped-def]
        parts, result, at, pitch, weights, turned, k, count, x, start, x_layout, piece, begin, offsets, sums, slivers,
        fill, pixels, places, half, rest, positions, straight, bias, epilogue, channels, rows,
    ):  # fmt: skip
        wide, (starts, _, line) = width_of(x), rows
        if halved:
            ahead = max(ahead_of(sums[0, 0]), min(slivers, len(pixels)))
            starts_halved(starts, pixels, len(pixels) + ahead, start, x_layout[ROW], line, wide)
        for first in range(0, len(pixels), slivers):
            some = part_of(places, first, min(slivers, len(pixels) - first))
            their_pixels = flattened(after(starts, COLUMNS * first)) if halved else after(pixels, first)
            weight = first_offset = 0  # where the filters of a convolution begin, and its offsets
            for phase in range(len(sums)):
                elements, chain, cut_before = sums[phase]
                to_channel = 0
                if not cut_before:
                    for sliver in range(len(some)):
                        some[sliver, 0] = sliver * (elements + 1) * wide
                    # Channels that are all the same plane, as of an array that is broadcast, are 0 apart.
                    if halved or (whole and x_layout[PIXEL] == 1 and x_layout[CHANNEL] > 0 and positions >= wide):
                        to_channel = x_layout[CHANNEL]
                    else:
                        cut(
                            fill, some, their_pixels, elements, piece, begin,
                            after(offsets, first_offset), x, start, x_layout, positions, rows,
                        )  # fmt: skip
                begin_with = 0 if turned else weight + k * elements
                multiply_slivers(
                    parts, result, at + phase * count * pitch, pitch, weights, begin_with, count, fill, some,
                    half if first + slivers >= len(pixels) else np.int64(0), turned, (chain, elements), bias, k,
                    epilogue, (x, start, their_pixels, to_channel, halved),
                )  # fmt: skip
                weight += len(bias) * elements
                first_offset += elements
        if len(rest):
            weight = 0
            for phase in range(len(sums)):
                elements, chain, _ = sums[phase]
                multiply_last(
                    parts[_LAST], result, at + phase * count * pitch + positions - len(rest), pitch, weights,
                    weight + k * elements, count, elements, x, start, x_layout[CHANNEL], rest, fill, chain, bias, k,
                    epilogue,
                )  # fmt: skip
                weight += len(bias) * elements

    cut = cut_planes if whole else cut_slab
    return jit.specialised(in_slivers, whole, halved)


@jit.inline
def _turn_nothing(turned, filters, first, to_element, count, elements, unit):  # type: ignore[no-untyped-def]
    """Do nothing, as filters lie in order: the kernel calls this, or what turns those that lie side by side."""


_FORM = "nannNnn"
_taken = taking(_FORM)


def _kernel(products: Any, turn: Any, name: str) -> jit.Kernel:
    """Return the kernel that turns filters and multiplies by these functions."""

    def block(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
        """Compute a rectangle of the result for some groups, or some filters of a group."""
        x_layout, epilogue, out_layout, grid, sizes, offsets, parts = _taken(constants, x)
        task, horizontal = divmod(task, grid[5])
        task, vertical = divmod(task, grid[4])
        task, z = divmod(task, grid[3])
        task, part = divmod(task, grid[2])
        n, first_group = divmod(task, grid[1])
        stride, (depth_step, down, across), before, window, block, (channels, filters, plane), others, cut = triples(
            sizes, 0, 8
        )
        groups, together, all_rows = others
        ((some, pointwise, closed),) = triples(sizes, 8, 1)
        at_once = _at_once(together, filters, out_layout[CHANNEL], x_layout[CHANNEL])
        first_group *= together
        together = min(together, groups - first_group)
        first_filter = part * filters // grid[2]
        count = (part + 1) * filters // grid[2] - first_filter  # of each group
        sums = after(sizes, 9)
        merged = 2 if all_rows or len(sums) > 1 else 1
        row, column = vertical * block[1], horizontal * block[2]
        rows, columns = min(block[1], out_layout[HEIGHT] - row), min(block[2], -(-out_layout[WIDTH] // merged) - column)
        phases = after(offsets, len(offsets) - down - across)
        slivers, longest = cut[0], max(sums[0, 0], sums[len(sums) - 1, 0])  # of one convolution, or two
        size = some * window[0] * down * across * plane
        wide = width_of(x)
        spare = WIDEST * lanes_of(x)
        line = columns if closed > 0 else window[2]
        positions = (rows - 1) * line + columns
        pitch = -(-positions // lanes_of(x)) * lanes_of(x) + spare
        straight = _straight(
            rows, columns, line, merged == 1 and out_layout[PIXEL] == 1 and some == channels, out_layout,
            wide if slivers else spare,
        )  # fmt: skip
        as_they_are = cut[1] > 0
        # Pixels that are met alone, side by side, are read where they are.
        in_place = pointwise > 0 and x_layout[PIXEL] == 1 and rows == 1 and positions >= spare
        if as_they_are:
            size = 0
        to_element = cut[2]
        if to_element:
            room = -(-count * longest // wide) * wide
            filters_of, scratch = scratch, after(scratch, room)
            turn(filters_of, weights, first_filter, to_element, count, longest, 1)
        else:
            filters_of = weights
        fill, scratch = scratch, after(scratch, slivers * (longest + 1) * wide)
        piece, result = scratch, after(scratch, at_once * size + spare)
        # Of each sliver, the first pixel and the place of its results.
        left = left_over(positions, wide, channels) if as_they_are and to_element == 0 else 0
        rest = table(left)
        for pixel in range(left):
            below, across_row = divmod(positions - left + pixel, columns)
            rest[pixel] = below * x_layout[ROW] + across_row * x_layout[PIXEL]
        many = -(-(positions - left) // wide)
        # Parts of rows: one for each sliver, one for each row that begins in one; the last goes back over some rows. Or
        # vectors of slivers, and of those to come.
        parts_of_rows = many + max(2 * rows, COLUMNS * max(ahead_of(longest), min(slivers, many)) + many)
        pixels, places, rows_of = table(many), pair_table(many * COLUMNS), triple_table(parts_of_rows)
        between_ends = columns if closed > 0 else 2**40  # results until one row goes on with the next
        half = np.int64(slivers > 0 and _ends_with_half(positions - left, wide, as_they_are))
        for sliver in range(many):
            pixel = sliver * wide
            if straight or as_they_are:
                last = wide // 2 if half > 0 and sliver == many - 1 else wide
                pixel = max(min(pixel, positions - last), 0)
            pixels[sliver], places[sliver, 1] = pixel, pixel
        if in_place:
            offsets = table(some)
            for channel in range(some):
                offsets[channel] = channel * x_layout[CHANNEL]
        elif not as_they_are:
            clear(piece, 0, at_once * size)  # once: what is padding for one group is padding for the others
        for begin in range(first_group, first_group + together, at_once):
            number = min(at_once, first_group + together - begin)
            start = n * x_layout[IMAGE] + begin * channels * x_layout[CHANNEL]
            origin = (before[0] + z * stride[0], before[1] + row * stride[1], before[2] + column * stride[2])
            at = n * out_layout[IMAGE] + (begin * filters + first_filter) * out_layout[CHANNEL] + z * out_layout[PLANE]
            at += row * out_layout[ROW] + column * merged * out_layout[PIXEL]
            for channel in range(0, channels, some):
                now = min(some, channels - channel)
                if not in_place and not as_they_are:
                    load_planes(
                        parts, piece, 0, plane, x, x_layout, start + channel * x_layout[CHANNEL], number * now,
                        origin, depth_step, stride, window, phases, down,
                    )  # fmt: skip
                first_pixel = start + origin[0] * x_layout[PLANE] + row * x_layout[ROW] + column * x_layout[PIXEL]
                for g in range(number):
                    k = (begin + g) * filters + first_filter
                    if straight:
                        target, to, step = out, at + g * filters * out_layout[CHANNEL], out_layout[CHANNEL]
                    else:
                        target, to, step = result, 0 if merged > 1 else g * count * pitch, pitch
                    if in_place:
                        source, source_at = x, first_pixel + (g * channels + channel) * x_layout[CHANNEL]
                    else:
                        source, source_at = piece, g * size
                    products(
                        parts, target, to, step, filters_of, to_element > 0, k, count, x, first_pixel, x_layout, source,
                        source_at, offsets, sums, slivers, fill, pixels, places, half, rest, positions, straight, bias,
                        epilogue, (channel, now, channels, in_place), (rows_of, between_ends, window[2]),
                    )  # fmt: skip
                    if merged > 1:
                        merge_planes(
                            parts, out, out_layout, at + g * filters * out_layout[CHANNEL], count, rows,
                            min(rows, all_rows // 2 - row), columns, column, result, pitch, line, bias, k,
                            all_rows,
                        )  # fmt: skip
            if merged == 1 and not straight:
                unload_planes(parts, out, out_layout, at, number * count, rows, columns, result, 0, pitch, line)

    return jit.scratch_kernel(_FORM, name)(jit.makes_arrays(block))


_kernels = {
    "planes": _kernel(_in_planes, _turn_nothing, "planes"),
    "slivers": _kernel(_slivers(False), turn_filters, "slivers"),
    "whole": _kernel(_slivers(True), turn_filters, "whole"),
    "halved": _kernel(_slivers(True, halved=True), turn_filters, "halved"),
}
"""By what filters meet: planes, slivers cut from a slab of them, from whole planes, or from those at stride 2."""

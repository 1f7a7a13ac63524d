"""Winograd's minimal filtering for calls that bring plain weights (`npconv.kernels.numba.winograd` tells the rest).

Packed filters take 2 to 9 times the memory of plain ones, and a call uses each only a few times. So nothing is packed
beforehand: one kernel transforms the input to points, which all threads share, and the tasks of another each pack the
filters of a panel, some channels at a time, which stay in cache until they have met all points of the task.

Tiles are counted in *lines*, one row of tiles of an image, or of a part of its width, behind the other. Where the
points of all are too many for the workspace, they come in *bands* of lines, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.filtering import Filtering, axes, pitch_of
from npconv.kernels.numba import bands, buffers, jit, product, slab
from npconv.kernels.numba.blocking import SPARE
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, min, triples, tuple_of
from npconv.kernels.numba.points import (
    FILTERS,
    SUMS,
    TILES,
    filters_to_points,
    numbers_of,
    parts_of,
    sums_to_results,
    tiles_to_points,
)
from npconv.kernels.numba.product import LEAST_ROWS, multiply_rows, width_of
from npconv.kernels.numba.vector import fence
from npconv.kernels.numba.winograd import apart, chains_of, met, unload
from npconv.problem import ConvProblem

REUSED = 2
"""Panels that each thread meets with the points of all, at least, for these to be written past the caches: with one,
the input gradient of 5 × 5, 64 → 192 channels at 27², took 2.1 ms instead of 1.4."""


class Band(NamedTuple):
    """Some lines, as the kernels take them."""

    points: tuple[int, np.ndarray]
    products: tuple[int, np.ndarray]


class Plan(NamedTuple):
    """A problem's numbers, as the kernels take them."""

    axes: tuple[Filtering, Filtering]
    bands: list[Band]
    points: int
    work: int
    scratch: tuple[int, int]
    dtype: np.dtype[Any]
    sizes: np.ndarray
    filterings: np.ndarray
    past: bool
    """Whether points are written past the caches."""

    bytes: int
    """Of workspace, as so many threads share it."""


_TO_POINTS = "nNn"
_taken_by_to_points = taking(_TO_POINTS)
_PRODUCTS = "nanNNn"
_taken_by_products = taking(_PRODUCTS)


@jit.scratch_kernel(_TO_POINTS)
def _to_points(task, piece, x, points, constants):  # type: ignore[no-untyped-def]
    """Transform some lines of some channels."""
    numbers, filterings, parts = _taken_by_to_points(constants, x)
    x_layout, before, steps, z_stride = numbers, tuple_of(numbers, 8, 3), tuple_of(numbers, 11, 3), numbers[14]
    depth, segments, tile_rows, tile_columns, channels, planes = tuple_of(numbers, 15, 6)
    first_line, end_line, together, width, step, between = tuple_of(numbers, 21, 6)
    (n, _, _), (_, y_pace, x_pace), (_, y_reach, x_reach), folds, units, parted = triples(filterings, 0, 6)
    group, part = divmod(task, -(-channels // width))
    begin = part * width
    count = min(width, channels - begin)
    folds_of_all, folded = folds[1] * folds[2], count * folds[1] * folds[2]
    line = first_line + group * together
    end = min(line + together, end_line)
    while line < end:
        other, row = divmod(line, tile_rows)
        some = min(end - line, tile_rows - row)
        other, segment = divmod(other, segments)
        other, right = divmod(other, steps[2])
        other, lower = divmod(other, steps[1])
        image, z = divmod(other, depth)
        shape = (planes, (some - 1) * y_pace + y_reach, (tile_columns - 1) * x_pace + x_reach)
        origin = (
            before[0] + z * z_stride, before[1] + row * y_pace * units[1] * steps[1] + lower,
            before[2] + segment * tile_columns * x_pace * units[2] * steps[2] + right,
        )  # fmt: skip
        start = image * x_layout[0] + begin * x_layout[1]
        slab.load_folded(
            parts, piece, 0, between, x, x_layout, start, count, origin, steps, shape, units, folds, parted
        )
        room = planes * width * folds_of_all
        to = part * n * step + (line - first_line) * tile_columns * room
        plane = shape[1] * shape[2] * between
        tiles_to_points(
            parts[TILES],
            (points, to, step, room, piece, 0, shape[2], between, plane, some, tile_columns, planes, folded),
        )
        line += some
    fence()


@jit.scratch_kernel(_PRODUCTS)
def _products(task, memory, points, weights, packing, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a panel of filters for some lines."""
    numbers, epilogue, out_layout, sizes, filterings, parts = _taken_by_products(constants, points)
    first_line, end_line, share, panels, width, step = tuple_of(numbers, 0, 6)
    (depth, segments, tile_rows), (tile_columns, channels, planes), (filters, y_step, x_step) = triples(sizes, 0, 3)
    (n, down, across), folds = filterings[0], filterings[3, 1] * filterings[3, 2]
    section, panel = divmod(task, panels)
    first = first_line + section * share
    last = min(first + share, end_line)
    tiles = (last - first) * tile_columns
    elements, wide = width * planes * folds, width_of(out)
    pitch = apart(elements)
    room = tiles + SPARE  # what tiles spill over may be added to
    line = buffers.LINE // points.itemsize
    # One array behind the other; each begins with a line of the cache.
    second = ((n * room + SPARE) * wide + line) // line * line
    third = (second + down * tile_columns * across * wide + line) // line * line
    fourth = (third + n * pitch * wide + line) // line * line
    products, result, packed, taps = memory, after(memory, second), after(memory, third), after(memory, fourth)
    portions, pieces = -(-channels // width), width // packing[15]
    for part in range(portions):
        begin, count = part * width, min(width, channels - part * width)
        for piece in range(part * pieces, min((part + 1) * pieces, packing[1])):
            channel, some, wanted = product.load_filters(panel, piece, taps, weights, packing)
            filters_to_points(parts[FILTERS], (packed, channel - begin, count, pitch, taps, some, planes, wanted))
        count *= planes * folds
        chains = chains_of(count)
        for point in range(n):
            start, w = (part * n + point) * step + (first - first_line) * tile_columns * elements, point * pitch
            for chain in range(chains):
                begin, end = count * chain // chains, count * (chain + 1) // chains
                multiply_rows(
                    products, point * room, points, start + begin, elements, 1, tiles, packed,
                    (w + begin) * wide, end - begin, part + chain == 0, filters - panel * wide,
                )  # fmt: skip
    k = panel * wide
    for at_line in range(first, last):
        other, row = divmod(at_line, tile_rows)
        other, segment = divmod(other, segments)
        other, right = divmod(other, x_step)
        other, lower = divmod(other, y_step)
        image, z = divmod(other, depth)
        row, column = row * down, segment * tile_columns * across
        rows = min(-(-(out_layout[6] - lower) // y_step) - row, down)
        columns = min(-(-(out_layout[7] - right) // x_step) - column, tile_columns * across)
        if rows <= 0 or columns <= 0:
            continue
        sums_to_results(
            parts[SUMS],
            (result, 0, tile_columns * across, products, room, (at_line - first) * tile_columns, 1,
             -(-columns // across), bias, k, epilogue, min(filters - k, wide)),
        )  # fmt: skip
        unload(
            parts, out, out_layout, (image, 0, k, z), (lower, right), (y_step, x_step), (row, column),
            filters, rows, columns, result, tile_columns * across,
        )  # fmt: skip


class Plain:
    """Tiles of so many results down and across as an engine: `npconv.kernels.packed` tells what its methods do."""

    def __init__(self, *results: int) -> None:
        self._results = results[0], results[-1]

    packer, pack_bias = staticmethod(product.plain_packer), staticmethod(product.panel_bias)

    def plan(self, problem: ConvProblem, threads: int) -> Plan:
        """Cut a canonical problem into tasks."""
        filterings = axes(problem, self._results)
        down, across = filterings
        n, itemsize = down.points * across.points, problem.compute_dtype.itemsize
        wide = product.width(problem.compute_dtype)
        found = bands.cut(problem, self._results, threads, wide)
        channels, planes = problem.in_channels, problem.kernel_size[0]
        tile_columns = found.tile_columns
        tile_rows = -(-problem.output_size[1] // (problem.dilation[1] * down.results))
        line = buffers.LINE // itemsize
        folded = found.width * down.fold * across.fold
        width, between = folded * planes, pitch_of(folded, itemsize)
        step = apart.py_func(-(-found.band * tile_columns * width // line)) * line
        before = [-(pad // up) for (pad, _), up in zip(problem.padding, problem.up or (1, 1, 1), strict=True)]
        parts = -(-channels // found.width)
        panels = -(-problem.out_channels // wide)
        depth = problem.output_size[0]
        sizes = [before, problem.dilation, [problem.stride[0]], [depth, found.segments, tile_rows, tile_columns],
                 [channels, planes]]  # fmt: skip
        all_bands = []
        for first in range(0, found.lines, found.band):
            last = min(first + found.band, found.lines)
            numbers = np.concatenate([*sizes, [first, last, found.together, found.width, step, between]])
            all_bands.append(
                Band(
                    (parts * -(-(last - first) // found.together), numbers),
                    (
                        panels * -(-(last - first) // found.share),
                        np.array([first, last, found.share, panels, found.width, step]),
                    ),
                )
            )
        work = problem.flops // 80 // len(all_bands)
        in_lines = channels % line == width % line == 0
        past = in_lines and panels >= REUSED * threads and jit.past_caches(work, threads)
        scratch = bands.scratch(problem, filterings, found.share * tile_columns, tile_columns, wide)
        return Plan(
            filterings, all_bands, parts * n * step + LEAST_ROWS * width,
            work, (found.loaded, scratch), problem.compute_dtype,
            np.array([(depth, found.segments, tile_rows), (tile_columns, channels, planes),
                      (problem.out_channels, *problem.dilation[1:])]),
            np.array(numbers_of(filterings)), past, found.bytes,
        )  # fmt: skip

    def fixed(
        self, plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
    ) -> Callable[..., None]:
        """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
        load = slab.loads(x_layout, plan.axes[1].steps[0] * plan.sizes[2, 2], plan.sizes[1, 1])
        unload = slab.unloads(out_layout, plan.sizes[2, 2])
        parts_of_tiles = parts_of(plan.axes, plan.dtype, (TILES,), load, past=plan.past)
        parts = parts_of(plan.axes, plan.dtype, (SUMS, FILTERS), "", unload)
        loading, working = ((numbers, plan.dtype) for numbers in plan.scratch)
        steps = []
        for (loads, numbers), (products, others) in plan.bands:
            layout = met(x_layout, out_layout, plan.axes, numbers)
            given = np.concatenate([layout, numbers]), plan.filterings, parts_of_tiles
            constants = others, epilogue, out_layout, plan.sizes, plan.filterings, parts
            steps.append((
                _to_points.fixed(loads, plan.work, threads, given, loading),
                _products.fixed(products, plan.work, threads, constants, working),
            ))  # fmt: skip

        def fill(x: np.ndarray, weights: product.Weights, bias: np.ndarray, out: np.ndarray) -> None:
            points = buffers.aligned(plan.points * plan.dtype.itemsize).view(plan.dtype)
            for to_points, multiply in steps:
                to_points(x, points)
                multiply(points, *weights, bias, out)

        return fill


two, two_by_four, four = Plain(2), Plain(2, 4), Plain(4)

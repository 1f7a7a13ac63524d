"""Winograd's minimal filtering of filters that tasks transform (`npconv.kernels.numba.winograd` tells the rest).

Transformed filters take 2 to 9 times the memory of plain ones, and a call uses each only a few times. So where a call
brings plain filters, nothing is packed beforehand: one kernel transforms the input to points, which all threads share,
and the tasks of another each pack the filters of a panel, some channels at a time, which stay in cache until they have
met all points of the task.

Large filters of layers are packed beforehand, but not transformed either (`Panels`): beyond what the last level of
cache holds, two to four times as many numbers take longer to come than to be made anew. In two threads layers of 448 →
992 channels at 19² so take 4.9 ms and took 6.6, 512 at 14² 1.9 instead of 2.0 to 2.3.

Tiles are counted in *lines*, one row of tiles of an image, or of a part of its width, behind the other. Where the
points of all are too many for the workspace, they come in *bands* of lines, one after the other.

Where filters are few, a task has all of them, and makes the points of its lines itself: of some channels at a time,
whose products it adds to those of the channels before. So neither points nor filters ever leave its cache, and all
filters are transformed once for each task, instead of once for each part of a band. So it is with groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.filtering import Filtering, axes, last_axes, pitch_of
from npconv.kernels.layout import CHANNEL, HEIGHT, IMAGE, WIDTH
from npconv.kernels.numba import bands, buffers, jit, product, slab
from npconv.kernels.numba.blocking import SPARE
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, min, triples, tuple_of
from npconv.kernels.numba.points import (
    FILTERS,
    SUMS,
    TILES,
    filters_to_points,
    met_by,
    numbers_of,
    parts_of,
    sums_to_results,
    tiles_to_points,
)
from npconv.kernels.numba.product import multiply_rows, width_of
from npconv.kernels.numba.short import KINDS, begins, rectangle, takers
from npconv.kernels.numba.tile import LEAST_ROWS
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
    last: tuple[Filtering, Filtering]
    bands: list[Band]
    points: int
    work: int
    scratch: tuple[int, int]
    dtype: np.dtype[Any]
    sizes: np.ndarray
    filterings: np.ndarray
    past: bool
    """Whether points are written past the caches."""

    own: bool
    """Whether tasks make points of their own."""

    bytes: int
    """Of workspace, as so many threads share it."""


_TO_POINTS = "nNn"
_taken_by_to_points = taking(_TO_POINTS)
_PRODUCTS = "nanNNn"
_taken_by_products = taking(_PRODUCTS)


@jit.inline
def _lines_of(first, end, tile_rows, short):  # type: ignore[no-untyped-def]
    """Return how many of some lines are of whole tiles, and how many of tiles that are short down, if any are."""
    lower = end // tile_rows - first // tile_rows if short else 0
    return end - first - lower, lower


@jit.inline
def _begins(first, end, tile_rows, tile_columns, short):  # type: ignore[no-untyped-def]
    """Return where tiles of each kind begin, of all tiles of some lines."""
    whole, lower = _lines_of(first, end, tile_rows, short[0])
    columns = tile_columns - short[1]
    return begins((end - first) * tile_columns, lower * columns, whole * short[1], lower * short[1])


@jit.inline
def _before(kind, first, line, tile_rows, tile_columns, short):  # type: ignore[no-untyped-def]
    """Return how many tiles of a kind there are in the lines from ``first`` on, before another."""
    whole, lower = _lines_of(first, line, tile_rows, short[0])
    return (lower if kind & 1 else whole) * (short[1] if kind & 2 else tile_columns - short[1])


@jit.inline
def _transform(parts, piece, x, points, to, step, numbers, filterings, first, line, end, begin, count):  # type: ignore[no-untyped-def]
    """Transform some lines of ``count`` channels, from ``begin`` on, to points that lie a ``step`` apart.

    Sections of lines, from ``first`` on, have their tiles in the order of their kinds (`npconv.kernels.numba.short`).
    """
    x_layout, before, steps, z_stride = numbers, tuple_of(numbers, 8, 3), tuple_of(numbers, 11, 3), numbers[14]
    depth, segments, tile_rows, tile_columns, planes = tuple_of(numbers, 15, 5)
    together, width, between = tuple_of(numbers, 20, 3)
    share, last = numbers[27], numbers[25]
    _, (_, y_pace, x_pace), (_, y_reach, x_reach), folds, units, parted, ends = triples(filterings, 0, 7)
    short = ends[1], ends[2]
    folds_of_all, folded = folds[1] * folds[2], count * folds[1] * folds[2]
    room = planes * width * folds_of_all
    while line < end:
        section = first + (line - first) // share * share
        end_section = min(section + share, last)
        other, row = divmod(line, tile_rows)
        some = min(min(min(end, end_section) - line, tile_rows - row), together)
        other, segment = divmod(other, segments)
        other, right = divmod(other, steps[2])
        other, lower = divmod(other, steps[1])
        image, z = divmod(other, depth)
        shape = (planes, (some - 1) * y_pace + y_reach, (tile_columns - 1) * x_pace + x_reach)
        origin = (
            before[0] + z * z_stride, before[1] + row * y_pace * units[1] * steps[1] + lower,
            before[2] + segment * tile_columns * x_pace * units[2] * steps[2] + right,
        )  # fmt: skip
        start = image * x_layout[IMAGE] + begin * x_layout[CHANNEL]
        slab.load_folded(
            parts, piece, 0, between, x, x_layout, start, count, origin, steps, shape, units, folds, parted
        )
        plane = shape[1] * shape[2] * between
        begin_of = _begins(section, end_section, tile_rows, tile_columns, short)
        here = min(short[0], (row + some) // tile_rows), short[1]
        for kind in range(KINDS):
            (top, left), (rows, columns) = rectangle(kind, some, tile_columns, here)
            if rows * columns > 0:
                at = begin_of[kind] + _before(kind, section, line, tile_rows, tile_columns, short)
                tiles_to_points(
                    parts[TILES + kind],
                    (points, to + ((section - first) * tile_columns + at) * room, step, room, piece,
                     (top * y_pace * shape[2] + left * x_pace) * between, shape[2], between, plane, rows, columns,
                     planes, folded),
                )  # fmt: skip
        line += some


@jit.scratch_kernel(_TO_POINTS)
def _to_points(task, piece, x, points, constants):  # type: ignore[no-untyped-def]
    """Transform some lines of some channels."""
    numbers, filterings, parts = _taken_by_to_points(constants, x)
    together, width = numbers[20], numbers[21]
    channels, first_line, end_line, step = tuple_of(numbers, 23, 4)
    group, part = divmod(task, -(-channels // width))
    begin, line = part * width, first_line + group * together
    _transform(
        parts, piece, x, points, part * filterings[0, 0] * step, step, numbers, filterings, first_line, line,
        min(line + together, end_line), begin, min(width, channels - begin),
    )  # fmt: skip
    fence()


def _multiplying(own: bool) -> jit.Kernel:
    """Return the kernel of the products, of points that all share or, for all panels, of its ``own``."""

    def products(task, memory, given, weights, packing, bias, out, constants):  # type: ignore[no-untyped-def]
        """Compute a panel of filters, or all panels, for some lines."""
        numbers, epilogue, out_layout, sizes, filterings, parts = _taken_by_products(constants, given)
        first_line, end_line, share, panels, width, step = tuple_of(numbers, 0, 6)
        (depth, segments, tile_rows), (tile_columns, channels, planes), (filters, y_step, x_step) = triples(sizes, 0, 3)
        (n, down, across), folds, distinct = filterings[0], filterings[3, 1] * filterings[3, 2], filterings[1, 0]
        if own:
            g, section = divmod(task, -(-(end_line - first_line) // share))
            panel, end_panel = 0, panels
        else:
            section, panel = divmod(task, panels)
            g, end_panel = 0, panel + 1
        first = first_line + section * share
        last = min(first + share, end_line)
        tiles = (last - first) * tile_columns
        elements, wide = width * planes * folds, width_of(out)
        pitch = apart(elements)
        short = filterings[6, 1], filterings[6, 2]
        begin_of = _begins(first, last, tile_rows, tile_columns, short)
        room = tiles + SPARE  # what tiles spill over may be added to
        sums = (n * room + SPARE) * wide  # of a panel
        line = buffers.LINE // given.itemsize
        # One array behind the other; each begins with a line of the cache.
        second = ((end_panel - panel) * sums + line) // line * line
        third = (second + down * tile_columns * across * wide + line) // line * line
        fourth = (third + distinct * pitch * wide + line) // line * line
        all_sums, result, packed, taps = memory, after(memory, second), after(memory, third), after(memory, fourth)
        fifth = (fourth + packing[product.TAPS] * packing[product.SHARE] * wide + line) // line * line
        points, piece = given, given
        if own:
            points, piece = after(memory, fifth), after(memory, fifth + n * step + LEAST_ROWS * elements)
        portions, pieces = -(-channels // width), width // packing[product.SHARE]
        for part in range(portions):
            begin, of_all = part * width, min(width, channels - part * width)
            count = of_all * planes * folds
            first_point = 0
            if own:
                _transform(
                    parts, piece, given, points, 0, step, after(numbers, 6), filterings, first, first,
                    last, g * channels + begin, of_all,
                )  # fmt: skip
            else:
                first_point = part * n * step + (first - first_line) * tile_columns * elements
            chains = chains_of(count)
            for of_panel in range(panel, end_panel):
                for some in range(part * pieces, min((part + 1) * pieces, packing[product.PIECES])):
                    channel, number, wanted = product.load_filters(g * panels + of_panel, some, taps, weights, packing)
                    filters_to_points(
                        parts[FILTERS], (packed, channel - begin, of_all, pitch, taps, number, planes, wanted)
                    )
                for point in range(n):
                    number, kind = met_by(filterings, 0, point)
                    tile, end_tile = takers(begin_of, tiles, kind)
                    if tile == end_tile:
                        continue
                    start, w = first_point + point * step + tile * elements, number * pitch
                    for chain in range(chains):
                        at, end = count * chain // chains, count * (chain + 1) // chains
                        multiply_rows(
                            all_sums, (of_panel - panel) * (n * room + SPARE) + point * room + tile, points,
                            start + at, elements, 1, end_tile - tile, packed, (w + at) * wide, end - at,
                            part + chain == 0, filters - of_panel * wide,
                        )  # fmt: skip
        for of_panel in range(panel, end_panel):
            k = of_panel * wide
            for at_line in range(first, last):
                other, row = divmod(at_line, tile_rows)
                other, segment = divmod(other, segments)
                other, right = divmod(other, x_step)
                other, lower = divmod(other, y_step)
                image, z = divmod(other, depth)
                row, column = row * down, segment * tile_columns * across
                rows = min(-(-(out_layout[HEIGHT] - lower) // y_step) - row, down)
                columns = min(-(-(out_layout[WIDTH] - right) // x_step) - column, tile_columns * across)
                if rows <= 0 or columns <= 0:
                    continue
                here = min(short[0], (row // down + 1) // tile_rows), short[1]
                for kind in range(KINDS):
                    (_, left), (some_rows, some_columns) = rectangle(kind, 1, -(-columns // across), here)
                    if some_rows * some_columns > 0:
                        tile = (of_panel - panel) * (n * room + SPARE) + begin_of[kind]
                        tile += _before(kind, first, at_line, tile_rows, tile_columns, short)
                        sums_to_results(
                            parts[SUMS + kind],
                            (result, left * across, tile_columns * across, all_sums, room, tile, 1, some_columns, bias,
                             g * panels * wide + k, epilogue, min(filters - k, wide)),
                        )  # fmt: skip
                unload(
                    parts, out, out_layout, (image, g, k, z), (lower, right), (y_step, x_step), (row, column),
                    filters, rows, columns, result, tile_columns * across,
                )  # fmt: skip

    return jit.scratch_kernel(_PRODUCTS, own)(products)


_products, _products_of_own = _multiplying(False), _multiplying(True)


class Plain:
    """Tiles of so many results down and across as an engine: `npconv.kernels.packed` tells what its methods do."""

    def __init__(self, *results: int) -> None:
        self._results = results[0], results[-1]

    packer, pack_bias = staticmethod(product.plain_packer), staticmethod(product.panel_bias)

    def plan(self, problem: ConvProblem, threads: int) -> Plan:
        """Cut a canonical problem into tasks."""
        filterings, ends = axes(problem, self._results), last_axes(problem, self._results)
        down, across = filterings
        n, itemsize = down.points * across.points, problem.compute_dtype.itemsize
        wide = product.width(problem.compute_dtype)
        found = bands.cut(problem, self._results, threads, wide)
        channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
        planes = problem.kernel_size[0]
        if found.segments > 1:  # of whose lines some have short tiles, and others none
            ends = ends[0], across
        tile_columns = found.tile_columns
        tile_rows = -(-problem.output_size[1] // (problem.dilation[1] * down.results))
        line = buffers.LINE // itemsize
        folded = found.width * down.fold * across.fold
        width, between = folded * planes, pitch_of(folded, itemsize)
        step = apart.py_func(-(-found.band * tile_columns * width // line)) * line
        before = [-(pad // up) for (pad, _), up in zip(problem.padding, problem.up or (1, 1, 1), strict=True)]
        parts = -(-channels // found.width)
        panels = -(-filters // wide)
        depth = problem.output_size[0]
        form = [*before, *problem.dilation, problem.stride[0], depth, found.segments, tile_rows, tile_columns, planes,
                found.together, found.width, between, channels]  # fmt: skip
        all_bands = []
        for first in range(0, found.lines, found.lines if found.own else found.band):
            last = found.lines if found.own else min(first + found.band, found.lines)
            numbers = np.array([*form, first, last, step, found.share])
            sections = np.array([first, last, found.share, panels, found.width, step])
            tasks = -(-(last - first) // found.share) * (problem.groups if found.own else panels)
            all_bands.append(Band((parts * -(-(last - first) // found.together), numbers), (tasks, sections)))
        work = problem.flops // 80 // len(all_bands)
        in_lines = channels % line == width % line == 0
        past = in_lines and panels >= REUSED * threads and jit.past_caches(work, threads) and not found.own
        points = 0 if found.own else parts * n * step + LEAST_ROWS * width
        return Plan(
            filterings, ends, all_bands, points, work, (found.loaded, found.scratch), problem.compute_dtype,
            np.array([(depth, found.segments, tile_rows), (tile_columns, channels, planes),
                      (filters, *problem.dilation[1:])]),
            np.array(numbers_of(filterings, ends)), past, found.own, found.bytes,
        )  # fmt: skip

    def fixed(
        self, plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
    ) -> Callable[..., None]:
        """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
        _, (_, channels, _), (_, _, step) = plan.sizes
        load = slab.loads(x_layout, plan.axes[1].steps[0] * step, channels)
        unload = slab.unloads(out_layout, step)
        (loading, working), steps = ((numbers, plan.dtype) for numbers in plan.scratch), []
        if plan.own:
            parts = parts_of(plan.axes, plan.last, plan.dtype, (TILES, SUMS, FILTERS), load, unload)
            (((_, numbers), (tasks, sections)),) = plan.bands
            sections = np.concatenate([sections, met(x_layout, out_layout, plan.axes, numbers), numbers])
            constants = sections, epilogue, out_layout, plan.sizes, plan.filterings, parts
            multiply_own = _products_of_own.fixed(tasks, plan.work, threads, constants, working)
            return lambda x, weights, bias, out: multiply_own(x, *weights, bias, out)
        parts_of_tiles = parts_of(plan.axes, plan.last, plan.dtype, (TILES,), load, past=plan.past)
        parts = parts_of(plan.axes, plan.last, plan.dtype, (SUMS, FILTERS), "", unload)
        for (loads, numbers), (products, sections) in plan.bands:
            layout = met(x_layout, out_layout, plan.axes, numbers)
            given = np.concatenate([layout, numbers]), plan.filterings, parts_of_tiles
            constants = sections, epilogue, out_layout, plan.sizes, plan.filterings, parts
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


class Panels(Plain):
    """The same, of a layer's filters: packed once, and transformed within the tasks."""

    packer = staticmethod(product.panel_packer)


two, two_by_four, four = Plain(2), Plain(2, 4), Plain(4)
two_of_panels, two_by_four_of_panels, four_of_panels = Panels(2), Panels(2, 4), Panels(4)

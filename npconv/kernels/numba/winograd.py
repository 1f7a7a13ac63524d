"""Winograd's minimal filtering: kernels of 2 to 16 elements, at strides of 1 to 4, with 1.3 to 4 times fewer products.

A tile of m × m results needs n² products, n = m + r - 1, instead of m² r²: F(2×2, 3×3) 16 instead of 36, F(4×4, 3×3) 36
instead of 144, F(2×2, 5×5) 36 instead of 100. The input tile and the filter are each transformed to n² *points*,
multiplied point by point, summed over the channels, and transformed back,

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A.

F(2×4, 3×3), tiles of 2 × 4 results, lies in between, with 24 products instead of 72. Where images are small and
channels many it is the weights that take the time to come, and F(4×4) has 4 numbers for each of theirs: of 512 channels
at 7² more than a cache of 32 MiB holds. While others use that, F(4×4) takes 1.18 ms, F(2×4) 0.83 (else 0.67 and 0.73).

Height and width are filtered each in its own way (`npconv.kernels.filtering`): F(4, 3) at stride 2 takes 9 products
instead of 12, and an axis with one tap none, so that signals are filtered along their only axis. Along the depth the
sum is direct: planes are so many times more channels. So are, for long kernels at a stride, the pixels of each residue,
as even and odd ones, and at stride 1 what each block of taps meets (`npconv.kernels.numba.folded`).

The sum over the channels is, for each point, a matrix product of tiles and filters, and runs as such in registers. A
task is a rectangle of tiles, whose points stay in the core's caches, and some panels of a group's filters; it goes from
the input to the finished result without another pass through memory. Transforms work on vectors of channels.

The last tiles down and across may be *short* (`npconv.kernels.filtering`): they are transformed to fewer points, and
points that they do not take have products of the other tiles alone (`npconv.kernels.numba.short`). Images of 14 × 14,
3.5 tiles a row, so take a sixth fewer products: 256 channels 341 µs in two threads instead of 371.

With dilation d, the pixels of one residue modulo d, in each direction, are an image of their own. A task has the tiles
of several images where these are small, so that the filters are read less often: 16 images of 512 channels at 7² took
14.8 ms one by one, and take 7.9.

Matrices are those of Toom and Cook for points such as 0, ±√½, ±√2 (and ∞), whose products stay near one in size, so
that F(4×4, 3×3) loses a quarter less than with the usual 0, ±1, ±2; pairs ±p share their sums.

Lavin and Gray, *Fast algorithms for convolutional neural networks* (2016), §4; Barabasz et al., *Error analysis and
improving the accuracy of Winograd convolution for deep neural networks* (2020), §6, for the points; Yepez and Ko,
*Stride 2 1-D, 2-D, and 3-D Winograd for convolutional neural networks* (2020), §III, for the stride.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.filtering import Filtering, axes, elements_of, last_axes, pitch_of
from npconv.kernels.layout import CHANNEL, HEIGHT, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import blocking, buffers, jit, product, slab
from npconv.kernels.numba.blocking import SPARE
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, max, min, triples
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
from npconv.problem import ConvProblem
from npconv.threads import get_num_threads

LOAD = 0.7
"""How long it takes to load the input and transform it, in products with a panel: 256 channels at 14² take 0.93 ms in
one task, and each task more, of fewer panels, adds 0.04; a panel takes 0.055."""

BEGIN, PRODUCTS = 9, 11
"""Products of a point that take as long as its transform back: 3 to 64 channels at 224² take 0.31 µs for a tile and a
panel of 32 filters, 64 to 64 1.96 µs. And products that are as much work as one that `jit.SMALL_WORK` counts, together
with their share of all else."""

CHAIN, ALONE = 96, 128
"""Channels that are summed up in one chain, and those that are one by themselves. With all 512 or 1024 in one, a
constant image (whose roundings all go one way) missed the bound of ``precision="default"`` by up to 2.6 times; random
ones stay within a tenth of it. 128 in one lose 0.28 of the bound, in two 0.20, and take 5 % less at 28². Longer chains
of more channels gain nothing: the tiles of a task and the panel ahead leave the first-level cache."""


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    axes: tuple[Filtering, Filtering]
    last: tuple[Filtering, Filtering]
    grid: np.ndarray
    sizes: np.ndarray
    in_turns: bool


@jit.inline
def chains_of(elements):  # type: ignore[no-untyped-def]
    """Return in how many chains elements are summed up."""
    return 1 if elements <= ALONE else -(-elements // CHAIN)


apart = jit.inline(blocking.apart)


@jit.scratch_kernel()
def _pack(task, memory, weight, packed, sizes, numbers, parts):  # type: ignore[no-untyped-def]
    """Transform some channels of a panel."""
    channels, planes = sizes[product.CHANNELS], sizes[product.DEPTH]
    pitch = apart(channels * planes * numbers[1])
    panel, first, last = product.pieces_of(task, sizes)
    for piece in range(first, last):
        channel, count, wanted = product.load_filters(panel, piece, memory, weight, sizes)
        at = panel * numbers[0] * pitch + channel
        filters_to_points(parts[FILTERS], (packed, at, channels, pitch, memory, count, planes, wanted))
    fence()


@jit.inline
def unload(parts, out, layout, place, residues, steps, first, filters, rows, columns, result, pitch):  # type: ignore[no-untyped-def]
    """Write a rectangle of results where it belongs.

    It is of an image, a group, a panel's first filter of so many ``filters`` of the group, and a plane, and there of
    the pixels of some residues modulo the dilation, of whose rows and columns those of ``first`` are its first.
    """
    (image, g, k, z), (lower, right), (y_step, x_step), (row, column) = place, residues, steps, first
    at = image * layout[IMAGE] + (g * filters + k) * layout[CHANNEL] + z * layout[PLANE]
    at += (lower + row * y_step) * layout[ROW] + (right + column * x_step) * layout[PIXEL]
    count = min(width_of(out), filters - k)
    slab.unload(
        parts,
        out,
        at,
        layout[CHANNEL],
        y_step * layout[ROW],
        x_step * layout[PIXEL],
        count,
        rows,
        columns,
        result,
        0,
        pitch,
    )


@jit.inline
def _place_of(index, sizes, out_layout, row, column):  # type: ignore[no-untyped-def]
    """Return an image and residues modulo the dilation, and how many rows and columns of results a task has there.

    Its first are (``row``, ``column``) of those residues.
    """
    down, across = sizes[3, 1], sizes[3, 2]
    image, right = divmod(index, across)
    image, lower = divmod(image, down)
    rows = min(sizes[1, 1] * sizes[6, 1], -(-(out_layout[HEIGHT] - lower) // down) - row)
    columns = min(sizes[1, 2] * sizes[6, 2], -(-(out_layout[WIDTH] - right) // across) - column)
    if rows <= 0 or columns <= 0:
        rows, columns = 0, 0
    return (image, lower, right), (rows, columns)


_FORM = "nannNn"
_taken = taking(_FORM)


@jit.scratch_kernel(_FORM)
def _block(task, memory, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a rectangle of some images' results for some panels of a group."""
    x_layout, epilogue, out_layout, grid, sizes, parts = _taken(constants, x)
    task, horizontal = divmod(task, grid[4])
    task, vertical = divmod(task, grid[3])
    task, z = divmod(task, grid[2])
    task, those = divmod(task, grid[0])
    g, part = divmod(task, grid[1])
    before, share, (channels, filters, planes), (z_step, y_step, x_step), (z_stride, together, images) = triples(
        sizes, 0, 5
    )
    (n, down, across), (numbers, y_pace, x_pace), (_, y_reach, x_reach), folds, units, parted, ends = triples(
        sizes, 6, 7
    )
    between = sizes[5, 0]
    row, column = vertical * share[1] * down, horizontal * share[2] * across
    first_place, end_place = those * together, min((those + 1) * together, images)
    tiles = 0
    for index in range(first_place, end_place):
        _, (rows, columns) = _place_of(index, sizes, out_layout, row, column)
        tiles += -(-rows // down) * -(-columns // across)
    # Images are alike where tiles are short, and those are here if the last rows or columns are.
    _, (rows, columns) = _place_of(first_place, sizes, out_layout, row, column)
    short = min(ends[1], rows % down), min(ends[2], columns % across)
    whole, places = (-(-rows // down) - short[0], -(-columns // across) - short[1]), end_place - first_place
    begin = begins(tiles, places * short[0] * whole[1], places * short[1] * whole[0], places * short[0] * short[1])
    folded = channels * folds[1] * folds[2]
    elements = planes * folded
    wide = width_of(out)
    # One array behind the other; each begins with a line of the cache. When there are products, the piece of the input
    # has become points, and its place is theirs: it is in the cache, and what threads work in is smaller.
    unit = buffers.LINE // x.itemsize
    step = apart(-(-(tiles * elements + max(wide - folded, 0)) // unit)) * unit
    second = n * step + -(-LEAST_ROWS * elements // unit) * unit
    third = (second + (n * tiles + SPARE) * wide + unit) // unit * unit
    points, piece, products, result = memory, after(memory, second), after(memory, second), after(memory, third)
    tile = 0
    for index in range(first_place, end_place):
        (image, lower, right), (rows, columns) = _place_of(index, sizes, out_layout, row, column)
        tile_rows, tile_columns = -(-rows // down), -(-columns // across)
        if tile_rows * tile_columns == 0:
            continue
        pitch = (tile_columns - 1) * x_pace + x_reach
        shape = (planes, (tile_rows - 1) * y_pace + y_reach, pitch)
        plane = shape[1] * pitch * between
        origin = (
            before[0] + z * z_stride, before[1] + vertical * share[1] * y_pace * units[1] * y_step + lower,
            before[2] + horizontal * share[2] * x_pace * units[2] * x_step + right,
        )  # fmt: skip
        start = image * x_layout[IMAGE] + g * channels * x_layout[CHANNEL]
        steps = z_step, y_step, x_step
        slab.load_folded(
            parts, piece, 0, between, x, x_layout, start, channels, origin, steps, shape, units, folds, parted
        )
        for kind in range(KINDS):
            (top, left), (some_rows, some_columns) = rectangle(kind, tile_rows, tile_columns, short)
            number = some_rows * some_columns
            if number > 0:
                at = begin[kind] + (tile if kind == 0 else (index - first_place) * number)
                tiles_to_points(
                    parts[TILES + kind],
                    (points, at * elements, step, elements, piece, (top * y_pace * pitch + left * x_pace) * between,
                     pitch, between, plane, some_rows, some_columns, planes, folded),
                )  # fmt: skip
        tile += (tile_rows - short[0]) * (tile_columns - short[1])
    chains, panels = chains_of(elements), -(-filters // wide)
    for panel in range(part * share[0], min((part + 1) * share[0], panels)):
        packed = g * panels + panel
        for point in range(n):
            number, kind = met_by(sizes, 6, point)
            tile, end = takers(begin, tiles, kind)
            if tile == end:
                continue
            w, first = (packed * numbers + number) * apart(elements) * wide, 0
            for chain in range(chains):
                last = elements * (chain + 1) // chains
                # What a tile spills over, nobody reads, or the next point's products are written to.
                multiply_rows(
                    products, point * tiles + tile, points, point * step + tile * elements + first, elements, 1,
                    end - tile, weights, w, last - first, chain == 0, filters - panel * wide,
                )  # fmt: skip
                w += (last - first) * wide
                first = last
        tile = 0
        for index in range(first_place, end_place):
            (image, lower, right), (rows, columns) = _place_of(index, sizes, out_layout, row, column)
            tile_rows, tile_columns = -(-rows // down), -(-columns // across)
            line = tile_columns * across
            for kind in range(KINDS):
                (top, left), (some_rows, some_columns) = rectangle(kind, tile_rows, tile_columns, short)
                number = some_rows * some_columns
                if number > 0:
                    at = begin[kind] + (tile if kind == 0 else (index - first_place) * number)
                    sums_to_results(
                        parts[SUMS + kind],
                        (result, top * down * line + left * across, line, products, tiles, at, some_rows,
                         some_columns, bias, packed * wide, epilogue, min(filters - panel * wide, wide)),
                    )  # fmt: skip
            tile += (tile_rows - short[0]) * (tile_columns - short[1])
            unload(
                parts, out, out_layout, (image, g, panel * wide, z), (lower, right), (y_step, x_step), (row, column),
                filters, rows, columns, result, line,
            )  # fmt: skip


def met(
    x_layout: np.ndarray, out_layout: np.ndarray, filterings: tuple[Filtering, Filtering], before: Any
) -> np.ndarray:
    """Return an input's layout without the rows and columns behind the last window of a stride.

    They belong to the last tiles, and are no result's: numbers that are not finite there shall spoil none.
    """
    layout = x_layout.copy()
    for axis, filtering in enumerate(filterings, 6):
        if filtering.stride > 1:
            end = (out_layout[axis] - 1) * filtering.stride + filtering.taps + before[axis - 5]
            layout[axis] = max(min(layout[axis], end), 0)
    return layout


class Winograd:
    """Tiles of so many results down and across as an engine: `npconv.kernels.packed` tells what its methods do."""

    def __init__(self, *results: int) -> None:
        self._results = results[0], results[-1]

    def packer(self, problem: ConvProblem, weight: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return what makes panels of points, flat, group after group, of filters (K, C/groups, kd, kh, kw).

        These have this weight's strides (`npconv.kernels.numba.product.packer`).
        """
        cut, threads = product.packing(problem, weight), get_num_threads()
        filterings = axes(problem, self._results)
        elements = apart.py_func(elements_of(problem, filterings))
        number, folds = (math.prod(pair) for pair in ((a.number for a in filterings), (a.fold for a in filterings)))
        make = product.packed_like(problem, number * elements)
        work = make().size // product.WORTH
        past = jit.past_caches(work, threads)
        parts = parts_of(filterings, filterings, problem.compute_dtype, (FILTERS,), past=past)
        numbers, in_pieces = np.array([number, folds]), _pack.fixed(cut.tasks, work, threads, scratch=cut.scratch)

        def pack(weight: np.ndarray) -> np.ndarray:
            packed = make()
            in_pieces(cut.flat(weight), packed, cut.sizes, numbers, parts)
            return packed

        return pack

    pack_bias = staticmethod(product.panel_bias)

    def plan(self, problem: ConvProblem, threads: int) -> Plan:
        """Cut a canonical problem into tasks."""
        filterings, ends = axes(problem, self._results), last_axes(problem, self._results)
        (down, across), wide = filterings, product.width(problem.compute_dtype)
        n = down.points * across.points
        depth, height, width = problem.output_size
        planes, (_, y_step, x_step) = problem.kernel_size[0], problem.dilation
        elements = elements_of(problem, filterings)
        channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
        panels = -(-filters // wide)
        images, others = problem.batch * y_step * x_step, problem.groups * depth
        most = blocking.tiles_at_once(problem, filterings, threads)
        tile_rows, tile_columns = -(-height // (y_step * down.results)), -(-width // (x_step * across.results))
        # Filters of groups are not packed within tasks: those that calls pack shall leave room.
        joined = 1 if problem.groups > 1 else images
        together, block = blocking.tiled(
            tile_rows, tile_columns, most, joined, others * (images // joined), panels, threads, LOAD, elements,
            (ends[0].saved, ends[1].saved),
        )  # fmt: skip
        grid = (-(-images // together), -(-panels // block.panels), depth, -(-tile_rows // block.rows),
                -(-tile_columns // block.columns), problem.groups)  # fmt: skip
        before = tuple(-(pad // up) for (pad, _), up in zip(problem.padding, problem.up or (1, 1, 1), strict=True))
        between = pitch_of(elements // planes, problem.compute_dtype.itemsize)
        sizes = np.array(
            [before, (block.panels, *block[:2]), (channels, filters, planes), problem.dilation,
             (problem.stride[0], together, images), (between, 0, 0), *numbers_of(filterings, ends)]
        )  # fmt: skip
        tiles = together * block.rows * block.columns
        pixels = ((block.rows - 1) * down.pace + down.reach) * ((block.columns - 1) * across.pace + across.reach)
        scratch = (n * tiles + LEAST_ROWS) * elements
        scratch += n * (2 * buffers.LINE // problem.compute_dtype.itemsize + max(wide - elements // planes, 0))
        sums = (n * tiles + SPARE + block.rows * block.columns * down.results * across.results) * wide
        scratch += max(pixels * planes * between, sums) + 6 * buffers.LINE
        work = images * others * tile_rows * tile_columns * panels * wide * n * (elements + BEGIN) // PRODUCTS
        # Residues of a dilation that lie side by side share all lines of the cache, and are one thread's.
        in_turns = grid[0] == 1 and blocking.in_turns(
            block, tile_rows, tile_columns, images * others, panels, threads
        )  # fmt: skip
        return Plan(
            int(np.prod(grid)), work, (scratch, problem.compute_dtype), filterings, ends, np.array(grid), sizes,
            in_turns,
        )  # fmt: skip

    def fixed(
        self, plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
    ) -> Callable[..., None]:
        """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
        before, _, (channels, _, _), (_, _, step) = plan.sizes[:4]
        load = slab.loads(x_layout, plan.axes[1].steps[0] * step, channels)
        parts = parts_of(plan.axes, plan.last, epilogue.dtype, (TILES, SUMS), load, slab.unloads(out_layout, step))
        x_layout = met(x_layout, out_layout, plan.axes, before)
        constants = x_layout, epilogue, out_layout, plan.grid, plan.sizes, parts
        return _block.fixed(plan.tasks, plan.work, threads, constants, plan.scratch, plan.in_turns)


two, two_by_four, four = Winograd(2), Winograd(2, 4), Winograd(4)

"""Winograd's minimal filtering: kernels of 2 to 12 elements, at stride 2 to 8, with 1.4 to 4 times fewer products.

A tile of m × m results needs n² products, n = m + r - 1, instead of m² r²: F(2×2, 3×3) 16 instead of 36, F(4×4, 3×3) 36
instead of 144, F(2×2, 5×5) 36 instead of 100. The input tile and the filter are each transformed to n² *points*,
multiplied point by point, summed over the channels, and transformed back,

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A.

Height and width are filtered each in its own way (`npconv.kernels.filtering`): F(4, 3) at stride 2 takes 9 products
instead of 12, and an axis with one tap none, so that signals are filtered along their only axis. Along the depth the
sum is direct: planes are so many times more channels. So are, for long kernels at stride 2, the pixels of each residue,
that is even and odd ones, and at stride 1 what each block of taps meets (`npconv.kernels.numba.folding`).

The sum over the channels is, for each point, a matrix product of tiles and filters, and runs as such in registers. A
task is a rectangle of tiles, whose points stay in the core's caches, and some panels of a group's filters; it goes from
the input to the finished result without another pass through memory. Transforms work on vectors of channels.
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

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.filtering import Filtering, axes, elements_of, pitch_of
from npconv.kernels.numba import blocking, buffers, jit, product, slab
from npconv.kernels.numba.blocking import SPARE
from npconv.kernels.numba.folding import filter_to_points, loaded
from npconv.kernels.numba.product import LEAST_ROWS, multiply_rows, width_of
from npconv.kernels.numba.tile import COLUMNS
from npconv.kernels.numba.transforms import filtering, transform, transform_and_add
from npconv.kernels.numba.vector import activated, load, store
from npconv.problem import ConvProblem

LOAD = 0.7
"""How long it takes to load the input and transform it, in products with a panel: 256 channels at 14² take 0.93 ms in
one task, and each task more, of fewer panels, adds 0.04; a panel takes 0.055."""

CHAIN, ALONE = 96, 128
"""Channels that are summed up in one chain, and those that are one by themselves. With all 512 or 1024 in one, a
constant image (whose roundings all go one way) missed the bound of ``precision="default"`` by up to 2.6 times; random
ones stay within a tenth of it. 128 in one lose 0.28 of the bound, in two 0.20, and take 5 % less at 28². Longer chains
of more channels gain nothing: the tiles of a task and the panel ahead leave the first-level cache."""


class Weights(NamedTuple):
    """Filters, packed or plain, and the numbers of their packing."""

    numbers: np.ndarray
    packing: np.ndarray


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    axes: tuple[Filtering, Filtering]
    grid: np.ndarray
    sizes: np.ndarray


@jit.inline
def chains_of(elements):  # type: ignore[no-untyped-def]
    """Return in how many chains elements are summed up."""
    return 1 if elements <= ALONE else -(-elements // CHAIN)


@jit.inline
def apart(number):  # type: ignore[no-untyped-def]
    """Return at least ``number``, as the distance of points of so many rows: odd, lest all meet in one cache set."""
    return number | 1


def name_of(axes: tuple[Filtering, Filtering]) -> str:
    """Return a name for filterings."""
    return "_".join("".join(map(str, axis)) for axis in axes)


@cache
def filters_to_points(axes: tuple[Filtering, Filtering]) -> Any:
    """Return the transform of filters: G g Gᵀ, a vector of filters at a time."""
    down, across = axes
    to_points = filter_to_points(axes)
    lines, columns, points, folds = down.taps, across.taps, across.points, down.fold * across.fold

    def fill(packed, at, channels, pitch, taps, count, planes):  # type: ignore[no-untyped-def]
        """Write the points, ``pitch`` elements each, of some channels of a panel, whose taps `load_filters` left.

        Elements are so many channels, for each residue that is folded, and for each of the planes.
        """
        wide = width_of(packed)
        first = np.int64(0)
        for c in range(count):
            for plane in range(planes):
                element = (at + plane * folds * channels + c) * wide
                to_points(packed, element, channels * wide, points * pitch * wide, pitch * wide, taps, first, wide)
                first += lines * columns * wide

    return jit.specialised(fill, *down, *across)


@cache
def _packing(axes: tuple[Filtering, Filtering]) -> Any:
    """Return the kernel that packs filters."""
    points, folds = axes[0].points * axes[1].points, axes[0].fold * axes[1].fold
    to_points = filters_to_points(axes)

    def pack(task, memory, weight, packed, sizes):  # type: ignore[no-untyped-def]
        """Transform some channels of a panel."""
        channels, planes = sizes[2], sizes[12]
        pitch = apart(channels * planes * folds)
        panel, first, last = product.pieces_of(task, sizes)
        for piece in range(first, last):
            channel, count = product.load_filters(panel, piece, memory, weight, sizes)
            to_points(packed, panel * points * pitch + channel, channels, pitch, memory, count, planes)

    pack.__name__ = pack.__qualname__ = f"_pack{name_of(axes)}"
    return jit.scratch_kernel(pack)


@cache
def tile_to_points(axes: tuple[Filtering, Filtering]) -> Any:
    """Return the transform of the input: Bᵀ d B."""
    _, _, (forward, forward_across) = zip(*map(filtering, axes), strict=True)
    to_points, columns = transform(forward, forward_across), axes[1].points

    def points_of(points, at, step, piece, first, pitch, between, channels):  # type: ignore[no-untyped-def]
        """Transform a tile, a vector of channels at a time; the last ones may overlap.

        There are ``pitch`` pixels to a row, and they lie ``between`` numbers apart. Of fewer channels, what comes
        behind is written, too, and must be written over.
        """
        wide = width_of(piece)
        for c in range(0, channels, wide):
            c = max(min(c, channels - wide), 0)
            to_points(points, at + c, columns * step, step, piece, first + c, pitch * between, between)

    return jit.specialised(points_of, *axes[0], *axes[1])


@cache
def results_of(axes: tuple[Filtering, Filtering]) -> Any:
    """Return the transform of sums to results: Aᵀ M A."""
    (inverse, inverse_across), _, _ = zip(*map(filtering, axes), strict=True)
    to_results, columns = transform_and_add(inverse, inverse_across), axes[1].points
    down, across = (axis.results for axis in axes)

    def finish(result, first, pitch, points, room, tile, bias, b, epilogue):  # type: ignore[no-untyped-def]
        """Transform a tile's sums back, and finish them."""
        wide = width_of(result)
        step, at = room * wide, first * wide
        to_results(result, at, pitch * wide, wide, points, tile * wide, columns * step, step, bias, b)
        if epilogue[0] != 0:
            for _ in range(down):
                store(activated(load(result, at, across, COLUMNS), epilogue), result, at, wide)
                at += pitch * wide

    return jit.specialised(finish, *axes[0], *axes[1])


@jit.inline
def unload(out, layout, place, residues, steps, first, filters, rows, columns, result, pitch):  # type: ignore[no-untyped-def]
    """Write a rectangle of results where it belongs.

    It is of an image, a group, a panel's first filter of so many ``filters`` of the group, and a plane, and there of
    the pixels of some residues modulo the dilation, of whose rows and columns those of ``first`` are its first.
    """
    (image, g, k, z), (lower, right), (y_step, x_step), (row, column) = place, residues, steps, first
    at = image * layout[0] + (g * filters + k) * layout[1] + z * layout[2]
    at += (lower + row * y_step) * layout[3] + (right + column * x_step) * layout[4]
    count = min(width_of(out), filters - k)
    slab.unload(out, at, layout[1], y_step * layout[3], x_step * layout[4], count, rows, columns, result, 0, pitch)


@cache
def _kernel(axes: tuple[Filtering, Filtering]) -> jit.Kernel:
    """Return the kernel for packed filters."""
    load_pixels, points_of, finish = loaded(axes), tile_to_points(axes), results_of(axes)
    (down, across), n = [axis.results for axis in axes], axes[0].points * axes[1].points
    y_pace, x_pace, y_reach, x_reach = *[axis.pace for axis in axes], *[axis.reach for axis in axes]
    y_fold, x_fold, y_unit, x_unit = *[axis.fold for axis in axes], *[axis.steps[0] for axis in axes]

    def block(task, memory, x, x_layout, weights, bias, epilogue, out, out_layout, grid, sizes):  # type: ignore[no-untyped-def]
        """Compute a rectangle of some images' results for some panels of a group."""
        task, horizontal = divmod(task, grid[4])
        task, vertical = divmod(task, grid[3])
        task, z = divmod(task, grid[2])
        task, those = divmod(task, grid[0])
        g, part = divmod(task, grid[1])
        before, share, (channels, filters, planes), (z_step, y_step, x_step), (z_stride, together, images) = sizes[:5]
        row, column = vertical * share[1] * down, horizontal * share[2] * across
        # An image is one of the batch, and of its pixels those of a residue modulo the dilation, down and across.
        places, found, tiles = np.empty((together, 7), np.int64), 0, np.int64(0)
        for index in range(those * together, min((those + 1) * together, images)):
            image, right = divmod(index, x_step)
            image, lower = divmod(image, y_step)
            rows = min(share[1] * down, -(-(out_layout[6] - lower) // y_step) - row)
            wanted = min(share[2] * across, -(-(out_layout[7] - right) // x_step) - column)
            if rows > 0 and wanted > 0:
                place = places[found]
                place[0], place[1], place[2], place[3], place[4] = image, lower, right, rows, wanted
                place[5], place[6] = -(-rows // down), -(-wanted // across)
                tiles += place[5] * place[6]
                found += 1
        places = places[:found]
        folded, between = channels * y_fold * x_fold, sizes[5, 0]
        elements = planes * folded
        wide = width_of(out)
        pixels = ((share[1] - 1) * y_pace + y_reach) * ((share[2] - 1) * x_pace + x_reach)
        # One array behind the other; each begins with a line of the cache.
        unit = buffers.LINE // x.itemsize
        second = (pixels * planes * between + unit) // unit * unit
        step = apart(-(-(tiles * elements + max(wide - folded, 0)) // unit)) * unit
        third = second + n * step + -(-LEAST_ROWS * elements // unit) * unit
        fourth = (third + (n * tiles + SPARE) * wide + unit) // unit * unit
        piece, points, products, result = memory[:second], memory[second:third], memory[third:fourth], memory[fourth:]
        tile = np.int64(0)
        for image, lower, right, _, _, tile_rows, tile_columns in places:
            pitch = (tile_columns - 1) * x_pace + x_reach
            shape = (planes, (tile_rows - 1) * y_pace + y_reach, pitch)
            plane = shape[1] * pitch * between
            origin = (
                before[0] + z * z_stride, before[1] + vertical * share[1] * y_pace * y_unit * y_step + lower,
                before[2] + horizontal * share[2] * x_pace * x_unit * x_step + right,
            )  # fmt: skip
            start = image * x_layout[0] + g * channels * x_layout[1]
            steps = z_step, y_step, x_step
            load_pixels(piece, np.int64(0), between, x, x_layout, start, channels, origin, steps, shape)
            for i in range(tile_rows):
                for j in range(tile_columns):
                    for k in range(planes):
                        first = k * plane + (i * y_pace * pitch + j * x_pace) * between
                        points_of(points, tile * elements + k * folded, step, piece, first, pitch, between, folded)
                    tile += 1
        chains, panels = chains_of(elements), -(-filters // wide)
        for panel in range(part * share[0], min((part + 1) * share[0], panels)):
            packed = g * panels + panel
            for point in range(n):
                w, first = (packed * n + point) * apart(elements) * wide, np.int64(0)
                for chain in range(chains):
                    last = elements * (chain + 1) // chains
                    # What a tile spills over, the next point's products are written to.
                    multiply_rows(
                        products, point * tiles, points, point * step + first, elements, np.int64(1), tiles, weights, w,
                        last - first, chain == 0,
                    )  # fmt: skip
                    w += (last - first) * wide
                    first = last
            tile = np.int64(0)
            for image, lower, right, rows, wanted, tile_rows, tile_columns in places:
                line = tile_columns * across
                for i in range(tile_rows):
                    for j in range(tile_columns):
                        first = i * down * line + j * across
                        finish(result, first, line, products, tiles, tile, bias, packed * wide, epilogue)
                        tile += 1
                unload(
                    out, out_layout, (image, g, panel * wide, z), (lower, right), (y_step, x_step), (row, column),
                    filters, rows, wanted, result, line,
                )  # fmt: skip

    block.__name__ = block.__qualname__ = f"_block{name_of(axes)}"
    return jit.scratch_kernel(block)


class Winograd:
    """Tiles of m × m results as an engine: `npconv.kernels.packed` tells what its methods do."""

    def __init__(self, m: int) -> None:
        self._m = m

    def pack(self, problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
        """Return filters (K, C/groups, kd, kh, kw) as panels of their points, flat, group after group."""
        cut = product.packing(problem, weight)
        filterings = axes(problem, self._m)
        elements = apart.py_func(elements_of(problem, filterings))
        packed = product.packed_like(problem, filterings[0].points * filterings[1].points * elements)
        _packing(filterings).run(
            cut.tasks, len(packed) // product.WORTH, cut.weight, packed, cut.sizes, scratch=cut.scratch
        )
        return packed

    pack_bias = staticmethod(product.panel_bias)

    def plan(self, problem: ConvProblem, threads: int) -> Plan:
        """Cut a canonical problem into tasks."""
        filterings, wide = axes(problem, self._m), product.width(problem.compute_dtype)
        down, across = filterings
        n = down.points * across.points
        depth, height, width = problem.output_size
        planes, (_, y_step, x_step) = problem.kernel_size[0], problem.dilation
        elements = elements_of(problem, filterings)
        channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
        panels = -(-filters // wide)
        images, others = problem.batch * y_step * x_step, problem.groups * depth
        most = blocking.tiles_at_once(problem, n, elements, threads)
        tile_rows, tile_columns = -(-height // (y_step * down.results)), -(-width // (x_step * across.results))
        # Filters of groups are not packed within tasks: those that calls pack shall leave room.
        joined = 1 if problem.groups > 1 else images
        together, block = blocking.tiled(
            tile_rows, tile_columns, most, joined, others * (images // joined), panels, threads, LOAD
        )
        grid = (-(-images // together), -(-panels // block.panels), depth, -(-tile_rows // block.rows),
                -(-tile_columns // block.columns), problem.groups)  # fmt: skip
        before = tuple(-(pad // up) for (pad, _), up in zip(problem.padding, problem.up or (1, 1, 1), strict=True))
        between = pitch_of(elements // planes, problem.compute_dtype.itemsize)
        sizes = np.array(
            [before, (block.panels, *block[:2]), (channels, filters, planes), problem.dilation,
             (problem.stride[0], together, images), (between, 0, 0)]
        )  # fmt: skip
        tiles = together * block.rows * block.columns
        pixels = ((block.rows - 1) * down.pace + down.reach) * ((block.columns - 1) * across.pace + across.reach)
        scratch = pixels * planes * between + (n * tiles + LEAST_ROWS) * elements
        scratch += n * (2 * buffers.LINE // problem.compute_dtype.itemsize + max(wide - elements // planes, 0))
        scratch += (n * tiles + SPARE + block.rows * block.columns * down.results * across.results) * wide
        scratch += 6 * buffers.LINE
        return Plan(
            int(np.prod(grid)), problem.flops // 80, (scratch, problem.compute_dtype), filterings, np.array(grid), sizes
        )

    def conv(
        self, plan: Plan, x: np.ndarray, x_layout: np.ndarray, weights: np.ndarray, bias: np.ndarray,
        epilogue: np.ndarray, out: np.ndarray, out_layout: np.ndarray,
    ) -> None:  # fmt: skip
        """Fill ``out``."""
        _kernel(plan.axes).run(
            plan.tasks, plan.work, x, x_layout, weights, bias, epilogue, out, out_layout, plan.grid, plan.sizes,
            scratch=plan.scratch,
        )  # fmt: skip


two, four = Winograd(2), Winograd(4)

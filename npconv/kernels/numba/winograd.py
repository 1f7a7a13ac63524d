"""Winograd's minimal filtering: kernels of 2 to 5 elements at stride 1 or 2 with 1.4 to 4 times fewer products.

A tile of m × m results needs n² products, n = m + r - 1, instead of m² r²: F(2×2, 3×3) 16 instead of 36, F(4×4, 3×3) 36
instead of 144, F(2×2, 5×5) 36 instead of 100. The input tile and the filter are each transformed to n² *points*,
multiplied point by point, summed over the channels, and transformed back,

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A.

Height and width are filtered each in its own way (`npconv.kernels.filtering`): F(4, 3) at stride 2 takes 9 products
instead of 12, and an axis with one tap none, so that signals are filtered along their only axis. Along the depth the
sum is direct: planes are so many times more channels.

The sum over the channels is, for each point, a matrix product of tiles and filters, and runs as such in registers. A
task is a rectangle of tiles, whose points stay in the core's caches, and some panels of filters; it goes from the input
to the finished result without another pass through memory. Transforms work on vectors of channels.
With dilation d, the pixels of one residue modulo d, in each direction, are an image of their own.

Matrices are those of Toom and Cook for the points 0, ±√½, ±√2 (and ∞), whose products stay near one in size, so that
F(4×4, 3×3) loses a quarter less than with the usual 0, ±1, ±2; pairs ±p share their sums.

Lavin and Gray, *Fast algorithms for convolutional neural networks* (2016), §4; Barabasz et al., *Error analysis and
improving the accuracy of Winograd convolution for deep neural networks* (2020), §6, for the points; Yepez and Ko,
*Stride 2 1-D, 2-D, and 3-D Winograd for convolutional neural networks* (2020), §III, for the stride.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.filtering import Filtering, axes
from npconv.kernels.numba import blocking, jit, product, slab
from npconv.kernels.numba.product import LEAST_ROWS, SPARE, multiply_rows, width_of
from npconv.kernels.numba.tile import COLUMNS
from npconv.kernels.numba.transforms import filtering, transform, transform_and_add
from npconv.kernels.numba.vector import activated, load, store
from npconv.problem import ConvProblem

LOAD = 0.7
"""How long it takes to load the input and transform it, in products with a panel: 256 channels at 14² take 0.93 ms in
one task, and each task more, of fewer panels, adds 0.04; a panel takes 0.055."""

CHAIN = 96
"""Channels that are summed up in one chain. With all 512 or 1024 in one, a constant image (whose roundings all go one
way) missed the bound of ``precision="default"`` by up to 2.6 times; random ones stay within a tenth of it."""


BIT = 64
"""Channels of a panel, or a few less, that are packed at once where filters come plain."""


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
def apart(number):  # type: ignore[no-untyped-def]
    """Return at least ``number``, as the distance of points of so many rows: odd, lest all meet in one cache set."""
    return number | 1


def _name(axes: tuple[Filtering, Filtering]) -> str:
    return "_".join("".join(map(str, axis)) for axis in axes)


def _filters_to_points(axes: tuple[Filtering, Filtering]) -> Any:
    """Return the transform of filters: G g Gᵀ, a vector of filters at a time."""
    down, across = axes
    to_points = transform(filtering(down)[1], filtering(across)[1])
    lines, columns, points = down.taps, across.taps, across.points

    def filters_to_points(packed, at, channels, pitch, taps, count, planes):  # type: ignore[no-untyped-def]
        """Write the points, ``pitch`` elements each, of some channels of a panel, whose taps `load_filters` left.

        Elements are ``planes`` times so many channels.
        """
        wide = width_of(packed)
        first = np.int64(0)
        for c in range(count):
            for plane in range(planes):
                element = (at + plane * channels + c) * wide
                to_points(packed, element, points * pitch * wide, pitch * wide, taps, first, columns * wide, wide)
                first += lines * columns * wide

    return jit.specialised(filters_to_points, *down, *across)


@cache
def _packing(axes: tuple[Filtering, Filtering]) -> Any:
    """Return the kernel that packs filters."""
    points = axes[0].points * axes[1].points
    filters_to_points = _filters_to_points(axes)

    def pack(task, memory, weight, packed, sizes):  # type: ignore[no-untyped-def]
        """Transform some channels of a panel."""
        channels, planes = sizes[2], sizes[12]
        pitch = apart(channels * planes)
        panel, first, last = product.pieces_of(task, sizes)
        for piece in range(first, last):
            channel, count = product.load_filters(panel, piece, memory, weight, sizes)
            filters_to_points(packed, panel * points * pitch + channel, channels, pitch, memory, count, planes)

    pack.__name__ = pack.__qualname__ = f"_pack{_name(axes)}"
    return jit.scratch_kernel(pack)


@cache
def _kernel(axes: tuple[Filtering, Filtering], plain: bool) -> Any:
    """Return the kernel for packed filters, or for plain ones, which it packs bit by bit."""
    filters_to_points = _filters_to_points(axes)
    (inverse, _, forward), (inverse_across, _, forward_across) = map(filtering, axes)
    to_points, to_results = transform(forward, forward_across), transform_and_add(inverse, inverse_across)
    (down, across), (lines, columns) = [axis.outputs for axis in axes], [axis.points for axis in axes]
    n = lines * columns
    y_pace, x_pace, y_reach, x_reach = *[axis.pace for axis in axes], *[axis.reach for axis in axes]
    y_stride, x_stride = [axis.stride for axis in axes]

    def points_of(points, at, step, piece, first, pitch, channels):  # type: ignore[no-untyped-def]
        """Transform a tile of the input: Bᵀ d B, a vector of channels at a time; the last ones may overlap."""
        wide = width_of(piece)
        for c in range(0, channels, wide):
            c = min(c, channels - wide)
            to_points(points, at + c, columns * step, step, piece, first + c, pitch * channels, channels)

    def results_of(result, first, pitch, points, room, tile, bias, b, epilogue):  # type: ignore[no-untyped-def]
        """Transform a tile's sums back, Aᵀ M A, and finish them."""
        wide = width_of(result)
        step, at = room * wide, first * wide
        to_results(result, at, pitch * wide, wide, points, tile * wide, columns * step, step, bias, b)
        if epilogue[0] != 0:
            for _ in range(down):
                store(activated(load(result, at, across, COLUMNS), epilogue), result, at, wide)
                at += pitch * wide

    points_of, results_of = (jit.specialised(one, *axes[0], *axes[1]) for one in (points_of, results_of))

    def block(task, memory, x, x_layout, weights, bias, epilogue, out, out_layout, grid, sizes, packing):  # type: ignore[no-untyped-def]
        """Compute a rectangle of the result for some panels."""
        task, horizontal = divmod(task, grid[4])
        task, vertical = divmod(task, grid[3])
        task, z = divmod(task, grid[2])
        task, right = divmod(task, grid[6])
        task, lower = divmod(task, grid[5])
        image, part = divmod(task, grid[1])
        before, share, (channels, filters, planes), (z_step, y_step, x_step), (z_stride, _, _) = sizes
        row, column = vertical * share[1] * down, horizontal * share[2] * across
        height, width = -(-(out_layout[6] - lower) // y_step), -(-(out_layout[7] - right) // x_step)
        rows, wanted = min(share[1] * down, height - row), min(share[2] * across, width - column)
        if rows <= 0 or wanted <= 0:
            return
        tile_rows, tile_columns = -(-rows // down), -(-wanted // across)
        tiles = tile_rows * tile_columns
        elements = planes * channels
        wide = width_of(out)
        pitch = (tile_columns - 1) * x_pace + x_reach
        shape = (planes, (tile_rows - 1) * y_pace + y_reach, pitch)
        # One array behind the other; each begins with a line of the cache.
        line = jit.LINE // x.itemsize
        plane = shape[1] * shape[2] * channels
        second = (planes * plane + line) // line * line
        step = apart(-(-tiles * elements // line)) * line
        third = second + n * step + -(-LEAST_ROWS * elements // line) * line
        room = tiles + SPARE if plain else tiles  # what tiles spill over may be added to, or is written again
        fourth = (third + (n * room + SPARE) * wide + line) // line * line
        fifth = (fourth + tiles * down * across * wide + line) // line * line
        sixth = (fifth + n * apart(BIT) * wide + line) // line * line
        piece, points = memory[:second], memory[second:third]
        products, result = memory[third:fourth], memory[fourth:fifth]
        packed, taps = memory[fifth:sixth], memory[sixth:]
        origin = (
            before[0] + z * z_stride, before[1] + row * y_stride * y_step + lower,
            before[2] + column * x_stride * x_step + right,
        )  # fmt: skip
        slab.load(
            piece, np.int64(0), x, x_layout, image * x_layout[0], channels, origin, (z_step, y_step, x_step), shape
        )
        for tile in range(tiles):
            i, j = divmod(tile, tile_columns)
            for k in range(planes):
                first = k * plane + (i * y_pace * pitch + j * x_pace) * channels
                points_of(points, tile * elements + k * channels, step, piece, first, pitch, channels)
        chains = 1 if plain else -(-elements // CHAIN)
        for panel in range(part * share[0], min((part + 1) * share[0], -(-filters // wide))):
            bits = packing[1] if plain else 1
            together = max(BIT // packing[15], 1)
            for bit in range(0, bits, together):
                begin, end = np.int64(0), elements
                if plain:
                    begin, end = bit * packing[15], min((bit + together) * packing[15], channels)
                    for part_of_bit in range(bit, min(bit + together, bits)):
                        channel, count = product.load_filters(panel, part_of_bit, taps, weights, packing)
                        filters_to_points(packed, channel - begin, channels, apart(BIT), taps, count, planes)
                for point in range(n):
                    numbers, w = weights, (panel * n + point) * apart(elements) * wide
                    if plain:
                        numbers, w = packed, point * apart(BIT) * wide
                    first, last = begin, begin
                    for chain in range(chains):
                        last = begin + (end - begin) * (chain + 1) // chains
                        multiply_rows(
                            products, point * room, points, point * step + first, elements, np.int64(1),
                            tiles, numbers, w, last - first, bit == 0 and chain == 0,
                        )  # fmt: skip
                        w += (last - first) * wide
                        first = last
            for tile in range(tiles):
                i, j = divmod(tile, tile_columns)
                first = (i * down * tile_columns + j) * across
                results_of(result, first, tile_columns * across, products, room, tile, bias, panel * wide, epilogue)
            k = panel * wide
            at = image * out_layout[0] + k * out_layout[1] + z * out_layout[2]
            at += (lower + row * y_step) * out_layout[3] + (right + column * x_step) * out_layout[4]
            slab.unload(
                out, at, out_layout[1], y_step * out_layout[3], x_step * out_layout[4], min(wide, filters - k), rows,
                wanted, result, 0, tile_columns * across,
            )  # fmt: skip

    block.__name__ = block.__qualname__ = f"_{'plain' if plain else 'block'}{_name(axes)}"
    return jit.scratch_kernel(block)


class Winograd:
    """Tiles of m × m results as an engine: `npconv.kernels.packed` tells what its methods do.

    A ``plain`` one packs filters within its tasks, some channels of a panel at a time, which stay in cache until they
    are used: for calls that bring plain weights, if one task meets all of the image. A ``frugal`` one works in little
    memory, for calls that need the most of what there is for packed weights. With 512 channels and filters at
    7² a call takes 1.0 to 1.4 ms so, and took 2.0 to 2.3 with all filters packed first.
    """

    def __init__(self, m: int, plain: bool = False, frugal: bool = False) -> None:
        self._m, self._plain, self._frugal = m, plain, frugal

    def pack(self, problem: ConvProblem, weight: np.ndarray) -> Weights:
        """Return filters (K, C, kd, kh, kw) as panels of their points, flat; or how to pack them."""
        cut = product.packing(problem, weight)
        if self._plain:
            return Weights(cut.weight, cut.sizes)
        filterings = axes(problem, self._m)
        elements = apart.py_func(problem.in_channels * problem.kernel_size[0])
        packed = product.packed_like(problem, filterings[0].points * filterings[1].points * elements)
        _packing(filterings).run(
            cut.tasks, len(packed) // product.WORTH, cut.weight, packed, cut.sizes, scratch=cut.scratch
        )
        return Weights(packed, cut.sizes)

    pack_bias = staticmethod(product.panel_bias)

    def plan(self, problem: ConvProblem, threads: int) -> Plan:
        """Cut a canonical problem into tasks."""
        filterings, wide = axes(problem, self._m), product.width(problem.compute_dtype)
        down, across = filterings
        n = down.points * across.points
        depth, height, width = problem.output_size
        planes, (_, y_step, x_step) = problem.kernel_size[0], problem.dilation
        elements = problem.in_channels * planes
        panels = -(-problem.out_channels // wide)
        others = problem.batch * depth * y_step * x_step
        most = blocking.TILES[0] if self._frugal else blocking.tiles_at_once(problem, n, threads)
        tile_rows, tile_columns = -(-height // (y_step * down.outputs)), -(-width // (x_step * across.outputs))
        block = blocking.tiled(tile_rows, tile_columns, most, others, panels, threads, LOAD)
        grid = (problem.batch, -(-panels // block.panels), depth, -(-tile_rows // block.rows),
                -(-tile_columns // block.columns), y_step, x_step)  # fmt: skip
        before = tuple(-pad for pad, _ in problem.padding)
        sizes = np.array(
            [before, (block.panels, *block[:2]), (problem.in_channels, problem.out_channels, planes), problem.dilation,
             problem.stride]
        )  # fmt: skip
        tiles = block.rows * block.columns
        pixels = ((block.rows - 1) * down.pace + down.reach) * ((block.columns - 1) * across.pace + across.reach)
        scratch = (pixels + n * tiles + LEAST_ROWS) * elements
        scratch += 2 * n * jit.LINE // problem.compute_dtype.itemsize  # between points
        scratch += (n * tiles + SPARE + tiles * down.outputs * across.outputs) * wide + 6 * jit.LINE
        if self._plain:
            scratch += (n * (SPARE + apart.py_func(BIT)) + product.ELEMENTS) * wide
        return Plan(
            int(np.prod(grid)), problem.flops // 80, (scratch, problem.compute_dtype), filterings, np.array(grid), sizes
        )

    def conv(
        self, plan: Plan, x: np.ndarray, x_layout: np.ndarray, weights: Weights, bias: np.ndarray,
        epilogue: np.ndarray, out: np.ndarray, out_layout: np.ndarray,
    ) -> None:  # fmt: skip
        """Fill ``out``."""
        _kernel(plan.axes, self._plain).run(
            plan.tasks, plan.work, x, x_layout, weights.numbers, bias, epilogue, out, out_layout, plan.grid, plan.sizes,
            weights.packing, scratch=plan.scratch,
        )  # fmt: skip


two, plain_two, frugal_two = Winograd(2), Winograd(2, plain=True), Winograd(2, frugal=True)
four, plain_four, frugal_four = Winograd(4), Winograd(4, plain=True), Winograd(4, frugal=True)

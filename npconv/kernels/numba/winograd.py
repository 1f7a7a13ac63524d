"""Winograd's minimal filtering: r × r kernels at stride 1 with 2 to 4 times fewer products.

A tile of m × m results needs n² products, n = m + r - 1, instead of m² r²: F(2×2, 3×3) 16 instead of 36, F(4×4, 3×3) 36
instead of 144, F(2×2, 5×5) 36 instead of 100. The input tile and the filter are each transformed to n² *points*,
multiplied point by point, summed over the channels, and transformed back,

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A.

The sum over the channels is, for each point, a matrix product of tiles and filters, and runs as such in registers. A
task is a rectangle of tiles, whose points stay in the core's caches, and some panels of filters; it goes from the input
to the finished result without another pass through memory. Transforms work on vectors of channels.
With dilation d, the pixels of one residue modulo d, in each direction, are an image of their own.

Matrices are those of Toom and Cook for the points 0, ±√½, ±√2 (and ∞), whose products stay near one in size, so that
F(4×4) loses a quarter less than with the usual 0, ±1, ±2; pairs ±p share their sums.

Lavin and Gray, *Fast algorithms for convolutional neural networks* (2016), §4; Barabasz et al., *Error analysis and
improving the accuracy of Winograd convolution for deep neural networks* (2020), §6, for the points.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import blocking, jit, product, slab
from npconv.kernels.numba.product import LEAST_ROWS, SPARE, multiply_rows, width_of
from npconv.kernels.numba.tile import COLUMNS
from npconv.kernels.numba.transforms import POINTS, toom_cook, transform, transform_and_add
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
    taps: int
    grid: np.ndarray
    sizes: np.ndarray


@jit.inline
def apart(number):  # type: ignore[no-untyped-def]
    """Return at least ``number``, as the distance of points of so many rows: odd, lest all meet in one cache set."""
    return number | 1


def _filters_to_points(m: int, r: int) -> Any:
    """Return the transform of filters for F(m × m, r × r): G g Gᵀ, a vector of filters at a time."""
    n = m + r - 1
    to_points = transform(toom_cook(m, r, POINTS[n])[1])

    def filters_to_points(packed, at, pitch, taps, count):  # type: ignore[no-untyped-def]
        """Write the points, ``pitch`` channels each, of some channels of a panel, whose taps `load_filters` left."""
        wide = width_of(packed)
        for c in range(count):
            first = c * r * r * wide
            to_points(packed, (at + c) * wide, n * pitch * wide, pitch * wide, taps, first, r * wide, wide)

    return jit.specialised(filters_to_points, m, r)


@cache
def _packing(m: int, r: int) -> Any:
    """Return the kernel that packs filters for F(m × m, r × r)."""
    points = (m + r - 1) ** 2
    filters_to_points = _filters_to_points(m, r)

    def pack(task, memory, weight, packed, sizes):  # type: ignore[no-untyped-def]
        """Transform some channels of a panel."""
        pitch = apart(sizes[2])
        panel, first, last = product.pieces_of(task, sizes)
        for piece in range(first, last):
            channel, count = product.load_filters(panel, piece, memory, weight, sizes)
            filters_to_points(packed, panel * points * pitch + channel, pitch, memory, count)

    pack.__name__ = pack.__qualname__ = f"_pack{m}_{r}"
    return jit.scratch_kernel(pack)


@cache
def _kernel(m: int, plain: bool, r: int) -> Any:
    """Return the kernel of F(m × m, r × r), for packed filters or for plain ones, which it packs bit by bit."""
    n = m + r - 1
    filters_to_points = _filters_to_points(m, r)
    inverse, _, forward = toom_cook(m, r, POINTS[n])
    to_points, to_results = transform(forward), transform_and_add(inverse)

    def points_of(points, step, tile, piece, first, pitch, channels):  # type: ignore[no-untyped-def]
        """Transform a tile of the input: Bᵀ d B, a vector of channels at a time; the last ones may overlap."""
        wide = width_of(piece)
        for c in range(0, channels, wide):
            c = min(c, channels - wide)
            at = tile * channels + c
            to_points(points, at, n * step, step, piece, first + c, pitch * channels, channels)

    def results_of(result, first, pitch, points, room, tile, bias, b, epilogue):  # type: ignore[no-untyped-def]
        """Transform a tile's sums back, Aᵀ M A, and finish them."""
        wide = width_of(result)
        step, at = room * wide, first * wide
        to_results(result, at, pitch * wide, wide, points, tile * wide, n * step, step, bias, b)
        if epilogue[0] != 0:
            for _ in range(m):
                store(activated(load(result, at, m, COLUMNS), epilogue), result, at, wide)
                at += pitch * wide

    points_of, results_of = jit.specialised(points_of, m, r), jit.specialised(results_of, m, r)

    def block(task, memory, x, x_layout, weights, bias, epilogue, out, out_layout, grid, sizes, packing):  # type: ignore[no-untyped-def]
        """Compute a rectangle of the result for some panels."""
        task, horizontal = divmod(task, grid[4])
        task, vertical = divmod(task, grid[3])
        task, z = divmod(task, grid[2])
        task, right = divmod(task, grid[6])
        task, lower = divmod(task, grid[5])
        image, part = divmod(task, grid[1])
        before, share, (channels, filters, _), (_, y_step, x_step) = sizes
        row, column = vertical * share[1] * m, horizontal * share[2] * m
        height, width = -(-(out_layout[6] - lower) // y_step), -(-(out_layout[7] - right) // x_step)
        rows, columns = min(share[1] * m, height - row), min(share[2] * m, width - column)
        if rows <= 0 or columns <= 0:
            return
        down, across = -(-rows // m), -(-columns // m)
        tiles = down * across
        wide = width_of(out)
        pitch = across * m + r - 1
        shape = (1, down * m + r - 1, pitch)
        # One array behind the other; each begins with a line of the cache.
        line = jit.LINE // x.itemsize
        second = (shape[1] * shape[2] * channels + line) // line * line
        step = apart(-(-tiles * channels // line)) * line
        third = second + n * n * step + -(-LEAST_ROWS * channels // line) * line
        room = tiles + SPARE if plain else tiles  # what tiles spill over may be added to, or is written again
        fourth = (third + (n * n * room + SPARE) * wide + line) // line * line
        fifth = (fourth + tiles * m * m * wide + line) // line * line
        sixth = (fifth + n * n * apart(BIT) * wide + line) // line * line
        piece, points = memory[:second], memory[second:third]
        products, result = memory[third:fourth], memory[fourth:fifth]
        packed, taps = memory[fifth:sixth], memory[sixth:]
        origin = (before[0] + z, before[1] + row * y_step + lower, before[2] + column * x_step + right)
        slab.load(piece, np.int64(0), x, x_layout, image * x_layout[0], channels, origin, (1, y_step, x_step), shape)
        for tile in range(tiles):
            i, j = divmod(tile, across)
            points_of(points, step, tile, piece, (i * pitch + j) * m * channels, pitch, channels)
        chains = 1 if plain else -(-channels // CHAIN)
        for panel in range(part * share[0], min((part + 1) * share[0], -(-filters // wide))):
            bits = packing[1] if plain else 1
            together = max(BIT // packing[15], 1)
            for bit in range(0, bits, together):
                begin, end = np.int64(0), channels
                if plain:
                    begin, end = bit * packing[15], min((bit + together) * packing[15], channels)
                    for part_of_bit in range(bit, min(bit + together, bits)):
                        channel, count = product.load_filters(panel, part_of_bit, taps, weights, packing)
                        filters_to_points(packed, channel - begin, apart(BIT), taps, count)
                for point in range(n * n):
                    numbers, w = weights, (panel * n * n + point) * apart(channels) * wide
                    if plain:
                        numbers, w = packed, point * apart(BIT) * wide
                    first, last = begin, begin
                    for chain in range(chains):
                        last = begin + (end - begin) * (chain + 1) // chains
                        multiply_rows(
                            products, point * room, points, point * step + first, channels, np.int64(1),
                            tiles, numbers, w, last - first, bit == 0 and chain == 0,
                        )  # fmt: skip
                        w += (last - first) * wide
                        first = last
            for tile in range(tiles):
                i, j = divmod(tile, across)
                first = (i * m * across + j) * m
                results_of(result, first, across * m, products, room, tile, bias, panel * wide, epilogue)
            k = panel * wide
            at = image * out_layout[0] + k * out_layout[1] + z * out_layout[2]
            at += (lower + row * y_step) * out_layout[3] + (right + column * x_step) * out_layout[4]
            slab.unload(
                out, at, out_layout[1], y_step * out_layout[3], x_step * out_layout[4], min(wide, filters - k), rows,
                columns, result, 0, across * m,
            )  # fmt: skip

    block.__name__ = block.__qualname__ = f"_{'plain' if plain else 'block'}{m}_{r}"
    return jit.scratch_kernel(block)


class Winograd:
    """F(m × m, r × r) as an engine: `npconv.kernels.packed` tells what its methods do.

    A ``plain`` one packs filters within its tasks, some channels of a panel at a time, which stay in cache until they
    are used: for calls that bring plain weights, if one task meets all of the image. A ``frugal`` one works in little
    memory, for calls that need the most of what there is for packed weights. With 512 channels and filters at
    7² a call takes 1.0 to 1.4 ms so, and took 2.0 to 2.3 with all filters packed first.
    """

    def __init__(self, m: int, plain: bool = False, frugal: bool = False) -> None:
        self._m, self._plain, self._frugal = m, plain, frugal

    def pack(self, problem: ConvProblem, weight: np.ndarray) -> Weights:
        """Return filters (K, C, 1, r, r) as panels of their points, flat; or how to pack them."""
        r = problem.kernel_size[-1]
        n = self._m + r - 1
        cut = product.packing(problem, weight)
        if self._plain:
            return Weights(cut.weight, cut.sizes)
        packed = product.packed_like(problem, n * n * apart.py_func(problem.in_channels))
        _packing(self._m, r).run(
            cut.tasks, len(packed) // product.WORTH, cut.weight, packed, cut.sizes, scratch=cut.scratch
        )
        return Weights(packed, cut.sizes)

    pack_bias = staticmethod(product.panel_bias)

    def plan(self, problem: ConvProblem, threads: int) -> Plan:
        """Cut a canonical problem into tasks."""
        m, r = self._m, problem.kernel_size[-1]
        n, wide = m + r - 1, product.width(problem.compute_dtype)
        depth, height, width = problem.output_size
        _, y_step, x_step = problem.dilation
        panels = -(-problem.out_channels // wide)
        down, across = -(-height // y_step), -(-width // x_step)  # of one residue
        others = problem.batch * depth * y_step * x_step
        most = blocking.TILES[0] if self._frugal else blocking.tiles_at_once(problem, n * n, threads)
        block = blocking.tiled(-(-down // m), -(-across // m), most, others, panels, threads, LOAD)
        grid = (problem.batch, -(-panels // block.panels), depth, -(-down // (block.rows * m)),
                -(-across // (block.columns * m)), y_step, x_step)  # fmt: skip
        before = tuple(-pad for pad, _ in problem.padding)
        sizes = np.array(
            [before, (block.panels, *block[:2]), (problem.in_channels, problem.out_channels, 0), problem.dilation]
        )
        tiles = block.rows * block.columns
        pixels = (block.rows * m + r - 1) * (block.columns * m + r - 1)
        scratch = (pixels + n * n * tiles + LEAST_ROWS) * problem.in_channels
        scratch += 2 * n * n * jit.LINE // problem.compute_dtype.itemsize  # between points
        scratch += (n * n * tiles + SPARE + tiles * m * m) * wide + 6 * jit.LINE
        if self._plain:
            scratch += (n * n * (SPARE + apart.py_func(BIT)) + product.ELEMENTS) * wide
        return Plan(int(np.prod(grid)), problem.flops // 80, (scratch, problem.compute_dtype), r, np.array(grid), sizes)

    def conv(
        self, plan: Plan, x: np.ndarray, x_layout: np.ndarray, weights: Weights, bias: np.ndarray,
        epilogue: np.ndarray, out: np.ndarray, out_layout: np.ndarray,
    ) -> None:  # fmt: skip
        """Fill ``out``."""
        _kernel(self._m, self._plain, plan.taps).run(
            plan.tasks, plan.work, x, x_layout, weights.numbers, bias, epilogue, out, out_layout, plan.grid, plan.sizes,
            weights.packing, scratch=plan.scratch,
        )  # fmt: skip


two, plain_two, frugal_two = Winograd(2), Winograd(2, plain=True), Winograd(2, frugal=True)
four, plain_four, frugal_four = Winograd(4), Winograd(4, plain=True), Winograd(4, frugal=True)

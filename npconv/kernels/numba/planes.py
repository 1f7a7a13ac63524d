"""The direct sum, with pixels in the vectors: for few channels a group, as depthwise ones, and for planes as they are.

A register tile is some filters times some vectors of neighbouring pixels, all of one group. The planes of the input lie
in the slab with their padding, row behind row, so that the pixels that one tap meets are those of another tap moved by
a constant: a tile runs over the rows' ends as if there were none, and what it computes in the padding between two rows
is left behind. With a stride, rows and columns of one residue lie together and the same holds again. So each product
takes one vector from the slab, wherever it begins, and one number of the weights, broadcast; nothing is gathered.

A task is a rectangle of one plane of the result, for some groups, or some filters of one group.

Zhang, Franchetti and Low, *High performance zero-memory overhead direct convolutions* (2018), show that the memory
order of the input decides the speed of a direct sum; the running over the rows' ends is npconv's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import blocking, jit
from npconv.kernels.numba.moves import BLOCK
from npconv.kernels.numba.slab import clear, load_planes, unload_planes
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.kernels.numba.vector import activated, add, add_column, lanes_of, multiply_add, starts_from, store, zeros
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

TILES = {1: 8, 2: 4, 3: 2, 4: 2, 5: 2, 6: 2}
"""Vectors in the row of a tile, by its number of filters: 8 to 12 sums, so that none waits for the one before it."""

MOST = max(TILES)

WIDEST = max(TILES.values())

PIXELS = 1536
"""Pixels of a task, if the cache has room for what they need."""

LOAD = 0.3
"""How long it takes to load a number of the input, in products with `MOST` filters."""

FILTERS = 16
"""Filters of a task, if they belong to several groups."""


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray


def pack(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """Return filters (K, C/groups, kd, kh, kw) flat, as they are."""
    return np.ascontiguousarray(weight).reshape(-1)


def pack_bias(problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
    """Return the bias, zeros if there is none."""
    if bias is None:
        return np.zeros(problem.out_channels, problem.compute_dtype)
    return np.array(bias, problem.compute_dtype)


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    itemsize = problem.compute_dtype.itemsize
    channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    kernel, dilation, stride = problem.kernel_size, problem.dilation, problem.stride
    depth, height, width = problem.output_size
    phases = [sorted({tap * dilation[axis] % stride[axis] for tap in range(kernel[axis])}) for axis in (1, 2)]
    beyond = [(problem.span[axis] - 1) // stride[axis] for axis in (1, 2)]
    together = max(min(problem.groups, FILTERS // filters), 1)
    others = problem.batch * -(-problem.groups // together) * depth
    pixels = PIXELS
    while True:
        panels = -(-filters // MOST) if together == 1 else 1
        block = blocking.blocks(height, width, pixels, others, panels, threads, LOAD / problem.taps)
        rows, columns = block.rows + beyond[0], block.columns + beyond[1]
        planes = channels * kernel[0] * len(phases[0]) * len(phases[1])
        if pixels <= 64 or planes * rows * columns * itemsize <= blocking.CACHE // (8 if together > 1 else 1):
            break
        pixels = pixels * 3 // 4
    share = block.panels * MOST if together == 1 else filters
    # Planes are an odd number of lines of the cache apart: powers of two would meet in a few of its sets.
    line = 64 // itemsize
    plane = (-(-rows * columns // line) | 1) * line
    grid = (problem.batch, -(-problem.groups // together), -(-filters // share), depth,
            -(-height // block.rows), -(-width // block.columns))  # fmt: skip
    before = tuple(-pad for pad, _ in problem.padding)
    sizes = np.array(
        [stride, (dilation[0], len(phases[0]), len(phases[1])), before, (kernel[0], rows, columns),
         (share, *block[:2]), (channels, filters, plane),
         (problem.groups, together, chain_length(problem.products))]
    )  # fmt: skip
    offsets = [
        ((((c * kernel[0] + i) * len(phases[0]) + phases[0].index(j * dilation[1] % stride[1])) * len(phases[1])
          + phases[1].index(m * dilation[2] % stride[2])) * plane
         + j * dilation[1] // stride[1] * columns + m * dilation[2] // stride[2])
        for c in range(channels) for i in range(kernel[0]) for j in range(kernel[1]) for m in range(kernel[2])
    ]  # fmt: skip
    offsets += phases[0] + phases[1]
    lanes = VECTOR_BYTES // itemsize
    spare = WIDEST * lanes
    pitch = -(-block.rows * columns // lanes) * lanes + spare
    at_once = min(together, BLOCK)
    scratch = at_once * (planes * plane + share * pitch) + spare
    return Plan(
        int(np.prod(grid)), problem.flops // 20, (scratch, problem.compute_dtype), np.array(grid), sizes,
        np.array(offsets),
    )  # fmt: skip


def conv(
    plan: Plan, x: np.ndarray, x_layout: np.ndarray, weights: np.ndarray, bias: np.ndarray, epilogue: np.ndarray,
    out: np.ndarray, out_layout: np.ndarray,
) -> None:  # fmt: skip
    """Fill ``out``."""
    _block.run(plan.tasks, plan.work, x, x_layout, weights, bias, epilogue, out, out_layout, plan.grid, plan.sizes,
               plan.offsets, scratch=plan.scratch)  # fmt: skip


@jit.scratch_kernel
def _block(task, scratch, x, x_layout, weights, bias, epilogue, out, out_layout, grid, sizes, offsets):  # type: ignore[no-untyped-def]
    """Compute a rectangle of the result for some groups, or some filters of a group."""
    task, horizontal = divmod(task, grid[5])
    task, vertical = divmod(task, grid[4])
    task, z = divmod(task, grid[3])
    task, part = divmod(task, grid[2])
    n, first_group = divmod(task, grid[1])
    stride, (depth_step, down, across), before, window, block, (channels, filters, plane), others = sizes
    groups, together, chain = others
    first_group *= together
    together = min(together, groups - first_group)
    first_filter = part * block[0]
    count = min(block[0], filters - first_filter)  # of each group
    row, column = vertical * block[1], horizontal * block[2]
    rows, columns = min(block[1], out_layout[6] - row), min(block[2], out_layout[7] - column)
    elements = len(offsets) - down - across
    phases = offsets[elements:]
    size = channels * window[0] * down * across * plane
    lanes = lanes_of(x)
    spare = WIDEST * lanes
    positions = (rows - 1) * window[2] + columns
    pitch = -(-positions // lanes) * lanes + spare
    # A row of results is written where it belongs, the last tile over the end of the one before.
    straight = rows == 1 and out_layout[4] == 1 and columns >= WIDEST * lanes
    at_once = _at_once(groups, filters, out_layout[1], x_layout[1])
    piece, result = scratch[: at_once * size + spare], scratch[at_once * size + spare :]
    clear(piece, np.int64(0), at_once * size)  # once: what is padding for one group is padding for the others
    for begin in range(first_group, first_group + together, at_once):
        number = min(at_once, first_group + together - begin)
        start = n * x_layout[0] + begin * channels * x_layout[1]
        origin = (before[0] + z * stride[0], before[1] + row * stride[1], before[2] + column * stride[2])
        load_planes(
            piece, np.int64(0), plane, x, x_layout, start, number * channels, origin, depth_step, stride, window,
            phases, down,
        )  # fmt: skip
        at = n * out_layout[0] + (begin * filters + first_filter) * out_layout[1] + z * out_layout[2]
        at += row * out_layout[3] + column * out_layout[4]
        for g in range(number):
            k = (begin + g) * filters + first_filter
            if straight:
                target, to, step = out, at + g * filters * out_layout[1], out_layout[1]
            else:
                target, to, step = result, g * count * pitch, pitch
            _multiply(
                target, to, step, weights, k, count, elements, piece, g * size, offsets, positions, straight, chain,
                bias, epilogue,
            )  # fmt: skip
        if not straight:
            unload_planes(out, out_layout, at, number * count, rows, columns, result, 0, pitch, window[2])


@jit.inline
def _at_once(groups, filters, to_filter, to_channel):  # type: ignore[no-untyped-def]
    """Return the groups that a task works on at a time: one, whose planes stay in the first-level cache.

    Where the channels are last, enough of them to transpose straight blocks.
    """
    return min(groups, -(-BLOCK // filters)) if to_filter == 1 or to_channel == 1 else 1


def _height(rows):  # type: ignore[no-untyped-def]
    """Return the product of ``rows`` filters with all pixels."""
    columns = TILES[rows]

    def multiply(  # type: ignore[no-untyped-def]
        result, at, pitch, weights, k, elements, piece, begin, offsets, positions, straight, chain, bias, epilogue
    ):
        wide = columns * lanes_of(result)
        last = positions - wide if straight else positions
        filters = starts_from(k * elements, elements, rows)
        for pixel in range(0, positions, wide):
            pixel = min(pixel, last)
            total = zeros(result, rows, columns)
            for start in range(0, elements, chain):
                tile = zeros(result, rows, columns)
                for element in range(start, min(start + chain, elements)):
                    tile = multiply_add(tile, weights, filters, element, piece, begin + offsets[element] + pixel)
                total = add(total, tile)
            total = add_column(total, bias, k)
            if epilogue[0] != 0:
                total = activated(total, epilogue)
            store(total, result, at + pixel, pitch)

    return jit.specialised(multiply, rows, within=True)


_one, _two, _three, _four, _five, _six = (_height(rows) for rows in TILES)


@jit.inline
def _multiply(  # type: ignore[no-untyped-def]
    result, at, pitch, weights, k, count, elements, piece, begin, offsets, positions, straight, chain, bias, epilogue
):
    """Compute ``count`` filters of a group, in tiles as high as the others or one row less."""
    tiles = -(-count // MOST)
    least, higher = divmod(count, tiles)
    for tile in range(tiles):
        rows = least + 1 if tile < higher else least
        if rows == 6:
            _six(result, at, pitch, weights, k, elements, piece, begin, offsets, positions, straight, chain, bias,
                 epilogue)  # fmt: skip
        elif rows == 5:
            _five(result, at, pitch, weights, k, elements, piece, begin, offsets, positions, straight, chain, bias,
                  epilogue)  # fmt: skip
        elif rows == 4:
            _four(result, at, pitch, weights, k, elements, piece, begin, offsets, positions, straight, chain, bias,
                  epilogue)  # fmt: skip
        elif rows == 3:
            _three(result, at, pitch, weights, k, elements, piece, begin, offsets, positions, straight, chain, bias,
                   epilogue)  # fmt: skip
        elif rows == 2:
            _two(result, at, pitch, weights, k, elements, piece, begin, offsets, positions, straight, chain, bias,
                 epilogue)  # fmt: skip
        else:
            _one(result, at, pitch, weights, k, elements, piece, begin, offsets, positions, straight, chain, bias,
                 epilogue)  # fmt: skip
        at += rows * pitch
        k += rows

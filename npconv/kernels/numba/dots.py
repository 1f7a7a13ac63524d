"""The direct sum, with the kernel's elements in the vectors: for kernels larger than their results.

The weight gradient of a depthwise convolution is one: its kernel is the gradient of a whole plane, its result 3 × 3. A
register tile holds some results, a vector of partial sums for each. A step loads a vector of the kernel's row and, for
each result, the vector of the input that it meets there; the lanes are added up at the end.

The input's plane lies in the slab with its padding; with a dilation, rows and columns of one residue lie together, so
that the elements that a row of the kernel meets are side by side. Of a row's last vector only the lanes within the
kernel count: zeros in the others would not do, for an infinity in the input would make them NaN.

A task is a plane of the result, for all filters of a group.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import jit, planes
from npconv.kernels.numba.slab import clear, copy_numbers, load_planes, unload_planes
from npconv.kernels.numba.vector import (
    VECTOR_BYTES,
    activated,
    add,
    add_column,
    add_to,
    lanes_of,
    load,
    multiply_add_part,
    starts_at,
    store,
    zeros,
)  # fmt: skip
from npconv.problem import ConvProblem

RESULTS = 9
"""Results of a tile: all of a 3 × 3 plane."""


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    sizes: np.ndarray
    places: np.ndarray
    phases: np.ndarray


pack, pack_bias = planes.pack, planes.pack_bias


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
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
    results = height * width
    tiles = -(-results // RESULTS)
    places += places[-1:] * (tiles * RESULTS - results)
    wide = -(-kernel[2] // lanes) * lanes
    slab = kernel[0] * len(phases[0]) * len(phases[1]) * plane + lanes
    parts = (slab, kernel[1] * wide, filters * tiles * RESULTS * lanes, filters * -(-results // lanes) * lanes)
    before = tuple(-pad for pad, _ in problem.padding)
    chain = math.isqrt(kernel[1] * wide // lanes) + 1
    sizes = np.array(
        [(stride[0], dilation[1], dilation[2]), (dilation[0], len(phases[0]), chain), before, (kernel[0], rows, pitch),
         kernel, (channels, filters, tiles), parts[:3]]
    )  # fmt: skip
    grid = (problem.batch, problem.groups, depth)
    return Plan(
        int(np.prod(grid)), problem.flops // 10, (sum(parts), problem.compute_dtype), np.array(grid), sizes,
        np.array(places), np.array(phases[0] + phases[1]),
    )  # fmt: skip


def conv(
    plan: Plan, x: np.ndarray, x_layout: np.ndarray, weights: np.ndarray, bias: np.ndarray, epilogue: np.ndarray,
    out: np.ndarray, out_layout: np.ndarray,
) -> None:  # fmt: skip
    """Fill ``out``."""
    _block.run(plan.tasks, plan.work, x, x_layout, weights, bias, epilogue, out, out_layout, plan.grid, plan.sizes,
               plan.places, plan.phases, scratch=plan.scratch)  # fmt: skip


@jit.scratch_kernel
def _block(task, scratch, x, x_layout, weights, bias, epilogue, out, out_layout, grid, sizes, places, phases):  # type: ignore[no-untyped-def]
    """Compute a plane of the result for the filters of a group."""
    task, z = divmod(task, grid[2])
    n, g = divmod(task, grid[1])
    stride, (depth_step, down, chain), before, window, kernel, (channels, filters, tiles), parts = sizes
    ends = parts[0], parts[0] + parts[1], parts[0] + parts[1] + parts[2]
    piece, flat = scratch[: ends[0]], scratch[ends[0] : ends[1]]
    sums, result = scratch[ends[1] : ends[2]], scratch[ends[2] :]
    lanes = lanes_of(x)
    wide = -(-kernel[2] // lanes) * lanes
    plane = window[1] * window[2]
    clear(piece, np.int64(0), parts[0])
    clear(flat, np.int64(0), parts[1])
    clear(sums, np.int64(0), parts[2])
    origin = (before[0] + z * stride[0], before[1], before[2])
    across = len(phases) - down
    for c in range(channels):
        start = n * x_layout[0] + (g * channels + c) * x_layout[1]
        one = np.int64(1)
        load_planes(
            piece, np.int64(0), plane, x, x_layout, start, one, origin, depth_step, stride, window, phases, down
        )
        for k in range(filters):
            for i in range(kernel[0]):
                first = (((g * filters + k) * channels + c) * kernel[0] + i) * kernel[1] * kernel[2]
                for row in range(kernel[1]):
                    copy_numbers(flat, row * wide, weights, first + row * kernel[2], kernel[2])
                for tile in range(tiles):
                    at = (k * tiles + tile) * RESULTS * lanes
                    _multiply(sums, at, piece, i * down * across * plane, window[2], places, tile * RESULTS, flat, wide,
                              kernel[1], kernel[2], chain)  # fmt: skip
    rows, columns = out_layout[6], out_layout[7]
    pitch = -(-rows * columns // lanes) * lanes
    for k in range(filters):
        at = k * tiles * RESULTS * lanes
        for lane in range(lanes):  # lane by lane, so that no sum waits for itself
            for place in range(rows * columns):
                before_it = result[k * pitch + place] if lane > 0 else 0
                result[k * pitch + place] = before_it + sums[at + place * lanes + lane]
        for place in range(0, pitch, lanes):
            row = add_column(load(result, k * pitch + place, 1, 1), bias, g * filters + k)
            if epilogue[0] != 0:
                row = activated(row, epilogue)
            store(row, result, k * pitch + place, 0)
    at = n * out_layout[0] + g * filters * out_layout[1] + z * out_layout[2]
    unload_planes(out, out_layout, at, filters, rows, columns, result, 0, pitch, columns)


@jit.inline
def _multiply(sums, at, piece, begin, pitch, places, place, flat, wide, rows, columns, chain):  # type: ignore[no-untyped-def]
    """Add to ``sums`` a plane's products for a tile of results."""
    lanes = lanes_of(sums)
    starts = starts_at(places, place, RESULTS)
    total = zeros(sums, RESULTS, 1)
    tile = total
    left = chain
    for row in range(rows):
        for column in range(0, columns, lanes):
            source, numbers = begin + row * pitch + column, row * wide + column
            tile = multiply_add_part(tile, piece, starts, source, flat, numbers, columns - column)
            left -= 1
            if left == 0:
                total = add(total, tile)
                tile = zeros(sums, RESULTS, 1)
                left = chain
    add_to(add(total, tile), sums, at, lanes)

"""Batch and channels at once: one region matrix for everything, one batched matrix product."""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from npconv.kernels.cuda import jit
from npconv.kernels.cuda.elementwise import add_bias
from npconv.kernels.cuda.indices import unravel
from npconv.kernels.summation import chain_length

SIDE = 16
"""A block of the product has SIDE × SIDE threads, and its tiles of the two matrices are SIDE deep."""
EACH = 4
"""A thread has EACH × EACH outputs, so that each number read from shared memory serves EACH products."""
TILE = SIDE * EACH
"""Height and width of the part of the result that a block makes."""
ROW = TILE + 1
"""Row of a tile that threads write by columns: with one more than TILE, a warp's go to different banks of memory."""


@jit.kernel
def gather(x, kernel, size, stride, dilation, region_matrix):  # type: ignore[no-untyped-def]
    """Lay the regions of x into a matrix (N, channels · taps, positions): one thread a channel and position."""
    batch, rows, positions = region_matrix.shape
    channels = x.shape[1]
    for i in range(cuda.grid(1), batch * channels * positions, cuda.gridsize(1)):
        plane, d, h, w = unravel(i, size)
        n, c, position = plane // channels, plane % channels, i % positions
        row = c * (rows // channels)
        for a in range(kernel[0]):
            at_d = d * stride[0] + a * dilation[0]
            for b in range(kernel[1]):
                at_h = h * stride[1] + b * dilation[1]
                for e in range(kernel[2]):
                    at_w = w * stride[2] + e * dilation[2]
                    region_matrix[n, row, position] = x[n, c, at_d, at_h, at_w]
                    row += 1


@jit.kernel
def product(kernel_matrix, region_matrix, chain, out):  # type: ignore[no-untyped-def]
    """Multiply (groups, filters, depth) by (N, groups, depth, positions) into (N, groups, filters, positions).

    One block makes one tile of a result. It goes along the depth in steps: its threads copy a tile of either matrix to
    shared memory, then each multiplies EACH rows by EACH columns of them. These are SIDE apart, so that neighbouring
    threads read and write neighbouring columns.
    """
    groups, filters, depth = kernel_matrix.shape
    batch, _, _, positions = out.shape
    down, across = -(-filters // TILE), -(-positions // TILE)
    ty, tx = cuda.threadIdx.x // SIDE, cuda.threadIdx.x % SIDE
    kernel_tile = cuda.shared.array((SIDE, ROW), kernel_matrix.dtype)
    region_tile = cuda.shared.array((SIDE, TILE), region_matrix.dtype)
    part = cuda.local.array((EACH, EACH), out.dtype)
    total = cuda.local.array((EACH, EACH), out.dtype)
    zero = out.dtype.type(0)
    for tile in range(cuda.blockIdx.x, batch * groups * down * across, cuda.gridDim.x):
        matrix, top, left = tile // across // down, tile // across % down * TILE, tile % across * TILE
        n, g = matrix // groups, matrix % groups
        for i in range(EACH):
            for j in range(EACH):
                part[i, j] = total[i, j] = zero
        for step in range(-(-depth // SIDE)):
            start = step * SIDE
            for i in range(EACH):
                row, column = top + ty + i * SIDE, left + tx + i * SIDE
                inside = row < filters and start + tx < depth
                kernel_tile[tx, ty + i * SIDE] = kernel_matrix[g, row, start + tx] if inside else zero
                inside = start + ty < depth and column < positions
                region_tile[ty, tx + i * SIDE] = region_matrix[n, g, start + ty, column] if inside else zero
            cuda.syncthreads()
            for s in range(SIDE):
                for i in range(EACH):
                    for j in range(EACH):
                        part[i, j] += kernel_tile[s, ty + i * SIDE] * region_tile[s, tx + j * SIDE]
            cuda.syncthreads()
            if (step + 1) % chain == 0:  # sums of chains: see npconv.kernels.summation
                for i in range(EACH):
                    for j in range(EACH):
                        total[i, j] += part[i, j]
                        part[i, j] = zero
        for i in range(EACH):
            for j in range(EACH):
                row, column = top + ty + i * SIDE, left + tx + j * SIDE
                if row < filters and column < positions:
                    out[n, g, row, column] = total[i, j] + part[i, j]


def conv(
    x: Any,
    weight: Any,
    bias: Any,
    out: Any,
    stride: tuple[int, int, int],
    dilation: tuple[int, int, int],
    groups: int,
) -> None:
    """Fill ``out``; see `npconv.kernels` for the arguments, which are device arrays here."""
    batch, out_channels, *size = out.shape
    filters, depth, positions = out_channels // groups, math.prod(weight.shape[1:]), math.prod(size)
    region_matrix = jit.empty((batch, groups * depth, positions), x.dtype)
    windows = batch * x.shape[1] * positions
    jit.launch(gather, windows, x, weight.shape[2:], tuple(size), stride, dilation, region_matrix)
    tiles = batch * groups * -(-filters // TILE) * -(-positions // TILE)
    jit.launch_blocks(
        product,
        tiles,
        SIDE * SIDE,
        jit.reshape(weight, groups, filters, depth),
        jit.reshape(region_matrix, batch, groups, depth, positions),
        max(1, chain_length(depth) // SIDE),
        out.reshape(batch, groups, filters, positions),
    )
    if bias is not None:
        jit.launch(add_bias, out.size, bias, out)

"""One channel plane at a time: its regions as a matrix, times the flattened kernels; the planes' products are summed.

A task takes a few rows of the result, so that their region matrix stays in cache. The matrix is kept transposed, an
element of the kernel by a position: the inner loops then run along memory.
"""

from __future__ import annotations

import math

import numpy as np

from npconv.kernels.numba import jit
from npconv.kernels.numba.lean import max, min


def conv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    stride: tuple[int, int, int],
    dilation: tuple[int, int, int],
    groups: int,
) -> None:
    """Fill ``out``; see `npconv.kernels` for the arguments."""
    batch, out_channels, out_depth, out_height, out_width = out.shape
    products = weight[:1].size
    bias = np.zeros(out_channels, x.dtype) if bias is None else bias
    share = max(1, POSITIONS // max(out_width, 1))  # rows to a task
    tasks = batch * groups * -(-out_depth * out_height // share)
    steps = np.array([stride, dilation])
    # Chains of √taps products, of a plane's √taps chains, of √channels planes and of √channels such chains: together at
    # most 2 (1 + √(taps · channels)) additions in a row, see npconv.kernels.summation.
    taps, planes = math.isqrt(math.prod(weight.shape[2:])), max(1, math.isqrt(weight.shape[1]))
    _rows.run(tasks, out.size * products, x, weight, bias, out, steps, groups, share, taps, planes)


POSITIONS = 256
"""Positions that a task has at least, where there are so many. Single rows took 4 times as long at 7 × 7."""


@jit.Kernel
@jit.makes_arrays
def _rows(task, x, weight, bias, out, steps, groups, share, tap_chain, plane_chain):  # type: ignore[no-untyped-def]
    """Compute ``share`` rows of the result, in all channels of a group."""
    _, out_channels, out_depth, out_height, out_width = out.shape
    _, group_channels, kernel_depth, kernel_height, kernel_width = weight.shape
    taps, filters = kernel_depth * kernel_height * kernel_width, out_channels // groups
    volume, block = divmod(task, (out_depth * out_height + share - 1) // share)
    n, g = divmod(volume, groups)
    stride, dilation = steps
    rows = min(share, out_depth * out_height - block * share)
    positions = rows * out_width
    one = x.dtype.type(1)
    region_matrix = np.empty((taps, positions), x.dtype)
    part, product = np.empty(positions, x.dtype), np.empty(positions, x.dtype)
    partial, total = np.zeros((filters, positions), x.dtype), np.zeros((filters, positions), x.dtype)
    for c in range(group_channels):
        for row in range(rows):
            d, h = divmod(block * share + row, out_height)
            t = 0
            for i in range(kernel_depth):
                for j in range(kernel_height):
                    at_d, at_h = d * stride[0] + i * dilation[0], h * stride[1] + j * dilation[1]
                    source = x[n, g * group_channels + c, at_d, at_h]
                    for m in range(kernel_width):
                        regions = region_matrix[t, row * out_width : (row + 1) * out_width]
                        for w in range(out_width):
                            regions[w] = source[w * stride[2] + m * dilation[2]]
                        t += 1
        for f in range(filters):
            kernel = weight[g * filters + f, c].reshape(taps)
            product[:] = 0
            for start in range(0, taps, tap_chain):
                part[:] = 0
                for t in range(start, min(start + tap_chain, taps)):
                    _add_scaled(part, kernel[t], region_matrix[t])
                _add_scaled(product, one, part)
            _add_scaled(partial[f], one, product)
            if (c + 1) % plane_chain == 0 or c + 1 == group_channels:
                _add_scaled(total[f], one, partial[f])
                partial[f] = 0
    for f in range(filters):
        k = g * filters + f
        for row in range(rows):
            d, h = divmod(block * share + row, out_height)
            sums = total[f, row * out_width : (row + 1) * out_width]
            for w in range(out_width):
                out[n, k, d, h, w] = sums[w] + bias[k]


@jit.inline
def _add_scaled(total, scale, values):  # type: ignore[no-untyped-def]
    for w in range(len(total)):
        total[w] += scale * values[w]

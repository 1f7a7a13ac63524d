"""One channel plane at a time: its regions as the rows of a matrix, times the kernels flattened to columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda

from npconv.kernels.cuda import jit
from npconv.kernels.cuda.elementwise import add, add_bias, clear
from npconv.kernels.cuda.indices import unravel


@jit.kernel
def gather(plane, kernel, size, stride, dilation, region_matrix):  # type: ignore[no-untyped-def]
    """Lay the regions of a plane (D, H, W) into the rows of a matrix (positions, taps): one thread an entry."""
    positions, taps = region_matrix.shape
    for i in range(cuda.grid(1), positions * taps, cuda.gridsize(1)):
        position, tap = i // taps, i % taps
        _, d, h, w = unravel(position, size)
        _, a, b, e = unravel(tap, kernel)
        at_d = d * stride[0] + a * dilation[0]
        at_h = h * stride[1] + b * dilation[1]
        at_w = w * stride[2] + e * dilation[2]
        region_matrix[position, tap] = plane[at_d, at_h, at_w]


@jit.kernel
def product(region_matrix, kernels, c, fresh, chain, total):  # type: ignore[no-untyped-def]
    """Multiply the region matrix by the kernels (filters, C, taps) of channel ``c``: one thread an entry of ``total``.

    The products are added to what ``total`` (filters, positions) holds, unless it is to start afresh.
    """
    positions, taps = region_matrix.shape
    zero = region_matrix.dtype.type(0)
    for i in range(cuda.grid(1), total.size, cuda.gridsize(1)):
        k, position = i // positions, i % positions
        plane_sum, part, left = zero, zero, chain
        for tap in range(taps):
            part += region_matrix[position, tap] * kernels[k, c, tap]
            left -= 1
            if left == 0:
                plane_sum += part
                part, left = zero, chain
        if fresh:
            total[k, position] = plane_sum + part
        else:
            total[k, position] += plane_sum + part


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
    out_channels, group_channels, *kernel = weight.shape
    batch, filters, size = x.shape[0], out_channels // groups, out.shape[2:]
    taps, positions = math.prod(kernel), math.prod(size)
    # The t taps are added up in chains of √t, and the c planes in chains of √c. That loses at most 2√t + 2√c + 6 units
    # of rounding; npconv.kernels.summation allows 2 (8 + √(tc)), which is more, as √t + √c is at most √(tc) + 1.
    tap_chain, plane_chain = max(1, math.isqrt(taps)), max(1, math.isqrt(group_channels))
    region_matrix = jit.empty((positions, taps), x.dtype)
    total = jit.empty((filters, positions), x.dtype)
    kernels = jit.reshape(weight, groups, filters, group_channels, taps)
    results = out.reshape(batch, groups, filters, positions)
    jit.launch(clear, out.size, out.reshape(batch * out_channels, positions))
    for n, g in np.ndindex(batch, groups):
        for c in range(group_channels):
            plane = x[n, g * group_channels + c]
            jit.launch(gather, region_matrix.size, plane, tuple(kernel), size, stride, dilation, region_matrix)
            fresh = c % plane_chain == 0
            jit.launch(product, total.size, region_matrix, kernels[g], c, fresh, tap_chain, total)
            if (c + 1) % plane_chain == 0 or c == group_channels - 1:
                jit.launch(add, total.size, total, results[n, g])
    if bias is not None:
        jit.launch(add_bias, out.size, bias, out)

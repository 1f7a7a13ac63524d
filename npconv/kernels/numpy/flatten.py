"""One channel plane at a time: its regions as the rows of a matrix, times the kernels flattened to columns."""

from __future__ import annotations

import math

import numpy as np

from npconv.kernels.numpy.product import product
from npconv.kernels.numpy.regions import regions


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
    out_channels, group_channels, *kernel = weight.shape
    filters = out_channels // groups
    taps, positions = math.prod(kernel), math.prod(out.shape[2:])
    chain = max(1, math.isqrt(group_channels))  # planes added in one go: see npconv.kernels.summation
    region_matrix = np.empty((positions, taps), x.dtype)
    region_grid = region_matrix.reshape(*out.shape[2:], *kernel)
    plane_sum = np.empty((positions, filters), x.dtype)
    out[...] = 0
    for n, g in np.ndindex(x.shape[0], groups):
        result = out[n, g * filters : (g + 1) * filters]
        kernel_columns = weight[g * filters : (g + 1) * filters].reshape(filters, group_channels, taps).T
        for start in range(0, group_channels, chain):
            total = np.zeros_like(plane_sum)
            for c in range(start, min(start + chain, group_channels)):
                plane = x[n, g * group_channels + c]
                region_grid[...] = regions(plane, tuple(kernel), stride, dilation)
                product(region_matrix, kernel_columns[:, c], out=plane_sum)
                total += plane_sum
            result += total.T.reshape(result.shape)
    if bias is not None:
        out += bias[:, None, None, None]

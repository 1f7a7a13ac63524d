"""Batch and channels at once: one region matrix for everything, one batched matrix product."""

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
    batch, out_channels, *size = out.shape
    depth, positions = math.prod(weight.shape[1:]), math.prod(size)
    windows = regions(x, weight.shape[2:], stride, dilation)  # (N, C, OD, OH, OW, kd, kh, kw)
    region_matrix = windows.transpose(0, 1, 5, 6, 7, 2, 3, 4).reshape(batch, groups, depth, positions)
    kernel_matrix = weight.reshape(groups, out_channels // groups, depth)
    product(kernel_matrix, region_matrix, out=out.reshape(batch, groups, out_channels // groups, positions))
    if bias is not None:
        out += bias[:, None, None, None]

"""What results are checked against: convolution of images in float64, which shares no code with npconv's kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def convolve(
    x: np.ndarray, weight: np.ndarray, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> np.ndarray:
    """Return the convolution of (N, C, H, W) in float64, the sum of one product a tap over shifted images.

    Examples
    --------
    >>> convolve(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), padding=1)[0, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]])
    """
    batch, channels = x.shape[:2]
    filters, _, kernel_height, kernel_width = weight.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    taps = weight.astype(np.float64).reshape(groups, filters // groups, channels // groups, kernel_height, kernel_width)
    height, width = (
        len(range(0, size - (kernel - 1) * dilation, stride))
        for size, kernel in zip(padded.shape[2:], (kernel_height, kernel_width), strict=True)
    )
    result: np.ndarray = np.zeros((batch, filters, height, width))
    by_group = result.reshape(batch, groups, filters // groups, height * width)
    for i, j in np.ndindex(kernel_height, kernel_width):
        rows = slice(i * dilation, i * dilation + (height - 1) * stride + 1, stride)
        columns = slice(j * dilation, j * dilation + (width - 1) * stride + 1, stride)
        shifted = padded[:, :, rows, columns].reshape(batch, groups, channels // groups, height * width)
        by_group += taps[..., i, j] @ shifted
    return result


def error_bound(x: np.ndarray, weight: np.ndarray, **options: Any) -> np.ndarray:
    """Return how far each element of npconv's result may be from the exact one: (8 + √n) · eps · Σ|x||w|."""
    magnitude = convolve(np.abs(x), np.abs(weight), **options)
    return magnitude * ((8 + math.sqrt(weight[0].size)) * float(np.finfo(x.dtype).eps))

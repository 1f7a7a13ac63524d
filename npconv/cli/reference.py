"""What results are checked against: convolution of images in float64, which shares no code with npconv's kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

STRICT = "(8 + √n) · eps · Σ|x||w|"
"""How near the exact result textbook algorithms are, element by element; n is the number of products in it."""

DEFAULT = "max(64, 8 + √n) · eps · max Σ|x||w|"
"""How near others are, which ``precision="default"`` allows: the largest element counts for all."""


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


def error_bounds(x: np.ndarray, weight: np.ndarray, **options: Any) -> tuple[np.ndarray, float]:
    """Return how far an element of npconv's result may be from the exact one: `STRICT` of each, `DEFAULT` of all."""
    magnitude = convolve(np.abs(x), np.abs(weight), **options)
    eps, terms = float(np.finfo(x.dtype).eps), 8 + math.sqrt(weight[0].size)
    return terms * eps * magnitude, max(64, terms) * eps * float(magnitude.max(initial=0.0))

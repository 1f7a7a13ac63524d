"""The sliding window: at each position, for each output and input channel, multiply and add; then the bias."""

from __future__ import annotations

import numpy as np

from npconv.kernels.numba import jit
from npconv.kernels.summation import chain_length


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
    batch, out_channels, out_depth, out_height, _ = out.shape
    products = weight[:1].size
    bias = np.zeros(out_channels, x.dtype) if bias is None else bias
    rows = batch * out_channels * out_depth * out_height
    steps = np.array([stride, dilation])
    _row.run(rows, out.size * products, x, weight, bias, out, steps, groups, chain_length(products))


@jit.Kernel
def _row(row, x, weight, bias, out, steps, groups, chain):  # type: ignore[no-untyped-def]
    """Compute one row of the result."""
    _, out_channels, out_depth, out_height, out_width = out.shape
    _, group_channels, kernel_depth, kernel_height, kernel_width = weight.shape
    plane, h = divmod(row, out_height)
    volume, d = divmod(plane, out_depth)
    n, k = divmod(volume, out_channels)
    first = k // (out_channels // groups) * group_channels
    stride, dilation = steps
    zero = x.dtype.type(0)
    for w in range(out_width):
        total, partial, length = zero, zero, 0
        for c in range(group_channels):
            for i in range(kernel_depth):
                for j in range(kernel_height):
                    for m in range(kernel_width):
                        at_d = d * stride[0] + i * dilation[0]
                        at_h = h * stride[1] + j * dilation[1]
                        at_w = w * stride[2] + m * dilation[2]
                        partial += x[n, first + c, at_d, at_h, at_w] * weight[k, c, i, j, m]
                        length += 1
                        if length == chain:  # a long chain of additions loses accuracy: begin a new one
                            total, partial, length = total + partial, zero, 0
        out[n, k, d, h, w] = total + partial + bias[k]

"""The sliding window: at each position, for each output and input channel, multiply and add; then the bias."""

from __future__ import annotations

import numpy as np


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
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    sums = np.zeros(group_channels, x.dtype)  # one a channel, added at the end: a shorter chain loses less
    for n, d, h, w in np.ndindex(out.shape[0], *out.shape[2:]):
        corner = (d * stride[0], h * stride[1], w * stride[2])
        window = tuple(slice(at, at + size, step) for at, size, step in zip(corner, span, dilation, strict=True))
        for k in range(out_channels):
            first = k // (out_channels // groups) * group_channels
            for c in range(group_channels):
                region = x[n, first + c][window]
                sums[c] = (region * weight[k, c]).sum(dtype=x.dtype)
            out[n, k, d, h, w] = sums.sum(dtype=x.dtype)
    if bias is not None:
        out += bias[:, None, None, None]

"""The sliding window, one thread an output: over input channels and kernel, multiply and add; then the bias."""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from npconv.kernels.cuda import jit
from npconv.kernels.cuda.elementwise import add_bias
from npconv.kernels.cuda.indices import unravel
from npconv.kernels.summation import chain_length


@jit.kernel
def slide(x, weight, out, stride, dilation, filters, chain):  # type: ignore[no-untyped-def]
    """Fill ``out`` but for the bias; ``filters`` are those of a group. Threads of a warp share filter and rows of x."""
    out_channels, group_channels, kd, kh, kw = weight.shape
    size = out.shape[2:]
    zero = x.dtype.type(0)
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        plane, d, h, w = unravel(i, size)
        n, k = plane // out_channels, plane % out_channels
        first = k // filters * group_channels
        total, part, left = zero, zero, chain  # sums of chains: see npconv.kernels.summation
        for c in range(group_channels):
            for a in range(kd):
                at_d = d * stride[0] + a * dilation[0]
                for b in range(kh):
                    at_h = h * stride[1] + b * dilation[1]
                    for e in range(kw):
                        at_w = w * stride[2] + e * dilation[2]
                        part += x[n, first + c, at_d, at_h, at_w] * weight[k, c, a, b, e]
                        left -= 1
                        if left == 0:
                            total += part
                            part, left = zero, chain
        out[n, k, d, h, w] = total + part


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
    filters = weight.shape[0] // groups
    chain = chain_length(math.prod(weight.shape[1:]))
    jit.launch(slide, out.size, x, weight, out, stride, dilation, filters, chain)
    if bias is not None:
        jit.launch(add_bias, out.size, bias, out)

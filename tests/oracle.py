"""A dumb convolution: seven loops over Python numbers, sharing nothing with npconv or torch.

Sums are Python's int, float or complex, so integers are exact whatever their size; `wrapped` brings them into a dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from corpus import Case


def pads(case: Case) -> list[tuple[int, int]]:
    """Elements before and after each axis, from the definition of each name."""
    result = []
    for axis in range(case.rank):
        n, k, s, d = case.size[axis], case.kernel[axis], case.stride[axis], case.dilation[axis]
        if case.padding == "valid":
            result.append((0, 0))
        elif isinstance(case.padding, str):
            # As few as give ceil(n / s) positions, shared evenly; of an odd number the extra one goes to the end, or to
            # the beginning for same_lower.
            total = 0
            while len(starts(n + total, k, s, d)) < math.ceil(n / s):
                total += 1
            less, more = total // 2, total - total // 2
            result.append((more, less) if case.padding == "same_lower" else (less, more))
        else:
            result.append(case.padding[axis])
    return result


def starts(padded: int, kernel: int, stride: int, dilation: int) -> list[int]:
    """Where a window can begin so that its last element is still inside."""
    last_tap = (kernel - 1) * dilation
    return [start for start in range(0, padded, stride) if start + last_tap < padded]


def source(index: int, n: int, mode: str) -> int | None:
    """Which element of an axis of n stands at an index that may lie outside; None for a zero."""
    if 0 <= index < n:
        return index
    if mode == "zeros":
        return None
    if mode == "replicate":
        return 0 if index < 0 else n - 1
    if mode == "circular":
        return index + n if index < 0 else index - n
    return -index if index < 0 else 2 * (n - 1) - index  # reflect: the outermost element is the mirror


def is_valid(case: Case) -> bool:
    """Whether there is a result: the window fits, and the padding has something to be made of."""
    for (before, after), n, k, s, d in zip(pads(case), case.size, case.kernel, case.stride, case.dilation, strict=True):
        if not starts(before + n + after, k, s, d):
            return False
        limit = {"zeros": math.inf, "replicate": math.inf if n else 0, "circular": n, "reflect": max(n - 1, 0)}
        if max(before, after) > limit[case.mode]:
            return False
    return case.channels % case.groups == 0 and case.filters % case.groups == 0


def output_shape(case: Case) -> tuple[int, ...]:
    size = tuple(
        len(starts(before + n + after, k, s, d))
        for (before, after), n, k, s, d in zip(
            pads(case), case.size, case.kernel, case.stride, case.dilation, strict=True
        )
    )
    if case.kind == "image":
        return size
    inner = (*size, case.filters) if case.channels_last else (case.filters, *size)
    return inner if case.kind == "unbatched" else (case.batch, *inner)


def convolve(case: Case, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """The result as an array of Python numbers."""
    result = np.empty(output_shape(case), object)
    x_view, w_view, view = x, weight, result
    if case.kind == "image":
        x_view, w_view, view = x[None, None], weight[None, None], result[None, None]
    else:
        if case.kind == "unbatched":
            x_view, view = x_view[None], view[None]
        if case.channels_last:
            x_view, view = np.moveaxis(x_view, -1, 1), np.moveaxis(view, -1, 1)
    channels_per_group, filters_per_group = case.channels // case.groups, case.filters // case.groups
    before = [pad[0] for pad in pads(case)]
    for n, k in np.ndindex(view.shape[:2]):
        first_channel = k // filters_per_group * channels_per_group
        for position in np.ndindex(view.shape[2:]):
            total: Any = 0 if bias is None else bias[k].item()
            for c in range(channels_per_group):
                for tap in np.ndindex(case.kernel):
                    at = [
                        source(p * s + t * d - b, size, case.mode)
                        for p, s, t, d, b, size in zip(
                            position, case.stride, tap, case.dilation, before, case.size, strict=True
                        )
                    ]
                    value = 0 if None in at else x_view[(n, first_channel + c, *at)].item()
                    total += value * w_view[(k, c, *tap)].item()
            view[(n, k, *position)] = total
    return result


def wrapped(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Python integers as a dtype, modulo 2**bits; other numbers rounded to it."""
    if dtype.kind not in "iu":
        return values.astype(complex if dtype.kind == "c" else float).astype(dtype)
    low, span = int(np.iinfo(dtype).min), 2 ** (8 * dtype.itemsize)
    flat = [(int(value) - low) % span + low for value in values.flat]
    return np.array(flat, dtype).reshape(values.shape)

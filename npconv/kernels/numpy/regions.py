"""The regions under the sliding kernel, as a view."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def regions(x: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> np.ndarray:
    """View ``x`` as (..., *positions, *kernel): at each position the elements that the kernel meets."""
    rank = len(kernel)
    span = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    windows = sliding_window_view(x, span, axis=tuple(range(-rank, 0)))
    index: tuple[Any, ...] = (..., *(slice(None, None, step) for step in (*stride, *dilation)))
    view: np.ndarray = windows[index]
    return view

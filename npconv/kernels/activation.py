"""Activations, applied in place to a result while a piece of it is in cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

PIECE = 2**15
"""Elements treated at once: the temporaries of a piece stay in a core's cache."""


def _silu(x: np.ndarray) -> None:
    x /= 1 + np.exp(-x)


def _hardswish(x: np.ndarray) -> None:
    x *= np.clip(x + 3, 0, 6) / 6


def _leaky_relu(x: np.ndarray, slope: float) -> None:
    np.multiply(x, x.dtype.type(slope), out=x, where=~(x > 0))


def _clip(x: np.ndarray, low: float, high: float) -> None:
    np.minimum(np.maximum(x, x.dtype.type(low), out=x), x.dtype.type(high), out=x)


ACTIVATIONS: dict[str, Callable[..., None]] = {
    "relu": lambda x: np.maximum(x, 0, out=x),
    "relu6": lambda x: _clip(x, 0, 6),
    "silu": _silu,
    "hardswish": _hardswish,
    "leaky_relu": _leaky_relu,
    "clip": _clip,
}
PARAMETERS = {"leaky_relu": ("slope",), "clip": ("low", "high")}
EXACT_ON_INTEGERS = ("relu", "relu6", "clip")


def apply(result: np.ndarray, activation: tuple[Any, ...]) -> None:
    """Replace each element of an array by its activation; NaN stays NaN."""
    if not activation:
        return
    name, *parameters = activation
    flat = result.reshape(-1) if result.flags.c_contiguous else None
    if flat is None:
        ACTIVATIONS[name](result, *parameters)
        return
    for start in range(0, flat.size, PIECE):
        ACTIVATIONS[name](flat[start : start + PIECE], *parameters)

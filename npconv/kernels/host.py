"""From a caller's arrays to a textbook kernel's and back: casting, padding, making contiguous, on the CPU.

The textbook algorithms see a convolution that is already padded, so that each shows its own idea and no border cases.
The price is a copy of the input wherever there is padding, a cast or an unusual memory order to deal with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npconv.kernels import activation
from npconv.problem import ConvProblem

_NUMPY_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def padded(x: np.ndarray, padding: tuple[tuple[int, int], ...], mode: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Return (N, C, D, H, W) with its spatial axes padded, C-contiguous and in ``dtype``; a copy only if need be.

    Padding by less than nothing takes elements away; only zeros can be so.
    """
    if any(before < 0 or after < 0 for before, after in padding):
        kept = (
            slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape[2:], padding, strict=True)
        )
        x = x[(slice(None), slice(None), *kept)]
        padding = tuple((max(before, 0), max(after, 0)) for before, after in padding)
    if not any(before or after for before, after in padding):
        return contiguous(x, dtype)
    if mode != "zeros":
        how: Any = _NUMPY_PAD_MODES[mode]
        return np.pad(contiguous(x, dtype), ((0, 0), (0, 0), *padding), how)
    size = tuple(n + before + after for n, (before, after) in zip(x.shape[2:], padding, strict=True))
    result = np.zeros((*x.shape[:2], *size), dtype)
    _inside(result, padding)[...] = x
    return result


def _inside(array: np.ndarray, padding: tuple[tuple[int, int], ...]) -> np.ndarray:
    """View a padded array without its padding."""
    inside = (slice(before, n - after) for n, (before, after) in zip(array.shape[2:], padding, strict=True))
    view: np.ndarray = array[(slice(None), slice(None), *inside)]
    return view


def padded_indices(n: int, pad: tuple[int, int], mode: str) -> np.ndarray:
    """Return, for each element of a padded axis, the element that it copies; not for zeros."""
    how: Any = _NUMPY_PAD_MODES[mode]
    return np.pad(np.arange(n), pad, how)


def contiguous(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return the array C-contiguous, aligned and in ``dtype`` (native byte order); a copy only if need be."""
    return np.require(array, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def in_memory(array: np.ndarray) -> tuple[list[int], int, Callable[[np.ndarray], np.ndarray]]:
    """Return an array's steps, in elements, the place of its first one in its memory, and what views that memory flat.

    That takes arrays of these strides, whole numbers of elements, some of which may be negative.
    """
    size, shape = array.itemsize, array.shape
    steps = [step // size for step in array.strides]
    first = sum((n - 1) * max(-step, 0) for n, step in zip(shape, steps, strict=True))
    forwards = tuple(slice(None, None, -1 if step < 0 else 1) for step in steps)
    extent = 1 + sum((n - 1) * abs(step) for n, step in zip(shape, steps, strict=True))

    def flat(array: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.as_strided(array[forwards], (extent,), (size,))

    return steps, first, flat


class _Memory:
    """The memory of a read-only array, without the flag."""

    def __init__(self, array: np.ndarray) -> None:
        address = array.__array_interface__["data"][0]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
        self._array = array  # keeps the memory alive


def writeable(array: np.ndarray) -> np.ndarray:
    """View a read-only array as an ordinary one: Numba would compile a kernel again for the flag alone."""
    return array if array.flags.writeable else np.asarray(_Memory(array))


class Workspace:
    """What a layer keeps between calls: packed weights, and buffers, of which each call, in any thread, has its own."""

    KEPT, TAPS = 8, 4
    """Shapes for which buffers are kept; parts of a kernel that its packed weights are kept of."""

    def __init__(self) -> None:
        self._free: dict[Any, list[np.ndarray]] = {}
        self._packed: dict[Any, dict[Any, Any]] = {}

    def packed(self, key: Any, pack: Callable[[], Any], taps: Any = None) -> Any:
        """Return what ``pack`` returned for the first call with this key and these taps, of which a few are kept."""
        kept = self._packed.setdefault(key, {})
        found = kept.get(taps)
        if found is None:
            for oldest in tuple(kept)[: max(len(kept) + 1 - self.TAPS, 0)]:
                kept.pop(oldest, None)
            found = kept.setdefault(taps, pack())
        return found

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any], use: Any) -> np.ndarray:
        """Return a buffer as the last call with the same shape, dtype and use left it, or a new one of zeros."""
        try:
            return self._free[shape, dtype, use].pop()
        except (KeyError, IndexError):
            return np.zeros(shape, dtype)

    def give(self, buffer: np.ndarray, use: Any) -> None:
        """Take a buffer back."""
        if len(self._free) >= self.KEPT:
            self._free.clear()
        self._free.setdefault((buffer.shape, buffer.dtype, use), []).append(buffer)


@np.errstate(all="ignore")  # overflow and NaN, signalling ones too, go through as IEEE arithmetic takes them
def run(
    conv: Callable[..., None],
    problem: ConvProblem,
    input: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    workspace: Workspace | None = None,
) -> None:
    """Fill ``out`` with a textbook kernel's convolution of a caller's arrays."""
    dtype = problem.compute_dtype
    padding = (*((0, 0),) * (3 - problem.rank), *problem.padding)
    x = problem.canonical(input)
    buffer = None
    plain = problem.padding_mode == "zeros" and any(map(any, padding)) and min(map(min, padding)) >= 0
    if workspace is not None and plain:
        # The border is zero already: a buffer is only used again with the same padding.
        size = tuple(n + sum(pad) for n, pad in zip(x.shape[2:], padding, strict=True))
        buffer = workspace.take((*x.shape[:2], *size), dtype, padding)
        _inside(buffer, padding)[...] = x
        x = buffer
    else:
        x = padded(x, padding, problem.padding_mode, dtype)
    w = contiguous(problem.canonical_weight(weight), dtype)
    b = None if bias is None else contiguous(bias, dtype)
    target = problem.canonical(out)
    direct = target.dtype == dtype and target.flags.c_contiguous and target.flags.aligned
    result = target if direct else np.empty(target.shape, dtype)
    numbers = [None if array is None else writeable(array) for array in (x, w, b, result)]
    if dtype.kind == "u":  # arithmetic modulo 2**bits does not know of signs: one compiled kernel serves both
        numbers = [array if array is None else array.view(f"i{dtype.itemsize}") for array in numbers]
    conv(*numbers, problem.three(problem.stride), problem.three(problem.dilation), problem.groups)
    activation.apply(result, problem.activation)
    if not direct:
        target[...] = result
    if buffer is not None and workspace is not None:
        workspace.give(buffer, padding)

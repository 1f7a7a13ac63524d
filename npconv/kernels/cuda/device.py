"""From a caller's arrays to a textbook kernel's and back: casting, padding, making contiguous, on the device.

The same as `npconv.kernels.host`, with the transfers besides. Work is queued on CUDA's default stream.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from npconv.kernels.cuda import jit
from npconv.kernels.cuda.elementwise import pad
from npconv.kernels.cuda.indices import CIRCULAR, REFLECT, REPLICATE, ZEROS
from npconv.problem import ConvProblem

_MODES = {"zeros": ZEROS, "reflect": REFLECT, "replicate": REPLICATE, "circular": CIRCULAR}


def padded(x: Any, padding: tuple[tuple[int, int], ...], mode: str, dtype: np.dtype[Any]) -> Any:
    """Return (N, C, D, H, W) with its spatial axes padded, C-contiguous and in ``dtype``; a copy only if need be."""
    if x.dtype == dtype and x.is_c_contiguous() and not any(before or after for before, after in padding):
        return x
    size = tuple(n + before + after for n, (before, after) in zip(x.shape[2:], padding, strict=True))
    result = jit.empty((*x.shape[:2], *size), dtype)
    jit.launch(pad, result.size, x, tuple(before for before, _ in padding), _MODES[mode], result)
    return result


def contiguous(array: Any, dtype: np.dtype[Any]) -> Any:
    """Return an array of five axes C-contiguous and in ``dtype``; a copy only if need be."""
    return padded(array, ((0, 0),) * 3, "zeros", dtype)


def run(algorithm_name: str, problem: ConvProblem, input: Any, weight: Any, bias: Any, out: Any) -> Any:
    """Return an algorithm's convolution of a caller's arrays, of which each may be a NumPy array or a device array.

    The result is ``out``, filled, if that is given; else a device array if ``input`` is one, and a NumPy array if not.
    """
    shape = problem.result_shape
    if not isinstance(input, np.ndarray):
        result = jit.empty(shape, problem.dtype) if out is None else jit.to_device(out)
        _fill(result, algorithm_name, problem, input, weight, bias)
        return result if out is None else out
    result = jit.empty(shape, jit.transfer_dtype(np.dtype(problem.dtype)))
    _fill(result, algorithm_name, problem, input, weight, bias)
    if out is None:
        return result.copy_to_host().astype(problem.dtype, copy=False)
    out[...] = result.copy_to_host()
    return out


def _fill(result: Any, algorithm_name: str, problem: ConvProblem, input: Any, weight: Any, bias: Any) -> None:
    """Compute on the device into an array that is there."""
    if not result.size:
        return
    dtype = problem.compute_dtype
    padding = (*((0, 0),) * (3 - problem.rank), *problem.padding)
    x = padded(jit.view(jit.to_device(input), problem.canonical), padding, problem.padding_mode, dtype)
    w = contiguous(jit.view(jit.to_device(weight), problem.canonical_weight), dtype)
    b = None
    if bias is not None:
        b = contiguous(jit.view(jit.to_device(bias), _with_five_axes), dtype).reshape(problem.out_channels)
    target = jit.view(result, problem.canonical)
    direct = target.dtype == dtype and target.is_c_contiguous()
    y = target if direct else jit.empty(target.shape, dtype)
    conv = importlib.import_module(f"npconv.kernels.cuda.{algorithm_name}").conv
    conv(x, w, b, y, problem.three(problem.stride), problem.three(problem.dilation), problem.groups)
    if not direct:
        jit.launch(pad, target.size, y, (0, 0, 0), ZEROS, target)


def _with_five_axes(bias: np.ndarray) -> np.ndarray:
    return bias[:, None, None, None, None]

"""Convolutions of quantized numbers: 8 bits in, exact 32-bit sums out."""

from __future__ import annotations

from typing import Any

import numpy as np

from npconv import arguments, call
from npconv.arguments import IntPerAxis, Padding
from npconv.plan import choose


def conv1d_integer(
    input: Any,
    weight: Any,
    input_zero_point: Any = 0,
    weight_zero_point: Any = 0,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    dilation: IntPerAxis = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    backend: str = "auto",
    precision: str | None = None,
    out: Any = None,
) -> np.ndarray:
    """Convolve 8-bit signals with 8-bit filters into exact 32-bit sums: `conv2d_integer` with one spatial axis.

    Parameters
    ----------
    input : array_like of int8 or uint8, shape (N, C, L) or (C, L)
    weight : array_like of int8 or uint8, shape (K, C/groups, k)
    input_zero_point, weight_zero_point, stride, padding, dilation, groups, data_format, backend, precision, out
        As for `conv2d_integer`.

    Returns
    -------
    ndarray of int32, shape (N, K, L')

    Raises
    ------
    ValueError, TypeError, MemoryError, CudaUnavailableError
        As for `conv2d_integer`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> npconv.conv1d_integer(np.full((1, 1, 3), 200, np.uint8), np.full((1, 1, 2), 100, np.int8))
    array([[[40000, 40000]]], dtype=int32)
    """
    return _conv_integer(
        1,
        input,
        weight,
        input_zero_point,
        weight_zero_point,
        stride,
        padding,
        dilation,
        groups,
        data_format,
        backend,
        precision,
        out,
    )


def conv2d_integer(
    input: Any,
    weight: Any,
    input_zero_point: Any = 0,
    weight_zero_point: Any = 0,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    dilation: IntPerAxis = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    backend: str = "auto",
    precision: str | None = None,
    out: Any = None,
) -> np.ndarray:
    """Convolve 8-bit images with 8-bit filters into exact 32-bit sums, as ONNX's ConvInteger does.

    Parameters
    ----------
    input : array_like of int8 or uint8, shape (N, C, H, W) or (C, H, W), or a plain image (H, W)
    weight : array_like of int8 or uint8, shape (K, C/groups, kh, kw), or (kh, kw) for a plain image
        Its dtype need not be the input's.
    input_zero_point : int, default 0
        The number that stands for zero in ``input``; padding has it, too.
    weight_zero_point : int or array_like of int, shape (K,), default 0
        The number that stands for zero in ``weight``, in all filters or in each.
    stride, padding, dilation, groups, data_format, backend, precision, out
        As for `conv2d`; sums are exact at either precision.

    Returns
    -------
    ndarray of int32, shape (N, K, H', W')
        The convolution of ``input - input_zero_point`` with ``weight - weight_zero_point``: exact, modulo 2**32, which
        no sum of fewer than 33026 products reaches.

    Raises
    ------
    ValueError, TypeError, MemoryError, CudaUnavailableError
        As for `conv2d`; also if a zero point is not a number of its array's dtype.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> pixels = np.array([[130, 126], [128, 255]], np.uint8)
    >>> npconv.conv2d_integer(pixels, np.ones((2, 2), np.int8), input_zero_point=128)
    array([[127]], dtype=int32)
    """
    return _conv_integer(
        2,
        input,
        weight,
        input_zero_point,
        weight_zero_point,
        stride,
        padding,
        dilation,
        groups,
        data_format,
        backend,
        precision,
        out,
    )


def conv3d_integer(
    input: Any,
    weight: Any,
    input_zero_point: Any = 0,
    weight_zero_point: Any = 0,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    dilation: IntPerAxis = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    backend: str = "auto",
    precision: str | None = None,
    out: Any = None,
) -> np.ndarray:
    """Convolve 8-bit volumes with 8-bit filters into exact 32-bit sums: `conv2d_integer` with three spatial axes.

    Parameters
    ----------
    input : array_like of int8 or uint8, shape (N, C, D, H, W) or (C, D, H, W)
    weight : array_like of int8 or uint8, shape (K, C/groups, kd, kh, kw)
    input_zero_point, weight_zero_point, stride, padding, dilation, groups, data_format, backend, precision, out
        As for `conv2d_integer`.

    Returns
    -------
    ndarray of int32, shape (N, K, D', H', W')

    Raises
    ------
    ValueError, TypeError, MemoryError, CudaUnavailableError
        As for `conv2d_integer`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> npconv.conv3d_integer(np.full((1, 1, 2, 2, 2), 200, np.uint8), np.full((1, 1, 2, 2, 2), 100, np.int8)).item()
    160000
    """
    return _conv_integer(
        3,
        input,
        weight,
        input_zero_point,
        weight_zero_point,
        stride,
        padding,
        dilation,
        groups,
        data_format,
        backend,
        precision,
        out,
    )


def _conv_integer(
    rank: int,
    input: Any,
    weight: Any,
    input_zero_point: Any,
    weight_zero_point: Any,
    stride: IntPerAxis,
    padding: Padding,
    dilation: IntPerAxis,
    groups: int,
    data_format: str,
    backend: str,
    precision: str | None,
    out: Any,
) -> np.ndarray:
    named = call.arrays(input=input, weight=weight)
    call.on_host(f"conv{rank}d_integer", named)
    for name, array in named.items():
        if array.dtype.name not in ("int8", "uint8"):
            raise TypeError(f"{name} of conv{rank}d_integer must be int8 or uint8; got {array.dtype}")
    x, w = named["input"], named["weight"]
    int32 = np.dtype("int32")
    problem = arguments.conv_problem(
        rank, x.shape, w.shape, None, int32, stride=stride, padding=padding, dilation=dilation, groups=groups,
        data_format=data_format,
    )  # fmt: skip
    plan = choose(problem, call.choice("auto", backend, precision, named))
    zero = _zero_point("input_zero_point", input_zero_point, x.dtype, ())
    zeros = _zero_point("weight_zero_point", weight_zero_point, w.dtype, (problem.out_channels,))
    points = call.arrays(input_zero_point=input_zero_point, weight_zero_point=weight_zero_point)
    result = call.result(out, problem.result_shape, int32, named | points)
    shifted = problem.canonical_weight(w).astype(int32) - zeros.reshape(-1, 1, 1, 1, 1)
    plan.run(x.astype(int32) - zero, shifted.reshape(w.shape), None, result)
    return result


def _zero_point(name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return a zero point, one number or an array of the given shape, as int32."""
    limits = np.iinfo(dtype)
    outside = f"{name} must be a number of dtype {dtype}, {limits.min} to {limits.max}; got {value!r}"
    if isinstance(value, int) and not limits.min <= value <= limits.max:
        raise ValueError(outside)
    array: np.ndarray = arguments.as_array(name, value)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an integer of dtype {dtype}; got {value!r}")
    if array.size == 1 and array.ndim <= 1:
        array = array.reshape(())
    elif array.shape != shape:
        wanted = f"an integer or an array of shape {shape}" if shape else "an integer"
        raise ValueError(f"{name} must be {wanted}; got shape {array.shape}")
    if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
        raise ValueError(outside)
    return array.astype(np.int32)

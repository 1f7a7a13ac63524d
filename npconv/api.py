"""The functions users call. Each body is short: arguments → problem → plan → kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npconv import adjoint, adjoint_roads, arguments, call, recall
from npconv.arguments import IntPerAxis, Padding
from npconv.plan import choose


def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    dilation: IntPerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    activation: Any = None,
    algorithm: str = "auto",
    backend: str = "auto",
    precision: str | None = None,
    out: Any = None,
) -> Any:
    """Convolve signals: `conv2d` with one spatial axis, which documents dtypes, options, errors and accuracy.

    Parameters
    ----------
    input : array_like, shape (N, C, L) or (C, L)
        With ``data_format="channels_last"``, the channels are the last axis.
    weight : array_like, shape (K, C/groups, k)
    bias : array_like, shape (K,), optional
    stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm, backend, precision, out
        As for `conv2d`.

    Returns
    -------
    ndarray, shape (N, K, L'), or as ``input`` without N or with the channels last

    Raises
    ------
    ValueError, TypeError, MemoryError, CudaUnavailableError
        As for `conv2d`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> signal = np.array([[[1.0, 2.0, 4.0, 8.0]]])
    >>> difference = np.array([[[-1.0, 1.0]]])
    >>> npconv.conv1d(signal, difference)
    array([[[1., 2., 4.]]])
    >>> npconv.conv1d(signal, difference, stride=2, padding=((0, 2),)).shape
    (1, 1, 3)
    """
    return _conv(
        1, input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm,
        backend, precision, out,
    )  # fmt: skip


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    dilation: IntPerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    activation: Any = None,
    algorithm: str = "auto",
    backend: str = "auto",
    precision: str | None = None,
    out: Any = None,
) -> Any:
    """Convolve images, as deep-learning frameworks do: cross-correlation, the kernel is not flipped.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
        With ``data_format="channels_last"``, (N, H, W, C) or (H, W, C). Without N, the result has no N either. Also a
        plain image (H, W) with a ``weight`` (kh, kw): the result is (H', W').

        float16, float32, float64, complex64, complex128, or a signed or unsigned integer; any strides. CPU arrays of
        other libraries are taken by DLPack without a copy; arrays on a CUDA device run there.
    weight : array_like, shape (K, C/groups, kh, kw)
        The filters, in this order whatever ``data_format`` is. Mixed dtypes promote as in `numpy.result_type`.
    bias : array_like, shape (K,), optional
        Added to each output channel.
    stride, dilation : int or sequence of int, default 1
        Step of the kernel, and distance of its elements; one for all spatial axes, or one each.
    padding : int, sequence of int or of (before, after) pairs, or str, default 0
        Elements put around the input; for all spatial axes or for each. ``"valid"`` is none. ``"same"`` keeps the
        size at stride 1, an odd element going to the end. ``"same_upper"`` and ``"same_lower"`` give
        ceil(size / stride) at any stride, an odd element going to the end or to the beginning.
    groups : int, default 1
        Each of the groups of C/groups input channels meets its own K/groups filters.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding holds. Reflecting needs padding less than the axis, circular at most the axis.
    data_format : {"channels_first", "channels_last"}
        Where the channels of input and result are.
    activation : {None, "relu", "relu6", "silu", "hardswish", ("leaky_relu", slope), ("clip", low, high)}
        Applied to the result in the same pass; NaN stays NaN. Complex results have none, integers only those that
        stay integers.
    algorithm : str, default "auto"
        ``"auto"`` takes the fastest there is; ``"loop"``, ``"flatten"`` and ``"im2col"`` are the textbook's,
        ``"direct"``, ``"planes"``, ``"depthwise"``, ``"grouped"``, ``"dense"``, ``"dots"``, ``"outer"``,
        ``"pieces"``, ``"strassen"``, ``"winograd2"``, ``"winograd2x4"`` and ``"winograd4"`` faster ones; see
        `npconv.algorithms`.
    backend : {"auto", "numpy", "numba", "cuda"}
        ``"auto"`` follows the input: device arrays run on their device, anything else on the CPU.
    precision : {"default", "strict"}, optional
        How exact ``algorithm="auto"`` must be, see Notes; `npconv.set_default_precision` sets the default.
    out : ndarray, optional
        An array of the result's shape and dtype, of any strides, that shares no memory with the arguments. It is
        filled and returned.

    Returns
    -------
    ndarray, shape (N, K, H', W'), or as ``input`` without N or with the channels last
        A spatial axis has (n + before + after - dilation · (k - 1) - 1) // stride + 1 elements. A Numba device array
        if ``input`` is a device array.

    Raises
    ------
    ValueError
        If shapes, sizes or values do not fit, or an unknown name is given; the message says what would do.
    TypeError
        If an argument's type or dtype is not among those above (bool and object arrays are not).
    MemoryError
        If memory cannot hold the result or the algorithm's workspace.
    CudaUnavailableError
        If ``backend="cuda"`` cannot run here.

    Notes
    -----
    Every element is within (8 + √n) · eps · (Σ|input · weight| + |bias|) of the exact result, where n = C/groups · kh
    · kw is the number of products summed and eps that of the dtype they are summed in: the result's own, but float32
    for float16 and bfloat16, whose results are rounded once more. That holds for the algorithms of the textbook and
    for ``precision="strict"``; the default precision lets ``"auto"`` take algorithms that transform their data,
    within max(64, 8 + √n) · eps · max Σ|input · weight|. Integers are exact modulo 2**bits. NaN and infinity go
    through as IEEE arithmetic takes them; zeros of the padding are multiplied like any others, but by outer taps that
    meet nothing else, wherever the kernel is, as with dilations longer than the image: some algorithms leave these out,
    even if they are infinite. Algorithms that
    transform their data, ``"winograd2"``, ``"winograd2x4"``, ``"winograd4"`` and ``"pieces"``, spoil all results of a
    tile, up to 5 × 5 of them, that meets one NaN, infinity, or number whose multiples overflow; ``"strassen"`` those of
    one or two more pixels of the image, or of one or two more filters.

    The textbook's algorithms are those of Chellapilla, Puri and Simard, *High Performance Convolutional Neural
    Networks for Document Processing* (2006), §2 (loops) and §3.1 (unrolling into a matrix product); the others name
    their sources in their modules in `npconv.kernels.numba`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> image = np.arange(16.0).reshape(4, 4)
    >>> npconv.conv2d(image, np.full((3, 3), 1 / 9)).round(6)
    array([[ 5.,  6.],
           [ 9., 10.]])
    >>> batch = np.ones((8, 3, 32, 32), np.float32)
    >>> filters = np.ones((16, 3, 5, 5), np.float32)
    >>> npconv.conv2d(batch, filters, np.zeros(16, np.float32), stride=2, padding="same_upper").shape
    (8, 16, 16, 16)
    """
    return _conv(
        2, input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm,
        backend, precision, out,
    )  # fmt: skip


def conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    dilation: IntPerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    activation: Any = None,
    algorithm: str = "auto",
    backend: str = "auto",
    precision: str | None = None,
    out: Any = None,
) -> Any:
    """Convolve volumes: `conv2d` with three spatial axes, which documents dtypes, options, errors and accuracy.

    Parameters
    ----------
    input : array_like, shape (N, C, D, H, W) or (C, D, H, W)
        With ``data_format="channels_last"``, the channels are the last axis.
    weight : array_like, shape (K, C/groups, kd, kh, kw)
    bias : array_like, shape (K,), optional
    stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm, backend, precision, out
        As for `conv2d`.

    Returns
    -------
    ndarray, shape (N, K, D', H', W'), or as ``input`` without N or with the channels last

    Raises
    ------
    ValueError, TypeError, MemoryError, CudaUnavailableError
        As for `conv2d`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> volume = np.ones((1, 2, 4, 4, 4))
    >>> npconv.conv3d(volume, np.ones((1, 2, 3, 3, 3)))[0, 0, 0]
    array([[54., 54.],
           [54., 54.]])
    """
    return _conv(
        3, input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm,
        backend, precision, out,
    )  # fmt: skip


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    output_padding: IntPerAxis = 0,
    groups: int = 1,
    dilation: IntPerAxis = 1,
    *,
    data_format: str = "channels_first",
    activation: Any = None,
    algorithm: str = "auto",
    backend: str = "auto",
    precision: str | None = None,
    out: Any = None,
) -> np.ndarray:
    """Transposed convolution of signals: `conv_transpose2d` with one spatial axis, which documents the rest.

    Parameters
    ----------
    input : array_like, shape (N, C, L) or (C, L)
        With ``data_format="channels_last"``, the channels are the last axis.
    weight : array_like, shape (C, K/groups, k)
    bias : array_like, shape (K,), optional
    stride, padding, output_padding, groups, dilation, data_format, activation, algorithm, backend, precision, out
        As for `conv_transpose2d`.

    Returns
    -------
    ndarray, shape (N, K, L'), or as ``input`` without N or with the channels last

    Raises
    ------
    ValueError, TypeError, MemoryError, CudaUnavailableError
        As for `conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> npconv.conv_transpose1d(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0, 100.0]]]), stride=2)
    array([[[  1.,  10., 102.,  20., 200.]]])
    """
    return _conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation, data_format, activation, algorithm,
        backend, precision, out,
    )  # fmt: skip


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    output_padding: IntPerAxis = 0,
    groups: int = 1,
    dilation: IntPerAxis = 1,
    *,
    data_format: str = "channels_first",
    activation: Any = None,
    algorithm: str = "auto",
    backend: str = "auto",
    precision: str | None = None,
    out: Any = None,
) -> np.ndarray:
    """Transposed convolution of images: the gradient of a `conv2d` of the same parameters with respect to its input.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
        With ``data_format="channels_last"``, (N, H, W, C) or (H, W, C). Dtypes as for `conv2d`. Not on CUDA devices.
    weight : array_like, shape (C, K/groups, kh, kw)
        Input channels first, unlike a convolution's.
    bias : array_like, shape (K,), optional
        Added to each output channel.
    stride, dilation : int or sequence of int, default 1
        Distance of the results of neighbouring elements, and of the kernel's elements.
    padding : int, sequence of int or of (before, after) pairs, default 0
        Elements taken away from the borders of the result.
    output_padding : int or sequence of int, default 0
        Elements added at the end of each axis of the result, less than stride or dilation: which of the input sizes
        that a convolution maps to this size is meant.
    groups, data_format, activation, algorithm, backend, precision, out
        As for `conv2d`.

    Returns
    -------
    ndarray, shape (N, K, H', W'), or as ``input`` without N or with the channels last
        A spatial axis has (n - 1) · stride - before - after + dilation · (k - 1) + output_padding + 1 elements.

    Raises
    ------
    ValueError, TypeError, MemoryError, CudaUnavailableError
        As for `conv2d`; also if the result would have no elements.

    Notes
    -----
    Computed as convolutions of stride 1, one for each residue modulo the stride, without products with inserted
    zeros; see `npconv.adjoint`. Accuracy is that of `conv2d`, n being C/groups · kh · kw or less, and so is what NaN
    and infinity spoil; by ``"strassen"`` what one or two more pixels of the input reach. Elements beyond the borders
    count as zeros, so that an infinite weight makes NaN there.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> corners = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> npconv.conv_transpose2d(corners, np.ones((1, 1, 2, 2)), stride=2)[0, 0]
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.],
           [3., 3., 4., 4.],
           [3., 3., 4., 4.]])
    """
    return _conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation, data_format, activation, algorithm,
        backend, precision, out,
    )  # fmt: skip


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: IntPerAxis = 1,
    padding: Padding = 0,
    output_padding: IntPerAxis = 0,
    groups: int = 1,
    dilation: IntPerAxis = 1,
    *,
    data_format: str = "channels_first",
    activation: Any = None,
    algorithm: str = "auto",
    backend: str = "auto",
    precision: str | None = None,
    out: Any = None,
) -> np.ndarray:
    """Transposed convolution of volumes: `conv_transpose2d` with three spatial axes, which documents the rest.

    Parameters
    ----------
    input : array_like, shape (N, C, D, H, W) or (C, D, H, W)
        With ``data_format="channels_last"``, the channels are the last axis.
    weight : array_like, shape (C, K/groups, kd, kh, kw)
    bias : array_like, shape (K,), optional
    stride, padding, output_padding, groups, dilation, data_format, activation, algorithm, backend, precision, out
        As for `conv_transpose2d`.

    Returns
    -------
    ndarray, shape (N, K, D', H', W'), or as ``input`` without N or with the channels last

    Raises
    ------
    ValueError, TypeError, MemoryError, CudaUnavailableError
        As for `conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> npconv.conv_transpose3d(np.ones((1, 2, 4, 4, 4)), np.ones((2, 3, 2, 2, 2)), stride=2).shape
    (1, 3, 8, 8, 8)
    """
    return _conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation, data_format, activation, algorithm,
        backend, precision, out,
    )  # fmt: skip


def _conv(
    rank: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: IntPerAxis,
    padding: Padding,
    dilation: IntPerAxis,
    groups: int,
    padding_mode: str,
    data_format: str,
    activation: Any,
    algorithm: str,
    backend: str,
    precision: str | None,
    out: Any,
) -> Any:
    where = rank, stride, padding, dilation, groups, padding_mode, data_format
    options = recall.told((*where, activation, algorithm, backend, precision))
    key = recall.key(input, weight, bias, out) if options is not None else None
    road = _roads.get((key, options)) if key is not None else None
    if road is not None and (out is None or recall.apart(out, input, weight, bias)):
        return road(input, weight, bias, out)
    named = call.arrays(input=input, weight=weight, bias=bias)
    dtype = call.dtype(named)
    problem = arguments.conv_problem(
        rank, named["input"].shape, named["weight"].shape, call.shape(named, "bias"), dtype, stride=stride,
        padding=padding, dilation=dilation, groups=groups, padding_mode=padding_mode, data_format=data_format,
        activation=activation,
    )  # fmt: skip
    plan = choose(problem, call.choice(algorithm, backend, precision, named))
    if out is not None:
        arguments.check_out(out, problem.result_shape, dtype, named, plan.algorithm.backend)
    result = plan.run(named["input"], named["weight"], named.get("bias"), out)
    if key is not None and {array.dtype for array in named.values()} == {dtype}:
        road = plan.road(named["input"], result) if key[0] else None
        _roads.keep((key, options), road or plan.run)
    return result


_roads = recall.Roads[Callable[[Any, Any, Any, Any], Any]]()


def _conv_transpose(
    rank: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: IntPerAxis,
    padding: Padding,
    output_padding: IntPerAxis,
    groups: int,
    dilation: IntPerAxis,
    data_format: str,
    activation: Any,
    algorithm: str,
    backend: str,
    precision: str | None,
    out: Any,
) -> np.ndarray:
    where = rank, stride, padding, output_padding, groups, dilation, data_format
    options = recall.told((*where, activation, algorithm, backend, precision))
    key = recall.key(input, weight, bias) if out is None and options is not None else None
    road = _transposed_roads.get((key, options)) if key is not None else None
    if road is not None:
        return road(input, weight, bias)
    named = call.arrays(input=input, weight=weight, bias=bias)
    dtype = call.dtype(named)
    problem = arguments.transposed_problem(
        rank, named["input"].shape, named["weight"].shape, call.shape(named, "bias"), dtype, stride=stride,
        padding=padding, output_padding=output_padding, groups=groups, dilation=dilation, data_format=data_format,
        activation=activation,
    )  # fmt: skip
    choice = call.choice(algorithm, backend, precision, named)
    call.on_host(f"conv_transpose{rank}d", named)
    result = call.result(out, problem.input_shape, dtype, named)

    def compute(input: Any, weight: Any, bias: Any, result: np.ndarray | None = None) -> np.ndarray:
        result = np.empty(problem.input_shape, dtype) if result is None else result
        adjoint.input_gradient(problem, weight, input, bias, result, choice)
        return result

    if key is not None:
        arrays = [array for array in (input, weight, bias) if array is not None]
        plain = key[0] and all(array.dtype == dtype for array in arrays)
        short = adjoint_roads.of_transposed(problem, choice, named["input"], result) if plain else None
        _transposed_roads.keep((key, options), short or compute)
    return compute(named["input"], named["weight"], named.get("bias"), result)


_transposed_roads = recall.Roads[Callable[[Any, Any, Any], np.ndarray]]()

"""The region matrix and back: `unfold` and `fold`."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from npconv import arguments, call, values
from npconv.arguments import IntPerAxis, Padding
from npconv.kernels.host import padded
from npconv.kernels.numpy.regions import regions
from npconv.problem import compute_dtype, output_size


def unfold(
    input: Any,
    kernel_size: IntPerAxis,
    dilation: IntPerAxis = 1,
    padding: Padding = 0,
    stride: IntPerAxis = 1,
) -> np.ndarray:
    """Return the regions under a sliding kernel as the columns of a matrix, as `torch.nn.functional.unfold` does.

    Parameters
    ----------
    input : array_like, shape (N, C, *spatial) or (C, *spatial), with one, two or three spatial axes
        Of any dtype that `conv2d` takes.
    kernel_size : int or sequence of int
        A sequence of two or three numbers says how many spatial axes there are. One number serves all of them: alone
        for the shapes that torch takes, (N, C, H, W) and (C, H, W), and for (C, L) and (N, C, D, H, W); as (k,) for
        inputs with N.
    dilation, stride : int or sequence of int, default 1
    padding : int, sequence of int or of (before, after) pairs, or str, default 0
        Zeros around the input, in every form that `conv2d` takes.

    Returns
    -------
    ndarray, shape (N, C · taps, positions), without N if the input has none
        Rows go through the channels, and for each through the kernel's elements; columns through the positions.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As for `conv2d`, if arguments do not fit, or memory cannot hold the result.

    Notes
    -----
    A convolution is a product with this matrix: see `npconv.kernels.numpy.im2col`. Elements are copied exactly.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> npconv.unfold(np.arange(4.0).reshape(1, 1, 4), (2,))
    array([[[0., 1., 2.],
            [1., 2., 3.]]])
    >>> npconv.unfold(np.ones((2, 3, 10, 12)), (4, 5)).shape
    (2, 60, 56)
    """
    named = call.arrays(input=input)
    call.on_host("unfold", named)
    dtype, x = call.dtype(named), named["input"]
    rank = _rank(kernel_size, x.ndim)
    if x.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"input must have {rank + 2} axes (N, C, …), or {rank + 1} without N, for a kernel of {rank} axes; "
            f"got shape {x.shape}"
        )
    batched = x if x.ndim == rank + 2 else x[None]
    kernel, stride, dilation = _steps(kernel_size, stride, dilation, rank)
    span = _span(kernel, dilation)
    pads = arguments.resolve_padding(padding, batched.shape[2:], span, stride)
    positions = _positions(batched.shape, span, stride, pads, dtype)
    rows = batched.shape[1] * math.prod(kernel)
    arguments.check_addressable("the result", (batched.shape[0], rows, math.prod(positions)), dtype.itemsize)
    view = regions(padded(batched, pads, "zeros", dtype), kernel, stride, dilation)
    axes = (0, 1, *range(rank + 2, 2 * rank + 2), *range(2, rank + 2))
    # A copy in any case: one position or one tap are the input itself, and regions in a line share their elements.
    matrix = np.array(view.transpose(axes), order="C").reshape(batched.shape[0], rows, math.prod(positions))
    return matrix if x.ndim == rank + 2 else matrix[0]


@np.errstate(all="ignore")  # overflow and NaN go through as IEEE arithmetic takes them
def fold(
    input: Any,
    output_size: IntPerAxis,
    kernel_size: IntPerAxis,
    dilation: IntPerAxis = 1,
    padding: Padding = 0,
    stride: IntPerAxis = 1,
) -> np.ndarray:
    """Add the columns of a region matrix up where they came from: the adjoint of `unfold`, as in torch.

    Parameters
    ----------
    input : array_like, shape (N, C · taps, positions) or (C · taps, positions)
    output_size : sequence of int
        Spatial size of the result; its length says how many spatial axes there are, one, two or three. A single int
        means two axes, as in torch.
    kernel_size, dilation, padding, stride
        As for the `unfold` that it undoes.

    Returns
    -------
    ndarray, shape (N, C, *output_size), without N if the input has none

    Raises
    ------
    ValueError, TypeError, MemoryError
        As for `conv2d`; also if the number of rows or columns does not fit the sizes.

    Notes
    -----
    ``fold(unfold(x))`` is ``x`` times the number of regions that each element is in, exactly as long as those
    products are. float16 and bfloat16 are added up in float32.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> columns = npconv.unfold(np.ones((1, 1, 4)), (2,))
    >>> npconv.fold(columns, (4,), (2,))
    array([[[1., 2., 2., 1.]]])
    """
    named = call.arrays(input=input)
    call.on_host("fold", named)
    dtype, matrix = call.dtype(named), named["input"]
    size = values.sequence("output_size", output_size) if np.ndim(output_size) else (output_size,) * 2
    rank = len(size)
    if rank not in (1, 2, 3):
        raise ValueError(f"output_size must have one, two or three axes; got {output_size!r}")
    size = values.per_axis("output_size", size, rank)
    kernel, stride, dilation = _steps(kernel_size, stride, dilation, rank)
    span = _span(kernel, dilation)
    pads = arguments.resolve_padding(padding, size, span, stride)
    positions = _positions((1, 1, *size), span, stride, pads, compute_dtype(dtype.name))
    taps = math.prod(kernel)
    if matrix.ndim not in (2, 3):
        raise ValueError(
            f"input must have shape (N, C · {taps}, {math.prod(positions)}), N optional; got {matrix.shape}"
        )
    batched = matrix if matrix.ndim == 3 else matrix[None]
    batch, rows, columns = batched.shape
    if rows % taps or columns != math.prod(positions):
        raise ValueError(
            f"input must have a multiple of {taps} rows, the kernel's elements, and {math.prod(positions)} columns, "
            f"the positions {positions} of the kernel; got shape {matrix.shape}"
        )
    parts = batched.reshape(batch, rows // taps, *kernel, *positions)
    whole = tuple(n + sum(pad) for n, pad in zip(size, pads, strict=True))
    result = np.zeros((batch, rows // taps, *whole), compute_dtype(dtype.name))
    for tap in itertools.product(*map(range, kernel)):
        reached = (
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilation, positions, stride, strict=True)
        )
        index: tuple[Any, ...] = (slice(None), slice(None), *reached)
        result[index] += parts[(slice(None), slice(None), *tap)]
    inside: tuple[Any, ...] = (..., *(slice(before, before + n) for n, (before, _) in zip(size, pads, strict=True)))
    result = np.ascontiguousarray(result[inside], dtype)
    return result if matrix.ndim == 3 else result[0]


def _rank(kernel_size: Any, axes: int) -> int:
    """Return how many spatial axes an input has, by its kernel and its number of axes."""
    given = np.shape(kernel_size)
    if given and given[0] in (2, 3):
        return int(given[0])
    rank = {2: 1, 3: 1 if given else 2, 4: 2, 5: 3}.get(axes)
    if rank is None:
        raise ValueError(f"input must have two to five axes; got {axes}")
    return rank


def _steps(kernel_size: Any, stride: Any, dilation: Any, rank: int) -> tuple[tuple[int, ...], ...]:
    given = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
    return tuple(values.per_axis(name, value, rank) for name, value in given.items())


def _span(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))


def _positions(
    shape: tuple[int, ...],
    span: tuple[int, ...],
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dtype: np.dtype[Any],
) -> tuple[int, ...]:
    """Return how many positions the kernel has on each axis of an array (N, C, ...) with its padding."""
    whole = tuple(n + sum(pad) for n, pad in zip(shape[2:], pads, strict=True))
    arguments.check_addressable("the array with its padding", (*shape[:2], *whole), dtype.itemsize)
    if any(window > n for window, n in zip(span, whole, strict=True)):
        raise ValueError(f"kernel_size and dilation span {span} elements, more than the padded size {whole}")
    return tuple(map(output_size, whole, span, stride))

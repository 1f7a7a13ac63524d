"""Gradients of convolutions and transposed convolutions, with the names and argument orders of `torch.nn.grad`.

For each of conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d and conv_transpose3d there are three functions:
``…_input``, ``…_weight`` and ``…_bias``. They take the gradient of a loss with respect to the function's result and
return the gradient with respect to that argument; for complex numbers with respect to its conjugate, as torch does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from npconv import adjoint, adjoint_roads, arguments, call, recall, values, weight_gradient
from npconv.arguments import IntPerAxis, Padding
from npconv.choice import Choice
from npconv.plan import choose
from npconv.problem import ConvProblem


@contextmanager
def _given(**sized: Any) -> Iterator[None]:
    """Name the size that stands for an array, in errors that speak of the array."""
    try:
        yield
    except ValueError as error:
        ((name, value),) = sized.items()
        raise ValueError(f"with {name} {value!r}: {error}") from None


_Find = Callable[[dict[str, Any], np.dtype[Any]], tuple[ConvProblem, tuple[int, ...], tuple[int, ...]]]
_Compute = Callable[[ConvProblem, Choice, np.ndarray, np.ndarray, np.ndarray], None]
_Shortcut = Callable[[ConvProblem, Choice, np.ndarray, np.ndarray, np.ndarray], adjoint_roads.Road | None]

_roads = recall.Roads[adjoint_roads.Road]()


def _gradient(
    find: _Find, compute: _Compute, shortcut: _Shortcut, options: tuple[Any, ...], names: tuple[str, str, str | None],
    out: Any, **given: Any,
) -> np.ndarray:  # fmt: skip
    """Return the gradient that ``compute`` fills from the two arrays given.

    ``find`` returns the problem and the shapes that ``grad_output`` must have and that the gradient has; what it found
    for a call like this one (`npconv.recall`) is not looked for again, and ``shortcut`` may know a shorter road.
    """
    first, second = given.values()
    asked = recall.told((*options, *names))
    key = recall.key(first, second) if out is None and asked is not None else None
    road = _roads.get((key, asked)) if key is not None else None
    if road is not None:
        return road(first, second)
    named = call.arrays(**given)
    dtype = call.dtype(named)
    problem, expected, shape = find(named, dtype)
    choice = call.choice(*names, named)
    call.on_host("npconv.grad", named)
    if named["grad_output"].shape != expected:
        raise ValueError(
            f"grad_output must have the shape of the function's result, {expected}; got {named['grad_output'].shape}"
        )
    result = call.result(out, shape, dtype, named)
    first, second = named.values()
    compute(problem, choice, first, second, result)
    if key is not None:
        plain = key[0] and first.dtype == second.dtype == dtype
        short = shortcut(problem, choice, first, second, result) if plain else None
        _roads.keep((key, asked), short or _whole_road(problem, choice, compute, shape, dtype))
    return result


def _whole_road(
    problem: ConvProblem, choice: Choice, compute: _Compute, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> adjoint_roads.Road:
    def road(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        out = np.empty(shape, dtype)
        compute(problem, choice, first, second, out)
        return out

    return road


def _convolved(
    problem: ConvProblem, choice: Choice, slope: np.ndarray, kernel: np.ndarray, out: np.ndarray
) -> adjoint_roads.Road | None:
    """Return the short road of the transposed convolution of a transposed convolution, which is the convolution."""
    road = choose(problem, choice).road(slope, out)
    return None if road is None else lambda slope, kernel: road(slope, kernel.conj(), None, None)


def _swapped_weight(
    problem: ConvProblem, choice: Choice, x: np.ndarray, slope: np.ndarray, out: np.ndarray
) -> adjoint_roads.Road | None:
    """Return the short road of a transposed convolution's weight, for which input and result change places."""
    road = adjoint_roads.of_weight(problem, choice, slope, x, out)
    return None if road is None else lambda x, slope: road(slope, x)


def _conv_input(rank: int) -> Callable[..., np.ndarray]:
    def gradient(
        input_size: Any,
        weight: Any,
        grad_output: Any,
        stride: IntPerAxis = 1,
        padding: Padding = 0,
        dilation: IntPerAxis = 1,
        groups: int = 1,
        *,
        padding_mode: str = "zeros",
        data_format: str = "channels_first",
        algorithm: str = "auto",
        backend: str = "auto",
        precision: str | None = None,
        out: Any = None,
    ) -> np.ndarray:
        def find(named: dict[str, Any], dtype: np.dtype[Any]) -> tuple[Any, ...]:
            with _given(input_size=input_size):
                problem = arguments.conv_problem(
                    rank, values.shape("input_size", input_size), named["weight"].shape, None, dtype, stride=stride,
                    padding=padding, dilation=dilation, groups=groups, padding_mode=padding_mode,
                    data_format=data_format,
                )  # fmt: skip
            return problem, problem.result_shape, problem.input_shape

        return _gradient(
            find,
            lambda problem, choice, slope, kernel, out: adjoint.input_gradient(
                problem, kernel.conj(), slope, None, out, choice
            ),
            adjoint_roads.of_input,
            ("input", rank, input_size, stride, padding, dilation, groups, padding_mode, data_format),
            (algorithm, backend, precision), out, grad_output=grad_output, weight=weight,
        )  # fmt: skip

    return gradient


def _conv_weight(rank: int) -> Callable[..., np.ndarray]:
    def gradient(
        input: Any,
        weight_size: Any,
        grad_output: Any,
        stride: IntPerAxis = 1,
        padding: Padding = 0,
        dilation: IntPerAxis = 1,
        groups: int = 1,
        *,
        padding_mode: str = "zeros",
        data_format: str = "channels_first",
        algorithm: str = "auto",
        backend: str = "auto",
        precision: str | None = None,
        out: Any = None,
    ) -> np.ndarray:
        def find(named: dict[str, Any], dtype: np.dtype[Any]) -> tuple[Any, ...]:
            with _given(weight_size=weight_size):
                problem = arguments.conv_problem(
                    rank, named["input"].shape, values.shape("weight_size", weight_size), None, dtype,
                    stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=padding_mode,
                    data_format=data_format,
                )  # fmt: skip
            return problem, problem.result_shape, problem.weight_shape

        return _gradient(
            find,
            lambda problem, choice, x, slope, out: weight_gradient.fill(problem, x.conj(), slope, out, choice),
            adjoint_roads.of_weight,
            ("weight", rank, weight_size, stride, padding, dilation, groups, padding_mode, data_format),
            (algorithm, backend, precision), out, input=input, grad_output=grad_output,
        )  # fmt: skip

    return gradient


def _transpose_input(rank: int) -> Callable[..., np.ndarray]:
    def gradient(
        input_size: Any,
        weight: Any,
        grad_output: Any,
        stride: IntPerAxis = 1,
        padding: Padding = 0,
        output_padding: IntPerAxis = 0,
        groups: int = 1,
        dilation: IntPerAxis = 1,
        *,
        data_format: str = "channels_first",
        algorithm: str = "auto",
        backend: str = "auto",
        precision: str | None = None,
        out: Any = None,
    ) -> np.ndarray:
        def find(named: dict[str, Any], dtype: np.dtype[Any]) -> tuple[Any, ...]:
            with _given(input_size=input_size):
                problem = arguments.transposed_problem(
                    rank, values.shape("input_size", input_size), named["weight"].shape, None, dtype, stride=stride,
                    padding=padding, output_padding=output_padding, groups=groups, dilation=dilation,
                    data_format=data_format,
                )  # fmt: skip
            return problem, problem.input_shape, problem.result_shape

        # The transposed of the transposed convolution is the convolution itself.
        return _gradient(
            find,
            lambda problem, choice, slope, kernel, out: choose(problem, choice).run(slope, kernel.conj(), None, out),
            _convolved,
            ("transposed", rank, input_size, stride, padding, output_padding, groups, dilation, data_format),
            (algorithm, backend, precision), out, grad_output=grad_output, weight=weight,
        )  # fmt: skip

    return gradient


def _transpose_weight(rank: int) -> Callable[..., np.ndarray]:
    def gradient(
        input: Any,
        weight_size: Any,
        grad_output: Any,
        stride: IntPerAxis = 1,
        padding: Padding = 0,
        output_padding: IntPerAxis = 0,
        groups: int = 1,
        dilation: IntPerAxis = 1,
        *,
        data_format: str = "channels_first",
        algorithm: str = "auto",
        backend: str = "auto",
        precision: str | None = None,
        out: Any = None,
    ) -> np.ndarray:
        def find(named: dict[str, Any], dtype: np.dtype[Any]) -> tuple[Any, ...]:
            with _given(weight_size=weight_size):
                problem = arguments.transposed_problem(
                    rank, named["input"].shape, values.shape("weight_size", weight_size), None, dtype,
                    stride=stride, padding=padding, output_padding=output_padding, groups=groups, dilation=dilation,
                    data_format=data_format,
                )  # fmt: skip
            return problem, problem.input_shape, problem.weight_shape

        return _gradient(
            find,
            lambda problem, choice, x, slope, out: weight_gradient.fill(problem, slope, x.conj(), out, choice),
            _swapped_weight,
            ("transposed weight", rank, weight_size, stride, padding, output_padding, groups, dilation, data_format),
            (algorithm, backend, precision), out, input=input, grad_output=grad_output,
        )  # fmt: skip

    return gradient


def _bias(rank: int, images: bool) -> Callable[..., np.ndarray]:
    def gradient(
        grad_output: Any,
        *,
        data_format: str = "channels_first",
        precision: str | None = None,
        out: Any = None,
    ) -> np.ndarray:
        call.choice("auto", "auto", precision, {})  # the sum is as exact for either
        named = call.arrays(grad_output=grad_output)
        dtype = call.dtype(named)
        values.choice("data_format", data_format, arguments.DATA_FORMATS)
        call.on_host("npconv.grad", named)
        gradient = named["grad_output"]
        image = images and gradient.ndim == 2
        if gradient.ndim not in (rank + 1, rank + 2) and not image:
            raise ValueError(
                f"grad_output must have {rank + 2} axes, or {rank + 1} without N; got shape {gradient.shape}"
            )
        last = data_format == "channels_last"
        channel = gradient.ndim - 1 if last else gradient.ndim - rank - 1
        rows = gradient[None] if image else np.moveaxis(gradient, channel, 0)
        out = call.result(out, rows.shape[:1], dtype, named)
        adjoint.bias_gradient(rows, out)
        return out  # type: ignore[no-any-return]

    return gradient


_DOC = """Return the gradient of `npconv.{function}` with respect to its {what}.

    Parameters
    ----------
    {parameters}
    {options}
        As for `npconv.{function}`.
    out : ndarray, optional
        Array of the gradient's shape and dtype to fill, sharing no memory with the arguments.

    Returns
    -------
    ndarray, shape {result}, of the common dtype of the arrays given

    Raises
    ------
    {errors}
        As for `npconv.{function}`; also if ``grad_output`` has not the shape of its result.

    Notes
    -----
    Each element is as accurate as those of `npconv.conv2d` for sums of its n products a · b: with
    ``precision="strict"`` within (8 + √n) · eps · Σ|a · b| of the exact sum, else, where the data are transformed,
    within max(64, 8 + √n) · eps · max Σ|a · b|. It is computed as convolutions, as `npconv.adjoint` tells. What lies
    beyond the borders counts as zeros, so that an infinite number, or NaN, makes NaN there.

    Examples
    --------
    >>> import numpy as np, npconv
    {example}
    """

_GRAD_OUTPUT = "grad_output : array_like\n        Gradient with respect to the function's result, whose shape it has."


def _document(
    gradient: Callable[..., np.ndarray], function: str, rank: int, argument: str
) -> Callable[..., np.ndarray]:
    """Give a gradient the name, documentation and example of its function, rank and argument."""
    transposed = "transpose" in function
    axes = {1: "L", 2: "H, W", 3: "D, H, W"}[rank]
    kernel = {1: "k", 2: "kh, kw", 3: "kd, kh, kw"}[rank]
    shapes = {
        "input": f"(N, C, {axes})",
        "weight": f"(C, K/groups, {kernel})" if transposed else f"(K, C/groups, {kernel})",
        "bias": "(K,)",
    }
    x, w, size = (
        (2, 3) + (8,) * rank,
        ((3, 4) if transposed else (4, 3)) + (3,) * rank,
        (10 if transposed else 6,) * rank,
    )
    y = (2, 4, *size)
    if argument == "input":
        given = [
            f"input_size : tuple of int\n        Shape of the input, {shapes['input']} or without N.",
            f"weight : array_like, shape {shapes['weight']}",
            _GRAD_OUTPUT,
        ]
        example = f"npconv.grad.{function}_input({x}, np.ones({w}), np.ones({y})).shape\n    {x}"
    elif argument == "weight":
        given = [
            f"input : array_like, shape {shapes['input']} or without N",
            f"weight_size : tuple of int\n        Shape of the weight, {shapes['weight']}.",
            _GRAD_OUTPUT,
        ]
        example = f"npconv.grad.{function}_weight(np.ones({x}), {w}, np.ones({y})).shape\n    {w}"
    else:
        given = [_GRAD_OUTPUT]
        example = f"npconv.grad.{function}_bias(np.ones({y})).shape\n    (4,)"
    options = [name for name in gradient.__kwdefaults__ or {} if name != "out"]
    steps = gradient.__code__.co_varnames[len(given) : gradient.__code__.co_argcount]
    gradient.__name__ = gradient.__qualname__ = f"{function}_{argument}"
    gradient.__doc__ = _DOC.format(
        function=function,
        what=argument,
        parameters="\n    ".join(given),
        options=", ".join((*steps, *options)),
        result=shapes[argument],
        example=f">>> {example}",
        errors="ValueError, TypeError, MemoryError" + ", CudaUnavailableError" * ("backend" in options),
    )
    return gradient


conv1d_input, conv2d_input, conv3d_input = (_document(_conv_input(r), f"conv{r}d", r, "input") for r in (1, 2, 3))
conv1d_weight, conv2d_weight, conv3d_weight = (_document(_conv_weight(r), f"conv{r}d", r, "weight") for r in (1, 2, 3))
conv1d_bias, conv2d_bias, conv3d_bias = (_document(_bias(r, r == 2), f"conv{r}d", r, "bias") for r in (1, 2, 3))
conv_transpose1d_input, conv_transpose2d_input, conv_transpose3d_input = (
    _document(_transpose_input(r), f"conv_transpose{r}d", r, "input") for r in (1, 2, 3)
)
conv_transpose1d_weight, conv_transpose2d_weight, conv_transpose3d_weight = (
    _document(_transpose_weight(r), f"conv_transpose{r}d", r, "weight") for r in (1, 2, 3)
)
conv_transpose1d_bias, conv_transpose2d_bias, conv_transpose3d_bias = (
    _document(_bias(r, False), f"conv_transpose{r}d", r, "bias") for r in (1, 2, 3)
)

__all__ = [name for name in dir() if name.startswith("conv") and name.endswith(("_input", "_weight", "_bias"))]

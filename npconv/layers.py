"""Layers: weights packed once, one plan for each input shape, workspace kept between calls."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np

from npconv import adjoint, adjoint_roads, arguments, backends, call, recall, values
from npconv.arguments import IntPerAxis, Padding
from npconv.choice import Choice
from npconv.inspection import Explanation, explain_problem
from npconv.kernels.host import Workspace, contiguous
from npconv.plan import choose
from npconv.problem import ConvProblem, compute_dtype


class _Layer:
    """What all layers share: the packed weight, the problem of each input shape, the workspace."""

    rank: ClassVar[int]
    transposed: ClassVar[bool]

    def __init__(self, weight: Any, bias: Any, options: dict[str, Any], choice: tuple[Any, Any, Any]) -> None:
        named = call.arrays(weight=weight, bias=bias)
        call.on_host(type(self).__name__, named)
        self._dtype = call.dtype(named)
        self._options, self._choice = copy.deepcopy(options), choice  # the caller's lists may change
        self._weight = contiguous(named["weight"], self._dtype).copy()
        self._bias = contiguous(named["bias"], self._dtype).copy() if "bias" in named else None
        self._cast = {name: contiguous(array, compute_dtype(self._dtype.name)) for name, array in self._arrays()}
        self._problems: dict[Any, ConvProblem] = {}
        self._workspace = Workspace()
        self._roads = recall.Roads[Callable[[np.ndarray, Any], np.ndarray]]()
        if call.choice(*choice, {}).backend != "auto":
            backends.require(choice[1])
        self._problem_of(self._fitting_shape(), self._dtype)  # whatever is wrong, is said now

    def __call__(self, input: Any, out: Any = None) -> Any:
        """Apply the layer.

        Parameters
        ----------
        input : array_like
            As for the function of the layer's name. May be called from many threads at once.
        out : ndarray, optional
            As for the function.

        Returns
        -------
        ndarray
            Of the common dtype of input, weight and bias.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As for the function.
        """
        key = recall.key(input, out) if out is None or not self.transposed else None
        road = self._roads.get(key)
        if road is not None and (out is None or recall.apart(out, input)):
            return road(input, out)
        named = call.arrays(input=input) | dict(self._arrays())
        call.on_host(type(self).__name__, named)
        dtype = call.dtype(named)
        problem = self._problem_of(tuple(named["input"].shape), dtype)
        choice = call.choice(*self._choice, named, packed=True)
        arrays = self._cast if dtype == self._dtype else dict(self._arrays())
        weight, bias = arrays["weight"], arrays.get("bias")
        out = call.result(out, problem.input_shape if self.transposed else problem.result_shape, dtype, named)
        if self.transposed:
            adjoint.input_gradient(problem, weight, named["input"], bias, out, choice, self._workspace)
        else:
            choose(problem, choice).run(named["input"], weight, bias, out, self._workspace)
        if key is not None and input.dtype == dtype:
            self._roads.keep(key, self._road(problem, choice, weight, bias, *((input, out) if key[0] else ())))
        return out

    def _road(
        self, problem: ConvProblem, choice: Choice, weight: Any, bias: Any, *met: np.ndarray
    ) -> Callable[[np.ndarray, Any], np.ndarray]:
        """Return the road that a call took: a function of the input, and of the result to fill or None.

        If its input and result were C-contiguous, they are told: there may be a shorter road for such.
        """
        if self.transposed:
            short = adjoint_roads.of_layer(problem, choice, weight, bias, self._workspace, *met) if met else None

            def road(input: np.ndarray, out: Any) -> np.ndarray:
                if short is not None:
                    return short(input)
                result = np.empty(problem.input_shape, problem.dtype)
                adjoint.input_gradient(problem, weight, input, bias, result, choice, self._workspace)
                return result

            return road
        plan = choose(problem, choice)
        # Each size of images may meet other taps of some kernels, whose weights a quick road would keep.
        quick = plan.quick(*met) if met and not plan.met.among else None
        if quick is not None:
            return partial(quick, plan.pack(weight, bias, self._workspace))
        return lambda input, out: plan.run(input, weight, bias, out, self._workspace)

    def explain(self, input_shape: tuple[int, ...]) -> Explanation:
        """Tell what would run for an input of this shape, of the layer's dtype, and why.

        Parameters
        ----------
        input_shape : tuple of int

        Returns
        -------
        Explanation
            As `npconv.explain` returns it.

        Raises
        ------
        ValueError, TypeError
            If the shape does not fit the layer.
        """
        problem = self._problem_of(values.shape("input_shape", input_shape), self._dtype)
        return explain_problem(problem, self.transposed, call.choice(*self._choice, {}, packed=True))

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        return [("weight", self._weight)] + ([] if self._bias is None else [("bias", self._bias)])

    def _problem_of(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ConvProblem:
        problem = self._problems.get((shape, dtype))
        if problem is None:
            make = arguments.transposed_problem if self.transposed else arguments.conv_problem
            bias_shape = None if self._bias is None else self._bias.shape
            problem = make(self.rank, shape, self._weight.shape, bias_shape, dtype, **self._options)
            if len(self._problems) >= 256:
                self._problems.clear()
            self._problems[shape, dtype] = problem
        return problem

    def _fitting_shape(self) -> tuple[int, ...]:
        """Return the shape of the smallest input that the kernel and any padding mode allow."""
        if self._weight.ndim != self.rank + 2:
            raise ValueError(
                f"weight of {type(self).__name__} must have {self.rank + 2} axes; got shape {self._weight.shape}"
            )
        padding = self._options["padding"]
        pads = ((0, 0),) * self.rank if isinstance(padding, str) else arguments.explicit_padding(padding, self.rank)
        dilation = values.per_axis("dilation", self._options["dilation"], self.rank)
        span = ((k - 1) * d + 1 for k, d in zip(self._weight.shape[2:], dilation, strict=True))
        if self.transposed:
            stride = values.per_axis("stride", self._options["stride"], self.rank)
            size = tuple(
                1 + max(0, -((window - sum(pad) - 1) // s)) for window, pad, s in zip(span, pads, stride, strict=True)
            )
        else:
            size = tuple(max(window - sum(pad), max(pad) + 1) for window, pad in zip(span, pads, strict=True))
        groups = values.integer("groups", self._options["groups"], 1)
        channels = self._weight.shape[0] if self.transposed else self._weight.shape[1] * groups
        last = self._options["data_format"] == "channels_last"
        return (1, *size, channels) if last else (1, channels, *size)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workspace": None, "_problems": {}, "_roads": recall.Roads()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._workspace = Workspace()

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"{type(self).__name__}(weight {self._weight.shape} {self._dtype}, {options})"


class Conv2d(_Layer):
    """A `conv2d` with its weight: packed once, planned once for each input shape.

    Parameters
    ----------
    weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm, backend,
    precision
        As for `conv2d`. Weight and bias are copied.

    Raises
    ------
    ValueError, TypeError, CudaUnavailableError
        As for `conv2d`: when the layer is built, unless it is for the input, or for a named algorithm, to tell.
        Of an integer weight the activation must have integer results.

    Notes
    -----
    A layer may be called from many threads at once, pickled, and used in a forked child. It keeps the memory it works
    in for the last shapes that it met. Accuracy is that of `conv2d`. Inputs on a CUDA device are not taken.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> layer = npconv.Conv2d(np.ones((4, 3, 3, 3), np.float32), padding="same", activation="relu")
    >>> layer(np.ones((1, 3, 8, 8), np.float32)).shape
    (1, 4, 8, 8)
    >>> layer.explain((1, 3, 8, 8)).output_shape
    (1, 4, 8, 8)
    """

    rank, transposed = 2, False

    def __init__(
        self,
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
    ) -> None:
        options = {
            "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": padding_mode,
            "data_format": data_format, "activation": activation,
        }  # fmt: skip
        super().__init__(weight, bias, options, (algorithm, backend, precision))


class Conv1d(Conv2d):
    """A `conv1d` with its weight; everything else is as for `Conv2d`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> npconv.Conv1d(np.ones((4, 3, 5)), stride=2)(np.ones((1, 3, 9))).shape
    (1, 4, 3)
    """

    rank = 1


class Conv3d(Conv2d):
    """A `conv3d` with its weight; everything else is as for `Conv2d`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> npconv.Conv3d(np.ones((4, 3, 3, 3, 3)), padding=1)(np.ones((1, 3, 4, 4, 4))).shape
    (1, 4, 4, 4, 4)
    """

    rank = 3


class ConvTranspose2d(_Layer):
    """A `conv_transpose2d` with its weight: packed once, planned once for each input shape.

    Parameters
    ----------
    weight, bias, stride, padding, output_padding, groups, dilation, data_format, activation, algorithm, backend,
    precision
        As for `conv_transpose2d`. Weight and bias are copied.

    Raises
    ------
    ValueError, TypeError, CudaUnavailableError
        As for `conv_transpose2d`: when the layer is built, unless it is for the input, or for a named algorithm, to
        tell.
        Of an integer weight the activation must have integer results.

    Notes
    -----
    As for `Conv2d`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> npconv.ConvTranspose2d(np.ones((3, 4, 2, 2)), stride=2)(np.ones((1, 3, 8, 8))).shape
    (1, 4, 16, 16)
    """

    rank, transposed = 2, True

    def __init__(
        self,
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
    ) -> None:
        options = {
            "stride": stride, "padding": padding, "output_padding": output_padding, "groups": groups,
            "dilation": dilation, "data_format": data_format, "activation": activation,
        }  # fmt: skip
        super().__init__(weight, bias, options, (algorithm, backend, precision))


class ConvTranspose1d(ConvTranspose2d):
    """A `conv_transpose1d` with its weight; everything else is as for `ConvTranspose2d`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> npconv.ConvTranspose1d(np.ones((3, 4, 2)), stride=2)(np.ones((1, 3, 8))).shape
    (1, 4, 16)
    """

    rank = 1


class ConvTranspose3d(ConvTranspose2d):
    """A `conv_transpose3d` with its weight; everything else is as for `ConvTranspose2d`.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> npconv.ConvTranspose3d(np.ones((3, 4, 2, 2, 2)), stride=2)(np.ones((1, 3, 4, 4, 4))).shape
    (1, 4, 8, 8, 8)
    """

    rank = 3

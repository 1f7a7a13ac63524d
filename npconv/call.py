"""What every public function does with its arguments before it computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from npconv import arguments, precision, values
from npconv.choice import Choice
from npconv.registry import names
from npconv.threads import get_num_threads


def arrays(bias: Any = None, **required: Any) -> dict[str, Any]:
    """Return named arguments as arrays; the bias may be missing."""
    given = required if bias is None else {**required, "bias": bias}
    return {name: arguments.as_array(name, value) for name, value in given.items()}


def dtype(named: Mapping[str, Any]) -> np.dtype[Any]:
    """Return the promoted dtype of named arrays."""
    return arguments.result_dtype(*((name, arguments.outline(array).dtype) for name, array in named.items()))


def shape(named: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    """Return the shape of a named array, None if it was not given."""
    return tuple(named[name].shape) if name in named else None


def choice(
    algorithm: Any, backend: Any, chosen_precision: Any, named: Mapping[str, Any], packed: bool = False
) -> Choice:
    """Check the names of algorithm, backend and precision; let the backend follow the first array."""
    values.choice("algorithm", algorithm, ("auto", *names()))
    values.choice("backend", backend, arguments.BACKENDS)
    on_device = [name for name, array in named.items() if arguments.is_device_array(array)]
    if backend == "auto" and next(iter(named), None) in on_device:
        backend = "cuda"
    if backend != "cuda" and on_device:
        raise TypeError(
            f"{on_device[0]} is on a CUDA device, but backend {backend!r} runs on the CPU: copy it over first"
        )
    return Choice(algorithm, backend, precision.named(chosen_precision), get_num_threads(), packed)


def on_host(function: str, named: Mapping[str, Any]) -> None:
    """Refuse device arrays, for functions that take none."""
    for name, array in named.items():
        if arguments.is_device_array(array):
            raise TypeError(f"{name} is on a CUDA device, where {function} does not run: copy it over first")


def result(
    out: Any, result_shape: tuple[int, ...], result_dtype: np.dtype[Any], named: Mapping[str, Any]
) -> np.ndarray:
    """Return the host array to fill: the caller's, checked, or a new one."""
    if out is None:
        return np.empty(result_shape, result_dtype)
    arguments.check_out(out, result_shape, result_dtype, dict(named), "numpy")
    array: np.ndarray = out
    return array

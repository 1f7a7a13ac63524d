"""What users write, brought to one form; whatever is wrong with it is said before anything is computed.

Single numbers and names are checked by `npconv.values`. What one function alone asks of its arguments, such as
`npconv.fold`, its module checks in the same way; whether an algorithm takes a problem, `npconv.candidates` tells.

`as_array` takes arrays, `conv_problem` takes shapes and parameters, `check_out` takes the array to fill. `conv_problem`
needs no array, so `npconv.explain` asks it the same questions and gets the same errors.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from npconv import values
from npconv.kernels.activation import ACTIVATIONS, EXACT_ON_INTEGERS, PARAMETERS
from npconv.problem import ConvProblem, compute_dtype

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
DATA_FORMATS = ("channels_first", "channels_last")
BACKENDS = ("auto", "numpy", "numba", "cuda")
DTYPES = (
    "float16", "bfloat16", "float32", "float64", "complex64", "complex128",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip

IntPerAxis = int | Sequence[int]
Padding = str | int | Sequence[int | tuple[int, int]]


def as_array(name: str, value: Any) -> Any:
    """Return ``value`` as a NumPy array, or as it is if it lives on a CUDA device.

    NumPy arrays and CPU arrays that speak DLPack are taken without a copy; anything else goes through `numpy.asarray`.
    """
    try:
        if type(value) is np.ndarray or is_device_array(value):
            return value
    except RuntimeError as error:  # torch's answer where the tensor requires a gradient
        raise TypeError(f"{name} of type {type(value).__name__} cannot be taken: {error}") from error
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            with suppress(AttributeError, RuntimeError, TypeError, ValueError):  # as JAX's bfloat16 is taken
                return value.__array__()
            given = f"{name}, a {type(value).__name__} of dtype {getattr(value, 'dtype', 'unknown')},"
            raise TypeError(f"{given} cannot be taken by DLPack: {error}") from error
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; fill it first, as in {name}.filled(0)")
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(f"{name} of type {type(value).__name__} is not an array: {error}") from error


def is_device_array(value: Any) -> bool:
    """Tell whether an array lives on a CUDA device (or in Numba's CUDA simulator)."""
    return hasattr(value, "__cuda_array_interface__") or hasattr(value, "__cuda_ndarray__")


class _Interface:
    """What NumPy needs to see an array by, over memory that it is never to touch."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = {key: interface.get(key) for key in ("shape", "typestr", "strides", "data")}
        self.__array_interface__["version"] = 3


def outline(array: Any) -> np.ndarray:
    """Return a NumPy array with an array's shape, strides, dtype and address, whose elements must not be touched.

    For a device array it answers what NumPy knows of memory: libraries disagree about ``dtype`` and ``flags``.
    """
    if not hasattr(array, "__cuda_array_interface__"):
        return array if isinstance(array, np.ndarray) else np.asarray(array)  # the simulator's arrays are NumPy's
    return np.asarray(_Interface(array.__cuda_array_interface__))


def explicit_padding(value: Any, rank: int) -> tuple[tuple[int, int], ...]:
    """Return ((before, after), ...) for padding given in numbers."""
    what = "an integer, a pair (before, after)"
    if rank == 1 and values.is_sequence(value) and len(value) == 2 and not any(map(values.is_sequence, value)):
        raise ValueError(f"padding of one spatial axis is an integer or ((before, after),); got {value!r}")
    pairs = []
    for entry in values.axes("padding", value, rank, what):
        if values.is_sequence(entry):
            if len(entry) != 2:
                raise ValueError(f"padding of an axis must be an integer or a pair (before, after); got {entry!r}")
            pairs.append((values.integer("padding", entry[0], 0), values.integer("padding", entry[1], 0)))
        else:
            pairs.append((values.integer("padding", entry, 0),) * 2)
    return tuple(pairs)


def resolve_padding(
    value: Any,
    input_size: tuple[int, ...],
    span: tuple[int, ...],
    stride: tuple[int, ...],
) -> tuple[tuple[int, int], ...]:
    """Return ((before, after), ...) for every form of padding that a convolution takes."""
    if not isinstance(value, str):
        return explicit_padding(value, len(input_size))
    names = ("valid", "same", "same_upper", "same_lower")
    if values.choice("padding", value, names) == "valid":
        return ((0, 0),) * len(input_size)
    if value == "same" and any(s != 1 for s in stride):
        raise ValueError(f"padding='same' needs stride 1, got stride {stride}; 'same_upper' takes any stride")
    pairs = []
    for n, window, step in zip(input_size, span, stride, strict=True):
        positions = -(-n // step)
        total = max((positions - 1) * step + window - n, 0)
        small, large = total // 2, total - total // 2
        pairs.append((large, small) if value == "same_lower" else (small, large))
    return tuple(pairs)


def activation_of(value: Any, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return an activation as (name, parameters...), or () for None."""
    if value is None:
        return ()
    name, *parameters = value if isinstance(value, (tuple, list)) and value else (value,)
    values.choice("activation", name, tuple(ACTIVATIONS))
    wanted = PARAMETERS.get(name, ())
    if len(parameters) != len(wanted):
        form = f"({name!r}, {', '.join(wanted)})" if wanted else repr(name)
        raise ValueError(f"activation {name!r} is given as {form}; got {value!r}")
    if dtype.kind == "c":
        raise TypeError(f"activation {name!r} is not defined for complex numbers (dtype {dtype}); use None")
    if dtype.kind in "iu" and name not in EXACT_ON_INTEGERS:
        raise TypeError(f"activation {name!r} has no integer results (dtype {dtype}); {EXACT_ON_INTEGERS} have")
    for parameter, number in zip(wanted, parameters, strict=True):
        if isinstance(number, (bool, np.bool_)) or not isinstance(number, (int, float, np.integer, np.floating)):
            raise TypeError(f"{parameter} of activation {name!r} must be a number; got {number!r}")
        if dtype.kind in "iu" and not (isinstance(number, (int, np.integer)) and _fits(number, dtype)):
            raise ValueError(f"{parameter} of activation {name!r} must be an integer of dtype {dtype}; got {number!r}")
        if dtype.kind == "f" and isinstance(number, int) and abs(number) > sys.float_info.max:
            raise ValueError(f"{parameter} of activation {name!r} is larger than any float; got {number!r}")
        if number != number:
            raise ValueError(f"{parameter} of activation {name!r} must not be NaN")
    if name == "clip" and parameters[0] > parameters[1]:
        raise ValueError(f"activation ('clip', low, high) needs low ≤ high; got {value!r}")
    return (name, *(number.item() if isinstance(number, np.generic) else number for number in parameters))


def _fits(number: int | np.integer[Any], dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= number <= limits.max)


def dtype_named(name: str, value: Any) -> np.dtype[Any]:
    """Return the dtype that a caller names, which must be one that npconv computes in."""
    try:
        dtype = np.dtype(value)
    except TypeError as error:
        raise TypeError(f"{name} must be a dtype that npconv takes, such as 'float32'; got {value!r}") from error
    return result_dtype((name, dtype))


def result_dtype(*named: tuple[str, Any]) -> np.dtype[Any]:
    """Return the promoted dtype of the named arrays' dtypes, each of which must be one that npconv computes in."""
    for name, dtype in named:
        if dtype.name not in DTYPES:
            raise TypeError(f"{name} has dtype {dtype}; npconv takes {', '.join(DTYPES)}")
    dtypes = [dtype for _, dtype in named]
    try:
        dtype = np.result_type(*dtypes)
    except TypeError as error:
        given = ", ".join(f"{name} {dtype}" for name, dtype in named)
        raise TypeError(f"there is no common dtype for {given}") from error
    if dtype.name not in DTYPES:
        raise TypeError(f"the common dtype of {', '.join(map(str, dtypes))} is {dtype}, which npconv does not take")
    return dtype.newbyteorder("=")


def conv_problem(
    rank: int,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
    dtype: np.dtype[Any],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
    padding_mode: Any = "zeros",
    data_format: Any = "channels_first",
    activation: Any = None,
) -> ConvProblem:
    """Check a convolution's shapes and parameters and return it as a `ConvProblem`."""
    stride = values.per_axis("stride", stride, rank)
    dilation = values.per_axis("dilation", dilation, rank)
    groups = values.integer("groups", groups, 1)
    values.choice("padding_mode", padding_mode, PADDING_MODES)
    values.choice("data_format", data_format, DATA_FORMATS)
    kind, batch, channels, input_size = _split_input(rank, input_shape, weight_shape, data_format, f"conv{rank}d")
    if kind == "image":
        weight_shape = (1, 1, *weight_shape)
    if len(weight_shape) != rank + 2:
        raise ValueError(
            f"weight of conv{rank}d must have {rank + 2} axes (K, C/groups, {_SPATIAL[rank]}); got shape {weight_shape}"
        )
    out_channels, group_channels, *kernel = weight_shape
    if channels % groups or channels // groups != group_channels:
        raise ValueError(
            f"input has {channels} channels and groups is {groups}, so weight must have shape (K, {channels}/{groups}, "
            f"…); got weight shape {weight_shape}, which is for {groups * group_channels} channels"
        )
    if out_channels % groups:
        raise ValueError(f"groups must divide the {out_channels} output channels of weight; got groups {groups}")
    _check_kernel(kernel, weight_shape)
    _check_bias(bias_shape, out_channels)
    kernel_size = tuple(kernel)
    span = tuple((k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True))
    pads = resolve_padding(padding, input_size, span, stride)
    _check_padding_mode(padding_mode, pads, input_size)
    problem = ConvProblem(
        batch, channels, out_channels, groups, input_size, kernel_size, stride, dilation, pads, padding_mode,
        data_format, kind, dtype.name, bias_shape is not None, activation_of(activation, dtype),
    )  # fmt: skip
    for window, size, n, pad in zip(span, problem.padded_size, input_size, pads, strict=True):
        if window > size:
            raise ValueError(
                f"kernel {kernel_size} with dilation {dilation} spans {span} elements, more than the padded input "
                f"{problem.padded_size} (an axis of {n} padded by {pad}); use a smaller kernel or more padding"
            )
    _check_addressable(problem)
    return problem


_SPATIAL = {1: "kernel", 2: "kernel height, kernel width", 3: "kernel depth, kernel height, kernel width"}


def _split_input(
    rank: int, shape: tuple[int, ...], weight_shape: tuple[int, ...] | None, data_format: str, function: str
) -> tuple[str, int, int, tuple[int, ...]]:
    """Return how the input looks, its batch size, channels and spatial size; no weight, no plain images."""
    if rank == 2 and len(shape) == 2 and weight_shape is not None and len(weight_shape) == 2:
        return "image", 1, 1, shape
    if len(shape) not in (rank + 1, rank + 2):
        spatial = ", ".join(("depth", "height", "width")[-rank:]) if rank > 1 else "length"
        layout = f"C, {spatial}" if data_format == "channels_first" else f"{spatial}, C"
        image = " (or a plain (H, W) image with a (kh, kw) weight)" if rank == 2 and weight_shape is not None else ""
        raise ValueError(
            f"input of {function} must have {rank + 2} axes (N, {layout}) or {rank + 1} axes ({layout}){image}; "
            f"got shape {shape}"
        )
    kind = "batched" if len(shape) == rank + 2 else "unbatched"
    batch, *rest = shape if kind == "batched" else (1, *shape)
    if data_format == "channels_last":
        *size, channels = rest
    else:
        channels, *size = rest
    return kind, batch, channels, tuple(size)


def _check_padding_mode(mode: str, pads: tuple[tuple[int, int], ...], input_size: tuple[int, ...]) -> None:
    for pad, n in zip(pads, input_size, strict=True):
        if mode == "reflect" and max(pad) >= max(n, 1):
            raise ValueError(f"padding of an axis of {n} by {pad} with padding_mode='reflect' must be less than {n}")
        if mode == "circular" and max(pad) > n:
            raise ValueError(f"padding of an axis of {n} by {pad} with padding_mode='circular' must be at most {n}")
        if mode == "replicate" and n == 0 and max(pad):
            raise ValueError(f"padding of an empty axis by {pad} with padding_mode='replicate' has nothing to repeat")


def transposed_problem(
    rank: int,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
    dtype: np.dtype[Any],
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: Any = 1,
    dilation: Any = 1,
    data_format: Any = "channels_first",
    activation: Any = None,
) -> ConvProblem:
    """Check a transposed convolution and return the convolution that it transposes.

    That one's input is the result here, its result the input here, its weight the weight here. Output padding is
    padding that it does not have: elements that no window reaches.
    """
    stride = values.per_axis("stride", stride, rank)
    dilation = values.per_axis("dilation", dilation, rank)
    groups = values.integer("groups", groups, 1)
    values.choice("data_format", data_format, DATA_FORMATS)
    if isinstance(padding, str):
        raise ValueError(f"padding of a transposed convolution is given in numbers; got {padding!r}")
    pads = explicit_padding(padding, rank)
    extra = values.per_axis("output_padding", output_padding, rank, minimum=0)
    kind, batch, channels, size = _split_input(rank, input_shape, None, data_format, f"conv_transpose{rank}d")
    if len(weight_shape) != rank + 2:
        raise ValueError(
            f"weight of conv_transpose{rank}d must have {rank + 2} axes (C, K/groups, {_SPATIAL[rank]}); "
            f"got shape {weight_shape}"
        )
    in_channels, group_channels, *kernel = weight_shape
    if in_channels != channels or channels % groups:
        raise ValueError(
            f"input has {channels} channels and groups is {groups}, which must divide them, and weight must have shape "
            f"({channels}, K/groups, …); got weight shape {weight_shape}"
        )
    out_channels = group_channels * groups
    _check_kernel(kernel, weight_shape)
    _check_bias(bias_shape, out_channels)
    kernel_size = tuple(kernel)
    for axis in range(rank):
        if extra[axis] >= max(stride[axis], dilation[axis]):
            raise ValueError(
                f"output_padding must be smaller than stride or dilation; got output_padding {extra}, stride {stride}, "
                f"dilation {dilation}"
            )
    span = tuple((k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True))
    result = tuple(
        (n - 1) * s + window - sum(pad) + more
        for n, s, window, pad, more in zip(size, stride, span, pads, extra, strict=True)
    )
    if min(size) < 1 or min(result) < 1:
        raise ValueError(
            f"input of size {size} gives a result of size {result} with stride {stride}, padding {pads} and a kernel "
            f"that spans {span}; every axis of both must have at least one element"
        )
    check_addressable("the result", (batch, out_channels, *result), compute_dtype(dtype.name).itemsize)
    problem = ConvProblem(
        batch, out_channels, channels, groups, result, kernel_size, stride, dilation,
        tuple((before, after - more) for (before, after), more in zip(pads, extra, strict=True)),
        "zeros", data_format, kind, dtype.name, bias_shape is not None, activation_of(activation, dtype),
    )  # fmt: skip
    _check_addressable(problem)
    return problem


def _check_kernel(kernel: Sequence[int], weight_shape: tuple[int, ...]) -> None:
    if 0 in kernel:
        raise ValueError(f"weight must have a kernel of at least one element an axis; got shape {weight_shape}")


def _check_bias(bias_shape: tuple[int, ...] | None, out_channels: int) -> None:
    if bias_shape is not None and bias_shape != (out_channels,):
        raise ValueError(f"bias must have shape ({out_channels},), one value an output channel; got {bias_shape}")


def _check_addressable(problem: ConvProblem) -> None:
    """Refuse sizes that no array can have, before anything multiplies them in 64 bits."""
    batch, itemsize = problem.batch, max(np.dtype(problem.dtype).itemsize, problem.compute_dtype.itemsize)
    check_addressable("the padded input", (batch, problem.in_channels, *problem.padded_size), itemsize)
    check_addressable("the result", (batch, problem.out_channels, *problem.output_size), itemsize)


def check_addressable(what: str, shape: Sequence[int], itemsize: int) -> None:
    """Refuse an array that has more bytes, or a longer axis, than addresses reach."""
    if math.prod(shape) * itemsize > sys.maxsize or max(shape) > sys.maxsize:
        raise ValueError(
            f"{what} would have shape {tuple(shape)}, {itemsize} bytes an element, more than can be addressed; "
            "check the shapes, padding, stride and dilation"
        )


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], inputs: dict[str, Any], backend: str) -> None:
    """Check the array that a caller wants filled."""
    on_device = backend == "cuda" and is_device_array(inputs["input"])
    if is_device_array(out) != on_device or not (on_device or isinstance(out, np.ndarray)):
        kind = "a device array, as input is," if on_device else "a NumPy array"
        raise TypeError(f"out must be {kind} of shape {shape} and dtype {dtype}; got {type(out).__name__}")
    if isinstance(out, np.ma.MaskedArray):
        raise TypeError("out is a masked array, whose mask would stay as it is; give its data, as in out.data")
    out = outline(out)
    if out.shape != shape:
        raise ValueError(f"out must have the result's shape {shape}; got {out.shape}")
    if out.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"out must have the result's dtype {dtype}; got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; give an array that can be written to")
    if _overlaps_itself(out):
        raise ValueError(f"out has elements that share memory (strides {out.strides}); give an array without overlaps")
    for name, array in inputs.items():
        if is_device_array(array) == on_device and _share_memory(out, outline(array)):
            raise ValueError(f"out shares memory with {name}; give an array of its own")


def _share_memory(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether two arrays overlap; where the exact answer is hard to find, say yes."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=1_000_000)  # type: ignore[arg-type]  # NumPy takes any number
    except np.exceptions.TooHardError:
        return True


def _overlaps_itself(array: np.ndarray) -> bool:
    """Tell whether two indices of an array can name the same memory, erring on the safe side for exotic strides."""
    if array.size < 2 or array.flags.c_contiguous or array.flags.f_contiguous:
        return False
    axes = sorted((abs(stride), n) for stride, n in zip(array.strides, array.shape, strict=True) if n > 1)
    reach = array.itemsize
    for stride, n in axes:
        if stride < reach:
            return True
        reach += stride * (n - 1)
    return False

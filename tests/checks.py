"""What the tests share: engines and dtypes, data, torch's answer, and comparisons that say what failed."""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import oracle
import torch
from corpus import Case, parse

import npconv

BACKENDS = ("numpy", "numba")
TEXTBOOK = ("loop", "flatten", "im2col")
ENGINES = [(backend, algorithm) for backend in BACKENDS for algorithm in TEXTBOOK]
"""Every textbook algorithm on every backend that runs on a CPU."""

FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = FLOATS + COMPLEX + INTEGERS

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray | None]

_TORCH_PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def named(dtype: str) -> np.dtype:
    """The dtype of a name, which for bfloat16 is ml_dtypes's."""
    return np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)


def eps(dtype: np.dtype) -> float:
    """Distance of 1 from the next number of a dtype, real or complex."""
    return float(ml_dtypes.finfo(dtype).eps)


def summed_in(dtype: np.dtype) -> np.dtype:
    """The dtype that products are summed in."""
    return np.dtype("float32") if dtype.name in ("float16", "bfloat16") else dtype


def seed_of(text: str) -> int:
    """A seed for a problem: each has its own, the same one every time."""
    return zlib.crc32(text.encode())


def small_integers(case: Case, seed: int, complex_: bool = False) -> Arrays:
    """Input, weight and bias of integers from -4 to 4 without 0, so that sums are exact and results rarely zero."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        values = rng.integers(1, 5, shape) * rng.choice([-1.0, 1.0], shape)
        return values + 1j * rng.integers(-4, 5, shape) if complex_ else values

    return draw(*case.input_shape), draw(*case.weight_shape), draw(case.filters) if case.bias else None


def torch_conv(case: Case, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """torch's answer: `torch.nn.functional.pad` of the input, then its convolution without padding."""
    tensor = torch.from_numpy(np.ascontiguousarray(x))
    w = torch.from_numpy(np.ascontiguousarray(weight))
    if case.kind == "image":
        tensor, w = tensor[None, None], w[None, None]
    else:
        if case.kind == "unbatched":
            tensor = tensor[None]
        if case.channels_last:
            tensor = tensor.movedim(-1, 1)
    widths = [width for pair in reversed(oracle.pads(case)) for width in pair]
    if any(widths):
        tensor = torch_pad(tensor, widths, case.mode)
    conv = getattr(torch.nn.functional, f"conv{case.rank}d")
    b = None if bias is None else torch.from_numpy(bias)
    y = conv(tensor, w, b, case.stride, 0, case.dilation, case.groups)
    if case.kind == "image":
        return y[0, 0].numpy()
    if case.channels_last:
        y = y.movedim(1, -1)
    return (y[0] if case.kind == "unbatched" else y).numpy()


def torch_pad(tensor: torch.Tensor, widths: list[int], mode: str) -> torch.Tensor:
    """torch's padding, for complex numbers in every mode."""
    if tensor.is_complex() and mode in ("reflect", "replicate"):
        return torch.complex(torch_pad(tensor.real, widths, mode), torch_pad(tensor.imag, widths, mode))
    return torch.nn.functional.pad(tensor, widths, _TORCH_PAD_MODES[mode])


@cache
def exact_problem(text: str, complex_: bool) -> tuple[Arrays, np.ndarray]:
    """Small-integer data of a problem, and the exact result in float64 or complex128, which torch and the oracle gave.

    The oracle answers where torch does not take the shapes (some of the empty ones).
    """
    case = parse(text)
    arrays = small_integers(case, seed_of(text), complex_)
    empty = 0 in (case.batch, case.channels, case.filters, *case.size)
    want = oracle.wrapped(oracle.convolve(case, *arrays), arrays[0].dtype) if empty else torch_conv(case, *arrays)
    return arrays, want


def cast(values: np.ndarray | None, dtype: np.dtype) -> Any:
    """Exact integers in a dtype, modulo 2**bits for integer dtypes."""
    if values is None:
        return None
    return values.astype(np.int64).astype(dtype) if dtype.kind in "iu" else values.astype(dtype)


def exact(text: str, dtype: str) -> tuple[Arrays, np.ndarray]:
    """Data of a problem in a dtype, read-only, and the result to be met with ``==``."""
    to = named(dtype)
    arrays, want = exact_problem(text, to.kind == "c")
    return tuple(frozen(cast(array, to)) for array in arrays), cast(want, to)  # type: ignore[return-value]


def frozen(array: Any) -> Any:
    """The array, made read-only."""
    if array is not None:
        array.flags.writeable = False
    return array


def call(case: Case, arrays: Arrays, **options: Any) -> Any:
    """npconv's answer."""
    return getattr(npconv, f"conv{case.rank}d")(*arrays, **case.arguments | options)


def poison(array: np.ndarray) -> np.ndarray:
    """The array, filled with what nobody wants to see in a result: NaN, or 0xA5 bytes in integers."""
    if array.dtype.kind in "iu":
        array[...] = np.frombuffer(b"\xa5" * array.dtype.itemsize, array.dtype.newbyteorder("="))[0]
    else:
        array[...] = np.nan
    return array


def assert_same(got: Any, want: np.ndarray, about: object) -> None:
    """Type, shape, dtype and each element are the same; NaN equals NaN. ``about`` is what a failure prints."""
    assert type(got) is np.ndarray, f"{about}: a {type(got).__name__}"
    assert got.dtype == want.dtype, f"{about}: dtype {got.dtype}, not {want.dtype}"
    assert got.shape == want.shape, f"{about}: shape {got.shape}, not {want.shape}"
    same = (got == want) | ((got != got) & (want != want))
    if not same.all():
        at = tuple(int(i) for i in np.argwhere(~same)[0])
        raise AssertionError(
            f"{about}: {np.count_nonzero(~same)} of {same.size} elements differ, the first at {at}: "
            f"{got[at]}, not {want[at]}"
        )


def assert_within(got: np.ndarray, want: np.ndarray, bound: np.ndarray, about: object) -> None:
    """Each element is within its own bound."""
    assert got.shape == want.shape, f"{about}: shape {got.shape}, not {want.shape}"
    error = np.abs(got.astype(want.dtype) - want)
    inside = error <= bound
    if not inside.all():
        excess = np.where(inside, 0.0, error / np.maximum(bound, np.finfo(float).tiny))
        at = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
        raise AssertionError(
            f"{about}: {np.count_nonzero(~inside)} of {inside.size} elements are outside the bound, the worst at {at}: "
            f"{got[at]}, not {want[at]}, is {excess[at]:.3g} times the bound {bound[at]:.3g}"
        )


def accuracy_bound(products: int, magnitude: np.ndarray, want: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The documented bound: (8 + √n) · eps · Σ|x||w|, and one more rounding for a result narrower than the sum."""
    inner = summed_in(dtype)
    bound = (8 + np.sqrt(products)) * eps(inner) * magnitude
    if inner != dtype:
        # A result below the least normal number is rounded to a multiple of the least subnormal one.
        least = float(ml_dtypes.finfo(dtype).smallest_subnormal)
        bound = bound + np.maximum(eps(dtype) / 2 * (np.abs(want) + bound), least / 2)
    return bound

"""Complex convolutions by engines, which know real numbers alone.

A complex number is a real one and an imaginary one side by side. So an image is two planes, whose pixels are every
other number, and so is a kernel; and each part of the result is a convolution of real numbers. These are the products
and sums that complex numbers take, computed in whatever way an engine does. Where channels lie side by side, and in
volumes, which have no axis to spare, the planes are channels, twice as many. Two ways, of which `npconv.complex_parts`
chooses:

- *By filters*. Real parts of filters and negative imaginary ones make the real part of the result, imaginary and real
  ones the imaginary part: two convolutions. Input and result are met where they are, but where the channels come first
  in volumes, in gradients of weights, and for kernels of one element: there the input is copied. 64 channels at 56²,
  3 × 3, take 1.9 ms in two threads, and took 5.1 by `im2col`.
- *By images*. One convolution of twice as many images, of real and negative imaginary parts, and of imaginary and real
  ones, meets the filters as they are, once. These are packed once and read half as often. 256 channels at 14² take 2.8
  ms, and took 5.5 to 7.6.

One convolution of twice as many filters would have its result copied, and that may be all the workspace there is. Three
convolutions (Gauss's product) would do with three quarters of the products, and their differences would lose what the
parts have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels import host, packed
from npconv.problem import ConvProblem


class Way(NamedTuple):
    """One of the ways, as `npconv.complex_parts` chooses it."""

    images: bool
    """Whether parts of the input are images, and not those of the weight filters."""

    planes: bool
    """Whether parts are planes, and not channels."""

    copied: int
    """How many bytes copies take, of images, or of an input that is not met where it is."""


def dtype_of_part(problem: ConvProblem) -> np.dtype[Any]:
    """Return the dtype of a part."""
    return np.empty(0, problem.compute_dtype).real.dtype


def _apart(array: np.ndarray, planes: bool) -> np.ndarray:
    """Return complex numbers (N, C, D, H, W) as real ones: two ``planes``, (N, C, 2, H, W), or (N, 2 · C, D, H, W).

    A view, if numbers lie so.
    """
    parts = np.lib.stride_tricks.as_strided(
        array.real,
        (*array.shape[:2], 2, *array.shape[2:]),
        (*array.strides[:2], array.itemsize // 2, *array.strides[2:]),
    )
    return _merged(parts, planes)


def _merged(parts: np.ndarray, planes: bool) -> np.ndarray:
    """Return the same of real numbers (N, C, 2, D, H, W)."""
    images, channels, _, depth, *size = parts.shape
    return parts.reshape(images, *((channels, 2) if planes else (2 * channels, depth)), *size)


class Packing:
    """How complex filters and biases of a ``problem`` are packed: see `npconv.kernels.packed.Packing`.

    What runs is ``computed``, on an engine.
    """

    def __init__(self, engine: Any, computed: ConvProblem, problem: ConvProblem, way: Way) -> None:
        self._problem, self._planes, self._images = problem, way.planes, way.images
        self._each = packed.Packing(engine, computed)
        self.order = self._images, self._each.order

    def __call__(self, weight: np.ndarray, bias: np.ndarray | None) -> Iterator[packed.Packed | np.ndarray | None]:
        """Pack a caller's arrays: filters, and the bias as it is; or for the real part, and then for the imaginary."""
        dtype = self._problem.compute_dtype
        with np.errstate(all="ignore"):
            weight = self._problem.canonical_weight(weight).astype(dtype, copy=False)
            numbers = None if bias is None else np.asarray(bias).astype(dtype, copy=False)
        if self._images:
            yield self._each(_apart(weight, self._planes), None)
            yield numbers
            return
        yield self._part(weight.real, weight.imag, -1, None if numbers is None else numbers.real)
        yield self._part(weight.imag, weight.real, 1, None if numbers is None else numbers.imag)

    quick = __call__

    @np.errstate(all="ignore")
    def _part(self, first: np.ndarray, second: np.ndarray, sign: int, bias: np.ndarray | None) -> packed.Packed:
        """Pack what meets real and imaginary numbers, the latter with a sign."""
        filters, channels, *size = first.shape
        made = np.empty((filters, channels, 2, *size), first.dtype)
        made[:, :, 0] = first
        np.multiply(second, sign, out=made[:, :, 1])
        return self._each(_merged(made, self._planes), bias)


class Run:
    """A complex problem on one engine, made once, run for many arrays: see `npconv.kernels.packed.Run`."""

    def __init__(
        self,
        engine: Any,
        computed: ConvProblem,
        problem: ConvProblem,
        way: Way,
        threads: int,
        within: Callable[[int], bool] | None = None,
    ) -> None:
        self._problem, self._planes, self._images, self._copied = problem, way.planes, way.images, way.copied
        left = None if within is None else lambda size: within(size + self._copied)
        self._each = packed.Run(engine, computed, threads, left)

    @property
    def bytes(self) -> int:
        """How many bytes its threads work in at most, and those of copies of images."""
        return self._each.bytes + self._copied

    @property
    def threads(self) -> int:
        """How many threads run for arrays that lie in C order."""
        return self._each.threads

    def __call__(self, input: np.ndarray, numbers: Iterable[Any], out: np.ndarray) -> None:
        """Fill ``out``, of numbers as `Packing` yields them."""
        x, target = self._problem.canonical(input), self._problem.canonical(out)
        with np.errstate(all="ignore"):
            x = x.astype(self._problem.compute_dtype, copy=False)
        if self._images:
            each, bias = numbers
            self._fill_by_images(x, each, bias, target)
            return
        parts, filters = _apart(x, self._planes), iter(numbers)
        for part in (target.real, target.imag):  # what the first one's filters take is free when the second's are made
            self._each(parts, next(filters), part)

    def quick(
        self, x: np.ndarray, out: np.ndarray
    ) -> Callable[[Iterable[Any], np.ndarray, np.ndarray | None], np.ndarray]:
        """Do what the call of these C-contiguous arrays did, without looking at others like them.

        It takes what was packed, the input, and a result to fill, or None for a new one.
        """
        problem, dtype = self._problem, self._problem.compute_dtype
        shape, real = problem.result_shape, dtype_of_part(problem)
        x, made = problem.canonical(x), problem.canonical(out)
        parts = _apart(x, self._planes)
        fills = [None if self._images else self._each.fixed(parts, part) for part in (made.real, made.imag)]
        met_as_it_is = np.may_share_memory(parts, x)

        def call(numbers: Iterable[Any], x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
            if out is None:
                out = np.empty(shape, dtype)
            if None in fills:
                self(x, numbers, out)
                return out
            met = host.writeable(x)
            met = met.ravel().view(real) if met_as_it_is else _apart(problem.canonical(met), self._planes).ravel()
            flat, filters = out.ravel().view(real), iter(numbers)
            for part, fill in enumerate(fills):
                each = next(filters)
                fill(met, each.weight, each.bias, flat[part:])  # type: ignore[misc]
                del each
            return out

        return call

    @np.errstate(all="ignore")
    def _fill_by_images(
        self, x: np.ndarray, filters: packed.Packed, bias: np.ndarray | None, target: np.ndarray
    ) -> None:
        images, channels, *size = x.shape
        made = np.empty((images, 2, channels, 2, *size), x.real.dtype)
        made[:, 0, :, 0] = made[:, 1, :, 1] = x.real
        made[:, 1, :, 0] = x.imag
        np.multiply(x.imag, -1, out=made[:, 0, :, 1])  # NumPy 2.4.6's `negative` reads every fourth float wrongly here
        filled = np.empty((images, 2, *target.shape[1:]), made.dtype)
        parts = made.reshape(2 * images, channels, 2, *size)
        self._each(_merged(parts, self._planes), filters, filled.reshape(2 * images, *target.shape[1:]))
        if bias is not None:
            filled += np.stack([bias.real, bias.imag])[:, :, None, None, None]
        target.real, target.imag = filled[:, 0], filled[:, 1]

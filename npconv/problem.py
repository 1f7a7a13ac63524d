"""What is to be computed, as one frozen object of integers and tuples.

Everything that a user may write in several ways (``stride=1`` or ``(1, 1)``, ``padding="same"`` or the numbers it
stands for) has been brought to one form before a `ConvProblem` is made, so equal problems are equal objects: they
meet the same plan and the same kernel. The formulas for sizes, floating-point operations and bytes stand here and
nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npconv.loading import once

COMPUTE_DTYPES = {"float16": "float32", "bfloat16": "float32"}
"""Dtypes whose sums are kept in another dtype; every other dtype computes in itself."""


def output_size(padded: int, span: int, stride: int) -> int:
    """Count the positions of a window of ``span`` elements that moves by ``stride`` over ``padded`` elements."""
    return (padded - span) // stride + 1


def compute_dtype(dtype: str) -> np.dtype[np.generic]:
    """Return the dtype in which products of ``dtype`` are summed."""
    return np.dtype(COMPUTE_DTYPES.get(dtype, dtype))


@dataclass(frozen=True)
class ConvProblem:
    """One convolution, without its data.

    Sizes are per spatial axis, in the caller's rank; `padding` is ((before, after), ...), where less than nothing takes
    elements away. `kind` says how the caller's arrays look: ``"batched"`` (N, C, …), ``"unbatched"`` (C, …) or
    ``"image"`` (H, W). `activation` is a name and its parameters, or ().

    Gradients and transposed convolutions are described by the convolution that they belong to: the input of a
    transposed convolution is that one's result. Some run as one convolution of stride 1 whose input has ``up - 1``
    zeros between its elements, along each axis (`npconv.phasing`); `up` is () for all others.
    """

    batch: int
    in_channels: int
    out_channels: int
    groups: int
    input_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    padding_mode: str
    data_format: str
    kind: str
    dtype: str
    bias: bool = False
    activation: tuple[Any, ...] = ()
    up: tuple[int, ...] = ()
    turned: bool = False
    """Whether filters lie side by side in memory, and not one behind the other, as far as is known."""

    last: bool = False
    """Whether the channels of a canonical form's arrays lie side by side in memory, as far as is known."""

    apart: bool = False
    """Whether the pixels of a row lie apart in memory, as far as is known."""

    of_weight: bool = False
    """Whether its result is the gradient of a weight: each call brings filters of its own."""

    among: tuple[tuple[int, int], ...] = ()
    """Which taps of a longer kernel `met` has left, along each axis: the first one, and how many there are of all."""

    loose: bool = False
    """Whether sums may be as far off as ``precision="default"`` allows; set by `npconv.plan` for the engines."""

    @property
    def channels_last(self) -> bool:
        """Whether the channels of input and result lie side by side in memory, as far as is known."""
        return self.last or self.data_format == "channels_last"

    @once
    def rank(self) -> int:
        """How many spatial axes there are."""
        return len(self.input_size)

    @once
    def padded_size(self) -> tuple[int, ...]:
        """Spatial size of the input with its padding."""
        up = self.up or (1,) * self.rank
        return tuple((n - 1) * u + 1 + sum(pad) for n, u, pad in zip(self.input_size, up, self.padding, strict=True))

    @once
    def span(self) -> tuple[int, ...]:
        """Spatial size of the region under the dilated kernel."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))

    @once
    def output_size(self) -> tuple[int, ...]:
        """Spatial size of the result."""
        return tuple(map(output_size, self.padded_size, self.span, self.stride))

    @once
    def taps(self) -> int:
        """Elements of one kernel plane."""
        return math.prod(self.kernel_size)

    @once
    def products(self) -> int:
        """Products that are summed up for one element of the result."""
        return self.in_channels // self.groups * self.taps

    @once
    def positions(self) -> int:
        """Elements of one output plane."""
        return math.prod(self.output_size)

    @once
    def compute_dtype(self) -> np.dtype[np.generic]:
        """Dtype in which products are summed."""
        return compute_dtype(self.dtype)

    @once
    def met(self) -> ConvProblem:
        """Return the same problem without the outer taps that meet nothing but padding, wherever the window is.

        So with dilations that are longer than the image: of 3 × 3 taps with dilation 36, the middle one meets 33 × 33
        pixels. One is left in any case.
        """
        if self.padding_mode != "zeros" or self.up:
            return self
        kernel, dilation, padding, among = [], [], [], []
        for size, taps, d, s, (before, after), results in zip(
            self.input_size, self.kernel_size, self.dilation, self.stride, self.padding, self.output_size, strict=True
        ):
            reach = (results - 1) * s - before  # of the first tap, at the last position
            first = max(min(-(reach // d), before // d, taps - 1), 0)  # those before it end in front of the image
            behind = taps - -(-(size + before) // d)  # those that lie behind it
            last = taps - max(min(behind, after // d, taps - first - 1), 0)
            kernel.append(last - first)
            dilation.append(d if last - first > 1 else 1)
            padding.append((before - first * d, after - (taps - last) * d))
            among.append((first, taps))
        if tuple(kernel) == self.kernel_size:
            return self
        return replace(
            self, kernel_size=tuple(kernel), dilation=tuple(dilation), padding=tuple(padding), among=tuple(among)
        )

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct sum; a complex product counts as 4 and 2, a complex sum as 2.

        Those with zeros between elements are left out.
        """
        per_product = 8 if self.compute_dtype.kind == "c" else 2
        products = per_product * self.batch * self.out_channels * self.positions * self.products
        return products // math.prod(self.up)

    def _bytes(self, elements: int) -> int:
        return elements * np.dtype(self.dtype).itemsize

    @once
    def input_bytes(self) -> int:
        """Bytes of the input."""
        return self._bytes(self.batch * self.in_channels * math.prod(self.input_size))

    @once
    def weight_bytes(self) -> int:
        """Bytes of the weight."""
        return self._bytes(self.out_channels * self.products)

    @once
    def output_bytes(self) -> int:
        """Bytes of the result."""
        return self._bytes(self.batch * self.out_channels * self.positions)

    @once
    def padded_elements(self) -> int:
        """Elements of the input with its padding, without zeros between them."""
        up = self.up or (1,) * self.rank
        return self.batch * self.in_channels * math.prod(-(-n // u) for n, u in zip(self.padded_size, up, strict=True))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input as the caller sees it."""
        return self._shape(self.in_channels, self.input_size)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the result as the caller sees it."""
        return self._shape(self.out_channels, self.output_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight as the caller sees it."""
        if self.kind == "image":
            return self.kernel_size
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def _shape(self, channels: int, size: tuple[int, ...]) -> tuple[int, ...]:
        if self.kind == "image":
            return size
        if self.data_format == "channels_last":
            shape: tuple[int, ...] = (self.batch, *size, channels)
        else:
            shape = (self.batch, channels, *size)
        return shape if self.kind == "batched" else shape[1:]

    def canonical(self, array: np.ndarray) -> np.ndarray:
        """View a caller's input or result as (N, C, depth, height, width), with axes of length one put in front."""
        array = np.asarray(array)  # a subclass may do anything with an index
        if self.kind == "image":
            array = array[None, None]
        else:
            if self.kind == "unbatched":
                array = array[None]
            if self.data_format == "channels_last":
                array = array.transpose(0, self.rank + 1, *range(1, self.rank + 1))
        return _three_axes(array, self.rank)

    def canonical_weight(self, weight: np.ndarray) -> np.ndarray:
        """View a caller's weight as (K, C/groups, depth, height, width)."""
        weight = np.asarray(weight)
        if self.kind == "image" and weight.ndim == 2:
            weight = weight[None, None]
        return _three_axes(weight, self.rank)

    def canonical_form(self) -> ConvProblem:
        """Return the same problem over the arrays that `canonical` and `canonical_weight` give."""
        return self._canonical_form

    @once
    def _canonical_form(self) -> ConvProblem:
        return replace(
            self,
            input_size=self.three(self.input_size),
            kernel_size=self.three(self.kernel_size),
            stride=self.three(self.stride),
            dilation=self.three(self.dilation),
            padding=(*((0, 0),) * (3 - self.rank), *self.padding),
            data_format="channels_first",
            last=self.channels_last,
            kind="batched",
            up=self.three(self.up) if self.up else (),
            among=(*((0, 1),) * (3 - self.rank), *self.among) if self.among else (),
        )

    def three(self, per_axis: tuple[int, ...], fill: int = 1) -> tuple[int, int, int]:
        """Extend a per-axis tuple to depth, height and width."""
        if self.rank == 3:
            return per_axis  # type: ignore[return-value]
        return (*(fill,) * (3 - self.rank), *per_axis)  # type: ignore[return-value]


def _three_axes(array: np.ndarray, rank: int) -> np.ndarray:
    """Insert axes of length one before the spatial ones, so that every array has three of them."""
    return array[(slice(None), slice(None), *(None,) * (3 - rank))]

"""The phases of a transposed convolution: ordinary convolutions, each of which makes the elements of one residue.

Input, stride s and dilation d, per axis. The result's element o is made of input elements j = o s + t d (counted with
the padding), so j gets contributions from the taps t with t d ≡ j (mod s). All j of one residue modulo s form a
*phase*: their taps are t₀, t₀ + s/q, t₀ + 2 s/q, …, with q = gcd(s, d), and successive ones meet elements o that lie
d/q apart. A phase is a convolution of stride 1 and dilation d/q with the flipped taps, whose channels change places;
s phases fill the input. At the borders, elements beyond the result count as zeros.

The same is one convolution of stride 1 with the flipped taps, over the result with s - 1 zeros between its elements
(Dumoulin and Visin, *A guide to convolution arithmetic for deep learning* (2016), §4.6).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from npconv import patches
from npconv.problem import ConvProblem


class _Phase(NamedTuple):
    """The input elements of one residue on one axis, and the convolution that makes them."""

    elements: slice
    length: int
    taps: slice
    number: int  # of taps
    dilation: int
    padding: tuple[int, int]


def _phases(size: int, result: int, kernel: int, stride: int, dilation: int, before: int) -> Iterator[_Phase]:
    """Yield the phases of an axis of ``size`` elements, ``before`` more padded in front, and ``result`` elements.

    Only those that get a contribution: each begins with another tap, however large the stride is.
    """
    every, step = stride // math.gcd(stride, dilation), dilation // math.gcd(stride, dilation)
    for tap in range(min(kernel, every)):
        first = (tap * dilation - before) % stride
        if first >= size:
            continue
        count = (size - 1 - first) // stride + 1
        number = len(range(tap, kernel, every))
        last = (first + before - tap * dilation) // stride  # the result's element that meets the first tap and element
        start = last - (number - 1) * step
        if start < result and last + count > 0:
            elements = slice(first, first + (count - 1) * stride + 1, stride)
            yield _Phase(elements, count, slice(tap, None, every), number, step, (-start, last + count - result))


def phases(problem: ConvProblem) -> Iterator[tuple[tuple[_Phase, ...], ConvProblem]]:
    """Yield the phases of a canonical, zero-padded problem that get a contribution, each with its convolution."""
    axes = map(
        _phases, problem.input_size, problem.output_size, problem.kernel_size, problem.stride, problem.dilation,
        (before for before, _ in problem.padding),
    )  # fmt: skip
    for parts in itertools.product(*axes):
        yield (
            parts,
            replace(
                problem,
                in_channels=problem.out_channels,
                out_channels=problem.in_channels,
                input_size=problem.output_size,
                kernel_size=tuple(part.number for part in parts),
                stride=(1, 1, 1),
                dilation=tuple(part.dilation for part in parts),
                padding=tuple(part.padding for part in parts),
                turned=True,
            ),
        )


class Step(NamedTuple):
    """A phase of all axes, or the patches of some images."""

    elements: tuple[Any, ...]
    taps: tuple[Any, ...]
    begins: tuple[int, ...]
    forward: ConvProblem
    images: slice = slice(None)
    patch: tuple[int, ...] = ()
    """The size of a patch; the result of ``forward`` is then to be put in its places."""

    def taps_of(self, weight: np.ndarray) -> Any:
        """Return the taps of this phase, of a weight whose channels have changed places."""
        return patches.filters(weight) if self.patch else weight[self.taps][..., ::-1, ::-1, ::-1]

    def bias_of(self, bias: np.ndarray | None) -> np.ndarray | None:
        """Return the bias of each of the filters, which patches have one of for each tap."""
        if bias is None or not self.patch:
            return bias
        return np.repeat(bias, self.forward.out_channels // len(bias))


def steps_of(found: list[tuple[tuple[_Phase, ...], ConvProblem]]) -> list[Step]:
    """Return phases as steps."""
    return [
        Step(
            last_axes(*(part.elements for part in parts)),
            last_axes(*(part.taps for part in parts)),
            tuple(part.taps.start for part in parts),
            forward,
        )
        for parts, forward in found
    ]


def patches_of(made: ConvProblem, patch: tuple[int, ...]) -> list[Step]:
    """Return the steps that make patches, some images at a time."""
    share = patches.at_once(made)
    parts = [slice(first, min(first + share, made.batch)) for first in range(0, made.batch, share)]
    inside = [slice(n * step) for n, step in zip(made.input_size, patch, strict=True)]
    return [
        Step((some, slice(None), *inside), (...,), (-1,), replace(made, batch=some.stop - some.start), some, patch)
        for some in parts
    ]


def spaced(problem: ConvProblem) -> ConvProblem | None:
    """Return the convolution with zeros between elements that fills the input of a canonical problem, if there is one.

    It has no padding less than nothing.
    """
    size = tuple((n - 1) * s + 1 for n, s in zip(problem.output_size, problem.stride, strict=True))
    before = [span - 1 - pad for span, (pad, _) in zip(problem.span, problem.padding, strict=True)]
    after = [
        n + span - 1 - inner - pad
        for n, span, inner, pad in zip(problem.input_size, problem.span, size, before, strict=True)
    ]
    if max(problem.stride) == 1 or min(*before, *after) < 0 or 0 in problem.input_size:
        return None
    return replace(
        problem,
        in_channels=problem.out_channels,
        out_channels=problem.in_channels,
        input_size=problem.output_size,
        stride=(1, 1, 1),
        padding=tuple(zip(before, after, strict=True)),
        up=problem.stride,
        turned=True,
    )


def last_axes(*index: slice) -> tuple[Any, ...]:
    """Return an index of the last axes."""
    return (..., *index)

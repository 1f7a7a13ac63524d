"""Filters put in order: the numbers of each side by side, as tiles with pixels in the vectors read them.

Those of gradients and transposed convolutions are views with the channels swapped and the taps reversed, or some of the
taps. A task copies some filters; where they are a matrix that is only transposed, in square blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npconv.kernels import host
from npconv.kernels.numba import buffers, jit
from npconv.kernels.numba.lean import max, min, tuple_of
from npconv.kernels.numba.moves import BLOCK, move, transpose
from npconv.kernels.numba.slab import copy_numbers
from npconv.problem import ConvProblem

FEW = 2**14
"""Numbers up to which NumPy puts them in order sooner than what follows begins: 4096 take 5 µs instead of 30, 16384 of
1 × 1 to 4 × 4 taps 12 to 25 instead of 38 to 66."""

WORTH = 2
"""Numbers that take as long to copy as one product of a kernel's work."""


class Filters(NamedTuple):
    """Filters, flat."""

    numbers: np.ndarray
    turned: bool
    """Whether those of one element lie side by side, and not one behind the other."""


def as_they_lie(weight: np.ndarray, may_turn: bool) -> Filters:
    """Return filters (K, C/groups, kd, kh, kw) as they are if they lie in C order, or if tasks ``may_turn`` them."""
    if weight.flags.c_contiguous:
        return Filters(weight.ravel(), False)
    if may_turn:
        matrix = weight[:, :, 0, 0, 0].T
        if matrix.flags.c_contiguous:
            return Filters(matrix.reshape(-1), True)
    return Filters(in_rows([weight]), False)


def pack(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """Return filters (K, C/groups, kd, kh, kw) flat, as they are if they lie in C order."""
    return weight.reshape(-1) if weight.flags.c_contiguous else in_rows([weight])


def in_rows(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return filters (K, C, kd, kh, kw), of any strides, as one flat array, each of them in C order."""
    if sum(weight.size for weight in weights) <= FEW:
        return np.concatenate([weight.reshape(-1) for weight in weights])
    ends = np.cumsum([weight.size for weight in weights])
    dtype = weights[0].dtype
    ordered = buffers.aligned(max(int(ends[-1]), 1) * dtype.itemsize).view(dtype)
    for weight, end in zip(weights, ends, strict=True):
        _copy(weight, ordered[end - weight.size : end])
    return ordered


def _copy(weight: np.ndarray, ordered: np.ndarray) -> None:
    if weight.flags.c_contiguous or weight.size <= FEW or any(step % weight.itemsize for step in weight.strides):
        ordered.reshape(weight.shape)[...] = weight
        return
    steps, first, flat = host.in_memory(weight)
    sizes = np.array([*weight.shape, *steps, first])
    _some.run(-(-len(weight) // BLOCK), weight.size // WORTH, flat(weight), ordered, sizes)


def swapped(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return C-contiguous filters (K, C/groups, kd, kh, kw) with channels and filters of each group swapped.

    NumPy takes 0.8 ns for a number of 3 × 3 filters, this 0.1 in two threads.
    """
    filters, channels = len(weight) // groups, weight.shape[1]
    taps = weight.size // max(len(weight) * channels, 1)
    result = np.empty((groups * channels, filters, *weight.shape[2:]), weight.dtype)
    sizes = np.array([filters, channels, taps])
    _swap.run(groups * channels, weight.size // WORTH, weight.reshape(-1), result.reshape(-1), sizes)
    return result


def dealt(weight: np.ndarray, groups: int, places: np.ndarray) -> np.ndarray:
    """Return the numbers of C-contiguous filters (K, C/groups, …) flat, dealt out to convolutions of some taps each.

    ``places`` tells for each tap where the first number of it belongs, and how many taps its convolution has. Filters
    and channels of each group are swapped. Convolution by convolution, from views, this took six times as long.
    """
    filters, channels, taps = len(weight) // groups, weight.shape[1], len(places)
    ordered = np.empty(weight.size, weight.dtype)
    sizes = np.array([filters, channels, taps])
    tasks = groups * -(-channels // BLOCK)
    _deal.run(tasks, weight.size // WORTH, weight.reshape(-1), ordered, sizes, places)
    return ordered


@jit.Kernel
def _deal(task, numbers, ordered, sizes, places):  # type: ignore[no-untyped-def]
    """Deal out the taps of some channels of all filters of their group."""
    filters, channels, taps = tuple_of(sizes, 0, 3)
    g, block = divmod(task, -(-channels // BLOCK))
    begin, end = block * BLOCK, min(block * BLOCK + BLOCK, channels)
    for k in range(filters):
        source = ((g * filters + k) * channels + begin) * taps
        for c in range(begin, end):
            row = (g * channels + c) * filters + k
            for t in range(taps):
                move(ordered, places[t, 0] + row * places[t, 1], numbers, source + t)
            source += taps


@jit.Kernel
def _swap(task, numbers, ordered, sizes):  # type: ignore[no-untyped-def]
    """Copy the taps of a channel of all filters of its group."""
    filters, channels, taps = tuple_of(sizes, 0, 3)
    g, c = divmod(task, channels)
    source, at = (g * filters * channels + c) * taps, task * filters * taps
    for _ in range(filters):
        copy_numbers(ordered, at, numbers, source, taps)
        at += taps
        source += channels * taps


@jit.Kernel
def _some(task, numbers, ordered, sizes):  # type: ignore[no-untyped-def]
    """Copy the filters of a block."""
    filters, channels, depth, height, width, to_filter, to_channel, to_plane, to_line, to_tap, first = tuple_of(
        sizes, 0, 11
    )
    taps = depth * height * width
    begin = task * BLOCK
    if to_filter == 1 and taps == 1 and channels >= BLOCK and begin + BLOCK <= filters:
        for c in range(0, channels, BLOCK):
            c = min(c, channels - BLOCK)
            transpose(ordered, begin * channels + c, channels, numbers, first + begin + c * to_channel, to_channel)
        return
    if taps == 1:
        for c in range(channels):
            for k in range(begin, min(begin + BLOCK, filters)):
                move(ordered, k * channels + c, numbers, first + k * to_filter + c * to_channel)
        return
    # Channel by channel: the taps of neighbouring filters share lines of the cache.
    for c in range(channels):
        for k in range(begin, min(begin + BLOCK, filters)):
            at = (k * channels + c) * taps
            for i in range(depth):
                for j in range(height):
                    start = first + k * to_filter + c * to_channel + i * to_plane + j * to_line
                    for m in range(width):
                        move(ordered, at, numbers, start + m * to_tap)
                        at += 1

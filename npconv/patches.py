"""Transposed convolutions whose kernel is as long as its stride: as one product of matrices.

Each element of the result meets one tap of the kernel, and each element of the input makes a *patch* of the result, of
the kernel's size, that no other makes. So all patches are the result of a 1 × 1 convolution, which has a filter for
each tap of a filter, put in its places. As phases (`npconv.phasing`), one convolution for each tap, patches of 16 × 16
for 768 filters took 55 ms, and take 1.6. Such are the gradients of the first layers of vision transformers, and layers
that make an image larger. Those of two elements along a row can be written where they belong
(`npconv.kernels.numba.pairs`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npconv import loading
from npconv.problem import ConvProblem

MOST = 2**22
"""Bytes of patches that are computed at a time, if one image has no more."""

LARGEST = 2**25
"""Bytes of patches of an image, at most."""


def forward(problem: ConvProblem) -> ConvProblem | None:
    """Return the 1 × 1 convolution of all images that makes the patches of a canonical problem's input, or None."""
    if problem.kernel_size != problem.stride or problem.taps == 1 or set(problem.dilation) != {1}:
        return None
    if any(before != 0 for before, _ in problem.padding) or problem.padding_mode != "zeros":
        return None
    if 0 in (*problem.input_shape, problem.out_channels):
        return None
    reached = [n * step for n, step in zip(problem.output_size, problem.stride, strict=True)]
    if any(n > size for n, size in zip(reached, problem.input_size, strict=True)):
        return None
    one = (1, 1, 1)
    made = replace(
        problem,
        in_channels=problem.out_channels,
        out_channels=problem.in_channels * problem.taps,
        input_size=problem.output_size,
        kernel_size=one,
        stride=one,
        padding=((0, 0),) * 3,
        turned=True,
    )
    return made if made.output_bytes <= LARGEST * made.batch else None


PLACE = 0.6e-9
"""Seconds to put a number in its place: 0.3e-9 to 1.3e-9 in two threads."""


def filters(weight: np.ndarray) -> np.ndarray:
    """Return the filters of `forward`, of a canonical weight whose channels have changed places (C, K/groups, …)."""
    return weight.transpose(0, 2, 3, 4, 1).reshape(-1, weight.shape[1], 1, 1, 1)


def at_once(made: ConvProblem) -> int:
    """Return of how many images `forward` computes the patches at a time."""
    return max(min(MOST * made.batch // max(made.output_bytes, 1), made.batch), 1)


def place(made: np.ndarray, out: np.ndarray, patch: tuple[int, ...], fast: bool) -> None:
    """Write patches (N, D, H, W, C · taps) to their places in ``out`` (N, C, …), with Numba where that is ``fast``."""
    images, *size, _ = made.shape
    down, by, along = (slice(n * step) for n, step in zip(size, patch, strict=True))
    inside = out[..., down, by, along]
    if fast and loading.module("npconv.kernels.numba.patches").place(made, inside, patch):
        return
    (depth, height, width), (i, j, m), channels = size, patch, out.shape[1]
    pieces = made.reshape(images, depth, height, width, channels, i, j, m).transpose(0, 4, 1, 5, 2, 6, 3, 7)
    inside.reshape(images, channels, depth, i, height, j, width, m)[...] = pieces

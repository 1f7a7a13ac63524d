"""What memory direct sums load their input into, as far as is known before they plan."""

from __future__ import annotations

from npconv.problem import ConvProblem

SLAB, BESIDE = 2**18, 2**15
"""Bytes of a slab of the input, at most, and of what else a thread works in."""

PIXELS, PIXEL = 512, 24
"""Pixels of a result whose part of the input a task loads that has filters in panels, with the borders of several
images; and pixels of a row that a task has, at least."""


def of_pixels(problem: ConvProblem) -> int:
    """Return about as many bytes as a slab of some pixels takes."""
    size = problem.padded_elements * problem.compute_dtype.itemsize
    return min(SLAB, size, PIXELS * size // max(problem.positions, PIXELS))


def between_taps(problem: ConvProblem, channels: int) -> int:
    """Return the bytes of what a few pixels meet of so many channels, at least: between dilated taps, too; or 0."""
    if max(problem.dilation) == 1:
        return 0
    _, height, width = problem.three(problem.span)
    stride = problem.three(problem.stride)
    met = problem.three(problem.kernel_size)[0] * height * (width + min(problem.output_size[-1], PIXEL) * stride[2])
    return met * channels * problem.compute_dtype.itemsize

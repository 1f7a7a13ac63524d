"""What memory engines work in, as far as is known before they plan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from npconv.costs import tiles
from npconv.costs.loads import pointwise
from npconv.costs.machine import vector_bytes
from npconv.kernels import filtering
from npconv.kernels.numba import piecing
from npconv.kernels.numba.blocking import GATHERED, QUARTERED, in_slivers
from npconv.problem import ConvProblem

if TYPE_CHECKING:
    from npconv.costs.effort import Effort

PIXELS = 512
"""Pixels of a result whose part of the input a task with panels loads, with the borders of several images."""

FEW, PIXEL = 400, 24
"""Products of channels that planes are met in parts of, at least; pixels of a row that the direct sum has, at least."""

RESULTS = 3 * 2**17
"""Bytes of results and of a slab that a thread works in, at most, where there are slivers. (With a mebibyte, which
few tasks need, it was thought that two threads have no room for 296 of 5,238 layers where they have, and one of
them computed it alone; with this for 8, and for 5 that they have where they have not, which their plan tells.)"""


def scratch(effort: Effort, problem: ConvProblem, threads: int) -> int:
    """Return about as many bytes as a thread works in."""
    itemsize = problem.compute_dtype.itemsize
    if effort.pieces:
        return piecing.cut(problem, threads, effort.wide(problem)).numbers * itemsize + 2**12
    if effort.dots:  # a whole plane of the input, and one of the kernel
        return 2 * (math.prod(problem.padded_size) + problem.taps) * itemsize + 2**15
    slab = min(2**18, problem.padded_elements * itemsize)
    if not effort.panel and not effort.dense:  # each thread has a few of the channels
        slab = min(slab, 2 * problem.padded_elements * itemsize // max(threads, 2))
    if effort.panel and problem.positions > PIXELS:
        slab = min(slab, PIXELS * problem.padded_elements * itemsize // problem.positions)
    slab += 2**15
    far = effort.far(problem)
    if far is not None:  # an image that all share, and results
        slab = far.bytes // max(threads, 1) + 2**15
    if effort.slivers and in_slivers(problem):
        results = problem.batch * problem.out_channels * problem.positions
        loaded = 0 if pointwise(problem) and set(problem.stride) == {1} else problem.padded_elements
        slab = min(RESULTS, 2 * (loaded + results) * itemsize // max(threads, 2))
        slivers = problem.products * 2 * vector_bytes()
        slab += max(min(2**17, problem.padded_elements * problem.taps * itemsize), slivers)
        if problem.turned and problem.taps == problem.groups == 1:  # a task copies its filters: some, or all
            slab += problem.weight_bytes // 2
        if pointwise(problem) and max(problem.stride) > 1:
            met = problem.batch * problem.in_channels * problem.positions * itemsize
            slab += met // max(threads, 1) if met <= GATHERED else 0
    slab = max(slab, _dilated(effort, problem))
    if effort.several:  # which puts the channels of what it meets side by side, or its results
        results = problem.batch * problem.out_channels * problem.positions
        slab = min(2**18, (problem.padded_elements + results) * itemsize) + 2**15
    if effort.outer:  # a part of the kernel, too, and sums
        results = problem.batch * problem.out_channels * problem.positions
        slab = min(2**18, slab + (problem.out_channels * problem.products + results) * itemsize) + 2**15
        if any(pad > 0 for pair in problem.padding for pad in pair):  # what all results meet of a plane is copied
            _, *sizes = problem.three(problem.output_size)
            _, *stride = problem.three(problem.stride)
            slab = max(slab, math.prod((n - 1) * s + 1 for n, s in zip(sizes, stride, strict=True)) * itemsize)
    if effort.quarters:
        pixels = min(problem.positions, QUARTERED)
        slab = pixels * (7 * problem.in_channels // 4 + 128 + 6 * effort.wide(problem)) * itemsize + 2**14
    if effort.tile != (1, 1):
        largest = tiles.largest(problem, effort.tile, tiles.most(problem, effort.tile, threads))
        pixels = math.prod(
            (n - 1) * axis.pace + axis.reach for n, axis in zip(largest, tiles.axes(problem, effort.tile), strict=True)
        )
        points = tiles.points(problem, effort.tile) * math.prod(largest) * tiles.together(problem, effort.tile, threads)
        wide, elements = effort.wide(problem), filtering.elements_of(problem, tiles.axes(problem, effort.tile))
        planes = problem.three(problem.kernel_size)[0]
        pixels *= planes * filtering.pitch_of(elements // planes, itemsize)
        slab = (points * elements + max(pixels, 2 * points * wide)) * itemsize
    return slab


def _dilated(effort: Effort, problem: ConvProblem) -> int:
    """Return the bytes of what a few pixels meet, at least, if that is more than they are: between dilated taps, too.

    The direct sum's are of all channels, planes' of some if filters are few.
    """
    several = effort.quarters or effort.outer or effort.several
    if max(problem.dilation) == 1 or effort.tile != (1, 1) or several or not (effort.panel or effort.slivers):
        return 0
    if effort.far(problem) is not None:
        return 0
    channels = problem.in_channels // problem.groups
    if effort.slivers and not in_slivers(problem):
        channels = min(channels, FEW // problem.taps + 1)
    _, height, width = problem.three(problem.span)
    stride = problem.three(problem.stride)
    met = problem.three(problem.kernel_size)[0] * height * (width + min(problem.output_size[-1], PIXEL) * stride[2])
    return met * channels * problem.compute_dtype.itemsize

"""How many products an engine computes, some of them in vain, and how many a second."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from npconv.costs import tiles
from npconv.costs.loads import pointwise, slivers
from npconv.costs.machine import machine, vector_bytes
from npconv.costs.special import reached
from npconv.kernels import filtering
from npconv.kernels.numba.regions import Regions
from npconv.problem import ConvProblem

if TYPE_CHECKING:
    from npconv.costs.effort import Effort

BEGIN, BEGIN_POINT = 3, 2
"""Products that take as long as to begin with a tile of them, and to store it: direct ones, or of quarters; and of
points. (With 3, and results copied twice, 3 and 4 channels were computed by `planes`, 4 to 64
at 202² in 1.06 ms, and take 0.73 by `winograd4`.)"""

SLIVER = 16
"""Products that take as long as to begin with a tile of slivers, and to store it. (1 × 1 layers by pixels in
slivers took up to 3 times as long as without, in comparison with `direct`: the fewer the channels, the longer.)"""

LOWEST = 4
"""Tiles that products of points take as long as, even if there are fewer."""

STRIDE = (1.3, 0.4, 0.25)
"""The share of its rate that an engine without panels and slivers reaches with several filters of a channel, by the
stride: at 1 each row is loaded once for some rows of results."""

ABREAST = 8
"""Results of a row that are computed together where filters of several groups are in the vectors, or half of it."""

TOGETHER = 4
"""Filters of a group from which on so many are computed together by `dots`, and twice as fast."""

IN_ROWS = 1.1
"""How many times as many products a second there are of rows of an input that are met where they are, at a stride,
of whose slab little would be met."""

LONG = 4096
"""Bytes of a pixel's channels from which on these come from beyond the second-level cache, where they are summed up."""


class Products(NamedTuple):
    """What is multiplied."""

    rate: float
    """Products a second and thread."""

    filters: int
    """Of all groups, panels filled up."""

    pixels: int
    """Results of a filter, those in vain as well."""

    each: int
    """Products of a result."""


def of(effort: Effort, problem: ConvProblem, threads: int, parted: Regions | None) -> Products:
    """Return what an engine multiplies; the direct sum perhaps by regions."""
    itemsize = problem.compute_dtype.itemsize
    speed, in_tiles = machine(), effort.tile != (1, 1)
    rate = effort.products * (speed.transformed if in_tiles or effort.quarters else speed.direct) * 4 / itemsize
    filters, each = problem.out_channels // problem.groups, problem.products
    *depth, height, width = (1, *problem.output_size)
    planes, plane = problem.batch * math.prod(depth), height * width
    if effort.panel:
        filters, share = _panels(effort, problem)
        rate *= share
    elif effort.slivers:
        rate *= reached(problem)
    if in_tiles and problem.taps > problem.positions:
        rate *= 0.5  # few tiles, and as many filters as of a large image's gradient
    narrow = problem.groups > 1 and problem.in_channels // problem.groups <= 64 // itemsize
    if problem.channels_last and narrow and not effort.several:
        rate *= 0.75  # less than a line of the cache at a time
    filters *= problem.groups
    if effort.dots:
        each, plane, share = _by_elements(problem, filters, plane)
        rate *= share
    elif effort.several:
        wide, share = _by_groups(problem, filters)
        plane = height * -(-width // wide) * wide
        rate *= share
    elif not effort.panel and not effort.dense:
        plane = -(-plane // (128 // itemsize)) * (128 // itemsize)  # pixels in whole vectors
        rate *= _by_rows(effort, problem, filters)
    elif effort.quarters:
        plane += plane % 2
        rate *= _by_quarters(effort, problem, filters)
    pixels = planes * plane
    if parted is not None:
        rate *= (IN_ROWS if max(problem.stride) > 1 and not parted.bytes else 1) / parted.products
    if in_tiles:
        pixels, share = _by_tiles(effort, problem, threads)
        rate *= share
    if effort.slivers:
        pixels, _ = slivers(effort, problem)
        few = pointwise(problem) or problem.taps >= problem.positions  # or a gradient's elements
        rate *= each / (each + SLIVER) if few else 1
    return Products(rate, filters, pixels, each)


def _panels(effort: Effort, problem: ConvProblem) -> tuple[int, float]:
    """Return the filters of a group, panels filled up, and the share of the rate that they reach."""
    filters, products, share = problem.out_channels // problem.groups, problem.products, 1.0
    wide = effort.wide(problem) * (2 if effort.quarters else 1)  # panels in pairs
    direct = effort.tile == (1, 1) and not effort.quarters
    if filters <= wide and problem.groups > 1:  # one panel is soon done, and its weights have come
        share *= 0.9 * products / (products + 1.5 * SLIVER) if effort.tile == (1, 1) else 1.15
    if direct:
        share *= products / (products + BEGIN)
    if effort.tile == (1, 1) and problem.taps > problem.positions:
        # For a few results at a time, filters that fill no cache; and if they are dilated, they meet short runs.
        run = problem.in_channels // problem.groups
        share *= 0.95 if problem.dilation[-1] == 1 else 0.95 * (run + 0.5) / (run + 1)
    computed = wide if effort.quarters else wide // 2  # the last panel may be half of one
    return -(-filters // computed) * computed, share


def _by_elements(problem: ConvProblem, filters: int, plane: int) -> tuple[int, int, float]:
    """Return products of a result, results of a plane, and the share of the rate, where elements are in vectors."""
    width, each = problem.kernel_size[-1], problem.products
    if filters >= TOGETHER * problem.groups:
        lanes = vector_bytes() // problem.compute_dtype.itemsize
        vectors = width // lanes + 2 * (width % lanes > 0)  # a row's last one is masked
        share = 1.85 if max(problem.dilation) <= 2 else 1.6
        if problem.batch * problem.groups <= 4:  # a first layer's planes, which are large
            share *= 0.87 if problem.positions <= 25 else 0.72
        return each // width * vectors * lanes, -(-plane // 3) * 3, share
    lanes = 64 // problem.compute_dtype.itemsize
    share = 0.25 if problem.taps < problem.positions else 1.0  # sums of short rows are many sums of lanes
    share *= 1 if problem.dilation[-1] == 1 else 0.5
    return each // width * (-(-width // lanes) * lanes + lanes // 2), -(-plane // 9) * 9, share


def _by_groups(problem: ConvProblem, filters: int) -> tuple[int, float]:
    """Return results of a row that are computed together, and the share of the rate, of several groups in a vector."""
    products, lanes = problem.products, vector_bytes() // problem.compute_dtype.itemsize
    wide = ABREAST if filters >= lanes * problem.groups else ABREAST // 2
    share = (0.77 if max(problem.stride) > 1 else 1) * products / (products + 2 * BEGIN)
    share *= 0.7 if filters == 2 * problem.groups else 1
    apart = problem.kernel_size[-1] == 1 or problem.dilation[-1] > 1
    if max(problem.stride) > 1 and problem.channels_last and apart:
        share *= 0.4  # little of what a line of the cache brings is met
    if filters < lanes * problem.groups and problem.kernel_size[-1] > 3:
        share *= 0.8  # there are not registers for so many weights and addresses
    return wide, share


def _by_rows(effort: Effort, problem: ConvProblem, filters: int) -> float:
    """Return the share of the rate where each channel's rows are loaded for each of its filters."""
    if filters == problem.groups or effort.slivers:
        return 1.0
    share = STRIDE[min(max(problem.stride), 3) - 1]
    if problem.positions <= 64:  # a few results at a time
        share *= 0.4 if problem.dilation[-1] == 1 else 0.22
    return share


def _by_quarters(effort: Effort, problem: ConvProblem, filters: int) -> float:
    """Return the share of the rate of sums of quarters."""
    itemsize = problem.compute_dtype.itemsize
    share = 0.95 if problem.in_channels * itemsize >= LONG else 1.0
    share *= problem.in_channels / (problem.in_channels + 2 * BEGIN)
    share *= 0.9 if itemsize == 8 else 1  # more bytes of sums: as fast as the direct sum, or slower
    pairs, parts = effort.pairs_and_parts(problem, filters)
    if problem.channels_last:
        share *= 1.06 if parts > 1 or pairs >= 8 else 1
    return share


def _by_tiles(effort: Effort, problem: ConvProblem, threads: int) -> tuple[int, float]:
    """Return the results of Winograd's tiles, and the share of the rate that their points reach."""
    axes, (_, of_image) = tiles.axes(problem, effort.tile), tiles.images(problem, effort.tile)
    share = min(of_image * tiles.together(problem, effort.tile, threads) / LOWEST, 1)
    elements = filtering.elements_of(problem, axes)
    pixels = tiles.number(problem, effort.tile) * math.prod(axis.results for axis in axes)
    return pixels, share * elements / (elements + BEGIN_POINT)

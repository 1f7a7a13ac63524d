"""What engines cost that have little in common with the others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from npconv.costs.loads import TURNED, loaded, pointwise
from npconv.costs.machine import COPY, LAST_LEVEL, MANY, PACK, machine, shared, streaming, vector_bytes
from npconv.kernels.numba import piecing
from npconv.kernels.numba.blocking import in_slivers
from npconv.problem import ConvProblem

if TYPE_CHECKING:
    from npconv.costs.effort import Effort

HIGHEST = 4
"""Filters of a tile that meets planes, at most."""

TILE, VECTOR, LINE = 1.8, 3.6e-9, 3.3e-9
"""Filters whose products take as long as what such a tile loads besides; seconds to begin with each of its vectors
of results, and with a row that is loaded. (By 700 layers of 1 to 40 filters, in one thread and two; as of their
products alone, they were thought to take a quarter longer than they do, within a factor of 1.4, now of 1.2.)"""

LOADED = (0.36, 2.5, 6.0)
"""Copies that take as long as to load a number for them, by the stride, and to write a result as the first. (At stride
2 once 0.67: 64 to 16 channels at 111 × 176, 3 × 3, were thought to take 500 µs, take 680, and by `winograd2` 477.)"""

ALONE = 1.45
"""How many times as long products take of one position with a single panel."""

PAIRS, ADDED, BESIDE = 1.38, 5, 4
"""How many times as many products a second there are where a number of a filter meets some images; steps that take
as long as to add up the lanes of a result; copies that take as long as to put a pixel beside others, from which it
lay apart."""

SWAPPED = 0.6
"""Nanoseconds to put a number of a gradient's weight in order where an engine takes filters in rows."""


TURNING, ONE = (16, 80), 8
"""Rows that take as long as to transpose a panel, of rows of taps, and of such as are short; and the former for results
of one position, which are written where they belong."""


def outer_seconds(effort: Effort, problem: ConvProblem, threads: int) -> float:
    """Return the time that a problem should take by outer products.

    These are rows of results times panels of lanes. To transpose a panel takes as long as some rows do (`TURNING`);
    with one tap of images that leave a panel unfilled, whose lines of the cache take each other's place, as up to
    12000 (4 images of 1024 channels took 2.2 ms for 1000 filters, 48 of 512 0.79, and 0.28 by `dense`); and to bring
    sums from and to the cache, once for each block, as long as 10 products. Results of one position are written as
    they are, or as fast.
    """
    itemsize = problem.compute_dtype.itemsize
    filters, wide = problem.out_channels // problem.groups, effort.wide(problem)
    depth, height, width = problem.three(problem.kernel_size)
    block = min(height * width * (problem.in_channels // problem.groups if depth == 1 else 1), 512)
    results = problem.batch * problem.out_channels * problem.positions
    if problem.positions == 1:
        ways, sums, copied = [(problem.batch, filters), (filters, problem.batch)], 0.0, results
    else:
        ways, sums, copied = [(problem.batch * problem.positions, filters)], 10 / max(block, 1), 2 * results
    if any(pad > 0 for pair in problem.padding for pad in pair):
        copied += 2 * problem.padded_elements
    turning = TURNING[width < 8]
    if problem.groups > 1:
        turning += 80
    if problem.taps == 1:
        beyond = problem.batch % (2 * wide)  # whole panels
        turning = 40 if beyond == 0 or 2 * beyond > 3 * wide else 12000
    elif problem.positions == 1:
        turning = ONE
    # Where there is no second panel, nothing shares what is loaded.
    alone = 2 if problem.positions > 1 else ALONE
    tiles = min(
        (max(rows, 4) * (1 + sums) + turning) * -(-lanes // wide) * wide * (alone if lanes <= wide else 1)
        for rows, lanes in ways
    )
    work = tiles * problem.groups * problem.products * itemsize / 4 / (effort.products * machine().direct)
    work += copied * itemsize / 4 * COPY
    # Each is read twice if it comes from memory: 16 and 224 planes of 134 × 252 took 3.3 ms, and 1.6 by `dense`.
    met = problem.weight_bytes + problem.input_bytes
    size = 2 * met if met > LAST_LEVEL / 2 else problem.weight_bytes
    return effort.call + max(shared(work, threads), streaming(size, threads))


def pieces_seconds(effort: Effort, problem: ConvProblem, threads: int) -> float:
    """Return the time that a problem should take by Winograd's pieces, as its cut tells."""
    itemsize = problem.compute_dtype.itemsize
    cut = piecing.cut(problem, threads, effort.wide(problem))
    products = cut.time * (vector_bytes() // itemsize)
    # Tasks are alike, and few: what threads need not wait for is in the cut's time.
    return effort.call + products * itemsize / 4 / (effort.products * machine().direct) + MANY * max(1 - 2 / threads, 0)


def pairs_seconds(effort: Effort, problem: ConvProblem, threads: int) -> float:
    """Return the time that inner products of some filters and images at a time should take."""
    itemsize = problem.compute_dtype.itemsize
    lanes, (height, width) = vector_bytes() // itemsize, (6, 4) if vector_bytes() == 64 else (3, 4)
    least, most = sorted((problem.batch, problem.out_channels))
    rate = effort.products * PAIRS * machine().direct * 4 / itemsize
    if least < width:
        (height, width), rate = (8, 1), rate / 2
    results = -(-most // height) * height * -(-least // width) * width
    work = results * (-(-problem.products // lanes) + ADDED) * lanes / rate
    if problem.apart:
        work += BESIDE * problem.batch * problem.products * COPY + PACK
    return effort.call + max(shared(work, threads), 1.2 * streaming(problem.weight_bytes, threads))


def planes_seconds(effort: Effort, problem: ConvProblem, threads: int, packed: bool) -> float:
    """Return the time that planes should take which few filters of a group meet where they lie.

    Tiles run over the rows' ends. Where numbers of a row lie apart, they are loaded one by one.
    """
    itemsize, lanes = problem.compute_dtype.itemsize, vector_bytes() // problem.compute_dtype.itemsize
    kernel, stride = problem.three(problem.kernel_size), problem.three(problem.stride)
    filters, (depth, height, width) = problem.out_channels // problem.groups, problem.three(problem.output_size)
    line = width + (problem.span[-1] - 1) // stride[2]
    vectors = -(-((height - 1) * line + width) // (2 * lanes)) * 2
    vectors *= problem.batch * problem.groups * depth
    tiles = -(-filters // HIGHEST)
    rate = 1.5 * effort.products * machine().direct * 4 / itemsize * reached(problem)
    work = vectors * lanes * (filters + TILE * tiles) * problem.products / rate + VECTOR * vectors * tiles
    copied = LOADED[0] * problem.batch * problem.out_channels * problem.positions
    if not pointwise(problem) or max(stride) > 1:
        phases = kernel[0] * math.prod(min(k, s) for k, s in zip(kernel[1:], stride[1:], strict=True))
        work += LINE * problem.batch * depth * problem.in_channels * height * phases
        apart = 3 if kernel[2] == 1 and stride[2] > 1 else min(stride[2], 3)
        copied += LOADED[apart - 1] * loaded(effort, problem) * kernel[0]
    if problem.channels_last:
        copied += TURNED * (loaded(effort, problem) + problem.batch * problem.out_channels * problem.positions)
    work += copied * itemsize / 4 * COPY
    if problem.groups > 1:
        work += effort.group * problem.groups * problem.batch
    if not packed and problem.turned and problem.taps > 1:  # which takes filters as they lie, if in order
        work += problem.out_channels * problem.products * SWAPPED * 1e-9
    return effort.call + shared(work, threads)


def reached(problem: ConvProblem) -> float:
    """Return the share of its rate that an engine without panels reaches of a few results at a time.

    Elements fill no cache. (By 300 weight gradients and 60 layers of one result to a few.)
    """
    if problem.taps <= problem.positions:
        return 1.0
    return 0.9 if problem.taps > 100 and not in_slivers(problem) else 0.7

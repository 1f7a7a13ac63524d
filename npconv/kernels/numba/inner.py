"""Inner products: some filters with some images, both as they lie, their numbers in the vectors.

So `npconv.kernels.numba.dense` computes results of one position from some images: those of the weight
gradient of a 1 × 1 convolution, whose filters are the gradient's planes and whose images are the input's. A register
tile holds a vector of partial sums for each of some rows with each of some columns, filters and images or the other way
round, and a step loads ten vectors for 24 products. Nothing is transposed, as `npconv.kernels.numba.outer` does with
one of the two, which pays where rows are short, or many: the lanes of a sum take as long to add up as a few steps.

A *stretch* of a task's rows and columns stays in the second-level cache for all tiles; sums go through memory between
stretches, which are the chains of `npconv.kernels.summation`. What is left of a row, less than a vector, is met by a
vector that ends with it. Planes of several channels are met where they are, too. A task is some rows and some columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL
from npconv.kernels.numba import blocking, buffers, jit, rows, slab
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import max, min, triples
from npconv.kernels.numba.moves import move
from npconv.kernels.numba.planes import gather
from npconv.kernels.numba.stores import store_sums
from npconv.kernels.numba.tile import REGISTERS, VECTOR_BYTES
from npconv.kernels.numba.vector import (
    activated,
    add,
    add_from,
    lanes_of,
    load,
    multiply_add_ends,
    multiply_add_pairs,
    starts_from,
    store,
    zeros,
)
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

TILES = ((6, 4), (8, 1)) if REGISTERS >= 32 else ((3, 4), (8, 1))
"""Rows and columns of a tile, whose rows' numbers stay in registers beside its sums; and of one for fewer columns. With
16 registers, 4 × 3 took twice as long."""

STRETCH = 1024
"""Numbers of a stretch, at most, except of rows so long that their sums would be many."""

SHARE = 48
"""Rows and columns of a task, at most."""


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tile: tuple[int, int]
    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    shared: int
    """Bytes of images that are put in order first."""

    swapped: bool
    """Whether images are the rows, and filters the columns."""

    sizes: np.ndarray
    images: np.ndarray
    """Of what is put in order, as `npconv.kernels.numba.planes.gather` takes it."""


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    images, filters = problem.batch, problem.out_channels
    swapped = images > filters
    most, least = (images, filters) if swapped else (filters, images)
    tile = TILES[0] if most >= TILES[0][0] and least >= TILES[0][1] else TILES[1]
    lanes = VECTOR_BYTES // problem.compute_dtype.itemsize
    wanted = blocking.TASKS_PER_THREAD * threads if threads > 1 else 1
    shares = [_share(most, tile[0], wanted), _share(least, tile[1], 1)]
    shares[1] = _share(least, tile[1], -(-wanted // -(-most // shares[0])))
    sums = math.prod(-(-share // unit) * unit for share, unit in zip(shares, tile, strict=True))
    per_tile = -(-tile[0] * tile[1] // lanes) * lanes
    sizes = np.array(
        [(most, shares[0], 0), (least, shares[1], -(-least // shares[1])),
         (swapped, bool(problem.bias or problem.activation), per_tile)]
    )  # fmt: skip
    shape = np.array([problem.in_channels, *problem.input_size, 1, 1, 1])
    return Plan(
        tile, -(-most // shares[0]) * -(-least // shares[1]), problem.flops // 4,
        (sums * lanes + 2 * per_tile, problem.compute_dtype),
        problem.input_bytes if problem.channels_last and problem.taps > 1 else 0, swapped, sizes, shape,
    )  # fmt: skip


def _share(count: int, unit: int, parts: int) -> int:
    """Return how many of ``count`` rows or columns a task has, whole tiles of them."""
    tiles = -(-count // unit)
    return min(max(tiles // max(parts, 1), 1), max(SHARE // unit, 1)) * unit


class Rows(NamedTuple):
    """Filters whose planes are stretches of an array, as they lie."""

    numbers: np.ndarray
    steps: np.ndarray
    """How far apart filters are, and their planes."""

    weight: np.ndarray
    turned: bool = False
    """Whether filters of one tap lie side by side instead, a channel behind the other."""

    def in_line(self) -> Rows:
        """Return filters that lie one behind the other: these, or a copy."""
        filter_, plane = math.prod(self.weight.shape[1:]), math.prod(self.weight.shape[2:])
        in_line = self.steps[0] == filter_ and self.steps[1] in (plane, filter_) and not self.turned
        return self if in_line else side_by_side(self.weight)


def pack(problem: ConvProblem, weight: np.ndarray) -> Rows:
    """Return filters (K, C, kd, kh, kw), copied if the numbers of a plane do not lie side by side."""
    if weight.flags.c_contiguous:
        return side_by_side(weight)
    found = slab.flat(weight)
    if found is None or not _in_order(found[1], weight.shape[2:]):
        return side_by_side(weight)
    return Rows(found[0], found[1][:2], weight)


def side_by_side(weight: np.ndarray) -> Rows:
    """Return filters as they are if they lie in C order, or copied to it."""
    steps = np.array([math.prod(weight.shape[1:]), math.prod(weight.shape[2:])])
    return Rows(weight.reshape(-1) if weight.flags.c_contiguous else rows.in_rows([weight]), steps, weight)


def _in_order(layout: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether planes of this shape (D, H, W) are stretches of an array."""
    _, height, width = shape
    order = (height * width, width, 1)
    return all(step == to or size == 1 for step, to, size in zip(layout[2:5].tolist(), order, shape, strict=True))


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, `Rows` of weights and ``bias``, in these memory orders."""
    channels, *shape = plan.images[:4].tolist()
    plane, lanes = math.prod(shape), VECTOR_BYTES // epilogue.dtype.itemsize
    products, images = channels * plane, int(plan.sizes[1 - plan.swapped, 0])
    in_order = _in_order(x_layout, tuple(shape)) and (plane >= lanes or channels == 1 or x_layout[CHANNEL] == plane)
    x_steps = x_layout[:2] if in_order else np.array([products, plane])
    longest = min(max(STRETCH, math.isqrt(products)), chain_length(products) * lanes)
    to_out = out_layout[:2] if plan.swapped else out_layout[[1, 0]]
    put_in_order = gather.fixed(images * channels, images * products, threads)

    @cache
    def cut(planes: int) -> Callable[..., None]:
        numbers = products // planes
        together = max(longest // (numbers + lanes), 1)  # short planes
        stretch = products if together > 1 else max(blocking.even(numbers, longest) // lanes, 1) * lanes
        sizes = np.concatenate([plan.sizes, [(planes, numbers, 0), (stretch, together, 0), (*to_out, 0)]])
        return _kernels[plan.tile].fixed(plan.tasks, plan.work, threads, (epilogue, sizes), plan.scratch)

    def fill(x: np.ndarray, weights: Rows, bias: np.ndarray, out: np.ndarray) -> None:
        if not in_order:
            ordered = buffers.aligned(images * products * x.itemsize).view(x.dtype)
            put_in_order(x, ordered, x_layout, plan.images)
            x = ordered
        if weights.turned:
            weights = weights.in_line()
        in_line = channels == 1 or x_steps[1] == weights.steps[1] == plane
        if not in_line and plane < lanes:
            weights, in_line = weights.in_line(), True
        filters = weights.numbers, weights.steps
        a, b = ((x, x_steps), filters) if plan.swapped else (filters, (x, x_steps))
        cut(1 if in_line else channels)(*a, *b, bias, out)

    return fill


_FORM = "aN"
_taken = taking(_FORM)


def _kernel(height: int, width: int) -> jit.Kernel:
    """Return the kernel with tiles of ``height`` rows and ``width`` columns."""
    pairs = height * width

    def block(task, memory, a, a_steps, b, b_steps, bias, out, constants):  # type: ignore[no-untyped-def]
        """Compute some rows with some columns."""
        epilogue, sizes = _taken(constants, a)
        (rows, share, _), (columns, b_share, parts), (swapped, finished, room) = triples(sizes, 0, 3)
        (planes, plane, _), (stretch, together, _), (out_row, out_column, _) = triples(sizes, 3, 3)
        part, b_part = divmod(task, parts)
        first, b_first = part * share, b_part * b_share
        end, b_end = min(first + share, rows), min(b_first + b_share, columns)
        lanes = lanes_of(a)
        whole, last = plane // lanes * lanes, plane - lanes
        tiles = 2 * room  # behind the sums of a tile, and biases
        for z in range(0, planes, together):
            for begin in range(0, whole, stretch):
                stop, at = min(begin + stretch, whole), tiles
                ends = z + together >= planes and stop == whole
                for i in range(first, end, height):
                    k = min(i, rows - height)  # the last tile overlaps the one before
                    starts = starts_from(k * a_steps[0], a_steps[0], height)
                    for j in range(b_first, b_end, width):
                        n = min(j, columns - width)
                        others = starts_from(n * b_steps[0], b_steps[0], width)
                        tile = zeros(memory, pairs, 1)
                        for p in range(z, min(z + together, planes)):
                            to, b_to = p * a_steps[1], p * b_steps[1]
                            for e in range(begin, stop, lanes):
                                tile = multiply_add_pairs(tile, a, starts, to + e, b, others, b_to + e)
                            if stop == whole and whole < plane:
                                tile = multiply_add_ends(
                                    tile, a, starts, to + last, b, others, b_to + last, plane - whole
                                )
                        if z > 0 or begin > 0:
                            tile = add_from(tile, memory, at, lanes)
                        at += pairs * lanes
                        if not ends:
                            store(tile, memory, at - pairs * lanes, lanes)
                            continue
                        store_sums(tile, memory, 0)
                        if finished:
                            for row in range(height):
                                for column in range(width):
                                    place = room + row * width + column
                                    move(memory, place, bias, n + column if swapped else k + row)
                            for some in range(0, room, lanes):
                                done = add(load(memory, some, 1, 1), load(memory, room + some, 1, 1))
                                if epilogue[0] != 0:
                                    done = activated(done, epilogue)
                                store(done, memory, some, lanes)
                        for row in range(i - k, height):
                            place = (k + row) * out_row + n * out_column
                            for column in range(j - n, width):
                                move(out, place + column * out_column, memory, row * width + column)

    return jit.scratch_kernel(_FORM, height, width)(block)


_kernels = {tile: _kernel(*tile) for tile in TILES}

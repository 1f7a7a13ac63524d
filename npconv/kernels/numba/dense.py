"""The direct sum where a result meets all of an image: the last layers of classifiers, those that squeeze and excite.

A number of the weight serves as many products as there are images. Of a few images, each is read once, as it lies: a
register tile holds a vector of partial sums for each of some filters, whose numbers, and the image's, pass by a vector
at a time; the lanes are added up at the end. What is left of a row, less than a vector, is copied to where zeros follow
it. Where filters lie side by side, as the swapped ones of a gradient do, the vectors are of filters. Long sums are cut
into chains, as `npconv.kernels.summation` tells. A task is some filters, for all images.

More images are met together (`npconv.kernels.numba.inner`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, IMAGE
from npconv.kernels.numba import blocking, inner, jit, planes
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.inner import Rows
from npconv.kernels.numba.lean import after, max, min, tuple_of
from npconv.kernels.numba.moves import move
from npconv.kernels.numba.slab import clear, copy_numbers
from npconv.kernels.numba.stores import store_sums
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.kernels.numba.vector import (
    activated,
    add,
    lanes_of,
    load,
    multiply_add,
    multiply_add_rows,
    starts_from,
    store,
    zeros,
)
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

FILTERS = 8
"""Filters of a tile, or vectors of them, whose sums hide each other's latency. Of fewer than so many, each is computed
so many times."""

NUMBERS = 2**14
"""Numbers of the weight that make a task, if there are so many."""


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    sizes: np.ndarray


pack_bias = planes.pack_bias


def pack(problem: ConvProblem, weight: np.ndarray) -> Rows:
    """Return filters (K, C, kd, kh, kw) as they are if they lie one behind the other, or whole tiles of them do.

    A layer may pack them for some number of images, and meet another.
    """
    if blocking.in_pairs(problem):
        return inner.pack(problem, weight)
    if problem.taps == 1 and not weight.flags.c_contiguous and problem.out_channels >= FILTERS * _lanes(problem):
        matrix = weight[:, :, 0, 0, 0].T
        if matrix.flags.c_contiguous:
            return Rows(matrix.reshape(-1), np.array([1, problem.out_channels]), weight, True)
    return inner.side_by_side(weight)


def _lanes(problem: ConvProblem) -> int:
    return VECTOR_BYTES // problem.compute_dtype.itemsize


def plan(problem: ConvProblem, threads: int) -> Plan | inner.Plan:
    """Cut a canonical problem into tasks."""
    if blocking.in_pairs(problem):
        return inner.plan(problem, threads)
    lanes = _lanes(problem)
    filters, products = problem.out_channels, problem.products
    tasks = max(min(filters * products // NUMBERS, blocking.TASKS_PER_THREAD * threads), 1)
    share = -(-filters // (tasks * FILTERS)) * FILTERS
    image = -(-products // lanes) * lanes
    lead = FILTERS * lanes
    pitch = share + 2 * lead  # of results; tiles begin before them, and end behind, as vectors do
    sizes = np.array(
        [problem.batch, problem.in_channels, filters, products, share, chain_length(products), image, pitch, lead]
    )
    numbers = problem.batch * (image + pitch) + pitch + FILTERS * lanes
    return Plan(-(-filters // share), problem.flops // 4, (numbers, problem.compute_dtype), sizes)


def fixed(
    plan: Plan | inner.Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    if isinstance(plan, inner.Plan):
        return inner.fixed(plan, x_layout, epilogue, out_layout, threads)
    in_rows, side_by_side = (
        kernel.fixed(plan.tasks, plan.work, threads, (x_layout, epilogue, out_layout, plan.sizes), plan.scratch)
        for kernel in (_in_rows, _side_by_side)
    )

    def fill(x: np.ndarray, weights: Rows, bias: np.ndarray, out: np.ndarray) -> None:
        if weights.turned:
            side_by_side(x, weights.numbers, bias, out)
        else:
            in_rows(x, weights.in_line().numbers, bias, out)

    return fill


@jit.inline
def _load_image(image, at, x, layout, start, channels):  # type: ignore[no-untyped-def]
    """Copy an image to ``image[at:]``, in the order of a filter's numbers."""
    _, to_channel, to_plane, to_line, to_pixel, depth, height, width = tuple_of(layout, 0, 8)
    for c in range(channels):
        for z in range(depth):
            for y in range(height):
                source = start + c * to_channel + z * to_plane + y * to_line
                if to_pixel == 1:
                    copy_numbers(image, at, x, source, width)
                else:
                    for column in range(width):
                        move(image, at + column, x, source + column * to_pixel)
                at += width


@jit.inline
def _rows_of_filters(memory, second, first, count, weights, sizes):  # type: ignore[no-untyped-def]
    """Write a task's sums, of filters that lie one behind the other, to ``memory[second:]``."""
    batch, _, filters, products, _, chain, room, pitch, lead = tuple_of(sizes, 0, 9)
    lanes = lanes_of(memory)
    whole = products // lanes * lanes
    ends = after(memory, second + (batch + 1) * pitch)
    clear(ends, 0, FILTERS * lanes)
    apart, step = (products, FILTERS) if filters >= FILTERS else (0, 1)
    for tile in range(0, count, step):
        k = first + tile
        if filters >= FILTERS:
            k = min(k, filters - FILTERS)  # the last tile overlaps the one before
        begins, of_ends = starts_from(k * products, apart, FILTERS), starts_from(0, lanes, FILTERS)
        if whole < products:
            for row in range(FILTERS):
                copy_numbers(ends, row * lanes, weights, k * products + row * apart + whole, products - whole)
        for n in range(batch):
            total = zeros(memory, FILTERS, 1)
            for begin in range(0, whole, chain * lanes):
                part = zeros(memory, FILTERS, 1)
                for e in range(begin, min(begin + chain * lanes, whole), lanes):
                    part = multiply_add_rows(part, weights, begins, e, memory, n * room + e)
                total = add(total, part)
            if whole < products:
                total = multiply_add_rows(total, ends, of_ends, 0, memory, n * room + whole)
            store_sums(total, memory, second + n * pitch + lead + k - first)


@jit.inline
def _vectors_of_filters(memory, second, first, count, weights, sizes):  # type: ignore[no-untyped-def]
    """Do the same with filters that lie side by side, whole tiles of them."""
    batch, _, filters, products, _, chain, room, pitch, lead = tuple_of(sizes, 0, 9)
    wide = FILTERS * lanes_of(memory)
    for tile in range(0, count, wide):
        k = min(first + tile, filters - wide)
        for n in range(batch):
            image = starts_from(n * room, 0, 1)
            total = zeros(memory, 1, FILTERS)
            for begin in range(0, products, chain):
                part = zeros(memory, 1, FILTERS)
                for e in range(begin, min(begin + chain, products)):
                    part = multiply_add(part, memory, image, e, weights, e * filters + k)
                total = add(total, part)
            store(total, memory, second + n * pitch + lead + k - first, wide)


_FORM = "nann"
_taken = taking(_FORM)


def _kernel(sum_up: Any, name: str) -> jit.Kernel:
    """Return the kernel that computes sums by a function."""

    def block(task, memory, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
        """Compute some filters for all images."""
        x_layout, epilogue, out_layout, sizes = _taken(constants, x)
        batch, channels, filters, products, share, _, room, pitch, lead = tuple_of(sizes, 0, 9)
        lanes = lanes_of(x)
        first = task * share
        count = min(share, filters - first)
        second = batch * room
        biases = second + batch * pitch
        copy_numbers(memory, biases, bias, first, count)
        for n in range(batch):
            start, whole = n * x_layout[IMAGE], products // lanes * lanes
            clear(memory, n * room + whole, room - whole)
            if x_layout[CHANNEL] == 1 and channels == products:  # one pixel
                copy_numbers(memory, n * room, x, start, products)
            else:
                _load_image(memory, n * room, x, x_layout, start, channels)
        sum_up(memory, second, first, count, weights, sizes)
        for n in range(batch):
            at, to = second + n * pitch + lead, n * out_layout[IMAGE] + first * out_layout[CHANNEL]
            for i in range(0, count, lanes):
                sums = add(load(memory, at + i, 1, 1), load(memory, biases + i, 1, 1))
                if epilogue[0] != 0:
                    sums = activated(sums, epilogue)
                store(sums, memory, at + i, lanes)
            for i in range(count):
                move(out, to + i * out_layout[CHANNEL], memory, at + i)

    return jit.scratch_kernel(_FORM, name)(block)


_in_rows, _side_by_side = _kernel(_rows_of_filters, "_in_rows"), _kernel(_vectors_of_filters, "_side_by_side")

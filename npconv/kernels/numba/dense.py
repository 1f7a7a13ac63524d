"""The direct sum where a result meets all of an image: the last layers of classifiers, those that squeeze and excite.

A number of the weight serves as many products as there are images. Of a few images, each is read once, as it lies: a
register tile holds a vector of partial sums for each of some filters, whose numbers, and the image's, pass by a vector
at a time; the lanes are added up at the end. What is left of a row, less than a vector, is copied to where zeros follow
it. Long sums are cut into chains, as `npconv.kernels.summation` tells. A task is some filters, for all images.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import blocking, jit, planes, rows
from npconv.kernels.numba.moves import move
from npconv.kernels.numba.slab import clear, copy_numbers
from npconv.kernels.numba.taps import store_sums
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.kernels.numba.vector import activated, add, lanes_of, load, multiply_add_rows, starts_from, store, zeros
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

FILTERS = 8
"""Filters of a tile, whose sums hide each other's latency. Of fewer, each is computed so many times."""

NUMBERS = 2**14
"""Numbers of the weight that make a task, if there are so many."""


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    sizes: np.ndarray


pack, pack_bias = rows.pack, planes.pack_bias


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    lanes = VECTOR_BYTES // problem.compute_dtype.itemsize
    filters, products = problem.out_channels, problem.products
    tasks = max(min(filters * products // NUMBERS, blocking.TASKS_PER_THREAD * threads), 1)
    share = -(-filters // (tasks * FILTERS)) * FILTERS
    image = -(-products // lanes) * lanes
    pitch = FILTERS + share + max(FILTERS, lanes)  # of results; tiles begin before them, and end behind, as vectors do
    sizes = np.array(
        [problem.batch, problem.in_channels, filters, products, share, chain_length(products), image, pitch]
    )
    numbers = problem.batch * (image + pitch) + pitch + FILTERS * lanes
    return Plan(-(-filters // share), problem.flops // 4, (numbers, problem.compute_dtype), sizes)


def conv(
    plan: Plan, x: np.ndarray, x_layout: np.ndarray, weights: np.ndarray, bias: np.ndarray, epilogue: np.ndarray,
    out: np.ndarray, out_layout: np.ndarray,
) -> None:  # fmt: skip
    """Fill ``out``."""
    _block.run(
        plan.tasks, plan.work, x, x_layout, weights, bias, epilogue, out, out_layout, plan.sizes, scratch=plan.scratch
    )


@jit.inline
def _load_image(image, at, x, layout, start, channels):  # type: ignore[no-untyped-def]
    """Copy an image to ``image[at:]``, in the order of a filter's numbers."""
    _, to_channel, to_plane, to_line, to_pixel, depth, height, width = layout
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


@jit.scratch_kernel
def _block(task, memory, x, x_layout, weights, bias, epilogue, out, out_layout, sizes):  # type: ignore[no-untyped-def]
    """Compute some filters for all images."""
    batch, channels, filters, products, share, chain, room, pitch = sizes
    lanes = lanes_of(x)
    first = task * share
    count = min(share, filters - first)
    second = batch * room
    third = second + (batch + 1) * pitch
    images, results, ends = memory[:second], memory[second:third], memory[third:]
    biases = batch * pitch
    copy_numbers(results, biases, bias, first, count)
    whole = products // lanes * lanes
    for n in range(batch):
        clear(images, n * room + whole, room - whole)
        start = n * x_layout[0]
        if x_layout[1] == 1 and channels == products:  # one pixel
            copy_numbers(images, n * room, x, start, products)
        else:
            _load_image(images, n * room, x, x_layout, start, channels)
    clear(ends, np.int64(0), FILTERS * lanes)
    apart, step = (products, FILTERS) if filters >= FILTERS else (np.int64(0), 1)
    for tile in range(0, count, step):
        k = first + tile
        if filters >= FILTERS:
            k = min(k, filters - FILTERS)  # the last tile overlaps the one before
        begins, of_ends = starts_from(k * products, apart, FILTERS), starts_from(np.int64(0), lanes, FILTERS)
        if whole < products:
            for row in range(FILTERS):
                copy_numbers(ends, row * lanes, weights, k * products + row * apart + whole, products - whole)
        for n in range(batch):
            total = zeros(x, FILTERS, 1)
            for begin in range(0, whole, chain * lanes):
                part = zeros(x, FILTERS, 1)
                for e in range(begin, min(begin + chain * lanes, whole), lanes):
                    part = multiply_add_rows(part, weights, begins, e, images, n * room + e)
                total = add(total, part)
            if whole < products:
                total = multiply_add_rows(total, ends, of_ends, np.int64(0), images, n * room + whole)
            store_sums(total, results, n * pitch + FILTERS + k - first)
    for n in range(batch):
        at, to = n * pitch + FILTERS, n * out_layout[0] + first * out_layout[1]
        for i in range(0, count, lanes):
            sums = add(load(results, at + i, 1, 1), load(results, biases + i, 1, 1))
            if epilogue[0] != 0:
                sums = activated(sums, epilogue)
            store(sums, results, at + i, lanes)
        for i in range(count):
            move(out, to + i * out_layout[1], results, at + i)

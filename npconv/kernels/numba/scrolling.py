"""Sums that scroll over the input: the register tile of a depthwise convolution.

A tile holds the unfinished results of one run, each a few vectors wide, that one step of the input reaches: three in a
3 × 3 kernel. A step loads its part of the input once, adds its products to all of them, writes the oldest, which is
finished, and moves the others up. With a stride, a step is so much longer and reaches fewer results: two of them in a
3 × 3 kernel of stride 2, the elder by the first row of the step alone.

Kernels with so many elements that one chain of sums would lose accuracy take one row of taps after the other over the
whole run, its weights in registers, and collect what each adds in memory.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import buffers, jit
from npconv.kernels.numba.slab import inside
from npconv.kernels.numba.taps import kept_lines, kept_numbers, kept_vectors, multiply_kept
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.kernels.numba.vector import (
    activated,
    add,
    add_column,
    add_row,
    lanes_of,
    load,
    multiply_add,
    multiply_add_rows,
    scrolled,
    starts_from,
    store,
    top,
    zeros,
)
from npconv.kernels.summation import chain_length
from npconv.loading import once
from npconv.problem import ConvProblem

REGISTERS = 32 if VECTOR_BYTES == 64 else 16

FEW = 9
"""Elements of a kernel that is compiled for itself."""


class Sums(NamedTuple):
    """What a kernel is compiled for: the rows and columns of its tile, and more."""

    rows: int
    columns: int
    chained: bool
    """Whether each element's products are a chain of their own, its weights in registers.

    A step's products as a chain, with two tiles in registers, reached 41 % of the peak in a 7 × 7 kernel: a broadcast
    was loaded for each product.
    """

    full: int
    elements: int
    """How many elements of a step all rows meet, and how many there are; 0 if it is told at each call.

    To know a few of them saves a third of the time, as the loop over them becomes one block. To know many costs a half:
    LLVM then loads them all at once, more than there are registers.
    """


def elements_of(problem: ConvProblem, axis: int) -> list[tuple[int, ...]]:
    """Return what a step along an axis meets: of each of its elements the tap of the newest result.

    An elder result meets the tap that is a stride further on, if there is one. Those that all results meet come first.
    """
    kernel, stride = problem.kernel_size, problem.stride[axis]
    taps = (range(min(stride, kernel[k]) if k == axis else kernel[k]) for k in range(3))
    return sorted(itertools.product(*taps), key=lambda tap: tap[axis])


def full_ones(problem: ConvProblem, axis: int) -> int:
    """Return how many elements of a step along an axis meet all rows of a tile."""
    taps, stride = problem.kernel_size[axis], problem.stride[axis]
    return (taps - (-(-taps // stride) - 1) * stride) * (math.prod(problem.kernel_size) // taps)


def sums_of(problem: ConvProblem, axis: int) -> Sums:
    """Return the tile for sums that scroll along an axis."""
    rows = -(-problem.kernel_size[axis] // problem.stride[axis])
    if problem.products > chain_length(problem.products):
        kept = 2 * rows if axis == 2 else rows  # vectors of channels have weights of their own
        room = (REGISTERS - 1) // kept if axis == 2 else (REGISTERS - 1 - kept) // rows
        return Sums(rows, min(max(room, 1), 4), True, 0, 0)
    room = (REGISTERS - 2) // (rows + 1)
    columns = 1 if room < 2 else 2 if rows > 1 else 4
    few = problem.products <= FEW
    return Sums(
        rows, columns, False, full_ones(problem, axis) if few else 0, len(elements_of(problem, axis)) if few else 0
    )


def lanes(problem: ConvProblem) -> int:
    """Return how many numbers a vector holds."""
    return VECTOR_BYTES // problem.compute_dtype.itemsize


def first_channels(problem: ConvProblem) -> list[int]:
    """Return the first channel of each block that sums along rows take, the last of which may overlap."""
    problem = problem.canonical_form()
    block = sums_of(problem, 2).columns * lanes(problem)
    channels = problem.in_channels
    if problem.out_channels != channels or channels < block:
        return []
    return [min(c, channels - block) for c in range(0, channels, block)]


class Filters:
    """Filters (K, 1, kd, kh, kw): as they are, for sums that scroll down, and in vectors of channels."""

    def __init__(self, problem: ConvProblem, weight: np.ndarray) -> None:
        self._problem = problem
        self.plain = np.ascontiguousarray(weight).reshape(-1)

    @once
    def in_vectors(self) -> np.ndarray:
        """Return a tap's weights for a block of channels side by side, tap behind tap, block behind block."""
        problem, firsts = self._problem.canonical_form(), first_channels(self._problem)
        block, products = sums_of(problem, 2).columns * lanes(problem), problem.products
        weight = self.plain.reshape(-1, products)
        packed = buffers.aligned(len(firsts) * block * products * weight.itemsize).view(weight.dtype)
        blocks = packed.reshape(-1, products, block)
        straight = len(weight) // block
        blocks[:straight] = weight[: straight * block].reshape(straight, block, products).transpose(0, 2, 1)
        blocks[-1] = weight[firsts[-1] : firsts[-1] + block].T
        return packed


@jit.inline
def finished(tile, bias, b, epilogue):  # type: ignore[no-untyped-def]
    """Return a run of results of one filter with its bias and activation."""
    done = add_column(tile, bias, b)
    if epilogue[0] != 0:
        done = activated(done, epilogue)
    return done


@jit.inline
def finished_channels(tile, bias, b, epilogue):  # type: ignore[no-untyped-def]
    """Return the results of a pixel, some channels of it, with their biases and activation."""
    done = add_row(tile, bias, b)
    if epilogue[0] != 0:
        done = activated(done, epilogue)
    return done


def over_slab(sums: Sums, columns: int) -> Any:
    """Return the sums of one run of pixels, ``columns`` vectors wide, that scroll down a slab.

    ``offsets`` are where the elements of a step begin in the slab, and behind these where their weights do; the weights
    of neighbouring rows are ``apart``.
    """
    rows, _, chained, known_full, known_elements = sums
    known, fewer = known_elements > 0, max(rows - 1, 1)
    if chained:
        return _over_slab_by_elements(rows, columns)

    def scroll(  # type: ignore[no-untyped-def]
        out, at, step, piece, begin, pace, count, offsets, elements, full, apart, weights, w, bias, b, epilogue, room
    ):
        if known:
            full, elements = known_full, known_elements
        every = starts_from((rows - 1) * apart, -apart, rows)
        newer = starts_from((fewer - 1) * apart, -apart, fewer)
        tile = zeros(out, rows, columns)
        for k in range(1 - rows, count):
            for element in range(full):
                i = w + offsets[elements + element]
                tile = multiply_add(tile, weights, every, i, piece, begin + offsets[element])
            for element in range(full, elements):
                i = w + offsets[elements + element]
                tile = multiply_add(tile, weights, newer, i, piece, begin + offsets[element])
            if k >= 0:
                store(finished(top(tile), bias, b, epilogue), out, at, 0)
                at += step
            tile = scrolled(tile)
            begin += pace

    return jit.specialised(scroll, *sums, columns, within=True)


def _over_slab_by_elements(rows: int, columns: int) -> Any:
    every, newer = _one_element(rows, rows, columns, False), _one_element(rows, max(rows - 1, 1), columns, False)

    def scroll(  # type: ignore[no-untyped-def]
        out, at, step, piece, begin, pace, count, offsets, elements, full, apart, weights, w, bias, b, epilogue, room
    ):
        steps = count + rows - 1
        for element in range(elements):
            j, i, last = begin + offsets[element], w + offsets[elements + element], element == elements - 1
            if element < full:
                every(out, at, step, piece, j, pace, piece, 0, steps, steps, weights, i, apart, element == 0, last,
                      bias, b, epilogue, room)  # fmt: skip
            else:
                newer(out, at, step, piece, j, pace, piece, 0, steps, steps, weights, i, apart, element == 0, last,
                      bias, b, epilogue, room)  # fmt: skip

    return jit.specialised(scroll, rows, columns, within=True)


def _one_element(rows: int, met: int, columns: int, along: bool) -> Any:
    """Return what one element of each step adds to a run of results, its weights in registers.

    It meets ``met`` of the ``rows`` unfinished results. What all elements but the last one add is collected in
    ``room``. Steps before the ``first`` and from ``end`` on meet what is ``blank``.
    """
    load_kept, finish = (kept_vectors, finished_channels) if along else (kept_numbers, finished)

    def scroll(  # type: ignore[no-untyped-def]
        out, at, step, x, j, jump, blank, first, end, steps, weights, i, apart, is_first, is_last, bias, b, epilogue,
        room,
    ):  # fmt: skip
        kept = load_kept(weights, i, apart, met, columns)
        tile = zeros(out, rows, columns)
        place, wide, k = 0, columns * lanes_of(out), 0
        for part in range(3):  # to ask for each step whether it is blank took a half longer
            numbers, source, pace, stop = blank, 0, 0, first if part == 0 else steps
            if part == 1:
                numbers, source, pace, stop = x, j + first * jump, jump, end
            while k < stop:
                tile = multiply_kept(tile, kept, numbers, source)
                if k >= rows - 1:
                    total = top(tile)
                    if not is_first:
                        total = add(total, load(room, place, 1, columns))
                    if is_last:
                        store(finish(total, bias, b, epilogue), out, at, 0)
                        at += step
                    else:
                        store(total, room, place, 0)
                    place += wide
                tile = scrolled(tile)
                source += pace
                k += 1

    return jit.specialised(scroll, rows, met, columns, along, within=True)


def along_rows(sums: Sums, residues: int) -> Any:
    """Return the sums of one row of results for a few vectors of channels, as they lie in the image.

    ``lines`` are, for each line of the kernel, where that of the image begins, and whether there is one; pixels beyond
    the image are ``blank``, and so are lines. The weights of a line's ``taps`` lie one behind the other; those that two
    neighbouring results take a pixel by are ``between`` taps from each other.
    """
    rows, columns, chained, _, _ = sums
    fewer = max(rows - 1, 1)
    if chained:
        return _along_rows_by_elements(rows, columns, residues)

    def scroll(  # type: ignore[no-untyped-def]
        out, at, step, x, begin, pixel, blank, column, pace, width, count, taps, between, lines, nowhere, weights, w,
        bias, b, epilogue, room,
    ):  # fmt: skip
        size = columns * lanes_of(out)
        every = starts_from((rows - 1) * between * size, -between * size, rows)
        newer = starts_from((fewer - 1) * between * size, -between * size, fewer)
        full = taps - (rows - 1) * between
        tile = zeros(out, rows, columns)
        for k in range(1 - rows, count):
            for residue in range(residues):
                there = 0 <= column + residue < width
                for line in range(len(lines)):
                    numbers, j, i = blank, np.int64(0), w + (line * taps + residue) * size
                    if there and lines[line, 1]:
                        numbers, j = x, begin + (column + residue) * pixel + lines[line, 0]
                    if residue < full:
                        tile = multiply_add_rows(tile, weights, every, i, numbers, j)
                    else:
                        tile = multiply_add_rows(tile, weights, newer, i, numbers, j)
            if k >= 0:
                store(finished_channels(top(tile), bias, b, epilogue), out, at, 0)
                at += step
            tile = scrolled(tile)
            column += pace

    return jit.specialised(scroll, *sums, residues, within=True)


def _along_rows_by_elements(rows: int, columns: int, residues: int) -> Any:
    every, newer = _one_element(rows, rows, columns, True), _one_element(rows, max(rows - 1, 1), columns, True)

    def scroll(  # type: ignore[no-untyped-def]
        out, at, step, x, begin, pixel, blank, column, pace, width, count, taps, between, lines, nowhere, weights, w,
        bias, b, epilogue, room,
    ):  # fmt: skip
        size = columns * lanes_of(out)
        full, elements, steps = taps - (rows - 1) * between, len(lines) * residues, count + rows - 1
        for element in range(elements):
            line, residue = divmod(element, residues)
            i, last = w + (line * taps + residue) * size, element == elements - 1
            j = begin + lines[line, 0] + (column + residue) * pixel
            first, end = inside(column + residue, pace, steps, width if lines[line, 1] else 0)
            if residue < full:
                every(out, at, step, x, j, pace * pixel, blank, first, end, steps, weights, i, between * size,
                      element == 0, last, bias, b, epilogue, room)  # fmt: skip
            else:
                newer(out, at, step, x, j, pace * pixel, blank, first, end, steps, weights, i, between * size,
                      element == 0, last, bias, b, epilogue, room)  # fmt: skip

    return jit.specialised(scroll, rows, columns, residues, within=True)


def along_whole_rows(sums: Sums, residues: int, taps: int, stride: int) -> Any:
    """Return the same where all of a few lines are there: their weights stay in registers.

    For kernels of a few elements (`Sums.elements`) that at most two pixels of a step meet.
    """
    rows, columns, _, full, elements = sums
    lines = elements // residues
    seconds = rows if full == elements else max(rows - 1, 1)  # results that the second pixel of a step meets
    first_pixel, second_pixel = kept_lines(lines, taps, 0, stride, rows), kept_lines(lines, taps, 1, stride, seconds)
    number = lines * taps

    def scroll(  # type: ignore[no-untyped-def]
        out, at, step, x, begin, pixel, blank, column, pace, width, count, taps, between, lines, nowhere, weights, w,
        bias, b, epilogue, room,
    ):  # fmt: skip
        kept = load(weights, w, number, columns)
        tile = zeros(out, rows, columns)
        for k in range(1 - rows, count):
            if 0 <= column < width:
                tile = first_pixel(tile, kept, lines, x, begin + column * pixel)
            else:
                tile = first_pixel(tile, kept, nowhere, blank, 0)
            if residues > 1:
                if 0 <= column + 1 < width:
                    tile = second_pixel(tile, kept, lines, x, begin + (column + 1) * pixel)
                else:
                    tile = second_pixel(tile, kept, nowhere, blank, 0)
            if k >= 0:
                store(finished_channels(top(tile), bias, b, epilogue), out, at, 0)
                at += step
            tile = scrolled(tile)
            column += pace

    return jit.specialised(scroll, *sums, residues, taps, stride, within=True)

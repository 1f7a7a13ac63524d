"""Sums that scroll over the input: the register tile of a depthwise convolution.

A tile holds the unfinished results of one run, each a few vectors wide, that one step of the input reaches: three in a
3 × 3 kernel. A step loads its part of the input once, adds its products to all of them, writes the oldest, which is
finished, and moves the others up. With a stride, a step is so much longer and reaches fewer results: two of them in a
3 × 3 kernel of stride 2, the elder by the first row of the step alone.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import jit
from npconv.kernels.numba.taps import kept_lines, taps_of_row
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
from npconv.problem import ConvProblem

REGISTERS = 32 if VECTOR_BYTES == 64 else 16

FEW = 9
"""Elements of a kernel that is compiled for itself."""


class Sums(NamedTuple):
    """What a kernel is compiled for: the rows and columns of its tile, and more."""

    rows: int
    columns: int
    chained: bool
    """Whether the products of a step are a chain of their own.

    Chains of three steps, which a 7 × 7 kernel could have, save additions, but two tiles scroll then: no gain.
    """

    full: int
    elements: int
    """How many elements of a step all rows meet, and how many there are; 0 if it is told at each call.

    To know a few of them saves a third of the time, as the loop over them becomes one block. To know many costs a half:
    LLVM then loads them all at once, more than there are registers.
    """


def elements_of(problem: ConvProblem, axis: int) -> list[list[tuple[int, ...]]]:
    """Return what a step along an axis meets: for each of its elements the taps, that of the oldest result first."""
    kernel, stride = problem.kernel_size, problem.stride[axis]
    rows = -(-kernel[axis] // stride)
    others = [range(1 if k == axis else kernel[k]) for k in range(3)]
    elements = []
    for first in range(min(stride, kernel[axis])):
        taps = [tap for tap in range(first + (rows - 1) * stride, -1, -stride) if tap < kernel[axis]]
        for tap in itertools.product(*others):
            elements.append([tuple(along if k == axis else tap[k] for k in range(3)) for along in taps])
    return elements


def sums_of(problem: ConvProblem, axis: int) -> Sums:
    """Return the tile for sums that scroll along an axis."""
    rows = -(-problem.kernel_size[axis] // problem.stride[axis])
    chained = problem.products > chain_length(problem.products)
    room = (REGISTERS - 2) // (rows * (1 + chained) + 1)
    elements = elements_of(problem, axis) if problem.products <= FEW else []
    return Sums(rows, 1 if room < 2 else 2 if rows > 1 else 4, chained, full_ones(elements, rows), len(elements))


def full_ones(elements: list[list[tuple[int, ...]]], rows: int) -> int:
    """Return how many elements of a step meet all rows of a tile; these come first."""
    return sum(len(element) == rows for element in elements)


def lanes(problem: ConvProblem) -> int:
    """Return how many numbers a vector holds."""
    return VECTOR_BYTES // problem.compute_dtype.itemsize


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
    """Return the sums of one run of pixels, ``columns`` vectors wide, that scroll down a slab."""
    rows, _, chained, known_full, known_elements = sums
    known, fewer = known_elements > 0, max(rows - 1, 1)

    def scroll(out, at, step, piece, begin, pace, count, offsets, elements, full, weights, w, bias, b, epilogue):  # type: ignore[no-untyped-def]
        if known:
            full, elements = known_full, known_elements
        every, newer = starts_from(0, 1, rows), starts_from(0, 1, fewer)
        tile = zeros(out, rows, columns)
        total = tile
        for k in range(1 - rows, count):
            i = w
            for element in range(full):
                tile = multiply_add(tile, weights, every, i, piece, begin + offsets[element])
                i += rows
            for element in range(full, elements):
                tile = multiply_add(tile, weights, newer, i, piece, begin + offsets[element])
                i += fewer
            if chained:
                total = add(total, tile)
                tile = zeros(out, rows, columns)
            else:
                total = tile
            if k >= 0:
                store(finished(top(total), bias, b, epilogue), out, at, 0)
                at += step
            total = scrolled(total)
            if not chained:
                tile = total
            begin += pace

    return jit.specialised(scroll, *sums, columns, within=True)


def over_image(
    rows: int, columns: int, kernel: tuple[int, int], stride: tuple[int, int], dense: bool, masked: bool
) -> Any:
    """Return the sums of one run of pixels, ``columns`` vectors wide, that scroll down an image as it is.

    Rows beyond the image are ``blank``; if ``masked``, columns may lie beyond it, too. Taps of a row lie side by side
    if ``dense``.
    """
    fewer, residues = max(rows - 1, 1), min(stride[0], kernel[0])
    full = kernel[0] - (rows - 1) * stride[0]  # rows of a step that meet all results
    taps = kernel[1]
    add_taps = taps_of_row(taps, stride[1], dense, masked)

    def scroll(  # type: ignore[no-untyped-def]
        out,
        at,
        step,
        x,
        begin,
        line,
        blank,
        y,
        pace,
        height,
        count,
        apart,
        column,
        width,
        weights,
        w,
        bias,
        b,
        epilogue,
    ):
        every, newer = starts_from(0, 1, rows), starts_from(0, 1, fewer)
        tile = zeros(out, rows, columns)
        for k in range(1 - rows, count):
            i = w
            for residue in range(residues):
                row = y + residue
                there = 0 <= row < height  # a choice of arrays instead of these branches costs a tenth
                j = begin + row * line
                if residue < full:
                    if there:
                        tile = add_taps(tile, weights, every, i, x, j, apart, column, width)
                    else:
                        tile = add_taps(tile, weights, every, i, blank, 0, apart, column, width)
                    i += rows * taps
                else:
                    if there:
                        tile = add_taps(tile, weights, newer, i, x, j, apart, column, width)
                    else:
                        tile = add_taps(tile, weights, newer, i, blank, 0, apart, column, width)
                    i += fewer * taps
            if k >= 0:
                store(finished(top(tile), bias, b, epilogue), out, at, 0)
                at += step
            tile = scrolled(tile)
            y += pace

    return jit.specialised(scroll, rows, columns, kernel, stride, dense, masked, within=True)


def along_rows(sums: Sums, residues: int) -> Any:
    """Return the sums of one row of results for a few vectors of channels, as they lie in the image.

    ``lines`` are, for each line of the kernel, where that of the image begins, and whether there is one; pixels beyond
    the image are ``blank``, and so are lines.
    """
    rows, columns, chained, _, _ = sums
    fewer = max(rows - 1, 1)

    def scroll(  # type: ignore[no-untyped-def]
        out,
        at,
        step,
        x,
        begin,
        pixel,
        blank,
        column,
        pace,
        width,
        count,
        full,
        lines,
        nowhere,
        weights,
        w,
        bias,
        b,
        epilogue,
    ):
        size = columns * lanes_of(out)
        every, newer = starts_from(0, size, rows), starts_from(0, size, fewer)
        tile = zeros(out, rows, columns)
        total = tile
        for k in range(1 - rows, count):
            i = w
            for residue in range(residues):
                there = 0 <= column + residue < width
                for line in range(len(lines)):
                    numbers, j = blank, np.int64(0)
                    if there and lines[line, 1]:
                        numbers, j = x, begin + (column + residue) * pixel + lines[line, 0]
                    if residue < full:
                        tile = multiply_add_rows(tile, weights, every, i, numbers, j)
                        i += rows * size
                    else:
                        tile = multiply_add_rows(tile, weights, newer, i, numbers, j)
                        i += fewer * size
            if chained:
                total = add(total, tile)
                tile = zeros(out, rows, columns)
            else:
                total = tile
            if k >= 0:
                store(finished_channels(top(total), bias, b, epilogue), out, at, 0)
                at += step
            total = scrolled(total)
            if not chained:
                tile = total
            column += pace

    return jit.specialised(scroll, *sums, residues, within=True)


def along_whole_rows(sums: Sums, residues: int) -> Any:
    """Return the same where all of a few lines are there: their weights stay in registers.

    For kernels of a few elements (`Sums.elements`) that at most two pixels of a step meet.
    """
    rows, columns, _, full, elements = sums
    lines = elements // residues
    seconds = rows if full == elements else max(rows - 1, 1)  # results that the second pixel of a step meets
    first_pixel, second_pixel = kept_lines(lines, 0, rows), kept_lines(lines, lines * rows, seconds)
    number = lines * (rows + (residues - 1) * seconds)

    def scroll(  # type: ignore[no-untyped-def]
        out,
        at,
        step,
        x,
        begin,
        pixel,
        blank,
        column,
        pace,
        width,
        count,
        full,
        lines,
        nowhere,
        weights,
        w,
        bias,
        b,
        epilogue,
    ):
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

    return jit.specialised(scroll, *sums, residues, within=True)

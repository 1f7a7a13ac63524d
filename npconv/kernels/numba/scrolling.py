"""Sums that scroll down the input: the register tile of a depthwise convolution, its pixels in the vectors.

A tile holds the unfinished results of one run, each a few vectors wide, that one step of the input reaches: three in a
3 × 3 kernel. A step loads its part of the input once, adds its products to all of them, writes the oldest, which is
finished, and moves the others up. With a stride, a step is so much longer and reaches fewer results: two of them in a
3 × 3 kernel of stride 2, the elder by the first row of the step alone.

Kernels with so many elements that one chain of sums would lose accuracy take one row of taps after the other over the
whole run, its weights in registers, and collect what each adds in memory.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from npconv.kernels.numba import jit
from npconv.kernels.numba.lean import max, min
from npconv.kernels.numba.taps import kept_numbers, multiply_kept
from npconv.kernels.numba.tile import REGISTERS
from npconv.kernels.numba.vector import (
    activated,
    add,
    add_column,
    lanes_of,
    load,
    multiply_add,
    scrolled,
    starts_from,
    store,
    top,
    zeros,
)
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

FEW = 9
"""Elements of a kernel that is compiled for itself."""


class Sums(NamedTuple):
    """What the sums are compiled for: the rows and columns of its tile, and more."""

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


def elements_of(problem: ConvProblem) -> list[tuple[int, ...]]:
    """Return what a step meets: of each of its elements the tap of the newest result.

    An elder result meets the tap that is a stride further on, if there is one. Those that all results meet come first.
    """
    depth, height, width = problem.kernel_size
    taps = itertools.product(range(depth), range(min(problem.stride[1], height)), range(width))
    return sorted(taps, key=lambda tap: tap[1])


def full_ones(problem: ConvProblem) -> int:
    """Return how many elements of a step meet all rows of a tile."""
    taps, stride = problem.kernel_size[1], problem.stride[1]
    return (taps - (-(-taps // stride) - 1) * stride) * (problem.products // taps)


def sums_of(problem: ConvProblem) -> Sums:
    """Return the tile for a problem's sums."""
    rows = -(-problem.kernel_size[1] // problem.stride[1])
    if problem.products > chain_length(problem.products):
        return Sums(rows, min(max((REGISTERS - 1 - rows) // rows, 1), 4), True, 0, 0)
    room = (REGISTERS - 2) // (rows + 1)
    columns = 1 if room < 2 else 2 if rows > 1 else 4
    few = problem.products <= FEW
    return Sums(rows, columns, False, full_ones(problem) if few else 0, len(elements_of(problem)) if few else 0)


@jit.inline
def finished(tile, bias, b, epilogue):  # type: ignore[no-untyped-def]
    """Return a run of results of one filter with its bias and activation."""
    done = add_column(tile, bias, b)
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
    every, newer = _one_element(rows, rows, columns), _one_element(rows, max(rows - 1, 1), columns)

    def scroll(  # type: ignore[no-untyped-def]
        out, at, step, piece, begin, pace, count, offsets, elements, full, apart, weights, w, bias, b, epilogue, room
    ):
        for element in range(elements):
            j, i, last = begin + offsets[element], w + offsets[elements + element], element == elements - 1
            if element < full:
                every(
                    out, at, step, piece, j, pace, count, weights, i, apart, element == 0, last, bias, b, epilogue, room
                )
            else:
                newer(
                    out, at, step, piece, j, pace, count, weights, i, apart, element == 0, last, bias, b, epilogue, room
                )

    return jit.specialised(scroll, rows, columns, within=True)


def _one_element(rows: int, met: int, columns: int) -> Any:
    """Return what one element of each step adds to a run of results, its weights in registers.

    It meets ``met`` of the ``rows`` unfinished results. What all elements but the last one add is collected in
    ``room``.
    """

    def scroll(  # type: ignore[no-untyped-def]
        out, at, step, piece, j, pace, count, weights, i, apart, is_first, is_last, bias, b, epilogue, room
    ):
        kept = kept_numbers(weights, i, apart, met)
        tile = zeros(out, rows, columns)
        place, wide = 0, columns * lanes_of(out)
        for k in range(1 - rows, count):
            tile = multiply_kept(tile, kept, piece, j)
            if k >= 0:
                total = top(tile)
                if not is_first:
                    total = add(total, load(room, place, 1, columns))
                if is_last:
                    store(finished(total, bias, b, epilogue), out, at, 0)
                    at += step
                else:
                    store(total, room, place, 0)
                place += wide
            tile = scrolled(tile)
            j += pace

    return jit.specialised(scroll, rows, met, columns, within=True)

"""Sums of quarters of filters for Strassen's algorithm, in rows: those of `npconv.kernels.numba.strassen_planes`.

Filters (K, C) of one element each, in rows or side by side, become seven matrices of K/2 rows of C/2 numbers: B11, B21,
T2, T3, T4, T1 and B22 of `npconv.kernels.numba.strassen`, scaled such that the largest weight of each channel is in
[1, 2), by powers of two, with which products are exact. Vectors go along the channels; filters that lie side by side
are transposed in square blocks first. (Sums that lay side by side, too, met in few sets of the cache if they were a
power of two: 256 → 256 channels at 56² took 1.99 ms instead of 1.79.)
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from npconv.kernels.numba import jit
from npconv.kernels.numba.lean import max, min
from npconv.kernels.numba.moves import BLOCK, transpose
from npconv.kernels.numba.product import width_of
from npconv.kernels.numba.quarters import sums_of_filters
from npconv.kernels.numba.tile import COLUMNS, pointer_to
from npconv.kernels.numba.vector import larger, store, zeros

SCALES = 4
"""Numbers for each channel: its scale, the negative of it, the factor that undoes it, and the negative of that."""


def _format(array: Any) -> tuple[Any, int, int]:
    """Return the integers that have as many bits as an array's numbers, the bits of a fraction, and 1's exponent."""
    size = array.dtype.bitwidth
    return ir.IntType(size), *((23, 127) if size == 32 else (52, 1023))


@intrinsic
def exponent_of(typing: Any, array: Any, i: Any) -> Any:
    """Return the exponent of ``array[i]``, which is not negative, as its bits are: 0 of the smallest numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer, fraction, _ = _format(array)
        pointer = pointer_to(context, builder, signature.args[0], *arguments)
        bits = builder.load(builder.bitcast(pointer, integer.as_pointer()))
        exponent = builder.lshr(bits, integer(fraction))
        return exponent if integer.width == 64 else builder.zext(exponent, ir.IntType(64))

    return types.int64(array, types.int64), code


@intrinsic
def write_power(typing: Any, array: Any, i: Any, exponent: Any) -> Any:
    """Write the power of two of such an exponent to ``array[i]``, or 0."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer, fraction, _ = _format(array)
        *where, exponent = arguments
        pointer = pointer_to(context, builder, signature.args[0], *where)
        exponent = exponent if integer.width == 64 else builder.trunc(exponent, integer)
        builder.store(builder.shl(exponent, integer(fraction)), builder.bitcast(pointer, integer.as_pointer()))
        return context.get_dummy_value()

    return types.none(array, types.int64, types.int64), code


@intrinsic
def exponent_of_one(typing: Any, array: Any) -> Any:
    """Return the exponent of 1 in an array's dtype."""
    _, _, one = _format(array)
    return types.int64(array), lambda context, builder, signature, arguments: ir.IntType(64)(one)


@jit.inline
def find_scales(scales, weight, turned, channels, filters, first, end, memory):  # type: ignore[no-untyped-def]
    """Write the scales of channels from ``first`` to ``end``, as many as a panel or more, and what undoes them.

    NaN are left out, and infinities not scaled. Of channels of the smallest numbers there are, the factor is 0, as it
    would be an infinity.
    """
    wide, one = width_of(scales), exponent_of_one(scales)
    for channel in range(first, end, 1 if turned else wide):
        c = channel if turned else min(channel, end - wide)
        tile = zeros(scales, 1, COLUMNS)
        if turned:
            for k in range(0, filters, wide):
                tile = larger(tile, weight, c * filters + min(k, filters - wide))
        else:
            for k in range(filters):
                tile = larger(tile, weight, k * channels + c)
        store(tile, memory, 0, wide)
        if turned:
            for lane in range(1, wide):
                if memory[lane] > memory[0]:
                    memory[0] = memory[lane]
        for lane in range(1 if turned else wide):
            exponent = exponent_of(memory, lane)
            if exponent > 2 * one:
                exponent = one
            exponent = min(exponent, 2 * one - 1)
            dead, at = memory[lane] == 0, c + lane
            write_power(scales, at, exponent)
            write_power(scales, at + 2 * channels, one if dead else 2 * one - exponent if exponent > 0 else 0)
            if exponent == 0 and not dead:
                scales[at] = math.ldexp(1.0, -_exponent_to_one(memory[lane], one))
            scales[at + channels], scales[at + 3 * channels] = -scales[at], -scales[at + 2 * channels]


@jit.inline
def _exponent_to_one(number, one):  # type: ignore[no-untyped-def]
    """Return by which power of two one of the smallest numbers there are is to be multiplied to be in [1, 2)."""
    exponent = one - 1
    while math.ldexp(number, exponent) < 1:
        exponent += 1
    return exponent


_sum_up = sums_of_filters(COLUMNS, along_channels=True)


@jit.inline
def sum_filters(sums, scales, weight, turned, channels, filters, first, end, begin, stop, memory):  # type: ignore[no-untyped-def]
    """Make the sums of filters from ``begin`` to ``stop`` of each half, of channels from ``first`` to ``end`` of each.

    These are as many as a panel, and a block, or more, and filters that lie side by side as many as a block; ``memory``
    has `room`.
    """
    half, others, wide = channels // 2, filters // 2, width_of(sums)
    step, factors = others * half, 2 * channels
    if not turned:
        for k in range(begin, stop):
            for channel in range(first, end, wide):
                c = min(channel, end - wide)
                left, right = k * channels + c, (k + others) * channels + c
                _sum_up(
                    sums, k * half + c, step, weight, left, left + half, right, right + half, scales, factors + c,
                    factors + c + half, channels,
                )  # fmt: skip
        _mend(sums, scales, weight, turned, channels, filters, first, end, begin, stop)
        return
    size = max(wide, BLOCK)  # panels of two vectors of two numbers are narrower than a block
    quarter = BLOCK * size
    for filter in range(begin, stop, BLOCK):
        k = min(filter, stop - BLOCK)
        for channel in range(first, end, size):
            c = min(channel, end - size)
            for n in range(4):
                from_channel, from_filter = c + n % 2 * half, k + n // 2 * others
                for block in range(0, size, BLOCK):
                    source = (from_channel + block) * filters + from_filter
                    transpose(memory, n * quarter + block, size, weight, source, filters)
            for row in range(BLOCK):
                for lane in range(0, size, wide):
                    at, now = row * size + lane, c + lane
                    _sum_up(
                        sums, (k + row) * half + now, step, memory, at, at + quarter, at + 2 * quarter,
                        at + 3 * quarter, scales, factors + now, factors + now + half, channels,
                    )  # fmt: skip
    _mend(sums, scales, weight, turned, channels, filters, first, end, begin, stop)


def room(wide: int) -> int:
    """Return how many numbers it takes to find scales, and to transpose blocks, where a panel has so many."""
    return 4 * BLOCK * max(wide, BLOCK)


@jit.inline
def _mend(sums, scales, weight, turned, channels, filters, first, end, begin, stop):  # type: ignore[no-untyped-def]
    """Make the sums of channels that have no factor, or whose partners have none, number by number."""
    half, others, one = channels // 2, filters // 2, exponent_of_one(sums)
    step, factors = others * half, 2 * channels
    to_filter, to_channel = (1, filters) if turned else (channels, 1)
    for c in range(first, end):
        if scales[factors + c] != 0 and scales[factors + c + half] != 0:
            continue
        upper, lower = (
            _exponent_to_one(scales[c], one) if scales[factors + c] == 0 else one - exponent_of(scales, c),
            _exponent_to_one(scales[c + half], one)
            if scales[factors + c + half] == 0
            else one - exponent_of(scales, c + half),
        )
        for k in range(begin, stop):
            left, right, to = k * to_filter + c * to_channel, (k + others) * to_filter + c * to_channel, k * half + c
            b11, b21 = math.ldexp(weight[left], upper), math.ldexp(weight[left + half * to_channel], lower)
            b12, b22 = math.ldexp(weight[right], upper), math.ldexp(weight[right + half * to_channel], lower)
            t1 = b12 - b11
            t2 = b22 - t1
            sums[to], sums[to + step], sums[to + 2 * step], sums[to + 3 * step] = b11, b21, t2, b22 - b12
            sums[to + 4 * step], sums[to + 5 * step], sums[to + 6 * step] = b21 - t2, t1, b22

"""The last pixels of a plane, fewer than fill vectors: the direct sum of a 1 × 1 kernel, with channels in the vectors.

Where pixels are in the vectors (`npconv.kernels.numba.planes`), a few that are left of a plane would take as long as
two vectors of them. A square whose side 2 divides, and 4 does not, as 14, leaves 4 beyond multiples of 32, one whose
side is odd 1, 9, 17 or 25. So their channels are put side by side first, and a register tile is the products of some
filters, which lie in rows, with four pixels, a vector of partial sums for each, whose lanes are added up at the end. Of
14 × 14, 384 to 64 channels so take 92 µs on a core instead of 103 (192 pixels 89), 96 to 576 202 instead of 226; with
AVX2 96 instead of 101, and 250 instead of 266 of 256 to 256.
"""

from __future__ import annotations

from npconv.kernels.numba import blocking, jit
from npconv.kernels.numba.blocking import LAST_AT_ONCE
from npconv.kernels.numba.calls import calling
from npconv.kernels.numba.lean import min
from npconv.kernels.numba.moves import move
from npconv.kernels.numba.stores import store_sums
from npconv.kernels.numba.tile import REGISTERS
from npconv.kernels.numba.vector import (
    add,
    lanes_of,
    multiply_add_ends,
    multiply_add_pairs,
    starts_from,
    zeros,
)

FILTERS = 6 if REGISTERS == 32 else 3
"""Filters of a tile, which has up to `LAST_AT_ONCE` pixels."""

left_over = jit.inline(blocking.left_over)


def sums_over_channels(pixels):  # type: ignore[no-untyped-def]
    """Return the function for the sums of the products of a tile's filters with so many pixels."""
    products = FILTERS * pixels

    def sums(filters, first, elements, numbers, begin, apart, chain):  # type: ignore[no-untyped-def]
        """Sum up ``elements`` channels, vectors of them: filters lie so far apart, and pixels ``apart``."""
        lanes = lanes_of(numbers)
        whole, left = elements // lanes, elements % lanes
        rows, others = starts_from(first, elements, FILTERS), starts_from(begin, apart, pixels)
        tile = zeros(numbers, products, 1)
        total = tile
        for vector in range(0, whole, chain):
            if vector > 0:
                total = add(total, tile)
                tile = zeros(numbers, products, 1)
            for e in range(vector * lanes, min(vector + chain, whole) * lanes, lanes):
                tile = multiply_add_pairs(tile, filters, rows, e, numbers, others, e)
        if left > 0:
            e = elements - lanes
            tile = multiply_add_ends(tile, filters, rows, e, numbers, others, e, left)
        return add(total, tile)

    return jit.specialised(sums, pixels, within=True)


def finishing(pixels):  # type: ignore[no-untyped-def]
    """Return the function that writes the sums of the lanes of a tile, with bias and activation."""

    def finish(tile, room, result, at, pitch, bias, k, epilogue):  # type: ignore[no-untyped-def]
        store_sums(tile, room, 0)
        for row in range(FILTERS):
            for pixel in range(pixels):
                number = room[row * pixels + pixel] + bias[k + row]
                if epilogue[0] != 0:
                    if number < 0:
                        number *= epilogue[1]
                    if number < epilogue[2]:
                        number = epilogue[2]
                    if number > epilogue[3]:
                        number = epilogue[3]
                result[at + row * pitch + pixel] = number

    return jit.specialised(finish, pixels, within=True)


@jit.inline
def bring(room, begin, apart, x, start, to_channel, starts, channels):  # type: ignore[no-untyped-def]
    """Put the channels of pixels side by side: pixel p's, from ``x[start + starts[p]]`` on, in a row of ``room``."""
    for pixel in range(len(starts)):
        to, source = begin + pixel * apart, start + starts[pixel]
        for channel in range(channels):
            move(room, to + channel, x, source + channel * to_channel)


@jit.inline
def rows_of(room, elements):  # type: ignore[no-untyped-def]
    """Return where rows of so many numbers begin behind a tile's sums, and how far they lie apart.

    Rows of a power of two would meet in few sets of the cache.
    """
    lanes = lanes_of(room)
    return (FILTERS * LAST_AT_ONCE + lanes - 1) // lanes * lanes, (elements + lanes - 1) // lanes * lanes + lanes


_FORM = "aiiaiiiaiiiaia"
_multiply = calling(_FORM)


def _multiplying() -> jit.Part:
    """Return the products of filters with pixels."""
    sums, finish = sums_over_channels(LAST_AT_ONCE), finishing(LAST_AT_ONCE)

    def multiply(result, at, pitch, filters, first, count, elements, numbers, begin, apart, chain, bias, k, epilogue):  # type: ignore[no-untyped-def]
        for some in range(0, count, FILTERS):
            f = min(some, count - FILTERS)  # the last ones overlap those before
            tile = sums(filters, first + f * elements, elements, numbers, begin, apart, chain)
            finish(tile, numbers, result, at + f * pitch, pitch, bias, k + f, epilogue)

    return jit.Part(multiply, _FORM)


LAST = _multiplying()
"""The part that `multiply_last` calls."""


@jit.inline
def multiply_last(  # type: ignore[no-untyped-def]
    part, result, at, pitch, filters, first, count, elements, x, start, to_channel, starts, room, chain, bias, k,
    epilogue,
):  # fmt: skip
    """Write the products of ``count`` filters with pixels to ``result[at:]``, a row of ``pitch`` numbers for each.

    Pixel p's channels are ``x[start + starts[p]:]``, ``to_channel`` apart; ``room`` has that of a sliver.
    """
    begin, apart = rows_of(room, elements)
    bring(room, begin, apart, x, start, to_channel, starts, elements)
    for pixel in range(0, len(starts), LAST_AT_ONCE):
        _multiply(
            part,
            (result, at + pixel, pitch, filters, first, count, elements, room, begin + pixel * apart, apart, chain,
             bias, k, epilogue),
        )  # fmt: skip

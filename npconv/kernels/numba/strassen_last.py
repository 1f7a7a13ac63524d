"""The last pixels of a plane, for Strassen's algorithm with pixels in the vectors.

What is left of a plane beyond whole units (`npconv.kernels.numba.strassen_planes`) is cut into two halves, as they are,
and the same seven sums are made of these. They meet the same sums of filters, but with channels in the vectors
(`npconv.kernels.numba.last_pixels`): so 4 of 196 pixels do not take as long as the half of a unit, 32.
"""

from __future__ import annotations

from npconv.kernels.numba import jit
from npconv.kernels.numba.blocking import LAST_AT_ONCE
from npconv.kernels.numba.calls import calling
from npconv.kernels.numba.last_pixels import (
    FILTERS,
    bring,
    finishing,
    rows_of,
    sums_over_channels,
)
from npconv.kernels.numba.lean import min
from npconv.kernels.numba.product import width_of
from npconv.kernels.numba.quarters import sums_of_pixels
from npconv.kernels.numba.tile import COLUMNS
from npconv.kernels.numba.vector import add_from, lanes_of, store

_SUM = "aiiiiiaii"
_sum_up = calling(_SUM)


def _summing_up() -> jit.Part:
    """Return what makes the sums of two pixels, whose channels are in rows."""
    sum_pixels = sums_of_pixels(COLUMNS, along_channels=True)

    def sum_up(room, to, step, upper, lower, half, scale, channels, wide):  # type: ignore[no-untyped-def]
        for channel in range(0, half, wide):
            c = min(channel, half - wide)
            sum_pixels(
                room, to + c, step, room, upper + c, upper + half + c, lower + c, lower + half + c, scale, c, half + c,
                channels,
            )  # fmt: skip

    return jit.Part(sum_up, _SUM)


SUM = _summing_up()

_FORM = "aiiiaiiiiaiiiiaa"
_multiply = calling(_FORM)


def _tile(pixels: int) -> jit.Part:
    """Return the products of filters of each half with so many pixels of each."""
    sums, finish, products = sums_over_channels(pixels), finishing(pixels), FILTERS * pixels

    def multiply(  # type: ignore[no-untyped-def]
        result, at, lower, pitch, filters, k, count, others, elements, room, begin, apart, step, chain, bias, epilogue
    ):
        lanes = lanes_of(room)
        kept, second = begin - 3 * products * lanes, products * lanes
        for some in range(0, count, FILTERS):
            f = k + min(some, count - FILTERS)  # the last ones overlap those before
            for n in range(7):  # as `npconv.kernels.numba.strassen_tile` does
                total = sums(filters, (n * others + f) * elements, elements, room, begin + n * step, apart, chain)
                if n == 0:
                    store(total, room, kept, lanes)
                    continue
                if n == 5:
                    store(total, room, kept + 2 * second, lanes)
                total = add_from(total, room, kept + (second if n == 4 or n == 5 else 0), lanes)
                if n == 2:
                    store(total, room, kept, lanes)
                elif n == 3:
                    store(total, room, kept + second, lanes)
                if n == 6:
                    total = add_from(total, room, kept + 2 * second, lanes)
                if n == 1 or n >= 4:
                    filter = f + (others if n >= 5 else 0)
                    to = at + (filter - k) * pitch + (lower if n == 4 or n == 5 else 0)
                    finish(total, room, result, to, pitch, bias, filter, epilogue)

    return jit.Part(multiply, _FORM, pixels)


_FEW, _MANY = LAST_AT_ONCE // 2, LAST_AT_ONCE
_TILES = {pixels: _tile(pixels) for pixels in (_FEW, _MANY)}


def parts_for(number: int) -> tuple[jit.Part | None, ...]:
    """Return the parts that `multiply_last` calls for so many pixels: all of one tile, or more."""
    tiles = (_TILES[_FEW] if number == LAST_AT_ONCE else None, _TILES[_MANY] if number > LAST_AT_ONCE else None)
    return SUM if number else None, *tiles


@jit.inline
def multiply_last(  # type: ignore[no-untyped-def]
    parts, place, result, at, pitch, filters, k, count, others, half, x, start, to_channel, starts, scale, room, chain,
    bias, epilogue,
):  # fmt: skip
    """Write what ``count`` filters of each half, ``k`` the first of ``others``, make of pixels to ``result[at:]``.

    There a filter's results are ``pitch`` behind those of the one before. Pixel p's channels are ``x[start +
    starts[p]:]``, ``to_channel`` apart.
    """
    number, channels = len(starts), 2 * half
    pixels = number // 2  # of each half
    raw, line = rows_of(room, channels)
    bring(room, raw, line, x, start, to_channel, starts, channels)
    _, apart = rows_of(room, half)
    begin = raw + number * line + 3 * FILTERS * LAST_AT_ONCE * lanes_of(room)
    step = pixels * apart
    for pixel in range(pixels):
        _sum_up(
            parts[place],
            (room, begin + pixel * apart, step, raw + pixel * line, raw + (pixels + pixel) * line, half, scale,
             channels, width_of(room)),
        )  # fmt: skip
    some = _FEW if number == LAST_AT_ONCE else _MANY
    for pixel in range(0, pixels, some):
        p = min(pixel, pixels - some)  # the last ones overlap those before
        _multiply(
            parts[place + (1 if number == LAST_AT_ONCE else 2)],
            (result, at + p, pixels, pitch, filters, k, count, others, half, room, begin + p * apart, apart, step,
             chain, bias, epilogue),
        )  # fmt: skip

"""Products of quarters of filters and of pixels in a register tile: the seven of Strassen's algorithm.

A tile is some filters of each half times the two slivers of a unit (`npconv.kernels.numba.strassen_planes`). What is
multiplied, seven sums of quarters of each, lies one behind the other: B11, B21, T2, T3, T4, T1 and B22 of filters, and
A11, A12, S2, S3, A22, S1 and S4 of pixels (`npconv.kernels.numba.strassen`). Products are added up as they come, those
that several results have in room for three tiles, which stays in the first-level cache: 512 → 256 channels at 28² so
take 0.84 ms, and 0.88 to 0.94 where all products of a task went to memory before they were added up.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from npconv.kernels.numba import jit
from npconv.kernels.numba.calls import calling
from npconv.kernels.numba.lean import min, tuple_of
from npconv.kernels.numba.pairs import PAIR, over_ends
from npconv.kernels.numba.pixels import share_out, summing
from npconv.kernels.numba.product import ask_for, width_of
from npconv.kernels.numba.stores import store_pairs
from npconv.kernels.numba.tile import COLUMNS, LEAST_ROWS, ROWS
from npconv.kernels.numba.vector import activated, add_column, add_from, lanes_of, prefetch, starts_from, store

KEPT = 3
"""Tiles of sums that wait for others."""

_FORM = "aiiaiiaiiiaaaaiiiinna"
_call = calling(_FORM)


def _tile(rows: int, columns: int, in_pairs: bool) -> jit.Part:
    """Return the products of so many filters of each half with slivers of so many vectors.

    If ``in_pairs``, two filters make a row of results, as `npconv.kernels.numba.pairs` tells.
    """
    sums, pairs = summing(rows, columns, "slivers"), rows // PAIR

    def multiply(  # type: ignore[no-untyped-def]
        result, at, pitch, filters, k, others, slivers, elements, chain, tiles, bias, epilogue, kept, x, asked,
        to_channel, channels, share, lines, places, room,
    ):  # fmt: skip
        wide = width_of(slivers)
        second, sizes = rows * wide, (chain, elements, 0, 1)  # elements lie side by side, which the compiler shall know
        for _ in range(tiles):
            for n in range(7):
                lower, finishes, size = n == 4 or n == 5, n == 1 or n >= 4, columns * lanes_of(result)
                filter, place = k + (others if n >= 5 else 0), 2 if lower else 0
                to = at + (size if lower else 0) + (others * pitch if n >= 5 else 0)
                if finishes and in_pairs:
                    for pair in range(filter // PAIR, filter // PAIR + pairs):
                        if places[place] >= 0:
                            ask_for(result, lines[pair] + places[place], PAIR * size)
                elif finishes:
                    for row in range(rows):
                        ask_for(result, to + row * pitch, size)
                for _ in range(min(share, channels)):
                    for pixels in range(asked, asked + 2 * wide, lanes_of(x)):
                        prefetch(x, pixels)
                    asked += to_channel
                channels -= share
                rows_at = starts_from((n * others + k) * elements, elements, rows)
                total = sums(filters, rows_at, slivers, n * elements * wide, (), sizes, (), 0)
                if n == 0:  # A11 B11, which all results have
                    store(total, kept, 0, wide)
                    continue
                if n == 5:  # S1 T1, which those of the right half have
                    store(total, kept, 2 * second, wide)
                total = add_from(total, kept, second if n == 4 or n == 5 else 0, wide)
                if n == 2:  # U
                    store(total, kept, 0, wide)
                elif n == 3:  # V
                    store(total, kept, second, wide)
                if not finishes:
                    continue
                if n == 6:
                    total = add_from(total, kept, 2 * second, wide)
                total = add_column(total, bias, filter)
                if epilogue[0] != 0:
                    total = activated(total, epilogue)
                if not in_pairs:
                    store(total, result, to, pitch)
                elif places[place] >= 0:
                    store_pairs(total, result, tuple_of(lines, filter // PAIR, pairs), places[place])
                else:
                    store_pairs(total, room, starts_from(0, PAIR * wide, pairs), 0)
                    pixel, (line, to_line) = places[place + 1], tuple_of(places, 4, 2)
                    over_ends(result, lines, filter // PAIR, pairs, room, pixel, (line, pixel + size, to_line))
            at += rows * pitch
            k += rows

    return jit.Part(multiply, _FORM, rows, columns, in_pairs)


_HEIGHTS, _COLUMNS = range(LEAST_ROWS, ROWS + 1), (COLUMNS, COLUMNS // 2)
_NUMBER = len(_HEIGHTS)
_TILES = {
    in_pairs: [[_tile(rows, columns, in_pairs) for rows in _HEIGHTS] for columns in _COLUMNS]
    for in_pairs in (False, True)
}


def heights(counts: Iterable[int], unit: int) -> frozenset[int]:
    """Return the filters of the tiles that so many are cut into, which have some of such a unit."""
    found = set()
    for count in counts:
        _, least, higher = share_out.py_func(count, unit)
        found |= {unit * least, unit * (least + 1)} if higher else {unit * least}
    return frozenset(found)


@lru_cache(maxsize=1024)
def parts_of(dtype: np.dtype[Any], heights: frozenset[int], widths: tuple[bool, bool], in_pairs: bool) -> np.ndarray:
    """Return where the tiles that `multiply` calls are: those for whole units, half ones, or both, of some heights."""
    parts = (
        part if there and rows in heights else None
        for tiles, there in zip(_TILES[in_pairs], widths, strict=True)
        for rows, part in zip(_HEIGHTS, tiles, strict=True)
    )
    return jit.addresses(tuple(parts), dtype)


@jit.inline
def multiply(  # type: ignore[no-untyped-def]
    parts, half, result, at, pitch, filters, k, count, others, slivers, elements, chain, bias, epilogue, kept, asked,
    unit, pairs,
):  # fmt: skip
    """Write what ``count`` filters of each half, ``k`` the first of ``others``, make of a unit, or of ``half`` of one.

    Those of the first filter and pixel belong to ``result[at]``, of other filters ``pitch`` behind. Meanwhile, pixels
    of the unit that comes next are ``asked`` for: an array, where they begin, how far apart channels are, and how many.

    Tiles have some of a ``unit`` of filters. Where that is a pair, which makes a row of results, ``pairs`` tell where
    the rows begin; for each sliver how far behind its results lie, or -1 if they go over the end of a row of the input,
    and its first pixel, then the pixels of such a row, and from one row to the next; and room for a tile.
    """
    number, least, higher = share_out(count, unit)
    lines, places, room = pairs
    x, following, to_channel, channels = asked
    share = (channels + 7 * number - 1) // (7 * number)
    for more in range(2):
        rows, tiles = unit * (least + more), higher if more else number - higher
        if tiles > 0:
            _call(
                parts[rows - LEAST_ROWS + (_NUMBER if half else 0)],
                (result, at, pitch, filters, k, others, slivers, elements, chain, tiles, bias, epilogue, kept, x,
                 following, to_channel, channels, share, lines, places, room),
            )  # fmt: skip
        at += tiles * rows * pitch
        k += tiles * rows
        done = min(7 * tiles * share, channels)
        following += done * to_channel
        channels -= done

"""Products of quarters of filters and of pixels in a register tile: the seven of Strassen's algorithm.

A tile is some filters of each half times the two slivers of a unit (`npconv.kernels.numba.strassen_planes`). What is
multiplied, seven sums of quarters of each, lies one behind the other: B11, B21, T2, T3, T4, T1 and B22 of filters, and
A11, A12, S2, S3, A22, S1 and S4 of pixels (`npconv.kernels.numba.strassen`). Products are added up as they come, those
that several results have in room for three tiles, which stays in the first-level cache.

Each product asks for the filters of the next one meanwhile, so evenly as they are used: where each call has others,
which come from memory, 384 to 1536 channels at 14² take 980 µs in two threads and took 1260, 256 to 1024 440 and 620.
Where all have the same, they take as long.
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
from npconv.kernels.numba.stores import store_beside, store_pairs
from npconv.kernels.numba.tile import COLUMNS, LEAST_ROWS, ROWS
from npconv.kernels.numba.vector import activated, add_column, add_from, lanes_of, prefetch, starts_from, store

KEPT = 3
"""Tiles of sums that wait for others."""

_FORM = "aiiaiiaiiiaaaaiiniinna"
_call = calling(_FORM)


MERGED = {"": 1, "pairs": 2, "beside": 1}
"""Filters that make a row of results, by how these are merged: each alone, or with those of another filter, as
`npconv.kernels.numba.pairs` tells, or with pixels that meet no tap, and are the bias."""


def _tile(rows: int, columns: int, merged: str) -> jit.Part:
    """Return the products of so many filters of each half with slivers of so many vectors, ``merged`` or not."""
    sums, in_rows, beside = summing(rows, columns, "following"), merged != "", merged == "beside"
    unit, number = MERGED[merged], rows // MERGED[merged]

    def multiply(  # type: ignore[no-untyped-def]
        result, at, pitch, filters, k, others, slivers, elements, chain, tiles, bias, epilogue, kept, x, asked,
        to_channel, runs, channels, share, lines, places, room,
    ):  # fmt: skip
        wide = width_of(slivers)
        second, sizes = rows * wide, (chain, elements, 0, 1)  # elements lie side by side, which the compiler shall know
        for _ in range(tiles):
            for n in range(7):
                lower, finishes, size = n == 4 or n == 5, n == 1 or n >= 4, columns * lanes_of(result)
                filter, place = k + (others if n >= 5 else 0), 2 if lower else 0
                to = at + (size if lower else 0) + (others * pitch if n >= 5 else 0)
                if finishes and in_rows:
                    for line in range(filter // unit, filter // unit + number):
                        if places[place] >= 0:
                            ask_for(result, lines[line] + places[place], PAIR * size)
                elif finishes:
                    for row in range(rows):
                        ask_for(result, to + row * pitch, size)
                for _ in range(min(share, channels)):
                    for pixels in range(asked, asked + runs[0], lanes_of(x)):
                        prefetch(x, pixels)
                    for pixels in range(asked + runs[1], asked + runs[2], lanes_of(x)):
                        prefetch(x, pixels)
                    asked += to_channel
                channels -= share
                rows_at = starts_from((n * others + k) * elements, elements, rows)
                following = ((n + 1) * others + k if n < 6 else k + rows) * elements
                total = sums(filters, rows_at, slivers, n * elements * wide, (), sizes, following, 0)
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
                if not in_rows:
                    store(total, result, to, pitch)
                    continue
                over_end = places[place] < 0
                if over_end:
                    target, starts, first = room, starts_from(0, PAIR * wide, number), 0
                else:
                    target, starts, first = result, tuple_of(lines, filter // unit, number), places[place]
                if beside:
                    store_beside(total, bias, filter, target, starts, first)
                else:
                    store_pairs(total, target, starts, first)
                if over_end:
                    pixel, (line, to_line) = places[place + 1], tuple_of(places, 4, 2)
                    over_ends(result, lines, filter // unit, number, room, pixel, (line, pixel + size, to_line))
            at += rows * pitch
            k += rows

    return jit.Part(multiply, _FORM, rows, columns, merged)


_HEIGHTS, _COLUMNS = range(LEAST_ROWS, ROWS + 1), (COLUMNS, COLUMNS // 2)
_NUMBER = len(_HEIGHTS)
_TILES = {merged: [[_tile(rows, columns, merged) for rows in _HEIGHTS] for columns in _COLUMNS] for merged in MERGED}


def heights(counts: Iterable[int], unit: int) -> frozenset[int]:
    """Return the filters of the tiles that so many are cut into, which have some of such a unit."""
    found = set()
    for count in counts:
        _, least, higher = share_out.py_func(count, unit)
        found |= {unit * least, unit * (least + 1)} if higher else {unit * least}
    return frozenset(found)


@lru_cache(maxsize=1024)
def parts_of(dtype: np.dtype[Any], heights: frozenset[int], widths: tuple[bool, bool], merged: str) -> np.ndarray:
    """Return where the tiles that `multiply` calls are: those for whole units, half ones, or both, of some heights."""
    parts = (
        part if there and rows in heights else None
        for tiles, there in zip(_TILES[merged], widths, strict=True)
        for rows, part in zip(_HEIGHTS, tiles, strict=True)
    )
    return jit.addresses(tuple(parts), dtype)


@jit.inline
def multiply(  # type: ignore[no-untyped-def]
    parts, half, result, at, pitch, filters, k, count, others, slivers, elements, chain, bias, epilogue, kept, asked,
    unit, rows,
):  # fmt: skip
    """Write what ``count`` filters of each half, ``k`` the first of ``others``, make of a unit, or of ``half`` of one.

    Those of the first filter and pixel belong to ``result[at]``, of other filters ``pitch`` behind. Meanwhile, pixels
    of the unit that comes next are ``asked`` for: an array, where they begin, how far apart channels are, in two runs
    the end of the first and where the second begins and ends, behind the first one's beginning, and how many channels.

    Tiles have some of a ``unit`` of filters, which make a row of results. Where these are merged, ``rows`` tell where
    they begin; for each sliver how far behind its results lie, or -1 if they go over the end of a row of the input, and
    its first pixel, then the pixels of such a row, and from one row to the next; and room for a tile.
    """
    number, least, higher = share_out(count, unit)
    lines, places, room = rows
    x, following, to_channel, runs, channels = asked
    share = (channels + 7 * number - 1) // (7 * number)
    for more in range(2):
        height, tiles = unit * (least + more), higher if more else number - higher
        if tiles > 0:
            _call(
                parts[height - LEAST_ROWS + (_NUMBER if half else 0)],
                (result, at, pitch, filters, k, others, slivers, elements, chain, tiles, bias, epilogue, kept, x,
                 following, to_channel, runs, channels, share, lines, places, room),
            )  # fmt: skip
        at += tiles * height * pitch
        k += tiles * height
        done = min(7 * tiles * share, channels)
        following += done * to_channel
        channels -= done

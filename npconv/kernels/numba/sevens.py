"""Products of quarters of matrices in a register tile: the seven of Strassen's algorithm, added up as they come.

A tile is some rows of one matrix times some vectors of the other, each number of a row broadcast. What is multiplied,
seven sums of quarters of each (`npconv.kernels.numba.strassen`), lies one behind the other, in the order of `_tile`.
There is room for three sums, that is for what is added to several results; it stays in the first-level cache, so that
four tiles of results take little longer than seven tiles of products: 512 → 256 channels at 28² take 0.84 ms, where
products that went to memory one after the other, for all pixels of a task, took 0.88 to 0.94.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from npconv.kernels.numba import jit
from npconv.kernels.numba.calls import calling
from npconv.kernels.numba.lean import min
from npconv.kernels.numba.pixels import share_out, summing
from npconv.kernels.numba.product import ask_for, width_of
from npconv.kernels.numba.tile import COLUMNS, LEAST_ROWS, ROWS
from npconv.kernels.numba.vector import activated, add_column, add_from, add_row, lanes_of, prefetch, starts_from, store

KEPT = 3
"""Tiles of sums that wait for others."""

_FORM = "aiiiiaiiiiaiiiiiaiiaaaiiii"
_call = calling(_FORM)


def _tile(rows: int, columns: int, biases: str) -> jit.Part:
    """Return the products of ``rows`` rows with ``columns`` vectors, whose ``biases`` are of rows or of columns.

    A11 B11 is added to all four results, and first of all; S2 T2 and S3 T3 to three and two, S1 T1 to two.
    """
    sums, of_rows = summing(rows, columns, "slivers"), biases == "rows"

    def multiply(  # type: ignore[no-untyped-def]
        result, at, pitch, to_lower, to_right, numbers, first, apart, step, to_next, vectors, source, elements, chain,
        tiles, skip, bias, k, to_bias, epilogue, memory, x, next_unit, to_channel, channels, share,
    ):  # fmt: skip
        wide, asked = width_of(vectors), next_unit
        last = next_unit + channels * to_channel
        room = rows * wide
        for _ in range(tiles):
            for n in range(7):
                to, right = at + (to_lower if n == 4 or n == 5 else 0), n >= 5
                if right:
                    to += to_right
                finishes = n == 1 or n >= 4
                if finishes:
                    for row in range(rows):
                        ask_for(result, to + row * pitch, columns * lanes_of(result))
                for line in range(asked, min(asked + share * to_channel, last), to_channel):
                    for part in range(line, line + 2 * wide, lanes_of(x)):
                        prefetch(x, part)
                asked += share * to_channel
                rows_at = starts_from(first + n * to_next, apart, rows)
                total = sums(numbers, rows_at, vectors, source + n * elements * wide, (), (chain, elements, 0, step), (), 0)
                if n == 0:  # A11 B11
                    store(total, memory, 0, wide)
                    continue
                if n == 5:  # S1 T1
                    store(total, memory, 2 * room, wide)
                total = add_from(total, memory, room if n == 4 or n == 5 else 0, wide)
                if n == 2:  # U
                    store(total, memory, 0, wide)
                elif n == 3:  # V
                    store(total, memory, room, wide)
                if not finishes:
                    continue
                if n == 6:
                    total = add_from(total, memory, 2 * room, wide)
                if of_rows:
                    total = add_column(total, bias, k + (to_bias if right else 0))
                else:
                    total = add_row(total, bias, k + (to_bias if right else 0))
                if epilogue[0] != 0:
                    total = activated(total, epilogue)
                store(total, result, to, pitch)
            at += rows * pitch
            first += rows * apart
            k += rows * skip

    return jit.Part(multiply, _FORM, rows, columns, biases)


_COLUMNS = COLUMNS, COLUMNS // 2
"""Vectors of tiles: of whole slivers or panels, and of half ones."""

_TILES = {
    (rows, columns, biases): _tile(rows, columns, biases)
    for rows in range(LEAST_ROWS, ROWS + 1)
    for columns in _COLUMNS
    for biases in ("rows", "columns")
}
_HEIGHTS = ROWS - LEAST_ROWS + 1


def heights(counts: Iterable[int]) -> frozenset[int]:
    """Return how many rows tiles have of so many, as `multiply` cuts them."""
    found = set()
    for count in counts:
        _, least, higher = share_out.py_func(count, 1)
        found |= {least, least + 1} if higher else {least}
    return frozenset(found)


@lru_cache(maxsize=1024)
def parts_of(dtype: np.dtype[Any], heights: frozenset[int], widths: tuple[bool, bool], biases: str) -> np.ndarray:
    """Return where the tiles that `multiply` takes are: whole ones or half ones, or both, as ``widths`` tells."""
    return jit.addresses(
        tuple(
            _TILES[rows, columns, biases] if there and rows in heights else None
            for columns, there in zip(_COLUMNS, widths, strict=True)
            for rows in range(LEAST_ROWS, ROWS + 1)
        ),
        dtype,
    )


@jit.inline
def multiply(  # type: ignore[no-untyped-def]
    tiles, half, result, at, pitch, to_lower, to_right, numbers, first, apart, step, to_next, vectors, source, elements,
    chain, count, skip, bias, k, to_bias, epilogue, memory, asked,
):  # fmt: skip
    """Write four quarters of a product: of ``count`` rows of each half of one matrix, with vectors of the other.

    The seven sums of the rows begin with ``numbers[first]``; rows are ``apart``, their elements a ``step``, and sums
    ``to_next``. Those of the vectors follow each other from ``vectors[source]`` on, as long as a tile's row, or ``half`` of
    it. Results of A1 and B1 belong to ``result[at]``, where rows are ``pitch`` apart, those of A2 ``to_lower`` and of B2
    ``to_right`` behind. There are ``count`` rows, whose biases, from ``bias[k]`` on, are ``skip`` apart.

    Meanwhile the pixels of the unit that comes next are ``asked`` for: an array, where they begin, how far apart channels
    are, and how many.
    """
    number, least, higher = share_out(count, 1)
    x, next_unit, to_channel, channels = asked
    share = (channels + 7 * number - 1) // (7 * number)
    for more in range(2):
        some = number - higher if more == 0 else higher
        rows = least + more
        if some > 0:
            _call(
                tiles[rows - LEAST_ROWS + (_HEIGHTS if half else 0)],
                (result, at, pitch, to_lower, to_right, numbers, first, apart, step, to_next, vectors, source, elements, chain,
                 some, skip, bias, k, to_bias, epilogue, memory, x, next_unit, to_channel, channels, share),
            )  # fmt: skip
        at += some * rows * pitch
        first += some * rows * apart
        k += some * rows * skip
        done = min(7 * some * share, channels)
        next_unit += done * to_channel
        channels -= done

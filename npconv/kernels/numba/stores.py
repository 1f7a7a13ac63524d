"""Ways to write a tile's vectors: some of their numbers, two in turns, or the sums of their lanes.

Arrays are given flat, with the index of the first element, and nothing is checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from npconv.kernels.numba.tile import Tile, order_of, pointer_to, repeated, sum_of, vectors_at


@intrinsic
def store_some(typing: Any, tile: Any, out: Any, i: Any, step: Any, count: Any) -> Any:
    """Write the first ``count`` rows of a tile, or all it has, to ``out[i + row * step:]``."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, out, i, step, count = arguments

        def store(row: int) -> None:
            at = builder.add(i, builder.mul(step, step.type(row)))
            pointers = vectors_at(builder, tile, pointer_to(context, builder, signature.args[1], out, at))
            for column, pointer in enumerate(pointers):
                vector = builder.extract_value(result, row * tile.columns + column)
                builder.store(vector, pointer, align=tile.dtype.bitwidth // 8)

        with builder.if_else(builder.icmp_signed(">=", count, count.type(tile.rows))) as (all_rows, some):
            with all_rows:
                for row in range(tile.rows):
                    store(row)
            with some:
                for row in range(tile.rows - 1):
                    with builder.if_then(builder.icmp_signed(">", count, count.type(row))):
                        store(row)
        return context.get_dummy_value()

    return types.none(tile, out, types.int64, types.int64, types.int64), code


@intrinsic
def store_merged(typing: Any, tile: Any, out: Any, i: Any, step: Any) -> Any:
    """Write the two columns of each row of a tile to ``out[i + row * step:]``, a number of each in turns."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, out, i, step = arguments
        for row in range(tile.rows):
            both = [builder.extract_value(result, 2 * row + column) for column in range(2)]
            at = builder.add(i, builder.mul(step, step.type(row)))
            _store_in_turns(builder, tile, both, pointer_to(context, builder, signature.args[1], out, at))
        return context.get_dummy_value()

    return types.none(tile, out, types.int64, types.int64), code


@intrinsic
def store_pairs(typing: Any, tile: Any, out: Any, starts: Any, i: Any) -> Any:
    """Write each two rows of a tile to ``out[starts[pair] + i:]``, a number of each in turns."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, out, starts, i = arguments
        for pair, start in enumerate(cgutils.unpack_tuple(builder, starts, signature.args[2].count)):
            at = pointer_to(context, builder, signature.args[1], out, builder.add(start, i))
            for column in range(tile.columns):
                both = [builder.extract_value(result, (2 * pair + odd) * tile.columns + column) for odd in range(2)]
                _store_in_turns(builder, tile, both, builder.gep(at, [ir.IntType(64)(2 * column * tile.lanes)]))
        return context.get_dummy_value()

    return types.none(tile, out, starts, types.int64), code


@intrinsic
def store_beside(typing: Any, tile: Any, column: Any, k: Any, out: Any, starts: Any, i: Any) -> Any:
    """Write each row of a tile to ``out[starts[row] + i:]``, a number of it and ``column[k + row]`` in turns."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, column, k, out, starts, i = arguments
        numbers = pointer_to(context, builder, signature.args[1], column, k)
        for row, start in enumerate(cgutils.unpack_tuple(builder, starts, signature.args[4].count)):
            other = repeated(builder, builder.load(builder.gep(numbers, [ir.IntType(64)(row)])), tile.lanes)
            at = pointer_to(context, builder, signature.args[3], out, builder.add(start, i))
            for n in range(tile.columns):
                both = [builder.extract_value(result, row * tile.columns + n), other]
                _store_in_turns(builder, tile, both, builder.gep(at, [ir.IntType(64)(2 * n * tile.lanes)]))
        return context.get_dummy_value()

    return types.none(tile, column, types.int64, out, starts, types.int64), code


def _store_in_turns(builder: Any, tile: Any, both: list[Any], pointer: Any) -> None:
    """Write two vectors, a number of each in turns."""
    for half, place in enumerate(vectors_at(builder, Tile(tile.dtype, 1, 2), pointer)):
        first = half * tile.lanes // 2
        order = order_of([first + lane // 2 + lane % 2 * tile.lanes for lane in range(tile.lanes)])
        builder.store(builder.shuffle_vector(*both, order), place, align=tile.dtype.bitwidth // 8)


@intrinsic
def store_sums(typing: Any, tile: Any, out: Any, i: Any) -> Any:
    """Write the sum of the lanes of each row of a tile, a vector wide, to ``out[i + row]``.

    Of as many rows at a time as there are lanes, or of a power of two less: three instructions a row, where one row by
    itself takes nine.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, out, i = arguments
        row, together = 0, tile.lanes
        while row < tile.rows:
            while together > tile.rows - row:
                together //= 2
            vectors = [builder.extract_value(result, row + n) for n in range(together)]
            at = pointer_to(context, builder, signature.args[1], out, builder.add(i, ir.IntType(64)(row)))
            sums = _sums_of_lanes(builder, tile, vectors)
            builder.store(sums, builder.bitcast(at, sums.type.as_pointer()), align=tile.dtype.bitwidth // 8)
            row += together
        return context.get_dummy_value()

    return types.none(tile, out, types.int64), code


def _sums_of_lanes(builder: Any, tile: Any, vectors: list[Any]) -> Any:
    """Return a vector of the sums of each vector's lanes, of as many vectors as lanes or a power of two less.

    Two vectors become one by adding what two shuffles take from both: within units of 16 bytes first, which are whole
    instructions, then units. Number n of a unit belongs to vector n % held.
    """
    lanes, unit, held = tile.lanes, 128 // tile.dtype.bitwidth, 1

    def added(a: Any, b: Any, order: Any) -> Any:
        halves = len(order) // 2
        parts = (builder.shuffle_vector(a, b, order_of(some)) for some in (order[:halves], order[halves:]))
        return sum_of(builder, tile, *parts)

    def paired(order: Any) -> list[Any]:
        return [added(a, b, order) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]

    def of_units(number: int) -> Any:
        return [n * unit + lane for odd in (0, 1) for n in range(odd, number, 2) for lane in range(unit)]

    while held < unit and len(vectors) > 1:
        vectors = paired(
            [
                of + start + half + first + n
                for half in (0, unit // 2)
                for start in range(0, lanes, unit)
                for first in range(0, unit // 2, held)
                for of in (0, lanes)
                for n in range(held)
            ]
        )
        held *= 2
    count = len(vectors)
    while len(vectors) > 1:
        vectors = paired(of_units(2 * lanes // unit))
    (vector,), number = vectors, lanes // unit
    while number > count:
        vector, number = added(vector, vector, of_units(number)), number // 2
    while unit > held:
        unit //= 2
        vector = added(vector, vector, range(2 * unit))
    return vector

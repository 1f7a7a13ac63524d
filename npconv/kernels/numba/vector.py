"""Vectors and register tiles for Numba: what LLVM keeps in registers, in plain Python.

A `Tile` holds rows × columns vectors of accumulators. Kernels create one with `zeros`, feed it with `multiply_add` in a
plain Python loop and write it with `add_to`; as a local value of known shape it lives in registers, and the loop runs
at the machine's peak: 6 × 2 vectors of 8 float32 reach 116 GFLOP/s on one Zen 4 core. Plain loops over arrays do not
get there: LLVM neither tiles them nor knows that the arrays do not overlap.

Arrays are given flat, with the index of the first element; nothing is checked, loads and stores may be unaligned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from npconv.kernels.numba.tile import (
    VECTOR_BYTES,
    Tile,
    data_of,
    kept_where,
    lanes_within,
    last_rows,
    pointer_to,
    product_and_sum,
    repeated,
    sum_of,
    vector_at,
    vectors_at,
)


@intrinsic
def lanes_of(typing: Any, array: Any) -> Any:
    """Return how many numbers of an array's dtype a vector holds: a constant, as ``array.itemsize`` is not.

    With lanes from ``itemsize``, each copy of a row began with a division, and LLVM unrolled its loop by sixteen
    addresses that it kept in memory: 40 ns for what takes 10.
    """
    lanes = VECTOR_BYTES * 8 // array.dtype.bitwidth

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.IntType(64)(lanes)

    return types.int64(array), code


@intrinsic(prefer_literal=True)
def zeros(typing: Any, array: Any, rows: Any, columns: Any) -> Any:
    """Return a tile of zeros of the array's dtype; ``rows`` and ``columns`` are literals."""
    tile = Tile(array.dtype, rows.literal_value, columns.literal_value)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(tile), None)

    return tile(array, rows, columns), code


@intrinsic(prefer_literal=True)
def filled(typing: Any, array: Any, i: Any, rows: Any, columns: Any) -> Any:
    """Return a tile of ``array[i]`` everywhere; ``rows`` and ``columns`` are literals."""
    tile = Tile(array.dtype, rows.literal_value, columns.literal_value)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = builder.load(pointer_to(context, builder, signature.args[0], *arguments[:2]))
        vector, result = repeated(builder, number, tile.lanes), ir.Constant(context.get_value_type(tile), None)
        for at in range(tile.rows * tile.columns):
            result = builder.insert_value(result, vector, at)
        return result

    return tile(array, types.int64, rows, columns), code


@intrinsic(prefer_literal=True)
def starts_from(typing: Any, i: Any, step: Any, rows: Any) -> Any:
    """Return ``i, i + step, i + 2 * step, ...`` as a tuple: where each row's numbers begin; ``rows`` is a literal."""
    number = rows.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        i, step, _ = arguments
        values = [builder.add(i, builder.mul(step, step.type(row))) for row in range(number)]
        return context.make_tuple(builder, signature.return_type, values)

    return types.containers.UniTuple(types.int64, number)(types.int64, types.int64, rows), code


@intrinsic(prefer_literal=True)
def load(typing: Any, array: Any, i: Any, rows: Any, columns: Any) -> Any:
    """Return ``array[i:]`` as a tile; ``rows`` and ``columns`` are literals."""
    tile = Tile(array.dtype, rows.literal_value, columns.literal_value)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = ir.Constant(context.get_value_type(tile), None)
        for row in range(tile.rows):
            start = builder.add(arguments[1], ir.IntType(64)(row * tile.columns * tile.lanes))
            pointers = vectors_at(builder, tile, pointer_to(context, builder, array, arguments[0], start))
            for column, pointer in enumerate(pointers):
                vector = vector_at(builder, pointer, tile)
                result = builder.insert_value(result, vector, row * tile.columns + column)
        return result

    return tile(array, types.int64, rows, columns), code


@intrinsic
def multiply_add(typing: Any, tile: Any, a: Any, starts: Any, i: Any, b: Any, j: Any) -> Any:
    """Return the tile with ``a[starts[row] + i] * b[j:]`` added to each row; to the last rows if starts are fewer."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, a, starts, i, b, j = arguments
        numbers = data_of(context, builder, signature.args[1], a)
        vectors = vectors_at(builder, tile, pointer_to(context, builder, signature.args[4], b, j))
        loaded = [vector_at(builder, vector, tile) for vector in vectors]
        for row, start in last_rows(builder, tile, signature.args[2], starts):
            # The row's part first, which does not change in a loop over i: one register for each row, and one for i.
            scalar = builder.load(builder.gep(builder.gep(numbers, [start]), [i]))
            broadcast = repeated(builder, scalar, tile.lanes)
            for column, vector in enumerate(loaded):
                at = row * tile.columns + column
                total = product_and_sum(builder, tile, broadcast, vector, builder.extract_value(result, at))
                result = builder.insert_value(result, total, at)
        return result

    return tile(tile, a, starts, types.int64, b, types.int64), code


@intrinsic
def multiply_add_rows(typing: Any, tile: Any, a: Any, starts: Any, i: Any, b: Any, j: Any) -> Any:
    """Return the tile with ``a[starts[row] + i:] * b[j:]``, element by element, added to each row, or its last rows."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, a, starts, i, b, j = arguments
        vectors = vectors_at(builder, tile, pointer_to(context, builder, signature.args[4], b, j))
        loaded = [vector_at(builder, vector, tile) for vector in vectors]
        numbers = data_of(context, builder, signature.args[1], a)
        for row, start in last_rows(builder, tile, signature.args[2], starts):
            others = vectors_at(builder, tile, builder.gep(builder.gep(numbers, [start]), [i]))
            for column, (vector, other) in enumerate(zip(loaded, others, strict=True)):
                at = row * tile.columns + column
                number = vector_at(builder, other, tile)
                total = product_and_sum(builder, tile, number, vector, builder.extract_value(result, at))
                result = builder.insert_value(result, total, at)
        return result

    integer = types.int64
    return tile(tile, a, starts, integer, b, integer), code


@intrinsic
def multiply_add_pairs(typing: Any, tile: Any, a: Any, starts: Any, i: Any, b: Any, others: Any, j: Any) -> Any:
    """Return the tile, a vector wide, with the products of vectors, each of ``a`` with each of ``b``, added.

    Row ``m * len(others) + n`` gets ``a[starts[m] + i:] * b[others[n] + j:]``, element by element.
    """
    return _adding_pairs(tile, a, starts, b, others)


@intrinsic
def multiply_add_parts(
    typing: Any, tile: Any, a: Any, starts: Any, i: Any, b: Any, others: Any, j: Any, count: Any
) -> Any:
    """Do the same with the first ``count`` numbers of each vector, and zeros for the others."""
    return _adding_pairs(tile, a, starts, b, others, part="first")


@intrinsic
def multiply_add_ends(
    typing: Any, tile: Any, a: Any, starts: Any, i: Any, b: Any, others: Any, j: Any, count: Any
) -> Any:
    """Do the same with the last ``count``."""
    return _adding_pairs(tile, a, starts, b, others, part="last")


def _adding_pairs(tile: Any, a: Any, starts: Any, b: Any, others: Any, part: str = "") -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, a, starts, i, b, others, j, *counts = arguments
        within = None
        if part:
            first = ir.IntType(64)(0) if part == "first" else builder.sub(counts[0], ir.IntType(64)(tile.lanes))
            within = lanes_within(builder, tile.lanes, first, counts[0], 0, 1)

        def loaded(array: int, numbers: Any, start: Any, i: Any) -> Any:
            data = data_of(context, builder, signature.args[array], numbers)
            (pointer,) = vectors_at(builder, tile, builder.gep(builder.gep(data, [start]), [i]))
            vector = vector_at(builder, pointer, tile)
            return kept_where(builder, within, vector) if part else vector

        starts, others = (
            cgutils.unpack_tuple(builder, some, signature.args[n].count) for n, some in ((2, starts), (5, others))
        )
        met = [loaded(1, a, start, i) for start in starts]
        for column, other in enumerate(others):  # one of them at a time, so that there are registers for all
            vector = loaded(4, b, other, j)
            for row, number in enumerate(met):
                at = row * len(others) + column
                total = product_and_sum(builder, tile, number, vector, builder.extract_value(result, at))
                result = builder.insert_value(result, total, at)
        return result

    integer = types.int64
    return tile(tile, a, starts, integer, b, others, integer, *[integer] * bool(part)), code


@intrinsic
def top(typing: Any, tile: Any) -> Any:
    """Return a tile's first row."""
    row = Tile(tile.dtype, 1, tile.columns)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = ir.Constant(context.get_value_type(row), None)
        for column in range(tile.columns):
            result = builder.insert_value(result, builder.extract_value(arguments[0], column), column)
        return result

    return row(tile), code


@intrinsic
def scrolled(typing: Any, tile: Any) -> Any:
    """Return the tile with each row in the place of the one before it, and zeros in the last one."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = ir.Constant(context.get_value_type(tile), None)
        for at in range(tile.columns, tile.rows * tile.columns):
            result = builder.insert_value(result, builder.extract_value(arguments[0], at), at - tile.columns)
        return result

    return tile(tile), code


@intrinsic
def add(typing: Any, tile: Any, other: Any) -> Any:
    """Return the sum of two tiles."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, other = arguments
        for at in range(tile.rows * tile.columns):
            total = sum_of(builder, tile, builder.extract_value(result, at), builder.extract_value(other, at))
            result = builder.insert_value(result, total, at)
        return result

    return tile(tile, tile), code


@intrinsic
def larger(typing: Any, tile: Any, array: Any, i: Any) -> Any:
    """Return the larger of a row's numbers and those of ``array[i:]``, whose signs and NaN are left out."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, array, i = arguments
        for at, pointer in enumerate(
            vectors_at(builder, tile, pointer_to(context, builder, signature.args[1], array, i))
        ):
            vector = vector_at(builder, pointer, tile)
            name = f"llvm.fabs.v{tile.lanes}f{tile.dtype.bitwidth}"
            kind = ir.FunctionType(vector.type, [vector.type])
            size = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [vector])
            before = builder.extract_value(result, at)
            found = builder.select(builder.fcmp_ordered(">", size, before), size, before)
            result = builder.insert_value(result, found, at)
        return result

    return tile(tile, array, types.int64), code


@intrinsic
def add_row(typing: Any, tile: Any, row: Any, j: Any) -> Any:
    """Return the tile with ``row[j:]`` added to each row."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, row, j = arguments
        vectors = vectors_at(builder, tile, pointer_to(context, builder, signature.args[1], row, j))
        added = [vector_at(builder, vector, tile) for vector in vectors]
        for at in range(tile.rows * tile.columns):
            total = sum_of(builder, tile, builder.extract_value(result, at), added[at % tile.columns])
            result = builder.insert_value(result, total, at)
        return result

    return tile(tile, row, types.int64), code


@intrinsic
def add_column(typing: Any, tile: Any, column: Any, i: Any) -> Any:
    """Return the tile with ``column[i + row]`` added to each number of each row."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, column, i = arguments
        numbers = pointer_to(context, builder, signature.args[1], column, i)
        for row in range(tile.rows):
            added = repeated(builder, builder.load(builder.gep(numbers, [ir.IntType(64)(row)])), tile.lanes)
            for at in range(row * tile.columns, (row + 1) * tile.columns):
                result = builder.insert_value(
                    result, sum_of(builder, tile, builder.extract_value(result, at), added), at
                )
        return result

    return tile(tile, column, types.int64), code


@intrinsic
def activated(typing: Any, tile: Any, epilogue: Any) -> Any:
    """Return a tile's activation, (_, slope, low, high): negative numbers times the slope, then clipped; NaN kept."""
    return _activating(tile, epilogue, sloping=True)


def activation_of(epilogue: np.ndarray) -> int:
    """Return 0 if an epilogue has no activation, 1 if one that clips, and 2 if one with a slope: see `activating`."""
    return 0 if epilogue[0] == 0 else 1 if epilogue[1] == 1 else 2


def activating(activation: int) -> Any:
    """Return an intrinsic that applies an activation of this kind to a tile, as `activated` does, or none.

    Depthwise kernels are compiled for each: to ask for it took registers from their weights, and a slope, which few
    have, a tenth longer.
    """

    @intrinsic
    def finished(typing: Any, tile: Any, epilogue: Any) -> Any:
        if activation == 0:
            return tile(tile, epilogue), lambda context, builder, signature, arguments: arguments[0]
        return _activating(tile, epilogue, sloping=activation == 2)

    return finished


def _activating(tile: Any, epilogue: Any, sloping: bool) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, epilogue = arguments
        numbers = data_of(context, builder, signature.args[1], epilogue)
        slope, low, high = (
            repeated(builder, builder.load(builder.gep(numbers, [ir.IntType(64)(n)])), tile.lanes) for n in (1, 2, 3)
        )
        for at in range(tile.rows * tile.columns):
            number = builder.extract_value(result, at)
            if sloping:
                negative = builder.fcmp_ordered("<", number, ir.Constant(number.type, None))
                number = builder.select(negative, builder.fmul(number, slope), number)
            number = builder.select(builder.fcmp_ordered("<", number, low), low, number)
            number = builder.select(builder.fcmp_ordered(">", number, high), high, number)
            result = builder.insert_value(result, number, at)
        return result

    return tile(tile, epilogue), code


@intrinsic
def add_to(typing: Any, tile: Any, out: Any, i: Any, step: Any) -> Any:
    """Add each row of the tile to ``out[i + row * step:]``."""
    return _storing(tile, out, i, step, added=True)


@intrinsic
def add_from(typing: Any, tile: Any, array: Any, i: Any, step: Any) -> Any:
    """Return the tile with ``array[i + row * step:]`` added to each row."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, array, i, step = arguments
        for row in range(tile.rows):
            start = builder.add(i, builder.mul(step, step.type(row)))
            pointers = vectors_at(builder, tile, pointer_to(context, builder, signature.args[1], array, start))
            for column, pointer in enumerate(pointers):
                at = row * tile.columns + column
                vector = sum_of(builder, tile, vector_at(builder, pointer, tile), builder.extract_value(value, at))
                value = builder.insert_value(value, vector, at)
        return value

    return tile(tile, array, types.int64, types.int64), code


@intrinsic
def store(typing: Any, tile: Any, out: Any, i: Any, step: Any) -> Any:
    """Write each row of the tile to ``out[i + row * step:]``."""
    return _storing(tile, out, i, step, added=False)


def _storing(tile: Any, out: Any, i: Any, step: Any, added: bool) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, out, i, step = arguments
        for row in range(tile.rows):
            start = builder.add(i, builder.mul(step, step.type(row)))
            pointers = vectors_at(builder, tile, pointer_to(context, builder, signature.args[1], out, start))
            for column, pointer in enumerate(pointers):
                vector = builder.extract_value(value, row * tile.columns + column)
                if added:
                    vector = sum_of(builder, tile, vector_at(builder, pointer, tile), vector)
                builder.store(vector, pointer, align=tile.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(tile, out, types.int64, types.int64), code


@intrinsic
def prefetch(typing: Any, array: Any, i: Any) -> Any:
    """Ask for the line of the cache that ``array[i]`` lies in; nothing happens where there is none."""
    return _asking(array, to_write=0)


@intrinsic
def prefetch_to_write(typing: Any, array: Any, i: Any) -> Any:
    """Do the same for a line that will be written, and that no other core shall keep."""
    return _asking(array, to_write=1)


@intrinsic
def fence(typing: Any) -> Any:
    """Let other threads see what is stored before whatever comes after: for what is written past the caches."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), code


def _asking(array: Any, to_write: int) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = pointer_to(context, builder, signature.args[0], *arguments)
        byte, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [builder.bitcast(pointer, byte), integer(to_write), integer(3), integer(1)])
        return context.get_dummy_value()

    return types.none(array, types.int64), code

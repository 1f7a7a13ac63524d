"""Vectors and register tiles for Numba: what LLVM keeps in registers, in plain Python.

A `Tile` holds rows × columns vectors of accumulators. Kernels create one with `zeros`, feed it with `multiply_add` in a
plain Python loop and write it with `add_to`; as a local value of known shape it lives in registers, and the loop runs
at the machine's peak: 6 × 2 vectors of 8 float32 reach 116 GFLOP/s on one Zen 4 core. Plain loops over arrays do not
get there: LLVM neither tiles them nor knows that the arrays do not overlap.

Arrays are given flat, with the index of the first element; nothing is checked, loads and stores may be unaligned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model


def _vector_bytes() -> int:
    """Return the width of the vectors of the machine that Numba compiles for (``NUMBA_CPU_FEATURES``)."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if "+avx512f" in features:
        return 64
    return 32 if "+avx" in features else 16


VECTOR_BYTES = _vector_bytes()

ROWS = 6
"""Rows of the largest tile: 6 × 2 accumulators, 2 vectors of a row and 1 broadcast fill the 16 registers of AVX2."""

COLUMNS = 2
"""Vectors in a tile's row."""


class Tile(types.Type):
    """The type of a register tile of ``rows`` × ``columns`` vectors of ``lanes`` numbers."""

    def __init__(self, dtype: Any, rows: int, columns: int) -> None:
        self.dtype, self.rows, self.columns = dtype, rows, columns
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(f"Tile({dtype} x {self.lanes}, {rows}, {columns})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        element = manager.lookup(tile.dtype).get_value_type()
        super().__init__(manager, tile, ir.ArrayType(ir.VectorType(element, tile.lanes), tile.rows * tile.columns))


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
def starts_at(typing: Any, table: Any, i: Any, rows: Any) -> Any:
    """Return ``table[i : i + rows]`` as a tuple: where each row's numbers begin; ``rows`` is a literal."""
    number = rows.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        values = [builder.load(builder.gep(pointer, [ir.IntType(64)(row)])) for row in range(number)]
        return context.make_tuple(builder, signature.return_type, values)

    return types.containers.UniTuple(types.int64, number)(table, i, rows), code


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
            pointers = _vectors(builder, tile, _pointer(context, builder, array, arguments[0], start))
            for column, pointer in enumerate(pointers):
                vector = _load(builder, pointer, tile)
                result = builder.insert_value(result, vector, row * tile.columns + column)
        return result

    return tile(array, types.int64, rows, columns), code


def _last_rows(builder: Any, tile: Tile, kind: Any, starts: Any) -> Any:
    """Return the numbers of a tile's last rows, as many as there are starts, with their starts."""
    return enumerate(cgutils.unpack_tuple(builder, starts, kind.count), tile.rows - kind.count)


@intrinsic
def multiply_add(typing: Any, tile: Any, a: Any, starts: Any, i: Any, b: Any, j: Any) -> Any:
    """Return the tile with ``a[starts[row] + i] * b[j:]`` added to each row; to the last rows if starts are fewer."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, a, starts, i, b, j = arguments
        numbers = context.make_array(signature.args[1])(context, builder, a).data
        vectors = _vectors(builder, tile, _pointer(context, builder, signature.args[4], b, j))
        loaded = [_load(builder, vector, tile) for vector in vectors]
        for row, start in _last_rows(builder, tile, signature.args[2], starts):
            # The row's part first, which does not change in a loop over i: one register for each row, and one for i.
            scalar = builder.load(builder.gep(builder.gep(numbers, [start]), [i]))
            broadcast = _broadcast(builder, scalar, tile.lanes)
            for column, vector in enumerate(loaded):
                at = row * tile.columns + column
                total = _fused(builder, tile, broadcast, vector, builder.extract_value(result, at))
                result = builder.insert_value(result, total, at)
        return result

    return tile(tile, a, starts, types.int64, b, types.int64), code


@intrinsic
def multiply_add_rows(typing: Any, tile: Any, a: Any, starts: Any, i: Any, b: Any, j: Any) -> Any:
    """Return the tile with ``a[starts[row] + i:] * b[j:]``, element by element, added to each row, or its last rows."""
    return _adding_rows(tile, a, starts, b, part=False)


@intrinsic
def multiply_add_part(typing: Any, tile: Any, a: Any, starts: Any, i: Any, b: Any, j: Any, count: Any) -> Any:
    """Do the same with the first ``count`` numbers of each row of ``a`` and zeros for the others."""
    return _adding_rows(tile, a, starts, b, part=True)


def _adding_rows(tile: Any, a: Any, starts: Any, b: Any, part: bool) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, a, starts, i, b, j = arguments[:6]
        vectors = _vectors(builder, tile, _pointer(context, builder, signature.args[4], b, j))
        loaded = [_load(builder, vector, tile) for vector in vectors]
        numbers = context.make_array(signature.args[1])(context, builder, a).data
        if part:
            index = ir.IntType(64)
            lanes = ir.Constant(ir.VectorType(index, tile.lanes), list(range(tile.lanes)))
            within = builder.icmp_signed("<", lanes, _broadcast(builder, arguments[6], tile.lanes))
        for row, start in _last_rows(builder, tile, signature.args[2], starts):
            others = _vectors(builder, tile, builder.gep(builder.gep(numbers, [start]), [i]))
            for column, (vector, other) in enumerate(zip(loaded, others, strict=True)):
                at = row * tile.columns + column
                number = _load(builder, other, tile)
                if part:
                    number = builder.select(within, number, ir.Constant(number.type, None))
                total = _fused(builder, tile, number, vector, builder.extract_value(result, at))
                result = builder.insert_value(result, total, at)
        return result

    integer = types.int64
    return tile(tile, a, starts, integer, b, integer, *[integer] * part), code


def _taps(
    builder: Any, tile: Tile, taps: int, stride: int, dense: bool, pointer: Any, step: Any
) -> Iterator[list[Any]]:
    """Yield, for each of the taps of a row, the vectors that it meets from ``pointer`` on.

    Taps are ``step`` apart, or one if ``dense``. The stride is 1 or 2, where two vectors are loaded for every second
    number of each, and one number more is read than is met.
    """
    lane = ir.IntType(32)
    wide = Tile(tile.dtype, 1, tile.columns * stride)
    loaded: list[Any] = []
    for m in range(taps):
        second = stride == 2 and dense and m % 2 == 1  # the numbers between those of the tap before
        if not second:
            away = step.type(m) if dense else builder.mul(step, step.type(m))
            row = _vectors(builder, wide, builder.gep(pointer, [away]))
            loaded = [_load(builder, vector, tile) for vector in row]
        wanted = ir.Constant(ir.VectorType(lane, tile.lanes), [second + 2 * k for k in range(tile.lanes)])
        yield (
            loaded
            if stride == 1
            else [builder.shuffle_vector(*loaded[n : n + 2], wanted) for n in range(0, len(loaded), 2)]
        )


def taps_of_row(taps: int, stride: int, dense: bool, masked: bool) -> Any:
    """Return an intrinsic that adds the products of a row of taps to a tile.

    ``add_taps(tile, a, starts, i, b, j, step, column, width)`` lets tap m meet, in lane l, the number ``b[j + m * step
    + l * stride]``, which is column ``column + m * step + l * stride`` of an image, and in each row of the tile, or its
    last rows if starts are fewer, ``a[starts[row] + i + m * len(starts)]``. If ``masked``, columns may lie beyond the
    image's ``width`` and are zeros there, whatever was loaded.
    """

    @intrinsic
    def add_taps(
        typing: Any, tile: Any, a: Any, starts: Any, i: Any, b: Any, j: Any, step: Any, column: Any, width: Any
    ) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result, a, _, i, b, j, step, column, width = arguments
            index = ir.IntType(64)
            numbers = context.make_array(signature.args[1])(context, builder, a).data
            pointer = _pointer(context, builder, signature.args[4], b, j)
            for m, met in enumerate(_taps(builder, tile, taps, stride, dense, pointer, step)):
                if masked:
                    first = builder.add(column, index(m) if dense else builder.mul(step, index(m)))
                    met = [
                        _where(builder, _within(builder, tile.lanes, first, width, n * tile.lanes, stride), vector)
                        for n, vector in enumerate(met)
                    ]
                for row, start in _last_rows(builder, tile, signature.args[2], arguments[2]):
                    at = builder.add(i, index(m * starts.count))
                    scalar = builder.load(builder.gep(builder.gep(numbers, [start]), [at]))
                    broadcast = _broadcast(builder, scalar, tile.lanes)
                    for n, vector in enumerate(met):
                        place = row * tile.columns + n
                        total = _fused(builder, tile, broadcast, vector, builder.extract_value(result, place))
                        result = builder.insert_value(result, total, place)
            return result

        integer = types.int64
        return tile(tile, a, starts, integer, b, integer, integer, integer, integer), code

    return add_taps


def rows_of_taps(
    rows: int, taps: int, stride: int, dense: bool, masked: str = "", together: int = 1, pace: int = 1
) -> Any:
    """Return an intrinsic that adds the products of a few vectors with what each meets in some rows of an image.

    ``add_products(tile, a, i, line, count, b, j, lines, step, column, width)`` adds, to row ``row * taps + m`` of the
    tile, a vector wide, ``a[i + k * line + l]`` for each of ``together`` k times the number ``b[j + lines[k * pace +
    row, 0] + m * step + l * stride]``, which is column ``column + m * step + l * stride`` of the image: a line of it is
    loaded once for all. If ``masked``, only the first ``count`` lanes are added, and columns that are not within
    ``width`` count as zeros; within ``lines[..., 1]`` if by ``"rows"``.
    """

    @intrinsic
    def add_products(
        typing: Any, tile: Any, a: Any, i: Any, line: Any, count: Any, b: Any, j: Any, lines: Any, step: Any,
        column: Any, width: Any,
    ) -> Any:  # fmt: skip
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result, a, i, line, count, b, j, lines, step, column, width = arguments
            index = ir.IntType(64)
            counted = _within(builder, tile.lanes, index(0), count, 0, 1)
            numbers = []
            for k in range(together):
                at = builder.add(i, builder.mul(line, index(k)))
                (pointer,) = _vectors(builder, tile, _pointer(context, builder, signature.args[1], a, at))
                vector = _load(builder, pointer, tile)
                numbers.append(_where(builder, counted, vector) if masked else vector)
            table = context.make_array(signature.args[7])(context, builder, lines).data
            for place in range((together - 1) * pace + rows):
                start = builder.add(j, builder.load(builder.gep(table, [index(2 * place)])))
                if masked == "rows":
                    width = builder.load(builder.gep(table, [index(2 * place + 1)]))
                pointer = _pointer(context, builder, signature.args[5], b, start)
                for m, (met,) in enumerate(_taps(builder, tile, taps, stride, dense, pointer, step)):
                    if masked:
                        first = builder.add(column, index(m) if dense else builder.mul(step, index(m)))
                        there = _within(builder, tile.lanes, first, width, 0, stride)
                        met = _where(builder, builder.and_(there, counted), met)
                    for k, vector in enumerate(numbers):
                        if 0 <= place - k * pace < rows:
                            at = (place - k * pace) * taps + m
                            total = _fused(builder, tile, vector, met, builder.extract_value(result, at))
                            result = builder.insert_value(result, total, at)
            return result

        integer = types.int64
        return tile(tile, a, integer, integer, integer, b, integer, lines, integer, integer, integer), code

    return add_products


def spread_taps(taps: int, odd: bool, masked: bool) -> Any:
    """Return an intrinsic that adds what a row of pixels gives to every second pixel of a row, and to those between.

    ``add_spread(tile, a, i, b, j, column, width)`` adds, to the even and the odd numbers of a row (a tile of one row
    and two columns), ``a[i + m]`` times the pixel that tap m lets reach them, a vector for each. Tap m takes pixel c,
    which is ``b[j + c]``, to 2 c + m, less one if ``odd``. If ``masked``, pixels ``column + c`` that are not within
    ``width`` count as zeros.
    """

    @intrinsic
    def add_spread(typing: Any, tile: Any, a: Any, i: Any, b: Any, j: Any, column: Any, width: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result, a, i, b, j, column, width = arguments
            index = ir.IntType(64)
            weights = _pointer(context, builder, signature.args[1], a, i)
            row = Tile(tile.dtype, 1, 1)
            loaded: dict[int, Any] = {}
            for m in range(taps):
                half, away = (m - odd) % 2, -((m - odd) // 2)
                if away not in loaded:
                    at = builder.add(j, index(away))
                    (pointer,) = _vectors(builder, row, _pointer(context, builder, signature.args[3], b, at))
                    vector = _load(builder, pointer, tile)
                    if masked:
                        first = builder.add(column, index(away))
                        vector = _where(builder, _within(builder, tile.lanes, first, width, 0, 1), vector)
                    loaded[away] = vector
                scalar = _broadcast(builder, builder.load(builder.gep(weights, [index(m)])), tile.lanes)
                total = _fused(builder, tile, scalar, loaded[away], builder.extract_value(result, half))
                result = builder.insert_value(result, total, half)
            return result

        integer = types.int64
        return tile(tile, a, integer, b, integer, integer, integer), code

    return add_spread


@intrinsic
def store_merged(typing: Any, tile: Any, out: Any, i: Any) -> Any:
    """Write the two columns of a tile's row to ``out[i:]``, a number of each in turns."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, out, i = arguments
        both = [builder.extract_value(result, column) for column in range(2)]
        pointers = _vectors(builder, tile, _pointer(context, builder, signature.args[1], out, i))
        for half, pointer in enumerate(pointers):
            first = half * tile.lanes // 2
            order = _order([first + lane // 2 + lane % 2 * tile.lanes for lane in range(tile.lanes)])
            builder.store(builder.shuffle_vector(*both, order), pointer, align=tile.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(tile, out, types.int64), code


@intrinsic
def store_sums(typing: Any, tile: Any, out: Any, i: Any) -> Any:
    """Write the sum of the lanes of each row of a tile, a vector wide, to ``out[i + row]``."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, out, i = arguments
        for row in range(tile.rows):
            vector, lanes = builder.extract_value(result, row), tile.lanes
            while lanes > 1:
                lanes //= 2
                parts = [
                    builder.shuffle_vector(vector, vector, _order(range(first, first + lanes))) for first in (0, lanes)
                ]
                vector = _add(builder, tile, *parts)
            total = builder.extract_element(vector, ir.IntType(32)(0))
            builder.store(
                total, _pointer(context, builder, signature.args[1], out, builder.add(i, ir.IntType(64)(row)))
            )
        return context.get_dummy_value()

    return types.none(tile, out, types.int64), code


def kept_lines(lines: int, first: int, rows: int) -> Any:
    """Return an intrinsic that adds the products of a few lines of an image with weights that are kept in registers.

    ``add_lines(tile, kept, table, b, j)`` adds ``b[j + table[line, 0]:]`` times a row of the tile ``kept``, element by
    element, to each of the last ``rows`` of a tile, line after line, from the row ``first`` of ``kept`` on.
    """

    @intrinsic
    def add_lines(typing: Any, tile: Any, kept: Any, table: Any, b: Any, j: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result, kept, table, b, j = arguments
            at = first * tile.columns
            for line in range(lines):
                offset = builder.load(_pointer(context, builder, signature.args[2], table, ir.IntType(64)(2 * line)))
                pointer = _pointer(context, builder, signature.args[3], b, builder.add(j, offset))
                loaded = [_load(builder, vector, tile) for vector in _vectors(builder, tile, pointer)]
                for place in range((tile.rows - rows) * tile.columns, tile.rows * tile.columns):
                    number, weight = loaded[place % tile.columns], builder.extract_value(kept, at)
                    total = _fused(builder, tile, number, weight, builder.extract_value(result, place))
                    result = builder.insert_value(result, total, place)
                    at += 1
            return result

        return tile(tile, kept, table, b, types.int64), code

    return add_lines


def _within(builder: Any, lanes: int, column: Any, width: Any, first: int, stride: int) -> Any:
    """Return whether, in each lane, column + (first + lane) * stride is one of ``width`` columns."""
    offsets = ir.Constant(ir.VectorType(column.type, lanes), [(first + lane) * stride for lane in range(lanes)])
    columns = builder.add(_broadcast(builder, column, lanes), offsets)
    return builder.icmp_unsigned("<", columns, _broadcast(builder, width, lanes))


def _where(builder: Any, condition: Any, vector: Any) -> Any:
    """Return a vector, with zeros where a condition does not hold."""
    return builder.select(condition, vector, ir.Constant(vector.type, None))


def _order(lanes: Any) -> Any:
    """Return the constant that takes these lanes of two vectors."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))


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
            total = _add(builder, tile, builder.extract_value(result, at), builder.extract_value(other, at))
            result = builder.insert_value(result, total, at)
        return result

    return tile(tile, tile), code


@intrinsic
def add_row(typing: Any, tile: Any, row: Any, j: Any) -> Any:
    """Return the tile with ``row[j:]`` added to each row."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, row, j = arguments
        vectors = _vectors(builder, tile, _pointer(context, builder, signature.args[1], row, j))
        added = [_load(builder, vector, tile) for vector in vectors]
        for at in range(tile.rows * tile.columns):
            total = _add(builder, tile, builder.extract_value(result, at), added[at % tile.columns])
            result = builder.insert_value(result, total, at)
        return result

    return tile(tile, row, types.int64), code


@intrinsic
def add_column(typing: Any, tile: Any, column: Any, i: Any) -> Any:
    """Return the tile with ``column[i + row]`` added to each number of each row."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, column, i = arguments
        numbers = _pointer(context, builder, signature.args[1], column, i)
        for row in range(tile.rows):
            added = _broadcast(builder, builder.load(builder.gep(numbers, [ir.IntType(64)(row)])), tile.lanes)
            for at in range(row * tile.columns, (row + 1) * tile.columns):
                result = builder.insert_value(result, _add(builder, tile, builder.extract_value(result, at), added), at)
        return result

    return tile(tile, column, types.int64), code


@intrinsic
def activated(typing: Any, tile: Any, epilogue: Any) -> Any:
    """Return a tile's activation, (_, slope, low, high): negative numbers times the slope, then clipped; NaN kept."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, epilogue = arguments
        numbers = context.make_array(signature.args[1])(context, builder, epilogue).data
        slope, low, high = (
            _broadcast(builder, builder.load(builder.gep(numbers, [ir.IntType(64)(n)])), tile.lanes) for n in (1, 2, 3)
        )
        for at in range(tile.rows * tile.columns):
            number = builder.extract_value(result, at)
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
def store(typing: Any, tile: Any, out: Any, i: Any, step: Any) -> Any:
    """Write each row of the tile to ``out[i + row * step:]``."""
    return _storing(tile, out, i, step, added=False)


def _storing(tile: Any, out: Any, i: Any, step: Any, added: bool) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, out, i, step = arguments
        for row in range(tile.rows):
            start = builder.add(i, builder.mul(step, step.type(row)))
            pointers = _vectors(builder, tile, _pointer(context, builder, signature.args[1], out, start))
            for column, pointer in enumerate(pointers):
                vector = builder.extract_value(value, row * tile.columns + column)
                if added:
                    vector = _add(builder, tile, _load(builder, pointer, tile), vector)
                builder.store(vector, pointer, align=tile.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(tile, out, types.int64, types.int64), code


BLOCK = 8
"""Rows and columns of the square blocks in which `transpose` works, whatever the width of the vectors."""


@intrinsic
def transpose(typing: Any, out: Any, i: Any, step: Any, numbers: Any, j: Any, pace: Any) -> Any:
    """Write ``numbers[j + column * pace + row]`` to ``out[i + row * step + column]`` for all of a square block.

    Three rounds exchange squares of 1, 2 and 4 elements between the rows (Eklundh, *A fast computer method for matrix
    transposing*, 1972).
    """
    kind = Tile(out.dtype, 1, 1)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, step, numbers, j, pace = arguments
        vector = ir.VectorType(context.get_value_type(kind.dtype), BLOCK)
        bytes_ = kind.dtype.bitwidth // 8
        source = _pointer(context, builder, signature.args[3], numbers, j)
        target = _pointer(context, builder, signature.args[0], out, i)

        def line(pointer: Any, step: Any, row: int) -> Any:
            return builder.bitcast(builder.gep(pointer, [builder.mul(step, step.type(row))]), vector.as_pointer())

        rows = [builder.load(line(source, pace, row), align=bytes_) for row in range(BLOCK)]
        for half in (1, 2, 4):
            low, high = [
                ir.Constant(
                    ir.VectorType(ir.IntType(32), BLOCK),
                    [(lane + shift if not lane & half else BLOCK + lane - half + shift) for lane in range(BLOCK)],
                )
                for shift in (0, half)
            ]
            for row in range(BLOCK):
                if not row & half:
                    a, b = rows[row], rows[row + half]
                    rows[row] = builder.shuffle_vector(a, b, low)
                    rows[row + half] = builder.shuffle_vector(a, b, high)
        for row in range(BLOCK):
            builder.store(rows[row], line(target, step, row), align=bytes_)
        return context.get_dummy_value()

    integer = types.int64
    return types.none(out, integer, integer, numbers, integer, integer), code


def combinations(matrix: Any) -> Any:
    """Return an intrinsic that multiplies columns of vectors by a small constant matrix.

    ``combine(out, i, step, numbers, j, pace)`` writes Σ matrix[row][k] · numbers[j + k · pace:], a tile's row wide, to
    out[i + row · step:]. Zeros cost nothing, and two rows that differ in the sign of every other column share their
    sums, as those of the points ±p of a Winograd transform do.
    """
    coefficients = [[float(number) for number in row] for row in matrix]

    @intrinsic
    def combine(typing: Any, out: Any, i: Any, step: Any, numbers: Any, j: Any, pace: Any) -> Any:
        tile = Tile(out.dtype, 1, COLUMNS)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, i, step, _, j, pace = arguments

            def line(array: int, start: Any, step: Any, row: int) -> Any:
                at = builder.add(start, builder.mul(step, step.type(row)))
                return _vectors(builder, tile, _pointer(context, builder, signature.args[array], arguments[array], at))

            loaded = [
                [_load(builder, vector, tile) for vector in line(3, j, pace, k)] for k in range(len(coefficients[0]))
            ]
            for column in range(tile.columns):
                results = _products(builder, tile, coefficients, [vectors[column] for vectors in loaded])
                for row, result in enumerate(results):
                    pointer = line(0, i, step, row)[column]
                    builder.store(result, pointer, align=tile.dtype.bitwidth // 8)
            return context.get_dummy_value()

        integer = types.int64
        return types.none(out, integer, integer, numbers, integer, integer), code

    return combine


def _products(builder: Any, tile: Tile, matrix: list[list[float]], vectors: list[Any]) -> list[Any]:
    """Return the matrix times the vectors."""

    def combined(row: list[float]) -> Any:
        total = None
        for coefficient, vector in sorted(zip(row, vectors, strict=True), key=lambda pair: abs(pair[0]) != 1):
            if coefficient == 0:
                continue
            if total is None:
                total = vector if coefficient == 1 else builder.fmul(vector, constant(coefficient))
            elif coefficient in (1, -1):
                total = (builder.fadd if coefficient == 1 else builder.fsub)(total, vector)
            else:
                total = _fused(builder, tile, vector, constant(coefficient), total)
        return total

    def constant(number: float) -> Any:
        kind = vectors[0].type
        return ir.Constant(kind, [kind.element(number)] * tile.lanes)

    results: list[Any] = []
    for row in matrix:
        before = matrix[len(results) - 1] if results else None
        for kept in (0, 1):  # the columns in which both rows have the same sign: even ones or odd ones
            mirrored = [number if k % 2 == kept else -number for k, number in enumerate(row)]
            if before == mirrored and sum(number != 0 for number in row) > 2:
                same = combined([number if k % 2 == kept else 0.0 for k, number in enumerate(row)])
                other = combined([0.0 if k % 2 == kept else -number for k, number in enumerate(row)])
                results[-1] = builder.fadd(same, other)
                results.append(builder.fsub(same, other))
                break
        else:
            results.append(combined(row))
    return results


@intrinsic
def next_task(typing: Any, counter: Any) -> Any:
    """Return ``counter[0]`` and add one to it, as one step that no other thread can come between."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", pointer, ir.IntType(64)(1), "monotonic")

    return types.int64(counter), code


@intrinsic
def copy(typing: Any, out: Any, i: Any, numbers: Any, j: Any) -> Any:
    """Copy as many numbers as a tile's row holds from ``numbers[j:]`` to ``out[i:]``."""
    tile = Tile(out.dtype, 1, COLUMNS)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j = arguments
        sources = _vectors(builder, tile, _pointer(context, builder, signature.args[2], numbers, j))
        targets = _vectors(builder, tile, _pointer(context, builder, signature.args[0], out, i))
        for source, target in zip(sources, targets, strict=True):
            builder.store(_load(builder, source, tile), target, align=tile.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(out, i, numbers, j), code


@intrinsic(prefer_literal=True)
def blank(typing: Any, out: Any, i: Any, columns: Any) -> Any:
    """Fill ``columns`` vectors from ``out[i]`` on with zeros; if 0, one number. A literal."""
    tile = Tile(out.dtype, 1, columns.literal_value)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *arguments[:2])
        for target in _vectors(builder, tile, pointer) or [pointer]:
            kind = target.type.pointee
            zero = ir.Constant(kind, None if isinstance(kind, ir.VectorType) else 0)
            builder.store(zero, target, align=tile.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(out, types.int64, columns), code


@intrinsic(prefer_literal=True)
def copy_part(typing: Any, out: Any, i: Any, numbers: Any, j: Any, step: Any, part: Any) -> Any:
    """Copy a vector, or the ``part``-th part of one, of numbers ``step`` apart from ``numbers[j]`` on to ``out[i:]``.

    ``part`` and ``step`` (1 or 2) are literals. Nothing beyond the last number is read. Masked loads and stores, which
    would do any count at once, take 12 ns each on a Zen 4, a call of ``memcpy`` 5 ns.
    """
    lanes = VECTOR_BYTES * 8 // out.dtype.bitwidth // part.literal_value
    apart = step.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j, _, _ = arguments
        align = out_type.dtype.bitwidth // 8
        kind = ir.VectorType(context.get_value_type(out_type.dtype), lanes)

        def pointer(array_type: Any, array: Any, at: Any) -> Any:
            return builder.bitcast(_pointer(context, builder, array_type, array, at), kind.as_pointer())

        vector = builder.load(pointer(signature.args[2], numbers, j), align=align)
        if apart == 2:
            # The second vector begins one number early, so as to end with the last one that is wanted.
            end = builder.load(pointer(signature.args[2], numbers, builder.add(j, j.type(lanes - 1))), align=align)
            wanted = [2 * k if 2 * k < lanes else 2 * k + 1 for k in range(lanes)]
            vector = builder.shuffle_vector(vector, end, ir.Constant(ir.VectorType(ir.IntType(32), lanes), wanted))
        builder.store(vector, pointer(out_type, out, i), align=align)
        return context.get_dummy_value()

    out_type, integer = out, types.int64
    return types.none(out, integer, numbers, integer, step, part), code


@intrinsic(prefer_literal=True)
def copy_pairs(typing: Any, out: Any, i: Any, step: Any, numbers: Any, j: Any, part: Any) -> Any:
    """Copy ``numbers[j], numbers[j + 2], ...`` to ``out[i:]`` and the others between them to ``out[i + step:]``.

    A vector of each, or the ``part``-th part of one, a literal.
    """
    lanes = VECTOR_BYTES * 8 // out.dtype.bitwidth // part.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, step, numbers, j, _ = arguments
        align = out_type.dtype.bitwidth // 8
        kind = ir.VectorType(context.get_value_type(out_type.dtype), lanes)

        def pointer(array_type: Any, array: Any, at: Any) -> Any:
            return builder.bitcast(_pointer(context, builder, array_type, array, at), kind.as_pointer())

        both = [
            builder.load(pointer(signature.args[3], numbers, builder.add(j, j.type(n * lanes))), align=align)
            for n in range(2)
        ]
        for second in range(2):
            wanted = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [2 * k + second for k in range(lanes)])
            at = builder.add(i, step) if second else i
            builder.store(builder.shuffle_vector(*both, wanted), pointer(out_type, out, at), align=align)
        return context.get_dummy_value()

    out_type, integer = out, types.int64
    return types.none(out, integer, integer, numbers, integer, part), code


@intrinsic(prefer_literal=True)
def copy_threes(typing: Any, out: Any, i: Any, numbers: Any, j: Any, apart: Any, part: Any) -> Any:
    """Copy ``numbers[j], numbers[j + apart], numbers[j + 2 * apart], numbers[j + 1], ...`` to ``out[i:]``.

    A vector of each, as of the three colours of some pixels, or the ``part``-th part of one, a literal.
    """
    lanes = VECTOR_BYTES * 8 // out.dtype.bitwidth // part.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j, apart, _ = arguments
        align = out_type.dtype.bitwidth // 8
        kind = ir.VectorType(context.get_value_type(out_type.dtype), lanes)

        def pointer(array_type: Any, array: Any, at: Any) -> Any:
            return builder.bitcast(_pointer(context, builder, array_type, array, at), kind.as_pointer())

        starts = [builder.add(j, builder.mul(apart, j.type(n))) for n in range(3)]
        one, two, three = (builder.load(pointer(signature.args[2], numbers, at), align=align) for at in starts)
        for third in range(3):
            places = [divmod(third * lanes + lane, 3) for lane in range(lanes)]
            both = builder.shuffle_vector(one, two, _order([pixel + lanes * min(of, 1) for pixel, of in places]))
            all_of_them = builder.shuffle_vector(
                both, three, _order([lane if of < 2 else lanes + pixel for lane, (pixel, of) in enumerate(places)])
            )
            at = builder.add(i, i.type(third * lanes))
            builder.store(all_of_them, pointer(out_type, out, at), align=align)
        return context.get_dummy_value()

    out_type, integer = out, types.int64
    return types.none(out, integer, numbers, integer, integer, part), code


@intrinsic
def move(typing: Any, out: Any, i: Any, numbers: Any, j: Any) -> Any:
    """Set ``out[i] = numbers[j]``; unlike Python's, the indices are never taken for negative ones."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j = arguments
        number = builder.load(_pointer(context, builder, signature.args[2], numbers, j))
        builder.store(number, _pointer(context, builder, signature.args[0], out, i))
        return context.get_dummy_value()

    return types.none(out, types.int64, numbers, types.int64), code


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _vectors(builder: Any, tile: Tile, pointer: Any) -> list[Any]:
    """Return pointers to the vectors of one row, which begins at ``pointer``."""
    kind = ir.VectorType(pointer.type.pointee, tile.lanes).as_pointer()
    starts = (builder.gep(pointer, [ir.IntType(64)(column * tile.lanes)]) for column in range(tile.columns))
    return [builder.bitcast(start, kind) for start in starts]


def _load(builder: Any, pointer: Any, tile: Tile) -> Any:
    return builder.load(pointer, align=tile.dtype.bitwidth // 8)


def _broadcast(builder: Any, scalar: Any, lanes: int) -> Any:
    unknown = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(unknown, scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(first, unknown, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))


def _fused(builder: Any, tile: Tile, a: Any, b: Any, c: Any) -> Any:
    """Return a · b + c: fused where the machine can, multiplied and added where it cannot."""
    if not isinstance(tile.dtype, types.Float):
        return builder.add(builder.mul(a, b), c)
    # llvm.fma would become a library call on a machine without FMA; llvm.fmuladd falls back to two instructions.
    name = f"llvm.fmuladd.v{tile.lanes}f{tile.dtype.bitwidth}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


def _add(builder: Any, tile: Tile, a: Any, b: Any) -> Any:
    return builder.fadd(a, b) if isinstance(tile.dtype, types.Float) else builder.add(a, b)

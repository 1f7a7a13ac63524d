"""Vectors and register tiles for Numba: what LLVM keeps in registers, in plain Python.

A `Tile` holds rows × columns vectors of accumulators. Kernels create one with `zeros`, feed it with `multiply_add` in a
plain Python loop and write it with `add_to`; as a local value of known shape it lives in registers, and the loop runs
at the machine's peak: 6 × 2 vectors of 8 float32 reach 116 GFLOP/s on one Zen 4 core. Plain loops over arrays do not
get there: LLVM neither tiles them nor knows that the arrays do not overlap.

Arrays are given flat, with the index of the first element; nothing is checked, loads and stores may be unaligned.
"""

from __future__ import annotations

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


@intrinsic(prefer_literal=True)
def zeros(typing: Any, array: Any, rows: Any, columns: Any) -> Any:
    """Return a tile of zeros of the array's dtype; ``rows`` and ``columns`` are literals."""
    tile = Tile(array.dtype, rows.literal_value, columns.literal_value)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(tile), None)

    return tile(array, rows, columns), code


@intrinsic
def multiply_add(typing: Any, tile: Any, a: Any, i: Any, step: Any, b: Any, j: Any) -> Any:
    """Return the tile with ``a[i + row * step] * b[j:]`` added to each row."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, a, i, step, b, j = arguments
        types_ = signature.args
        scalars = _pointer(context, builder, types_[1], a, i)
        vectors = _vectors(context, builder, tile, _pointer(context, builder, types_[4], b, j))
        loaded = [_load(builder, vector, tile) for vector in vectors]
        for row in range(tile.rows):
            scalar = builder.load(builder.gep(scalars, [builder.mul(step, step.type(row))]))
            broadcast = _broadcast(builder, scalar, tile.lanes)
            for column, vector in enumerate(loaded):
                at = row * tile.columns + column
                total = _fused(builder, tile, broadcast, vector, builder.extract_value(result, at))
                result = builder.insert_value(result, total, at)
        return result

    return tile(tile, a, i, step, b, j), code


@intrinsic
def add_to(typing: Any, tile: Any, out: Any, i: Any, step: Any) -> Any:
    """Add each row of the tile to ``out[i + row * step:]``."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, out, i, step = arguments
        for row in range(tile.rows):
            start = builder.add(i, builder.mul(step, step.type(row)))
            pointers = _vectors(context, builder, tile, _pointer(context, builder, signature.args[1], out, start))
            for column, pointer in enumerate(pointers):
                vector = builder.extract_value(value, row * tile.columns + column)
                total = _add(builder, tile, _load(builder, pointer, tile), vector)
                builder.store(total, pointer, align=tile.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(tile, out, i, step), code


@intrinsic
def copy(typing: Any, out: Any, i: Any, numbers: Any, j: Any) -> Any:
    """Copy as many numbers as a tile's row holds from ``numbers[j:]`` to ``out[i:]``."""
    tile = Tile(out.dtype, 1, COLUMNS)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j = arguments
        sources = _vectors(context, builder, tile, _pointer(context, builder, signature.args[2], numbers, j))
        targets = _vectors(context, builder, tile, _pointer(context, builder, signature.args[0], out, i))
        for source, target in zip(sources, targets, strict=True):
            builder.store(_load(builder, source, tile), target, align=tile.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(out, i, numbers, j), code


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _vectors(context: Any, builder: Any, tile: Tile, pointer: Any) -> list[Any]:
    """Return pointers to the vectors of one row, which begins at ``pointer``."""
    kind = ir.VectorType(context.get_value_type(tile.dtype), tile.lanes).as_pointer()
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

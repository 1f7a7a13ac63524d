"""What a register tile is to the compiler, and the instructions that intrinsics are made of.

A `Tile` is rows × columns LLVM vectors of the machine's width. As a local value of known shape it lives in registers.
The functions here put instructions at the end of what a ``builder`` has; arrays are given flat, with the index of the
first element, nothing is checked, and loads and stores may be unaligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import models, register_model

from npconv.kernels.numba.buffers import LINE


def _vector_bytes() -> int:
    """Return the width of the vectors of the machine that Numba compiles for (``NUMBA_CPU_FEATURES``)."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if "+avx512f" in features:
        return 64
    return 32 if "+avx" in features else 16


VECTOR_BYTES = _vector_bytes()

HALVED = VECTOR_BYTES == 64 and cpu_target.target_context.codegen().magic_tuple()[1] == "znver4"
"""Whether the machine computes its widest vectors in halves, and so gains registers by them, but few products."""

REGISTERS = 32 if VECTOR_BYTES == 64 else 16
"""Registers that hold a vector."""

ROWS = 6
"""Rows of the largest tile: 6 × 2 accumulators, 2 vectors of a row and 1 broadcast fill the 16 registers of AVX2."""

LEAST_ROWS, FEWEST = 4, 8
"""Rows of the lowest tile, and those from which on any number can be cut into tiles of 4 to 6. Lower ones would only
save a last tile some rows, and cost a second to compile."""

COLUMNS = 2
"""Vectors in a tile's row."""

PAST_CACHES = VECTOR_BYTES == LINE
"""Whether vectors can be written past the caches, to memory: only those that fill a line, for halves go one by one."""


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


def data_of(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return a pointer to the first element of an array, which may be given as one."""
    return array if isinstance(kind, types.misc.CPointer) else context.make_array(kind)(context, builder, array).data


def pointer_to(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Return a pointer to ``array[index]``."""
    return builder.gep(data_of(context, builder, kind, array), [index])


def vectors_at(builder: Any, tile: Tile, pointer: Any) -> list[Any]:
    """Return pointers to the vectors of one row, which begins at ``pointer``."""
    kind = ir.VectorType(pointer.type.pointee, tile.lanes).as_pointer()
    starts = (builder.gep(pointer, [ir.IntType(64)(column * tile.lanes)]) for column in range(tile.columns))
    return [builder.bitcast(start, kind) for start in starts]


def vector_at(builder: Any, pointer: Any, tile: Tile) -> Any:
    """Return the vector at a pointer, which may be unaligned."""
    return builder.load(pointer, align=tile.dtype.bitwidth // 8)


def store_past(builder: Any, vector: Any, pointer: Any) -> None:
    """Store a vector that fills a line of the cache past the caches, which is called a non-temporal store.

    Other threads see it after a `vector.fence`.

    What several threads read, and then write again, so does not come from their caches first: between cores that share
    none, as on different dies of a processor, 14,000 lines took two threads 160 to 210 µs, and take 24, and 42 instead
    of 37 to be read. Where they share one it is 35 instead of 50 to 64, and 27 instead of 18.
    """
    stored = builder.store(vector, pointer, align=LINE)
    stored.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))


def repeated(builder: Any, scalar: Any, lanes: int) -> Any:
    """Return a vector of so many lanes that are all the same."""
    unknown = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(unknown, scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(first, unknown, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))


def product_and_sum(builder: Any, tile: Tile, a: Any, b: Any, c: Any) -> Any:
    """Return a · b + c: fused where the machine can, multiplied and added where it cannot."""
    if not isinstance(tile.dtype, types.Float):
        return builder.add(builder.mul(a, b), c)
    # llvm.fma would become a library call on a machine without FMA; llvm.fmuladd falls back to two instructions.
    name = f"llvm.fmuladd.v{tile.lanes}f{tile.dtype.bitwidth}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


def sum_of(builder: Any, tile: Tile, a: Any, b: Any) -> Any:
    """Return a + b."""
    return builder.fadd(a, b) if isinstance(tile.dtype, types.Float) else builder.add(a, b)


def last_rows(builder: Any, tile: Tile, kind: Any, starts: Any) -> Any:
    """Return the numbers of a tile's last rows, as many as there are starts, with their starts."""
    return enumerate(cgutils.unpack_tuple(builder, starts, kind.count), tile.rows - kind.count)


def lanes_within(
    builder: Any, lanes: int, column: Any, width: Any, first: int, stride: int, order: Sequence[int] = ()
) -> Any:
    """Return whether, in each lane, column + (first + lane) * stride is one of ``width`` columns.

    In another order, ``order`` says in each lane which one is meant.
    """
    numbers = [(first + lane) * stride for lane in order or range(lanes)]
    offsets = ir.Constant(ir.VectorType(column.type, lanes), numbers)
    columns = builder.add(repeated(builder, column, lanes), offsets)
    return builder.icmp_unsigned("<", columns, repeated(builder, width, lanes))


def kept_where(builder: Any, condition: Any, vector: Any) -> Any:
    """Return a vector, with zeros where a condition does not hold."""
    return builder.select(condition, vector, ir.Constant(vector.type, None))


def order_of(lanes: Any) -> Any:
    """Return the constant that takes these lanes of two vectors."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))

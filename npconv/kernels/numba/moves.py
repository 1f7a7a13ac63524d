"""Numbers moved as vectors: copies, transposed blocks, every second number, three channels side by side.

Arrays are given flat, with the index of the first element; nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from npconv.kernels.numba.buffers import LINE
from npconv.kernels.numba.tile import COLUMNS, VECTOR_BYTES, Tile, order_of, pointer_to, repeated, vector_at, vectors_at

BLOCK = 8
"""Rows and columns of the square blocks in which `transpose` works, whatever the width of the vectors."""


@intrinsic
def to_next_line(typing: Any, numbers: Any, j: Any) -> Any:
    """Return how many numbers there are from ``numbers[j]`` to the next that begins a line of the cache."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.ptrtoint(pointer_to(context, builder, signature.args[0], *arguments), ir.IntType(64))
        left = builder.and_(builder.neg(place), place.type(LINE - 1))
        return builder.udiv(left, place.type(signature.args[0].dtype.bitwidth // 8))

    return types.int64(numbers, types.int64), code


@intrinsic
def transpose(typing: Any, out: Any, i: Any, step: Any, numbers: Any, j: Any, pace: Any) -> Any:
    """Write ``numbers[j + column * pace + row]`` to ``out[i + row * step + column]`` for all of a square block.

    Three rounds exchange squares of 1, 2 and 4 elements between the rows (Eklundh, *A fast computer method for matrix
    transposing*, 1972).
    """
    return _transposing(out, i, numbers, apart=1)


@intrinsic
def transpose_even(typing: Any, out: Any, i: Any, step: Any, numbers: Any, j: Any, pace: Any) -> Any:
    """Do the same with every second number: write ``numbers[j + column * pace + 2 * row]``."""
    return _transposing(out, i, numbers, apart=2)


def _transposing(out: Any, i: Any, numbers: Any, apart: int) -> Any:
    kind = Tile(out.dtype, 1, 1)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, step, numbers, j, pace = arguments
        vector = ir.VectorType(context.get_value_type(kind.dtype), BLOCK)
        bytes_ = kind.dtype.bitwidth // 8
        source = pointer_to(context, builder, signature.args[3], numbers, j)
        target = pointer_to(context, builder, signature.args[0], out, i)

        def line(pointer: Any, step: Any, row: int) -> Any:
            return builder.bitcast(builder.gep(pointer, [builder.mul(step, step.type(row))]), vector.as_pointer())

        def loaded(row: int) -> Any:
            pointer = line(source, pace, row)
            first = builder.load(pointer, align=bytes_)
            if apart == 1:
                return first
            # The second vector begins one number early, so as to end with the last one that is wanted.
            numbers = builder.bitcast(pointer, vector.element.as_pointer())
            end = builder.bitcast(builder.gep(numbers, [pace.type(BLOCK - 1)]), vector.as_pointer())
            wanted = [2 * k if 2 * k < BLOCK else 2 * k + 1 for k in range(BLOCK)]
            return builder.shuffle_vector(first, builder.load(end, align=bytes_), order_of(wanted))

        rows = [loaded(row) for row in range(BLOCK)]
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


@intrinsic
def copy(typing: Any, out: Any, i: Any, numbers: Any, j: Any) -> Any:
    """Copy as many numbers as a tile's row holds from ``numbers[j:]`` to ``out[i:]``."""
    tile = Tile(out.dtype, 1, COLUMNS)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j = arguments
        sources = vectors_at(builder, tile, pointer_to(context, builder, signature.args[2], numbers, j))
        targets = vectors_at(builder, tile, pointer_to(context, builder, signature.args[0], out, i))
        for source, target in zip(sources, targets, strict=True):
            builder.store(vector_at(builder, source, tile), target, align=tile.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(out, i, numbers, j), code


@intrinsic(prefer_literal=True)
def blank(typing: Any, out: Any, i: Any, columns: Any) -> Any:
    """Fill ``columns`` vectors from ``out[i]`` on with zeros; if 0, one number. A literal."""
    tile = Tile(out.dtype, 1, columns.literal_value)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = pointer_to(context, builder, signature.args[0], *arguments[:2])
        for target in vectors_at(builder, tile, pointer) or [pointer]:
            kind = target.type.pointee
            zero = ir.Constant(kind, None if isinstance(kind, ir.VectorType) else 0)
            builder.store(zero, target, align=tile.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(out, types.int64, columns), code


def _part_at(context: Any, builder: Any, kind: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Return a pointer to ``array[at:]`` as a vector of this kind."""
    return builder.bitcast(pointer_to(context, builder, array_type, array, at), kind.as_pointer())


def _every_second(builder: Any, lanes: int, pointer: Callable[[Any], Any], at: Any, align: int) -> Any:
    """Return a vector of every second number from a place on.

    The second one that is loaded begins one number early, so as to end with the last one that is wanted.
    """
    both = (builder.load(pointer(place), align=align) for place in (at, builder.add(at, at.type(lanes - 1))))
    return _joined(builder, lanes, *both)


def _every_fourth(builder: Any, lanes: int, pointer: Callable[[Any], Any], at: Any, align: int) -> Any:
    """Return a vector of every fourth number, of two of every second, the other of which begins one such early."""
    places = at, builder.add(at, at.type(2 * lanes - 2))
    both = (_every_second(builder, lanes, pointer, place, align) for place in places)
    return _joined(builder, lanes, *both)


def _joined(builder: Any, lanes: int, first: Any, last: Any) -> Any:
    """Return what is at the even places of one vector, and behind it what is at the odd ones of another."""
    return builder.shuffle_vector(first, last, order_of([2 * k if 2 * k < lanes else 2 * k + 1 for k in range(lanes)]))


@intrinsic(prefer_literal=True)
def copy_part(typing: Any, out: Any, i: Any, numbers: Any, j: Any, step: Any, part: Any) -> Any:
    """Copy a vector, or the ``part``-th part of one, of numbers ``step`` apart from ``numbers[j]`` on to ``out[i:]``.

    ``part`` and ``step`` (1, 2 or 4) are literals. Nothing beyond the last number is read. Masked loads and stores,
    which would do any count at once, take 12 ns each on a Zen 4, a call of ``memcpy`` 5 ns.
    """
    lanes = VECTOR_BYTES * 8 // out.dtype.bitwidth // part.literal_value
    apart = step.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j, _, _ = arguments
        align = out_type.dtype.bitwidth // 8
        kind = ir.VectorType(context.get_value_type(out_type.dtype), lanes)

        pointer = partial(_part_at, context, builder, kind)
        if apart > 1:
            spaced = _every_second if apart == 2 else _every_fourth
            vector = spaced(builder, lanes, partial(pointer, signature.args[2], numbers), j, align)
        else:
            vector = builder.load(pointer(signature.args[2], numbers, j), align=align)
        builder.store(vector, pointer(out_type, out, i), align=align)
        return context.get_dummy_value()

    out_type, integer = out, types.int64
    return types.none(out, integer, numbers, integer, step, part), code


@intrinsic
def copy_joined(typing: Any, out: Any, i: Any, numbers: Any, j: Any, k: Any, count: Any) -> Any:
    """Copy a vector of every second number of ``numbers[j:]``, from lane ``count`` on of ``numbers[k:]``."""
    lanes = VECTOR_BYTES * 8 // out.dtype.bitwidth

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j, k, count = arguments
        align = out_type.dtype.bitwidth // 8
        kind = ir.VectorType(context.get_value_type(out_type.dtype), lanes)
        pointer = partial(_part_at, context, builder, kind)

        spaced = (
            _every_second(builder, lanes, partial(pointer, signature.args[2], numbers), at, align) for at in (j, k)
        )
        number = ir.IntType(32)
        lane = ir.Constant(ir.VectorType(number, lanes), list(range(lanes)))
        first = builder.icmp_signed("<", lane, repeated(builder, builder.trunc(count, number), lanes))
        builder.store(builder.select(first, *spaced), pointer(out_type, out, i), align=align)
        return context.get_dummy_value()

    out_type, integer = out, types.int64
    return types.none(out, integer, numbers, integer, integer, integer), code


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

        pointer = partial(_part_at, context, builder, kind)
        both = [
            builder.load(pointer(signature.args[3], numbers, builder.add(j, j.type(n * lanes))), align=align)
            for n in range(2)
        ]
        for second in range(2):
            wanted = order_of([2 * k + second for k in range(lanes)])
            at = builder.add(i, step) if second else i
            builder.store(builder.shuffle_vector(*both, wanted), pointer(out_type, out, at), align=align)
        return context.get_dummy_value()

    out_type, integer = out, types.int64
    return types.none(out, integer, integer, numbers, integer, part), code


@intrinsic(prefer_literal=True)
def merge_pairs(typing: Any, out: Any, i: Any, numbers: Any, j: Any, step: Any, part: Any) -> Any:
    """Copy ``numbers[j], numbers[j + step], numbers[j + 1], numbers[j + 1 + step], ...`` to ``out[i:]``.

    A vector of each, or the ``part``-th part of one, a literal.
    """
    lanes = VECTOR_BYTES * 8 // out.dtype.bitwidth // part.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j, step, _ = arguments
        align = out_type.dtype.bitwidth // 8
        kind = ir.VectorType(context.get_value_type(out_type.dtype), lanes)

        pointer = partial(_part_at, context, builder, kind)
        both = [builder.load(pointer(signature.args[2], numbers, at), align=align) for at in (j, builder.add(j, step))]
        for half in range(2):
            order = order_of([n // 2 + n % 2 * lanes for n in range(half * lanes, (half + 1) * lanes)])
            at = builder.add(i, i.type(half * lanes))
            builder.store(builder.shuffle_vector(*both, order), pointer(out_type, out, at), align=align)
        return context.get_dummy_value()

    out_type, integer = out, types.int64
    return types.none(out, integer, numbers, integer, integer, part), code


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

        pointer = partial(_part_at, context, builder, kind)
        starts = [builder.add(j, builder.mul(apart, j.type(n))) for n in range(3)]
        one, two, three = (builder.load(pointer(signature.args[2], numbers, at), align=align) for at in starts)
        for third in range(3):
            places = [divmod(third * lanes + lane, 3) for lane in range(lanes)]
            both = builder.shuffle_vector(one, two, order_of([pixel + lanes * min(of, 1) for pixel, of in places]))
            all_of_them = builder.shuffle_vector(
                both, three, order_of([lane if of < 2 else lanes + pixel for lane, (pixel, of) in enumerate(places)])
            )
            at = builder.add(i, i.type(third * lanes))
            builder.store(all_of_them, pointer(out_type, out, at), align=align)
        return context.get_dummy_value()

    out_type, integer = out, types.int64
    return types.none(out, integer, numbers, integer, integer, part), code


@intrinsic(prefer_literal=True)
def copy_few(typing: Any, out: Any, i: Any, numbers: Any, j: Any, count: Any) -> Any:
    """Copy ``numbers[j : j + count]`` to ``out[i:]``; ``count`` is a literal."""
    number = count.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j, _ = arguments
        align = out_type.dtype.bitwidth // 8
        kind = ir.VectorType(context.get_value_type(out_type.dtype), number)
        vector = builder.load(_part_at(context, builder, kind, signature.args[2], numbers, j), align=align)
        builder.store(vector, _part_at(context, builder, kind, out_type, out, i), align=align)
        return context.get_dummy_value()

    out_type, integer = out, types.int64
    return types.none(out, integer, numbers, integer, count), code


@intrinsic
def move(typing: Any, out: Any, i: Any, numbers: Any, j: Any) -> Any:
    """Set ``out[i] = numbers[j]``; unlike Python's, the indices are never taken for negative ones."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, i, numbers, j = arguments
        number = builder.load(pointer_to(context, builder, signature.args[2], numbers, j))
        builder.store(number, pointer_to(context, builder, signature.args[0], out, i))
        return context.get_dummy_value()

    return types.none(out, types.int64, numbers, types.int64), code

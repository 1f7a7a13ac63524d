"""What Python and NumPy have, for kernels, with less to compile.

Numba makes functions of Python's ``min`` and ``max``, several for each kind of arguments, and of ``np.empty``; it takes
an array apart by an iterator, with an error to raise for each that is too long or too short; and it asks of each slice
whether it counts from the end: 150 lines of what LLVM is given. What is here does without. So the kernel of Winograd's
tiles has 3900 lines and not 8400, that of weight gradients 8100 and not 16000.

What loops and literals cost, `npconv.kernels.numba.passes` removes.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import impl_ret_borrowed
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin
from numba.np.arrayobj import populate_array

from npconv.kernels.numba.tile import pointer_to

_INTEGER = ir.IntType(64)


def min(*numbers: Any, **options: Any) -> Any:
    """Return the least: in kernels, of two or three integers."""
    return builtins.min(*numbers, **options)


def max(*numbers: Any, **options: Any) -> Any:
    """Return the greatest: in kernels, of two or three integers."""
    return builtins.max(*numbers, **options)


def _compiled(function: Callable[..., Any], sign: str) -> None:
    """Tell Numba of a function, whose result is the argument that stands to the others as the sign says."""

    class Template(ConcreteTemplate):
        cases = [signature(types.int64, *[types.int64] * count) for count in (2, 3)]  # noqa: RUF012

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, *others = arguments
        for other in others:
            found = builder.select(builder.icmp_signed(sign, other, found), other, found)
        return found

    infer_global(function)(Template)
    for case in Template.cases:
        lower_builtin(function, *case.args)(code)


_compiled(min, "<")
_compiled(max, ">")


def quotient(a: int, b: int) -> int:
    """Return ``a // b``, and 0 of nothing: what `npconv.kernels.numba.passes` writes for it."""
    return a // b if b else 0


def remainder(a: int, b: int) -> int:
    """Return ``a % b``, and 0 of nothing, in the same way."""
    return a % b if b else 0


def quotient_and_remainder(a: int, b: int) -> tuple[int, int]:
    """Return ``divmod(a, b)``, and zeros of nothing, in the same way."""
    return quotient(a, b), remainder(a, b)


def _dividing(function: Callable[..., Any], *parts: int) -> None:
    """Tell Numba of a function, which returns the quotient (0), the remainder (1) or both."""
    kind = types.int64 if len(parts) == 1 else types.containers.UniTuple(types.int64, 2)

    class Template(ConcreteTemplate):
        cases = [signature(kind, types.int64, types.int64)]  # noqa: RUF012

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b = arguments
        zero = _INTEGER(0)
        nothing = builder.icmp_signed("==", b, zero)
        a, b = builder.select(nothing, zero, a), builder.select(nothing, _INTEGER(1), b)
        rest = builder.srem(a, b)
        # Rounded towards zero, it is one too much where the rest has another sign than the divisor.
        other = builder.and_(
            builder.icmp_signed("!=", rest, zero), builder.icmp_signed("<", builder.xor(rest, b), zero)
        )
        less = builder.sub(builder.sdiv(a, b), builder.zext(other, _INTEGER))
        found = [(less, builder.add(rest, builder.select(other, b, zero)))[part] for part in parts]
        return found[0] if len(parts) == 1 else context.make_tuple(builder, kind, found)

    infer_global(function)(Template)
    lower_builtin(function, types.int64, types.int64)(code)


_dividing(quotient, 0)
_dividing(remainder, 1)
_dividing(quotient_and_remainder, 0, 1)


def _table(columns: int) -> Any:
    """Return an intrinsic that makes an array of a number of integers, or of so many rows of them."""
    shape = (columns,) if columns > 1 else ()
    kind = types.Array(types.int64, 1 + len(shape), "C")

    @intrinsic
    def table(typing: Any, count: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            row, number = (_INTEGER(8 * numbers) for numbers in (columns, 1))
            memory = context.nrt.meminfo_alloc_aligned(builder, builder.mul(arguments[0], row), 32)
            data = builder.bitcast(context.nrt.meminfo_data(builder, memory), _INTEGER.as_pointer())
            sizes = [arguments[0], *map(_INTEGER, shape)]
            array = context.make_array(kind)(context, builder)
            populate_array(array, data, sizes, [row, number][: kind.ndim], number, memory)
            return array._getvalue()

        return kind(types.int64), code

    return table


table, pair_table, triple_table = _table(1), _table(2), _table(3)
"""``table(count)``, ``pair_table(count)``, ``triple_table(count)``: arrays of so many integers, pairs or triples."""


@intrinsic(prefer_literal=True)
def tuple_of(typing: Any, table: Any, i: Any, count: Any) -> Any:
    """Return ``table[i : i + count]`` as a tuple; the count is a literal."""
    number = count.literal_value

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = pointer_to(context, builder, signature.args[0], *arguments[:2])
        values = [builder.load(builder.gep(numbers, [_INTEGER(n)])) for n in range(number)]
        return context.make_tuple(builder, signature.return_type, values)

    return types.containers.UniTuple(types.int64, number)(table, types.int64, count), code


@intrinsic(prefer_literal=True)
def triples(typing: Any, rows: Any, first: Any, count: Any) -> Any:
    """Return ``rows[first : first + count]``, of an array of rows of three integers, as tuples; both are literals."""
    start, number = first.literal_value, count.literal_value
    kind = types.containers.UniTuple(types.containers.UniTuple(types.int64, 3), number)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(rows)(context, builder, arguments[0]).data
        numbers = [builder.load(builder.gep(data, [_INTEGER(3 * start + i)])) for i in range(3 * number)]
        tuples = [context.make_tuple(builder, kind.dtype, numbers[i : i + 3]) for i in range(0, len(numbers), 3)]
        return context.make_tuple(builder, kind, tuples)

    return kind(rows, first, count), code


@intrinsic
def after(typing: Any, array: Any, i: Any) -> Any:
    """Return ``array[i:]``, where i is not negative."""
    return array(array, types.int64), _view


@intrinsic
def part_of(typing: Any, array: Any, i: Any, count: Any) -> Any:
    """Return ``array[i : i + count]``, where i is not negative, and there are so many."""
    return array(array, types.int64, types.int64), _view


@intrinsic
def flattened(typing: Any, array: Any) -> Any:
    """Return an array, in C order, as one row."""
    kind = types.Array(array.dtype, 1, "C")

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole = context.make_array(array)(context, builder, arguments[0])
        view = context.make_array(kind)(context, builder)
        populate_array(view, whole.data, [whole.nitems], [whole.itemsize], whole.itemsize, whole.meminfo, whole.parent)
        return impl_ret_borrowed(context, builder, kind, view._getvalue())

    return kind(array), code


def _view(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return an array, in C order, from an index on."""
    kind, i, counts = signature.return_type, arguments[1], arguments[2:]
    array, view = context.make_array(kind)(context, builder, arguments[0]), context.make_array(kind)(context, builder)
    length, *sizes = cgutils.unpack_tuple(builder, array.shape, kind.ndim)
    strides = cgutils.unpack_tuple(builder, array.strides, kind.ndim)
    data = cgutils.pointer_add(builder, array.data, builder.mul(i, strides[0]))
    sizes = [*(counts or [builder.sub(length, i)]), *sizes]
    populate_array(view, data, sizes, strides, array.itemsize, array.meminfo, array.parent)
    return impl_ret_borrowed(context, builder, kind, view._getvalue())

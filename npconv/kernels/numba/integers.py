"""The least and the greatest of some integers, for kernels: an instruction for each, and nothing to compile.

Numba makes functions of Python's ``min`` and ``max``, several for each kind of arguments, which take half a second of
a first call. In Python these are the same as those.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin
from numba.np.arrayobj import populate_array


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


def _table(columns: int) -> Any:
    """Return an intrinsic that makes an array of a number of integers, or of so many rows of them."""
    shape = (columns,) if columns > 1 else ()
    kind = types.Array(types.int64, 1 + len(shape), "C")

    @intrinsic
    def table(typing: Any, count: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            size = ir.IntType(64)(8 * columns)
            memory = context.nrt.meminfo_alloc_aligned(builder, builder.mul(arguments[0], size), 32)
            array = context.make_array(kind)(context, builder)
            populate_array(
                array,
                builder.bitcast(context.nrt.meminfo_data(builder, memory), ir.IntType(64).as_pointer()),
                [arguments[0], *map(ir.IntType(64), shape)],
                [size, ir.IntType(64)(8)][: kind.ndim],
                8,
                memory,
            )
            return array._getvalue()

        return kind(types.int64), code

    return table


table, pair_table = _table(1), _table(2)
"""``table(count)`` and ``pair_table(count)``: arrays of so many integers, and of so many pairs of them, as ``np.empty``
makes them; that takes a fifth of a second to compile."""

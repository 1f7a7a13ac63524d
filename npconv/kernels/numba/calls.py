"""Calls of compiled functions by their address.

Numba compiles a function into each of its callers, and optimises it again there. A kernel's tasks are called from the
loops over them, one for threads and one without: by address, a kernel is compiled once, and the loops once for all
kernels that take arguments of the same types. That halves the seconds until a first result.

An address knows no types. So it comes with a fingerprint of those that its function takes, and a loop asks `fits`
before it begins.
"""

from __future__ import annotations

import zlib
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


def fingerprint(arguments: tuple[Any, ...]) -> int:
    """Return a number for the Numba types of a task's arguments."""
    return zlib.crc32(repr(arguments).encode())


def _of_task(index: Any, scratch: Any, arguments: Any) -> tuple[Any, ...]:
    """Return the types of a task's arguments; scratch of bytes is none."""
    return (index, *(() if scratch.dtype == types.uint8 else (scratch,)), *arguments)


@intrinsic
def fits(typing: Any, handle: Any, scratch: Any, arguments: Any) -> Any:
    """Return whether ``handle``, an address and a fingerprint, is that of a function of these types."""
    expected = fingerprint(_of_task(types.int64, row_of(scratch), arguments))

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        numbers = context.make_array(signature.args[0])(context, builder, values[0]).data
        found = builder.load(builder.gep(numbers, [ir.IntType(64)(1)]))
        return builder.icmp_signed("==", found, ir.IntType(64)(expected))

    return types.boolean(handle, scratch, arguments), code


def row_of(scratch: Any) -> Any:
    """Return the type of a row of the scratch."""
    return types.Array(scratch.dtype, 1, "C")


@intrinsic
def call(typing: Any, handle: Any, index: Any, scratch: Any, arguments: Any) -> Any:
    """Call the function at the address ``handle[0]`` with index, scratch if it takes any, and arguments."""
    kinds = _of_task(types.int64, scratch, arguments)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        handle, index, scratch, packed = values
        numbers = context.make_array(signature.args[0])(context, builder, handle).data
        kind = context.call_conv.get_function_type(types.none, kinds)
        function = builder.inttoptr(builder.load(numbers), kind.as_pointer())
        given = [index, *([scratch] if len(kinds) > len(signature.args[3]) + 1 else [])]
        given += cgutils.unpack_tuple(builder, packed, len(signature.args[3]))
        status, _ = context.call_conv.call_function(builder, function, types.none, kinds, given)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(handle, types.int64, scratch, arguments), code


@intrinsic
def exchange_threads(typing: Any, threads: Any) -> Any:
    """Let this thread's parallel loops have so many threads, and return how many they had.

    For parallel functions, which have loaded the threading layer. Numba's own functions for it take two microseconds
    from Python, and compiled they hold addresses of this process, so that nothing with them is kept on disk.
    """

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        number, integer = ir.IntType(32), ir.IntType(64)
        getter, setter = (
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(*kind), name)
            for kind, name in (((integer, []), "get_num_threads"), ((ir.VoidType(), [number]), "set_num_threads"))
        )
        before = builder.trunc(builder.call(getter, []), number)
        builder.call(setter, [builder.trunc(values[0], number)])
        return builder.sext(before, integer)

    return types.int64(types.int64), code

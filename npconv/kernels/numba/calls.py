"""Calls of compiled functions by their address.

Numba compiles a function into each of its callers, and optimises it again there. A kernel's tasks are called by address
from a loop over them: so a kernel is compiled once, and the loop once for all kernels that take arguments of the same
types. That halves the seconds until a first result.

What a call of a kernel knows before it has its arrays, its *constants*, it hands over as one block of numbers, which
the kernel takes apart (`taking`): so nearly all kernels take the same types, and share one loop. Numba looks at each
array that it is given, too: a layer of a few elements so takes an eighth less.

An address knows no types. So it comes with a fingerprint of those that its function takes, and a loop asks `fits`
before it begins.

Kernels themselves call parts in which they differ, such as transforms, by address. What these take is told by a *form*,
a letter for each argument: ``a`` is a flat array, all of one dtype, ``n`` one of integers, and ``i`` an integer. Of an
array they get the address alone, and not the seven numbers that Numba has for one: with those, weight gradients of 512
channels at 14² took a tenth longer. A part knows no length of an array, and raises nothing.
"""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numba.np.ufunc import parallel

from npconv.kernels.numba.buffers import LINE
from npconv.kernels.numba.tile import data_of

_INTEGER, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()
_WORKER = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), _INTEGER.as_pointer(), _INTEGER.as_pointer(), _BYTES])
"""What a threading layer calls: a function of arguments, dimensions, steps and data, as NumPy's generalised ufuncs."""

_COUNTER = ir.ArrayType(_INTEGER, LINE * 8 // _INTEGER.width)
"""A number that several threads write: a line of the cache to itself."""


def fingerprint(arguments: tuple[Any, ...]) -> int:
    """Return a number for the Numba types of a task's arguments."""
    return zlib.crc32(repr(arguments).encode())


def handle_of(address: int, arguments: tuple[Any, ...], threaded: bool) -> np.ndarray:
    """Return what `fits` and `run` are told of a function of these types: over threads, if they are to be started."""
    if threaded:
        parallel._launch_threads()
    symbols = ("numba_parallel_for", "get_num_threads", "set_num_threads")
    return np.array([address, fingerprint(arguments), *(binding.address_of_symbol(name) or 0 for name in symbols)])


def row_of(scratch: Any) -> Any:
    """Return the type of a row of the scratch."""
    return types.Array(scratch.dtype, 1, "C")


def _of_task(scratch: Any, arguments: Any) -> tuple[Any, ...]:
    """Return the types of a task's arguments; scratch of bytes is none."""
    return (types.int64, *(() if scratch.dtype == types.uint8 else (row_of(scratch),)), *arguments)


def types_of(form: str, number: Any) -> tuple[Any, ...]:
    """Return the Numba types of what functions of a form take, whose arrays have numbers of this type."""
    kinds = {"a": types.misc.CPointer(number), "n": types.misc.CPointer(types.int64), "i": types.int64}
    return tuple(kinds[letter] for letter in form)


def calling(form: str) -> Any:
    """Return an intrinsic that calls functions of a form: ``call(address, arguments)``, with arrays and integers."""

    @intrinsic
    def call(typing: Any, address: Any, arguments: Any) -> Any:
        number, given = arguments[form.index("a")].dtype, tuple(map(types.misc.unliteral, arguments))
        arrays = {"a": types.Array(number, 1, "C"), "n": types.Array(types.int64, 1, "C"), "i": types.int64}
        if given != tuple(arrays[letter] for letter in form):
            raise TypingError(f"the arguments are {given}, and not of the form {form!r}")
        kinds = types_of(form, number)

        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            address, packed = values
            kind = context.call_conv.get_function_type(types.none, kinds)
            function = builder.inttoptr(address, kind.as_pointer())
            unpacked = [
                value if letter == "i" else data_of(context, builder, kind, value)
                for letter, kind, value in zip(
                    form, arguments, cgutils.unpack_tuple(builder, packed, len(form)), strict=True
                )
            ]
            context.call_conv.call_function(builder, function, types.none, kinds, unpacked)
            return context.get_dummy_value()

        return types.none(types.int64, arguments), code

    return call


_AXES = {"a": 1, "n": 1, "N": 2}


def block_of(form: str, constants: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return a block of constants, where each array is and its shape: they must outlive it.

    In a form, ``N`` is a matrix of integers.
    """
    given = "".join("a" if one.dtype.kind == "f" else " nN"[one.ndim] for one in constants)
    if given != form or any(one.dtype.kind != "f" and one.dtype != np.int64 for one in constants):
        raise AssertionError(f"the constants are of the form {given!r}, not {form!r}, or not of 64 bits")
    if not all(one.flags.c_contiguous for one in constants):
        raise AssertionError("the constants are not in C order")
    return np.array([number for one in constants for number in (one.__array_interface__["data"][0], *one.shape)])


def taking(form: str) -> Any:
    """Return an intrinsic that takes a block of constants of this form apart: ``take(block, x)``.

    Arrays ``a`` are of the dtype of ``x``.
    """

    @intrinsic
    def take(typing: Any, block: Any, x: Any) -> Any:
        kinds = [types.Array(x.dtype if letter == "a" else types.int64, _AXES[letter], "C") for letter in form]
        found = types.containers.BaseTuple.from_types(kinds)

        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            numbers = context.make_array(signature.args[0])(context, builder, values[0]).data
            slots = (builder.load(builder.gep(numbers, [_INTEGER(slot)])) for slot in itertools.count())
            arrays = []
            for kind in kinds:
                address, *shape = itertools.islice(slots, 1 + kind.ndim)
                data = context.get_data_type(kind.dtype).as_pointer()
                itemsize = _INTEGER(context.get_abi_sizeof(data.pointee))
                steps = [builder.mul(size, itemsize) for size in shape[1:]] + [itemsize]
                array = context.make_array(kind)(context, builder)
                populate_array(array, builder.inttoptr(address, data), shape, steps, itemsize, None)
                arrays.append(array._getvalue())
            return context.make_tuple(builder, found, arrays)

        return found(block, x), code

    return take


@intrinsic
def fits(typing: Any, handle: Any, scratch: Any, arguments: Any) -> Any:
    """Return whether ``handle`` is that of a function of these types."""
    expected = fingerprint(_of_task(scratch, arguments))

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        numbers = context.make_array(signature.args[0])(context, builder, values[0]).data
        found = builder.load(builder.gep(numbers, [_INTEGER(1)]))
        return builder.icmp_signed("==", found, _INTEGER(expected))

    return types.boolean(handle, scratch, arguments), code


@intrinsic
def run(typing: Any, threads: Any, tasks: Any, handle: Any, scratch: Any, arguments: Any) -> Any:
    """Call the function of the handle with each task's number, a row of scratch if it takes any, and arguments.

    Each of so many threads takes its own tasks, the same ones in every call, and then those that are left of others'.
    Equal shares without that made all threads wait for one that the system had put aside: on two cores beside a busy
    program that cost up to a half. With tasks that whoever was free took, threads wrote where others had written.
    Cores take lines that another has written from its caches, one by one where they share none, as on
    processors of several dies: results of 32 channels at 112² then took 65 µs instead of 55, of 128 in 32 groups at 56²
    284 instead of 219, and four tasks of dilation 2, 32 channels at 48², 240 instead of 100.

    A thread's own lie side by side, so that few lines belong to two threads: where tasks were dealt out in turns, 128
    to 512 channels at 28², one tap, took 799 µs and not 550, 64 at 33² in 4 groups 75 and not 57, 16 to 96 at 40² up to
    twice as long. If ``tasks`` are less than none, so many are dealt out in turns, to and fro, as some of unequal sizes
    are so that all threads have as much (`npconv.kernels.numba.blocking.in_turns`).

    The threads are those of Numba's threading layer, which calls a worker by address, and sets how many threads the
    caller's other Numba code has, too. Numba's own way to it, ``prange``, takes a second to compile for each kind of
    arguments, and tells nobody of a task that finds no memory.
    """

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        threads, number, handle, scratch, arguments = values
        turns = builder.icmp_signed("<", number, _INTEGER(0))
        tasks = builder.select(turns, builder.neg(number), number)
        numbers = context.make_array(signature.args[2])(context, builder, handle).data
        task, _, *layer = (builder.load(builder.gep(numbers, [_INTEGER(i)])) for i in range(5))
        taken = builder.alloca(_COUNTER, threads)
        taken.align = LINE
        cgutils.memset(builder, taken, builder.mul(threads, _INTEGER(LINE)), 0)
        # Whether a task failed has a line of the cache to itself, too.
        fields = [_COUNTER(None), taken, threads, tasks, task, scratch, arguments, turns]
        shared = cgutils.alloca_once_value(builder, cgutils.make_anonymous_struct(builder, fields))
        shared.align = LINE
        worker = _worker(context, builder.module, shared.type, signature.args[3], signature.args[4])
        data = builder.bitcast(shared, _BYTES)
        # A thread's one argument is an address: so many bytes after 0 as its number is.
        zero, one = (cgutils.alloca_once_value(builder, value) for value in (_BYTES(None), _INTEGER(1)))
        count = cgutils.alloca_once_value(builder, threads)
        with builder.if_else(builder.icmp_signed(">", threads, _INTEGER(1))) as (several, alone):
            with several:
                number, nothing = ir.IntType(32), ir.VoidType()
                sizes = [_INTEGER, _INTEGER, number]  # inner dimensions, arguments, threads
                kinds = (
                    ir.FunctionType(nothing, [_WORKER.as_pointer(), *_WORKER.args, *sizes]),
                    ir.FunctionType(number, []), ir.FunctionType(nothing, [number]),
                )  # fmt: skip
                parallel_for, get_number, set_number = (
                    builder.inttoptr(address, kind.as_pointer()) for address, kind in zip(layer, kinds, strict=True)
                )
                before = builder.call(get_number, [])
                given = [zero, count, one, data, _INTEGER(0), _INTEGER(1), builder.trunc(threads, number)]
                builder.call(parallel_for, [worker, *given])
                builder.call(set_number, [before])
            with alone:
                builder.call(worker, [zero, count, one, data])
        failed = builder.load(cgutils.gep_inbounds(builder, shared, 0, 0, 0))
        with cgutils.if_unlikely(builder, cgutils.is_not_null(builder, failed)):
            context.call_conv.return_user_exc(builder, MemoryError, ("there is no memory for a task to work in",))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, handle, scratch, arguments), code


def _worker(context: Any, module: Any, shared: Any, scratch: Any, arguments: Any) -> Any:
    """Make the function that a thread runs, for the given types of scratch and arguments."""
    function = ir.Function(module, _WORKER, module.get_unique_name("worker"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    numbers, _, _, data = function.args
    shared = builder.bitcast(data, shared)
    failed = cgutils.gep_inbounds(builder, shared, 0, 0, 0)
    taken, shares, tasks, task, room, packed, turns = (
        builder.load(cgutils.gep_inbounds(builder, shared, 0, i)) for i in range(1, 8)
    )
    number = builder.ptrtoint(builder.load(numbers), _INTEGER)
    given = cgutils.unpack_tuple(builder, packed, len(arguments))
    kinds = _of_task(scratch, arguments)
    if len(kinds) > 1 + len(given):
        rows = context.make_array(scratch)(context, builder, room)
        _, size = cgutils.unpack_tuple(builder, rows.shape, 2)
        to_row, to_number = cgutils.unpack_tuple(builder, rows.strides, 2)
        begin = builder.mul(number, to_row)
        row = context.make_array(row_of(scratch))(context, builder)
        populate_array(row, cgutils.pointer_add(builder, rows.data, begin), [size], [to_number], rows.itemsize, None)
        given = [row._getvalue(), *given]
    kind = context.call_conv.get_function_type(types.none, kinds)
    address = builder.inttoptr(task, kind.as_pointer())
    names = "share", "loop", "body", "failed", "next", "end"
    begin, loop, body, after, following, end = (function.append_basic_block(name) for name in names)
    own, entry = builder.urem(number, shares), builder.block
    builder.branch(begin)
    builder.position_at_end(begin)
    share, left = (builder.phi(_INTEGER) for _ in range(2))
    share.add_incoming(own, entry)
    left.add_incoming(shares, entry)
    first, last = (builder.udiv(builder.mul(tasks, at), shares) for at in (share, builder.add(share, _INTEGER(1))))
    last = builder.select(turns, tasks, last)
    counter = cgutils.gep_inbounds(builder, taken, share, 0)
    builder.branch(loop)
    builder.position_at_end(loop)
    before = builder.atomic_rmw("add", counter, _INTEGER(1), "monotonic")
    turned = builder.trunc(before, ir.IntType(1))
    place = builder.select(turned, builder.sub(builder.sub(shares, _INTEGER(1)), share), share)
    in_turns = builder.add(builder.mul(before, shares), place)
    index = builder.select(turns, in_turns, builder.add(first, before))
    builder.cbranch(builder.icmp_signed("<", index, last), body, following)
    builder.position_at_end(body)
    status, _ = context.call_conv.call_function(builder, address, types.none, kinds, [index, *given])
    builder.cbranch(status.is_error, after, loop)
    builder.position_at_end(after)
    builder.store(_INTEGER(1), failed)
    builder.branch(end)
    builder.position_at_end(following)
    others = builder.sub(left, _INTEGER(1))
    share.add_incoming(builder.urem(builder.add(share, _INTEGER(1)), shares), following)
    left.add_incoming(others, following)
    builder.cbranch(builder.icmp_signed(">", others, _INTEGER(0)), begin, end)
    builder.position_at_end(end)
    builder.ret_void()
    return function

"""What is done to a kernel's source, as Numba reads it, before types are inferred: with less to compile.

Numba's own range is an iterator, which is 150 lines of what LLVM is given, for each loop; a number that grows until it
reaches another is twenty. A division has branches for a divisor of 0 and for signs, 45 lines, and is done in ten here.
And a number written in the source is of a type of its own: a function that is given it, and elsewhere another number,
is compiled twice. So a first call of Winograd's has 16,300 lines to compile, and 21,900 without this file, that of
a weight gradient 16,900 and 25,100; kernels are as fast.

Ranges go upwards, unless their step is written with a minus: these are left to Numba. What is divided are integers.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numba.core import ir
from numba.core.compiler import DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.ir_utils import build_definitions, find_const, find_outer_value, get_definition, guard
from numba.core.untyped_passes import FixupArgs

from npconv.kernels.numba import lean

_DIVISIONS = {operator.floordiv: lean.quotient, operator.mod: lean.remainder}


def passes_of(state: Any) -> Any:
    """Return Numba's passes, and those of this file."""
    passes = DefaultPassBuilder.define_nopython_pipeline(state)
    passes.add_pass_after(_Plain, FixupArgs)
    passes.finalize()
    return passes


@register_pass(mutates_CFG=False, analysis_only=False)
class _Plain(FunctionPass):
    """Loops count, and numbers are integers."""

    _name = "npconv_plain"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        """Rewrite a function."""
        function = state.func_ir
        for block in function.blocks.values():
            for at, statement in reversed(list(enumerate(block.body))):
                if isinstance(statement, ir.Assign):
                    block.body[at : at + 1] = [*_given(function, statement), statement]
        for block in function.blocks.values():
            for at, statement in enumerate(block.body):
                if isinstance(statement, ir.Assign) and _is_expression(statement.value, "iternext"):
                    _count(function, block, at)
        function._definitions = build_definitions(function.blocks)
        return True


def _is_expression(value: Any, kind: str) -> bool:
    """Whether a definition is an expression of some kind."""
    return isinstance(value, ir.Expr) and value.op == kind


def _integer(number: int, where: Any) -> Any:
    """Return a constant that is no literal."""
    return ir.Const(np.int64(number), where.loc)


def _is_literal(value: Any) -> bool:
    """Whether a definition is that of an integer in the source."""
    return isinstance(value, (ir.Const, ir.Global, ir.FreeVar)) and type(value.value) is int


def _given(function: Any, statement: Any) -> list[Any]:
    """Take literals from what a variable, a tuple or a function is given; return what is to be done before."""
    value = statement.value
    if not statement.target.name.startswith("$") or statement.target.name.startswith("$phi"):
        literal = guard(get_definition, function, value) if isinstance(value, ir.Var) else value
        if _is_literal(literal):
            statement.value = _integer(literal.value, value)
    divided = _division(function, value)
    if divided is not None:
        numbers, divide = divided
        called = statement.target.scope.redefine("$divided", value.loc)
        statement.value = ir.Expr.call(called, numbers, (), value.loc)
        before = [ir.Assign(ir.Global(divide.__name__, divide, value.loc), called, value.loc)]
    elif _is_expression(value, "build_tuple"):
        value.items, before = _integers(function, value, value.items)
    elif _is_expression(value, "call") and isinstance(guard(find_outer_value, function, value.func), Dispatcher):
        value.args, before = _integers(function, value, value.args)
    else:
        before = []
    return before


def _division(function: Any, value: Any) -> tuple[Any, Any] | None:
    """Return what an expression divides, and the function to do it with; None if it does not divide."""
    if _is_expression(value, "binop") or _is_expression(value, "inplace_binop"):
        divide = _DIVISIONS.get(value.fn if value.op == "binop" else value.immutable_fn)
        return divide and ((value.lhs, value.rhs), divide)
    if _is_expression(value, "call") and guard(find_outer_value, function, value.func) is divmod:
        return tuple(value.args), lean.quotient_and_remainder
    return None


def _integers(function: Any, expression: Any, numbers: Any) -> tuple[Any, list[Any]]:
    """Return variables, in the place of those that are literals others, and what these are set to."""
    found, before = list(numbers), []
    for place, number in enumerate(numbers):
        literal = guard(get_definition, function, number)
        if _is_literal(literal):
            found[place] = number.scope.redefine("$integer", expression.loc)
            before.append(ir.Assign(_integer(literal.value, expression), found[place], expression.loc))
    return tuple(found), before


def _count(function: Any, block: Any, at: int) -> None:
    """Make a loop count, if a block asks at this place for the next number of a range that is made for it."""
    counter = block.body[at].value.value
    iterator: Any = guard(get_definition, function, counter)
    if not _is_expression(iterator, "getiter") or not iterator.value.name.startswith("$"):
        return
    call: Any = guard(get_definition, function, iterator.value)
    if not _is_expression(call, "call") or guard(find_outer_value, function, call.func) is not range:
        return
    start, stop, step = (None, *call.args, None) if len(call.args) == 1 else (*call.args, None)[:3]
    first, pace = (number and guard(find_const, function, number) for number in (start, step))
    if (pace is not None and pace < 0) or (step and _is_expression(guard(get_definition, function, step), "unary")):
        return
    begin = start if start and first is None else _integer(first or 0, call)
    end, by = (counter.scope.redefine(f"{counter.name}.{name}", call.loc) for name in ("end", "by"))
    for other in function.blocks.values():
        for place, statement in reversed(list(enumerate(other.body))):
            if isinstance(statement, ir.Assign) and statement.value is call:
                limits = [(stop, end), (step or _integer(1, call), by)]
                other.body[place : place + 1] = [ir.Assign(*each, call.loc) for each in limits]
            elif isinstance(statement, ir.Assign) and statement.value is iterator:
                other.body[place] = ir.Assign(begin, statement.target, call.loc)
    number, more = (statement.target for statement in block.body[at + 1 : at + 3])
    block.body[at : at + 3] = [
        ir.Assign(counter, number, call.loc),
        ir.Assign(ir.Expr.binop(operator.lt, number, end, call.loc), more, call.loc),
        ir.Assign(ir.Expr.binop(operator.add, number, by, call.loc), counter, call.loc),
    ]

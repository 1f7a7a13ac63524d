"""The least and the greatest of some integers, for kernels: an instruction for each, and nothing to compile.

Numba makes functions of Python's ``min`` and ``max``, several for each kind of arguments, which take half a second of
a first call. In Python these are the same as those.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin


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

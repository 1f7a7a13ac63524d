"""The road from arguments to a kernel, remembered: what a call with small arrays spends its time on.

Checking the arguments of a call, finding its problem and plan and looking at its arrays takes some 50 µs, and the next
call like it takes the same road. `key` says what a road depends on; layers and functions keep what they found under it.
Only ordinary calls are remembered, those with arrays of the machine's byte order and plain options, which are told so
that ``stride=1`` and ``stride=1.0``, an error, are not the same. The shortest roads, which do not look at the arrays
again, are for C-contiguous ones.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

import numpy as np

from npconv.precision import get_default_precision
from npconv.threads import get_num_threads

KEPT = 1024
"""Roads that are kept; with more, all are forgotten."""

_Road = TypeVar("_Road")


class Roads(dict[Any, _Road]):
    """What was found for calls, by what it depends on."""

    def keep(self, found: Any, road: _Road) -> None:
        """Remember a road."""
        if len(self) >= KEPT:
            self.clear()
        self[found] = road


_generation = 0
_caches: list[Any] = []
_Cached = TypeVar("_Cached")


def until_forgotten(cached: _Cached) -> _Cached:
    """Decorate a function with an ``lru_cache`` of what follows from the choice of algorithms."""
    _caches.append(cached)
    return cached


def forget() -> None:
    """Let every call look for its road again, because ``"auto"`` may take another one from now on."""
    global _generation
    _generation += 1
    for cached in _caches:
        cached.cache_clear()


def key(*arrays: Any) -> tuple[Hashable, ...] | None:
    """Return what a road depends on besides its options, None if one of the arrays is not ordinary.

    The first item tells whether all arrays are C-contiguous.
    """
    found: list[Hashable] = [True, get_num_threads(), get_default_precision(), _generation]
    for array in arrays:
        if array is None:
            found.append(None)
            continue
        if type(array) is not np.ndarray:
            return None
        flags, dtype = array.flags, array.dtype
        plainest = flags.carray  # C-contiguous, aligned and can be written to
        if not ((plainest or flags.aligned) and dtype.isnative):
            return None
        found += (array.shape, dtype)
        if not (plainest or flags.c_contiguous):
            found[0] = False
            found.append(array.strides)
    return tuple(found)


def apart(out: Any, *arrays: Any) -> bool:
    """Whether an array to be filled, of those that `key` knows, can be, and has no memory of others."""
    return out.flags.writeable and not any(np.may_share_memory(out, array) for array in arrays if array is not None)


_ORDINARY = frozenset({int, str, type(None)})


def told(options: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return options that are numbers and names, or tuples of them, of Python's own types; None if one is another.

    Such as are equal to no others: 0.1 and 1.0 are told with their type.
    """
    if _ORDINARY.issuperset(map(type, options)):  # as a rule, and soon told
        return options
    found: list[Any] = []
    for option in options:
        if type(option) is tuple:
            inner = told(option)
            if inner is None:
                return None
            found.append(inner)
        elif type(option) is float:
            found.append((float, option))
        elif type(option) in _ORDINARY:
            found.append(option)
        else:
            return None
    return tuple(found)

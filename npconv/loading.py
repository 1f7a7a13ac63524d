"""Importing modules when they are needed, also in a process that forks meanwhile."""

from __future__ import annotations

import importlib
import logging  # noqa: F401  # before the hook below is registered: see there
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")

lock = threading.RLock()
"""Held while modules are imported for the first time, and by forks."""

_whole = threading.RLock()
"""Held by work that an interrupt does not cut short, whoever waits for it, and by forks."""

_held: list[Any] = [lock, _whole]


def hold_across_fork(other: Any) -> None:
    """Let a fork wait for a lock: a child would wait for ever for the thread that holds it, which it does not have.

    The order is that of importing, whose lock comes first: importing Numba's modules takes its compiler's lock.
    """
    _held.append(other)


def _hold() -> None:
    for held in _held:
        held.acquire()


def _release() -> None:
    for held in reversed(_held):
        held.release()


if hasattr(os, "register_at_fork"):
    # Python runs the hooks before a fork in reverse order. `logging` holds its own lock across forks, which importing
    # and compiling need for a moment: were its hook registered after this one, the fork would take that lock first
    # and then wait for a thread that waits for it.
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release)


_helper = threading.local()
"""Whether this is a thread that another one waits for, which holds the lock."""


def in_whole(work: Callable[[], _T]) -> _T:
    """Do work that an interrupt must not cut short, and return its result.

    Half an import of Numba, or half of what it does before it compiles the first time, leaves a process that can never
    compile again. Interrupts come to the main thread alone: so another one does the work, which goes on if this one
    does not wait for it any more; forks do, and whoever asks next.
    """

    def alone() -> _T:
        with _whole:
            return work()

    if threading.current_thread() is not threading.main_thread():
        return alone()
    results: list[_T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        _helper.here = True
        try:
            results.append(alone())
        except BaseException as error:  # raised where it is waited for
            errors.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=run, name="npconv-loading").start()
    except RuntimeError:  # there are no new threads when the interpreter ends
        return alone()
    done.wait()
    if errors:
        raise errors[0]
    return results[0]


@cache
def module(name: str) -> ModuleType:
    """Import a module and return it."""
    if name in sys.modules or getattr(_helper, "here", False):
        return importlib.import_module(name)
    with lock:
        return in_whole(lambda: importlib.import_module(name))


def fingerprint(*patterns: str) -> str:
    """Return what changes with the sources of kernels: those whose names, in their folder, have such a pattern."""
    import hashlib

    folder = Path(__file__).parent / "kernels"
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


class once(Generic[_T]):  # named like the functions it decorates are used
    """A property that is computed once; `functools.cached_property` without its lock.

    In Python 3.11 all instances share that lock, and a child forked while another thread computes one finds it taken
    for ever. Without it two threads may compute the same value, and one of the two is kept.
    """

    def __init__(self, function: Callable[[Any], _T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> _T:
        """Compute the value and put it in this property's place."""
        if instance is None:
            return self  # type: ignore[return-value]
        value = self._function(instance)
        instance.__dict__[self._function.__name__] = value
        return value

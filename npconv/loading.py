"""Importing modules when they are needed, also in a process that forks meanwhile."""

from __future__ import annotations

import importlib
import logging  # noqa: F401  # before the hook below is registered: see there
import os
import threading
from functools import cache
from types import ModuleType
from typing import Any

_lock = threading.RLock()
_held: list[Any] = [_lock]


def hold_across_fork(lock: Any) -> None:
    """Let a fork wait for a lock: a child would wait for ever for the thread that holds it, which it does not have.

    The order is that of importing, whose lock comes first: importing Numba's modules takes its compiler's lock.
    """
    _held.append(lock)


def _hold() -> None:
    for lock in _held:
        lock.acquire()


def _release() -> None:
    for lock in reversed(_held):
        lock.release()


if hasattr(os, "register_at_fork"):
    # Python runs the hooks before a fork in reverse order. `logging` holds its own lock across forks, which importing
    # and compiling need for a moment: were its hook registered after this one, the fork would take that lock first
    # and then wait for a thread that waits for it.
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release)


@cache
def module(name: str) -> ModuleType:
    """Import a module and return it."""
    with _lock:
        return importlib.import_module(name)

"""Importing modules when they are needed, also in a process that forks meanwhile."""

from __future__ import annotations

import importlib
import os
import threading
from functools import cache
from types import ModuleType

_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A child forked while another thread imports would wait for that thread, which it does not have.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@cache
def module(name: str) -> ModuleType:
    """Import a module and return it."""
    with _lock:
        return importlib.import_module(name)

"""How calls are timed: contestants take turns within one process, round by round.

Times of separate runs say nothing about each other, and the threads of whoever came before spin for a while after their
work: so a turn begins with a pause, and with a call that is not timed. The least time counts, for all else that happens
on a machine only adds to it; a turn that lasts long enough has many calls to find it among.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

PAUSE = 0.03
"""Seconds before a contestant's turn, longer than threads spin after their work."""

TURN = 0.05
"""Seconds that a turn takes at least: a fast contestant is called again until then."""


def timed(call: Callable[[], _T]) -> tuple[_T, float]:
    """Return what a call returns, and the seconds that it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def several(call: Callable[[], object]) -> list[float]:
    """Return the seconds of as many calls as a turn has."""
    found: list[float] = []
    end = time.perf_counter() + TURN
    while not found or time.perf_counter() < end:
        found.append(timed(call)[1])
    return found


def turn(call: Callable[[], object], slow: bool = False) -> list[float]:
    """Return the same after a pause and, unless calls are ``slow``, one that is not timed."""
    time.sleep(PAUSE)
    if not slow:
        call()
    return several(call)

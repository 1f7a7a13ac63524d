"""How calls are timed: contestants take turns within one process, round by round.

Times of separate runs say nothing about each other, and the threads of whoever came before spin for a while after their
work: so a turn begins with a pause, and with a call that is not timed. The least time counts, for all else that happens
on a machine only adds to it; a turn that lasts long enough has many calls to find it among. The first call is told
apart: it compiles, or loads compiled code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

_T = TypeVar("_T")

PAUSE = 0.03
"""Seconds before a contestant's turn, longer than threads spin after their work."""

TURN = 0.05
"""Seconds that a turn takes at least: a fast contestant is called again until then."""

ENOUGH = 2.0
"""Seconds of timed calls after which a contestant has no further turn."""


@dataclass
class Contestant:
    """An algorithm on a backend, what a call should take, and what calls took, in seconds; NaN is not measured.

    `compile` is what Numba compiled in the first call: 0 if it found the code on disk, None where it has no part.
    """

    backend: str
    algorithm: str
    expected: float
    times: list[float] = field(default_factory=list, kw_only=True)
    first_call: float = field(default=math.nan, kw_only=True)
    compile: float | None = field(default=None, kw_only=True)

    @property
    def least(self) -> float:
        """The least time of a call; infinite if none was timed."""
        return min(self.times, default=math.inf)

    @property
    def is_slow(self) -> bool:
        """Whether one call, that first one without its compilation, is enough of them.

        A call that should have been fast was held up, by imports, by code read from the disk or by a busy machine: on
        one, 2 s of that were taken for the time of a textbook's convolution, and no second call was made.
        """
        return self.first_call - (self.compile or 0.0) >= ENOUGH and self.expected >= ENOUGH / 10

    def begin(self, call: Callable[[], _T]) -> _T:
        """Make the first call, note what it cost, and return its result.

        A call that took long without compiling is a timed one: it will not be made again. CUDA kernels are not kept on
        disk, and numba-cuda does not tell when it compiles: what the first call costs more than the second stands for
        it.
        """
        if self.backend == "numba":
            from npconv.kernels.numba import jit

            with jit.compile_clock() as clock:
                result, self.first_call = timed(call)
            self.compile = clock.seconds
        else:
            result, self.first_call = timed(call)
            if self.backend == "cuda":
                self.compile = max(0.0, self.first_call - timed(call)[1])
        if self.is_slow and not self.compile:
            self.times.append(self.first_call)
        return result

    def take_turn(self, call: Callable[[], object]) -> None:
        """Time calls for one turn, unless there were enough of them."""
        several = self.is_slow or len(self.times) > 1  # a single one may have been held up, and so may any in their sum
        if self.times and several and self.least * len(self.times) >= ENOUGH:
            return
        self.times += turn(call, self.is_slow)


def timed(call: Callable[[], _T]) -> tuple[_T, float]:
    """Return what a call returns, and the seconds that it took."""
    start = time.perf_counter()
    result = call()
    return result, max(time.perf_counter() - start, 1e-9)  # a clock may stand still for so long


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

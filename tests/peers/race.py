"""How contestants are measured: checked first, then in turns within one process, each by its least time.

The worker threads of torch, onnxruntime, OpenMP and OpenBLAS spin for a while after a call, and would take the cores
from whoever comes next: onnxruntime's for 50 ms, which made the next take up to 40 times as long. So each turn begins
with a pause until nothing in this process runs, and with a call that is not timed; and it lasts long enough for two
threads that woke up on one core to be parted (in turns of 20 ms many were not, and took 8 ms or more).
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import npconv

PAUSE, TURN, ENOUGH = 0.03, 0.05, 2.0
"""Seconds that a pause and a turn last at least, and those of timed calls after which a contestant has no further turn.

As `npconv.timing` has them, which other versions that ``--peers-before`` names need not have.
"""

LONGEST_PAUSE = 1.0
"""Seconds after which a turn begins even if threads still spin."""

TOLERANCE = {"float32": 1e-3, "complex64": 1e-3, "float64": 1e-9}
"""Of the largest element: loose, for it is only to tell who computes something else."""


class LeftOut(Exception):
    """A contestant that cannot do the work, and why."""


@dataclass
class Contestant:
    """Someone who computes: `call` is what is timed, `read` makes a NumPy array, channels first, of what it returns.

    `threads` is the number for npconv, which takes it from where it is called; its peers are built for theirs.
    """

    threads: int
    call: Callable[[], Any]
    read: Callable[[Any], np.ndarray] = np.asarray
    close: Callable[[], object] = lambda: None
    turn: Callable[[], tuple[float, float]] | None = None
    """Takes a turn in another process, and returns the least time of its calls and that of all."""

    times: list[float] = field(default_factory=list)


def check(contestant: Contestant, reference: np.ndarray) -> None:
    """Raise LeftOut if the contestant computes something else than the reference."""
    with npconv.threads(contestant.threads):
        result = contestant.read(contestant.call())
    if result.shape != reference.shape or result.dtype != reference.dtype:
        raise LeftOut(f"its result is {result.dtype} {result.shape}, not {reference.dtype} {reference.shape}")
    error = np.abs(result - reference).max() / np.abs(reference).max()
    if not error <= TOLERANCE[reference.dtype.name]:  # NaN, too
        raise LeftOut(f"its result is off by {error:.2g} of the largest element")


def race(contestants: Sequence[Contestant], rounds: int, wait: Callable[[], object] = lambda: None) -> None:
    """Time the contestants in turns, and note the least time of each turn; wait before each round."""
    spent = dict.fromkeys(range(len(contestants)), 0.0)
    for _ in range(rounds):
        wait()
        for number, contestant in enumerate(contestants):
            if spent[number] < ENOUGH:
                least, all_calls = take_turn(contestant)
                contestant.times.append(least)
                spent[number] += all_calls


def take_turn(contestant: Contestant) -> tuple[float, float]:
    """Return the least time of several calls, and what all of them took."""
    pause()
    if contestant.turn is not None:
        return contestant.turn()
    with npconv.threads(contestant.threads):
        return _timed(contestant.call)


def _timed(call: Callable[[], Any]) -> tuple[float, float]:
    least, clock = float("inf"), time.perf_counter
    call()
    begin = end = clock()
    while end - begin < TURN:
        start = clock()
        call()
        end = clock()
        least = min(least, end - start)
    return least, end - begin


def keep_memory() -> None:
    """Let the C library keep the memory that is freed, as it does for a program that has run for a while.

    Results of some megabytes, and what contestants work in, may otherwise be given back to the system and fetched anew
    in each call, for all rounds or none, as memory happens to lie. That is what users wait for as a rule, too, so that
    it must be asked for: ncnn then takes 0.58 ms instead of 0.92 for 64 channels at 56², torch 21 instead of 31 for
    VGG-16's conv1_2, and npconv 1.5 instead of 1.8 for an input gradient.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**30)


def pause() -> None:
    """Sleep until the threads of whoever came before have stopped spinning."""
    end = time.perf_counter() + LONGEST_PAUSE
    time.sleep(PAUSE)
    while time.perf_counter() < end:
        before = time.process_time()  # of all threads of the process
        time.sleep(PAUSE / 6)
        if time.process_time() - before < PAUSE / 60:
            return


def others_seconds() -> float | None:
    """Return the processor time that all other programs have had so far; None where the system does not tell.

    Besides another program at work, threads that wait for each other take ten times as long, in every round of a test.
    """
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return None
    user, nice, system, _, _, *interrupts = map(int, first.split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK") - time.process_time()

"""Whether threads have the cores that they should have: see `peers.race`."""

from __future__ import annotations

import time

import npconv
from npconv.kernels.numba import peak
from peers.race import pause

ENOUGH = 0.8
"""The share of the greatest peak that was seen which tells that they have: those of two threads on one core reach half,
and clocks change less."""

TRY, REST, PATIENCE = 0.03, 0.2, 10.0
"""Seconds to measure a peak, to let others go on before the next try, and after which a round begins anyway. Spells
lasted 0.3 to 2 seconds as a rule."""


class Cores:
    """The peaks of a run, by threads and dtype, in GFLOP/s, and how long was waited for them."""

    def __init__(self) -> None:
        self.peaks: dict[tuple[int, str], float] = {}
        self.waited = 0.0

    def wait(self, threads: int, dtype: str) -> None:
        """Wait until so many threads reach what they did before, but not for ever."""
        pause()
        begin = time.perf_counter()
        while not self._have_all(threads, dtype) and time.perf_counter() < begin + PATIENCE:
            time.sleep(REST)
        self.waited += time.perf_counter() - begin

    def _have_all(self, threads: int, dtype: str) -> bool:
        with npconv.threads(threads):
            now = peak.flops_per_second(dtype, seconds=TRY) / 1e9
        most = self.peaks[threads, dtype] = max(now, self.peaks.get((threads, dtype), 0.0))
        return now >= ENOUGH * most

"""How fast this machine multiplies vectors, copies numbers, and gets weights, as far as is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from npconv import loading
from npconv.problem import ConvProblem


@cache
def _vectors() -> tuple[int, bool]:
    """Return the width of this machine's vectors, and whether it computes them in halves; without Numba, the widest."""
    try:
        tile = loading.module("npconv.kernels.numba.tile")
    except ImportError:
        return 64, False
    return int(tile.VECTOR_BYTES), bool(tile.HALVED)


def vector_bytes() -> int:
    """Return the width of this machine's vectors."""
    return _vectors()[0]


def registers() -> int:
    """Return how many vectors this machine's registers hold."""
    return 32 if vector_bytes() == 64 else 16


def lanes(problem: ConvProblem) -> int:
    """Return the numbers of a vector in which a problem is computed."""
    return vector_bytes() // problem.compute_dtype.itemsize


@dataclass(frozen=True)
class Speed:
    """Products of vectors of some width to those of 32 bytes: direct ones, and of transformed data."""

    direct: float
    transformed: float


SPEED = {
    (64, False): Speed(1.6, 1.25),
    (64, True): Speed(1.15, 1.3),
    (32, False): Speed(1.0, 1.0),
    (16, False): Speed(0.5, 0.5),
}
"""By the bytes of a vector, and whether it is computed in halves. On a Xeon of 2023 (AVX-512) products of transformed
data take the transforms' time as well: 256 channels at 56² 10.4 ms in one thread, 5.4 of it products. On a Zen 4, whose
halves gain registers above all, 1,360 layers and functions chosen with the Xeon's numbers took 1.054 times as long as
the fastest, in the geometric mean, and 95 of them more than 1.3 times; with its own 1.028 times, and 44."""


def machine() -> Speed:
    """Return the speed of this machine's vectors."""
    return SPEED[_vectors()]


COPY = 0.12e-9
"""Seconds to load or store a number."""

PACK = 16e-6
"""Seconds that the packing of a call takes besides, waking threads above all."""

SHORT, MANY = 2e-5, 1.5e-5
"""Seconds of work that are not shared out; those that many threads take longer to begin and to end than two."""

STREAM, OF_ONE, MEMORY, LAST_LEVEL = 60e9, 30e9, 32e9, 3.6e7
"""Bytes of packed weights a second that come from beyond the second-level cache, for all threads and for one; those
that come from memory, as all do if they are more than so many: a large cache of the last level has then lost each
by the time that it is wanted again. Points of 512 × 512 filters took 0.67 ms (57 GB/s), of 576 × 576 1.55 (31). From
half as many on, other programs decide: 38 MB of 608 to 192 channels at 24², stride 2, took 1.76 ms by `winograd4`, and
take 1.06 by `winograd2`. (With 40 MB for the last, 384 to 208 channels at 14², stride 2, took 0.51 ms by `winograd4`,
and take 0.28 by `winograd2`; with 32, 512 at 7² took 0.76 by `winograd4`, and take 0.58.)"""


def shared(work: float, threads: int, least: float = SHORT) -> float:
    """Return the time that threads take which share out the work of one, if there is enough for that."""
    return work if work <= least else work / threads + MANY * max(1 - 2 / threads, 0)


def streaming(size: float, threads: int) -> float:
    """Return how long it takes so many bytes of weights to come."""
    beyond = min(max(2 * size / LAST_LEVEL - 1, 0), 1)  # the more of the cache they need, the more others take of it
    return size / min(STREAM + beyond * (MEMORY - STREAM), threads * OF_ONE)

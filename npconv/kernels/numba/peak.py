"""How fast this machine multiplies and adds at most: what the speed of a kernel is a share of.

Every thread runs register tiles over numbers that stay in its first-level cache, which is all that the best
convolution could do. The figure is that of the moment: clocks change with the temperature and with what else runs.
"""

from __future__ import annotations

import time

import numpy as np

from npconv.kernels.numba import jit
from npconv.kernels.numba.tile import COLUMNS, ROWS, VECTOR_BYTES
from npconv.kernels.numba.vector import add_to, multiply_add, starts_from, zeros
from npconv.threads import get_num_threads

_DEPTH = 64
"""Products in a tile's sum: 64 × 2 vectors of 64 bytes and 6 × 64 numbers fill a third of a cache of 32 kB."""


def flops_per_second(dtype: str = "float32", seconds: float = 0.2) -> float:
    """Return the most floating-point operations a second that npconv's threads reach, in ``seconds`` of trying.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        What is computed in.
    seconds : float, default 0.2
        How long to try. Another program on the machine lowers the figure only if it is busy all that time.

    Returns
    -------
    float
        A multiplication and its addition count as two operations.
    """
    threads = get_num_threads()
    width = COLUMNS * VECTOR_BYTES // np.dtype(dtype).itemsize
    rows, columns = np.full(ROWS * _DEPTH, 1e-3, dtype), np.full(_DEPTH * width, 1e-3, dtype)
    out = np.zeros((threads, ROWS * width), dtype)
    repeats, best = 1000, 0.0
    _tiles.run(threads, jit.SMALL_WORK, rows, columns, out, 1)  # compiles
    end = time.perf_counter() + seconds
    while best == 0 or time.perf_counter() < end:
        operations = 2.0 * threads * repeats * ROWS * width * _DEPTH
        start = time.perf_counter()
        _tiles.run(threads, jit.SMALL_WORK, rows, columns, out, repeats)
        best = max(best, operations / (time.perf_counter() - start))
        # Long enough for the start of the threads not to count, short enough for a quiet moment of a busy machine: runs
        # of 5 ms, next to a busy program, never found one, and told 66 GFLOP/s where there are 234.
        if operations / best < 1e-3:
            repeats *= 2
        time.sleep(1e-3)  # a program that has rested is let in first
    return best


@jit.Kernel
def _tiles(task, rows, columns, out, repeats):  # type: ignore[no-untyped-def]
    """Compute the same tile many times over, in one thread."""
    result = out[task]
    width = len(result) // ROWS
    tile = zeros(result, ROWS, COLUMNS)
    starts = starts_from(0, len(rows) // ROWS, ROWS)
    for _ in range(repeats):
        for element in range(len(rows) // ROWS):
            tile = multiply_add(tile, rows, starts, element, columns, element * width)
    add_to(tile, result, 0, width)

"""The sums of quarters that Strassen's algorithm multiplies (`npconv.kernels.numba.strassen`), of vectors of numbers.

Channels are scaled by powers of two, with which products are exact, so that differences are sums with the negative
scale. Vectors go along what is not scaled, with a scale for all lanes, or along the channels.
"""

from __future__ import annotations

from typing import Any

from npconv.kernels.numba import jit
from npconv.kernels.numba.product import width_of
from npconv.kernels.numba.vector import add, multiply_add, multiply_add_rows, starts_from, store, zeros


def sums_of_pixels(columns: int, along_channels: bool) -> Any:
    """Return what makes the sums of so many vectors of two pixels' channels, upper and lower ones."""
    times = multiply_add_rows if along_channels else multiply_add

    def sum_up(sums, to, step, numbers, upper, upper_right, lower, lower_right, scales, left, right, negative):  # type: ignore[no-untyped-def]
        """Write A11, A12, S2, S3, A22, S1 and S4 to ``sums[to:]``, each a ``step`` behind the one before.

        The quarters begin at ``numbers[upper]`` and so on. ``scales[left]`` and ``scales[right]`` are those of the left
        and of the right half, and their negatives are so much further.
        """
        one, wide = starts_from(0, 0, 1), width_of(sums)
        a11 = times(zeros(sums, 1, columns), scales, one, left, numbers, upper)
        a12 = times(zeros(sums, 1, columns), scales, one, right, numbers, upper_right)
        a22 = times(zeros(sums, 1, columns), scales, one, right, numbers, lower_right)
        s1 = times(a22, scales, one, left, numbers, lower)
        s2 = times(s1, scales, one, left + negative, numbers, upper)
        s3 = times(a11, scales, one, left + negative, numbers, lower)
        s4 = times(add(a12, s3), scales, one, right + negative, numbers, lower_right)
        store(a11, sums, to, wide)
        store(a12, sums, to + step, wide)
        store(s2, sums, to + 2 * step, wide)
        store(s3, sums, to + 3 * step, wide)
        store(a22, sums, to + 4 * step, wide)
        store(s1, sums, to + 5 * step, wide)
        store(s4, sums, to + 6 * step, wide)

    return jit.specialised(sum_up, columns, along_channels, within=True)


def sums_of_filters(columns: int, along_channels: bool) -> Any:
    """Return what makes the sums of so many vectors of two filters' channels, upper and lower ones."""
    times = multiply_add_rows if along_channels else multiply_add

    def sum_up(sums, to, step, numbers, left, left_lower, right, right_lower, factors, upper, lower, negative):  # type: ignore[no-untyped-def]
        """Write B11, B21, T2, T3, T4, T1 and B22 to ``sums[to:]``, in the same way."""
        one, wide = starts_from(0, 0, 1), width_of(sums)
        b11 = times(zeros(sums, 1, columns), factors, one, upper, numbers, left)
        b21 = times(zeros(sums, 1, columns), factors, one, lower, numbers, left_lower)
        b12 = times(zeros(sums, 1, columns), factors, one, upper, numbers, right)
        b22 = times(zeros(sums, 1, columns), factors, one, lower, numbers, right_lower)
        t1 = times(b12, factors, one, upper + negative, numbers, left)
        t3 = times(b22, factors, one, upper + negative, numbers, right)
        t2 = add(b22, times(b11, factors, one, upper + negative, numbers, right))
        t4 = add(b21, times(t1, factors, one, lower + negative, numbers, right_lower))
        store(b11, sums, to, wide)
        store(b21, sums, to + step, wide)
        store(t2, sums, to + 2 * step, wide)
        store(t3, sums, to + 3 * step, wide)
        store(t4, sums, to + 4 * step, wide)
        store(t1, sums, to + 5 * step, wide)
        store(b22, sums, to + 6 * step, wide)

    return jit.specialised(sum_up, columns, along_channels, within=True)

"""Pixels folded into channels, for Winograd's filtering: even and odd ones of an image as channels of a smaller one.

A kernel of 7 × 7 at stride 2 is so one of 4 × 4 at stride 1, with some zeros, of 4 times as many channels: those of the
first layers of networks, which are few, become enough for products of points (`npconv.kernels.filtering`). At stride 1,
what a block of taps meets is the image moved by the blocks before it. A pixel's numbers are those of its parts, such as
residues, side by side, the rows' first, all channels of each.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from npconv.kernels.filtering import Filtering
from npconv.kernels.numba import jit
from npconv.kernels.numba.transforms import of_filters, transform


@cache
def filter_to_points(axes: tuple[Filtering, Filtering], past: bool) -> Any:
    """Return the transform of a filter's taps to points, for each part that is folded: these are ``apart``.

    They are written ``past`` the caches or not.
    """
    (down, across), columns = axes, axes[1].taps
    (lines_of, columns_of), done = map(of_filters, axes), None
    for part in reversed(range(down.fold * across.fold)):
        (lines, j, line), (tapped, i, tap) = map(_part, axes, (lines_of, columns_of), divmod(part, across.fold))
        form = part, j * columns + i, line * columns, tap
        done = _and_then(transform(lines, tapped, past), done, (axes, past), *form)
    return done


def _part(axis: Filtering, matrix: Any, part: int) -> tuple[Any, int, int]:
    """Return the columns of a matrix that are for the taps of a part, the first of these, and the step to the next."""
    if axis.in_blocks:
        first = part * axis.block
        return matrix[:, first : first + axis.block], first, 1
    return matrix[:, part :: axis.fold], part, axis.fold


def _and_then(
    one: Any, others: Any, key: tuple[tuple[Filtering, Filtering], bool], part: int, begin: int, line: int, tap: int
) -> Any:
    """Return the transform of one part, whose taps begin behind others, and of what comes after it."""
    (down, across), past = key
    form = *down, *across, past, part, begin, line, tap
    if others is None:

        def last(points, at, apart, to_line, to_point, taps, first, wide):  # type: ignore[no-untyped-def]
            one(points, at + part * apart, to_line, to_point, taps, first + begin * wide, line * wide, tap * wide)

        return jit.specialised(last, *form)

    def both(points, at, apart, to_line, to_point, taps, first, wide):  # type: ignore[no-untyped-def]
        one(points, at + part * apart, to_line, to_point, taps, first + begin * wide, line * wide, tap * wide)
        others(points, at, apart, to_line, to_point, taps, first, wide)

    return jit.specialised(both, *form)

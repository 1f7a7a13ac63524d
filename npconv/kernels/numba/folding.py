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
from npconv.kernels.numba import jit, slab
from npconv.kernels.numba.slab import clear, inside, load_line
from npconv.kernels.numba.transforms import filtering, transform


@cache
def loaded(axes: tuple[Filtering, Filtering]) -> Any:
    """Return what `slab.load` is for filterings that may be folded."""
    y_fold, x_fold = (axis.fold for axis in axes)
    (y_pace, y_part), (x_pace, x_part) = (axis.steps for axis in axes)
    if y_fold == x_fold == 1:
        return slab.load

    def load(piece, at, pitch, numbers, layout, start, channels, origin, step, shape):  # type: ignore[no-untyped-def]
        _, _, to_plane, to_line, to_pixel, depth, height, width = layout
        clear(piece, at, shape[0] * shape[1] * shape[2] * pitch)
        for plane in range(shape[0]):
            z = origin[0] + plane * step[0]
            if z < 0 or z >= depth:
                continue
            for row in range(shape[1]):
                line = at + (plane * shape[1] + row) * shape[2] * pitch
                for part in range(y_fold * x_fold):
                    j, i = divmod(part, x_fold)
                    y, x = origin[1] + (row * y_pace + j * y_part) * step[1], origin[2] + i * x_part * step[2]
                    if 0 <= y < height:
                        pace = x_pace * step[2]
                        first, last = inside(x, pace, shape[2], width)
                        source = start + z * to_plane + y * to_line + (x + first * pace) * to_pixel
                        to = line + first * pitch + part * channels
                        load_line(piece, to, pitch, numbers, source, channels, last - first, layout[1], to_pixel * pace)

    return jit.specialised(load, y_fold, x_fold, y_part, x_part)


@cache
def filter_to_points(axes: tuple[Filtering, Filtering]) -> Any:
    """Return the transform of a filter's taps to points, for each part that is folded: these are ``apart``."""
    (down, across), columns = axes, axes[1].taps
    (lines_of, columns_of), done = (filtering(axis)[1] for axis in axes), None
    for part in reversed(range(down.fold * across.fold)):
        (lines, j, line), (tapped, i, tap) = map(_part, axes, (lines_of, columns_of), divmod(part, across.fold))
        done = _and_then(transform(lines, tapped), done, part, j * columns + i, line * columns, tap)
    return done


def _part(axis: Filtering, matrix: Any, part: int) -> tuple[Any, int, int]:
    """Return the columns of a matrix that are for the taps of a part, the first of these, and the step to the next."""
    if axis.in_blocks:
        first = part * axis.block
        return matrix[:, first : first + axis.block], first, 1
    return matrix[:, part :: axis.fold], part, axis.fold


def _and_then(one: Any, others: Any, part: int, begin: int, line: int, tap: int) -> Any:
    """Return the transform of one part, whose taps begin behind others, and of what comes after it."""
    if others is None:

        def last(points, at, apart, to_line, to_point, taps, first, wide):  # type: ignore[no-untyped-def]
            one(points, at + part * apart, to_line, to_point, taps, first + begin * wide, line * wide, tap * wide)

        return jit.specialised(last, part, begin, line, tap)

    def both(points, at, apart, to_line, to_point, taps, first, wide):  # type: ignore[no-untyped-def]
        one(points, at + part * apart, to_line, to_point, taps, first + begin * wide, line * wide, tap * wide)
        others(points, at, apart, to_line, to_point, taps, first, wide)

    return jit.specialised(both, part, begin, line, tap)

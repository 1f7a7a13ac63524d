"""Strides folded into channels, for Winograd's filtering: even and odd pixels of an image as channels of a smaller one.

A kernel of 7 × 7 at stride 2 is so one of 4 × 4 at stride 1, with some zeros, of 4 times as many channels: those of the
first layers of networks, which are few, become enough for products of points (`npconv.kernels.filtering`). A pixel's
numbers are those of its residues side by side, the rows' first, all channels of each.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from npconv.kernels.filtering import Filtering
from npconv.kernels.numba import jit, slab
from npconv.kernels.numba.slab import clear, inside, load_apart
from npconv.kernels.numba.transforms import filtering, transform


@cache
def loaded(axes: tuple[Filtering, Filtering]) -> Any:
    """Return what `slab.load` is for filterings that may be folded."""
    y_fold, x_fold = (axis.fold for axis in axes)
    if y_fold == x_fold == 1:
        return slab.load

    def load(piece, at, numbers, layout, start, channels, origin, step, shape):  # type: ignore[no-untyped-def]
        _, _, to_plane, to_line, to_pixel, depth, height, width = layout
        wide = channels * y_fold * x_fold
        clear(piece, at, shape[0] * shape[1] * shape[2] * wide)
        for plane in range(shape[0]):
            z = origin[0] + plane * step[0]
            if z < 0 or z >= depth:
                continue
            for row in range(shape[1]):
                line = at + (plane * shape[1] + row) * shape[2] * wide
                for residue in range(y_fold * x_fold):
                    j, i = divmod(residue, x_fold)
                    y, x = origin[1] + (row * y_fold + j) * step[1], origin[2] + i * step[2]
                    if 0 <= y < height:
                        pace = x_fold * step[2]
                        first, last = inside(x, pace, shape[2], width)
                        source = start + z * to_plane + y * to_line + (x + first * pace) * to_pixel
                        to = line + first * wide + residue * channels
                        load_apart(piece, to, wide, numbers, source, channels, last - first, layout[1], to_pixel * pace)

    return jit.specialised(load, y_fold, x_fold)


@cache
def filter_to_points(axes: tuple[Filtering, Filtering]) -> Any:
    """Return the transform of a filter's taps to points, for each residue that is folded: these are ``apart``."""
    (down, across), columns = axes, axes[1].taps
    lines_of, columns_of = filtering(down)[1], filtering(across)[1]
    done = None
    for residue in reversed(range(down.fold * across.fold)):
        j, i = divmod(residue, across.fold)
        one = transform(lines_of[:, j :: down.fold], columns_of[:, i :: across.fold])
        done = _and_then(one, done, residue, j * columns + i, down.fold * columns, across.fold)
    return done


def _and_then(one: Any, others: Any, residue: int, begin: int, line: int, tap: int) -> Any:
    """Return the transform of one residue, whose taps begin behind others, and of what comes after it."""
    if others is None:

        def last(points, at, apart, to_line, to_point, taps, first, wide):  # type: ignore[no-untyped-def]
            one(points, at + residue * apart, to_line, to_point, taps, first + begin * wide, line * wide, tap * wide)

        return jit.specialised(last, residue, begin, line, tap)

    def both(points, at, apart, to_line, to_point, taps, first, wide):  # type: ignore[no-untyped-def]
        one(points, at + residue * apart, to_line, to_point, taps, first + begin * wide, line * wide, tap * wide)
        others(points, at, apart, to_line, to_point, taps, first, wide)

    return jit.specialised(both, residue, begin, line, tap)

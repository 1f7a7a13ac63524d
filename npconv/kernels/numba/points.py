"""Winograd's transforms of tiles, filters and sums, as parts of kernels: those of each filtering are compiled once.

All that differs between filterings, such as F(4×4, 3×3) and F(2×2, 5×5), are these transforms and some numbers. When
kernels were compiled for each, a layer of another kernel, stride or tile than the first took 3.7 to 6.5 s until it had
its result, and takes 0.9 to 3.1. Kernels are as fast: a part is called for many tiles or filters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from npconv.kernels.filtering import Filtering
from npconv.kernels.numba import jit, slab
from npconv.kernels.numba.calls import calling
from npconv.kernels.numba.folded import filter_to_points
from npconv.kernels.numba.lean import max, min
from npconv.kernels.numba.product import width_of
from npconv.kernels.numba.short import KINDS
from npconv.kernels.numba.tile import COLUMNS
from npconv.kernels.numba.transforms import filtering, of_filters, transform, transform_and_add
from npconv.kernels.numba.vector import activated, lanes_of, load, store

Axes = tuple[Filtering, Filtering]
"""The filterings of height and width."""


def numbers_of(axes: Axes, last: Axes) -> list[tuple[int, int, int]]:
    """Return what kernels are told of filterings, and of the last ones along an axis, besides their transforms.

    These are all points and the results down and across; the numbers of a transformed filter and the pace of tiles down
    and across; then 0 and, down and across, their reach, the fold, and the two steps; whether the last tiles are short;
    and last, three by three, for each point which of the numbers it is multiplied with, and what tiles do not take it
    (`npconv.kernels.numba.short`).
    """
    down, across = axes
    numbers = [(down.points * across.points, down.results, across.results)]
    pairs = [(axis.pace, axis.reach, axis.fold, *axis.steps) for axis in axes]
    numbers += [(0, y, x) for y, x in zip(*pairs, strict=True)]
    numbers[1] = down.number * across.number, *numbers[1][1:]
    numbers.append((0, int(last[0] != down), int(last[1] != across)))
    met = [
        KINDS * (of_row * across.number + of_column) + (y not in last[0].kept) + 2 * (x not in last[1].kept)
        for y, of_row in enumerate(down.numbers)
        for x, of_column in enumerate(across.numbers)
    ]
    return numbers + list(zip(*[iter([*met, 0, 0])] * 3, strict=False))


@jit.inline
def met_by(sizes, first, point):  # type: ignore[no-untyped-def]
    """Return which number of a transformed filter a point is multiplied with, and what tiles do not take it.

    By `numbers_of` from ``first`` on.
    """
    row, column = divmod(point, 3)
    return divmod(sizes[first + 7 + row, column], KINDS)


def _part(function: Any, name: str, axes: Axes, form: str, past: bool = False) -> jit.Part:
    values = ("_".join(map(str, axis)) for axis in axes)
    return jit.Part(function, form, name + "_past" * past, *values)


_TILES, _SUMS, _FILTERS = "aiiiaiiiiiiii", "aiiaiiiiaiai", "aiiiaiii"


@cache
def _of_tiles(axes: Axes, past: bool) -> jit.Part:
    """Return the transform of the input: Bᵀ d B. It writes past the caches or not."""
    _, _, matrices = zip(*map(filtering, axes), strict=True)
    return _tiling("tiles", axes, matrices, [axis.pace for axis in axes], past)


@cache
def _of_slopes(axes: Axes) -> jit.Part:
    """Return the transform of a result's gradient, in pieces of as many elements as a tile has results: A d Aᵀ."""
    inverses, _, _ = zip(*map(filtering, axes), strict=True)
    return _tiling("slopes", axes, [inverse.T for inverse in inverses], [axis.results for axis in axes])


def _tiling(name: str, axes: Axes, matrices: Any, paces: list[int], past: bool = False) -> jit.Part:
    """Return the transform of rectangles that lie so far apart, by matrices of height and width."""
    (down, across), columns = matrices, axes[1].points
    to_points = transform(down, across, past, whole=False)
    y_pace, x_pace = paces

    def tiles(points, at, step, room, piece, first, pitch, between, plane, rows, across, planes, channels):  # type: ignore[no-untyped-def]
        """Transform tiles, a vector of channels at a time; the last ones may overlap.

        There are ``pitch`` pixels to a row of a plane, and they lie ``between`` numbers apart. The points of a tile,
        ``step`` apart, have ``room`` numbers: those of each plane behind the other. Of fewer channels than a vector
        has, what comes behind is written, too, and must be written over.
        """
        lanes = lanes_of(piece)
        for i in range(rows):
            for j in range(across):
                for k in range(planes):
                    start, to = first + k * plane + (i * y_pace * pitch + j * x_pace) * between, at + k * channels
                    for c in range(0, channels, lanes):
                        c = max(min(c, channels - lanes), 0)
                        to_points(points, to + c, columns * step, step, piece, start + c, pitch * between, between)
                at += room

    return _part(tiles, name, axes, _TILES, past)


@cache
def _of_sums(axes: Axes) -> jit.Part:
    """Return the transform of sums to results: Aᵀ M A."""
    inverses, _, _ = zip(*map(filtering, axes), strict=True)
    return _summing("sums", axes, inverses)


@cache
def _of_taps(axes: Axes) -> jit.Part:
    """Return the transform of sums to the gradient of filters: Gᵀ M G."""
    return _summing("taps", axes, [of_filters(axis).T for axis in axes])


def _summing(name: str, axes: Axes, matrices: Any) -> jit.Part:
    """Return the transform of sums back, by matrices of height and width."""
    to_results, (down, right), columns = transform_and_add(*matrices), map(len, matrices), len(matrices[1][0])

    def sums(result, first, pitch, points, room, tile, rows, across, bias, b, epilogue, count):  # type: ignore[no-untyped-def]
        """Transform the sums of tiles back, ``room`` of each point, and finish them; a row has ``pitch`` results.

        A second vector that has none of ``count`` filters is not computed.
        """
        wide, lanes = width_of(result), lanes_of(result)
        step, active = room * wide, epilogue[0] != 0
        for i in range(rows):
            for j in range(across):
                at = (first + i * down * pitch + j * right) * wide
                for part in range(0, count, lanes):
                    to_results(
                        result, at + part, pitch * wide, wide, points, tile * wide + part, columns * step, step, bias,
                        b + part,
                    )  # fmt: skip
                if active:
                    for _ in range(down):
                        store(activated(load(result, at, right, COLUMNS), epilogue), result, at, wide)
                        at += pitch * wide
                tile += 1

    return _part(sums, name, axes, _SUMS)


@cache
def _of_filters(axes: Axes, past: bool) -> jit.Part:
    """Return the transform of filters: G g Gᵀ, a vector of filters at a time. It writes past the caches or not."""
    down, across = axes
    to_points = filter_to_points(axes, past)
    lines, columns, numbers, folds = down.taps, across.taps, across.number, down.fold * across.fold

    def filters(packed, at, channels, pitch, taps, count, planes, wanted):  # type: ignore[no-untyped-def]
        """Write the points, ``pitch`` elements each, of some channels of a panel, whose taps `load_filters` left.

        Elements are so many channels, for each residue that is folded, and for each of the planes. A second vector of
        filters is left out if there are none ``wanted`` in it.
        """
        wide, lanes = width_of(packed), lanes_of(packed)
        first = 0
        for c in range(count):
            for plane in range(planes):
                element = (at + plane * folds * channels + c) * wide
                for part in range(0, wanted, lanes):
                    to_points(
                        packed, element + part, channels * wide, numbers * pitch * wide, pitch * wide, taps,
                        first + part, wide,
                    )  # fmt: skip
                first += lines * columns * wide

    return _part(filters, "filters", axes, _FILTERS, past)


tiles_to_points, sums_to_results, filters_to_points = calling(_TILES), calling(_SUMS), calling(_FILTERS)
"""What kernels call the transforms by: ``tiles_to_points(parts[TILES + kind], (points, at, …))``, as they are told
above; of tiles and sums there is one for each kind of tiles (`npconv.kernels.numba.short`)."""

TILES, SUMS, FILTERS = range(slab.OTHERS, slab.OTHERS + 2 * KINDS + 1, KINDS)
LANES = FILTERS
"""The same place, where gradients have the transform of what is in lanes."""


@cache
def parts_of(
    axes: Axes, last: Axes, dtype: np.dtype[Any], called: tuple[int, ...], load: str = "", unload: str = "",
    past: bool = False,
) -> np.ndarray:  # fmt: skip
    """Return where those transforms of filterings are that a kernel calls, behind the parts that slabs need.

    The filterings of the ``last`` tiles along an axis may be others. Points that several threads share are written
    ``past`` the caches, if they begin with lines of these.
    """
    tiles = _of_kinds(lambda those: _of_tiles(those, past) if TILES in called else None, axes, last)
    sums = _of_kinds(lambda those: _of_sums(those) if SUMS in called else None, axes, last)
    filters = _of_filters(axes, past) if FILTERS in called else None
    return slab.parts_of(dtype, load, unload, (*tiles, *sums, filters))


def _of_kinds(part: Callable[[Axes], jit.Part | None], axes: Axes, last: Axes) -> list[jit.Part | None]:
    """Return a part for each kind of tiles that there are."""
    found: list[jit.Part | None] = []
    for kind in range(KINDS):
        short = kind & 1, kind >> 1
        those = [other if is_short else axis for axis, other, is_short in zip(axes, last, short, strict=True)]
        there = all(bool(axis.short) == bool(is_short) for axis, is_short in zip(those, short, strict=True))
        found.append(part((those[0], those[1])) if there else None)
    return found


@cache
def gradient_parts(axes: Axes, dtype: np.dtype[Any], swapped: bool, load: str, unload: str) -> np.ndarray:
    """Return the same for gradients of filters: transforms of what is in rows, of sums, and of what is in lanes.

    In rows are tiles of the input, and in lanes pieces of the result's gradient, or ``swapped``.
    """
    tiles, slopes = _of_tiles(axes, False), _of_slopes(axes)
    rows, lanes = (slopes, tiles) if swapped else (tiles, slopes)
    others = [None] * (KINDS - 1)
    return slab.parts_of(dtype, load, unload, (rows, *others, _of_taps(axes), *others, lanes))

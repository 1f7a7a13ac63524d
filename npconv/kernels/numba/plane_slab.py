"""Slabs of planes: the piece of an input that a task works on, its rows one behind the other, channels outside.

`load_planes` brings a piece of an image of any memory order into that form, `unload_planes` takes planes of results
out of it, and `merge_planes` those of even and of odd pixels, together. `npconv.kernels.numba.slab` tells what a layout
is, and has the other form.

They are parts: kernels that had them of their own took longer to compile, each a second or two, and calls are for whole
planes. To load from any memory order takes two seconds, so rows of pixels side by side have a part of their own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from npconv.kernels.layout import CHANNEL, DEPTH, HEIGHT, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import jit
from npconv.kernels.numba.buffers import LINE
from npconv.kernels.numba.calls import calling
from npconv.kernels.numba.lean import max, min
from npconv.kernels.numba.moves import BLOCK, copy_pairs, merge_pairs, move, transpose
from npconv.kernels.numba.slab import copy_numbers, copy_spaced, inside
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.kernels.numba.vector import lanes_of, prefetch

FAR, AHEAD = 2**22, 2
"""Bytes of an image's channels from which on their rows are asked for before they are copied, and by how many channels.

In two threads 64 → 8 channels at 224², 3 × 3 at stride 2, so take 2.9 ms in float64 instead of 3.5 to 4.7; in float32
64 → 16 take 2.2 instead of 2.9 while others use the memory, and else as long. Of half as many bytes, it took up to 6 %
longer. (In the slabs of `npconv.kernels.numba.slab`, whose blocks are of several channels, it was no use.)"""


_LOAD, _UNLOAD, _MERGE = "aiianii" + 9 * "i" + "nii", "aniiiiaiii", "aniiiiiiaiiaii"
_load, _unload, _merge = calling(_LOAD), calling(_UNLOAD), calling(_MERGE)


@jit.inline
def _ask(x, at, count):  # type: ignore[no-untyped-def]
    """Ask for the lines of the cache that numbers lie in."""
    for k in range(0, count, LINE * lanes_of(x) // VECTOR_BYTES):
        prefetch(x, at + k)
    prefetch(x, at + count - 1)


@jit.inline
def _is_far(slab, to_channel, channels):  # type: ignore[no-untyped-def]
    """Whether so many channels of an image are more than `FAR`."""
    return to_channel * channels * (VECTOR_BYTES // lanes_of(slab)) >= FAR


@jit.inline
def load_planes(parts, slab, at, plane, x, layout, start, channels, origin, step, stride, window, phases, down):  # type: ignore[no-untyped-def]
    """Fill planes (depth, phase of the rows, phase of the columns, rows, columns) for each of some channels.

    Where a stride is greater than one, the rows of one residue lie together, and so do the columns; ``phases`` are the
    residues of rows that are wanted, ``down`` of them, and then those of columns. What lies outside of the image stays
    as it is. From ``slab[at]`` on, planes are ``plane`` apart, channel behind channel.
    """
    _load(
        parts[LOAD],
        (slab, at, plane, x, layout, start, channels, origin[0], origin[1], origin[2], step, stride[1], stride[2],
         window[0], window[1], window[2], phases, down, len(phases) - down),
    )  # fmt: skip


def _load_rows(  # type: ignore[no-untyped-def]
    slab, at, plane, x, layout, start, channels, z_origin, y_origin, x_origin, step, y_stride, x_stride, planes, rows,
    columns, phases, down, across,
):  # fmt: skip
    """Fill planes, as `load_planes` tells, from rows whose pixels lie side by side, without a stride along them."""
    to_channel, next_row, size = layout[CHANNEL], y_stride * layout[ROW], planes * down * plane
    left = x_origin + phases[down]
    first, last = inside(left, 1, columns, layout[WIDTH])
    far = _is_far(slab, to_channel, channels)
    for i in range(planes):
        z = z_origin + i * step
        if z < 0 or z >= layout[DEPTH]:
            continue
        for residue in range(down):
            top = y_origin + phases[residue]
            above, below = inside(top, y_stride, rows, layout[HEIGHT])
            row = start + z * layout[PLANE] + top * layout[ROW] + above * next_row + left + first
            to = at + (i * down + residue) * plane + above * columns + first
            for c in range(channels):
                line, place = row + c * to_channel, to + c * size
                asking = far and c + AHEAD < channels
                for _ in range(below - above):
                    if asking:
                        _ask(x, line + AHEAD * to_channel, last - first)
                    copy_numbers(slab, place, x, line, last - first)
                    line += next_row
                    place += columns


def _load_planes(  # type: ignore[no-untyped-def]
    slab, at, plane, x, layout, start, channels, z_origin, y_origin, x_origin, step, y_stride, x_stride, planes, rows,
    columns, phases, down, across,
):  # fmt: skip
    """Fill planes, as `load_planes` tells."""
    to_channel, to_line, to_pixel, height, width = (
        layout[CHANNEL],
        layout[ROW],
        layout[PIXEL],
        layout[HEIGHT],
        layout[WIDTH],
    )
    blocks = to_channel == 1 and channels >= BLOCK
    far = _is_far(slab, to_channel, channels)
    size = planes * down * across * plane
    for i in range(planes):
        z = z_origin + i * step
        if z < 0 or z >= layout[DEPTH]:
            continue
        source, target = start + z * layout[PLANE], at + i * down * across * plane
        halves = to_pixel == 1 and across == 2 and x_stride == 2 and not blocks
        for residue in range(down):
            top = y_origin + phases[residue]
            above, below = inside(top, y_stride, rows, height)
            row, number = source + (top + above * y_stride) * to_line, below - above
            to = target + residue * across * plane + above * columns
            if halves:
                for c in range(channels):
                    ahead = AHEAD * to_channel if far and c + AHEAD < channels else 0
                    _load_halves(slab, to + c * size, plane, columns, x, row + c * to_channel, y_stride * to_line,
                                 number, x_origin, width, ahead)  # fmt: skip
                continue
            for phase in range(across):
                left = x_origin + phases[down + phase]
                first, last = inside(left, x_stride, columns, width)
                pace, count = to_pixel * x_stride, last - first
                for c in range(0, channels, channels if blocks else 1):
                    line = row + left * to_pixel + first * pace + c * to_channel
                    place = to + phase * plane + first + c * size
                    for _ in range(number):
                        if blocks:
                            _load_blocks(slab, place, size, x, line, pace, channels, count)
                        elif pace == 1:
                            copy_numbers(slab, place, x, line, count)
                        else:
                            copy_spaced(slab, place, x, line, pace, count)
                        line += y_stride * to_line
                        place += columns


@jit.inline
def _load_halves(slab, at, plane, columns, x, row, next_row, rows, left, width, ahead):  # type: ignore[no-untyped-def]
    """Load a plane's rows at stride 2, where both residues of the columns are wanted: each row once.

    Those that lie ``ahead`` are asked for, if that is more than nothing.
    """
    first, last = inside(left, 2, columns, width)
    second, end = inside(left + 1, 2, columns, width)
    begin, pairs = max(first, second), min(last, end) - max(first, second)
    line = row + left
    for _ in range(rows):
        if first < begin:
            move(slab, at + first, x, line + 2 * first)
        if last > begin + pairs:
            move(slab, at + last - 1, x, line + 2 * last - 2)
        if second < begin:
            move(slab, at + plane + second, x, line + 2 * second + 1)
        if end > begin + pairs:
            move(slab, at + plane + end - 1, x, line + 2 * end - 1)
        if ahead > 0:
            _ask(x, line + 2 * begin + ahead, 2 * pairs)
        _copy_pairs(slab, at + begin, plane, x, line + 2 * begin, pairs)
        line += next_row
        at += columns


@jit.inline
def _copy_pairs(out, i, step, numbers, j, count):  # type: ignore[no-untyped-def]
    """Copy ``count`` pairs from ``numbers[j:]``: their first numbers to ``out[i:]``, the others ``step`` behind."""
    lanes = lanes_of(out)
    last = count - lanes
    if last >= 0:
        for k in range(0, last, lanes):
            copy_pairs(out, i + k, step, numbers, j + 2 * k, 1)
        copy_pairs(out, i + last, step, numbers, j + 2 * last, 1)
    elif 2 * count >= lanes:
        last += lanes // 2
        copy_pairs(out, i, step, numbers, j, 2)
        copy_pairs(out, i + last, step, numbers, j + 2 * last, 2)
    else:
        for k in range(count):
            move(out, i + k, numbers, j + 2 * k)
            move(out, i + step + k, numbers, j + 2 * k + 1)


@jit.inline
def _load_blocks(slab, to, size, x, at, step, channels, pixels):  # type: ignore[no-untyped-def]
    """Load a row of pixels ``step`` apart whose channels lie side by side, at least `BLOCK` of them."""
    if pixels >= BLOCK:
        for c in range(0, channels, BLOCK):
            c = min(c, channels - BLOCK)
            for pixel in range(0, pixels, BLOCK):
                pixel = min(pixel, pixels - BLOCK)
                transpose(slab, to + c * size + pixel, size, x, at + c + pixel * step, step)
    else:
        for c in range(channels):
            copy_spaced(slab, to + c * size, x, at + c, step, pixels)


@jit.inline
def unload_planes(parts, out, layout, start, filters, rows, columns, result, first, pitch, width):  # type: ignore[no-untyped-def]
    """Write planes of a result, ``pitch`` apart from ``result[first]`` on, whose rows are ``width`` apart."""
    if filters > 0:
        _unload(parts[UNLOAD], (out, layout, start, filters, rows, columns, result, first, pitch, width))


def _unload_planes(out, layout, start, filters, rows, columns, result, first, pitch, width):  # type: ignore[no-untyped-def]
    """Write planes, as `unload_planes` tells."""
    to_filter, to_line, to_pixel = layout[CHANNEL], layout[ROW], layout[PIXEL]
    for row in range(rows):
        at = start + row * to_line
        source = first + row * width
        if to_pixel == 1:
            for k in range(filters):
                copy_numbers(out, at + k * to_filter, result, k * pitch + source, columns)
        elif to_filter == 1 and filters >= BLOCK and columns >= BLOCK:
            for k in range(0, filters, BLOCK):
                k = min(k, filters - BLOCK)
                for x in range(0, columns, BLOCK):
                    x = min(x, columns - BLOCK)
                    transpose(out, at + x * to_pixel + k, to_pixel, result, k * pitch + source + x, pitch)
        else:
            for k in range(filters):
                for x in range(columns):
                    move(out, at + k * to_filter + x * to_pixel, result, k * pitch + source + x)


@jit.inline
def merge_planes(  # type: ignore[no-untyped-def]
    parts, out, layout, start, filters, rows, blank, columns, column, result, pitch, width, bias, k, apart
):
    """Write phases, merged with each other or, if ``apart``, with pixels that meet no tap, and ``blank`` such rows.

    ``column`` is the first of each phase, and ``bias[k]`` that of the first filter, which such pixels are.
    """
    _merge(
        parts[MERGE],
        (out, layout, start, filters, rows, blank, columns, column, result, pitch, width, bias, k, apart),
    )


def _merge_planes(  # type: ignore[no-untyped-def]
    out, layout, start, filters, rows, blank, columns, column, result, pitch, width, bias, k, apart
):
    """Write phases, as `merge_planes` tells."""
    odd = filters * pitch
    if apart:
        _fill_rows(result, odd, 2 * columns, bias, k, filters)
        count = min(2 * columns, layout[WIDTH] - 2 * column)
        _unload_below(out, layout, start, filters, blank, count, result, odd, 2 * columns)
    _unload_merged(
        out, layout, start, filters, rows, columns, column, result, pitch, width, odd, 2 * columns if apart else 0
    )


@jit.inline
def _unload_merged(out, layout, start, filters, rows, columns, column, result, pitch, width, odd, apart):  # type: ignore[no-untyped-def]
    """Write planes of even and of odd pixels, merged; ``column`` is the first of each.

    The odd ones begin at ``result[odd]``; the result may end with an even one. If they stand ``apart``, that is how far
    from each other those of the filters are, each a row that goes with all rows.
    """
    to_filter, to_line, to_pixel, wide = layout[CHANNEL], layout[ROW], layout[PIXEL], layout[WIDTH]
    pairs = min(columns, wide // 2 - column)
    for row in range(rows):
        for k in range(filters):
            at, source = start + k * to_filter + row * to_line, k * pitch + row * width
            other = odd + (k * apart if apart else source)
            if to_pixel == 1:
                _merge_pairs(out, at, result, source, other - source, pairs)
            else:
                for x in range(pairs):
                    move(out, at + 2 * x * to_pixel, result, source + x)
                    move(out, at + (2 * x + 1) * to_pixel, result, other + x)
            if pairs < columns:
                move(out, at + 2 * pairs * to_pixel, result, source + pairs)


@jit.inline
def _fill_rows(numbers, at, pitch, bias, k, filters):  # type: ignore[no-untyped-def]
    """Write a row of ``pitch`` numbers for each of some filters, all of them its bias; ``bias[k]`` is the first."""
    for f in range(filters):
        for x in range(pitch):
            move(numbers, at + f * pitch + x, bias, k + f)


@jit.inline
def _unload_below(out, layout, start, filters, rows, count, result, odd, apart):  # type: ignore[no-untyped-def]
    """Write ``count`` numbers of rows as `_fill_rows` makes them, below even rows: half as far as to the next of these.

    Pixels lie side by side.
    """
    for f in range(filters):
        for row in range(rows):
            at = start + f * layout[CHANNEL] + row * layout[ROW] + layout[ROW] // 2
            copy_numbers(out, at, result, odd + f * apart, count)


@jit.inline
def _merge_pairs(out, i, numbers, j, step, count):  # type: ignore[no-untyped-def]
    """Write ``count`` pairs to ``out[i:]``: a number from ``numbers[j:]`` and the one ``step`` behind it."""
    lanes = lanes_of(out)
    last = count - lanes
    if last >= 0:
        for k in range(0, last, lanes):
            merge_pairs(out, i + 2 * k, numbers, j + k, step, 1)
        merge_pairs(out, i + 2 * last, numbers, j + last, step, 1)
    elif 2 * count >= lanes:
        last += lanes // 2
        merge_pairs(out, i, numbers, j, step, 2)
        merge_pairs(out, i + 2 * last, numbers, j + last, step, 2)
    else:
        for k in range(count):
            move(out, i + 2 * k, numbers, j + k)
            move(out, i + 2 * k + 1, numbers, j + step + k)


LOAD, UNLOAD, MERGE, OTHERS = range(4)
_LOADS = {"rows": jit.Part(_load_rows, _LOAD), "any": jit.Part(_load_planes, _LOAD), "": None}
_UNLOADS, _MERGES = jit.Part(_unload_planes, _UNLOAD), jit.Part(_merge_planes, _MERGE)


@lru_cache(maxsize=4096)
def parts_of(
    dtype: np.dtype[Any], load: str, others: tuple[jit.Part | None, ...] = (), unload: bool = True, merge: bool = False
) -> np.ndarray:
    """Return where parts are, for kernels to call, those that are needed; and ``others``, from `OTHERS` on.

    What is loaded are ``"rows"`` of pixels side by side, at a stride of 1 along them, ``"any"`` pixels, or none.
    """
    return jit.addresses((_LOADS[load], _UNLOADS if unload else None, _MERGES if merge else None, *others), dtype)


def loads(layout: np.ndarray, stride: int) -> str:
    """Return what is loaded of an image, at a stride along its rows, as `parts_of` is told."""
    return "rows" if stride == 1 and layout[PIXEL] == 1 else "any"

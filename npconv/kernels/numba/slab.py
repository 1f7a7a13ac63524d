"""Slabs: the piece of an input that a task works on, copied into its cache, channels last; and results put back.

Most fast kernels have one inner order: the numbers of a pixel, its channels, lie side by side, and padding is there as
zeros. `load` brings a piece of an image of any memory order into that one, `unload` takes a piece of a result out of
it. Between them no kernel knows of borders or memory orders. The copy costs about a quarter of a cycle an element where
the channels are last already and half of one where blocks have to be transposed, against some ten cycles of products
for each in a layer of 64 channels.

Images are flat arrays with a *layout*, int64 numbers: strides of image, channel, depth, height and width in elements,
then the sizes of depth, height and width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npconv.kernels import host
from npconv.kernels.layout import CHANNEL, DEPTH, HEIGHT, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import jit
from npconv.kernels.numba.buffers import LINE
from npconv.kernels.numba.calls import calling
from npconv.kernels.numba.lean import max, min
from npconv.kernels.numba.moves import (
    BLOCK,
    blank,
    copy,
    copy_part,
    copy_threes,
    move,
    to_next_line,
    transpose,
    transpose_even,
)
from npconv.kernels.numba.product import width_of
from npconv.kernels.numba.tile import COLUMNS, VECTOR_BYTES
from npconv.kernels.numba.vector import lanes_of
from npconv.problem import ConvProblem


def flat(array: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return an array (N, C, D, H, W) as a flat view and its layout; None if that takes a copy.

    That is, if an axis runs backwards, or in steps that are no whole number of elements. The view can be written to.
    """
    size, steps = array.itemsize, array.strides
    if not array.flags.aligned:
        return None
    if array.flags.c_contiguous:
        numbers = array.reshape(-1)
    elif (last := array.transpose(0, 2, 3, 4, 1)).flags.c_contiguous:
        numbers = last.reshape(-1)
    elif array.size == 0 or min(steps) < 0 or any(step % size for step in steps):
        return None
    else:
        extent = 1 + sum((n - 1) * step // size for n, step in zip(array.shape, steps, strict=True))
        numbers = np.lib.stride_tricks.as_strided(array, (extent,), (size,))
    return host.writeable(numbers), np.array([*(step // size for step in steps), *array.shape[2:]], np.int64)


def filters(problem: ConvProblem, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return filters (K, C/groups, kd, kh, kw) as they are, and their layout with filters as channels."""
    numbers, layout = flat(weight) or flat(np.ascontiguousarray(weight))  # type: ignore[misc]
    return numbers, swapped(layout)


def swapped(layout: np.ndarray) -> np.ndarray:
    """Return a layout with images and channels in each other's place."""
    return layout[[1, 0, *range(2, len(layout))]]


def _copying(step):  # type: ignore[no-untyped-def]
    """Return a function that copies numbers which are ``step`` apart, in vectors, the last of which may overlap."""

    def copy_numbers(out, i, numbers, j, count):  # type: ignore[no-untyped-def]
        lanes = lanes_of(out)
        last = count - lanes
        if last >= 0:
            for k in range(0, last, lanes):
                copy_part(out, i + k, numbers, j + step * k, step, 1)
            copy_part(out, i + last, numbers, j + step * last, step, 1)
        elif 2 * count >= lanes:
            last += lanes // 2
            copy_part(out, i, numbers, j, step, 2)
            copy_part(out, i + last, numbers, j + step * last, step, 2)
        else:
            for k in range(count):
                move(out, i + k, numbers, j + step * k)

    return jit.specialised(copy_numbers, step)


copy_numbers, copy_even, copy_fourth = _copying(1), _copying(2), _copying(4)
"""``copy_numbers(out, i, numbers, j, count)``: copy to ``out[i:]`` what lies side by side from ``numbers[j]`` on; or
every second number; or every fourth, as complex numbers have parts at stride 2."""


@jit.inline
def copy_spaced(out, i, numbers, j, step, count):  # type: ignore[no-untyped-def]
    """Copy ``count`` numbers that are ``step`` apart from ``numbers[j]`` on to ``out[i:]``."""
    if step == 2:
        copy_even(out, i, numbers, j, count)
    elif step == 4:
        copy_fourth(out, i, numbers, j, count)
    else:
        for k in range(count):
            move(out, i + k, numbers, j + step * k)


@jit.inline
def clear(out, i, count):  # type: ignore[no-untyped-def]
    """Fill ``out[i : i + count]`` with zeros."""
    wide = width_of(out)
    k = 0
    while k + wide <= count:
        blank(out, i + k, COLUMNS)
        k += wide
    while k < count:
        blank(out, i + k, 0)
        k += 1


_LOAD, _UNLOAD = "aiianii" + 15 * "i", "aiiiiiiiaii"
_load, _unload = calling(_LOAD), calling(_UNLOAD)


_WHOLE = (1, 1, 1)


@jit.inline
def load(parts, slab, at, pitch, numbers, layout, start, channels, origin, step, shape):  # type: ignore[no-untyped-def]
    """Fill (planes, rows, columns, channels), from ``slab[at]`` on, with the pixels at origin + index * step.

    Pixels are ``pitch`` apart in the slab. Outside of the image there are zeros. ``start`` is the place of the first
    channel at depth, height and width 0; ``origin``, ``step`` and ``shape`` are (depth, height, width). ``parts`` are
    those of `parts_of`.
    """
    load_folded(parts, slab, at, pitch, numbers, layout, start, channels, origin, step, shape, _WHOLE, _WHOLE, _WHOLE)


@jit.inline
def load_folded(  # type: ignore[no-untyped-def]
    parts, slab, at, pitch, numbers, layout, start, channels, origin, step, shape, pace, folds, apart
):
    """Do the same where pixels are folded.

    A pixel has ``folds`` parts, which are ``apart`` steps from one to the next, and lies ``pace`` steps from the one
    before: these are (depth, height, width), too, of which height and width count.
    """
    z, y, x = origin
    z_step, y_step, x_step = step
    planes, rows, columns = shape
    _load(
        parts[LOAD],
        (slab, at, pitch, numbers, layout, start, channels, z, y, x, z_step, y_step, x_step, planes, rows, columns,
         pace[1], pace[2], folds[1], folds[2], apart[1], apart[2]),
    )  # fmt: skip


@jit.inline
def inside(origin, step, count, size):  # type: ignore[no-untyped-def]
    """Return the first index and the one after the last for which origin + index * step lies in an axis."""
    first = min(max(-(origin // step), 0), count)
    return first, max(min((size - 1 - origin) // step + 1, count), first)


SETS, STAYS = 2**12, 2**14
"""Bytes apart at which lines meet in one set of the first-level cache, and bytes that stay in it in any case."""


def _loading(step):  # type: ignore[no-untyped-def]
    """Return a function that copies pixels of a row, ``step`` numbers apart, in square blocks.

    The last block overlaps the one before it, so that none is cut. Some pixels get all of their channels at once: with
    channels outside, pixels of 1024, which all meet in a few of the cache's sets, took 0.6 ns a number and not 0.24,
    and those of 256 took 0.25 and not 0.16.

    If it is the planes of channels that meet so, as those of images of 128², 224² or 320² do, blocks run along a few
    lines of the cache, from where one begins: a line that only half a block was taken from would be gone before its
    turn comes. 64 channels at 128², 256² and 320² so take 10, 15 and 20 % less, directly at 224² 15 %. (Where planes do
    not meet, runs took up to 12 % longer.)
    """
    move_block = transpose if step == 1 else transpose_even

    def load_blocks(slab, i, pitch, numbers, at, channels, pixels, to_channel):  # type: ignore[no-untyped-def]
        run, first = BLOCK, 0
        itemsize = VECTOR_BYTES // lanes_of(slab)
        if to_channel % (SETS // itemsize) == 0:
            line = LINE // itemsize // step
            run = max(line * max(STAYS // (channels * LINE), 1), BLOCK)
            first = -(-to_next_line(numbers, at) // step) - line
        while first < pixels:
            end = min(first + run, pixels)
            for c in range(0, channels, BLOCK):
                c = min(c, channels - BLOCK)
                for x in range(max(first, 0), end, BLOCK):
                    x = min(x, pixels - BLOCK)
                    move_block(slab, i + x * pitch + c, pitch, numbers, at + c * to_channel + x * step, to_channel)
            first = end

    return jit.specialised(load_blocks, step)


_load_pixels, _load_even = _loading(1), _loading(2)


@jit.inline
def load_line(slab, i, pitch, numbers, at, channels, pixels, to_channel, to_pixel):  # type: ignore[no-untyped-def]
    """Copy pixels of a row, the channels of each side by side, ``pitch`` numbers apart."""
    blocks = to_channel != 1 and pixels >= BLOCK and channels >= BLOCK
    if blocks and to_pixel == 1:
        _load_pixels(slab, i, pitch, numbers, at, channels, pixels, to_channel)
    elif blocks and to_pixel == 2:  # at stride 2: 128 channels at 112² so take 10 % less
        _load_even(slab, i, pitch, numbers, at, channels, pixels, to_channel)
    else:
        _load_few(slab, i, pitch, numbers, at, channels, pixels, to_channel, to_pixel)


@jit.inline
def _load_few(slab, i, pitch, numbers, at, channels, pixels, to_channel, to_pixel):  # type: ignore[no-untyped-def]
    """Do the same with channels that are few, or lie side by side."""
    if pitch == channels and (to_channel == 1 or channels == 1) and to_pixel == channels:
        copy_numbers(slab, i, numbers, at, pixels * channels)
    elif pitch == 1:
        copy_spaced(slab, i, numbers, at, to_pixel, pixels)
    elif to_channel == 1 and channels != 3:
        for x in range(pixels):
            copy_numbers(slab, i + x * pitch, numbers, at + x * to_pixel, channels)
    elif to_pixel == 1 and channels == pitch == 3:
        _load_colours(slab, i, numbers, at, pixels, to_channel)
    else:
        _load_each(slab, i, pitch, numbers, at, channels, pixels, to_channel, to_pixel)


@jit.inline
def _load_side_by_side(slab, i, pitch, numbers, at, channels, pixels, to_channel, to_pixel):  # type: ignore[no-untyped-def]
    """Do the same with pixels that lie side by side, and channels that do not, and are many."""
    if pixels >= BLOCK and channels >= BLOCK:
        _load_pixels(slab, i, pitch, numbers, at, channels, pixels, to_channel)
    else:
        for x in range(pixels):
            for c in range(channels):
                move(slab, i + x * pitch + c, numbers, at + c * to_channel + x)


@jit.inline
def _load_each(slab, i, pitch, numbers, at, channels, pixels, to_channel, to_pixel):  # type: ignore[no-untyped-def]
    """Do the same number by number: channel by channel where these are parts of a pixel."""
    if channels == 3:  # 7 × 7 of an image of 224² so takes a twentieth less, a tenth if they lie side by side
        for _ in range(pixels):
            move(slab, i, numbers, at)
            move(slab, i + 1, numbers, at + to_channel)
            move(slab, i + 2, numbers, at + 2 * to_channel)
            i += pitch
            at += to_pixel
    elif pitch > channels:
        for c in range(channels):
            for x in range(pixels):
                move(slab, i + x * pitch + c, numbers, at + c * to_channel + x * to_pixel)
    else:
        for x in range(pixels):
            for c in range(channels):
                move(slab, i + x * pitch + c, numbers, at + c * to_channel + x * to_pixel)


@jit.inline
def _load_colours(slab, i, numbers, at, pixels, to_channel):  # type: ignore[no-untyped-def]
    """Copy pixels of a row that have three channels; a first layer has no others."""
    lanes = lanes_of(slab)
    last = pixels - lanes
    if last >= 0:
        for x in range(0, last, lanes):
            copy_threes(slab, i + 3 * x, numbers, at + x, to_channel, 1)
        copy_threes(slab, i + 3 * last, numbers, at + last, to_channel, 1)
    elif 2 * pixels >= lanes:
        last += lanes // 2
        copy_threes(slab, i, numbers, at, to_channel, 2)
        copy_threes(slab, i + 3 * last, numbers, at + last, to_channel, 2)
    else:
        for x in range(pixels):
            for c in range(3):
                move(slab, i + 3 * x + c, numbers, at + c * to_channel + x)


def _unloading_slab(unload_line, kind):  # type: ignore[no-untyped-def]
    """Return the part that writes a rectangle as `unload` tells, by a function for rows of a kind."""

    def unload_slab(  # type: ignore[no-untyped-def]
        out, start, to_filter, to_line, to_pixel, filters, rows, columns, slab, first, pitch
    ):
        wide = width_of(out)
        for row in range(rows):
            line = first + row * pitch * wide
            unload_line(out, start + row * to_line, to_filter, to_pixel, filters, columns, slab, line, wide)

    return jit.Part(unload_slab, _UNLOAD, kind)


@jit.inline
def unload(  # type: ignore[no-untyped-def]
    parts, out, start, to_filter, to_line, to_pixel, filters, rows, columns, slab, first, pitch
):
    """Write a rectangle of pixels into a result.

    ``start`` is the place of the first filter of the first pixel, and ``to_…`` the strides. From ``slab[first]`` on
    there are ``pitch`` pixels to a row, a panel's width of numbers to each, of which the first ``filters`` are wanted.
    """
    _unload(parts[UNLOAD], (out, start, to_filter, to_line, to_pixel, filters, rows, columns, slab, first, pitch))


def _loading_slab(load_line, kind):  # type: ignore[no-untyped-def]
    """Return the part that fills planes of a slab as `load_folded` tells, by a function for rows of a kind."""

    def load_slab(  # type: ignore[no-untyped-def]
        slab, at, pitch, numbers, layout, start, channels, z, y, x, z_step, y_step, x_step, planes, rows, columns,
        y_pace, x_pace, down, across, y_apart, x_apart,
    ):  # fmt: skip
        parts, to_next = down * across, x_pace * x_step
        for _ in range(planes):
            for row in range(rows):
                if parts > 1:
                    clear(slab, at, columns * pitch)
                for part in range(parts):
                    j, i = divmod(part, across)
                    lower, right = y + (row * y_pace + j * y_apart) * y_step, x + i * x_apart * x_step
                    first, last = inside(right, to_next, columns, layout[WIDTH])
                    if z < 0 or z >= layout[DEPTH] or lower < 0 or lower >= layout[HEIGHT]:
                        first, last = columns, columns
                    if parts == 1:
                        clear(slab, at, first * pitch)
                        clear(slab, at + last * pitch, (columns - last) * pitch)
                    if first < last:
                        source = (
                            start + z * layout[PLANE] + lower * layout[ROW] + (right + first * to_next) * layout[PIXEL]
                        )
                        to, to_pixel = at + first * pitch + part * channels, layout[PIXEL] * to_next
                        load_line(slab, to, pitch, numbers, source, channels, last - first, layout[CHANNEL], to_pixel)
                at += columns * pitch
            z += z_step

    return jit.Part(load_slab, _LOAD, kind)


@jit.inline
def unload_line(out, at, to_filter, to_pixel, filters, columns, slab, line, wide):  # type: ignore[no-untyped-def]
    """Write the pixels of a row, ``wide`` numbers each from ``slab[line]`` on, into a result."""
    if to_filter == 1 and filters == wide == width_of(out):
        for x in range(columns):
            copy(out, at + x * to_pixel, slab, line + x * wide)
    elif to_filter == 1:
        for x in range(columns):
            copy_numbers(out, at + x * to_pixel, slab, line + x * wide, filters)
    elif to_pixel == 1:
        _unload_side_by_side(out, at, to_filter, to_pixel, filters, columns, slab, line, wide)
    else:
        for k in range(filters):
            for x in range(columns):
                move(out, at + k * to_filter + x * to_pixel, slab, line + x * wide + k)


@jit.inline
def _unload_side_by_side(out, at, to_filter, to_pixel, filters, columns, slab, line, wide):  # type: ignore[no-untyped-def]
    """Do the same where the pixels of a result lie side by side."""
    if columns >= BLOCK and filters >= BLOCK:
        for k in range(0, filters, BLOCK):
            k = min(k, filters - BLOCK)
            for x in range(0, columns, BLOCK):
                x = min(x, columns - BLOCK)
                transpose(out, at + k * to_filter + x, to_filter, slab, line + x * wide + k, wide)
    else:
        for k in range(filters):
            for x in range(columns):
                move(out, at + k * to_filter + x, slab, line + x * wide + k)


LOAD, UNLOAD, OTHERS = range(3)
_LOADS = {
    kind: kind and _loading_slab(load_one, kind)
    for kind, load_one in {"rows": _load_side_by_side, "few": _load_few, "any": load_line, "": None}.items()
}
_UNLOADS = {
    kind: kind and _unloading_slab(unload_one, kind)
    for kind, unload_one in {"rows": _unload_side_by_side, "any": unload_line, "": None}.items()
}


def parts_of(dtype: np.dtype[Any], load: str, unload: str, others: tuple[jit.Part | None, ...] = ()) -> np.ndarray:
    """Return where `load` and `unload` are, for kernels to call, and ``others`` behind them, from `OTHERS` on.

    What is loaded are ``"rows"`` of pixels or ``"few"`` channels, as `loads` tells, ``"any"`` pixels, or none; what is
    unloaded ``"rows"`` of pixels, as `unloads` tells, ``"any"`` or none.

    They are parts, as each kernel that has them took a second longer to compile: `direct` after `winograd4` 6.2 s, and
    takes 5.1.
    """
    return jit.addresses((_LOADS[load], _UNLOADS[unload], *others), dtype)


def loads(layout: np.ndarray, step: int, channels: int) -> str:
    """Return what is loaded of an image's channels, pixels ``step`` apart: to load any takes a second to compile."""
    return "few" if channels < BLOCK else unloads(layout, step)


def unloads(layout: np.ndarray, step: int = 1) -> str:
    """Return what is unloaded into a result, pixels ``step`` apart."""
    return "rows" if step == 1 and layout[PIXEL] == 1 and layout[CHANNEL] != 1 else "any"

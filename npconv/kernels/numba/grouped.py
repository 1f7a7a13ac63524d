"""The direct sum where each filter meets the few channels of its group: vectors are of filters of several groups.

Groups as narrow as a vector, or narrower, leave a register tile of filters half empty, and one of pixels with few
filters to share what it loads. Where there are as many filters as channels, a vector of filters meets as many channels,
those of its own groups: one of each group after the other is brought to all lanes of its group, by a shuffle where a
vector has several groups, by a load where it has one (`npconv.kernels.numba.group_taps`). A tile holds some results of
a row; every line of the kernel brings a row of taps, whose weights stay in registers while the pixels that it meets
pass by. Rows of taps that are too wide, or a greater stride, are taken tap by tap.

A task is a rectangle of the result for some groups. It copies what it meets of the image, with zeros around it, so that
the channels lie side by side. Where they do so in the image, wide rows are read as they are, by tasks of all groups,
but for their ends and those next to the padding, of which a task copies what a row of results meets.
(Branches where pixels may be beyond, as `npconv.kernels.numba.channels` has them, took up to half as long again at 14²
and 28², where most tiles meet the padding; to copy all, 1.4 times as long at 112².)

Xie, Girshick, Dollár, Tu and He, *Aggregated residual transformations for deep neural networks* (2017), §3, have
layers of 32 groups of 4 to 32 channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, DEPTH, HEIGHT, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import blocking, buffers, jit, planes
from npconv.kernels.numba.calls import calling, taking
from npconv.kernels.numba.channels import SUMS, lanes, taps_together
from npconv.kernels.numba.group_taps import products_of_groups
from npconv.kernels.numba.lean import after, max, min, table, triples, tuple_of
from npconv.kernels.numba.slab import clear, load_line, unload_line
from npconv.kernels.numba.stores import store_some
from npconv.kernels.numba.vector import activated, add, add_row, lanes_of, zeros
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

ROOM, AT_ONCE = 2**18, 64
"""Bytes that a task works in which copies all it meets, and its filters, at most."""

PIXELS = 16384
"""Numbers of the result of a task that reads the image as it is."""

WIDE = 8
"""Tiles of a row of results from which on that is faster."""


class Form(NamedTuple):
    """What the sums of a row are compiled for."""

    taps: int
    """Taps of a row that are taken together, their weights in registers; 1 for rows of any width."""

    pace: int
    """Taps from one result to the next."""

    columns: int
    """Vectors of filters of a tile."""

    group: int
    """Channels of a group."""


class Cut(NamedTuple):
    """How a result is cut into tasks, as the kernel takes it."""

    tasks: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    sizes: np.ndarray


class Plan(NamedTuple):
    """A problem's numbers: for what is copied, and for what is read as it is, if there is anything."""

    work: int
    part: jit.Part
    copied: Cut
    in_place: Cut | None

    @property
    def tasks(self) -> int:
        """The most that there are in any way."""
        return max(cut.tasks for cut in (self.copied, self.in_place) if cut is not None)

    @property
    def scratch(self) -> tuple[int, np.dtype[Any]]:
        """The largest of any way."""
        return max(cut.scratch for cut in (self.copied, self.in_place) if cut is not None)


def _form(problem: ConvProblem) -> Form:
    (taps, pace, both), group, many = taps_together(problem), problem.in_channels // problem.groups, lanes(problem)
    return Form(taps, pace, 2 if both and (group < many or group % (2 * many) == 0) else 1, group)


def _firsts(problem: ConvProblem) -> list[int]:
    """Return the first filter of each tile, the last of which may overlap."""
    filters, wide = problem.out_channels, _form(problem).columns * lanes(problem)
    return [min(k, filters - wide) for k in range(0, filters, wide)]


pack_bias = planes.pack_bias


def pack(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """Return filters (K, C/groups, kd, kh, kw) in vectors: tile by tile, line by line of the kernel.

    Of each line, channel by channel of a group, tap by tap of those that are taken together.
    """
    problem = problem.canonical_form()
    form, firsts = _form(problem), _firsts(problem)
    wide = form.columns * lanes(problem)
    weight = weight.reshape(problem.out_channels, form.group, -1, form.taps)
    if firsts[-1] % wide == 0:
        tiles = weight.reshape(len(firsts), wide, *weight.shape[1:])
    else:
        tiles = weight[np.array(firsts)[:, None] + np.arange(wide)]
    packed = buffers.aligned(tiles.size * weight.itemsize).view(weight.dtype)
    ordered = tiles.transpose(0, 3, 2, 4, 1)
    packed.reshape(ordered.shape)[...] = ordered
    return packed


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    form = _form(problem)
    copied, in_place = _copied(problem, form, threads), None
    if problem.output_size[2] >= WIDE * SUMS // form.columns * problem.dilation[2]:
        in_place = _in_place(problem, form, threads)
    return Plan(problem.flops // 20, _row(form), copied, in_place)


def _copied(problem: ConvProblem, form: Form, threads: int) -> Cut:
    """Cut a result into rectangles of some filters, for which all that is met is copied."""
    depth, height, width = problem.output_size
    filters, whole = problem.out_channels, max(form.columns * lanes(problem), form.group)
    others, room = problem.batch * depth * -(-filters // whole), ROOM // problem.compute_dtype.itemsize
    pixels = -(-height * width // max(threads // max(others, 1), 1))
    while True:
        block = blocking.blocks(height, width, pixels, others, 1, threads)
        window = _window(problem, block)
        numbers = block.rows * block.columns + math.prod(window)
        if numbers * whole <= room or pixels <= 16:
            break
        pixels = pixels * 3 // 4
    tasks = others * -(-height // block.rows) * -(-width // block.columns)
    most = min(AT_ONCE, room // numbers) // whole
    share = whole * max(min(tasks // (blocking.TASKS_PER_THREAD * threads), most), 1)
    return _cut(problem, form, block, share, window)


def _in_place(problem: ConvProblem, form: Form, threads: int) -> Cut:
    """Cut a result into rectangles of all filters, for which only rows at the edges of the image are copied."""
    depth, height, width = problem.output_size
    pixels = max(PIXELS // problem.out_channels, 16)
    block = blocking.blocks(height, width, pixels, problem.batch * depth, 1, threads)
    window = _window(problem, blocking.Blocks(1, block.columns, 1))
    return _cut(problem, form, block, problem.out_channels, window, in_place=True)


def _window(problem: ConvProblem, block: blocking.Blocks) -> tuple[int, int, int]:
    """Return the planes, rows and columns that a rectangle meets."""
    rows, columns = (
        (n - 1) * stride + span for n, stride, span in zip(block[:2], problem.stride[1:], problem.span[1:], strict=True)
    )
    return problem.kernel_size[0], rows, columns


def _cut(
    problem: ConvProblem, form: Form, block: blocking.Blocks, share: int, window: tuple[int, int, int],
    in_place: bool = False,
) -> Cut:  # fmt: skip
    kernel, dilation, stride = problem.kernel_size, problem.dilation, problem.stride
    (depth, height, width), filters = problem.output_size, problem.out_channels
    grid = (problem.batch, depth, -(-height // block.rows), -(-width // block.columns), -(-filters // share))
    # Results that are computed together lie as far apart as the taps do.
    apart, between = (dilation[2], dilation[2]) if form.taps > 1 else (1, stride[2])
    alone = form.group if form.group >= lanes(problem) else 1
    chain = max(chain_length(problem.products) // (form.taps * form.group // alone), 1)
    sizes = np.array(
        [stride, dilation, [-pad for pad, _ in problem.padding], (*kernel[:2], kernel[2] // form.taps), problem.span,
         window, (block.rows, block.columns, share), (filters, apart, in_place),
         (form.columns, alone, chain)]
    )  # fmt: skip
    end = SUMS * form.pace * between  # the last tile of a row meets pixels beyond it
    numbers = (block.rows * block.columns + math.prod(window) + end) * share
    return Cut(int(np.prod(grid)), (numbers, problem.compute_dtype), np.array(grid), sizes)


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    cut = plan.copied
    if plan.in_place is not None and x_layout[CHANNEL] == 1:
        cut = plan.in_place
    parts = jit.addresses((plan.part,), epilogue.dtype)
    constants = x_layout, epilogue, out_layout, cut.grid, cut.sizes, parts
    return _block.fixed(cut.tasks, plan.work, threads, constants, cut.scratch)


_ROW = "aiiaiiiiiniiiiiaaa"
_compute_row = calling(_ROW)


@cache
def _row(form: Form) -> jit.Part:
    """Return the sums of a row of results."""
    taps, pace, vectors, group = form
    results, add_products = SUMS // vectors, products_of_groups(*form[:2], group)

    def compute(  # type: ignore[no-untyped-def]
        target, to, next_pixel, numbers, first, to_pixel, stride, columns, apart, places, lines, chain, begin, end,
        filters, weights, bias, epilogue,
    ):  # fmt: skip
        """Compute ``columns`` results for filters from ``begin`` to ``end``; ``numbers[first]`` is what these meet."""
        wide, active = vectors * lanes_of(target), epilogue[0] != 0
        alone = group >= lanes_of(target)
        size = taps * wide * (1 if alone else group)
        low = min(begin, filters - wide)
        step = apart * to_pixel if taps > 1 else stride * to_pixel
        for residue in range(min(apart, columns)):
            count = -(-(columns - residue) // apart)
            j, place = first + residue * stride * to_pixel, to + residue * next_pixel
            for done in range(0, count, results):
                w = begin * (lines * size // wide)
                for k in range(begin, end, wide):
                    k = min(k, filters - wide)
                    i = j + (k // group * group if alone else k) - low
                    total = zeros(target, results, vectors)
                    for line in range(0, lines, chain):
                        part = zeros(target, results, vectors)
                        for n in range(line, min(line + chain, lines)):
                            part = add_products(part, weights, w, numbers, i + places[n], step)
                            w += size
                        total = add(total, part)
                    total = add_row(total, bias, k)
                    if active:
                        total = activated(total, epilogue)
                    store_some(total, target, place + k - low, apart * next_pixel, count - done)
                j += results * pace * step
                place += results * apart * next_pixel

    return jit.Part(compute, _ROW, *form)


@jit.inline
def _load(slab, pitch, line, x, layout, start, first, window, step):  # type: ignore[no-untyped-def]
    """Copy a window of an image, of ``pitch`` channels side by side, rows ``line`` numbers apart.

    ``first`` are its first plane, row and column; its planes are ``step`` apart.
    """
    _, to_channel, to_plane, to_line, to_pixel, depths, height, width = tuple_of(layout, 0, 8)
    planes, rows, columns = window
    before = min(max(-first[2], 0), columns)
    within = max(min(first[2] + columns, width) - max(first[2], 0), 0)
    after = columns - before - within
    at = 0
    for i in range(planes):
        plane = first[0] + i * step
        for y in range(first[1], first[1] + rows):
            if 0 <= plane < depths and 0 <= y < height and within > 0:
                source = start + plane * to_plane + y * to_line + max(first[2], 0) * to_pixel
                clear(slab, at, before * pitch)
                load_line(slab, at + before * pitch, pitch, x, source, pitch, within, to_channel, to_pixel)
                clear(slab, at + (before + within) * pitch, after * pitch)
            else:
                clear(slab, at, columns * pitch)
            at += line


@jit.inline
def _find(places, kernel, steps, alone):  # type: ignore[no-untyped-def]
    """Write how far on each line of the kernel is, and each channel where a vector has filters of one group."""
    at = 0
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            for m in range(kernel[2]):
                for channel in range(alone):
                    places[at] = i * steps[0] + j * steps[1] + m * steps[2] + channel
                    at += 1


_FORM = "nannNn"
_taken = taking(_FORM)


@jit.scratch_kernel(_FORM)
@jit.makes_arrays
def _block(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a rectangle of the result for some groups."""
    x_layout, epilogue, out_layout, grid, sizes, parts = _taken(constants, x)
    task, horizontal = divmod(task, grid[3])
    task, vertical = divmod(task, grid[2])
    task, part = divmod(task, grid[4])
    n, z = divmod(task, grid[1])
    stride, dilation, before, kernel, span, window, block, (filters, apart, in_place), (vectors, alone, chain) = (
        triples(sizes, 0, 9)
    )
    row, column = vertical * block[0], horizontal * block[1]
    rows, columns = min(block[0], out_layout[HEIGHT] - row), min(block[1], out_layout[WIDTH] - column)
    # The last tile of filters may overlap the one before.
    begin, end = part * block[2], min((part + 1) * block[2], filters)
    low = min(begin, filters - vectors * lanes_of(x))
    pitch = end - low
    result, slab = scratch, after(scratch, rows * columns * pitch)
    first_plane, top, left = before[0] + z * stride[0], before[1] + row * stride[1], before[2] + column * stride[2]
    start = n * x_layout[IMAGE] + low * x_layout[CHANNEL]
    line = window[2] * pitch  # of the slab
    height, width, lines = x_layout[HEIGHT], x_layout[WIDTH], kernel[0] * kernel[1] * kernel[2] * alone
    of_slab, of_image = table(lines), table(lines)
    high = span[1] if in_place else (rows - 1) * stride[1] + span[1]  # the last rectangle's planes are lower
    _find(of_slab, kernel, (high * line, dilation[1] * line, dilation[2] * pitch), alone)
    inner = outer = 0  # results in tiles that meet nothing but the image's columns
    if in_place:
        steps = (dilation[0] * x_layout[PLANE], dilation[1] * x_layout[ROW], dilation[2] * x_layout[PIXEL])
        _find(of_image, kernel, steps, alone)
        wide = SUMS // vectors * apart
        inner = min(-(-max(-left, 0) // (stride[2] * wide)) * wide, columns)
        there = min((width - left - span[2]) // stride[2] + 1, columns)
        outer = inner + max(there - inner, 0) // wide * wide
    else:
        seen = (window[0], high, window[2])
        _load(slab, pitch, line, x, x_layout, start, (first_plane, top, left), seen, dilation[0])
    inside = first_plane >= 0 and first_plane + (kernel[0] - 1) * dilation[0] < x_layout[DEPTH]
    corner = (
        n * out_layout[IMAGE]
        + z * out_layout[PLANE]
        + row * out_layout[ROW]
        + column * out_layout[PIXEL]
        + low * out_layout[CHANNEL]
    )
    straight = out_layout[CHANNEL] == 1
    for y in range(rows):
        upper = top + y * stride[1]
        complete = inside and upper >= 0 and upper + span[1] <= height
        bounds = (0, inner, outer, columns) if complete else (0, columns, columns, columns)
        for section in range(3):
            done, until = bounds[section], bounds[section + 1]
            if done >= until:
                continue
            numbers, source, to_pixel, places = slab, y * stride[1] * line, pitch, of_slab
            if in_place and section == 1:
                numbers, to_pixel, places = x, x_layout[PIXEL], of_image
                source = (
                    start + first_plane * x_layout[PLANE] + upper * x_layout[ROW] + (left + done * stride[2]) * to_pixel
                )
            elif in_place:  # an end of a row, or a row next to the padding
                seen = (window[0], span[1], (until - done - 1) * stride[2] + span[2])
                origin, source = (first_plane, upper, left + done * stride[2]), 0
                _load(slab, pitch, line, x, x_layout, start, origin, seen, dilation[0])
            if straight:
                target, next_pixel = out, out_layout[PIXEL]
                to = corner + y * out_layout[ROW] + done * next_pixel
            else:
                target, to, next_pixel = result, (y * columns + done) * pitch, pitch
            _compute_row(
                parts[0],
                (target, to, next_pixel, numbers, source, to_pixel, stride[2], until - done, apart, places, lines,
                 chain, begin, end, filters, weights, bias, epilogue),
            )  # fmt: skip
    if not straight:
        if out_layout[ROW] == columns * out_layout[PIXEL]:
            rows, columns = 1, rows * columns
        for y in range(rows):
            at, to = y * columns * pitch, corner + y * out_layout[ROW]
            unload_line(out, to, out_layout[CHANNEL], out_layout[PIXEL], pitch, columns, result, at, pitch)

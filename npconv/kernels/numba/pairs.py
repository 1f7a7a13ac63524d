"""Transposed convolutions whose kernel is as long as its stride, two elements along a row: pixels in the vectors.

All patches of the result come of one 1 × 1 convolution with a filter for each tap (`npconv.patches`). In the order that
a weight has them, two filters at a time make the even and the odd pixels of a row of the result. So a register tile is
two or three pairs of filters times two vectors of neighbouring pixels, and is merged as it is written: a pair's row is
twice as long. Tiles that go over the end of an image's row are written by way of a few lines of scratch.

With a plane for each pixel of a filter's four, merged afterwards, 64 to 32 channels of 112² took 1.25 times as long,
128 to 64 of 56² 1.1 times, and 256 to 128 of 28² as long. (To write a tile that goes over an end into both rows, by
masks, took 4 % longer than by way of the scratch.)

A task is some pixels of one plane of the input, for some pairs of one group. Slivers and filters are those of
`npconv.kernels.numba.pixels`; how much a task has, `npconv.kernels.numba.planes` tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import jit, plane_plan, planes
from npconv.kernels.numba.blocking import in_slivers
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, max, min, pair_table, part_of, table, triples, tuple_of
from npconv.kernels.numba.pixels import ahead_of, cut_planes, share_out, summing, turn_filters
from npconv.kernels.numba.product import LINES, ask_for, width_of
from npconv.kernels.numba.rows import Filters
from npconv.kernels.numba.slab import copy_numbers
from npconv.kernels.numba.stores import store_pairs
from npconv.kernels.numba.tile import COLUMNS, ROWS, VECTOR_BYTES
from npconv.kernels.numba.vector import activated, add_column, starts_from
from npconv.problem import ConvProblem

PAIR = 2
"""Filters that make a row of the result."""

_TURNED = np.array([0]), np.array([1])
"""Whether filters lie side by side, as the kernel is told: its arguments are of the types that those of planes are."""


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    sizes: np.ndarray


def takes(made: ConvProblem, patch: tuple[int, ...]) -> bool:
    """Whether patches of this size, which a 1 × 1 convolution makes, are written here."""
    return patch[-1] == PAIR and made.compute_dtype.kind == "f" and in_slivers(made)


class Patches(NamedTuple):
    """The engine for patches of one size, as `npconv.kernels.packed.Merged` takes it: of one problem."""

    size: tuple[int, ...]

    def pack_all(self, problems: Sequence[ConvProblem], weights: Sequence[np.ndarray]) -> Filters:
        """Return the filters as they are, if tasks can turn them."""
        return planes.pack(problems[0], weights[0])

    def pack_bias(self, problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
        """Return the bias of each filter."""
        return planes.pack_bias(problem, None if bias is None else np.repeat(bias, math.prod(self.size)))

    def plan_of(self, problems: Sequence[ConvProblem], threads: int, in_line: bool, all_rows: int = 0) -> Plan:
        """Cut the convolution into tasks."""
        (problem,) = problems
        depth, height, width = problem.input_size
        like = plane_plan.plan_of([replace(problem, input_size=(depth, 1, height * width))], threads, in_line=True)
        channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
        (slivers, _, _), (_, _, pixels), ((_, chain, _),) = like.sizes.slivers, like.sizes.block, like.sizes.sums
        wide = COLUMNS * VECTOR_BYTES // problem.compute_dtype.itemsize
        deep, down = self.size[:2]
        scratch = slivers * channels * wide + ROWS * wide + (-(-filters // int(like.grid[2])) + PAIR) * channels
        sizes = [(channels, filters, slivers), (height * width, pixels, chain), (deep, down, problem.groups)]
        return Plan(like.tasks, like.work, (scratch, problem.compute_dtype), like.grid, np.array(sizes))

    def fixed(
        self, plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
    ) -> Callable[..., None]:
        """Return a function that fills ``out``, whose rows' pixels lie side by side, as `planes.fixed` does.

        The input's rows go on with the next.
        """
        constants = x_layout, epilogue, out_layout, plan.grid, plan.sizes
        in_rows, turned = (
            _kernel.fixed(plan.tasks, plan.work, threads, (*constants, kind), plan.scratch) for kind in _TURNED
        )

        def fill(x: np.ndarray, weights: Filters, bias: np.ndarray, out: np.ndarray) -> None:
            (turned if weights.turned else in_rows)(x, weights.numbers, bias, out)

        return fill


def _tile(pairs: int, kind: str) -> Any:
    """Return the product of some pairs of filters with all pixels, two vectors of them at a time, merged."""
    rows = PAIR * pairs
    sums = summing(rows, COLUMNS, kind)

    def multiply(  # type: ignore[no-untyped-def]
        out, lines, pair, room, filters, first, slivers, places, sizes, bias, k, epilogue, image, limits
    ):
        rows_at, lines_at = starts_from(first, sizes[2], rows), tuple_of(lines, pair, pairs)
        wide = width_of(out)
        room_at = starts_from(0, PAIR * wide, pairs)
        for n in range(len(places)):
            if places[n, 1] >= 0:
                for row in range(pairs):
                    ask_for(out, lines[pair + row] + places[n, 1], PAIR * wide)
            tile = add_column(sums(filters, rows_at, slivers, places[n, 0], places, sizes, image, n), bias, k)
            if epilogue[0] != 0:
                tile = activated(tile, epilogue)
            if places[n, 1] >= 0:
                store_pairs(tile, out, lines_at, places[n, 1])
            else:
                store_pairs(tile, room, room_at, 0)
                over_ends(out, lines, pair, pairs, room, image[2][n], limits)

    return jit.specialised(multiply, pairs, kind, within=True)


@jit.inline
def find_lines(lines, first, start, layout, deep, down):  # type: ignore[no-untyped-def]
    """Write where the rows of pairs begin in a result, ``first`` and the next ones, by a patch's planes and rows."""
    for pair in range(len(lines)):
        rest, line = divmod(first + pair, down)
        c, plane = divmod(rest, deep)
        lines[pair] = start + c * layout[CHANNEL] + plane * layout[PLANE] + line * layout[ROW]


@jit.inline
def over_ends(out, lines, pair, pairs, room, pixel, limits):  # type: ignore[no-untyped-def]
    """Write the merged rows of some pairs, which go over the ends of an image's rows."""
    columns, end, to_line = limits
    wide = width_of(out)
    done, count = 0, min(end - pixel, wide)
    while done < count:
        line, column = divmod(pixel + done, columns)
        some = min(columns - column, count - done)
        for row in range(pairs):
            copy_numbers(
                out, lines[pair + row] + line * to_line + PAIR * column, room, PAIR * (row * wide + done), PAIR * some
            )
        done += some


_two, _three, _cutting_three = _tile(2, "slivers"), _tile(3, "slivers"), _tile(3, "cutting")


_FORM = "nannNn"
_taken = taking(_FORM)


@jit.scratch_kernel(_FORM)
@jit.makes_arrays
def _kernel(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute the patches of some pixels for some pairs of a group."""
    x_layout, epilogue, out_layout, grid, sizes, turned = _taken(constants, x)
    task, block = divmod(task, grid[5])
    task, z = divmod(task, grid[3])
    task, part = divmod(task, grid[2])
    n, group = divmod(task, grid[1])
    (channels, filters, slivers), (positions, share, chain), (deep, down, groups) = triples(sizes, 0, 3)
    wide, columns = width_of(x), x_layout[WIDTH]
    begin, end = block * share, min((block + 1) * share, positions)  # pixels
    first_pair = part * (filters // PAIR) // grid[2]
    count = PAIR * ((part + 1) * (filters // PAIR) // grid[2] - first_pair)
    k = group * filters + PAIR * first_pair
    fill, scratch = scratch, after(scratch, slivers * channels * wide)
    room, scratch = scratch, after(scratch, ROWS * wide)
    if turned[0]:
        filters_of, first = scratch, 0
        turn_filters(filters_of, weights, k, groups * filters, count, channels, PAIR)
    else:
        filters_of, first = weights, k * channels
    lines = table(count // PAIR)
    find_lines(lines, k // PAIR, n * out_layout[IMAGE] + z * deep * out_layout[PLANE], out_layout, deep, down)
    to_line = down * out_layout[ROW]
    limits = columns, end, to_line
    many = -(-(end - begin) // wide)
    some = -(-many // -(-many // slivers))  # slivers at a time
    pixels, places = table(many), pair_table(many)
    for sliver in range(many):
        pixel = max(min(begin + sliver * wide, end - wide), begin)
        line, across = divmod(pixel, columns)
        pixels[sliver] = pixel
        places[sliver, 0] = sliver % some * channels * wide
        places[sliver, 1] = line * to_line + PAIR * across if across + wide <= columns and pixel + wide <= end else -1
    start = n * x_layout[IMAGE] + group * channels * x_layout[CHANNEL] + z * x_layout[PLANE]
    tiles, least, higher = share_out(count, PAIR)
    cutting = x_layout[PIXEL] == 1 and end - begin >= wide and PAIR * (least + (higher > 0)) == ROWS
    for sliver in range(0, many, some):
        those, these = part_of(places, sliver, min(some, many - sliver)), after(pixels, sliver)
        if not cutting:
            cut_planes(fill, those, these, channels, fill, 0, these, x, start, x_layout, end - begin, ())
        pair, at = 0, first
        for tile in range(tiles):
            pairs = least + 1 if tile < higher else least
            high = PAIR * pairs
            all_sizes = (chain, channels, 1, high) if turned[0] else (chain, channels, channels, 1)
            ask = start + ahead_of(channels) * wide
            image = x, start, these, x_layout[CHANNEL], (these, 1, ask, wide - wide // LINES, x_layout[CHANNEL])
            if tile == 0 and cutting:
                _cutting_three(out, lines, pair, room, filters_of, at, fill, those, all_sizes, bias, k + PAIR * pair,
                               epilogue, image, limits)  # fmt: skip
            elif pairs == 3:
                _three(out, lines, pair, room, filters_of, at, fill, those, all_sizes, bias, k + PAIR * pair, epilogue,
                       image, limits)  # fmt: skip
            else:
                _two(out, lines, pair, room, filters_of, at, fill, those, all_sizes, bias, k + PAIR * pair, epilogue,
                     image, limits)  # fmt: skip
            pair += pairs
            at += high * channels

"""Winograd's minimal filtering for large kernels: pieces of the kernel, summed up as points.

The weight gradient of a 3 × 3 convolution is a convolution whose kernel is the gradient of a whole result, and whose
result has 3 × 3 elements. A filtering is a sum of products of samples, taps and results, and that sum can be solved for
the taps as well as for the results (transposed, in the words of the field): by F(4×4, 3×3) pieces of 4 × 4 elements of
the kernel each meet 6 × 6 of the input, and take 36 products for what takes 144 directly. The input's tiles are
transformed as they are for results (`npconv.kernels.numba.winograd`), the pieces by the matrices of results, and what
comes out by those of filters: W = Gᵀ [ Σ (A y Aᵀ) ⊙ (Bᵀ x B) ] G. So strides of the convolution, which are dilations
here, are those of a filtering: F(4×4, 3×3) at stride 2 takes 81 products instead of 144.

The sum over the pieces of all images is, for each point, a matrix product of channels and filters, which grows in the
second-level cache while pieces come and go; only the end is transformed back. With a dilation of the convolution, here
a stride, elements of one residue, in each direction, are an image of their own.

A task has some channels and a panel of filters of a group, or some filters and a panel of channels, and transforms all
their pieces for itself: `npconv.kernels.numba.piecing` tells which. What it has some of are *rows* of its products, and
a panel are their *lanes*.

In the words of this problem, whose batch are the channels of the convolution that the gradient belongs to, channels are
images here: `npconv.weight_gradient` says so, and here they are called what they are there.

Winograd, *Arithmetic complexity of computations* (1980), §IVd, for the transposition.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.layout import CHANNEL, IMAGE, PIXEL, ROW
from npconv.kernels.numba import blocking, buffers, jit, piecing, product, slab
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, max, min, triples
from npconv.kernels.numba.points import LANES, SUMS, TILES, Axes, gradient_parts, sums_to_results, tiles_to_points
from npconv.kernels.numba.product import multiply_rows, width_of
from npconv.kernels.numba.vector import lanes_of
from npconv.problem import ConvProblem


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    axes: Axes
    swapped: bool
    sizes: np.ndarray


pack, pack_bias = slab.filters, product.panel_bias


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    cut = piecing.cut(problem, threads, product.width(problem.compute_dtype))
    inner, kernel = (0, *(-pad for pad, _ in problem.padding[1:])), (0, 0, 0)
    of_input = inner, (0, *(axis.pace for axis in cut.axes)), (0, *(axis.reach for axis in cut.axes))
    results = 0, *(axis.results for axis in cut.axes)
    of_kernel = kernel, results, results
    of_rows, of_lanes = (of_kernel, of_input) if cut.swapped else (of_input, of_kernel)
    taps, (down, across) = problem.output_size[1:], cut.axes
    # Sums of points that belong to a single tap are one.
    numbers = [y * across.number + x for y in down.numbers for x in across.numbers]
    met = [(number, point == numbers.index(number), 0) for point, number in enumerate(numbers)]
    sizes = np.array(
        [(problem.groups, problem.in_channels // problem.groups, cut.swapped), (cut.rows, cut.share, cut.lanes),
         (*cut.pieces, 0), cut.step, (len(met), *taps), problem.stride, *of_rows, *of_lanes, *met]
    )  # fmt: skip
    scratch = cut.numbers + 6 * buffers.LINE, problem.compute_dtype
    return Plan(cut.tasks, problem.flops // 80, scratch, cut.axes, cut.swapped, sizes)


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    # To the kernel, images are channels.
    _, (rows, _, lanes), _, _, _, (_, _, step) = plan.sizes[:6]
    layout, unload = slab.swapped(x_layout), slab.unloads(out_layout)
    loads = slab.loads(layout, step, rows)

    @cache
    def loading(load: str) -> Callable[..., None]:
        parts = gradient_parts(plan.axes, epilogue.dtype, plan.swapped, load, unload)
        return _block.fixed(plan.tasks, plan.work, threads, (epilogue, out_layout, plan.sizes, parts), plan.scratch)

    def fill(x: np.ndarray, weights: tuple[np.ndarray, np.ndarray], bias: np.ndarray, out: np.ndarray) -> None:
        w, w_layout = weights
        run = loading(loads if loads == slab.loads(w_layout, step, lanes) else "any")
        given = (w, w_layout, x, layout) if plan.swapped else (x, layout, w, w_layout)
        run(*given, bias, out)

    return fill


apart, height_of = jit.inline(blocking.apart), jit.inline(piecing.height)

_FORM = "anNn"
_taken = taking(_FORM)


@jit.scratch_kernel(_FORM)
def _block(task, memory, x, x_layout, y, y_layout, bias, out, constants):  # type: ignore[no-untyped-def]
    """Compute a panel of lanes, whose numbers are in ``y``, for some rows, of ``x``."""
    epilogue, out_layout, sizes, parts = _taken(constants, x)
    (_, images, swapped), (all_rows, share, lanes), (down, across, _), (rows, columns, together), (n, taps_y, taps_x), (
        _, y_step, x_step,
    ) = triples(sizes, 0, 6)  # fmt: skip
    x_origin, x_pace, x_reach, y_origin, y_pace, y_reach = triples(sizes, 6, 6)
    wide = width_of(out)
    panels = -(-lanes // wide)
    task, panel = divmod(task, panels)
    g, part = divmod(task, -(-all_rows // share))
    begin = part * share
    count = min(share, all_rows - begin)
    wanted, first = min(lanes, wide), min(panel * wide, max(lanes - wide, 0))  # the last panel may overlap
    # Filters of a group lie behind those of others, channels in images of their own.
    if swapped != 0:
        x_start, y_start = (
            (g * all_rows + begin) * x_layout[CHANNEL],
            g * images * y_layout[IMAGE] + first * y_layout[CHANNEL],
        )
        to_row, to_lane, bias_at = out_layout[CHANNEL], out_layout[IMAGE], 0
        at = (g * all_rows + begin) * to_row
    else:
        x_start, y_start = (
            g * images * x_layout[IMAGE] + begin * x_layout[CHANNEL],
            (g * lanes + first) * y_layout[CHANNEL],
        )
        to_row, to_lane, bias_at = out_layout[IMAGE], out_layout[CHANNEL], g * panels * wide + first
        at = g * lanes * to_lane + begin * to_row
    x_size = ((rows - 1) * x_pace[1] + x_reach[1]) * ((columns - 1) * x_pace[2] + x_reach[2])
    y_size = ((rows - 1) * y_pace[1] + y_reach[1]) * ((columns - 1) * y_pace[2] + y_reach[2])
    room, height = apart(rows * columns * together), height_of(count)
    pitch = max(count, lanes_of(x))
    line = buffers.LINE // x.itemsize
    # One array behind the other; each begins with a line of the cache.
    second = (x_size * count + wide + line) // line * line
    third = second + (y_size * wanted + wide + line) // line * line
    fourth = third + (n * room * pitch + wide + line) // line * line
    fifth = fourth + (n * room * wide + line) // line * line
    sixth = fifth + ((sizes[11 + n, 0] + 1) * height * wide + line) // line * line
    piece, y_piece, points = memory, after(memory, second), after(memory, third)
    y_points, sums, result = after(memory, fourth), after(memory, fifth), after(memory, sixth)
    fresh = True
    step = (1, y_step, x_step)
    members = images * y_step * x_step
    for group in range(0, members, together):
        for vertical in range(0, down, rows):
            for horizontal in range(0, across, columns):
                pieces, tall, broad = 0, min(rows, down - vertical), min(columns, across - horizontal)
                x_shape = (1, (tall - 1) * x_pace[1] + x_reach[1], (broad - 1) * x_pace[2] + x_reach[2])
                y_shape = (1, (tall - 1) * y_pace[1] + y_reach[1], (broad - 1) * y_pace[2] + y_reach[2])
                for member in range(group, min(group + together, members)):
                    rest, right = divmod(member, x_step)
                    image, lower = divmod(rest, y_step)
                    slab.load(
                        parts, piece, 0, count, x, x_layout, x_start + image * x_layout[IMAGE], count,
                        (0, x_origin[1] + vertical * x_pace[1] * y_step + lower,
                         x_origin[2] + horizontal * x_pace[2] * x_step + right),
                        step, x_shape,
                    )  # fmt: skip
                    tiles_to_points(
                        parts[TILES],
                        (points, pieces * pitch, room * pitch, pitch, piece, 0, x_shape[2], count, 0, tall, broad, 1,
                         count),
                    )  # fmt: skip
                    slab.load(
                        parts, y_piece, 0, wanted, y, y_layout, y_start + image * y_layout[IMAGE], wanted,
                        (0, y_origin[1] + vertical * y_pace[1] * y_step + lower,
                         y_origin[2] + horizontal * y_pace[2] * x_step + right),
                        step, y_shape,
                    )  # fmt: skip
                    tiles_to_points(
                        parts[LANES],
                        (y_points, pieces * wide, room * wide, wide, y_piece, 0, y_shape[2], wanted, 0, tall, broad, 1,
                         wanted),
                    )  # fmt: skip
                    pieces += tall * broad
                for point in range(n):
                    number, begins = sizes[12 + point, 0], sizes[12 + point, 1] != 0
                    multiply_rows(
                        sums, number * height, points, point * room * pitch, 1, pitch, count, y_points,
                        point * room * wide, pieces, fresh and begins, wanted,
                    )  # fmt: skip
                fresh = False
    sums_to_results(
        parts[SUMS], (result, 0, taps_x, sums, height, 0, count, 1, bias, bias_at, epilogue, wanted)
    )  # fmt: skip
    skipped = panel * wide - first
    at += panel * wide * to_lane
    taps = taps_y * taps_x
    in_line = out_layout[ROW] == taps_x * out_layout[PIXEL]
    if in_line and to_row == taps * out_layout[PIXEL]:
        slab.unload(
            parts, out, at, to_lane, 0, out_layout[PIXEL], wanted - skipped, 1, count * taps, result, skipped, 0
        )
    elif in_line:
        slab.unload(
            parts, out, at, to_lane, to_row, out_layout[PIXEL], wanted - skipped, count, taps, result, skipped, taps
        )
    else:
        for row in range(count):
            slab.unload(
                parts, out, at + row * to_row, to_lane, out_layout[ROW], out_layout[PIXEL], wanted - skipped, taps_y,
                taps_x, result, row * taps * wide + skipped, taps_x,
            )  # fmt: skip

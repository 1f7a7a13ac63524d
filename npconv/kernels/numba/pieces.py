"""Winograd's minimal filtering for large kernels: pieces of the kernel, summed up as points.

The weight gradient of a 3 × 3 convolution is a convolution whose kernel is the gradient of a whole result, and whose
result has 3 × 3 elements. Its kernel is cut into pieces of 4 × 4; each meets 6 × 6 elements of the input, and F(3×3,
4×4) needs 36 products for what takes 144 directly. For 5 × 5 results pieces are of 2 × 2, and 36 products are 100.

Both sides of a piece are transformed to points (`npconv.kernels.numba.winograd`). The sum over the pieces of all images
is, for each point, a matrix product of channels and filters, which grows in the second-level cache while pieces come
and go; only the end is transformed back. With a stride, elements of one residue, in each direction, are an image of
their own.

A task is a panel of filters for some channels; it transforms all pieces for itself.

In the words of this problem, whose batch are the channels of the convolution that the gradient belongs to, channels are
images here: `npconv.adjoint.weight_gradient` says so, and here they are called what they are there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import blocking, buffers, jit, product, rows, slab
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, max, min, triples
from npconv.kernels.numba.moves import BLOCK
from npconv.kernels.numba.product import multiply_whole, width_of
from npconv.kernels.numba.tile import COLUMNS
from npconv.kernels.numba.transforms import POINTS, toom_cook, transform, transform_and_add
from npconv.kernels.numba.vector import activated, lanes_of, load, store
from npconv.kernels.numba.winograd import apart
from npconv.problem import ConvProblem

POINT = 6
"""Points along an axis."""

PIECES = 32
"""Pieces of a step: as long as the chains of sums in registers; beyond, sums go through memory."""

CHANNELS = 64
"""Channels of a task: their sums take 288 KiB, and the points of a step as much."""


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    results: int
    layout: np.ndarray
    sizes: np.ndarray


pack, pack_bias = rows.pack, product.panel_bias


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    m, wide = problem.output_size[-1], product.width(problem.compute_dtype)
    r = POINT - m + 1
    _, height, width = problem.kernel_size
    _, y_step, x_step = problem.stride
    down, across = -(-height // (y_step * r)), -(-width // (x_step * r))  # pieces of one residue
    columns = blocking.even(across, PIECES)
    rows = blocking.even(down, PIECES // columns)
    parts = problem.in_channels * y_step * x_step
    together = max(min(PIECES // (rows * columns), parts), 1) if rows * columns == down * across else 1
    share = blocking.even(problem.batch, CHANNELS)
    panels = -(-problem.out_channels // wide)
    plane = height * width
    layout = [plane, problem.in_channels * plane, plane, width, 1, 1, height, width]
    sizes = np.array(
        [(problem.in_channels, y_step, x_step), (problem.batch, share, problem.out_channels), (down, across, 0),
         (rows, columns, together), tuple(-pad for pad, _ in problem.padding)]
    )  # fmt: skip
    pieces = rows * columns * together
    numbers = POINT**2 * (share * wide + apart.py_func(pieces) * (share + wide))
    numbers += (rows * r + m - 1) * (columns * r + m - 1) * share + (rows * columns * r * r + share * m * m) * wide
    scratch = numbers + 6 * buffers.LINE, problem.compute_dtype
    return Plan(panels * -(-problem.batch // share), problem.flops // 80, scratch, m, np.array(layout), sizes)


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    # To the kernel, images are channels.
    layout, step = slab.swapped(x_layout), plan.sizes[0, 2]
    load, of_kernel = (slab.loads(one, step, BLOCK) for one in (layout, plan.layout))
    parts = slab.parts_of(epilogue.dtype, load if load == of_kernel else "any", slab.unloads(out_layout))
    constants = layout, epilogue, out_layout, plan.layout, plan.sizes, parts
    return _kernel(plan.results).fixed(plan.tasks, plan.work, threads, constants, plan.scratch)


_FORM = "nannNn"
_taken = taking(_FORM)


@cache
def _kernel(m: int) -> jit.Kernel:
    """Return the kernel for m × m results."""
    n, r = POINT, POINT - m + 1
    inverse, forward_kernel, forward = toom_cook(m, r, POINTS[n])
    of_input, of_kernel = transform(forward, forward), transform(forward_kernel, forward_kernel)
    to_results = transform_and_add(inverse, inverse)

    def transformed(to_points, taps):  # type: ignore[no-untyped-def]
        def points_of(points, at, apart, piece, first, pitch, channels):  # type: ignore[no-untyped-def]
            """Transform a piece of ``taps`` × ``taps`` pixels, a vector of channels at a time."""
            lanes = lanes_of(piece)
            for c in range(0, channels, lanes):
                c = min(c, channels - lanes)
                to_points(points, at + c, n * apart, apart, piece, first + c, pitch * channels, channels)

        return jit.specialised(points_of, m, taps)

    input_points, kernel_points = transformed(of_input, n), transformed(of_kernel, r)

    def results_of(result, at, sums, c, channels, bias, b, epilogue):  # type: ignore[no-untyped-def]
        """Transform a channel's sums back and finish them."""
        wide, lanes = width_of(result), lanes_of(result)
        for part in range(0, wide, lanes):
            to_results(
                result, at + part, m * wide, wide, sums, c * wide + part, n * channels * wide, channels * wide, bias,
                b + part,
            )  # fmt: skip
        if epilogue[0] != 0:
            for k in range(at, at + m * m * wide, m * wide):
                store(activated(load(result, k, m, COLUMNS), epilogue), result, k, wide)

    results_of = jit.specialised(results_of, m)

    def block(task, memory, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
        """Compute a panel of filters for some channels."""
        x_layout, epilogue, out_layout, layout, sizes, slabs = _taken(constants, x)
        (images, y_step, x_step), (channels, share, filters), (down, across, _), (rows, columns, together), _ = triples(
            sizes, 0, 5
        )
        part, panel = divmod(task, -(-filters // width_of(x)))
        begin = part * share
        channels = min(share, channels - begin)
        wide = width_of(x)
        k = min(panel * wide, filters - wide)  # the last panel may overlap the one before
        shape = (1, rows * r + m - 1, columns * r + m - 1)
        kernel_shape = (1, rows * r, columns * r)
        room = apart(rows * columns * together)
        line = buffers.LINE // x.itemsize
        # One array behind the other; each begins with a line of the cache.
        second = (shape[1] * shape[2] * channels + line) // line * line
        third = (second + kernel_shape[1] * kernel_shape[2] * wide + line) // line * line
        fourth = (third + n * n * room * channels + line) // line * line
        fifth = (fourth + n * n * room * wide + line) // line * line
        sixth = (fifth + n * n * channels * wide + line) // line * line
        piece, kernel_piece, points = memory, after(memory, second), after(memory, third)
        kernel_points_, sums, result = after(memory, fourth), after(memory, fifth), after(memory, sixth)
        fresh = True
        step = (1, y_step, x_step)
        for group in range(0, images * y_step * x_step, together):
            for vertical in range(0, down, rows):
                for horizontal in range(0, across, columns):
                    pieces = 0
                    for member in range(group, min(group + together, images * y_step * x_step)):
                        rest, right = divmod(member, x_step)
                        image, lower = divmod(rest, y_step)
                        y, x0 = vertical * r * y_step + lower, horizontal * r * x_step + right
                        slab.load(
                            slabs, piece, 0, channels, x, x_layout,
                            begin * x_layout[1] + image * x_layout[0], channels,
                            (sizes[4, 0], sizes[4, 1] + y, sizes[4, 2] + x0), step, shape,
                        )  # fmt: skip
                        slab.load(
                            slabs, kernel_piece, 0, wide, weights, layout, k * layout[1] + image * layout[0],
                            wide, (0, y, x0), step, kernel_shape,
                        )  # fmt: skip
                        for i in range(rows):
                            for j in range(columns):
                                start = (i * shape[2] + j) * r
                                input_points(points, pieces * channels, room * channels, piece, start * channels,
                                             shape[2], channels)  # fmt: skip
                                start = (i * kernel_shape[2] + j) * r
                                kernel_points(kernel_points_, pieces * wide, room * wide, kernel_piece, start * wide,
                                              kernel_shape[2], wide)  # fmt: skip
                                pieces += 1
                    for point in range(n * n):
                        multiply_whole(
                            sums, point * channels, points, point * room * channels, 1, channels, channels,
                            kernel_points_, point * room * wide, pieces, fresh,
                        )  # fmt: skip
                    fresh = False
        for c in range(channels):
            results_of(result, c * m * m * wide, sums, c, channels, bias, k, epilogue)
        skipped = panel * wide - k
        at = begin * out_layout[0] + panel * wide * out_layout[1]
        if out_layout[0] == m * m * out_layout[4] and out_layout[3] == m * out_layout[4]:
            slab.unload(slabs, out, at, out_layout[1], 0, out_layout[4], wide - skipped, 1, channels * m * m, result,
                        skipped, channels * m * m)  # fmt: skip
        else:
            for c in range(channels):
                slab.unload(
                    slabs, out, at + c * out_layout[0], out_layout[1], out_layout[3], out_layout[4], wide - skipped, m,
                    m, result, c * m * m * wide + skipped, m,
                )  # fmt: skip

    block.__qualname__ = f"_block{m}"
    return jit.scratch_kernel(_FORM)(block)

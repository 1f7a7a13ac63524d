"""Depthwise transposed convolutions of stride 2 along the rows: all phases in one pass.

Each phase (`npconv.phasing`) has a quarter of the products of a small convolution, and writes every second pixel of
every second row: to run them one after the other took three times as long as all in one pass. Here as many rows of the
result as the stride down are computed together, each as two vectors, of its even and its odd pixels, and stored as
their merger: the rows of the gradient that reach them are loaded once, and the weights stay in registers. (Row by row,
with the weights from memory, it took twice as long.)

Rows of the gradient are met in a slab, with zeros around them. (Masked where they lie, narrow images took twice as
long, 192 channels of 5 × 5 at 36² 126 µs and not 49; those of 512 pixels a row a tenth less.) The last vectors of a
band of rows are written first, over the rows' ends: what comes there is written later.

A task is a rectangle of the result, some such bands of rows of some channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels import host
from npconv.kernels.layout import CHANNEL, HEIGHT, IMAGE, PIXEL, PLANE, ROW, WIDTH
from npconv.kernels.numba import blocking, jit
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, max, min, triples
from npconv.kernels.numba.slab import clear, copy_numbers
from npconv.kernels.numba.stores import store_merged
from npconv.kernels.numba.taps import kept_numbers, spread_rows
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.kernels.numba.vector import activating, activation_of, filled, lanes_of
from npconv.kernels.summation import chain_length
from npconv.problem import ConvProblem

algorithm = "depthwise"
"""What its merged phases are told to run by."""

FEW = 49
"""Elements of the largest kernel, for each of which there are instructions. The weights of 7 × 7 find no room in
registers, and it still takes half as long as phases: 368 channels at 65 × 92 413 µs instead of 830."""

NUMBERS = 2**13
"""Numbers of the result that make a task, if there are so many tasks that they are shared out well."""


def takes(problem: ConvProblem) -> bool:
    """Whether the input's gradient of a canonical, zero-padded problem can be computed here."""
    most = -(-problem.kernel_size[1] // problem.stride[1]) * -(-problem.kernel_size[2] // 2)  # products of a result
    return (
        problem.groups == problem.in_channels == problem.out_channels
        and problem.stride[2] == 2
        and problem.stride[0] == problem.kernel_size[0] == 1
        and problem.padding[0] == (0, 0)
        and problem.stride[1] <= problem.kernel_size[1]
        and problem.kernel_size[2] >= 2
        and problem.dilation[1:] == (1, 1)
        and min(before for before, _ in problem.padding) >= 0
        and problem.taps <= FEW
        and most <= chain_length(most)
        and problem.dtype == problem.compute_dtype.name
    )


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    kernel: Callable[[int], jit.Kernel]
    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    sizes: np.ndarray


def plan_of(problems: tuple[ConvProblem, ...], threads: int, in_line: bool, all_rows: int) -> Plan:
    """Cut the input's gradient of a canonical problem into tasks."""
    (problem,) = problems
    _, down, across = problem.kernel_size
    height, width = problem.input_size[1:]
    stride, pads = problem.stride[1], [pad for pad, _ in problem.padding]
    numbers = problem.batch * problem.in_channels * problem.input_size[0] * height * width
    share = max(min(NUMBERS, numbers // (blocking.TASKS_PER_THREAD * threads)), 1)
    bands = -(-height // stride)
    some = min(max(share // (width * stride), 1), bands)
    together = max(share // (height * width), 1)
    parts = -(-problem.in_channels // together)
    grid = (problem.batch, parts, problem.input_size[0], -(-bands // some))
    lanes = VECTOR_BYTES // problem.compute_dtype.itemsize
    odd, pairs = (pads[1] % stride, pads[2] % 2), -(-width // 2)
    above, below = _reach(down, odd[0], stride)
    before, behind = _reach(across, odd[1], 2)
    rows, pitch = some + above + below, before + -(-pairs // lanes) * lanes + behind
    return Plan(
        lambda which: _kernel((down, across), odd, stride, which), int(np.prod(grid)), problem.flops // 20,
        (2 * stride * lanes + rows * pitch, problem.compute_dtype), np.array(grid),
        np.array([pads, (some, together, problem.in_channels), (rows, pitch, 0)]),
    )  # fmt: skip


def _reach(taps: int, odd: int, stride: int) -> tuple[int, int]:
    """Return how many numbers of the gradient, before and behind its own, a result meets along an axis."""
    return (taps - 1 - odd) // stride, int(odd > 0)


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None] | None:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``; None if a row's pixels lie apart."""
    if any(layout[PIXEL] != 1 and layout[WIDTH] > 1 for layout in (x_layout, out_layout)):
        return None
    constants = x_layout, epilogue, out_layout, plan.grid, plan.sizes
    return plan.kernel(activation_of(epilogue)).fixed(plan.tasks, plan.work, threads, constants, plan.scratch)


def pack_all(problems: tuple[ConvProblem, ...], weights: list[np.ndarray]) -> np.ndarray:
    """Return the numbers of flipped filters in the order that they have when they are not."""
    (weight,) = weights
    return host.writeable(host.contiguous(weight[..., ::-1, ::-1, ::-1], weight.dtype)).reshape(-1)


def pack_bias(problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
    """Return the bias, or zeros."""
    dtype = problem.compute_dtype
    return np.zeros(problem.in_channels, dtype) if bias is None else np.array(bias, dtype)


_FORM = "nannN"
_taken = taking(_FORM)


@cache
def _kernel(kernel: tuple[int, int], odd: tuple[int, int], stride: int, which: int) -> jit.Kernel:
    """Return the kernel for so many rows and columns of taps, paddings of these residues, and a stride down.

    The activation is one of `npconv.kernels.numba.vector.activating`.
    """
    taps = kernel[0] * kernel[1]
    add_rows = spread_rows(kernel, odd, stride)
    (above, _), (before, _) = (_reach(number, *of) for number, *of in zip(kernel, odd, (stride, 2), strict=True))
    finished = activating(which)

    def block(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
        """Compute some bands of rows of some channels."""
        x_layout, epilogue, out_layout, grid, sizes = _taken(constants, x)
        task, part = divmod(task, grid[3])
        task, z = divmod(task, grid[2])
        n, group = divmod(task, grid[1])
        pads, (share, together, channels), (room, pitch, _) = triples(sizes, 0, 3)
        lanes = lanes_of(x)
        height, width = x_layout[HEIGHT], x_layout[WIDTH]
        tall, wide, to_row = out_layout[HEIGHT], out_layout[WIDTH], out_layout[ROW]
        vectors = -(-wide // (2 * lanes))
        merged, slab = scratch, after(scratch, 2 * stride * lanes)
        begin, end = part * share, min((part + 1) * share, -(-tall // stride))
        first_row, first_column = begin + pads[1] // stride - above, pads[2] // 2 - before
        top, bottom = max(first_row, 0), min(first_row + room, height)
        left, right = max(first_column, 0), min(first_column + pitch, width)
        first, last = group * together, min((group + 1) * together, channels)
        for row in range(room):  # once: what is around one channel's rows is around all
            inside = top <= first_row + row < bottom
            here, there = (left - first_column, right - first_column) if inside else (0, 0)
            clear(slab, row * pitch, here)
            clear(slab, row * pitch + there, pitch - there)
        start = n * out_layout[IMAGE] + z * out_layout[PLANE]
        whole = grid[3] == 1 and out_layout[CHANNEL] == tall * wide
        for c in range(first, last):
            source = n * x_layout[IMAGE] + c * x_layout[CHANNEL] + z * x_layout[PLANE] + left
            for row in range(top, bottom):
                to = (row - first_row) * pitch + left - first_column
                copy_numbers(slab, to, x, source + row * x_layout[ROW], right - left)
            kept = kept_numbers(weights, c * taps + taps - 1, -1, taps)
            plane = start + c * out_layout[CHANNEL]
            # Where the last number is that this task writes later, if rows lie one behind the other.
            limit = start + last * out_layout[CHANNEL] if whole else plane + min(end * stride, tall) * to_row
            for band in range(begin, end):
                at, rows = plane + band * stride * to_row, min(stride, tall - band * stride)
                ends = limit - (stride - 1) * to_row if rows == stride and to_row == wide else 0
                for vector in range(vectors):
                    pair = (vector - 1 if vector > 0 else vectors - 1) * lanes
                    tile = add_rows(
                        filled(bias, c, stride, 2), kept, slab, (band - begin) * pitch + before + pair, pitch
                    )
                    tile, to = finished(tile, epilogue), at + 2 * pair
                    if to + 2 * lanes <= ends or (rows == stride and 2 * (pair + lanes) <= wide):
                        store_merged(tile, out, to, to_row)
                    else:
                        store_merged(tile, merged, 0, 2 * lanes)
                        for row in range(rows):
                            count = min(wide - 2 * pair, 2 * lanes)
                            copy_numbers(out, to + row * to_row, merged, row * 2 * lanes, count)

    return jit.scratch_kernel(_FORM, kernel, odd, stride, which)(block)

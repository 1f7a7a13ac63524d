"""Depthwise transposed convolutions of stride 2 along the rows: all phases in one pass.

Each phase (`npconv.adjoint`) has a quarter of the products of a small convolution, and writes every second pixel of
every second row: to run them one after the other took three times as long as all in one pass. Here a row of the result
is computed as two vectors, of its even and its odd pixels, and stored as their merger. A row of the gradient meets them
from where it lies; what is outside of it is masked or, where it is a whole row, blank.

A task is a rectangle of the result, some rows of some channels.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from npconv.kernels import host
from npconv.kernels.numba import blocking, jit
from npconv.kernels.numba.slab import clear, copy_numbers, flat
from npconv.kernels.numba.taps import spread_taps, store_merged
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.kernels.numba.vector import activated, add_column, lanes_of, zeros
from npconv.problem import ConvProblem

FEW = 25
"""Elements of the largest kernel: no result has more than 15 products, which one chain may have."""

NUMBERS = 2**13
"""Numbers of the result that make a task, if there are so many tasks that they are shared out well."""


def takes(problem: ConvProblem) -> bool:
    """Whether the input's gradient of a canonical, zero-padded problem can be computed here."""
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
        and problem.dtype == problem.compute_dtype.name
    )


def run(
    problem: ConvProblem, weight: np.ndarray, grad_output: np.ndarray, bias: np.ndarray, epilogue: np.ndarray,
    out: np.ndarray, threads: int,
) -> bool:  # fmt: skip
    """Fill ``out`` (N, C, D, H, W); False if the pixels of its rows or of the gradient's do not lie side by side."""
    arrays = [flat(array) for array in (grad_output, out)]
    if any(array is None or (array[1][4] != 1 and array[1][7] > 1) for array in arrays):
        return False
    _, down, across = problem.kernel_size
    height, width = problem.input_size[1:]
    numbers = problem.batch * problem.in_channels * problem.input_size[0] * height * width
    share = max(min(NUMBERS, numbers // (blocking.TASKS_PER_THREAD * threads)), 1)
    rows = min(max(share // width, 1), height)
    together = max(share // (height * width), 1)
    parts = -(-problem.in_channels // together)
    grid = np.array((problem.batch, parts, problem.input_size[0], -(-height // rows)))
    sizes = np.array([problem.stride, [pad for pad, _ in problem.padding], (rows, together, problem.in_channels)])
    lanes = VECTOR_BYTES // problem.compute_dtype.itemsize
    room = (4 * lanes + 2 * across + 2, problem.compute_dtype)
    _kernel(down, across, problem.padding[2][0] % 2 == 1, problem.stride[1]).run(
        int(np.prod(grid)), problem.flops // 20, *(part for array in arrays[:1] for part in array or ()),
        host.writeable(np.ascontiguousarray(weight)).reshape(-1), bias, epilogue,
        *(part for array in arrays[1:] for part in array or ()), grid, sizes, scratch=room,
    )  # fmt: skip
    return True


@cache
def _kernel(down: int, across: int, odd: bool, stride: int) -> jit.Kernel:
    """Return the kernel for kernels of so many rows and columns, paddings of a parity, and a stride down."""
    add_inside, add_anywhere = spread_taps(across, odd, masked=False), spread_taps(across, odd, masked=True)
    before, behind = (across - 1 - odd) // 2, int(odd)  # pixels that vectors read before and behind their own

    def block(task, scratch, x, x_layout, weights, bias, epilogue, out, out_layout, grid, sizes):  # type: ignore[no-untyped-def]
        """Compute some rows of some channels."""
        task, part = divmod(task, grid[3])
        task, z = divmod(task, grid[2])
        n, group = divmod(task, grid[1])
        pads, (share, together, channels) = sizes[1], sizes[2]
        lanes = lanes_of(x)
        height, width = x_layout[6], x_layout[7]
        wide, shift = out_layout[7], pads[2] // 2
        pairs = -(-wide // 2)
        met = before + lanes + behind
        merged, blank, copied = scratch[: 2 * lanes], scratch[2 * lanes : 2 * lanes + met], scratch[2 * lanes + met :]
        clear(blank, np.int64(0), len(blank))
        for c in range(group * together, min((group + 1) * together, channels)):
            plane = n * x_layout[0] + c * x_layout[1] + z * x_layout[2]
            for y in range(part * share, min((part + 1) * share, out_layout[6])):
                at = n * out_layout[0] + c * out_layout[1] + z * out_layout[2] + y * out_layout[3]
                first = (y + pads[1]) % stride
                top = (y + pads[1]) // stride
                for pair in range(0, pairs, lanes):
                    if 2 * pairs == wide and pairs >= lanes:
                        pair = min(pair, pairs - lanes)
                    column = pair + shift
                    inside = column - before >= 0 and column + lanes + behind <= width
                    tile = zeros(out, 1, 2)
                    row = top
                    for i in range(first, down, stride):
                        w = (c * down + i) * across
                        j = plane + row * x_layout[3] + column
                        if row < 0 or row >= height:
                            tile = add_inside(tile, weights, w, blank, before, column, width)
                        elif inside:
                            tile = add_inside(tile, weights, w, x, j, column, width)
                        elif j - before >= 0 and j + lanes + behind <= len(x):
                            tile = add_anywhere(tile, weights, w, x, j, column, width)
                        else:  # at an end of the array
                            start, end = max(column - before, 0), min(column + lanes + behind, width)
                            if end > start:
                                copy_numbers(copied, start - column + before, x, j - column + start, end - start)
                            tile = add_anywhere(tile, weights, w, copied, before, column, width)
                        row -= 1
                    done = add_column(tile, bias, c)
                    if epilogue[0] != 0:
                        done = activated(done, epilogue)
                    if 2 * (pair + lanes) <= wide:
                        store_merged(done, out, at + 2 * pair)
                    else:
                        store_merged(done, merged, 0)
                        copy_numbers(out, at + 2 * pair, merged, 0, wide - 2 * pair)

    block.__qualname__ = f"_spread{down}-{across}-{odd}-{stride}"
    return jit.scratch_kernel(block)

"""Depthwise transposed convolutions of stride 2 along the rows: all phases in one pass.

Each phase (`npconv.adjoint`) has a quarter of the products of a small convolution, and writes every second pixel of
every second row: to run them one after the other took three times as long as all in one pass. Here as many rows of the
result as the stride down are computed together, each as two vectors, of its even and its odd pixels, and stored as
their merger: the rows of the gradient that reach them are loaded once, and the weights stay in registers. (Row by row,
with the weights from memory, it took twice as long.) A row of the gradient is met where it lies; what is outside of it
is masked.

A task is a rectangle of the result, some such bands of rows of some channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels import activation, host, packed
from npconv.kernels.numba import blocking, jit
from npconv.kernels.numba.calls import taking
from npconv.kernels.numba.lean import after, max, min, pair_table, triples
from npconv.kernels.numba.slab import copy_numbers, flat
from npconv.kernels.numba.taps import kept_numbers, spread_rows, store_merged
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.kernels.numba.vector import activating, activation_of, filled, lanes_of
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


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    kernel: Callable[[int], jit.Kernel]
    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    sizes: np.ndarray


@lru_cache(maxsize=1024)
def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut the input's gradient of a canonical problem into tasks."""
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
    form = (down, across), (pads[1] % stride, pads[2] % 2), stride
    return Plan(
        lambda which: _kernel(*form, which), int(np.prod(grid)), problem.flops // 20,
        (2 * stride * lanes + (down + 1) * (lanes + across), problem.compute_dtype), np.array(grid),
        np.array([pads, (some, together, problem.in_channels)]),
    )  # fmt: skip


def fixed(
    plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
) -> Callable[..., None]:
    """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
    constants = x_layout, epilogue, out_layout, plan.grid, plan.sizes
    return plan.kernel(activation_of(epilogue)).fixed(plan.tasks, plan.work, threads, constants, plan.scratch)


def run(
    problem: ConvProblem, weight: np.ndarray, grad_output: np.ndarray, bias: np.ndarray | None, out: np.ndarray,
    threads: int,
) -> bool:  # fmt: skip
    """Fill ``out`` (N, C, D, H, W); False if arrays are of another dtype, or a row's pixels do not lie side by side."""
    dtype = problem.compute_dtype
    if any(array.dtype != dtype for array in (weight, grad_output, out)):
        return False
    numbers, result = flat(grad_output), flat(out)
    if numbers is None or result is None or any(k[4] != 1 and k[7] > 1 for _, k in (numbers, result)):
        return False
    epilogue = packed.epilogue_of(problem.activation, dtype)
    biases = np.zeros(problem.in_channels, dtype) if bias is None else np.array(bias, dtype)
    weights = host.writeable(host.contiguous(weight, dtype)).reshape(-1)
    (x, x_layout), (target, out_layout) = numbers, result
    fixed(plan(problem, threads), x_layout, epilogue, out_layout, threads)(x, weights, biases, target)
    if problem.activation and epilogue[0] == 0:
        activation.apply(out, problem.activation)
    return True


_FORM = "nannN"
_taken = taking(_FORM)


@cache
def _kernel(kernel: tuple[int, int], odd: tuple[int, int], stride: int, which: int) -> jit.Kernel:
    """Return the kernel for so many rows and columns of taps, paddings of these residues, and a stride down.

    The activation is one of `npconv.kernels.numba.vector.activating`.
    """
    (down, across), (odd_row, odd_column) = kernel, odd
    taps = down * across
    add_inside, add_anywhere = (spread_rows(kernel, odd, stride, masked) for masked in (False, True))
    # Pixels that vectors read before and behind their own, and rows.
    before, behind = (across - 1 - odd_column) // 2, int(odd_column > 0)
    above, below = (down - 1 - odd_row) // stride, int(odd_row > 0)
    number = above + 1 + below
    finished = activating(which)

    def block(task, scratch, x, weights, bias, out, constants):  # type: ignore[no-untyped-def]
        """Compute some bands of rows of some channels."""
        x_layout, epilogue, out_layout, grid, sizes = _taken(constants, x)
        task, part = divmod(task, grid[3])
        task, z = divmod(task, grid[2])
        n, group = divmod(task, grid[1])
        pads, (share, together, channels) = triples(sizes, 0, 2)
        lanes = lanes_of(x)
        height, width = x_layout[6], x_layout[7]
        tall, wide = out_layout[6], out_layout[7]
        shift, pairs = pads[2] // 2, -(-wide // 2)
        room = before + lanes + behind
        merged, copied = scratch, after(scratch, 2 * stride * lanes)
        lines, others = pair_table(number), pair_table(number)
        for c in range(group * together, min((group + 1) * together, channels)):
            plane = n * x_layout[0] + c * x_layout[1] + z * x_layout[2]
            kept = kept_numbers(weights, c * taps + taps - 1, -1, taps)
            for band in range(part * share, min((part + 1) * share, -(-tall // stride))):
                rows = min(stride, tall - band * stride)
                at = n * out_layout[0] + c * out_layout[1] + z * out_layout[2] + band * stride * out_layout[3]
                top = band + pads[1] // stride - above
                for line in range(number):
                    there = 0 <= top + line < height
                    lines[line, 0] = min(max(top + line, 0), height - 1) * x_layout[3]
                    lines[line, 1] = width if there else 0
                    others[line, 0] = line * room
                    others[line, 1] = lines[line, 1]
                # The pairs of pixels whose vectors are within the rows, and written as they are.
                straight = top >= 0 and top + number <= height and rows == stride
                least = before - shift
                most = min(width - behind - shift, wide // 2) - lanes
                pair = 0
                while pair < pairs:
                    while straight and least <= pair <= most:
                        tile = add_inside(filled(bias, c, stride, 2), kept, x, plane + pair + shift, lines, 0)
                        store_merged(finished(tile, epilogue), out, at + 2 * pair, out_layout[3])
                        pair += lanes
                    if pair >= pairs:
                        break
                    if 2 * pairs == wide and pairs >= lanes:
                        pair = min(pair, pairs - lanes)
                    column = pair + shift
                    first, end = column - before, column + lanes + behind
                    tile = filled(bias, c, stride, 2)
                    if plane + lines[0, 0] + first >= 0 and plane + lines[number - 1, 0] + end <= len(x):
                        tile = add_anywhere(tile, kept, x, plane + column, lines, column)
                    else:  # at an end of the array
                        left, right = max(first, 0), min(end, width)
                        for line in range(number):
                            if right > left:
                                copy_numbers(copied, line * room + left - first, x, plane + lines[line, 0] + left,
                                             right - left)  # fmt: skip
                        tile = add_anywhere(tile, kept, copied, before, others, column)
                    store_merged(finished(tile, epilogue), merged, 0, 2 * lanes)
                    for row in range(rows):
                        copy_numbers(out, at + row * out_layout[3] + 2 * pair, merged, row * 2 * lanes,
                                     min(wide - 2 * pair, 2 * lanes))  # fmt: skip
                    pair += lanes

    block.__qualname__ = f"_spread{kernel}-{odd}-{stride}-{which}"
    return jit.scratch_kernel(_FORM)(jit.makes_arrays(block))

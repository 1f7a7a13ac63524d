"""Strassen's algorithm, one level of it: 1 × 1 kernels with 7 products of matrices where the direct sum takes 8.

A 1 × 1 convolution is the product of a matrix of pixels × channels with one of channels × filters. Each is cut into
quarters, A and B, by halves of the pixels of a task, of the channels, and of the panels of filters, and

    S1 = A21 + A22    S2 = S1 - A11    S3 = A11 - A21    S4 = A12 - S2
    T1 = B12 - B11    T2 = B22 - T1    T3 = B22 - B12    T4 = B21 - T2

    U = A11 B11 + S2 T2    V = U + S3 T3
    C11 = A11 B11 + A12 B21    C12 = U + S1 T1 + S4 B22    C21 = V + A22 T4    C22 = V + S1 T1

which is Winograd's form, of 15 additions. The sums of the filters are packed as panels, once. A task loads its slab some
channels at a time, makes the sums of the pixels, which stay in the core's second-level cache, and for each pair of
panels adds up seven products, which stay in the first-level one.

*How far it is off.* Strassen mixes channel c with c + C/2, and so multiplies numbers that never meet in the direct sum. A
filter's large number in one channel and a pixel's in the other would leave the rounding error of their product in
results that hold nothing of that size. So channels are scaled, by powers of two, such that the largest weight of each
is in [1, 2) (Ballard et al., §6): then a result's error is of the order of eps · max |x'|, and the largest pixel x' meets a
weight of at least 1 somewhere, which makes max Σ|x||w| as large. What is left are the sums of sums, of up to four
pixels and three weights. Images are never mixed: no task has pixels of two.

Strassen, *Gaussian elimination is not optimal* (1969); Huang et al., *Strassen's algorithm reloaded* (2016), for making
the sums while packing and finishing, not in passes of their own; Ballard et al., *Improving the numerical stability of
fast matrix multiplication* (2016); Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., §23.2, for the
form.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import blocking, jit, product, slab
from npconv.kernels.numba.blocking import SPARE
from npconv.kernels.numba.product import LEAST_ROWS, multiply_near, width_of
from npconv.kernels.numba.tile import COLUMNS
from npconv.kernels.numba.vector import activated, add, add_row, load, multiply_add_rows, starts_from, store, zeros
from npconv.problem import ConvProblem

CHAIN = 64
PIXELS = 100
ROOM = 2**21
LOAD = 0.8
BEGIN = 5.0


class Weights(NamedTuple):
    """Panels of the sums of filters, and what the channels are multiplied with: the scale of each, and its negative."""

    numbers: np.ndarray
    scale: np.ndarray


class Plan(NamedTuple):
    """A problem's numbers, as the kernel takes them."""

    tasks: int
    work: int
    scratch: tuple[int, np.dtype[Any]]
    grid: np.ndarray
    order: np.ndarray
    sizes: np.ndarray


def pack(problem: ConvProblem, weight: np.ndarray) -> Weights:
    """Return filters (K, C, 1, 1, 1) as panels of their sums, seven for each pair of panels."""
    wide = product.width(problem.compute_dtype)
    filters, channels = weight.shape[:2]
    half, panels = channels // 2, -(-filters // wide)
    pairs = -(-panels // 2)
    matrix = np.zeros((panels * wide, channels), weight.dtype)
    matrix[:filters] = weight[:, :, 0, 0, 0]
    with np.errstate(all="ignore"):  # NaN and infinities spread
        largest = np.abs(matrix).max(axis=0)
        exponents = np.where(np.isfinite(largest), np.frexp(largest)[1] - 1, 0)
        matrix = np.ldexp(matrix, -exponents)
        scale = np.ldexp((largest != 0).astype(weight.dtype), exponents)
        # Of an odd number of panels, the one in the middle is in both halves.
        first, second = matrix[: pairs * wide], matrix[(panels - pairs) * wide :]
        b11, b21, b12, b22 = first[:, :half], first[:, half:], second[:, :half], second[:, half:]
        t1 = b12 - b11
        t2 = b22 - t1
        sums = np.stack([b11, b21, t2, b22 - b12, b21 - t2, t1, b22]).reshape(7, pairs, wide, half)
    stacked = np.ascontiguousarray(sums.swapaxes(0, 1)).reshape(-1, half, 1, 1, 1)
    return Weights(
        product.pack(replace(problem, in_channels=half, out_channels=len(stacked)), stacked),
        np.concatenate([scale, -scale]),
    )


pack_bias = product.panel_bias


def plan(problem: ConvProblem, threads: int) -> Plan:
    """Cut a canonical problem into tasks."""
    dtype = problem.compute_dtype
    channels, filters, wide = problem.in_channels, problem.out_channels, product.width(dtype)
    half = channels // 2
    depth, height, width = problem.output_size
    pairs = -(-(-(-filters // wide)) // 2)
    pixels = min(PIXELS, max(ROOM // (7 * half * dtype.itemsize // 2), 1))
    block = blocking.lined(height, width, pixels, problem.batch * depth, pairs, threads, LOAD, BEGIN)
    down, across = -(-height // block.rows), -(-width // block.columns)
    grid = (problem.batch, -(-pairs // block.panels), depth, down * across, across)
    before = tuple(-pad for pad, _ in problem.padding)
    parts = -(-half // CHAIN)
    sizes = np.array([problem.stride, before, (block.panels, *block[:2]), (channels, filters, parts)])
    pixels = -(-block.rows * block.columns // 2)
    share = -(-half // parts)
    scratch = 4 * pixels * share + 7 * pixels * half + LEAST_ROWS * share + (11 * pixels + SPARE) * wide
    scratch += 3 * jit.LINE // dtype.itemsize
    return Plan(
        int(np.prod(grid[:4])), problem.flops // 40, (scratch, dtype), np.array(grid),
        blocking.apart(down * across, threads), sizes,
    )  # fmt: skip


def conv(
    plan: Plan, x: np.ndarray, x_layout: np.ndarray, weights: Weights, bias: np.ndarray, epilogue: np.ndarray,
    out: np.ndarray, out_layout: np.ndarray,
) -> None:  # fmt: skip
    """Fill ``out``."""
    _block.run(plan.tasks, plan.work, x, x_layout, *weights, bias, epilogue, out, out_layout, plan.grid, plan.order,
               plan.sizes, scratch=plan.scratch)  # fmt: skip


@jit.inline
def _sum_up(sums, at, piece, half, share, scale, c, to_second):  # type: ignore[no-untyped-def]
    """Make what is multiplied of some channels of both halves, scaled: A11, A12, S2, S3, A22, S1 and S4.

    The first channel is ``c``, or ``to_second`` more in the second half. Products with a power of two are exact.
    """
    wide = width_of(sums)
    step, line, negative = half * share, starts_from(np.int64(0), 0, 1), 2 * to_second
    for pixel in range(half):
        for k in range(0, share, wide):
            k = min(k, share - wide)
            from_, to = pixel * share + k, at + pixel * share + k
            left, right = c + k, c + k + to_second
            a11 = multiply_add_rows(zeros(sums, 1, COLUMNS), piece, line, from_, scale, left)
            a12 = multiply_add_rows(zeros(sums, 1, COLUMNS), piece, line, from_ + 2 * step, scale, right)
            a22 = multiply_add_rows(zeros(sums, 1, COLUMNS), piece, line, from_ + 3 * step, scale, right)
            s1 = multiply_add_rows(a22, piece, line, from_ + step, scale, left)
            s2 = multiply_add_rows(s1, piece, line, from_, scale, left + negative)
            s3 = multiply_add_rows(a11, piece, line, from_ + step, scale, left + negative)
            s4 = multiply_add_rows(add(a12, s3), piece, line, from_ + 3 * step, scale, right + negative)
            store(a11, sums, to, wide)
            store(a12, sums, to + step, wide)
            store(s2, sums, to + 2 * step, wide)
            store(s3, sums, to + 3 * step, wide)
            store(a22, sums, to + 4 * step, wide)
            store(s1, sums, to + 5 * step, wide)
            store(s4, sums, to + 6 * step, wide)


@jit.inline
def _finish(tile, result, at, bias, b, epilogue):  # type: ignore[no-untyped-def]
    """Write a sum with its bias and activation."""
    tile = add_row(tile, bias, b)
    if epilogue[0] != 0:
        tile = activated(tile, epilogue)
    store(tile, result, at, width_of(result))


@jit.inline
def _combine(result, products, half, bias, first, second, epilogue):  # type: ignore[no-untyped-def]
    """Add up products to the quarters C11, C21, C12 and C22 of a result, and finish them."""
    wide = width_of(result)
    step = half * wide
    for at in range(0, step, wide):
        one = load(products, at, 1, COLUMNS)
        _finish(add(one, load(products, at + step, 1, COLUMNS)), result, at, bias, first, epilogue)
        u = add(one, load(products, at + 2 * step, 1, COLUMNS))
        v = add(u, load(products, at + 3 * step, 1, COLUMNS))
        _finish(add(v, load(products, at + 4 * step, 1, COLUMNS)), result, at + step, bias, first, epilogue)
        five = load(products, at + 5 * step, 1, COLUMNS)
        last = add(add(u, five), load(products, at + 6 * step, 1, COLUMNS))
        _finish(last, result, at + 2 * step, bias, second, epilogue)
        _finish(add(v, five), result, at + 3 * step, bias, second, epilogue)


@jit.scratch_kernel
def _block(task, memory, x, x_layout, weights, scale, bias, epilogue, out, out_layout, grid, order, sizes):  # type: ignore[no-untyped-def]
    """Compute a rectangle of the result for some pairs of panels."""
    task, place = divmod(task, grid[3])
    vertical, horizontal = divmod(order[place], grid[4])
    task, z = divmod(task, grid[2])
    image, part = divmod(task, grid[1])
    stride, before, block, (channels, filters, parts) = sizes
    row, column = vertical * block[1], horizontal * block[2]
    rows, columns = min(block[1], out_layout[6] - row), min(block[2], out_layout[7] - column)
    origin = (before[0] + z * stride[0], before[1] + row * stride[1], before[2] + column * stride[2])
    wide, to_second, pixels = width_of(out), channels // 2, rows * columns
    half = (pixels + 1) // 2
    # One array behind the other; each begins with a line of the cache.
    line, share = jit.LINE // x.itemsize, -(-to_second // parts)
    second = (4 * half * share + line - 1) // line * line
    third = second + (7 * half * to_second + LEAST_ROWS * share + line - 1) // line * line
    fourth = third + (7 * half + SPARE) * wide
    piece, sums, products, result = memory[:second], memory[second:third], memory[third:fourth], memory[fourth:]
    for chain in range(parts):
        first = to_second * chain // parts
        count = to_second * (chain + 1) // parts - first
        for side in range(2):
            start = image * x_layout[0] + (first + side * to_second) * x_layout[1]
            to = side * 2 * half * count
            slab.load(piece, to, x, x_layout, start, count, origin, stride, (1, rows, columns))
            if pixels < 2 * half:  # the last pixel is there twice
                slab.copy_numbers(piece, to + pixels * count, piece, to + (pixels - 1) * count, count)
        _sum_up(sums, 7 * half * first, piece, half, count, scale, first, to_second)
    panels = -(-filters // wide)
    pairs = (panels + 1) // 2
    for pair in range(part * block[0], min((part + 1) * block[0], pairs)):
        for n in range(7):
            for chain in range(parts):
                first = to_second * chain // parts
                count = to_second * (chain + 1) // parts - first
                # What a tile spills over, the next products are written to.
                multiply_near(
                    products, n * half, sums, (7 * first + n * count) * half, count, np.int64(1), half, weights,
                    ((pair * 7 + n) * to_second + first) * wide, count, chain == 0,
                )  # fmt: skip
        other = panels - pairs + pair
        _combine(result, products, half, bias, pair * wide, other * wide, epilogue)
        for side in range(2):
            panel = pair if side == 0 else other
            if side == 1 and panel < pairs:
                continue  # the panel in the middle, which is another pair's, too
            k = panel * wide
            at = image * out_layout[0] + k * out_layout[1] + z * out_layout[2]
            at += row * out_layout[3] + column * out_layout[4]
            slab.unload(
                out, at, out_layout[1], out_layout[3], out_layout[4], min(wide, filters - k), rows, columns, result,
                side * 2 * half * wide, columns,
            )  # fmt: skip

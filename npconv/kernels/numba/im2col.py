"""Batch and channels at once: one region matrix for everything, one matrix product.

The region matrix has a row for each element of a filter (channel and tap) and a column for each position of each
image of the batch; weight (K, elements) times region matrix is the result. It is never held as a whole: a task makes
a panel of it, as many columns as a register tile is wide, and multiplies all filters with it while it is in cache.
That costs no more products, takes the memory of one panel instead of k² times the input, and is where this version's
speed comes from.

Complex numbers take the same road. Each filter becomes two rows of real numbers, its real and its imaginary parts,
which meet the panel's numbers as pairs of real ones: (a + bi)(c + di) = (ac − bd) + (ad + bc)i is put together from
the two rows at the end.
"""

from __future__ import annotations

import numpy as np

from npconv.kernels.numba import jit
from npconv.kernels.numba.lean import max, min
from npconv.kernels.numba.moves import copy
from npconv.kernels.numba.tile import COLUMNS, ROWS, VECTOR_BYTES
from npconv.kernels.numba.vector import add_to, multiply_add, starts_from, zeros
from npconv.kernels.summation import chain_length


def conv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    stride: tuple[int, int, int],
    dilation: tuple[int, int, int],
    groups: int,
) -> None:
    """Fill ``out``; see `npconv.kernels` for the arguments."""
    products = weight[:1].size
    bias = np.zeros(len(weight), x.dtype) if bias is None else bias
    filters = weight.reshape(len(weight), products)
    if x.dtype.kind == "c":
        filters = np.stack([filters.real, filters.imag], axis=1).reshape(2 * len(weight), products)
    real = filters.dtype
    width = COLUMNS * VECTOR_BYTES // x.dtype.itemsize
    columns = out.shape[0] * out[:1, :1].size
    panels = -(-columns // width)
    share = max(min(CACHE // (products * width * x.itemsize + 1), panels * groups // TASKS), 1)  # panels to a task
    sizes = np.array([stride, dilation, weight.shape[2:], out.shape[2:]])
    _block.run(
        groups * -(-panels // share), out.size * products, x, x.reshape(-1).view(real), filters, bias.view(real),
        out.reshape(-1).view(real), sizes, groups, width, share, chain_length(products),
    )  # fmt: skip


TASKS = 64
"""Tasks that the work is cut into where there is enough, so that threads get even shares."""

CACHE = 2**18
"""Bytes of a task's panels: half of a small second-level cache. They all meet a tile's filters before the next ones."""


@jit.Kernel
@jit.makes_arrays
def _block(task, x, numbers, filters, bias, out, sizes, groups, width, share, chain):  # type: ignore[no-untyped-def]
    """Compute the result of one group of channels at ``share`` panels of positions."""
    batch, channels = x.shape[:2]
    parts = x.itemsize // filters.itemsize  # 2 for complex numbers, 1 for all others
    rows, elements = filters.shape[0] // groups, filters.shape[1]
    size = sizes[3]
    positions = size[0] * size[1] * size[2]
    blocks = -(-batch * positions // (width * share))
    g, block = divmod(task, blocks)
    first_channel, first_row = g * (channels // groups), g * rows
    coefficients = filters.reshape(filters.size)
    starts, lanes = np.empty(width, np.int64), np.empty(width + 1, np.int64)
    panels = min(share, -(-batch * positions // width) - block * share)
    region_matrix = np.empty(((panels * elements + 1), width), x.dtype)  # a row more than needed: see _gather
    columns = region_matrix.view(filters.dtype).reshape(-1)
    product = np.empty(ROWS * width * parts, filters.dtype)
    for panel in range(panels):
        first = (block * share + panel) * width
        runs = _find_runs(starts, lanes, x, first, min(width, batch * positions - first), first_channel, sizes)
        _gather(region_matrix, columns, panel * elements, x, numbers, starts, lanes, runs, channels // groups, sizes)
    for row in range(first_row, first_row + rows, ROWS):
        height = min(ROWS, first_row + rows - row)
        for panel in range(panels):
            _multiply(product, coefficients, row, height, columns, panel, elements, chain)
            first = (block * share + panel) * width
            count = min(width, batch * positions - first)
            _store(out, product, bias, row, height, parts, first, count, filters.shape[0], positions)


@jit.inline
def _find_runs(starts, lanes, x, first, count, channel, sizes):  # type: ignore[no-untyped-def]
    """Cut the panel's columns into runs of positions in one row of the result.

    Run r has the columns from ``lanes[r]`` to ``lanes[r + 1]``; its first window begins at ``starts[r]`` in the flat x.
    """
    stride, _, _, size = sizes
    runs, lane = 0, 0
    while lane < count:
        line, w = divmod(first + lane, size[2])
        plane, h = divmod(line, size[1])
        n, d = divmod(plane, size[0])
        start = ((n * x.shape[1] + channel) * x.shape[2] + d * stride[0]) * x.shape[3] + h * stride[1]
        starts[runs], lanes[runs] = start * x.shape[4] + w * stride[2], lane
        lane += min(count - lane, size[2] - w)
        runs += 1
    lanes[runs] = count
    return runs


@jit.inline
def _gather(region_matrix, columns, above, x, numbers, starts, lanes, runs, channels, sizes):  # type: ignore[no-untyped-def]
    """Fill a panel of the region matrix (numbers: ``columns``) from ``x`` (numbers: ``numbers``).

    The panel begins ``above`` rows down, where the one before it ends.

    At stride 1 a run is copied as whole vectors, however short it is: what lies beyond it is overwritten by the next
    run, and beyond the row by the next row. Copying runs in loops of their length took twice the time at 7 × 7.
    """
    stride, dilation, kernel, _ = sizes
    _, _, depth, height, row = x.shape
    flat = x.reshape(x.size)
    width = region_matrix.shape[1]
    parts = len(numbers) // len(flat)
    element = above
    for c in range(channels):
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                line = ((c * depth + i * dilation[0]) * height + j * dilation[1]) * row
                for m in range(kernel[2]):
                    for run in range(runs):
                        start = starts[run] + line + m * dilation[2]
                        if stride[2] == 1 and start + width <= len(flat):
                            copy(columns, (element * width + lanes[run]) * parts, numbers, start * parts)
                        else:
                            for lane in range(lanes[run + 1] - lanes[run]):
                                region_matrix[element, lanes[run] + lane] = flat[start + lane * stride[2]]
                    element += 1


@jit.inline
def _store(out, product, bias, row, height, parts, first, count, rows, positions):  # type: ignore[no-untyped-def]
    """Add the bias to the panel's product and write it to the flat result, image by image."""
    width = len(product) // (ROWS * parts)
    lane = 0
    while lane < count:
        n, position = divmod(first + lane, positions)
        length = min(count - lane, positions - position)
        for r in range(0, height, parts):
            # Slices, because Numba cannot tell that an index like at + j is not negative, and so would not use vectors.
            at = (n * rows + row + r) * positions + position * parts
            target = out[at : at + length * parts]
            one = product[r * width * parts + lane * parts :][: length * parts]
            added = bias[row + r]
            if parts == 1:
                for j in range(length):
                    target[j] = one[j] + added
            else:
                two = product[(r + 1) * width * parts + lane * parts :][: length * parts]
                for j in range(length):
                    target[2 * j] = one[2 * j] - two[2 * j + 1] + added
                    target[2 * j + 1] = one[2 * j + 1] + two[2 * j] + bias[row + r + 1]
        lane += length


def _height(rows):  # type: ignore[no-untyped-def]
    """Return the product of ``rows`` filters with a panel, for a register tile of that height."""

    def multiply(product, coefficients, row, columns, panel, elements, chain):  # type: ignore[no-untyped-def]
        width = len(product) // ROWS
        for at in range(len(product)):
            product[at] = 0
        filters = starts_from(row * elements, elements, rows)
        for start in range(0, elements, chain):
            tile = zeros(product, rows, COLUMNS)
            for element in range(start, min(start + chain, elements)):
                at = (panel * elements + element) * width
                tile = multiply_add(tile, coefficients, filters, element, columns, at)
            add_to(tile, product, 0, width)

    return jit.specialised(multiply, rows)


_one, _two, _three, _four, _five, _six = map(_height, range(1, ROWS + 1))


@jit.inline
def _multiply(product, coefficients, row, rows, columns, panel, elements, chain):  # type: ignore[no-untyped-def]
    """Fill ``product`` with the given rows of filters times a panel of the region matrix."""
    if rows == 6:
        _six(product, coefficients, row, columns, panel, elements, chain)
    elif rows == 5:
        _five(product, coefficients, row, columns, panel, elements, chain)
    elif rows == 4:
        _four(product, coefficients, row, columns, panel, elements, chain)
    elif rows == 3:
        _three(product, coefficients, row, columns, panel, elements, chain)
    elif rows == 2:
        _two(product, coefficients, row, columns, panel, elements, chain)
    else:
        _one(product, coefficients, row, columns, panel, elements, chain)

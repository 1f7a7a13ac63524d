"""Patches put in their places: what `npconv.patches` does with NumPy, for floats, over threads.

The numbers of a patch lie side by side, and so do those of its rows in a row of the result. From planes, one for each
number of a patch, it took two to four times as long. A task is a row of patches, all channels of it.
"""

from __future__ import annotations

import numpy as np

from npconv.kernels.layout import CHANNEL, IMAGE, PIXEL, PLANE, ROW
from npconv.kernels.numba import jit
from npconv.kernels.numba.moves import move
from npconv.kernels.numba.slab import copy_numbers, flat

WORTH = 1
"""Numbers that take as long as one product of a kernel's work."""


def place(made: np.ndarray, out: np.ndarray, patch: tuple[int, ...]) -> bool:
    """Write patches (N, D, H, W, C · taps), C-contiguous, to a result (N, C, …); False if that takes copies."""
    found = flat(out)
    if found is None or made.dtype != out.dtype:
        return False
    images, depth, height, width, _ = made.shape
    sizes = np.array([out.shape[1], depth, height, width, *patch])
    _place.run(images * depth * height, made.size // WORTH, made.reshape(-1), *found, sizes)
    return True


@jit.Kernel
def _place(task, made, out, layout, sizes):  # type: ignore[no-untyped-def]
    """Write a row of patches."""
    channels, depth, height, width, planes, rows, columns = sizes
    image, z = divmod(task // height, depth)
    y = task % height
    many = channels * planes * rows * columns
    source = task * width * many
    for c in range(channels):
        for i in range(planes):
            for j in range(rows):
                at = (
                    image * layout[IMAGE]
                    + c * layout[CHANNEL]
                    + (z * planes + i) * layout[PLANE]
                    + (y * rows + j) * layout[ROW]
                )
                if layout[PIXEL] == 1:
                    for x in range(width):
                        copy_numbers(out, at + x * columns, made, source + x * many, columns)
                else:
                    for x in range(width):
                        for m in range(columns):
                            move(out, at + (x * columns + m) * layout[PIXEL], made, source + x * many + m)
                source += columns

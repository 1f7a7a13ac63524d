"""Small kernels, one thread an element: what NumPy has as ``np.pad``, ``astype``, ``out[...] = 0`` and ``+=``."""

from __future__ import annotations

from numba import cuda

from npconv.kernels.cuda import jit
from npconv.kernels.cuda.indices import padded_from, unravel


@jit.kernel
def pad(source, before, mode, target):  # type: ignore[no-untyped-def]
    """Fill ``target`` (N, C, D, H, W) with ``source`` padded on its spatial axes, in any dtypes and memory orders."""
    channels = target.shape[1]
    size = target.shape[2:]
    source_size = source.shape[2:]
    for i in range(cuda.grid(1), target.size, cuda.gridsize(1)):
        plane, d, h, w = unravel(i, size)
        n, c = plane // channels, plane % channels
        from_d = padded_from(d - before[0], source_size[0], mode)
        from_h = padded_from(h - before[1], source_size[1], mode)
        from_w = padded_from(w - before[2], source_size[2], mode)
        if from_d < 0 or from_h < 0 or from_w < 0:
            target[n, c, d, h, w] = 0
        else:
            target[n, c, d, h, w] = source[n, c, from_d, from_h, from_w]


@jit.kernel
def clear(out):  # type: ignore[no-untyped-def]
    """Fill a matrix with zeros."""
    rows, columns = out.shape
    for i in range(cuda.grid(1), rows * columns, cuda.gridsize(1)):
        out[i // columns, i % columns] = 0


@jit.kernel
def add(term, out):  # type: ignore[no-untyped-def]
    """Add a matrix to another."""
    rows, columns = out.shape
    for i in range(cuda.grid(1), rows * columns, cuda.gridsize(1)):
        out[i // columns, i % columns] += term[i // columns, i % columns]


@jit.kernel
def add_bias(bias, out):  # type: ignore[no-untyped-def]
    """Add to each channel of ``out`` (N, K, D, H, W) its entry of ``bias`` (K,)."""
    channels = out.shape[1]
    size = out.shape[2:]
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        plane, d, h, w = unravel(i, size)
        out[plane // channels, plane % channels, d, h, w] += bias[plane % channels]

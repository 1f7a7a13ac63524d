"""The matrix product, in chains short enough for the accuracy that npconv promises."""

from __future__ import annotations

import numpy as np

from npconv.kernels.summation import chain_length


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` with ``a @ b``, for matrices or stacks of them.

    A BLAS adds the products of one call up in one chain, so it gets no more of them than a chain may have; those of
    complex numbers are two each.
    """
    chain = chain_length(a.shape[-1]) // (2 if a.dtype.kind == "c" else 1)
    np.matmul(a[..., :chain], b[..., :chain, :], out=out)
    for start in range(chain, a.shape[-1], chain):
        part = slice(start, start + chain)
        out += a[..., part] @ b[..., part, :]

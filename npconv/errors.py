"""Exceptions that npconv adds to Python's own, and warnings that point at the caller."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import numpy as np

_INSIDE = tuple(os.path.join(Path(module).parent, "") for module in (__file__, np.__file__))
"""Folders of npconv and of NumPy, which stands between where it decorates npconv's functions."""


class CudaUnavailableError(RuntimeError):
    """The CUDA backend was asked for and cannot run here; the message says what is missing.

    Examples
    --------
    >>> import numpy as np, npconv
    >>> try:
    ...     y = npconv.conv1d(np.ones((1, 1, 3)), np.ones((1, 1, 2)), backend="cuda")
    ... except npconv.CudaUnavailableError as error:
    ...     y = npconv.conv1d(np.ones((1, 1, 3)), np.ones((1, 1, 2)))
    >>> y.shape
    (1, 1, 2)
    """


def warn(message: str) -> None:
    """Give a RuntimeWarning that points at the line outside npconv from which npconv was called."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)

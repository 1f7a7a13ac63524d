"""How many threads npconv may use: one number for the process, and one for a block of code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from npconv.values import integer

_scoped: ContextVar[int | None] = ContextVar("npconv_threads", default=None)


def max_threads() -> int:
    """Return the most threads that may be asked for: ``NUMBA_NUM_THREADS``, else the CPUs open to this process."""
    try:
        configured = int(os.environ.get("NUMBA_NUM_THREADS", ""))  # as Numba reads it
    except ValueError:
        configured = 0
    if configured > 0:
        return configured
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


_default = max_threads()


def _checked(n: int) -> int:
    number, most = integer("n", n, 1), max_threads()
    if number > most:
        raise ValueError(f"n must be at most {most}, the CPUs open to this process or NUMBA_NUM_THREADS; got {number}")
    return number


def set_num_threads(n: int) -> None:
    """Set how many threads the Numba backend uses, for the whole process.

    The NumPy backend's matrix products are threaded by NumPy's own BLAS library, which this does not touch.

    Parameters
    ----------
    n : int
        At least 1, at most the number of CPUs open to the process (or ``NUMBA_NUM_THREADS``, where that is set).

    Raises
    ------
    ValueError, TypeError
        If ``n`` is out of range or no integer.

    Examples
    --------
    >>> import npconv
    >>> before = npconv.get_num_threads()
    >>> npconv.set_num_threads(1)
    >>> npconv.get_num_threads()
    1
    >>> npconv.set_num_threads(before)
    """
    global _default
    _default = _checked(n)


def get_num_threads() -> int:
    """Return how many threads the Numba backend uses here.

    Returns
    -------
    int
        The number set by the innermost `threads` block, else by `set_num_threads`, else the number of CPUs.

    Examples
    --------
    >>> import npconv
    >>> with npconv.threads(1):
    ...     npconv.get_num_threads()
    1
    """
    scoped = _scoped.get()
    return _default if scoped is None else scoped


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Use ``n`` threads within a ``with`` block, in this Python thread (or asyncio task) alone.

    Parameters
    ----------
    n : int
        As in `set_num_threads`.

    Raises
    ------
    ValueError, TypeError
        If ``n`` is out of range or no integer.

    Examples
    --------
    >>> import npconv, numpy as np
    >>> with npconv.threads(1):
    ...     npconv.conv1d(np.ones((1, 1, 4)), np.ones((1, 1, 2)))
    array([[[2., 2., 2.]]])
    """
    token = _scoped.set(_checked(n))
    try:
        yield
    finally:
        _scoped.reset(token)

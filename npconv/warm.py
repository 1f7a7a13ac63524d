"""Compiling ahead: `warmup`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from npconv import api, arguments, backends, registry
from npconv.table import seconds, table
from npconv.threads import get_num_threads, threads


class Compiled(NamedTuple):
    """One kernel made ready: its algorithm, dtype and threads, and the seconds spent compiling (0 from the disk)."""

    algorithm: str
    dtype: str
    threads: int
    seconds: float


class WarmupReport(tuple[Compiled, ...]):
    """What `warmup` made ready; prints as a table."""

    def __repr__(self) -> str:
        rows = [
            (entry.algorithm, entry.dtype, str(entry.threads), seconds(entry.seconds) if entry.seconds else "from disk")
            for entry in self
        ]
        return table(("algorithm", "dtype", "threads", "compiled in"), rows)


def warmup(
    dtypes: Sequence[Any] = ("float32",),
    algorithms: Sequence[str] | None = None,
    *,
    progress: bool | Callable[[Iterable[Any], int], Iterable[Any]] = True,
) -> WarmupReport:
    """Compile the Numba kernels ahead, so that no later call waits for it; compiled code is kept on disk.

    Parameters
    ----------
    dtypes : sequence of dtype_like, default ("float32",)
        For arrays of these dtypes.
    algorithms : sequence of str, optional
        These algorithms; by default all of the Numba backend.
    progress : bool or callable, default True
        Whether to show a progress bar on the standard error stream; or a function that wraps an iterable, given it and
        its length, such as ``lambda items, total: tqdm(items, total=total)``.

    Returns
    -------
    WarmupReport
        A tuple of what was compiled and how long it took, which prints as a table.

    Raises
    ------
    ValueError, TypeError
        If there is no such dtype or algorithm, or if Numba is missing.

    Examples
    --------
    >>> import npconv
    >>> [entry.algorithm for entry in npconv.warmup(["float32"], ["loop"], progress=False)]  # doctest: +ELLIPSIS
    ['loop'...]
    """
    backends.require("numba")
    from npconv.kernels.numba.jit import SMALL_WORK, compile_clock

    for name, names in (("dtypes", dtypes), ("algorithms", algorithms or ())):
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(f"{name} must be a sequence of names, such as a list; got {names!r}")
    known = [entry.name for entry in registry.candidates("numba")]
    chosen = [arguments.choice("algorithms", name, known) for name in (known if algorithms is None else algorithms)]
    wanted = [arguments.dtype_named("dtypes", dtype) for dtype in dtypes]
    counts = sorted({1, get_num_threads()})
    tasks = [(name, dtype, count) for name in chosen for dtype in wanted for count in counts]
    side = int(SMALL_WORK**0.5) + 1  # enough work for several threads, for a kernel of one element
    done = []
    for name, dtype, count in _shown(tasks, progress):
        x, weight = np.zeros((1, 1, side, side), dtype), np.zeros((1, 1, 1, 1), dtype)
        with threads(count), compile_clock() as clock:
            api.conv2d(x, weight, algorithm=name, backend="numba")
        done.append(Compiled(name, str(dtype), count, clock.seconds))
    return WarmupReport(done)


def _shown(tasks: list[Any], progress: bool | Callable[[Iterable[Any], int], Iterable[Any]]) -> Iterable[Any]:
    """Wrap tasks so that progress is shown: by the caller's function, by rich if it is installed, else plainly."""
    if callable(progress):
        return progress(tasks, len(tasks))
    if not progress:
        return tasks
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        return _plainly(tasks)
    return track(tasks, "compiling", console=Console(stderr=True), transient=True)


def _plainly(tasks: list[Any]) -> Iterable[Any]:
    start = time.perf_counter()
    for number, task in enumerate(tasks, 1):
        passed = seconds(time.perf_counter() - start)
        print(f"\rcompiling {number} of {len(tasks)}, {passed}   ", end="", file=sys.stderr)
        yield task
    print(file=sys.stderr)

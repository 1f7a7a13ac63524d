"""Showing how far a long piece of work has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from npconv.table import seconds

Progress = bool | Callable[[Iterable[Any], int], Iterable[Any]]


def shown(tasks: list[Any], progress: Progress, doing: str) -> Iterable[Any]:
    """Wrap tasks so that progress is shown: by the caller's function, by rich if it is installed, else plainly."""
    if callable(progress):
        return progress(tasks, len(tasks))
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True, False or a function of an iterable and its length; got {progress!r}")
    if not progress:
        return tasks
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        return _plainly(tasks, doing)
    return track(tasks, doing, console=Console(stderr=True), transient=True)


def _plainly(tasks: list[Any], doing: str) -> Iterable[Any]:
    start = time.perf_counter()
    for number, task in enumerate(tasks, 1):
        passed = seconds(time.perf_counter() - start)
        print(f"\r{doing} {number} of {len(tasks)}, {passed}   ", end="", file=sys.stderr)
        yield task
    print(file=sys.stderr)

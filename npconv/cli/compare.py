"""Run a photograph, or a network's layers, through every algorithm of every backend: checked, timed, compared."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import npconv
from npconv import backends
from npconv.cli import layers
from npconv.cli.usage import UsageError, positive_integer, positive_seconds, require_extras, thread_count
from npconv.registry import names

if TYPE_CHECKING:
    from npconv.cli.tasks import Task

SUMMARY = "run a photograph through every algorithm of every backend: checked, timed, compared"

WRONG = 1
"""Exit status if a result is not as near the exact one as npconv promises."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--image", metavar="FILE", help="a photograph (default: matplotlib's grace_hopper.jpg)")
    what.add_argument("--layers", choices=layers.SETS, help="the layers of a network, with random numbers, instead")
    add = parser.add_argument
    add("--plot", metavar="FILE", help="draw the images and the times into a file, such as compare.png")
    add("--json", metavar="FILE", help="write the numbers into a file")
    add("--backends", nargs="+", choices=backends.NAMES, help="only these (default: all that run here)")
    add("--algorithms", nargs="+", choices=names(), help="only these (default: all)")
    add("--dtype", choices=("float32", "float64"), default="float32", help="(default: float32)")
    add("--threads", type=thread_count, metavar="N", help="threads of the Numba backend (default: all CPUs)")
    add("--repeat", type=positive_integer, default=5, metavar="N", help="rounds of timing (default: 5)")
    add(
        "--budget", type=positive_seconds, default=20.0, metavar="SECONDS",
        help="what one call may take, roughly: a photograph is scaled down until the slowest algorithm keeps to it, "
        "and on layers slower algorithms are left out (default: 20)",
    )  # fmt: skip


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    require_extras()
    _check_files(parsed)
    from npconv.cli import measure

    available, absent = measure.available(parsed.backends)
    if parsed.backends and absent:
        raise UsageError("; ".join(f"backend {name} cannot run here: {reason}" for name, reason in absent.items()))
    with npconv.threads(parsed.threads or npconv.get_num_threads()):
        return _compare(parsed, available, absent)


def _compare(parsed: argparse.Namespace, available: Sequence[str], absent: dict[str, str]) -> int:
    from npconv.cli import measure, record, show

    tasks, scale = _tasks(parsed, available)
    budget = parsed.budget if parsed.layers else math.inf  # the photograph has been scaled to keep to it
    tables = [measure.contestants(task, available, parsed.algorithms, budget) for task in tasks]
    peak = _Peak(parsed.dtype, "numba" in available)
    result = None
    with _progress(sum(measure.steps(rows, parsed.repeat) for rows in tables)) as done:
        for task, rows in zip(tasks, tables, strict=True):
            result = measure.race(task, rows, parsed.repeat, peak.measure, done)

    to = show.console()
    flops = [task.explain(available[0]).flops for task in tasks]
    for task, rows, operations in zip(tasks, tables, flops, strict=True):
        show.print_rows(to, task, rows, operations, peak.best)
    show.print_notes(to, parsed.dtype, npconv.get_num_threads(), peak.best)
    if scale != 1:
        to.print(f"The photograph was scaled to {scale:.0%}, so that no call takes longer than --budget.", style="dim")
    for name, reason in absent.items():
        to.print(f"{name} is left out: {reason}", style="dim")

    if parsed.json:
        record.write(
            parsed.json,
            {
                "machine": record.machine(),
                "threads": npconv.get_num_threads(),
                "peak_gflops": None if peak.best is None else peak.best / 1e9,
                "not_available": absent,
                "problems": [
                    record.problem(task, rows, operations, peak.best)
                    for task, rows, operations in zip(tasks, tables, flops, strict=True)
                ],
            },
        )
    if parsed.plot:
        from npconv.cli import plot

        subtitle = f"npconv {npconv.__version__}, {parsed.dtype}, {npconv.get_num_threads()} threads. "
        subtitle += "2×: twice as fast as NumPy's version of the same algorithm"
        if parsed.layers:
            plot.layers(parsed.plot, parsed.layers, tasks, tables, subtitle)
        elif result is not None:
            plot.photograph(parsed.plot, tasks[0], tables[0], result, subtitle)
    return 0 if all(row.accurate for rows in tables for row in rows) else WRONG


def _check_files(parsed: argparse.Namespace) -> None:
    """Refuse files that could not be written in the end, before anything takes time."""
    for path in filter(None, (parsed.plot, parsed.json)):
        folder = Path(path).absolute().parent
        if Path(path).is_dir() or not os.access(folder, os.W_OK):
            raise UsageError(f"{path} cannot be written: no such folder, or no right to write there")
    if parsed.plot:
        from npconv.cli import plot

        ending = Path(parsed.plot).suffix.removeprefix(".").lower()
        if ending not in plot.formats():
            raise UsageError(f"--plot {parsed.plot} must end with one of .{', .'.join(sorted(plot.formats()))}")


def _tasks(parsed: argparse.Namespace, available: Sequence[str]) -> tuple[list[Task], float]:
    """Return what is to be computed, and by how much the photograph was scaled to keep to the budget."""
    from npconv.cli import measure, tasks

    if parsed.layers:
        return tasks.layers(parsed.layers, parsed.dtype), 1.0
    photograph = tasks.photograph(parsed.image, parsed.dtype)
    try:
        rows = measure.contestants(photograph, available, parsed.algorithms, math.inf)
    except ValueError as error:
        raise UsageError(f"the image is too small for the filters: {error}") from error
    slowest = max((row.expected for row in rows if row.skipped is None), default=0.0)
    if slowest <= parsed.budget:
        return [photograph], 1.0
    scale = math.sqrt(parsed.budget / slowest)
    return [tasks.photograph(parsed.image, parsed.dtype, scale)], scale


class _Peak:
    """The machine's peak: the most that was seen at several moments."""

    def __init__(self, dtype: str, with_numba: bool) -> None:
        self._dtype, self._with_numba = dtype, with_numba
        self.best: float | None = None

    def measure(self) -> None:
        """Measure it again."""
        if self._with_numba:
            from npconv.kernels.numba import peak

            self.best = max(self.best or 0.0, peak.flops_per_second(self._dtype, seconds=0.1))


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[str], Any]]:
    """Show a bar on a terminal, and give a function that says what the next step is."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from npconv.cli import show

    bar, text = BarColumn(bar_width=24), TextColumn("{task.description}")
    columns = (SpinnerColumn(), bar, TaskProgressColumn(), TimeElapsedColumn(), text)
    to = show.console(stderr=True)
    # Drawing takes time from what is measured: seldom, then, and only where somebody can see it.
    with Progress(*columns, console=to, transient=True, refresh_per_second=2, disable=not to.is_terminal) as progress:
        task = progress.add_task("", total=steps)
        before = -1

        def done(what: str) -> None:
            nonlocal before
            before += 1
            progress.update(task, completed=before, description=what)

        yield done

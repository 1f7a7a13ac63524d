"""Rows as a table on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from npconv.cli import reference
from npconv.cli.measure import Row
from npconv.cli.record import speed_up
from npconv.cli.tasks import Task
from npconv.table import quantity, seconds

WIDTH = 100
"""Columns of the table where there is no terminal whose width could be asked for."""

_HEADERS = (
    "algorithm", "backend", "time", "times\nNumPy", "GFLOP/s", "of\npeak", "largest\nerror", "of\nbound", "memory",
    "compile",
)  # fmt: skip


def console(*, stderr: bool = False) -> Console:
    """Return a console, wide enough for the table where the output is a file or a pipe."""
    # Names of files, and of extras like npconv[cli], have brackets that are no markup.
    result = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not result.is_terminal:
        result.width = max(result.width, WIDTH)
    return result


def print_rows(to: Console, task: Task, rows: Sequence[Row], flops: int, peak: float | None) -> None:
    """Print the rows of one task, and why some are left out."""
    table = Table(title=task.name, title_justify="left", box=box.SIMPLE_HEAD)
    table.padding = (0, 1 if to.width >= WIDTH else 0)
    for number, header in enumerate(_HEADERS):
        table.add_column(header, justify="left" if number < 2 else "right", no_wrap=True, vertical="bottom")
    measured = [row for row in rows if row.skipped is None]
    fastest = min(measured, key=lambda row: row.least, default=None)
    for before, row in zip([None, *measured], measured, strict=False):
        if before is not None and before.algorithm != row.algorithm:
            table.add_section()
        table.add_row(*_cells(row, rows, flops, peak), style="bold green" if row is fastest else None)
    to.print(table)
    for row in rows:
        if row.skipped is not None:
            to.print(f"{row.algorithm} on {row.backend} {row.skipped}", style="dim")
        elif not row.accurate:
            bound = reference.STRICT if row.textbook else reference.DEFAULT
            wrong = f"{row.algorithm} on {row.backend} is WRONG: its error is {row.error_of_bound:.3g} × {bound}"
            to.print(wrong, style="bold red")


def print_notes(to: Console, dtype: str, threads: int, peak: float | None) -> None:
    """Print what the columns mean."""
    machine = f"npconv on {threads} thread{'s' * (threads > 1)}"
    if peak is not None:
        machine += f", which here reach a peak of {peak / 1e9:.3g} GFLOP/s in {dtype} (measured)"
    notes = [
        f"{machine}; NumPy on as many as its BLAS takes.",
        "time: least of several calls, after the first. compile: Numba's part of the first call.",
        "error: against float64. bound, for sums of n products:",
        f"  loop, flatten, im2col: {reference.STRICT}, for each element",
        f"  all others: {reference.DEFAULT}, the largest of all elements",
        "memory: most bytes allocated at a time during a call, result included (≈ is planned).",
    ]
    to.print("\n".join(notes), style="dim")


def _cells(row: Row, rows: Sequence[Row], flops: int, peak: float | None) -> list[str]:
    faster, speed = speed_up(row, rows), flops / row.least
    return [
        row.algorithm,
        row.backend,
        seconds(row.least),
        "-" if math.isnan(faster) else _short(faster),
        _short(speed / 1e9),
        "-" if peak is None or row.backend == "cuda" else _short(100 * speed / peak) + "%",
        f"{row.error:.1e}",
        _short(100 * row.error_of_bound) + "%",
        ("≈" if row.memory_is_planned else "") + quantity(row.memory, "B"),
        "-" if row.compile is None else seconds(row.compile) if row.compile else "cached",
    ]


def _short(value: float) -> str:
    """Write a number in at most five characters, where it is below 100 000."""
    if value < 0.01:
        return "<0.01"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"

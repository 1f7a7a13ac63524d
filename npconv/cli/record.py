"""What was measured, as plain data for JSON."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import npconv
from npconv.cli.measure import Row
from npconv.cli.tasks import Task
from npconv.cli.usage import UsageError


def speed_up(row: Row, rows: Sequence[Row]) -> float:
    """Return how many times faster a row is than NumPy's version of its algorithm; NaN where that was not timed."""
    numpy = next((r for r in rows if r.backend == "numpy" and r.algorithm == row.algorithm), None)
    return math.nan if numpy is None or not numpy.times else numpy.least / row.least


def machine() -> dict[str, str]:
    """Return `npconv.show_config` without the places of files."""
    return {name: " ".join(text.split()) for name, text in npconv.show_config().items() if not name.endswith("_DIR")}


def problem(task: Task, rows: Sequence[Row], flops: int, peak: float | None) -> dict[str, Any]:
    """Return a task and its rows."""
    return {
        "name": task.name,
        "function": task.function,
        "input_shape": task.input.shape,
        "weight_shape": task.weight.shape,
        "dtype": task.input.dtype.name,
        "options": task.options,
        "flops": flops,
        "rows": [_row(row, rows, flops, peak) for row in rows],
    }


def _row(row: Row, rows: Sequence[Row], flops: int, peak: float | None) -> dict[str, Any]:
    result: dict[str, Any] = {"algorithm": row.algorithm, "backend": row.backend, "left_out": row.skipped}
    if row.skipped is not None:
        return result
    quartiles = statistics.quantiles(row.times, method="inclusive") if len(row.times) > 1 else row.times * 3
    return result | {
        "seconds": {
            "least": row.least, "median": row.median, "quartiles": [quartiles[0], quartiles[-1]],
            "most": max(row.times), "calls": len(row.times), "first_call": row.first_call,
        },
        "times_numpy": speed_up(row, rows),
        "gflops": flops / row.least / 1e9,
        "share_of_peak": None if peak is None or row.backend == "cuda" else flops / row.least / peak,
        "largest_error": row.error,
        "largest_error_of_bound": row.error_of_bound,
        "accurate": row.accurate,
        "memory_bytes": row.memory,
        "memory_measured": not row.memory_is_planned,
        "planned_workspace_bytes": row.workspace,
        "compile_seconds": row.compile,
    }  # fmt: skip


def write(path: str, content: dict[str, Any]) -> None:
    """Write plain data as JSON, in which NaN and infinity, for want of a notation, become null."""
    try:
        Path(path).write_text(json.dumps(_without_nan(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The picture: the photograph and what the filters make of it, and the times as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from npconv.cli.measure import Row
from npconv.cli.record import speed_up
from npconv.cli.tasks import FILTERS, Task
from npconv.cli.usage import UsageError
from npconv.table import seconds

_COLORS = {"numpy": "#4d77cf", "numba": "#f2a33a", "cuda": "#6fb536"}
_LABELS = {"numpy": "NumPy", "numba": "Numba", "cuda": "CUDA"}
_INK, _FAINT = "#222222", "#808080"

_EDGES = {"emboss": "gray", "vertical edges (Sobel)": "RdBu", "Laplacian of Gaussian": "pencil"}
"""How images of edges, which have signs, are shown: with 0 in the middle of a colour map, or as lines on paper."""


def formats() -> set[str]:
    """Return the endings of the files that can be written."""
    return set(FigureCanvasAgg(Figure()).get_supported_filetypes())


def photograph(path: str, task: Task, rows: Sequence[Row], result: np.ndarray, subtitle: str) -> None:
    """Draw the photograph, the filtered images and the times."""
    figure: Any = Figure(figsize=(14, 8.4), facecolor="white")
    pictures, chart = figure.subfigures(1, 2, width_ratios=(1.55, 1), wspace=0)
    panels = pictures.subplots(2, 3, gridspec_kw={"wspace": 0.04, "hspace": 0.12}).flat
    pictures.subplots_adjust(left=0.015, right=0.99, top=0.86, bottom=0.02)
    _show(next(panels), "the photograph", task.input[0].transpose(1, 2, 0))
    for axes, name, image in zip(panels, FILTERS, result[0], strict=True):
        _show(axes, name, image, _EDGES.get(name))
    axes = chart.add_axes((0.17, 0.09, 0.78, 0.74))
    _bars(axes, rows, *_range(rows))
    axes.set_title("time of one call", loc="left", fontsize=11, color=_INK)
    _write(figure, path, task.name, subtitle, rows)


def layers(path: str, name: str, tasks: Sequence[Task], tables: Sequence[Sequence[Row]], subtitle: str) -> None:
    """Draw the times of each layer."""
    columns = min(3, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    height = 1.2 + lines * (0.35 * max(map(len, tables)) + 1.1)
    figure: Any = Figure(figsize=(15, height), facecolor="white", layout="constrained")
    figure.get_layout_engine().set(rect=(0.008, 0, 0.985, 1 - 0.95 / height), wspace=0.06, hspace=0.08)
    all_axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    everything = [row for rows in tables for row in rows]
    for axes, task, rows in zip(all_axes, tasks, tables, strict=False):
        _bars(axes, rows, *_range(everything))
        axes.set_title(task.name.removeprefix(f"{name} "), loc="left", fontsize=10.5, color=_INK)
    for axes in all_axes[len(tasks) :]:
        axes.set_visible(False)
    _write(figure, path, f"The layers of {name}: time of one call", subtitle, everything)


def _write(figure: Any, path: str, title: str, subtitle: str, rows: Sequence[Row]) -> None:
    """Put title and legend over a figure, and write it into a file."""
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.22 / height, title, fontsize=16, weight="bold", color=_INK, va="top")
    figure.text(0.012, 1 - 0.6 / height, subtitle, fontsize=10.5, color=_FAINT, va="top")
    patches = [Patch(color=_COLORS[name], label=_LABELS[name]) for name in dict.fromkeys(row.backend for row in rows)]
    place = {"loc": "upper right", "bbox_to_anchor": (0.985, 1 - 0.15 / height)}
    figure.legend(handles=patches, ncols=len(patches), frameon=False, fontsize=11, **place)
    FigureCanvasAgg(figure)
    try:
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error


def _show(axes: Any, name: str, image: np.ndarray, edges: str | None = None) -> None:
    """Show an image; of edges the rare extremes are cut off, which would leave the rest without contrast."""
    if edges is None:
        axes.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1)
    else:
        limit = max(float(np.percentile(np.abs(image), 99)), 1e-6)
        if edges == "pencil":
            axes.imshow(np.abs(image), cmap="gray_r", vmin=0, vmax=limit)
        else:
            axes.imshow(image, cmap=edges, vmin=-limit, vmax=limit)
    axes.set_title(name, fontsize=11, color=_INK, pad=5)
    axes.set_axis_off()


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the power of ten below the least time, and the largest time."""
    times = [row.least for row in rows if row.skipped is None]
    return 10 ** math.floor(math.log10(min(times, default=1e-3) / 1.5)), max(times, default=1.0)


def _bars(axes: Any, rows: Sequence[Row], left: float, longest: float) -> None:
    """Draw a bar for each row, grouped by algorithm, on a logarithmic scale."""
    axes.set_xscale("log")
    axes.set_xlim(left, longest * (longest / left) ** 0.35)  # room for the longest bar's label
    at = 0.0
    ticks: dict[str, list[float]] = {}
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None:
            at += 1.0 if before.algorithm == row.algorithm else 1.55
        ticks.setdefault(row.algorithm, []).append(at)
        if row.skipped is not None:
            axes.text(left, at, "  " + row.skipped, va="center", fontsize=8.5, color=_FAINT, style="italic")
            continue
        axes.barh(at, row.least - left, left=left, height=0.88, color=_COLORS[row.backend])
        faster = speed_up(row, rows)
        label = f" {seconds(row.least)}"
        if row.backend != "numpy" and not math.isnan(faster):
            label += f"   {faster:.0f}×" if faster >= 10 else f"   {faster:.2g}×"
        axes.text(row.least, at, label, va="center", fontsize=10, color=_INK)
    axes.set_yticks([sum(places) / len(places) for places in ticks.values()], list(ticks), fontsize=11)
    axes.set_ylim(at + 0.7, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", which="both", colors=_FAINT, labelsize=8.5)
    axes.xaxis.set_major_formatter(lambda value, _: seconds(value * (1 + 1e-9)) if value <= longest else "")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.grid(axis="x", color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#cccccc")

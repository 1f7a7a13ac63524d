"""Turn the JSON of a benchmark run into the README's table of JIT against NumPy, and a plot.

``pytest bench --benchmark-json BENCH.json && python bench/report.py BENCH.json README.md``

The table is put into the README between its markers, ``<!-- bench -->`` and ``<!-- /bench -->``. Nothing in it is
written by hand: every figure comes from the one run that the JSON tells of, and is the least time of each contestant.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npconv.table import percent, seconds

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
FIRST = "<!-- first -->", "<!-- /first -->"
TEXTBOOK = ("loop", "flatten", "im2col")
FASTEST = "fastest"
COLORS = {"loop": "#8e6bbf", "flatten": "#3fa0a0", "im2col": "#f2a33a", FASTEST: "#c94f4f"}


@dataclass(frozen=True)
class Line:
    """An algorithm on one problem, or the fastest of them, by its `column`: what NumPy and what Numba took."""

    problem: str
    name: str
    column: str
    algorithm: str
    numpy: float
    numba: float
    gflops: float
    share: float

    @property
    def times(self) -> float:
        """How many times faster Numba's version is; NaN where NumPy's was left out."""
        return self.numpy / self.numba


def lines(run: dict[str, Any]) -> list[Line]:
    """Return the lines of a run, problem by problem as they were run: the textbook's algorithms, and the fastest."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in run["benchmarks"]:
        extra = entry["extra_info"]
        if "problem" in extra:
            backends = found.setdefault(extra["problem"], {"numpy": {}, "numba": {}})
            backends[extra["backend"]][extra["algorithm"]] = extra | {"seconds": entry["stats"]["min"]}
    result = []
    for problem, backends in found.items():
        numpy, numba = ({name: extra["seconds"] for name, extra in some.items()} for some in backends.values())

        columns = [(name, name, numpy.get(name, math.nan)) for name in TEXTBOOK if name in numba]
        if numba:
            columns.append((FASTEST, min(numba, key=numba.__getitem__), min(numpy.values(), default=math.nan)))
        for column, algorithm, other in columns:
            extra = backends["numba"][algorithm]
            share = math.nan if extra["share_of_peak"] is None else extra["share_of_peak"]
            result.append(
                Line(problem, extra["name"], column, algorithm, other, extra["seconds"], extra["gflops"], share)
            )
    return result


def table(rows: list[Line]) -> str:
    """Return the lines as a Markdown table, a row a problem."""
    columns = list(dict.fromkeys(line.column for line in rows))
    text = [f"| NumPy → Numba | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for problem in dict.fromkeys(line.problem for line in rows):
        here = {line.column: line for line in rows if line.problem == problem}
        cells = [_cell(here[name]) if name in here else "" for name in columns]
        name = next(iter(here.values())).name
        text.append(f"| {name if name == problem else f'{name}<br>`{problem}`'} | {' | '.join(cells)} |")
    return "\n".join(text)


def _cell(line: Line) -> str:
    numpy = "(left out)" if math.isnan(line.times) else seconds(line.numpy)
    text = f"{numpy} → {seconds(line.numba)}"
    if line.column == FASTEST:
        share = "" if math.isnan(line.share) else f", {percent(line.share)} of peak"
        text = f"{line.algorithm}: {text}, {line.gflops:.3g} GFLOP/s{share}"
    return text if math.isnan(line.times) else f"{text}<br>**{faster(line.times)}**"


def faster(times: float) -> str:
    """Write how many times faster something is."""
    return f"{times:,.0f}×" if times >= 10 else f"{times:.2g}×"


def first_calls(run: dict[str, Any]) -> str:
    """Return what first calls take, as a Markdown table, or nothing if that was not measured."""
    found = {e["extra_info"]["what"]: e["stats"]["min"] for e in run["benchmarks"] if "what" in e["extra_info"]}
    rows = [f"| {what} | {seconds(least)} |" for what, least in found.items()]
    return "\n".join(["| first calls | |", "| --- | ---: |", *rows]) if rows else ""


def machine(run: dict[str, Any]) -> str:
    """Return a sentence about the machine."""
    facts = run["machine_info"]
    ours = facts["npconv"]
    peak = run["peak_gflops"]
    told = f"{facts['cpu'].get('brand_raw', 'a CPU')}, {ours.get('cpu', facts['machine'])}, {ours['threads']} threads"
    if peak is not None:
        told += f", which reach a peak of {peak:.3g} GFLOP/s (measured)"
    versions = f"Python {facts['python_version']}, NumPy {ours['numpy']}, Numba {ours['numba']}"
    return f"{told}; {versions}; {run['datetime'][:10]}."


def plot(rows: list[Line], path: Path, about: str) -> None:
    """Draw how many times faster Numba's versions are, and their share of the peak."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    problems = list(dict.fromkeys(line.name for line in rows))
    columns = list(dict.fromkeys(line.column for line in rows))
    step = 0.8 / len(columns)
    figure: Any = Figure(figsize=(13, 1.7 + 0.75 * len(problems)), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
    for number, column in enumerate(columns):
        color = COLORS[column]
        for line in (line for line in rows if line.column == column):
            at = problems.index(line.name) + (number - (len(columns) - 1) / 2) * step
            if math.isnan(line.times):
                left.text(1.04, at, "NumPy's left out", va="center", fontsize=8, color="#888888", style="italic")
            else:
                wins = line.times >= 1
                left.barh(at, line.times - 1, left=1, height=step * 0.9, color=color, alpha=1 if wins else 0.45)
                left.annotate(
                    faster(line.times), (line.times, at), (4 if wins else -4, 0), textcoords="offset points",
                    va="center", ha="left" if wins else "right", fontsize=8.5, color="#222222",
                )  # fmt: skip
            if not math.isnan(line.share):
                right.barh(at, 100 * line.share, height=step * 0.9, color=color)
                label = f"{percent(line.share)}   {line.gflops:.3g} GFLOP/s"
                right.annotate(
                    label, (100 * line.share, at), (4, 0), textcoords="offset points", va="center", fontsize=8.5,
                    color="#222222",
                )  # fmt: skip
        left.barh(0, 0, color=color, label=column)
    known = [line.times for line in rows if not math.isnan(line.times)] or [1.0]
    left.set_xscale("log")
    left.set_xlim(min(0.3, min(known) / 3), max(10, max(known) * 3))
    left.axvline(1, color="#888888", linewidth=1)
    left.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    left.set_title("times faster than NumPy's version", loc="left", fontsize=11)
    right.set_title("Numba's share of this machine's peak", loc="left", fontsize=11)
    right.set_xlim(0, 1.45 * max((100 * line.share for line in rows if not math.isnan(line.share)), default=100))
    right.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    left.set_yticks(range(len(problems)), problems, fontsize=10)
    left.set_ylim(len(problems) - 0.45, -0.55)
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", colors="#808080", labelsize=8.5)
        axes.grid(axis="x", color="#e6e6e6")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color("#cccccc")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper right", ncols=len(columns), frameon=False)
    figure.suptitle("The same algorithms in Numba and in NumPy", x=0.008, ha="left", fontsize=15, weight="bold")
    figure.supxlabel(about, x=0.008, ha="left", fontsize=8.5, color="#808080")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> int:
    """Read the run, draw the plot, put the table into the README."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="BENCH.json", help="what pytest bench --benchmark-json wrote")
    parser.add_argument("readme", type=Path, metavar="README.md", help="a file with the markers")
    parser.add_argument("--plot", type=Path, default=Path(__file__).with_name("jit_vs_numpy.png"), help="where to draw")
    parsed = parser.parse_args(arguments)
    run = json.loads(parsed.run.read_text(encoding="utf-8"))
    rows, first = lines(run), first_calls(run)
    if first and not put(parsed.readme, *FIRST, [machine(run), first]):
        return complain(f"{parsed.readme} has no place for the first calls: {FIRST[0]} and behind it {FIRST[1]}")
    if first and not rows:
        return 0
    if not rows:
        return complain(f"{parsed.run} has no times of Numba's algorithms; run pytest bench with --benchmark-json")
    picture = os.path.relpath(parsed.plot.resolve(), parsed.readme.resolve().parent).replace(os.sep, "/")
    parts = [
        f"![Times faster than NumPy, and share of peak]({picture})",
        machine(run),
        table(rows),
    ]
    if not put(parsed.readme, BEGIN, END, parts):
        return complain(f"{parsed.readme} has no place for the table: {BEGIN} and behind it {END}")
    plot(rows, parsed.plot, machine(run))
    return 0


def put(path: Path, begin: str, end: str, parts: Sequence[str]) -> bool:
    """Write paragraphs, the empty ones left out, between a file's two markers; tell whether it has them."""
    text = path.read_text(encoding="utf-8")
    if not 0 <= text.find(begin) < text.find(end):
        return False
    middle = "\n\n".join(part for part in parts if part)
    before, after = text[: text.find(begin) + len(begin)], text[text.find(end) :]
    path.write_text(f"{before}\n{middle}\n{after}", encoding="utf-8")
    return True


def complain(message: str) -> int:
    """Say on the error output what is wrong; return the exit status that goes with it."""
    print(f"report: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

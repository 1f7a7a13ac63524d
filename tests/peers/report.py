"""Turn the JSON of a run beside the peers into Markdown tables, a table a group.

``pytest tests/peers --benchmark-json PEERS.json && python tests/peers/report.py PEERS.json README.md``

Without a README the tables are printed; with one they are put between its markers, ``<!-- peers -->`` and
``<!-- /peers -->``; of drawn layers (``--peers-drawn``) it is a summary, between ``<!-- drawn -->`` and
``<!-- /drawn -->``. Every figure comes from the one run, and is the least time of each contestant.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # for this is run as a program, from anywhere

from bench.report import complain, machine, put
from npconv.table import percent, seconds

BEGIN, END = "<!-- peers -->", "<!-- /peers -->"
BEGIN_DRAWN, END_DRAWN = "<!-- drawn -->", "<!-- /drawn -->"
BEFORE = "× npconv, before"
DRAWN = "Drawn "
"""How titles of drawn layers begin, whose names begin with that of a class and a colon."""

NOT_THERE = "–"

DISTURBED = 0.1
"""Cores that other programs may have had on average while a row was measured; over that, the report says so."""


@dataclass(frozen=True)
class Row:
    """A layer in a group: who took how long, in seconds, and how many times faster npconv was, by the ratio's title."""

    layer: str
    names: list[str]
    least: dict[str, float]
    left_out: dict[str, str]
    ratios: dict[str, float]
    gflops: float
    share: float
    taken: float


def groups(run: dict[str, Any]) -> dict[tuple[str, str, int], list[Row]]:
    """Return the rows of each group, which are those of a title, a dtype and a number of threads, as they were run."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for entry in run["benchmarks"]:
        extra = entry["extra_info"]
        if "ratios" in extra:
            found.setdefault((extra["title"], extra["dtype"], extra["threads"]), []).append(_row(extra))
    return found


def _row(extra: dict[str, Any]) -> Row:
    least = {name: min(times) for name, times in extra["contestants"].items() if times}
    ratios = {}
    for title, of, to in extra["ratios"]:
        present = [least[name] for name in to if name in least]
        ratios[title] = min(present) / least[of] if present else math.nan
    gflops = extra["operations"] / next(iter(least.values())) / 1e9
    peak = extra["peak_gflops"]
    share = gflops / peak if peak else math.nan
    return Row(
        extra["layer"], list(extra["contestants"]), least, extra["left_out"], ratios, gflops, share,
        extra["cores_taken_by_others"] or 0.0,
    )  # fmt: skip


def table(rows: list[Row]) -> str:
    """Return a group's rows as a Markdown table, whose last line has geometric means. Losses are in bold."""
    names = _union(row.names for row in rows)
    titles = _union(row.ratios for row in rows)
    lines = [
        f"| | {' | '.join(names)} | {' | '.join(titles)} | of peak |",
        f"| --- |{' ---: |' * (len(names) + len(titles) + 1)}",
    ]
    for row in rows:
        cells = [seconds(row.least[name]) if name in row.least else NOT_THERE for name in names]
        cells += [ratio(row.ratios.get(title, math.nan)) for title in titles]
        share = NOT_THERE if math.isnan(row.share) else percent(row.share)
        lines.append(f"| {row.layer} | {' | '.join(cells)} | {share} |")
    if len(rows) > 1:
        means = [mean([row.ratios.get(title, math.nan) for row in rows]) for title in titles]
        lines.append(f"| geometric mean |{' |' * len(names)} {' | '.join(means)} | |")
    return "\n".join(lines)


def _union(several: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for some in several for name in some))


def ratio(times: float) -> str:
    """Write how many times faster npconv was, in bold where it was slower."""
    if math.isnan(times):
        return NOT_THERE
    # Rounded to the losing side, so that what says 1.00 is no loss.
    text = f"{math.floor(100 * times) / 100:.2f}×"
    return f"**{text}**" if times < 1 else text


def mean(ratios: list[float]) -> str:
    """Write the geometric mean of the ratios that there are, and how many of them are losses."""
    known = [value for value in ratios if not math.isnan(value)]
    if not known:
        return NOT_THERE
    losses = sum(value < 1 for value in known)
    return f"{ratio(statistics.geometric_mean(known))}, {losses} of {len(known)} lost"


def left_out(rows: list[Row]) -> str:
    """Return a sentence about who was left out where, and why; nothing if nobody was."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, reason in row.left_out.items():
            reasons.setdefault((name, reason), []).append(row.layer)
    told = [
        f"{name} ({'everywhere' if len(layers) == len(rows) else ', '.join(layers)}: {reason})"
        for (name, reason), layers in reasons.items()
    ]
    return f"Left out: {'; '.join(told)}." if told else ""


def disturbed(rows: list[Row]) -> str:
    """Return a sentence about the rows that other programs disturbed; nothing if none was."""
    told = [f"{row.layer} ({row.taken:.2g} of a core)" for row in rows if row.taken > DISTURBED]
    return f"Not to be trusted, for other programs ran at the same time: {', '.join(told)}." if told else ""


def about(run: dict[str, Any]) -> str:
    """Return a sentence about the machine and the peers."""
    peers = run["machine_info"]["peers"]
    there = ", ".join(f"{name} {version}" for name, version in peers.items() if version)
    missing = ", ".join(name for name, version in peers.items() if not version)
    told = f"{machine(run).removesuffix('.')}; {there}"
    return f"{told}; not installed, and so left out: {missing}." if missing else f"{told}."


def summary(run: dict[str, Any]) -> list[str]:
    """Return a table of drawn layers: of each class, how many times faster npconv was than the fastest, in each way."""
    drawn = {title: rows for (title, _, _), rows in groups(run).items() if title.startswith(DRAWN)}
    if not drawn:
        return []
    found: dict[str, dict[str, list[float]]] = {}
    for title, rows in drawn.items():
        for row in rows:
            ways = found.setdefault(row.layer.partition(":")[0], {})
            ways.setdefault(title, []).append(next(iter(row.ratios.values())))
    names = [title.removeprefix(DRAWN) for title in drawn]
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for kind, ways in found.items():
        lines.append(f"| {kind} | {' | '.join(mean(ways.get(title, [])) for title in drawn)} |")
    every = [[next(iter(row.ratios.values())) for row in rows] for rows in drawn.values()]
    lines.append(f"| all | {' | '.join(map(mean, every))} |")
    before = [mean([row.ratios.get(BEFORE, math.nan) for row in rows]) for rows in drawn.values()]
    if set(before) != {NOT_THERE}:
        lines.append(f"| beside npconv before | {' | '.join(before)} |")
    worst = [min(rows, key=lambda row: next(iter(row.ratios.values()))) for rows in drawn.values()]
    least = "; ".join(
        f"{name} {ratio(next(iter(row.ratios.values())))} ({row.layer.partition(': ')[2]})"
        for name, row in zip(names, worst, strict=True)
    )
    return [about(run), "\n".join(lines), f"The worst of each: {least}."]


def paragraphs(run: dict[str, Any], drawn: bool = True) -> list[str]:
    """Return the run as Markdown: the machine, and for each group a title, its table, and who was left out."""
    parts = [about(run)]
    for (title, dtype, threads), rows in groups(run).items():
        if title.startswith(DRAWN) and not drawn:
            continue
        many = "1 thread" if threads == 1 else f"{threads} threads"
        parts += [f"**{title}** ({many}, {dtype})", table(rows), left_out(rows), disturbed(rows)]
    return [part for part in parts if part]


def main(arguments: list[str] | None = None) -> int:
    """Read the run, print its tables or put them into the README."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="PEERS.json", help="what pytest tests/peers --benchmark-json wrote")
    parser.add_argument("readme", type=Path, nargs="?", metavar="README.md", help="a file with the two markers")
    parsed = parser.parse_args(arguments)
    run = json.loads(parsed.run.read_text(encoding="utf-8"))
    if not groups(run):
        return complain(f"{parsed.run} has no times of peers; run pytest tests/peers with --benchmark-json")
    if parsed.readme is None:
        sys.stdout.reconfigure(encoding="utf-8")
        print("\n\n".join(paragraphs(run) + summary(run)[1:]))
        return 0
    for begin, end, parts in (
        (BEGIN, END, paragraphs(run, drawn=False)),
        (BEGIN_DRAWN, END_DRAWN, summary(run)),
    ):
        if len(parts) > 1 and not put(parsed.readme, begin, end, parts):
            return complain(f"{parsed.readme} has no place for the tables: {begin} and behind it {end}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

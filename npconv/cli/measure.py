"""How ``compare`` and the benchmarks measure: each contestant's first call, and then all of them in turn.

How turns are taken, `npconv.timing` tells. Memory is measured in a call of its own.
"""

from __future__ import annotations

import statistics
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import npconv
from npconv import backends, timing
from npconv.cli import reference
from npconv.cli.tasks import Task
from npconv.registry import names
from npconv.table import quantity, seconds

MEMORY_LIMIT = 2**32
"""Bytes of workspace over which a contestant is left out."""


@dataclass
class Row(timing.Contestant):
    """A contestant that may be left out, and what else was measured of it; NaN is what was not.

    `textbook` tells which bound the result is held to: `reference.STRICT`, or else `reference.DEFAULT`.
    """

    skipped: str | None
    workspace: int
    textbook: bool = True
    memory: int = 0
    memory_is_planned: bool = False
    error: float = float("nan")
    error_of_bound: float = float("nan")

    @property
    def median(self) -> float:
        """The median time of a call."""
        return statistics.median(self.times) if self.times else float("nan")

    @property
    def accurate(self) -> bool:
        """Whether each element of the result is as near the reference as npconv promises."""
        return self.skipped is not None or self.error_of_bound <= 1


def available(wanted: Sequence[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Return the backends that run here, in order, and of the others why they do not, all in one line."""
    reasons = {name: backends.missing(name) for name in backends.NAMES if wanted is None or name in wanted}
    absent = {name: " ".join(reason.split()) for name, reason in reasons.items() if reason is not None}
    return [name for name in reasons if name not in absent], absent


def contestants(task: Task, on: Sequence[str], algorithms: Sequence[str] | None, budget: float) -> list[Row]:
    """Return a row for each algorithm of each backend, the textbook's first; those that are left out say why.

    Parameters
    ----------
    task : Task
        What is to be computed.
    on : sequence of str
        The backends.
    algorithms : sequence of str or None
        Only these algorithms; None is all.
    budget : float
        Seconds; an algorithm whose call should take longer is left out, as is one that refuses the task.
    """
    rows = []
    for backend in on:
        refusals = task.explain(backend).refusals
        for entry in npconv.algorithms(backend):
            if algorithms is not None and entry.name not in algorithms:
                continue
            refusal = refusals.get((backend, entry.name))
            if refusal is not None:
                rows.append(Row(backend, entry.name, float("nan"), f"left out: {refusal}", 0))
                continue
            plan, skipped = task.explain(backend, entry.name), None
            if plan.seconds > budget:
                skipped = f"left out: about {seconds(plan.seconds)} a call"
            elif plan.workspace > MEMORY_LIMIT:
                skipped = f"left out: {quantity(plan.workspace, 'B')} of workspace"
            rows.append(Row(backend, entry.name, plan.seconds, skipped, plan.workspace, entry.engine is None))
    slow_first = names()[::-1]
    return sorted(rows, key=lambda row: (slow_first.index(row.algorithm), backends.NAMES.index(row.backend)))


def prepared(task: Task, row: Row) -> Callable[[], Any]:
    """Return the call of a contestant. On a GPU the arrays are there already, and the call waits for the result."""
    function = getattr(npconv, task.function)
    options = {**task.options, "backend": row.backend, "algorithm": row.algorithm}
    if row.backend != "cuda":
        return lambda: function(task.input, task.weight, **options)
    from numba import cuda

    x, weight = cuda.to_device(task.input), cuda.to_device(task.weight)

    def on_device() -> Any:
        result = function(x, weight, **options)
        cuda.synchronize()
        return result

    return on_device


def memory(row: Row, call: Callable[[], Any], result_bytes: int) -> None:
    """Note the most bytes that a call has allocated at a time, its result included.

    Compiled code's own panels, some kB a thread, are not seen. On a GPU, and where a call takes too long to be made
    again, the planned workspace stands in.
    """
    if row.backend == "cuda" or row.is_slow:
        row.memory, row.memory_is_planned = row.workspace + result_bytes, True
        return
    tracemalloc.start()
    try:
        result = call()
        row.memory = tracemalloc.get_traced_memory()[1]
        del result
    finally:
        tracemalloc.stop()


def check(row: Row, result: np.ndarray, exact: np.ndarray, bound: np.ndarray | float) -> None:
    """Note the largest error of a result, and the largest share of its element's bound that an error takes up."""
    if result.shape != exact.shape:
        row.error = row.error_of_bound = float("inf")
        return
    error = np.abs(result - exact)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0, 0.0, error / bound)  # a NaN stays one
    row.error, row.error_of_bound = float(error.max(initial=0.0)), float(share.max(initial=0.0))


def race(
    task: Task,
    rows: Sequence[Row],
    rounds: int,
    between: Callable[[], object] = lambda: None,
    done: Callable[[str], object] = lambda what: None,
) -> np.ndarray | None:
    """Measure the contestants that are not left out, check their results, and return one of these.

    Parameters
    ----------
    task : Task
        What is computed.
    rows : sequence of Row
        The contestants, which are filled in.
    rounds : int
        Turns that each has, at most.
    between : callable, optional
        Called before each round.
    done : callable, optional
        Called with the name of what comes next, before each of ``steps(rows, rounds)`` steps.
    """
    running = [(row, prepared(task, row)) for row in rows if row.skipped is None]
    result = None
    done("the reference in float64")
    exact = reference.convolve(task.input, task.weight, **task.options)
    strict, default = reference.error_bounds(task.input, task.weight, **task.options)
    for row, call in running:
        about = f", about {seconds(row.expected)}" if row.expected > 1 else ""
        done(f"{row.algorithm} on {row.backend}: first call{about}")
        result = row.begin(call)
        if row.backend == "cuda":
            result = result.copy_to_host()
        check(row, result, exact, strict if row.textbook else default)
        memory(row, call, result.nbytes)
    for number in range(rounds):
        between()
        for row, call in running:
            done(f"{row.algorithm} on {row.backend}: round {number + 1} of {rounds}")
            row.take_turn(call)
    return result


def steps(rows: Sequence[Row], rounds: int) -> int:
    """Return how many steps `race` takes."""
    return 1 + (1 + rounds) * sum(row.skipped is None for row in rows)

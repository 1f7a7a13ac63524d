"""How the algorithms there are stand to a problem: which take it, how long they should take, and in how much room.

It needs no array. `npconv.plan.choose` picks one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from npconv import backends, complex_parts, registry, winners
from npconv.choice import Choice
from npconv.kernels.numba.blocking import engine_limit
from npconv.problem import ConvProblem
from npconv.registry import Algorithm


@dataclass(frozen=True)
class Candidate:
    """An algorithm and how it stands to a problem."""

    algorithm: Algorithm
    refusal: str | None
    seconds: float
    workspace: int
    measured: float | None = None
    """Seconds that `npconv.tune` has measured, if it has."""

    threads: int = 1
    """How many threads it would run in: fewer than there are where the workspace of all would be too much."""


def computed(algorithm: Algorithm, problem: ConvProblem) -> ConvProblem:
    """Return a problem as an algorithm computes it.

    Engines: without taps that meet nothing, if they take it so, and complex numbers as real ones.
    """
    if in_parts(algorithm, problem):
        problem = complex_parts.of(problem)
    met = problem.met
    if algorithm.engine is None or met is problem or algorithm.refuse(met) is not None:
        return problem
    return met


def in_parts(algorithm: Algorithm, problem: ConvProblem) -> bool:
    """Whether an algorithm computes complex numbers as real and imaginary parts: engines do."""
    return algorithm.engine is not None and problem.compute_dtype.kind == "c"


def refusal(algorithm: Algorithm, problem: ConvProblem, precision: str) -> str | None:
    """Return why an algorithm does not take a problem, None if it does."""
    if precision == "strict" and not algorithm.direct:
        return "it transforms its data, which precision 'strict' rules out"
    if problem.up and not algorithm.spaced:
        return "it takes no zeros between elements"
    refused = algorithm.refuse(computed(algorithm, problem))
    if refused is None and in_parts(algorithm, problem):
        return complex_parts.refuse(problem, algorithm.direct, precision == "strict")
    return refused


def considered(choice: Choice) -> list[Algorithm]:
    """Return all algorithms of the backends to choose from."""
    if choice.backend == "auto":
        names = backends.cpu_backends()
    else:
        backends.require(choice.backend)
        names = (choice.backend,)
    return [algorithm for name in names for algorithm in registry.candidates(name)]


def candidates(problem: ConvProblem, choice: Choice, algorithms: Iterable[Algorithm] | None = None) -> list[Candidate]:
    """Return how algorithms stand to a problem: all of the backends to choose from, or those that are given."""
    times = winners.times(problem, choice) if choice.algorithm == "auto" and choice.tuned else {}

    def standing(algorithm: Algorithm) -> Candidate:
        refused = refusal(algorithm, problem, choice.precision)
        if refused is not None:  # what it would take need not make sense
            return Candidate(algorithm, refused, math.inf, 0)
        threads, workspace = _fitting(algorithm, problem, choice)
        seconds = algorithm.cost.seconds(computed(algorithm, problem), threads, choice.packed)
        if in_parts(algorithm, problem):
            seconds = complex_parts.seconds(problem, seconds, choice.packed)
        measured = times.get((algorithm.backend, algorithm.name))
        return Candidate(algorithm, None, seconds, workspace, measured, threads)

    return [standing(algorithm) for algorithm in (considered(choice) if algorithms is None else algorithms)]


def _fitting(algorithm: Algorithm, problem: ConvProblem, choice: Choice) -> tuple[int, int]:
    """Return how many of the threads an algorithm can have within its limit of workspace, and what these take.

    All, if none could. Small results would not do for many threads otherwise: 64 channels at 56² for 16, whom `im2col`
    gives 505 µs, and Winograd's tiles 113 to 160.
    """
    met = computed(algorithm, problem)
    others = complex_parts.copied(problem, choice.packed) if in_parts(algorithm, problem) else 0

    def workspace(threads: int) -> int:
        return algorithm.cost.workspace(met, threads, choice.packed) + others

    for threads in range(choice.threads, 0, -1):
        if algorithm.within_limit(problem, workspace(threads)):
            return threads, workspace(threads)
    return choice.threads, workspace(choice.threads)


def modest(problem: ConvProblem, able: list[Candidate]) -> list[Candidate]:
    """Return those that are within their limit of workspace; if there is none, the one that needs least.

    Where an engine is, all must be within the engines' limit, or, where that is too little for any of them, within what
    the most modest one needs; of complex numbers, which all can, the most modest of all.
    """
    if any(c.algorithm.engine for c in able):
        needed = [c.workspace for c in able if c.algorithm.engine or problem.compute_dtype.kind == "c"]
        limit = max(engine_limit(problem), min(needed))
        return [c for c in able if c.workspace <= limit]
    within = [c for c in able if c.algorithm.within_limit(problem, c.workspace)]
    return within or [min(able, key=lambda c: c.workspace)]

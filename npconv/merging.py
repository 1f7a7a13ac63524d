"""Phases of a transposed convolution that are computed in one pass, because they fill the same rows.

Those of stride 2 (`npconv.kernels.numba.planes`), of depthwise convolutions all of them
(`npconv.kernels.numba.spread`); and patches of two elements along a row, which are written where they belong
(`npconv.kernels.numba.pairs`, or `npconv.kernels.numba.strassen_merged`).
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from npconv import loading, phasing
from npconv.choice import Choice
from npconv.kernels import host, packed
from npconv.kernels.numba.blocking import engine_limit
from npconv.plan import Plan, choose
from npconv.problem import ConvProblem


def together(steps: list[phasing.Step]) -> list[list[phasing.Step]]:
    """Return the steps that `merge` is asked for together: phases that fill the same rows; patches one by one."""
    if steps and steps[0].patch:
        return [[step] for step in steps]
    return [list(those) for _, those in itertools.groupby(steps, key=lambda step: step.begins[:-1])]


def is_even(problem: ConvProblem, found: list[phasing.Step]) -> bool:
    """Whether all contributions go to the pixels of even rows and columns."""
    if problem.stride != (1, 2, 2) or problem.taps > 1 or problem.activation:
        return False
    return [(at.start, at.step) for step in found for at in step.elements[1:]] == [(0, 1), (0, 2), (0, 2)]


class Merging(NamedTuple):
    """Some phases that are computed in one pass; of all at once, one step stands for them."""

    steps: list[phasing.Step]
    run: packed.Merged

    @property
    def algorithm(self) -> str:
        """The name of the algorithm that does so."""
        return getattr(self.run.engine, "algorithm", "planes")

    def workspace(self, packed: bool) -> int:
        """Return how many bytes it works in, and those of the weights, if these are not ``packed`` once."""
        return self.run.bytes + (0 if packed else sum(problem.weight_bytes for problem in self.run.problems))

    def packed(self, weight: np.ndarray, bias: np.ndarray | None, workspace: host.Workspace | None) -> Any:
        """Return weight and bias in the order of the kernel; a workspace keeps them."""

        def pack() -> Any:
            taps = [step.taps_of(weight) for step in self.steps]
            return self.run.pack(taps if workspace is None else list(map(np.ascontiguousarray, taps)), bias)

        key = "merged", self.run.engine, self.steps[0].forward.compute_dtype, self.steps[0].begins
        return pack() if workspace is None else workspace.packed(key, pack)

    def of(self, out: np.ndarray) -> np.ndarray:
        """Return the rows of ``out`` that the phases belong to, or what patches fill."""
        elements = self.steps[0].elements
        return out[elements if self.steps[0].patch else (*elements[:-1], slice(None))]

    def __call__(self, grad_output: np.ndarray, numbers: Any, out: np.ndarray) -> bool:
        """Fill the rows of ``out`` that the phases belong to; False if it takes copies to do so."""
        filled = self.of(out)
        if not self.run(grad_output, numbers, filled):
            return False
        self.run.finish(filled)
        return True


_MERGED = {
    "auto": ("planes", "strassen", "direct", "grouped"),
    "planes": ("planes",),
    "strassen": ("strassen",),
}
"""The algorithms in whose place phases may be merged: those that do it, and if any may be taken, their like."""


def merge(
    steps: list[phasing.Step], choice: Choice, in_line: bool, whole: tuple[int, ...] | None = None
) -> Merging | None:
    """Return how phases of the even and of the odd elements of some rows are computed in one pass, if that is faster.

    If the ``whole`` result's rows and columns are told, there is one phase, and odd ones of them meet no tap. If
    ``in_line``, a row of the gradient goes on with the next; only so patches, of two elements along a row, are merged.
    """
    if not steps[0].patch:
        steps = sorted(steps, key=lambda step: step.elements[-1].start)
        places = [(step.elements[-1].start, step.elements[-1].step) for step in steps]
        if whole is None and places != [(0, 2), (1, 2)]:
            return None
    plans = [choose(step.forward, choice) for step in steps]
    for plan in plans:  # what was measured to be the fastest is taken as if it were named
        of_choice = choice.algorithm if plan.chosen.measured is None else plan.algorithm.name
        if plan.algorithm.name not in _MERGED.get(of_choice, ()) or plan.in_parts:
            return None
    forwards = tuple(plan.computed for plan in plans)
    if any(forward.among for forward in forwards):  # whose filters would have to be cut
        return None
    engine = _engine(forwards, steps[0].patch, _nearest(plans[0]), choice, in_line, whole)
    run = None if engine is None else _run(engine, forwards, choice.threads, in_line, whole[0] if whole else 0)
    return None if run is None else Merging(steps, run)


def _nearest(plan: Plan) -> str:
    """Return the algorithm that was chosen if it can merge, else the one that should be faster of those that can."""
    if plan.algorithm.name in _MERGED:
        return plan.algorithm.name
    able = [other for other in plan.candidates if other.refusal is None and other.algorithm.name in _MERGED]
    return min(able, key=lambda other: other.seconds).algorithm.name if able else plan.algorithm.name


def _engine(
    forwards: tuple[ConvProblem, ...], patch: tuple[int, ...], algorithm: str, choice: Choice, in_line: bool,
    whole: tuple[int, ...] | None,
) -> Any:  # fmt: skip
    """Return the engine that computes phases in one pass, or patches, or None."""
    if algorithm == "strassen" and in_line and len(forwards) == 1:
        quarters = loading.module("npconv.kernels.numba.strassen_merged")
        engine = quarters.engine_for(forwards[0], patch, whole, choice.threads, plain=not choice.packed)
        if engine is not None:
            return engine
    if choice.algorithm == "strassen":  # and no other
        return None
    if patch:
        pairs = loading.module("npconv.kernels.numba.pairs")
        return pairs.Patches(patch) if in_line and pairs.takes(forwards[0], patch) else None
    planes = loading.module("npconv.kernels.numba.planes")
    return planes if planes.takes_all(forwards) else None


@lru_cache(maxsize=1024)
def _run(
    engine: Any, forwards: tuple[ConvProblem, ...], threads: int, in_line: bool, all_rows: int
) -> packed.Merged | None:
    """Return the pass of as many threads as keep within the engines' limit of workspace, None if one does not."""
    for number in range(threads, 0, -1):
        run = packed.Merged(engine, forwards, number, in_line, all_rows)
        if run.bytes <= engine_limit(*forwards):
            return run
    return None


def merge_all(problem: ConvProblem, steps: list[phasing.Step], choice: Choice) -> Merging | None:
    """Return how all phases are computed at once, if all are depthwise and there is a kernel for them, or None."""
    if problem.groups == 1 or problem.stride[2] != 2:
        return None
    plans = [choose(step.forward, choice) for step in steps]
    if any(plan.algorithm.name != "depthwise" or plan.in_parts for plan in plans):
        return None
    spread = loading.module("npconv.kernels.numba.spread")
    run = _run(spread, (problem,), choice.threads, False, 0) if spread.takes(problem) else None
    whole = phasing.Step(phasing.last_axes(*(slice(None),) * 3), (...,), (), steps[0].forward)
    return None if run is None else Merging([whole], run)

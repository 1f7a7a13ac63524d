"""Which convolutions a transposed one runs as: its phases, patches, or one with zeros between elements.

Phases of one tap each are one product of matrices (`npconv.patches`). One convolution with zeros between elements is
taken where an algorithm computes no products with these (`npconv.kernels.filtering`), and is expected to be faster.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from npconv import merging, patches, phasing, recall
from npconv.choice import Choice
from npconv.plan import choose
from npconv.problem import ConvProblem

APART = 1.5
"""How much longer phases take than is expected of their convolutions, because they write pixels that lie apart."""


MERGED, FEW, PIXELS = (1.05, 1.25), 8, 64
"""How much longer if they are merged, with few filters and with more; and pixels of a phase that a task has then. (By
60 gradients; 16 → 672 at 158² were so computed in 10.9 ms, as was expected to take 6.4, and by `winograd4` in 6.5.)"""


ORDER, PHASE, WRITE = 1e-9, 5e-5, 2e-9
"""Seconds to put a number of a weight in order that is cut into taps, to begin with a phase of few elements, and to
write one, which lie apart."""


@recall.until_forgotten
@lru_cache(maxsize=1024)
def steps(problem: ConvProblem, choice: Choice, in_place: bool = True) -> tuple[list[phasing.Step], bool]:
    """Return the convolutions that a canonical problem runs as, and whether they reach all elements of the input.

    If ``in_place``, arrays are such as `may_be_in_place` tells, and lie in C order. What was measured of one form tells
    nothing of another, of which nothing may have been: each is what it is expected to be.
    """
    choice = replace(choice, tuned=False)
    found = list(phasing.phases(problem))
    all_steps = phasing.steps_of(found)
    whole = phasing.spaced(problem)
    if whole is not None and _faster(problem, whole, all_steps, choice):
        return [phasing.Step(phasing.last_axes(*(slice(None),) * 3), (...,), (), whole)], True
    reached = sum(math.prod(part.length for part in parts) for parts, _ in found) == math.prod(problem.input_size)
    made = patches.forward(problem)
    if made is not None:
        in_patches = phasing.patches_of(made, problem.kernel_size)
        if (in_place and written(in_patches, choice)) or _faster_in_patches(problem, made, all_steps, choice):
            return in_patches, made.batch * made.out_channels * made.positions == math.prod(problem.input_shape)
    return all_steps, reached


class Pass(NamedTuple):
    """Phases that are computed together, or patches of some images, or the one convolution that there is."""

    steps: list[phasing.Step]
    merged: merging.Merging | None
    """How one kernel computes them, from such arrays as it takes."""

    fills: bool = False
    """Whether that kernel fills elements that meet no tap, too."""

    @property
    def in_rows(self) -> bool:
        """Whether that kernel takes only results of whose rows the elements lie side by side."""
        return self.fills or bool(self.steps[0].patch) or self.steps[0].forward.groups > 1


@recall.until_forgotten
@lru_cache(maxsize=1024)
def passes(problem: ConvProblem, choice: Choice, in_line: bool, in_place: bool = True) -> tuple[list[Pass], bool]:
    """Return how the convolutions of `steps` are computed, and whether that fills all elements of the input.

    If ``in_line``, a row of the gradient goes on with the next, as those in C order do.
    """
    return passes_of(problem, *steps(problem, choice, in_place), choice, in_line)


def passes_of(
    problem: ConvProblem, found: list[phasing.Step], reached: bool, choice: Choice, in_line: bool
) -> tuple[list[Pass], bool]:
    """Return the same of such convolutions as `steps` returns."""
    if not reached and merging.is_even(problem, found):
        even = merging.merge(found, choice, in_line, whole=problem.input_size[1:])
        if even is not None:
            return [Pass(found, even, fills=True)], True
    spread = merging.merge_all(problem, found, choice) if reached else None
    if spread is not None:
        return [Pass(found, spread)], True
    return [Pass(some, merging.merge(some, choice, in_line)) for some in merging.together(found)], reached


def raced_together(
    problem: ConvProblem, found: list[phasing.Step], reached: bool, choice: Choice
) -> list[list[phasing.Step]]:
    """Return such convolutions as `steps` returns, those together that an algorithm may compute in one pass."""

    def merges(some: list[phasing.Step], name: str) -> bool:
        named = replace(choice, algorithm=name)
        try:
            made, _ = passes_of(problem, some, reached, named, in_line=True)
        except ValueError:  # it does not take them
            return False
        return len(made) == 1 and made[0].merged is not None

    if reached and len(found) > 1 and merges(found, "depthwise"):
        return [found]
    groups: list[list[phasing.Step]] = []
    for some in merging.together(found):
        one = any(merges(some, name) for name in ("planes", "strassen"))
        groups += [some] if one else [[step] for step in some]
    return groups


def instead(problem: ConvProblem, chosen: list[phasing.Step], choice: Choice) -> tuple[int, float] | None:
    """Return what else a canonical problem could run as, so many convolutions, and the seconds expected of them.

    Of one with zeros between elements, or where that is chosen the phases; None if there is none, or some are refused.
    """
    whole = phasing.spaced(problem)
    try:
        if any(step.forward.up for step in chosen):
            steps = phasing.steps_of(list(phasing.phases(problem)))
            return len(steps), _expected_of_phases(problem, steps, choice)
        return None if whole is None else (1, choose(whole, choice).seconds)
    except ValueError:
        return None


def _faster(problem: ConvProblem, whole: ConvProblem, steps: list[phasing.Step], choice: Choice) -> bool:
    """Whether a convolution with zeros between elements should be faster than the phases, if any algorithm takes it."""
    try:
        found = choose(whole, choice)
    except ValueError:  # the named algorithm takes none, or no algorithm does
        return False
    if choice.algorithm == "auto" and not found.modest:
        return False
    try:
        return found.seconds < _expected_of_phases(problem, steps, choice)
    except ValueError:  # the named algorithm does not take all phases
        return True


def _expected_of_phases(problem: ConvProblem, steps: list[phasing.Step], choice: Choice) -> float:
    """Return how many seconds the phases should take; ValueError if a named algorithm does not take all of them."""
    if all(merging.merge(some, choice, in_line=True) is not None for some in merging.together(steps)):
        alone = replace(choice, threads=1)  # threads share out what is too little for them phase by phase
        pixels = max(step.forward.positions for step in steps)
        tasks = problem.batch * problem.groups * -(-pixels // PIXELS)
        seconds = sum(choose(step.forward, alone).seconds for step in steps) / min(choice.threads, tasks)
        return seconds * MERGED[problem.in_channels // problem.groups > FEW]
    ordering = 0 if choice.packed or problem.taps == 1 else ORDER * problem.out_channels * problem.products
    return APART * sum(choose(step.forward, choice).seconds for step in steps) + ordering / choice.threads


def may_be_in_place(problem: ConvProblem) -> bool:
    """Whether patches could be written where they belong, if the result's rows lie in C order."""
    return problem.data_format == "channels_first" and problem.dtype == problem.compute_dtype.name


def written(steps: list[phasing.Step], choice: Choice) -> merging.Merging | None:
    """Return how patches are written where they belong, if these are such and the arrays allow it."""
    return merging.merge(steps[:1], choice, in_line=True) if steps and steps[0].patch else None


def _faster_in_patches(problem: ConvProblem, made: ConvProblem, steps: list[phasing.Step], choice: Choice) -> bool:
    """Whether patches should be faster than phases, for which the filters of each tap are put in order."""
    placing = patches.PLACE * made.batch * made.out_channels * made.positions
    ordering = 0 if choice.packed else ORDER * problem.out_channels * problem.products
    try:
        in_patches = choose(made, choice).seconds + placing
    except ValueError:  # the named algorithm does not take it
        return False
    try:
        if all(merging.merge(some, choice, in_line=True) is not None for some in merging.together(steps)):
            return placing < ordering  # else they take as long
        phases = sum(PHASE + choose(step.forward, choice).seconds for step in steps)
    except ValueError:  # it does not take all phases
        return True
    return in_patches < phases + WRITE * math.prod(problem.input_shape) + ordering

"""Gradients and transposed convolutions, each as convolutions.

The gradient of a convolution's input, which is the transposed convolution of the gradient of its result, and the
gradient of its weight are written down once, as forward convolutions of rearranged views. Whatever is fast for those
is fast for these.

Input, stride s and dilation d, per axis. The result's element o is made of input elements j = o s + t d (counted with
the padding), so j gets contributions from the taps t with t d ≡ j (mod s). All j of one residue modulo s form a
*phase*: their taps are t₀, t₀ + s/q, t₀ + 2 s/q, …, with q = gcd(s, d), and successive ones meet elements o that lie
d/q apart. A phase is a convolution of stride 1 and dilation d/q with the flipped taps, whose channels change places;
s phases fill the input. Those of stride 2 that fill the same rows may be computed in one pass
(`npconv.kernels.numba.planes`), and of depthwise convolutions all of them (`npconv.kernels.numba.spread`); those of one
tap each are one product of matrices (`npconv.patches`), two along a row with results where they belong
(`npconv.kernels.numba.pairs`). At the borders, elements beyond the result count as zeros.

The same is one convolution of stride 1 with the flipped taps, over the result with s - 1 zeros between its elements
(Dumoulin and Visin, *A guide to convolution arithmetic for deep learning* (2016), §4.6). Where an algorithm takes such
problems without computing products with these zeros (`npconv.kernels.filtering`), and faster than all phases, it runs
as that.

Weight. Each tap t is the sum over the batch and all o of grad[o] · input[o s + t d]: a convolution whose batch are the
channels, whose channels are the batch, whose stride is the dilation and whose dilation is the stride.

Complex numbers follow torch: gradients are those with respect to the conjugate, so that input and weight enter
conjugated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from npconv import backends, loading, patches, recall
from npconv.kernels import activation, host, packed
from npconv.kernels.numba.blocking import engine_limit
from npconv.plan import Choice, choose
from npconv.problem import ConvProblem, compute_dtype


class _Phase(NamedTuple):
    """The input elements of one residue on one axis, and the convolution that makes them."""

    elements: slice
    length: int
    taps: slice
    number: int  # of taps
    dilation: int
    padding: tuple[int, int]


def _phases(size: int, result: int, kernel: int, stride: int, dilation: int, before: int) -> Iterator[_Phase]:
    """Yield the phases of an axis of ``size`` elements, ``before`` more padded in front, and ``result`` elements.

    Only those that get a contribution: each begins with another tap, however large the stride is.
    """
    every, step = stride // math.gcd(stride, dilation), dilation // math.gcd(stride, dilation)
    for tap in range(min(kernel, every)):
        first = (tap * dilation - before) % stride
        if first >= size:
            continue
        count = (size - 1 - first) // stride + 1
        number = len(range(tap, kernel, every))
        last = (first + before - tap * dilation) // stride  # the result's element that meets the first tap and element
        start = last - (number - 1) * step
        if start < result and last + count > 0:
            elements = slice(first, first + (count - 1) * stride + 1, stride)
            yield _Phase(elements, count, slice(tap, None, every), number, step, (-start, last + count - result))


@np.errstate(all="ignore")  # as in `host.run`: overflow and NaN go through as IEEE arithmetic takes them
def input_gradient(
    problem: ConvProblem,
    weight: np.ndarray,
    grad_output: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    choice: Choice,
    workspace: host.Workspace | None = None,
) -> None:
    """Fill ``out``, of the shape of the problem's input, with the transposed convolution of ``grad_output``.

    Bias and activation of the problem are those of the transposed convolution. Arrays are the caller's; the weight of a
    complex convolution enters as it is given.
    """
    weight, grad_output, out = problem.canonical_weight(weight), problem.canonical(grad_output), problem.canonical(out)
    problem = problem.canonical_form()
    if problem.padding_mode == "zeros":
        _transposed(problem, weight, grad_output, bias, out, choice, workspace)
        return
    # The padding's elements are copies: their gradients belong to what they are copies of.
    padded = replace(
        problem,
        input_size=problem.padded_size,
        padding=((0, 0),) * 3,
        padding_mode="zeros",
        dtype=problem.compute_dtype.name,
    )
    gradient = np.empty(padded.input_shape, padded.dtype)
    _transposed(padded, weight, grad_output, None, gradient, choice)
    for axis, (n, pad) in enumerate(zip(problem.input_size, problem.padding, strict=True)):
        gradient = np.moveaxis(gradient, 2 + axis, 0)
        inside = gradient[pad[0] : pad[0] + n]
        for at, source in enumerate(host.padded_indices(n, pad, problem.padding_mode)):
            if not pad[0] <= at < pad[0] + n:
                inside[source] += gradient[at]
        gradient = np.moveaxis(inside, 0, 2 + axis)
    out[...] = gradient


def phases(problem: ConvProblem) -> Iterator[tuple[tuple[_Phase, ...], ConvProblem]]:
    """Yield the phases of a canonical, zero-padded problem that get a contribution, each with its convolution."""
    axes = map(
        _phases, problem.input_size, problem.output_size, problem.kernel_size, problem.stride, problem.dilation,
        (before for before, _ in problem.padding),
    )  # fmt: skip
    for parts in itertools.product(*axes):
        yield (
            parts,
            replace(
                problem,
                in_channels=problem.out_channels,
                out_channels=problem.in_channels,
                input_size=problem.output_size,
                kernel_size=tuple(part.number for part in parts),
                stride=(1, 1, 1),
                dilation=tuple(part.dilation for part in parts),
                padding=tuple(part.padding for part in parts),
                turned=True,
            ),
        )


def _transposed(
    problem: ConvProblem,
    weight: np.ndarray,
    grad_output: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    choice: Choice,
    workspace: host.Workspace | None = None,
    in_place: bool = True,
) -> None:
    """Fill the canonical ``out`` phase by phase; with patches ``in_place``, if the arrays allow it: see `steps`."""
    filters = swapped(problem, weight, choice)
    found, reached = steps(problem, choice, in_place)
    if not reached:
        if is_even(problem, found) and _merged(
            found, choice, filters, grad_output, bias, out, workspace, problem.input_size[1]
        ):
            return
        out[...] = constant(problem, bias)
    spread = in_one_pass(problem, found, choice) if reached else None
    if spread is not None and spread.run(problem, filters, grad_output, bias, out, choice.threads):
        return
    for some in together(found):
        if _merged(some, choice, filters, grad_output, bias, out, workspace):
            continue
        if found[0].patch:
            if in_place and are_in_place(found, choice):
                _transposed(problem, weight, grad_output, bias, out, choice, workspace, in_place=False)
            else:
                _in_patches(found, choice, filters, grad_output, bias, out, workspace)
            return
        for step in some:
            choose(step.forward, choice).run(
                grad_output, step.taps_of(filters), bias, out[step.elements], workspace, step.begins
            )


def _in_patches(
    found: list[Step],
    choice: Choice,
    weight: np.ndarray,
    grad_output: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    workspace: host.Workspace | None,
) -> None:
    """Fill ``out`` with patches, some images after the other."""
    if workspace is None and len(found) > 1:
        workspace = host.Workspace()  # so that the weight is packed once
    images, channels, *size = found[0].forward.result_shape
    room = np.empty((images, *size, channels), found[0].forward.dtype)
    if bias is not None:
        bias = np.repeat(bias, channels // out.shape[1])
    for step in found:
        plan, made = choose(step.forward, choice), room[: step.forward.batch]
        results = made.transpose(0, 4, 1, 2, 3)
        plan.run(grad_output[step.images], step.taps_of(weight), bias, results, workspace, step.begins)
        fast = plan.algorithm.engine is not None and room.dtype == step.forward.compute_dtype and not plan.in_parts
        patches.place(made, out[step.images], step.patch, fast)


def constant(problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
    """Return what elements are that meet no tap, where the stride is longer than the kernel."""
    numbers = np.zeros((1, problem.in_channels, 1, 1, 1), problem.compute_dtype)
    if bias is not None:
        numbers += bias[:, None, None, None]
    activation.apply(numbers, problem.activation)
    return numbers


def is_even(problem: ConvProblem, found: list[Step]) -> bool:
    """Whether all contributions go to the pixels of even rows and columns."""
    if problem.stride != (1, 2, 2) or problem.taps > 1 or problem.activation:
        return False
    return [(at.start, at.step) for step in found for at in step.elements[1:]] == [(0, 1), (0, 2), (0, 2)]


def together(steps: list[Step]) -> list[list[Step]]:
    """Return the steps that `merging` is asked for together: phases that fill the same rows; patches one by one."""
    if steps and steps[0].patch:
        return [[step] for step in steps]
    return [list(those) for _, those in itertools.groupby(steps, key=lambda step: step.begins[:-1])]


def _merged(
    steps: list[Step],
    choice: Choice,
    weight: np.ndarray,
    grad_output: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    workspace: host.Workspace | None,
    all_rows: int = 0,
) -> bool:
    """Compute phases in one pass, if `merging` finds one for them and these arrays."""
    dtype = steps[0].forward.compute_dtype
    if any(array.dtype != dtype or not array.flags.aligned for array in (weight, grad_output, out)):
        return False
    if (all_rows or steps[0].patch or steps[0].forward.groups > 1) and out.strides[-1] != dtype.itemsize:
        return False
    grad_output = grad_output[steps[0].images]
    found = merging(steps, choice, packed.in_line(grad_output), all_rows)
    return found is not None and found(grad_output, found.packed(weight, bias, workspace), out)


class Merging(NamedTuple):
    """Some phases that are computed in one pass."""

    steps: list[Step]
    run: packed.Merged

    def packed(self, weight: np.ndarray, bias: np.ndarray | None, workspace: host.Workspace | None) -> Any:
        """Return weight and bias in the order of the kernel; a workspace keeps them."""

        def pack() -> Any:
            taps = [step.taps_of(weight) for step in self.steps]
            return self.run.pack(taps if workspace is None else list(map(np.ascontiguousarray, taps)), bias)

        key = "merged", self.steps[0].forward.compute_dtype, self.steps[0].begins
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


def merging(steps: list[Step], choice: Choice, in_line: bool, all_rows: int = 0) -> Merging | None:
    """Return how phases of the even and of the odd elements of some rows are computed in one pass, if that is faster.

    If ``all_rows`` are told, there is one phase, and odd elements, and odd ones of so many rows, meet no tap. If
    ``in_line``, a row of the gradient goes on with the next; only so patches, of two elements along a row, are merged.
    """
    in_patches = bool(steps[0].patch)
    if not in_patches:
        steps = sorted(steps, key=lambda step: step.elements[-1].start)
        places = [(step.elements[-1].start, step.elements[-1].step) for step in steps]
        if not all_rows and places != [(0, 2), (1, 2)]:
            return None
    plans = [choose(step.forward, choice) for step in steps]
    anything = choice.algorithm == "auto"
    like = (*_MERGED[anything], *["strassen"] * (anything and in_patches))
    if any(plan.algorithm.name not in like or plan.in_parts for plan in plans):
        return None
    forwards = tuple(plan.computed for plan in plans)
    if any(forward.among for forward in forwards):  # whose filters would have to be cut
        return None
    if in_patches:
        pairs = loading.module("npconv.kernels.numba.pairs")
        engine = pairs.Patches(steps[0].patch) if in_line and pairs.takes(forwards[0], steps[0].patch) else None
    else:
        planes = loading.module("npconv.kernels.numba.planes")
        engine = planes if planes.takes_all(forwards) else None
    run = None if engine is None else _run(engine, forwards, choice.threads, in_line, all_rows)
    return None if run is None else Merging(steps, run)


_MERGED = {False: ("planes",), True: ("planes", "direct", "grouped")}
"""The algorithms in whose place phases may be merged: the one that does it, and if any may be taken, its like."""


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


def swapped(problem: ConvProblem, weight: np.ndarray, choice: Choice) -> np.ndarray:
    """View a canonical problem's weight (K, C/groups, ...) as (C, K/groups, ...), or copy it so."""
    filters, channels = problem.out_channels // problem.groups, problem.in_channels // problem.groups
    if problem.groups > 1 and min(filters, channels) > 1 and weight.flags.c_contiguous and weight.flags.aligned:
        plain = weight.dtype == problem.compute_dtype and weight.dtype.kind == "f"
        if plain and "numba" in (backends.cpu_backends() if choice.backend == "auto" else (choice.backend,)):
            rows = loading.module("npconv.kernels.numba.rows")
            view: np.ndarray = rows.swapped(host.writeable(weight), problem.groups)
            return view
    grouped = weight.reshape(problem.groups, filters, channels, *problem.kernel_size).swapaxes(1, 2)
    view = grouped.reshape(problem.in_channels, filters, *problem.kernel_size)
    return view


def in_one_pass(problem: ConvProblem, steps: list[Step], choice: Choice) -> Any:
    """Return the kernel that computes all phases at once, if all are depthwise and there is one for them, or None."""
    if problem.groups == 1 or problem.stride[2] != 2:
        return None
    plans = [choose(step.forward, choice) for step in steps]
    if any(plan.algorithm.name != "depthwise" or plan.in_parts for plan in plans):
        return None
    spread = loading.module("npconv.kernels.numba.spread")
    return spread if spread.takes(problem) else None


class Step(NamedTuple):
    """A phase of all axes, or the patches of some images."""

    elements: tuple[Any, ...]
    taps: tuple[Any, ...]
    begins: tuple[int, ...]
    forward: ConvProblem
    images: slice = slice(None)
    patch: tuple[int, ...] = ()
    """The size of a patch; the result of ``forward`` is then to be put in its places."""

    def taps_of(self, weight: np.ndarray) -> Any:
        """Return the taps of this phase, of a weight whose channels have changed places."""
        return patches.filters(weight) if self.patch else weight[self.taps][..., ::-1, ::-1, ::-1]


@recall.until_forgotten
@lru_cache(maxsize=1024)
def steps(problem: ConvProblem, choice: Choice, in_place: bool = True) -> tuple[list[Step], bool]:
    """Return the convolutions that a canonical problem runs as, and whether they reach all elements of the input.

    If ``in_place``, arrays are such as `may_be_in_place` tells, and lie in C order.
    """
    found = list(phases(problem))
    all_steps = _steps_of(found)
    whole = spaced(problem)
    if whole is not None and _faster(problem, whole, all_steps, choice):
        return [Step(_last_axes(*(slice(None),) * 3), (...,), (), whole)], True
    reached = sum(math.prod(part.length for part in parts) for parts, _ in found) == math.prod(problem.input_size)
    made = patches.forward(problem)
    if made is not None:
        in_patches = _patches_of(made, problem.kernel_size)
        written = in_place and are_in_place(in_patches, choice)
        if written or _faster_in_patches(problem, made, all_steps, choice):
            return in_patches, made.batch * made.out_channels * made.positions == math.prod(problem.input_shape)
    return all_steps, reached


def _patches_of(made: ConvProblem, patch: tuple[int, ...]) -> list[Step]:
    """Return the steps that make patches, some images at a time."""
    share = patches.at_once(made)
    parts = [slice(first, min(first + share, made.batch)) for first in range(0, made.batch, share)]
    inside = [slice(n * step) for n, step in zip(made.input_size, patch, strict=True)]
    return [
        Step((some, slice(None), *inside), (...,), (-1,), replace(made, batch=some.stop - some.start), some, patch)
        for some in parts
    ]


def _steps_of(found: list[tuple[tuple[_Phase, ...], ConvProblem]]) -> list[Step]:
    """Return phases as steps."""
    return [
        Step(
            _last_axes(*(part.elements for part in parts)),
            _last_axes(*(part.taps for part in parts)),
            tuple(part.taps.start for part in parts),
            forward,
        )
        for parts, forward in found
    ]


def instead(problem: ConvProblem, chosen: list[Step], choice: Choice) -> tuple[int, float] | None:
    """Return what else a canonical problem could run as, so many convolutions, and the seconds expected of them.

    Of one with zeros between elements, or where that is chosen the phases; None if there is none, or some are refused.
    """
    whole = spaced(problem)
    try:
        if any(step.forward.up for step in chosen):
            steps = _steps_of(list(phases(problem)))
            return len(steps), _expected_of_phases(problem, steps, choice)
        return None if whole is None else (1, choose(whole, choice).seconds)
    except ValueError:
        return None


def spaced(problem: ConvProblem) -> ConvProblem | None:
    """Return the convolution with zeros between elements that fills the input of a canonical problem, if there is one.

    It has no padding less than nothing.
    """
    size = tuple((n - 1) * s + 1 for n, s in zip(problem.output_size, problem.stride, strict=True))
    before = [span - 1 - pad for span, (pad, _) in zip(problem.span, problem.padding, strict=True)]
    after = [
        n + span - 1 - inner - pad
        for n, span, inner, pad in zip(problem.input_size, problem.span, size, before, strict=True)
    ]
    if max(problem.stride) == 1 or min(*before, *after) < 0 or 0 in problem.input_size:
        return None
    return replace(
        problem,
        in_channels=problem.out_channels,
        out_channels=problem.in_channels,
        input_size=problem.output_size,
        stride=(1, 1, 1),
        padding=tuple(zip(before, after, strict=True)),
        up=problem.stride,
        turned=True,
    )


APART = 1.5
"""How much longer phases take than is expected of their convolutions, because they write pixels that lie apart."""

MERGED, FEW, PIXELS = (1.05, 1.25), 8, 64
"""How much longer if they are merged, with few filters and with more; and pixels of a phase that a task has then. (By
60 gradients; 16 → 672 at 158² were so computed in 10.9 ms, as was expected to take 6.4, and by `winograd4` in 6.5.)"""


ORDER, PHASE, WRITE = 1e-9, 5e-5, 2e-9
"""Seconds to put a number of a weight in order that is cut into taps, to begin with a phase of few elements, and to
write one, which lie apart."""


def _faster(problem: ConvProblem, whole: ConvProblem, steps: list[Step], choice: Choice) -> bool:
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


def _expected_of_phases(problem: ConvProblem, steps: list[Step], choice: Choice) -> float:
    """Return how many seconds the phases should take; ValueError if a named algorithm does not take all of them."""
    if all(merging(some, choice, in_line=True) is not None for some in together(steps)):
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


def are_in_place(steps: list[Step], choice: Choice) -> bool:
    """Whether these are patches that are written where they belong, if the arrays allow it."""
    return bool(steps and steps[0].patch) and merging(steps[:1], choice, in_line=True) is not None


def _faster_in_patches(problem: ConvProblem, made: ConvProblem, steps: list[Step], choice: Choice) -> bool:
    """Whether patches should be faster than phases, for which the filters of each tap are put in order."""
    placing = patches.PLACE * made.batch * made.out_channels * made.positions
    ordering = 0 if choice.packed else ORDER * problem.out_channels * problem.products
    try:
        if all(merging(some, choice, in_line=True) is not None for some in together(steps)):
            return placing < ordering  # else they take as long
        phases = sum(PHASE + choose(step.forward, choice).seconds for step in steps)
        phases += WRITE * math.prod(problem.input_shape) + ordering
        return choose(made, choice).seconds + placing < phases
    except ValueError:  # the named algorithm does not take one of them
        return False


def _last_axes(*index: slice) -> tuple[Any, ...]:
    return (..., *index)


def weight_gradient(
    problem: ConvProblem, input: np.ndarray, grad_output: np.ndarray, out: np.ndarray, choice: Choice
) -> None:
    """Fill ``out``, of the shape of the problem's weight, with the gradient. Arrays are the caller's."""
    input, grad_output, out = problem.canonical(input), problem.canonical(grad_output), problem.canonical_weight(out)
    apart = images_apart(problem, choice)
    if apart is not None:
        apart = apart.canonical_form()
        each = np.empty(apart.weight_shape, apart.dtype)
        weight_gradient(apart, input.reshape(apart.input_shape), grad_output.reshape(apart.result_shape), each, choice)
        out[...] = sum_of_images(each, out.shape)
        return
    x = met(problem, input)
    choose(weight_step(problem).forward, choice).run(x, grad_output.swapaxes(0, 1), None, out.swapaxes(0, 1))


def images_apart(problem: ConvProblem, choice: Choice) -> ConvProblem | None:
    """Return the problem in which each image has groups of its own, the gradients of which are to be summed; or None.

    In one sum over all images a group's input and gradient have to be copied, channels behind images. That took longer
    than the sums themselves: two images of 16 channels at 110², depthwise, four times as long as one. None where the
    gradients are more than the input, or the images so many that one behind the other they are too long a chain
    (`npconv.kernels.summation`).
    """
    images, places = problem.batch, problem.positions
    if problem.groups == 1 or images <= 1 or choice.algorithm != "auto" or images > places or places < 8:
        return None
    if problem.compute_dtype != np.dtype(problem.dtype):  # sums that are rounded each
        return None
    if not 0 < problem.out_channels * problem.products <= problem.in_channels * math.prod(problem.input_size):
        return None
    return replace(
        problem,
        batch=1,
        in_channels=images * problem.in_channels,
        out_channels=images * problem.out_channels,
        groups=images * problem.groups,
        data_format="channels_first",
        last=False,
    )


def sum_of_images(each: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the sum of the gradients, of a ``shape``, of a weight."""
    with np.errstate(all="ignore"):
        total: np.ndarray = each.reshape(-1, *shape).sum(axis=0, dtype=each.dtype)
    return total


def met(problem: ConvProblem, input: np.ndarray) -> np.ndarray:
    """Return a canonical input as the convolution that makes the gradient of the weight meets it."""
    step = weight_step(problem)
    x = input[_last_axes(*(slice(None, None, pace) for pace in step.met))]
    if step.made is not None:
        x = host.padded(x, step.made, problem.padding_mode, np.dtype(problem.dtype))
    groups, channels, inner = problem.groups, step.forward.batch, step.forward.input_size
    x = x[_last_axes(*map(slice, inner))]
    x = x.reshape(problem.batch, groups, channels, *inner).transpose(2, 1, 0, 3, 4, 5)
    view: np.ndarray = x.reshape(channels, groups * problem.batch, *inner)
    return view


class _WeightStep(NamedTuple):
    """The convolution that makes the gradient of a weight."""

    met: tuple[int, ...]
    """The steps from one element of the input that is met to the next."""

    made: tuple[tuple[int, int], ...] | None
    """The padding to be made. The input, with it, may be larger than the convolution's."""

    forward: ConvProblem


@lru_cache(maxsize=1024)
def weight_step(problem: ConvProblem) -> _WeightStep:
    """Return how the gradient of a problem's weight is a convolution."""
    problem = problem.canonical_form()
    size = problem.output_size
    # Of an axis with one tap, only what the stride meets counts.
    met = tuple(
        s if k == 1 and not any(pad) else 1
        for s, k, pad in zip(problem.stride, problem.kernel_size, problem.padding, strict=True)
    )
    there = tuple(-(-n // step) for n, step in zip(problem.input_size, met, strict=True))
    stride = tuple(s // step for s, step in zip(problem.stride, met, strict=True))
    # Elements that no window reaches, where the stride does not divide, must not make more taps.
    reached = tuple(
        (o - 1) * s + (k - 1) * d + 1
        for o, s, k, d in zip(size, stride, problem.kernel_size, problem.dilation, strict=True)
    )
    made, before = None, tuple(pad for pad, _ in problem.padding)
    if problem.padding_mode != "zeros" or any(pad >= n for pad, n in zip(before, reached, strict=True)):
        made, before = problem.padding, (0, 0, 0)
        there = tuple(n + sum(pad) for n, pad in zip(there, made, strict=True))
    after = tuple(n - pad - m for n, pad, m in zip(reached, before, there, strict=True))
    forward = replace(
        problem,
        batch=problem.in_channels // problem.groups,
        in_channels=problem.groups * problem.batch,
        # Where less is reached than there is, the padding behind is negative: a part of the input.
        input_size=tuple(n + min(pad, 0) for n, pad in zip(there, after, strict=True)),
        kernel_size=size,
        stride=problem.dilation,
        dilation=stride,
        padding=tuple((pad, max(n, 0)) for pad, n in zip(before, after, strict=True)),
        padding_mode="zeros",
        bias=False,
        activation=(),
        last=False,
        apart=max(met) > 1,
        of_weight=True,
    )
    return _WeightStep(met, made, forward)


def bias_gradient(grad_output: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` (K,) with the sums of a gradient (K, ...) whose other axes are in any order."""
    rows = grad_output.reshape(grad_output.shape[0], math.prod(grad_output.shape[1:]))
    rows = np.ascontiguousarray(rows)  # NumPy adds neighbours in pairs, and long chains lose accuracy
    with np.errstate(all="ignore"):
        out[...] = np.sum(rows, axis=1, dtype=compute_dtype(out.dtype.name))

"""Short roads from a gradient's arrays to a kernel, for C-contiguous arrays of the problem's dtype.

`npconv.adjoint` looks at its arrays anew in each call, which takes 40 µs. What it finds depends on the problem alone if
they are C-contiguous; here it is found once, for the problems that one convolution solves. `npconv.recall` tells which
calls are remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npconv import adjoint, loading
from npconv.kernels import host, packed
from npconv.plan import Choice, choose
from npconv.problem import ConvProblem

Road = Callable[[np.ndarray, np.ndarray], np.ndarray]


def input_gradient(problem: ConvProblem, choice: Choice) -> Road | None:
    """Return a function of ``grad_output`` and ``weight``, or None; the problem has no bias and no activation."""
    road = transposed(problem, choice)
    if road is not None:
        return lambda grad_output, weight: road(grad_output, weight, None)
    if problem.padding_mode != "zeros" or problem.data_format != "channels_first" or problem.activation:
        return None
    form = problem.canonical_form()
    steps, reached = adjoint.steps(form, choice)
    spread = adjoint.in_one_pass(form, steps, choice) if reached else None
    return None if spread is None else _spread(spread, problem, choice)


def transposed(problem: ConvProblem, choice: Choice) -> Callable[[Any, Any, Any], np.ndarray] | None:
    """Return a function of input, weight and bias of a transposed convolution that runs as one, or None."""
    four = _four(problem, choice)
    if four is not None:
        return lambda input, weight, bias: four(input, weight, bias, None)
    step = _only_step(problem, choice)
    road = None if step is None else choose(step.forward, choice).road
    if step is None or road is None:
        return None
    form, shape, size = problem.canonical_form(), problem.input_shape, step.forward.input_shape

    def compute(input: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        taps = step.taps_of(adjoint.swapped(form, problem.canonical_weight(weight), choice))
        return road(input.reshape(size), taps, bias, None).reshape(shape)

    return compute


def transposed_layer(
    problem: ConvProblem, choice: Choice, weight: np.ndarray, bias: np.ndarray | None, workspace: host.Workspace
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return a function of the input of such a layer, or None."""
    four = _four(problem, choice)
    if four is not None:
        return lambda input: four(input, weight, bias, workspace)
    step = _only_step(problem, choice)
    plan = None if step is None else choose(step.forward, choice)
    quick = None if plan is None else plan.quick
    if step is None or plan is None or quick is None:
        return None
    shape, size = problem.input_shape, step.forward.input_shape
    taps = step.taps_of(adjoint.swapped(problem.canonical_form(), problem.canonical_weight(weight), choice))
    packed = plan.pack(taps, bias, workspace, step.begins)
    return lambda input: quick(input.reshape(size), packed, None).reshape(shape)


def _four(problem: ConvProblem, choice: Choice) -> Callable[..., np.ndarray] | None:
    """Return a function of input, weight, bias and workspace if four phases are computed in one pass, or None."""
    form, dtype = problem.canonical_form(), problem.compute_dtype
    if problem.padding_mode != "zeros" or problem.data_format != "channels_first" or problem.dtype != dtype.name:
        return None
    steps, reached = adjoint.steps(form, choice)
    if not reached or not adjoint.are_four(form, steps):
        return None
    run = adjoint.merging(steps, choice, in_line=True)
    if run is None:
        return None

    def compute(input: np.ndarray, weight: np.ndarray, bias: Any, workspace: host.Workspace | None) -> np.ndarray:
        taps = adjoint.swapped(form, problem.canonical_weight(weight), choice)
        out = np.empty(form.input_shape, dtype)
        run(input.reshape(form.result_shape), run.packed(taps, bias, workspace), out)
        return out.reshape(problem.input_shape)

    return compute


def _only_step(problem: ConvProblem, choice: Choice) -> adjoint.Step | None:
    """Return the one convolution that fills a problem's input, if it is one, and arrays are in order."""
    if problem.padding_mode != "zeros" or problem.data_format != "channels_first":
        return None
    form = problem.canonical_form()
    steps, reached = adjoint.steps(form, choice)
    if len(steps) != 1 or steps[0].patch or not reached or adjoint.in_one_pass(form, steps, choice) is not None:
        return None
    return steps[0]


def _spread(spread: Any, problem: ConvProblem, choice: Choice) -> Road:
    form, dtype, shape = problem.canonical_form(), problem.compute_dtype, problem.input_shape
    flat = loading.module("npconv.kernels.numba.slab").flat
    (_, x_layout), (_, out_layout) = (flat(np.empty(size, dtype)) for size in (form.result_shape, form.input_shape))
    plan, bias, epilogue = (
        spread.plan(form, choice.threads),
        np.zeros(form.in_channels, dtype),
        packed.epilogue_of((), dtype),
    )

    def compute(grad_output: np.ndarray, weight: np.ndarray) -> np.ndarray:
        out = np.empty(shape, dtype)
        x, weight = host.writeable(grad_output).reshape(-1), host.writeable(weight).reshape(-1)
        spread.conv(plan, x, x_layout, weight, bias, epilogue, out.reshape(-1), out_layout)
        return out

    return compute


def weight_gradient(problem: ConvProblem, choice: Choice) -> Road | None:
    """Return a function of the convolution's input and of ``grad_output``, or None."""
    if problem.data_format != "channels_first":
        return None
    step = adjoint.weight_step(problem)
    if step.made is not None:
        return None
    dtype, shape, results = np.dtype(problem.dtype), problem.weight_shape, problem.canonical_form().result_shape
    x, out = np.empty(problem.input_shape, dtype), np.empty(shape, dtype)
    met = adjoint.met(problem, problem.canonical(x))
    if not np.may_share_memory(met, x):  # groups of several images, which take a copy
        return None
    fill = choose(step.forward, choice).fixed(met, problem.canonical_weight(out).swapaxes(0, 1))
    if fill is None:
        return None

    def compute(input: np.ndarray, grad_output: np.ndarray) -> np.ndarray:
        out = np.empty(shape, dtype)
        slope = host.writeable(grad_output).reshape(results).swapaxes(0, 1)
        fill(host.writeable(input).reshape(-1), slope, out.reshape(-1))
        return out

    return compute

"""Gradients and transposed convolutions, each as convolutions.

The gradient of a convolution's input, which is the transposed convolution of the gradient of its result, and the
gradient of its weight are written down once, as forward convolutions of rearranged views: `npconv.phasing` tells those
of the former, of which `npconv.transposing` chooses, and `npconv.weight_gradient` that of the latter. Whatever is fast
for convolutions is fast for these.

Complex numbers follow torch: gradients are those with respect to the conjugate, so that input and weight enter
conjugated.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from npconv import backends, loading, patches, transposing
from npconv.choice import Choice
from npconv.kernels import activation, host, packed
from npconv.plan import choose
from npconv.problem import ConvProblem, compute_dtype


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
    passes, whole = transposing.passes(problem, choice, packed.in_line(grad_output), in_place)
    if not whole:
        out[...] = constant(problem, bias)
    if workspace is None and len(passes) > 1 and passes[0].steps[0].patch:
        workspace = host.Workspace()  # so that the weight is packed once
    for one in passes:
        if merged(one, filters, grad_output, bias, out, workspace):
            continue
        if one.fills:
            out[...] = constant(problem, bias)
        if in_place and transposing.written(one.steps, choice):
            _transposed(problem, weight, grad_output, bias, out, choice, workspace, in_place=False)
            return
        one_by_one(one, choice, filters, grad_output, bias, out, workspace)


def one_by_one(
    one: transposing.Pass,
    choice: Choice,
    weight: np.ndarray,
    grad_output: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    workspace: host.Workspace | None,
) -> None:
    """Compute a pass convolution by convolution, of a weight that is `swapped` and canonical arrays."""
    for step in one.steps:
        plan, taps, x = choose(step.forward, choice), step.taps_of(weight), grad_output[step.images]
        if not step.patch:
            plan.run(x, taps, bias, out[step.elements], workspace, step.begins)
            continue
        images, channels, *size = step.forward.result_shape
        made = np.empty((images, *size, channels), step.forward.dtype)
        plan.run(x, taps, step.bias_of(bias), made.transpose(0, 4, 1, 2, 3), workspace, step.begins)
        fast = plan.algorithm.engine is not None and made.dtype == step.forward.compute_dtype and not plan.in_parts
        patches.place(made, out[step.images], step.patch, fast)


def constant(problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
    """Return what elements are that meet no tap, where the stride is longer than the kernel."""
    numbers = np.zeros((1, problem.in_channels, 1, 1, 1), problem.compute_dtype)
    if bias is not None:
        numbers += bias[:, None, None, None]
    activation.apply(numbers, problem.activation)
    return numbers


def merged(
    one: transposing.Pass,
    weight: np.ndarray,
    grad_output: np.ndarray,
    bias: np.ndarray | None,
    out: np.ndarray,
    workspace: host.Workspace | None,
) -> bool:
    """Compute a pass by the kernel that there is for all of it, if there is one that takes these arrays."""
    step, found = one.steps[0], one.merged
    if found is None:
        return False
    dtype = step.forward.compute_dtype
    if any(array.dtype != dtype or not array.flags.aligned for array in (weight, grad_output, out)):
        return False
    if one.in_rows and out.strides[-1] != dtype.itemsize:
        return False
    return found(grad_output[step.images], found.packed(weight, bias, workspace), out)


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


def bias_gradient(grad_output: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` (K,) with the sums of a gradient (K, ...) whose other axes are in any order."""
    rows = grad_output.reshape(grad_output.shape[0], math.prod(grad_output.shape[1:]))
    rows = np.ascontiguousarray(rows)  # NumPy adds neighbours in pairs, and long chains lose accuracy
    with np.errstate(all="ignore"):
        out[...] = np.sum(rows, axis=1, dtype=compute_dtype(out.dtype.name))

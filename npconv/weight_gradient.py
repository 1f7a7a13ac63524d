"""The gradient of a convolution's weight, as a convolution.

Each tap t is the sum over the batch and all o of grad[o] · input[o s + t d]: a convolution whose batch are the
channels, whose channels are the batch, whose stride is the dilation and whose dilation is the stride.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from npconv import phasing
from npconv.choice import Choice
from npconv.kernels import host
from npconv.plan import choose
from npconv.problem import ConvProblem


def fill(problem: ConvProblem, input: np.ndarray, grad_output: np.ndarray, out: np.ndarray, choice: Choice) -> None:
    """Fill ``out``, of the shape of the problem's weight, with the gradient. Arrays are the caller's."""
    input, grad_output, out = problem.canonical(input), problem.canonical(grad_output), problem.canonical_weight(out)
    apart = images_apart(problem, choice)
    if apart is not None:
        apart = apart.canonical_form()
        each = np.empty(apart.weight_shape, apart.dtype)
        fill(apart, input.reshape(apart.input_shape), grad_output.reshape(apart.result_shape), each, choice)
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
    x = input[phasing.last_axes(*(slice(None, None, pace) for pace in step.met))]
    if step.made is not None:
        x = host.padded(x, step.made, problem.padding_mode, np.dtype(problem.dtype))
    groups, channels, inner = problem.groups, step.forward.batch, step.forward.input_size
    x = x[phasing.last_axes(*map(slice, inner))]
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

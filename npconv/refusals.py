"""Which problems algorithms do not take: functions that return the reason, or None where a problem is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set

from npconv.kernels import filtering
from npconv.kernels.numba import blocking
from npconv.problem import ConvProblem

MOST_CHANNELS = 1024
"""Channels up to which Strassen's errors stay near the bound even for data that is made to miss it: with 2048, half of
them dead and summed up by filters that copies of the others know nothing of, 96 eps were met, and 64 are promised."""

FEWEST_CHANNELS = 3
"""Channels from which on Winograd's filtering takes kernels, those counted that pixels of a stride, or what blocks of
taps meet, are folded into. With one or two it was never the fastest of 176 layers, but 1 to 64 at 112² with 9 × 9
elements, which are folded to 9 channels, take 0.32 ms, and 0.70 by `direct`. (When it took 32 channels and more, 1,000
layers of 1 to 48 took 1.20 times as long in the geometric mean, and up to three times: 16 to 96 at 112² 3.7 ms, and
1.2.)"""


NOTHING = "there is nothing to compute"
"""Why engines refuse a problem without products or results, which the textbook's algorithms take."""


def takes_all(problem: ConvProblem) -> str | None:
    """Refuse nothing."""
    return None


def no_activation(problem: ConvProblem) -> str | None:
    """Refuse activations."""
    return f"it has no activation yet, and {problem.activation[0]!r} is asked for" if problem.activation else None


def direct(problem: ConvProblem) -> str | None:
    """Refuse what the engines for floats do not compute, or what has no results."""
    if problem.compute_dtype.kind != "f":
        return f"it computes in floats and complex numbers, not in {problem.compute_dtype}"
    if 0 in (problem.products, problem.batch, problem.out_channels):
        return NOTHING
    return None


def winograd(taps: Mapping[int, Set[int]]) -> Callable[[ConvProblem], str | None]:
    """Return the function that refuses all but kernels of so many taps along height and width, by their stride."""

    def refuse(problem: ConvProblem) -> str | None:
        _, *kernel = problem.three(problem.kernel_size)
        _, *stride = problem.three(problem.stride)
        _, *dilation = problem.three(problem.dilation)
        apart, *up = problem.three(problem.up or (1,) * problem.rank)
        if max(kernel) == 1:
            return "it is for kernels of several elements along height or width"
        if apart > 1:
            return "it takes no zeros between planes"
        for r, s, d, u in zip(kernel, stride, dilation, up, strict=True):
            s = max(s, u)
            if s > 1 and (d > 1 or r == 1):
                return "it takes no stride together with a dilation, or along an axis of one element"
            if s not in taps:
                return f"it is for strides of {_ranges(set(taps))}" if len(taps) > 1 else "it is for stride 1"
            if u > 2:
                return "it takes no more than one zero between elements"
            if r > 1 and r not in taps[s]:
                return f"it is for kernels of {_ranges(taps[s])} elements at stride {s}, not of {r}"
        refused, channels = direct(problem), problem.in_channels // problem.groups
        least = -(-FEWEST_CHANNELS // math.prod(axis.fold for axis in filtering.axes(problem, (4, 4))))
        if refused is None and channels < least:
            of_group = "" if problem.groups == 1 else " a group"
            return f"it needs {least} input channels{of_group} or more, and there are {channels}"
        return refused

    return refuse


def _ranges(numbers: Set[int]) -> str:
    """Return numbers in words.

    Examples
    --------
    >>> _ranges({2, 4, 5, 6})
    '2 or 4 to 6'
    """
    firsts, lasts = (sorted(n for n in numbers if n + step not in numbers) for step in (-1, 1))
    return " or ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(firsts, lasts, strict=True))


def strassen(problem: ConvProblem) -> str | None:
    """Refuse all but products of matrices whose halves fill vectors and panels of any width."""
    if problem.taps != 1:
        return "it is for kernels of one element"
    if problem.groups != 1:
        return "it takes one group only"
    refused, least = direct(problem), 256 // problem.compute_dtype.itemsize
    if refused is None and min(problem.in_channels, problem.out_channels) < least:
        return f"it needs {least} input channels and filters or more"
    if refused is None and problem.in_channels % 2:
        return f"it needs an even number of input channels, and there are {problem.in_channels}"
    if refused is None and problem.in_channels > MOST_CHANNELS:
        channels = problem.in_channels
        return f"its errors grow with the channels, of which it takes {MOST_CHANNELS}, and there are {channels}"
    return refused


def depthwise(problem: ConvProblem) -> str | None:
    """Refuse groups of several channels, and chains of sums that would be too long."""
    if problem.in_channels != problem.groups:
        return "it is for groups of one input channel"
    kernel, stride = problem.three(problem.kernel_size), problem.three(problem.stride)
    for axis, (taps, step, dilation) in enumerate(zip(kernel, stride, problem.three(problem.dilation), strict=True)):
        if step > 1 and dilation > 1:
            return "it takes no stride together with a dilation"
        reached = -(-taps // step)
        if reached > 7:
            return "it takes kernels of up to 7 elements, or 7 strides, along an axis"
        # The products of a step down or along are one chain, and the steps that reach a result another.
        chains = problem.products // max(taps, 1) * min(step, taps) + reached
        if axis > 0 and chains > 2 * (7 + math.sqrt(problem.products)):
            return "its steps would be too long a chain of sums"
    return direct(problem)


def grouped(problem: ConvProblem) -> str | None:
    """Refuse groups that do not fill a vector of any width several times, or that one fills in part."""
    channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    itemsize = problem.compute_dtype.itemsize
    least = 64 // itemsize
    sizes = [n for n in (2, 4, 8, 16) if n <= least]
    if channels != filters or channels not in sizes:
        return f"it is for groups of {', '.join(map(str, sizes[:-1]))} or {sizes[-1]} channels, and as many filters"
    if problem.in_channels < least:
        return f"it needs {least} channels or more, and there are {problem.in_channels}"
    return direct(problem)


def dots(problem: ConvProblem) -> str | None:
    """Refuse kernels of few elements."""
    # It adds up √(n/l) products in √(n/l) chains for each of l lanes, then the lanes, then the planes. At most half as
    # many planes as √products leave that within the bound.
    planes = problem.in_channels // problem.groups * (problem.kernel_size[0] if problem.rank == 3 else 1)
    if planes > max(math.sqrt(problem.products) / 2, 1):
        return "it is for kernels of many elements and few channels"
    return direct(problem)


def outer(problem: ConvProblem) -> str | None:
    """Refuse kernels that are smaller than their results."""
    if problem.positions > problem.taps:
        return "it is for kernels that are larger than their results"
    return direct(problem)


def dense(problem: ConvProblem) -> str | None:
    """Refuse all but results that meet all of an image, and some images of few filters or numbers."""
    if problem.groups != 1:
        return "it takes one group only"
    if problem.kernel_size != problem.input_size or any(map(any, problem.padding)):
        return "it is for kernels as large as the input"
    if problem.batch > blocking.DENSE and not blocking.in_pairs(problem):
        return f"it takes {blocking.DENSE} images of so few filters and numbers, and there are {problem.batch}"
    return direct(problem)


PIECED = {1: {1, 2, 3, 4, 5}, 2: {3, 4}}
"""Results along an axis that a kernel in pieces has, by the dilation."""

LEAST_PIECED, LEAST_FILTERS = 4, 2
"""Elements of a kernel along such an axis, at least; filters of a group, and images."""


def pieces(problem: ConvProblem) -> str | None:
    """Refuse what is not cut into Winograd's pieces."""
    depth, *results = problem.three(problem.output_size)
    _, *dilation = problem.three(problem.dilation)
    if depth != 1 or max(results) == 1 or any(
        n not in PIECED.get(d, ()) for n, d in zip(results, dilation, strict=True)
    ):  # fmt: skip
        return "it is for results of 2 to 5 along an axis, or of 3 and 4 with dilation 2"
    planes, *kernel = problem.three(problem.kernel_size)
    if planes != 1 or any(r > 1 and n < LEAST_PIECED for n, r in zip(kernel, results, strict=True)):
        return "it is for kernels of 4 elements or more along an axis"
    if max(dilation) > 1 and max(problem.stride) > 1:
        return "it takes no stride where there is a dilation"
    refused = direct(problem)
    if refused is None and min(problem.batch, problem.out_channels // problem.groups) < LEAST_FILTERS:
        return "it needs two filters a group or more, and as many images, which of a weight gradient are the channels"
    return refused

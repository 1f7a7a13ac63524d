"""Transposed convolutions for the tests: problems, a dumb oracle that scatters, and torch's answer."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from checks import Arrays, cast, frozen, named, seed_of

import npconv


@dataclass(frozen=True)
class Problem:
    """One transposed convolution, without its data."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    batch: int = 1
    groups: int = 1
    group_channels: int = 1
    group_filters: int = 1
    last: bool = False
    unbatched: bool = False
    bias: bool = False

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def channels(self) -> int:
        return self.groups * self.group_channels

    @property
    def filters(self) -> int:
        return self.groups * self.group_filters

    @property
    def whole(self) -> tuple[int, ...]:
        """Spatial size of the result before anything is taken away."""
        steps = zip(self.size, self.kernel, self.stride, self.dilation, self.output_padding, strict=True)
        return tuple((n - 1) * s + (k - 1) * d + 1 + more for n, k, s, d, more in steps)

    @property
    def result_size(self) -> tuple[int, ...]:
        return tuple(n - before - after for n, (before, after) in zip(self.whole, self.padding, strict=True))

    @property
    def valid(self) -> bool:
        limits = zip(self.output_padding, self.stride, self.dilation, strict=True)
        return min(self.result_size) > 0 and all(more < max(s, d) for more, s, d in limits)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for npconv's function."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "groups": self.groups,
            "dilation": self.dilation,
            "data_format": "channels_last" if self.last else "channels_first",
        }

    def seen(self, array: np.ndarray) -> np.ndarray:
        """An (N, C, …) array as the caller has it."""
        array = array[0] if self.unbatched else array
        return np.ascontiguousarray(np.moveaxis(array, -self.rank - 1, -1) if self.last else array)


def draw(rng: np.random.Generator, shape: tuple[int, ...], complex_: bool) -> np.ndarray:
    """Integers from -4 to 4 without 0, so that sums are exact."""
    values = rng.integers(1, 5, shape) * rng.choice([-1.0, 1.0], shape)
    return values + 1j * rng.integers(-4, 5, shape) if complex_ else values


def arrays_of(problem: Problem, complex_: bool) -> Arrays:
    """Input (N, C, …), weight and bias."""
    rng = np.random.default_rng(seed_of(repr(problem)))
    x = draw(rng, (problem.batch, problem.channels, *problem.size), complex_)
    w = draw(rng, (problem.channels, problem.group_filters, *problem.kernel), complex_)
    return x, w, draw(rng, (problem.filters,), complex_) if problem.bias else None


def inside(problem: Problem) -> tuple[Any, ...]:
    """What of the whole result stays."""
    return (..., *(slice(p[0], p[0] + n) for p, n in zip(problem.padding, problem.result_size, strict=True)))


def scatter(problem: Problem, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Every element of the input adds the kernel, times itself, to the result, from where it stands on."""
    whole = np.zeros((problem.batch, problem.filters, *problem.whole), x.dtype)
    for n, c, *at in np.ndindex(*x.shape):
        first = c // problem.group_channels * problem.group_filters
        for f, *tap in np.ndindex(*w.shape[1:]):
            steps = zip(at, problem.stride, tap, problem.dilation, strict=True)
            whole[(n, first + f, *(a * s + t * d for a, s, t, d in steps))] += x[(n, c, *at)] * w[(c, f, *tap)]
    if bias is not None:
        whole += bias.reshape(-1, *(1,) * problem.rank)
    return whole[inside(problem)]


def torch_tensors(problem: Problem, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """torch's answer (N, C, …): without padding, then cropped, since torch takes no pairs."""
    function = getattr(torch.nn.functional, f"conv_transpose{problem.rank}d")
    options = problem.stride, 0, problem.output_padding, problem.groups, problem.dilation
    return function(x, w, bias, *options)[inside(problem)]


def torch_answer(problem: Problem, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    if 0 in (x.size, w.size):  # which torch does not take
        return scatter(problem, x, w, bias)
    tensors = (None if array is None else torch.from_numpy(array) for array in (x, w, bias))
    return torch_tensors(problem, *tensors).numpy()


@cache
def exact_problem(problem: Problem, complex_: bool) -> tuple[Arrays, np.ndarray]:
    """Data as the caller has them, and torch's exact result."""
    x, w, bias = arrays_of(problem, complex_)
    return (problem.seen(x), w, bias), problem.seen(torch_answer(problem, x, w, bias))


def exact(problem: Problem, dtype: str) -> tuple[Arrays, np.ndarray]:
    """Data in a dtype, read-only, and the result to be met with ``==``."""
    to = named(dtype)
    arrays, want = exact_problem(problem, to.kind == "c")
    return tuple(frozen(cast(array, to)) for array in arrays), cast(want, to)  # type: ignore[return-value]


def call(problem: Problem, arrays: Arrays, **options: Any) -> Any:
    """npconv's answer."""
    return getattr(npconv, f"conv_transpose{problem.rank}d")(*arrays, **problem.options | options)


def random_problem(rng: random.Random) -> Problem:
    """A problem that has a result, of any form."""
    while True:
        rank = rng.choice((1, 2, 3))

        def per_axis(*values: int, rank: int = rank) -> tuple[int, ...]:
            return tuple(rng.choice(values) for _ in range(rank))

        stride, dilation = per_axis(1, 2, 3, 4, 6), per_axis(1, 2, 3, 4)
        problem = Problem(
            per_axis(1, 2, 3, 5), per_axis(1, 2, 3), stride,
            tuple((rng.choice((0, 0, 1, 2, 3)), rng.choice((0, 0, 1, 2, 5))) for _ in range(rank)),
            tuple(rng.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True)), dilation,
            batch=rng.choice((1, 2)), groups=rng.choice((1, 1, 2, 3)), group_channels=rng.choice((1, 2)),
            group_filters=rng.choice((1, 2, 3)), last=rng.random() < 0.3, bias=rng.random() < 0.5,
        )  # fmt: skip
        if problem.valid and math.prod(problem.whole) < 3000:
            if problem.batch == 1 and rng.random() < 0.3:
                return Problem(**vars(problem) | {"unbatched": True})
            return problem


SPECIAL = {
    "one element": Problem((1,), (1,), (1,), ((0, 0),), (0,), (1,)),
    "stride beyond kernel": Problem((4, 3), (2, 1), (5, 3), ((0, 0),) * 2, (0, 2), (1, 1), bias=True),
    "no element meets a tap": Problem((1,), (1,), (5,), ((1, 1),), (4,), (1,), bias=True),
    "no tap, no bias": Problem((1, 1), (1, 1), (5, 5), ((1, 1),) * 2, (4, 4), (1, 1)),
    "stride and dilation 4 and 2": Problem((5,), (3,), (4,), ((1, 2),), (3,), (2,), 2, 1, 2, 3),
    "stride and dilation 6 and 4": Problem((3, 2), (3, 3), (6, 4), ((0, 5), (3, 0)), (5, 5), (4, 6), 1, 2, 2, 1),
    "stride and dilation alike": Problem((4,), (3,), (3,), ((0, 0),), (2,), (3,), bias=True),
    "output padding of the stride": Problem((4, 3), (2, 3), (1, 2), ((0, 0),) * 2, (1, 2), (3, 4), 1, 1, 2, 2),
    "output padding beyond the stride": Problem((3,), (2,), (2,), ((1, 1),), (4,), (5,), bias=True),
    "all but one taken away": Problem((3, 3), (3, 3), (1, 1), ((2, 2), (4, 0)), (0, 0), (1, 1), 2, 1, 2, 2),
    "pairs": Problem((4, 5), (3, 2), (2, 3), ((0, 2), (3, 1)), (1, 0), (1, 2), 2, 2, 1, 3, bias=True),
    "doubling": Problem((4, 5), (4, 4), (2, 2), ((1, 1),) * 2, (0, 0), (1, 1), 2, 1, 3, 4, bias=True),
    "depthwise": Problem((4, 5), (3, 3), (2, 2), ((1, 1),) * 2, (1, 1), (1, 1), 2, 4, 1, 1, bias=True),
    "depthwise, long rows": Problem((5, 37), (3, 3), (2, 2), ((1, 1),) * 2, (1, 1), (1, 1), 2, 5, 1, 1, bias=True),
    "depthwise, 4 × 4": Problem((3, 33), (4, 4), (2, 2), ((1, 1), (3, 2)), (0, 0), (1, 1), 1, 3, 1, 1),
    "depthwise, 7 × 7": Problem((9, 35), (7, 7), (2, 2), ((3, 3), (2, 3)), (1, 0), (1, 1), 1, 5, 1, 1, bias=True),
    "depthwise, stride 1 × 2": Problem(
        (4, 16), (3, 5), (1, 2), ((0, 1), (0, 3)), (0, 1), (1, 1), 2, 2, 1, 1, bias=True
    ),
    "depthwise, short rows": Problem((6, 5), (2, 3), (2, 2), ((1, 0), (1, 1)), (1, 0), (1, 1), 3, 40, 1, 1),
    "patches": Problem((4, 5), (4, 4), (4, 4), ((0, 0),) * 2, (0, 0), (1, 1), 3, 1, 9, 3, bias=True),
    "patches, wide, some elements beyond": Problem(
        (2, 3), (3, 16), (3, 16), ((0, 0),) * 2, (1, 9), (1, 1), 2, 1, 5, 2, bias=True
    ),
    "patches in groups": Problem((3, 7), (2, 3), (2, 3), ((0, 0),) * 2, (0, 2), (1, 1), 2, 3, 2, 4, bias=True),
    "patches of signals": Problem((11,), (5,), (5,), ((0, 0),), (0,), (1,), 2, 1, 4, 3),
    "patches of volumes": Problem(
        (2, 3, 4), (2, 1, 3), (2, 1, 3), ((0, 0),) * 3, (1, 0, 0), (1, 1, 1), 2, 2, 3, 5, last=True, bias=True
    ),
    "patches, channels last": Problem((3, 4), (2, 8), (2, 8), ((0, 0),) * 2, (0, 0), (1, 1), 1, 1, 6, 5, last=True),
    "patches of one channel": Problem((3, 4), (2, 2), (2, 2), ((0, 0),) * 2, (0, 0), (1, 1), 2, 5, 1, 1, bias=True),
    "patches in pairs": Problem((7, 37), (2, 2), (2, 2), ((0, 0),) * 2, (0, 1), (1, 1), 3, 1, 9, 13, bias=True),
    "patches in pairs, short rows": Problem((9, 5), (4, 2), (4, 2), ((0, 0),) * 2, (0, 0), (1, 1), 2, 1, 3, 17),
    "patches in pairs, one pixel": Problem((1, 1), (2, 2), (2, 2), ((0, 0),) * 2, (0, 0), (1, 1), 1, 1, 70, 5),
    "patches in pairs, groups": Problem((3, 7), (3, 2), (3, 2), ((0, 0),) * 2, (1, 0), (1, 1), 2, 3, 5, 4, bias=True),
    "patches in pairs of signals": Problem((61,), (2,), (2,), ((0, 0),), (0,), (1,), 2, 1, 5, 7, bias=True),
    "patches in pairs of volumes": Problem(
        (2, 3, 9), (2,) * 3, (2,) * 3, ((0, 0),) * 3, (0,) * 3, (1,) * 3, 2, 2, 3, 5
    ),
    "patches in pairs, channels last": Problem(
        (3, 19), (2, 2), (2, 2), ((0, 0),) * 2, (0, 0), (1, 1), 2, 1, 6, 5, last=True
    ),
    "doubling of no images": Problem((3, 4), (2, 2), (2, 2), ((0, 0),) * 2, (0, 0), (1, 1), 0, 1, 8, 2, bias=True),
    "tripling of no channels": Problem((5,), (3,), (3,), ((0, 0),), (0,), (1,), 2, 1, 0, 3, bias=True),
    "doubling for no filters": Problem((5,), (2,), (2,), ((0, 0),), (0,), (1,), 2, 1, 3, 0, bias=True),
    "channels last": Problem((3, 4), (3, 3), (2, 1), ((1, 0),) * 2, (1, 0), (1, 2), 2, 2, 2, 2, last=True, bias=True),
    "unbatched": Problem((3, 4), (3, 2), (2, 3), ((1, 0),) * 2, (1, 2), (1, 1), 1, 1, 2, 3, unbatched=True),
    "unbatched, channels last": Problem(
        (3, 2, 2), (2, 3, 1), (2, 3, 2), ((1, 0),) * 3, (1, 2, 0), (2, 1, 1), 1, 2, 1, 2, True, True, True
    ),
    "no images": Problem((3,), (2,), (2,), ((0, 0),), (1,), (1,), batch=0, bias=True),
    "no channels": Problem((3, 2), (2, 2), (3, 2), ((0, 0),) * 2, (1, 0), (1, 1), 2, group_channels=0, bias=True),
    "no filters": Problem((3,), (2,), (2,), ((0, 0),), (1,), (1,), 2, 1, 3, 0),
}
_RANDOM = random.Random(3)
SAMPLE = [random_problem(_RANDOM) for _ in range(60)]
PROBLEMS = {**SPECIAL, **{f"random {number}": problem for number, problem in enumerate(SAMPLE)}}

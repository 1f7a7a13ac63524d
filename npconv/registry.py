"""The algorithms that exist: for each backend an ordered table of candidates, fastest first as a rule.

A candidate refuses a problem with a reason or takes it, says what memory it works in, and how long it should take. The
figures of `Rate` for float32 are near what ``pytest bench`` shows for one core of a server of 2023; the others, and all
of CUDA's, are guesses from them. They serve to rank candidates and to tell milliseconds from minutes, no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from npconv.problem import ConvProblem


@dataclass(frozen=True)
class Rate:
    """Rough speed of an algorithm: seconds a call, seconds a window of one channel, products a second and thread."""

    call: float
    window: float
    float32: float
    float64: float
    integer: float
    complex: float
    threaded: bool = True

    def seconds(self, problem: ConvProblem, threads: int) -> float:
        """Return the time that a problem should take."""
        dtype = problem.compute_dtype
        speed = {"i": self.integer, "u": self.integer, "c": self.complex}.get(dtype.kind)
        if speed is None:
            speed = self.float32 if dtype.itemsize == 4 else self.float64
        results = problem.batch * problem.out_channels * problem.positions
        windows = results * (problem.in_channels // problem.groups)
        work = windows * self.window + results * problem.products / speed
        return self.call + work / (threads if self.threaded else 1)


def _takes_all(problem: ConvProblem) -> str | None:
    return None


def _no_activation(problem: ConvProblem) -> str | None:
    return f"it has no activation yet, and {problem.activation[0]!r} is asked for" if problem.activation else None


def _no_workspace(problem: ConvProblem) -> int:
    return 0


@dataclass(frozen=True)
class Algorithm:
    """One algorithm on one backend."""

    name: str
    backend: str
    summary: str
    rate: Rate
    refuse: Callable[[ConvProblem], str | None] = field(default=_takes_all, repr=False)
    own_workspace: Callable[[ConvProblem], int] = field(default=_no_workspace, repr=False)
    direct: bool = True
    dtypes: str = "all"
    ranks: str = "1, 2, 3"

    def workspace(self, problem: ConvProblem) -> int:
        """Return the bytes of memory that the algorithm needs besides input, weight and result."""
        return prepared_bytes(problem) + self.own_workspace(problem)


def prepared_bytes(problem: ConvProblem) -> int:
    """Return the bytes of the padded or cast copies that the textbook algorithms start from."""
    dtype = problem.compute_dtype
    padded = any(before or after for before, after in problem.padding)
    cast = dtype.name != problem.dtype
    copied = problem.padded_elements if padded or cast or problem.data_format == "channels_last" else 0
    if cast:
        copied += problem.out_channels * problem.products
    if cast or problem.data_format == "channels_last":
        copied += problem.batch * problem.out_channels * problem.positions
    return copied * dtype.itemsize


def _plane_matrix(problem: ConvProblem) -> int:
    filters = problem.out_channels // problem.groups
    return problem.positions * (problem.taps + 2 * filters) * problem.compute_dtype.itemsize


def _region_matrix(problem: ConvProblem) -> int:
    elements = problem.batch * problem.in_channels * problem.taps * problem.positions
    return elements * problem.compute_dtype.itemsize


_LOOP = "slide the kernel; at each position, for each output and input channel, multiply and add"
_FLATTEN = "one channel plane at a time: its regions as rows of a matrix, times the flattened kernel"
_IM2COL = "batch and channels at once: one region matrix, one matrix product"

_TABLE = (
    Algorithm("im2col", "numba", _IM2COL, Rate(20e-6, 0, 25e9, 12e9, 3e9, 5e9)),
    Algorithm("flatten", "numba", _FLATTEN, Rate(20e-6, 0, 8e9, 4e9, 2e9, 1e9)),
    Algorithm("loop", "numba", _LOOP, Rate(10e-6, 0, 0.7e9, 0.7e9, 0.7e9, 0.3e9)),
    Algorithm("im2col", "numpy", _IM2COL, Rate(60e-6, 0, 20e9, 10e9, 0.5e9, 4e9), own_workspace=_region_matrix),
    Algorithm("flatten", "numpy", _FLATTEN, Rate(90e-6, 0, 4e9, 2e9, 0.3e9, 0.5e9), own_workspace=_plane_matrix),
    Algorithm("loop", "numpy", _LOOP, Rate(10e-6, 4e-6, 1e9, 1e9, 1e9, 1e9, False)),
    Algorithm(
        "im2col",
        "cuda",
        _IM2COL,
        Rate(1e-3, 0, 1e12, 1e11, 1e11, 1e11, False),
        refuse=_no_activation,
        own_workspace=_region_matrix,
    ),
    Algorithm(
        "flatten",
        "cuda",
        _FLATTEN,
        Rate(1e-3, 0, 1e11, 1e10, 1e10, 1e10, False),
        refuse=_no_activation,
        own_workspace=_plane_matrix,
    ),
    Algorithm("loop", "cuda", _LOOP, Rate(1e-3, 0, 1e11, 1e10, 1e10, 1e10, False), refuse=_no_activation),
)


def candidates(backend: str) -> tuple[Algorithm, ...]:
    """Return the algorithms of a backend, fastest first as a rule."""
    return tuple(algorithm for algorithm in _TABLE if algorithm.backend == backend)


def names() -> tuple[str, ...]:
    """Return every algorithm's name, once."""
    return tuple(dict.fromkeys(algorithm.name for algorithm in _TABLE))


def all_algorithms() -> tuple[Algorithm, ...]:
    """Return the whole table."""
    return _TABLE

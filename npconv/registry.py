"""The algorithms that exist: for each backend an ordered table of candidates, fastest first as a rule.

A candidate refuses a problem with a reason or takes it (`npconv.refusals`), says what memory it works in, and how long
it should take (`npconv.costs`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from npconv import costs, refusals
from npconv.costs import Textbook, plane_matrix, region_matrix
from npconv.kernels.numba.blocking import engine_limit
from npconv.problem import ConvProblem

WORKSPACE_LIMIT = 2**30
"""Bytes of workspace over which ``"auto"`` passes a textbook algorithm by while another takes the problem with less."""


@dataclass(frozen=True)
class Algorithm:
    """One algorithm on one backend."""

    name: str
    backend: str
    summary: str
    cost: costs.Cost
    refuse: Callable[[ConvProblem], str | None] = field(default=refusals.takes_all, repr=False)
    direct: bool = True
    spaced: bool = False
    """Whether it takes inputs with zeros between elements (`npconv.problem.ConvProblem.up`)."""

    ranks: ClassVar[str] = "1, 2, 3"
    engine: str | None = None
    """Module and object of an engine (`npconv.kernels.packed`); a textbook kernel has none."""

    plain_engine: str | None = None
    """The engine for calls that bring plain weights, if `Cost.within_tasks` says so."""

    panel_engine: str | None = None
    """The engine for packed weights that are made more of within the tasks, if `Cost.within_tasks` says so."""

    @property
    def dtypes(self) -> str:
        """The dtypes that it computes in: integers, which are exact modulo their size, are left to the textbook."""
        return "all" if self.engine is None else "float, complex"

    def within_limit(self, problem: ConvProblem, workspace: int) -> bool:
        """Whether ``"auto"`` may take the algorithm if it needs so much workspace."""
        if self.engine is None:
            return workspace <= WORKSPACE_LIMIT
        return workspace <= engine_limit(problem)


_LOOP = "slide the kernel; at each position, for each output and input channel, multiply and add"
_FLATTEN = "one channel plane at a time: its regions as rows of a matrix, times the flattened kernel"
_IM2COL = "batch and channels at once: one region matrix, one matrix product"

_DIRECT = "the direct sum, filters in vectors, no region matrix"
_DEPTHWISE = "the direct sum, each step of the input added to all results that it reaches; for one channel a group"
_GROUPED = "the direct sum, filters of several groups in vectors; for groups of few channels, and as many filters"
_DOTS = "the direct sum, the kernel's elements in vectors; for kernels larger than their results"
_OUTER = "the direct sum, as outer products of inputs and filters; for kernels larger than their results"
_DENSE = "the direct sum, numbers of the weight in vectors, each read once; for kernels as large as the input"
_PLANES = "the direct sum, pixels in vectors, nothing packed; for pixels in rows, few filters, and few channels a group"

FOLDED = {3: {*range(5, 13)}, 4: {*range(6, 17)}}
"""Elements along an axis, of two to four for each residue, by the larger strides at which residues are folded."""

_TABLE = (
    Algorithm(
        "winograd4",
        "numba",
        "2 × 2 to 4 × 4, 6 × 6 to 12 × 12 with 2 to 4 times fewer products, by transforms of 6 × 6 tiles; strides to 4",
        costs.Winograd(9e-6, 42e9, 0.6, tile=(4, 4)),
        refuse=refusals.winograd({1: {2, 3, 4, *range(6, 13)}, 2: {*range(3, 9)}, **FOLDED}),
        direct=False,
        spaced=True,
        engine="winograd.four",
        plain_engine="winograd_plain.four",
        panel_engine="winograd_plain.four_of_panels",
    ),
    Algorithm(
        "winograd2",
        "numba",
        "3 × 3 or 5 × 5 with 2.2 or 2.8 times fewer products, by transforms of 4 × 4 or 6 × 6 tiles; strides to 4",
        costs.Winograd(9e-6, 44e9, 0.3, tile=(2, 2)),
        refuse=refusals.winograd({1: {2, 3, 5}, 2: {3, 4, 5}, **FOLDED}),
        direct=False,
        spaced=True,
        engine="winograd.two",
        plain_engine="winograd_plain.two",
        panel_engine="winograd_plain.two_of_panels",
    ),
    Algorithm(
        "winograd2x4",
        "numba",
        "3 × 3 with 3 times fewer products, by transforms of 4 × 6 tiles: fewer weights to read where images are small",
        costs.Winograd(9e-6, 42e9, 0.4, tile=(2, 4)),
        refuse=refusals.winograd({1: {3}}),
        direct=False,
        engine="winograd.two_by_four",
        plain_engine="winograd_plain.two_by_four",
        panel_engine="winograd_plain.two_by_four_of_panels",
    ),
    Algorithm(
        "pieces",
        "numba",
        "large kernels of 2 × 2 to 5 × 5 results with 1.8 to 4 times fewer products, by transforms of pieces of them",
        costs.Pieces(12e-6, 44e9),
        refuse=refusals.pieces,
        direct=False,
        engine="pieces",
    ),
    Algorithm(
        "strassen",
        "numba",
        "1 × 1 with 7 products of matrices instead of 8, by sums of halves of pixels, channels and filters",
        costs.Strassen(9e-6, 43e9, 12, turned=12),
        refuse=refusals.strassen,
        direct=False,
        engine="strassen.of_sums",
        plain_engine="strassen.of_plain",
    ),
    Algorithm(
        "direct",
        "numba",
        _DIRECT,
        costs.Direct(9e-6, 52e9, 0.6, turned=0.3),
        refuse=refusals.direct,
        engine="direct",
        plain_engine="direct.plain",
    ),
    Algorithm(
        "depthwise",
        "numba",
        _DEPTHWISE,
        costs.Depthwise(8e-6, 40e9, 0.3),
        refuse=refusals.depthwise,
        engine="depthwise",
    ),
    Algorithm(
        "grouped",
        "numba",
        _GROUPED,
        costs.Grouped(8e-6, 32e9, 0.45),
        refuse=refusals.grouped,
        engine="grouped",
    ),
    Algorithm(
        "outer",
        "numba",
        _OUTER,
        costs.Outer(26e-6, 45e9),
        refuse=refusals.outer,
        engine="outer",
    ),
    Algorithm(
        "dots",
        "numba",
        _DOTS,
        costs.Dots(8e-6, 30e9),
        refuse=refusals.dots,
        engine="dots",
    ),
    Algorithm(
        "dense",
        "numba",
        _DENSE,
        costs.Dense(7e-6, 30e9),
        refuse=refusals.dense,
        engine="dense",
    ),
    Algorithm(
        "planes",
        "numba",
        _PLANES,
        costs.Planes(9e-6, 47e9, turned=0.2, group=1e-7),
        refuse=refusals.direct,
        engine="planes",
    ),
    Algorithm(
        "im2col",
        "numba",
        _IM2COL,
        Textbook(90e-6, 0, 30e9, 15e9, 3e9, 5e9, region=1e-9, weight=1.5e-9, vectors=True),
    ),
    Algorithm("flatten", "numba", _FLATTEN, Textbook(90e-6, 0, 8e9, 4e9, 2e9, 1e9, region=1e-9, weight=1e-8)),
    Algorithm("loop", "numba", _LOOP, Textbook(80e-6, 0, 0.7e9, 0.7e9, 0.7e9, 0.3e9)),
    Algorithm(
        "im2col",
        "numpy",
        _IM2COL,
        Textbook(130e-6, 0, 36e9, 18e9, 0.5e9, 4e9, region=1.5e-9, weight=3e-10, matrix=region_matrix),
    ),
    Algorithm(
        "flatten",
        "numpy",
        _FLATTEN,
        Textbook(160e-6, 0, 4e9, 2e9, 0.3e9, 0.5e9, region=2e-9, matrix=plane_matrix),
    ),
    Algorithm("loop", "numpy", _LOOP, Textbook(80e-6, 4e-6, 1e9, 1e9, 1e9, 1e9, False)),
    Algorithm(
        "im2col",
        "cuda",
        _IM2COL,
        Textbook(1e-3, 0, 1e12, 1e11, 1e11, 1e11, False, matrix=region_matrix),
        refuse=refusals.no_activation,
    ),
    Algorithm(
        "flatten",
        "cuda",
        _FLATTEN,
        Textbook(1e-3, 0, 1e11, 1e10, 1e10, 1e10, False, matrix=plane_matrix),
        refuse=refusals.no_activation,
    ),
    Algorithm("loop", "cuda", _LOOP, Textbook(1e-3, 0, 1e11, 1e10, 1e10, 1e10, False), refuse=refusals.no_activation),
)


def candidates(backend: str) -> tuple[Algorithm, ...]:
    """Return the algorithms of a backend, fastest first as a rule."""
    return tuple(algorithm for algorithm in _TABLE if algorithm.backend == backend)


def backends_of(name: str) -> tuple[str, ...]:
    """Return the backends that have an algorithm."""
    return tuple(algorithm.backend for algorithm in _TABLE if algorithm.name == name)


def names() -> tuple[str, ...]:
    """Return every algorithm's name, once."""
    return tuple(dict.fromkeys(algorithm.name for algorithm in _TABLE))


def all_algorithms() -> tuple[Algorithm, ...]:
    """Return the whole table."""
    return _TABLE

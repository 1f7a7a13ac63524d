"""Transposed convolutions whose kernel is as long as its stride, two elements along a row, by Strassen's algorithm.

As `npconv.kernels.numba.pairs` computes and writes them, with the products of `npconv.kernels.numba.strassen_planes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import pairs, strassen_plan, strassen_planes
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.problem import ConvProblem


def takes(made: ConvProblem, patch: tuple[int, ...], threads: int) -> bool:
    """Whether patches of this size, which a 1 × 1 convolution makes, are written here: if halves are whole pairs."""
    lanes = VECTOR_BYTES // made.compute_dtype.itemsize
    whole = made.out_channels % (2 * pairs.PAIR) == 0
    return whole and pairs.takes(made, patch) and strassen_plan.in_planes(_lined(made), lanes, threads)


def _lined(problem: ConvProblem) -> ConvProblem:
    """Return a 1 × 1 convolution of an image whose pixels all lie in a row."""
    depth, height, width = problem.input_size
    return replace(problem, input_size=(depth, 1, height * width))


class Patches(NamedTuple):
    """The engine for patches of one size, as `npconv.kernels.packed.Merged` takes it: of one problem."""

    size: tuple[int, ...]
    plain: bool
    """Whether tasks sum up the filters, each thread for itself."""

    def pack_all(self, problems: Sequence[ConvProblem], weights: Sequence[np.ndarray]) -> Any:
        """Return the filters as they are, or their sums."""
        filters = strassen_planes.plain(weights[0])
        return filters if self.plain else strassen_planes.pack(problems[0], filters)

    def pack_bias(self, problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
        """Return the bias of each filter."""
        return pairs.Patches(self.size).pack_bias(problem, bias)

    def plan_of(
        self, problems: Sequence[ConvProblem], threads: int, in_line: bool, all_rows: int = 0
    ) -> strassen_planes.Plan:
        """Cut the convolution into tasks."""
        return strassen_planes.plan(_lined(problems[0]), threads, self.plain, self.size)

    def fixed(
        self,
        plan: strassen_planes.Plan,
        x_layout: np.ndarray,
        epilogue: np.ndarray,
        out_layout: np.ndarray,
        threads: int,
    ) -> Callable[..., None] | None:
        """Return a function that fills ``out``, whose rows' pixels lie side by side; None if the input's do not.

        The input's rows go on with the next.
        """
        return strassen_planes.fixed(plan, x_layout, epilogue, out_layout, threads)

"""Results of Strassen's algorithm that are merged as they are written: of transposed convolutions.

Where a kernel is as long as its stride, two elements along a row, filters make rows in pairs, as those of
`npconv.kernels.numba.pairs` do. Of a 1 × 1 kernel at stride 2, the even pixels of the even rows are computed, and all
others are the bias. The products are those of `npconv.kernels.numba.strassen_planes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import pairs, planes, strassen_plan, strassen_planes
from npconv.kernels.numba.rows import as_they_lie
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.problem import ConvProblem


def engine_for(
    made: ConvProblem, patch: tuple[int, ...], whole: tuple[int, ...] | None, threads: int, plain: bool
) -> Merged | None:
    """Return the engine for patches that a 1 × 1 convolution makes, or even pixels of a ``whole`` plane, or None.

    Halves of the filters are pairs; a row has as many odd pixels as even ones. Of ``plain`` filters, each thread makes
    the sums.
    """
    lanes = VECTOR_BYTES // made.compute_dtype.itemsize
    if patch:
        taken = made.out_channels % (2 * pairs.PAIR) == 0 and pairs.takes(made, patch)
    else:
        taken = whole is not None and made.taps == 1 and whole[1] == 2 * made.input_size[2]
    if not taken or made.compute_dtype.kind != "f" or not strassen_plan.in_planes(_lined(made), lanes, threads, True):
        return None
    return Merged(patch, plain)


def _lined(problem: ConvProblem) -> ConvProblem:
    """Return a 1 × 1 convolution of an image whose pixels all lie in a row."""
    depth, height, width = problem.input_size
    return replace(problem, input_size=(depth, 1, height * width))


class Merged(NamedTuple):
    """The engine for patches of one size, or for even pixels, as `npconv.kernels.packed.Merged` takes it."""

    patch: tuple[int, ...]
    plain: bool

    @property
    def algorithm(self) -> str:
        """Its name."""
        return "strassen"

    def pack_all(self, problems: Sequence[ConvProblem], weights: Sequence[np.ndarray]) -> Any:
        """Return the filters as they are, or their sums."""
        filters = as_they_lie(weights[0], may_turn=True)
        return filters if self.plain else strassen_planes.pack(problems[0], filters)

    def pack_bias(self, problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
        """Return the bias of each filter."""
        return pairs.Patches(self.patch).pack_bias(problem, bias) if self.patch else planes.pack_bias(problem, bias)

    def plan_of(
        self, problems: Sequence[ConvProblem], threads: int, in_line: bool, all_rows: int = 0
    ) -> strassen_planes.Plan:
        """Cut the convolution into tasks."""
        form = _lined(problems[0])
        if self.patch:
            return strassen_planes.plan(form, threads, self.plain, "pairs", self.patch)
        return strassen_planes.plan(form, threads, self.plain, "beside", all_rows=all_rows)

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

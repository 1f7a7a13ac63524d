"""Strassen's algorithm, one level of it: 1 × 1 kernels with 7 products of matrices where the direct sum takes 8.

"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import strassen_panels, strassen_plan, strassen_planes
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.loading import once
from npconv.problem import ConvProblem


class Filters:
    """Filters (K, C, 1, 1, 1), and sums of them for pixels, or filters, in the vectors, made when these are met."""

    def __init__(self, problem: ConvProblem, weight: np.ndarray) -> None:
        self._problem, self._weight = problem, weight

    @property
    def plain(self) -> strassen_planes.Filters:
        """Return them as they are, if they lie in rows or side by side."""
        return strassen_planes.plain(self._weight)

    @once
    def in_planes(self) -> strassen_planes.Sums:
        """Return the sums for pixels in the vectors."""
        return strassen_planes.pack(self._problem, self.plain)

    @once
    def in_panels(self) -> strassen_panels.Weights:
        """Return the sums for filters in the vectors."""
        return strassen_panels.pack(self._problem, self._weight)


class Plan(NamedTuple):
    """A problem's numbers for both."""

    panels: strassen_panels.Plan
    planes: strassen_planes.Plan | None

    @property
    def tasks(self) -> int:
        """How many there are."""
        return (self.planes or self.panels).tasks

    @property
    def scratch(self) -> tuple[int, np.dtype[Any]]:
        """What a task works in."""
        return (self.planes or self.panels).scratch


class Engine(NamedTuple):
    """The engine for sums of filters that are made beforehand, or by the tasks, of ``plain`` filters."""

    of_plain: bool

    pack, pack_bias = Filters, staticmethod(strassen_panels.pack_bias)

    def plan(self, problem: ConvProblem, threads: int) -> Plan:
        """Cut a canonical problem into tasks."""
        lanes = VECTOR_BYTES // problem.compute_dtype.itemsize
        taken = strassen_plan.in_planes(problem, lanes, threads)
        planes = strassen_planes.plan(problem, threads, self.of_plain) if taken else None
        return Plan(strassen_panels.plan(problem, threads), planes)

    def fixed(
        self, plan: Plan, x_layout: np.ndarray, epilogue: np.ndarray, out_layout: np.ndarray, threads: int
    ) -> Callable[..., None]:
        """Return a function that fills ``out``, of ``x``, ``weights`` and ``bias``, in these memory orders."""
        layouts = x_layout, epilogue, out_layout, threads
        in_planes = strassen_planes.fixed(plan.planes, *layouts) if plan.planes is not None else None
        if in_planes is None:
            in_panels = strassen_panels.fixed(plan.panels, *layouts)
            return lambda x, weights, bias, out: in_panels(x, weights.in_panels, bias, out)
        if self.of_plain:
            return lambda x, weights, bias, out: in_planes(x, weights.plain, bias, out)
        return lambda x, weights, bias, out: in_planes(x, weights.in_planes, bias, out)


of_sums, of_plain = Engine(False), Engine(True)

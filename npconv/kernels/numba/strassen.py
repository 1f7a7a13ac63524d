"""Strassen's algorithm, one level of it: 1 × 1 kernels with 7 products of matrices where the direct sum takes 8.

A 1 × 1 convolution is the product of a matrix of pixels × channels with one of channels × filters. Each is cut into
quarters, A and B, by halves of some pixels, of the channels, and of the filters, and

    S1 = A21 + A22    S2 = S1 - A11    S3 = A11 - A21    S4 = A12 - S2
    T1 = B12 - B11    T2 = B22 - T1    T3 = B22 - B12    T4 = B21 - T2

    U = A11 B11 + S2 T2    V = U + S3 T3
    C11 = A11 B11 + A12 B21    C12 = U + S1 T1 + S4 B22    C21 = V + A22 T4    C22 = V + S1 T1

which is Winograd's form, of 15 additions. There are two ways to compute it. With pixels in the vectors, planes are met
as they are (`npconv.kernels.numba.strassen_planes`): at the sizes of known networks it takes 7 to 12 % less than the
direct sums of `npconv.kernels.numba.planes`, in calls that bring plain weights, too. With filters in the vectors, it
takes pixels of any number, whose channels lie side by side (`npconv.kernels.numba.strassen_panels`).

*How far it is off.* Strassen mixes channel c with c + C/2, and so multiplies numbers that never meet in the direct sum.
A large weight of the one channel and a large number of the other would leave the error of their product in results that
hold nothing of that size: a factor of 10⁶ in each, 10⁶ eps of max Σ|x||w|. So channels are scaled, by powers of two,
such that the largest weight of each is in [1, 2) (Ballard et al.), which leaves 11 eps. The largest number then meets
such a weight somewhere, so that max Σ|x||w| is as large, and an error that is small against the largest number is small
against this, too. For constants, spikes, offsets, channels of all sizes and few weights, errors came to less than half
of the bound of ``precision="default"``; to 45 eps where each single addition loses what it can. It is no proof, as for
all fast products of matrices (Higham, ch. 23): what is mixed counts as if it met (`npconv.precision`). Where hundreds
of channels, each copied by one filter, have partners that other filters add up, and which are all but zero in this
image, the direct sums are of one number each, and errors grow with the channels: 24, 38, 74 and 96 eps of them were met
with 256, 512, 1024 and 2048, the last of which are refused. Images are never mixed: no task has pixels of two.

Two levels, 49 products of 64, would cost what they save with filters in the vectors: three sums of each number instead
of two, and half as many pixels to each weight that streams in, which alone takes 5 %. With pixels in them that was not
tried.

Strassen, *Gaussian elimination is not optimal* (1969); Huang et al., *Strassen's algorithm reloaded* (2016), for making
the sums while packing and finishing, not in passes of their own; Ballard et al., *Improving the numerical stability of
fast matrix multiplication* (2016); Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., ch. 23, for the
form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels.numba import strassen_panels, strassen_plan, strassen_planes
from npconv.kernels.numba.rows import Filters, as_they_lie
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.loading import once
from npconv.problem import ConvProblem


class SummedFilters:
    """Filters (K, C, 1, 1, 1), and sums of them for pixels, or filters, in the vectors, made when these are met."""

    def __init__(self, problem: ConvProblem, weight: np.ndarray) -> None:
        self._problem, self._weight = problem, weight

    @property
    def plain(self) -> Filters:
        """Return them as they are, if they lie in rows or side by side."""
        return as_they_lie(self._weight, may_turn=True)

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
    """The engine for sums of filters that are made beforehand, or by the tasks."""

    of_plain: bool
    """Whether tasks make them, where pixels are in the vectors."""

    def pack(self, problem: ConvProblem, weight: np.ndarray) -> SummedFilters:
        """Return filters (K, C, 1, 1, 1), which are summed up when they are met."""
        return SummedFilters(problem, weight)

    def pack_bias(self, problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
        """Return the bias, with room behind it for the filters of a panel."""
        return strassen_panels.pack_bias(problem, bias)

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

"""The sizes of Winograd's minimal filterings, along an axis.

F(m, r) makes m results of r taps from m + r - 1 products (`npconv.kernels.numba.winograd`). At stride s, taps of one
residue modulo s meet samples of one residue: they are a filter of their own, at stride 1, and the results are the sums
of all. F(4, 3) at stride 2 so takes 5 products for taps 0 and 2, and 4 for tap 1: 9 instead of 12.
"""

from __future__ import annotations

from typing import NamedTuple

from npconv.problem import ConvProblem


class Filtering(NamedTuple):
    """``outputs`` results of so many taps at a stride.

    Examples
    --------
    >>> [(f.phases, f.points, f.reach) for f in (Filtering(4, 3, 1), Filtering(4, 3, 2))]
    [([3], 6, 6), ([2, 1], 9, 9)]
    """

    outputs: int
    taps: int
    stride: int

    @property
    def phases(self) -> list[int]:
        """The taps of each residue modulo the stride."""
        return [len(range(first, self.taps, self.stride)) for first in range(min(self.taps, self.stride))]

    @property
    def points(self) -> int:
        """Products."""
        return sum(self.outputs + taps - 1 for taps in self.phases)

    @property
    def pace(self) -> int:
        """Samples from one tile to the next."""
        return self.outputs * self.stride

    @property
    def reach(self) -> int:
        """Samples that a tile meets."""
        return (self.outputs - 1) * self.stride + self.taps


def axes(problem: ConvProblem, outputs: int) -> tuple[Filtering, Filtering]:
    """Return the filterings of height and width that make so many results, or one along an axis of one tap."""
    _, *kernel = problem.three(problem.kernel_size)
    _, *stride = problem.three(problem.stride)
    down, across = (Filtering(outputs if r > 1 else 1, r, s) for r, s in zip(kernel, stride, strict=True))
    return down, across

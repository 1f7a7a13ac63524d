"""The sizes of Winograd's minimal filterings, along an axis.

F(m, r) makes m results of r taps from m + r - 1 products (`npconv.kernels.numba.winograd`). At stride s, taps of one
residue modulo s meet samples of one residue: they are a filter of their own, at stride 1, and the results are the sums
of all. F(4, 3) at stride 2 so takes 5 products for taps 0 and 2, and 4 for tap 1: 9 instead of 12.

With zeros between samples, as in a transposed convolution, results of one residue meet the taps of one residue: each is
a filtering of its own, and they meet the same samples. 8 results of 4 taps, every second sample being there, so take 2
times 5 products instead of 16.
"""

from __future__ import annotations

from typing import NamedTuple

from npconv.problem import ConvProblem


class Phase(NamedTuple):
    """A filtering at stride 1: some results of a tile, of some of its samples, with some of the taps."""

    results: slice
    samples: slice
    taps: slice
    number: int
    """Of taps."""


class Filtering(NamedTuple):
    """``outputs`` results of so many taps at a stride, for each residue of results modulo ``up``.

    Every ``up``-th sample is there, and the first result meets the first of them with tap ``lead``.

    Examples
    --------
    >>> filterings = Filtering(4, 3, 1), Filtering(4, 3, 2), Filtering(4, 3, 1, 2, 1)
    >>> [([phase.number for phase in f.phases], f.points, f.reach, f.results) for f in filterings]
    [([3], 6, 6, 4), ([2, 1], 9, 9, 4), ([1, 2], 9, 5, 8)]
    """

    outputs: int
    taps: int
    stride: int
    up: int = 1
    lead: int = 0

    @property
    def phases(self) -> list[Phase]:
        """The filterings at stride 1, one for each residue that has taps."""
        found = []
        for residue in range(self.stride):
            number = len(range(residue, self.taps, self.stride))
            for result in range(self.up):
                first = (self.lead - result) % self.up
                if self.up > 1:
                    number = len(range(first, self.taps, self.up))
                if number > 0:
                    begin = residue + int(result > self.lead)
                    end = begin + (self.outputs + number - 2) * self.stride + 1
                    found.append(
                        Phase(
                            slice(result, None, self.up),
                            slice(begin, end, self.stride),
                            slice(residue + first, None, self.stride * self.up),
                            number,
                        )
                    )
        return found

    @property
    def points(self) -> int:
        """Products."""
        return sum(self.outputs + phase.number - 1 for phase in self.phases)

    @property
    def results(self) -> int:
        """Results of a tile."""
        return self.outputs * self.up

    @property
    def pace(self) -> int:
        """Samples from one tile to the next."""
        return self.outputs * self.stride

    @property
    def reach(self) -> int:
        """Samples that a tile meets."""
        return int(max(phase.samples.stop for phase in self.phases))


def axes(problem: ConvProblem, outputs: int) -> tuple[Filtering, Filtering]:
    """Return the filterings of height and width that make so many results, or one along an axis of one tap."""
    _, *kernel = problem.three(problem.kernel_size)
    _, *stride = problem.three(problem.stride)
    _, *up = problem.three(problem.up or (1,) * problem.rank)
    before = [pad % u for (pad, _), u in zip(((0, 0), (0, 0), *problem.padding)[-2:], up, strict=True)]
    down, across = (
        Filtering(outputs if r > 1 else 1, r, s, u, lead)
        for r, s, u, lead in zip(kernel, stride, up, before, strict=True)
    )
    return down, across

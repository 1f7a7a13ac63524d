"""The sizes of Winograd's minimal filterings, along an axis.

F(m, r) makes m results of r taps from m + r - 1 products (`npconv.kernels.numba.winograd`). At stride s, taps of one
residue modulo s meet samples of one residue: they are a filter of their own, at stride 1, and the results are the sums
of all. F(4, 3) at stride 2 so takes 5 products for taps 0 and 2, and 4 for tap 1: 9 instead of 12. These 4 are all with
the tap itself, which is one number: transformed filters of 3 × 3 taps have 6 × 6 for 9 × 9 points. Or all are taken at
the points of the longest, *folded*: samples of two residues are then two channels of one image, whose points are summed
up as those of other channels are. That takes more products, but fewer points, which are what is transformed back: for
3 results of 7 taps, 6 points of twice as many channels, instead of 11 points.

Long kernels at stride 1 are folded, too: in blocks of 3 or 4 taps, each of which is a filter of its own, whose samples
begin where the block before ends. 4 results of 9 taps so take 3 times 6 products instead of 36.

With zeros between samples, as in a transposed convolution, results of one residue meet the taps of one residue: each is
a filtering of its own, and they meet the same samples. 8 results of 4 taps, every second sample being there, so take 2
times 5 products instead of 16.

The last tile of an axis may have fewer results than others, and is then *short*: m results of r taps need m + r - 1
points, and the filters are transformed to those, and more. 14 results by F(4, 3) so are 3 tiles of 6 points and one of
4: in an image 484 products for a filter and channel, and not 576. (It is the more exact, too.)
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

from npconv.problem import ConvProblem

MOST_POINTS = 6
"""Points of a filtering, at most. With 7, F(4×4, 4×4) was off by up to 70 eps, and with 8, F(6×6, 3×3) by 130, where
few samples and taps are not zero: more than the 64 that ``precision="default"`` promises. Those of 6 are within 20."""

MOST_TOGETHER = 10
"""Points of several filterings that are taken together. With 11 × 11 for 5 × 5 and 7 × 7 elements at stride 2,
gradients took up to twice as long as with 7 × 7 and 9 × 9: transforms have more numbers than there are registers."""

MEETING, LINE = 1024, 64
"""Bytes of a pixel's numbers in multiples of which the 36 pixels of a tile take each other's places in the first-level
cache, which has 64 sets of 8 lines; and bytes of a line."""

UNFOLDED = 4
"""Taps up to which residues of a stride are filterings of their own."""

WHOLE = 5
"""Taps up to which those at stride 1 are one filter. In blocks of 3, 5 would take as many products, and more points."""


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
    >>> filterings = Filtering(4, 3, 1), Filtering(4, 3, 2), Filtering(4, 3, 1, 2, 1), Filtering(3, 7, 2)
    >>> [([phase.number for phase in f.phases], f.points, f.reach, f.results) for f in filterings]
    [([3], 6, 6, 4), ([2, 1], 9, 9, 4), ([1, 2], 9, 5, 8), ([4, 3], 6, 6, 3)]
    >>> [([phase.number for phase in f.phases], f.points) for f in (Filtering(3, 7, 1), Filtering(4, 9, 1))]
    [([4, 3], 6), ([3, 3, 3], 6)]
    >>> Filtering(4, 3, 2).numbers
    (0, 1, 2, 3, 4, 5, 5, 5, 5)
    >>> [Filtering(4, 3, 1, short=2).kept, Filtering(4, 3, 2, short=1).kept]
    [(0, 1, 2, 5), (0, 4, 5)]
    """

    outputs: int
    taps: int
    stride: int
    up: int = 1
    lead: int = 0
    short: int = 0
    """Outputs that are made, of a last tile that has fewer; or 0."""

    @property
    def phases(self) -> list[Phase]:
        """The filterings at stride 1, one for each residue that has taps, or block of them."""
        found = []
        if self.in_blocks:
            block = self.block
            for first in range(0, self.taps, block):
                taps = slice(first, min(first + block, self.taps))
                samples = slice(first, taps.stop + self.outputs - 1)
                found.append(Phase(slice(None), samples, taps, taps.stop - first))
            return found
        # Strides may be of any length, and most of their residues have no taps.
        results = sorted((self.lead - tap) % self.up for tap in range(min(self.up, self.taps)))
        for residue in range(min(self.stride, self.taps)):
            number = len(range(residue, self.taps, self.stride))
            for result in results:
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
    def in_blocks(self) -> bool:
        """Whether blocks of taps are folded."""
        return self.taps > WHOLE and self.stride == self.up == 1

    @property
    def block(self) -> int:
        """Taps of a block: 4 or 3, so that there are as few products as can be, for 3 results or 4."""
        return min((4, 3), key=lambda taps: -(-self.taps // taps) * MOST_POINTS / (MOST_POINTS + 1 - taps))

    @property
    def fold(self) -> int:
        """The blocks of taps, or the stride if its residues are folded, which those of long kernels are; else 1."""
        if self.in_blocks:
            return -(-self.taps // self.block)
        return self.stride if self.taps > UNFOLDED else 1

    @property
    def steps(self) -> tuple[int, int]:
        """How many samples lie from one pixel to the next where they are folded, and from one of its parts to the next.

        A pixel's parts are its residues, or what the blocks of taps meet.
        """
        return (1, self.block) if self.in_blocks else (self.fold, 1)

    @property
    def points(self) -> int:
        """Points of a tile, in each channel that it has then."""
        return _points(self)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Which number of a transformed filter each point is multiplied with: those of a single tap are all one."""
        return _numbers(self)

    @property
    def number(self) -> int:
        """How many numbers a transformed filter has."""
        return self.numbers[-1] + 1

    @property
    def kept(self) -> tuple[int, ...]:
        """Which points a short tile takes: of each filtering the first ones, and of several taps infinity, its last."""
        return _kept(self)

    @property
    def saved(self) -> float:
        """What share of the points a short tile does not take."""
        return 1 - len(self.kept) / self.points if self.short else 0.0

    @property
    def results(self) -> int:
        """Results of a tile, that is not short."""
        return self.outputs * self.up

    @property
    def pace(self) -> int:
        """Samples from one tile to the next, of a residue if they are folded."""
        return self.outputs if self.fold > 1 else self.outputs * self.stride

    @property
    def reach(self) -> int:
        """Samples that a tile meets, of a residue if they are folded."""
        return _reach(self)


@cache
def _points(axis: Filtering) -> int:
    points = [axis.outputs + phase.number - 1 for phase in axis.phases]
    return max(points) if axis.fold > 1 else sum(points)


@cache
def _numbers(axis: Filtering) -> tuple[int, ...]:
    if axis.fold > 1:
        return tuple(range(axis.points))
    found: list[int] = []
    for phase in axis.phases:
        points = axis.outputs + phase.number - 1
        first = found[-1] + 1 if found else 0
        found += [first] * points if phase.number == 1 else range(first, first + points)
    return tuple(found)


@cache
def _kept(axis: Filtering) -> tuple[int, ...]:
    made, first = axis.short or axis.outputs, 0
    found: list[int] = []
    of_taps = [phase.number for phase in axis.phases]
    for taps in [max(of_taps)] if axis.fold > 1 else of_taps:
        points = axis.outputs + taps - 1
        kept = range(made) if taps == 1 else (*range(made + taps - 2), points - 1)
        found += [first + point for point in kept]
        first += points
    return tuple(found)


@cache
def _reach(axis: Filtering) -> int:
    return axis.points if axis.fold > 1 else int(max(phase.samples.stop for phase in axis.phases))


@lru_cache(maxsize=1024)
def axes(problem: ConvProblem, outputs: tuple[int, int]) -> tuple[Filtering, Filtering]:
    """Return the filterings of height and width that make so many results, or one along an axis of one tap."""
    _, *kernel = problem.three(problem.kernel_size)
    _, *stride = problem.three(problem.stride)
    _, *up = problem.three(problem.up or (1,) * problem.rank)
    before = [pad % u for (pad, _), u in zip(((0, 0), (0, 0), *problem.padding)[-2:], up, strict=True)]
    down, across = map(_longest, outputs, kernel, stride, up, before)
    return down, across


SAVED, ENOUGH, CHANNELS = 0.04, 8, 16
"""Where last tiles may be short: what of an axis' products this saves, at least, as transforms are compiled for it; the
tiles that there are together, at least, as few are multiplied as four are; and channels, at least: fewer than a vector
holds are written over the next tile's, which must come later."""


@lru_cache(maxsize=1024)
def last_axes(problem: ConvProblem, outputs: tuple[int, int]) -> tuple[Filtering, Filtering]:
    """Return the filterings of the last tiles down and across, short ones if there are such.

    The images of all residues of a dilation are alike then.
    """
    both, steps, sizes = axes(problem, outputs), problem.three(problem.dilation)[1:], problem.three(problem.output_size)
    tiles = [-(-size // (step * axis.results)) for axis, step, size in zip(both, steps, sizes[1:], strict=True)]
    channels = problem.in_channels // problem.groups * both[0].fold * both[1].fold
    images = problem.batch * steps[0] * steps[1] if problem.groups == 1 else 1
    alike = all(size % step == 0 for size, step in zip(sizes[1:], steps, strict=True))
    if not alike or images * tiles[0] * tiles[1] < ENOUGH or channels < CHANNELS:
        return both

    def of(axis: Filtering, number: int, step: int, size: int) -> Filtering:
        rest = size // step % axis.results
        if not rest or axis.up > 1:
            return axis
        found = axis._replace(short=rest)
        return found if found.saved >= SAVED * number else axis

    down, across = map(of, both, tiles, steps, sizes[1:])
    return down, across


GRADIENT = 4
"""Elements of a result's gradient, along an axis, that a piece of it has, if there are points for so many."""


@lru_cache(maxsize=1024)
def of_gradient(problem: ConvProblem) -> tuple[Filtering, Filtering]:
    """Return the filterings of height and width that give the gradient of a weight, of the convolution that makes it.

    Its results are the taps, its dilation is the stride.
    """
    _, *taps = problem.three(problem.output_size)
    _, *stride = problem.three(problem.dilation)
    down, across = (_longest(GRADIENT, n, s, 1, 0) for n, s in zip(taps, stride, strict=True))
    return down, across


@lru_cache(maxsize=1024)
def _longest(outputs: int, taps: int, stride: int, up: int, lead: int) -> Filtering:
    """Return the filtering of so many results, or of as many as there are points for."""
    found = Filtering(outputs if taps > 1 else 1, taps, stride, up, lead)
    most = max(phase.number for phase in found.phases)
    found = found._replace(outputs=max(min(found.outputs, MOST_POINTS + 1 - most), 1))
    while found.points > MOST_TOGETHER and found.outputs > 1:
        found = found._replace(outputs=found.outputs - 1)
    return found


def pitch_of(elements: int, itemsize: int) -> int:
    """Return how far apart pixels of so many numbers lie, lest those of a tile all meet in a few sets of the cache.

    256 channels of 7 × 7, folded to 1024, so take less than half the time: with 16 filters at 40² 3.0 ms and not 7.3.
    """
    return elements + LINE // itemsize if elements * itemsize % MEETING == 0 else elements


def elements_of(problem: ConvProblem, axes: tuple[Filtering, Filtering]) -> int:
    """Return how many products of points are summed up for one."""
    return problem.in_channels // problem.groups * problem.three(problem.kernel_size)[0] * axes[0].fold * axes[1].fold

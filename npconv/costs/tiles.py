"""How many Winograd tiles a result has, and a task may have: by a problem and the results of a tile."""

from __future__ import annotations

import math

from npconv.kernels import filtering
from npconv.kernels.numba.blocking import tiles_at_once
from npconv.problem import ConvProblem

Tile = tuple[int, int]
"""Results down and across; (1, 1) is no tile."""


def axes(problem: ConvProblem, tile: Tile) -> tuple[filtering.Filtering, filtering.Filtering]:
    """Return the filterings of height and width, which are none without tiles."""
    return filtering.axes(problem, tile)


def points(problem: ConvProblem, tile: Tile) -> int:
    """Return the points of a Winograd tile."""
    return math.prod(axis.points for axis in axes(problem, tile))


def most(problem: ConvProblem, tile: Tile, threads: int) -> int:
    """Return how many Winograd tiles a task may have."""
    if tile == (1, 1):
        return 0
    return tiles_at_once(problem, axes(problem, tile), threads)


def images(problem: ConvProblem, tile: Tile) -> tuple[int, int]:
    """Return how many images are cut into Winograd tiles, one for each residue of a dilation, and their tiles."""
    steps, sizes = problem.three(problem.dilation)[1:], problem.three(problem.output_size)
    tiles = [-(-n // (d * axis.results)) for n, d, axis in zip(sizes[1:], steps, axes(problem, tile), strict=True)]
    return problem.batch * sizes[0] * math.prod(steps), math.prod(tiles)


def number(problem: ConvProblem, tile: Tile) -> int:
    """Return the Winograd tiles of a problem: images of some residues are a row, or a column, smaller than others.

    Of 32 to 224 channels at 25² with dilation 6 there are 49, and not 144: 200 µs, and not 496, as was thought.
    """
    steps, sizes = problem.three(problem.dilation)[1:], problem.three(problem.output_size)
    tiles = problem.batch * sizes[0]
    for n, d, axis in zip(sizes[1:], steps, axes(problem, tile), strict=True):
        least, longer = divmod(n, d)  # results of a residue, and residues that have one more
        tiles *= longer * -(-(least + 1) // axis.results) + (d - longer) * -(-least // axis.results)
    return tiles


def taken(problem: ConvProblem, tile: Tile) -> float:
    """Return what share of their points the tiles take, of which the last may be short."""
    steps, sizes = problem.three(problem.dilation)[1:], problem.three(problem.output_size)[1:]
    shares = (
        1 - axis.saved / max(-(-n // (d * axis.results)), 1)
        for n, d, axis in zip(sizes, steps, filtering.last_axes(problem, tile), strict=True)
    )
    return math.prod(shares)


def together(problem: ConvProblem, tile: Tile, threads: int) -> int:
    """Return of how many such images a task may have the tiles, as `npconv.kernels.numba.blocking.tiled` tells."""
    number_of_images, tiles = images(problem, tile)
    alike = 1 if problem.groups > 1 else number_of_images // (problem.three(problem.output_size)[0] or 1)
    return max(min(alike, most(problem, tile, threads) // max(tiles, 1)), 1)


def largest(problem: ConvProblem, tile: Tile, most: int) -> tuple[int, int]:
    """Return the tiles of a Winograd result down and across that a task may have, which has so many at most.

    As in `npconv.kernels.numba.blocking.tiled`: rows of tiles are cut into as few parts as can be, or one more.
    """
    sizes, steps = problem.three(problem.output_size)[1:], problem.three(problem.dilation)[1:]
    down, across = (
        max(-(-n // (d * axis.results)), 1) for n, d, axis in zip(sizes, steps, axes(problem, tile), strict=True)
    )
    least = -(-across // most)
    shares = (-(-across // parts) for parts in range(least, min(least + 2, across + 1)))
    return max(((min(down, most // share), share) for share in shares), key=math.prod)

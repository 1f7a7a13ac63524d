"""How Winograd's tiles are cut where a call brings plain weights, for `npconv.kernels.numba.winograd_plain`."""

from __future__ import annotations

from typing import NamedTuple

from npconv.kernels.filtering import Filtering, axes, pitch_of
from npconv.kernels.numba import blocking
from npconv.kernels.numba.blocking import SPARE
from npconv.problem import ConvProblem

ROOM = 2**18
"""Bytes of what is packed at once of a panel, and of its sums with all tiles that it meets, at most."""

ELEMENTS_AT_ONCE, TILES = 64, 128
"""Elements of a panel that are packed at once, and tiles that it meets, at most."""

PACK = 0.55
"""Tiles whose products with a panel take as long as its packing, for each tap of a filter."""

LEAST = 16
"""Tiles of a band or a section, if there are so many: to pack a panel takes as long as its products with a third."""


class Cut(NamedTuple):
    """How a problem's tiles are cut into bands and sections."""

    segments: int
    tile_columns: int
    """Of a line."""

    width: int
    """Channels that are packed at once."""

    lines: int
    band: int
    share: int
    """Lines of a band, and of a section."""

    together: int
    """Lines of tiles that are transformed together."""

    loaded: int
    """Numbers of the input that they meet."""

    bytes: int
    """Of workspace."""


def cut(problem: ConvProblem, outputs: tuple[int, int], threads: int, wide: int) -> Cut:
    """Cut a problem into bands and sections, for panels of ``wide`` filters."""
    down, across = axes(problem, outputs)
    n, itemsize = down.points * across.points, problem.compute_dtype.itemsize
    _, y_step, x_step = problem.three(problem.dilation)
    depth, height, width = problem.three(problem.output_size)
    tile_rows, columns = -(-height // (y_step * down.results)), -(-width // (x_step * across.results))
    most = max(min(ROOM // (n * wide * itemsize), TILES), LEAST)
    planes, folds = problem.three(problem.kernel_size)[0], down.fold * across.fold
    width = _together(problem, n, wide, folds)
    planes *= folds
    elements = -(-problem.in_channels // width) * width * planes
    room = blocking.engine_limit(problem)
    # A line is cut where the points of all of it are too many, too.
    segments = -(-columns // max(min(most, room // (2 * n * elements * itemsize)), LEAST))
    tile_columns = -(-columns // segments)
    lines = problem.batch * depth * y_step * x_step * segments * tile_rows
    room -= threads * scratch(problem, (down, across), most, tile_columns, wide) * itemsize
    band = blocking.even(lines, max(room // (n * elements * tile_columns * itemsize), -(-LEAST // tile_columns)))
    panels = -(-problem.out_channels // wide)
    least = -(-band // max(most // tile_columns, 1))
    shares = {-(-band // sections) for sections in range(least, least + threads + 1)}

    def time(share: int) -> float:
        return -(-panels * -(-band // share) // threads) * (share * tile_columns + PACK * problem.taps)

    share = min(sorted(shares, reverse=True), key=time)
    reach = (tile_columns - 1) * across.pace + across.reach
    together = max(min(blocking.CACHE // (reach * down.pace * width * planes * itemsize), band, tile_rows), 1)
    numbers = planes // folds * pitch_of(width * folds, itemsize)
    loaded = ((together - 1) * down.pace + down.reach) * reach * numbers
    used = n * elements * band * tile_columns
    used += threads * max(scratch(problem, (down, across), share * tile_columns, tile_columns, wide), loaded)
    return Cut(segments, tile_columns, width, lines, band, share, together, loaded, used * itemsize)


def scratch(problem: ConvProblem, axes: tuple[Filtering, Filtering], tiles: int, tile_columns: int, wide: int) -> int:
    """Return the numbers that a task works in."""
    n = axes[0].points * axes[1].points
    planes, folds = problem.three(problem.kernel_size)[0], axes[0].fold * axes[1].fold
    numbers = n * (tiles + SPARE) + SPARE + axes[0].results * axes[1].results * tile_columns
    numbers += n * (_together(problem, n, wide, folds) * planes * folds | 1) + problem.taps * blocking.piece(problem)
    return numbers * wide + 5 * 64


def _together(problem: ConvProblem, n: int, wide: int, folds: int) -> int:
    """Return the channels that are packed at once: whole pieces, which fill a vector, and the last ones do, too."""
    piece, channels = blocking.piece(problem), problem.in_channels
    elements = max(min(ROOM // (n * wide * problem.compute_dtype.itemsize), ELEMENTS_AT_ONCE), wide)
    parts = -(-channels * problem.three(problem.kernel_size)[0] * folds // elements)
    least = -(-wide // folds)
    width = max(-(-channels // (parts * piece)), -(-least // piece)) * piece
    while channels > width and 0 < channels % width < least:
        width += piece
    return width

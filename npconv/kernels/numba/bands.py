"""How Winograd's tiles are cut where a call brings plain weights, for `npconv.kernels.numba.winograd_plain`."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from npconv.kernels.filtering import Filtering, axes, pitch_of
from npconv.kernels.numba import blocking
from npconv.kernels.numba.blocking import SPARE
from npconv.problem import ConvProblem

ROOM, SUMS = 5 * 2**16, max(2**18, blocking.SECOND_LEVEL // 2)
"""Bytes of what is packed at once of a panel, and of its sums with all tiles that it meets, at most. With half of a
mebibyte for sums instead of a quarter, 320 to 192 channels at 35² take 1.95 ms instead of 2.4, 256 at 56² 5.3 instead
of 5.8."""

ELEMENTS_AT_ONCE, ELEMENTS_OF_OWN, TILES = (64, 32), 32, 128
"""Elements of a panel that are packed at once, about, of tiles that others meet, too, or of a task's own, of which 64
took as long; and tiles that it meets, at most. In two threads 128 channels at 56², stride 2, of which 32 at once need
one band, take 754 µs instead of 972; 160 at 20² 389, and with 64 at once, the last of which are 32, 413. More than 64
take 5 to 15 % longer."""

PACK, BEGIN = 0.55, 2
"""Tiles whose products with a panel take as long as its packing, for each tap of a filter, and to begin with it."""

LINE = 64
"""Numbers that a line of the cache has, at most."""

ENOUGH = 16
"""Tiles of a section whose filters may be transformed for it alone, where they could be for all."""

LEAST = 16
"""Tiles of a band or a section, if there are so many: to pack a panel takes as long as its products with a third."""


MANY = 4
"""How many more sections a thread may have than need be, for all threads to have as much to do."""


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

    own: bool
    """Whether a section has all filters, and points of its own; then there is one band, as high as a section."""

    groups: int = 1
    """Each of which has so many lines; points that all share are of one."""

    together: int = 0
    """Lines of tiles that are transformed together."""

    loaded: int = 0
    """Numbers of the input that they meet."""

    scratch: int = 0
    """Numbers that a task of a section works in."""

    bytes: int = 0
    """Of workspace."""

    @property
    def pays(self) -> bool:
        """Whether it is as fast to transform filters for each section as for all.

        Tasks that make points of their own have no others to wait for: in two threads 32 channels at 56² so take 120 µs
        instead of 135, or of 218 while the cores share no cache; 64 take 404 instead of 385, or of 443; and 256 → 64 at
        21², 18 tiles a section, 277 instead of 304. With fewer tiles it takes longer: 256 → 64 at 14² 184 instead of
        161. Where they are all that a group has, its filters are transformed once, too.
        """
        alone = self.groups > 1 and self.lines == self.share
        return self.own and (alone or self.share * self.tile_columns >= ENOUGH)


@lru_cache(maxsize=1024)
def cut(problem: ConvProblem, outputs: tuple[int, int], threads: int, wide: int) -> Cut:
    """Cut a problem into bands and sections, for panels of ``wide`` filters: so that these are transformed less often.

    Or as often as there are threads, which then need not wait for what another one has written. In two threads 473 → 12
    channels at 30² take 284 µs with points of tasks' own, and took 1407; 5 × 5 of 736 → 16 at 22² 770 and 1620. With
    more panels the sums of all leave no room for many tiles.
    """
    shared, own = _shared(problem, outputs, threads, wide), _own(problem, outputs, threads, wide)
    if own is None or own.bytes > blocking.engine_limit(problem):
        return shared
    if problem.groups > 1:
        return own
    transformed = -(-shared.lines // shared.band) * -(-shared.band // shared.share)
    return own if -(-own.lines // own.share) <= max(transformed, threads * own.pays) else shared


class _Sizes(NamedTuple):
    """What is known of a problem before it is cut."""

    axes: tuple[Filtering, Filtering]
    points: int
    numbers: int
    """Of a transformed filter."""

    tile_rows: int
    columns: int
    """Of tiles."""

    images: int
    """Of lines, one behind the other."""

    planes: int
    """Elements of a channel: of a kernel's planes, and of residues that are folded."""

    width: int = 0
    """Channels that are packed at once."""


def _sizes(problem: ConvProblem, outputs: tuple[int, int]) -> _Sizes:
    both = axes(problem, outputs)
    down, across = both
    _, y_step, x_step = problem.three(problem.dilation)
    depth, height, width = problem.three(problem.output_size)
    n, numbers, folds = down.points * across.points, down.number * across.number, down.fold * across.fold
    return _Sizes(
        both, n, numbers, -(-height // (y_step * down.results)), -(-width // (x_step * across.results)),
        problem.batch * depth * y_step * x_step, problem.three(problem.kernel_size)[0] * folds,
    )  # fmt: skip


def _finished(problem: ConvProblem, sizes: _Sizes, threads: int, wide: int, found: Cut) -> Cut:
    """Return a cut with what follows from its lines: those that are transformed together, and what is worked in."""
    (down, across), itemsize = sizes.axes, problem.compute_dtype.itemsize
    reach = (found.tile_columns - 1) * across.pace + across.reach
    pixels = blocking.CACHE // (reach * down.pace * found.width * sizes.planes * itemsize)
    together = max(min(pixels, found.share if found.own else found.band, sizes.tile_rows), 1)
    loaded = ((together - 1) * down.pace + down.reach) * _of_row(problem, sizes, found.tile_columns)
    tiles, panels = found.share * found.tile_columns, _panels(problem, wide) if found.own else 1
    scratch = _worked_in(problem, sizes, wide, tiles, found.tile_columns, panels)
    elements = found.width * sizes.planes
    if found.own:
        scratch += sizes.points * (tiles * elements + 2 * LINE) + SPARE * elements + LINE + loaded
        used = threads * scratch
    else:
        points = sizes.points * -(-problem.in_channels // found.width) * elements * found.band * found.tile_columns
        used = points + threads * max(scratch, loaded)
    return found._replace(together=together, loaded=loaded, scratch=scratch, bytes=used * itemsize)


def _own(problem: ConvProblem, outputs: tuple[int, int], threads: int, wide: int) -> Cut | None:
    """Return sections whose sums of all filters, and points of some channels, stay in a core's cache, if they can."""
    sizes = _sizes(problem, outputs)
    down, across = sizes.axes
    piece, least = blocking.piece(problem), -(-wide // (down.fold * across.fold))
    channels, panels = problem.in_channels // problem.groups, _panels(problem, wide)
    width = max(blocking.even(channels * sizes.planes, ELEMENTS_OF_OWN) // sizes.planes, least)
    sizes = sizes._replace(width=-(-width // piece) * piece)
    element, elements = sizes.points * problem.compute_dtype.itemsize, sizes.width * sizes.planes
    packed = sizes.numbers * elements * wide * problem.compute_dtype.itemsize
    room = blocking.SECOND_LEVEL * 3 // 4 - packed  # which a panel's filters leave
    most = min(room // (element * (elements + panels * wide)), TILES)
    if most < LEAST:
        return None
    segments = -(-sizes.columns // most)
    tile_columns = -(-sizes.columns // segments)
    lines = sizes.images * segments * sizes.tile_rows
    least = -(-lines // (most // tile_columns))
    shares = {-(-lines // min(sections, lines)) for sections in range(least, least + MANY * threads)}

    def time(share: int) -> float:
        sections = problem.groups * -(-lines // share)
        return -(-sections // threads) * _of_section(problem, share * tile_columns)

    share = min(sorted(shares, reverse=True), key=time)
    found = Cut(segments, tile_columns, sizes.width, lines, share, share, own=True, groups=problem.groups)
    return _finished(problem, sizes, threads, wide, found)


def _shared(problem: ConvProblem, outputs: tuple[int, int], threads: int, wide: int) -> Cut:
    """Return bands whose points, which all panels meet, leave room in the workspace, and sections of these.

    And as many channels that are packed at once as leave the last ones about as many, or need fewer bands.
    """
    sizes = _sizes(problem, outputs)
    widths = {_together(problem, sizes, wide, elements) for elements in ELEMENTS_AT_ONCE}
    found = [_banded(problem, sizes._replace(width=width), threads, wide) for width in sorted(widths, reverse=True)]
    best = min(found, key=lambda one: one[0])[1]
    return _finished(problem, sizes._replace(width=best.width), threads, wide, best)


def _banded(problem: ConvProblem, sizes: _Sizes, threads: int, wide: int) -> tuple[float, Cut]:
    """Return about how long products and packing take with so many channels at once, and the cut."""
    n, itemsize = sizes.points, problem.compute_dtype.itemsize
    tiles = sizes.images * sizes.tile_rows * sizes.columns
    most = max(min(SUMS // (n * wide * itemsize), TILES, tiles), LEAST)
    elements = -(-problem.in_channels // sizes.width) * sizes.width * sizes.planes
    room = blocking.engine_limit(problem)
    # A line is cut where the points of all of it are too many, too.
    segments = -(-sizes.columns // max(min(most, room // (2 * n * elements * itemsize)), LEAST))
    tile_columns = -(-sizes.columns // segments)
    lines = sizes.images * segments * sizes.tile_rows
    loaded = sizes.axes[0].reach * _of_row(problem, sizes, tile_columns)  # of one line, at least
    room -= threads * max(_worked_in(problem, sizes, wide, most, tile_columns), loaded) * itemsize
    band = blocking.even(lines, max(room // (n * elements * tile_columns * itemsize), -(-LEAST // tile_columns)))
    panels = -(-problem.out_channels // wide)
    least = -(-band // max(most // tile_columns, 1))
    shares = {-(-band // sections) for sections in range(least, least + threads + 1)}

    def time(share: int) -> float:
        return -(-panels * -(-band // share) // threads) * _of_section(problem, share * tile_columns)

    share = min(sorted(shares, reverse=True), key=time)
    channels = -(-problem.in_channels // sizes.width) * sizes.width  # the last ones take almost as long
    cost = channels * -(-lines // band) * time(share)
    return cost, Cut(segments, tile_columns, sizes.width, lines, band, share, own=False)


def _of_section(problem: ConvProblem, tiles: int) -> float:
    """Return how long a section of so many tiles takes with a panel, which it packs: in products of a tile with one."""
    return tiles + PACK * problem.taps + BEGIN


def _of_row(problem: ConvProblem, sizes: _Sizes, tile_columns: int) -> int:
    """Return the numbers of a row of the input that a line of tiles meets, of the channels that are packed at once."""
    down, across = sizes.axes
    folds = down.fold * across.fold
    pixel = sizes.planes // folds * pitch_of(sizes.width * folds, problem.compute_dtype.itemsize)
    return ((tile_columns - 1) * across.pace + across.reach) * pixel


def _panels(problem: ConvProblem, wide: int) -> int:
    """Return the panels of a group's filters."""
    return -(-(problem.out_channels // problem.groups) // wide)


def _worked_in(problem: ConvProblem, sizes: _Sizes, wide: int, tiles: int, tile_columns: int, panels: int = 1) -> int:
    """Return the numbers that a task works in, besides points of its own."""
    down, across = sizes.axes
    numbers = panels * (sizes.points * (tiles + SPARE) + SPARE) + down.results * across.results * tile_columns
    numbers += sizes.numbers * (sizes.width * sizes.planes | 1) + problem.taps * blocking.piece(problem)
    return numbers * wide + 5 * LINE


def _together(problem: ConvProblem, sizes: _Sizes, wide: int, elements: int) -> int:
    """Return the channels that are packed at once, in whole pieces: of about so many elements, or fewer if even.

    The last ones may be less than a vector: what is written behind them is of the same tile.
    """
    piece, channels = blocking.piece(problem), problem.in_channels
    elements = max(min(ROOM // (sizes.numbers * wide * problem.compute_dtype.itemsize), elements), wide)
    parts = -(-channels * sizes.planes // elements)
    least = -(-wide // (sizes.axes[0].fold * sizes.axes[1].fold))
    return max(-(-channels // (parts * piece)), -(-least // piece)) * piece

"""How a result is cut into tasks: rectangles that fit a core's cache, enough of them for all threads."""

from __future__ import annotations

import math
from heapq import heapreplace
from pathlib import Path
from typing import NamedTuple

from npconv.kernels.filtering import Filtering, elements_of
from npconv.problem import ConvProblem


def _second_level() -> int:
    """Return the bytes of a core's second-level cache; half a mebibyte if the system does not tell."""
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text(encoding="ascii")
        return int(size.strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 2**19


CACHE = 2**18
"""Bytes that a task's input and result should fit: half of a small second-level cache, the weights stream through the
other half."""

SECOND_LEVEL = _second_level()
"""Bytes of a core's second-level cache on this machine."""

TASKS_PER_THREAD = 4
"""Tasks that each thread should get, so that none waits long for another."""

TOLERANCE = 1.02
"""How much longer than with the best cut it may take with more tasks, which even out what else the machine does."""


ENGINE_LIMIT, ENGINE_FREE = 2**26, 2**20
"""Engines may take as much as input, weight and result together, but no more than 64 MiB. A mebibyte, which two cores'
caches hold, is free."""


def engine_limit(*problems: ConvProblem) -> int:
    """Return the bytes of workspace over which ``"auto"`` passes an engine by; some problems have one input."""
    arrays = problems[0].input_bytes + sum(one.weight_bytes + one.output_bytes for one in problems)
    return min(arrays + ENGINE_FREE, ENGINE_LIMIT)


def share(problem: ConvProblem, threads: int, packed: int = 0) -> int:
    """Return the bytes that each of some threads may work in: of what ``packed`` weights leave of `engine_limit`.

    A quarter of a mebibyte in any case: with many threads, or large weights, fewer of them run.
    """
    return max((engine_limit(problem) - packed) // threads, CACHE)


def room_beside(panel: int) -> int:
    """Return the bytes that a task's input may take where panels of filters, of so many bytes each, pass it by.

    Three quarters of what a panel leaves of the second-level cache. Where that is less than half of the cache, the
    input does not stay there anyway, and what helps is that more pixels meet the filters: on a Zen 3 core, strict sums
    of 512 channels at 28² take 46 ms instead of 55, with dilation 2 50 instead of 80, those of 1024 at 14² 53 instead
    of 70. In two threads it is a tenth with dilation 2, and little else. (With all that a panel leaves, 256 channels at
    28² with dilation 2 took a tenth longer.) At least a quarter of a mebibyte, at most a whole one.
    """
    room = (SECOND_LEVEL - panel) * 3 // 4
    if 2 * room < SECOND_LEVEL:
        room = 2 * SECOND_LEVEL
    return min(max(room, CACHE), 2**20)


ELEMENTS = 144
"""Elements of a panel's filters that are packed at once: they stay in the first-level cache until they are written.

16 channels of 3 × 3 filters: with 96, of which 10 are, a function of 128 channels at 28² took 378 µs, and takes 370."""


def piece(problem: ConvProblem) -> int:
    """Return the channels of a panel that are packed at once: so that some pieces fill a line of the cache."""
    at_once = max(ELEMENTS // problem.taps, 1)
    return min(1 << (at_once.bit_length() - 1), problem.in_channels // problem.groups)


GATHERED = 2**24
"""Bytes of pixels that a stride meets which are put side by side for all tasks, at most."""


def gathers(problem: ConvProblem, lanes: int) -> bool:
    """Whether slivers have the pixels that a stride meets: they are put side by side, or cut from where they are.

    Half a sliver passes sooner through a slab than through an array of its own.
    """
    if problem.positions <= lanes or problem.taps > 1 or max(problem.stride) == 1 or any(map(any, problem.padding)):
        return False
    met = problem.batch * problem.in_channels * problem.positions * problem.compute_dtype.itemsize
    return met <= GATHERED and in_slivers(problem)


def may_be_halved(problem: ConvProblem, lanes: int) -> bool:
    """Whether these are cut from where they are, if a row's pixels lie side by side: every second one of every row.

    A vector has those of two rows at most, and a sliver is full.
    """
    height, width = (1, *problem.output_size)[-2:]
    return gathers(problem, lanes) and problem.stride[-1] == 2 and width >= lanes and height * width >= 2 * lanes


def apart(number: int) -> int:
    """Return at least ``number``, as the distance of points of so many rows: odd, lest all meet in one cache set."""
    return number | 1


SPARE = 6
"""Pixels more than there are that starts and results have room for: the last tile may repeat the last pixel."""

PIXELS, LEAST, SMALL = 256, 24, 64
"""Pixels of a task of the direct sum, if the cache has room for what they need, and at least; and those that images are
put together for, because a tile takes pixels of several of them."""


WAY = 2**12
"""Bytes of a way of the first-level cache: numbers so far apart meet in its sets."""


def side_by_side(problem: ConvProblem, pitch: int) -> bool:
    """Whether panels of filters of one tap, which lie side by side, are met where they are, rows a ``pitch`` apart.

    Not where rows meet in the sets of the caches: a gradient of 1000 → 2048 channels at 10² takes 4.4 ms when the
    filters are packed, and would take 5.4.
    """
    step = pitch * problem.compute_dtype.itemsize
    return step % WAY != 0 or step * problem.in_channels <= SECOND_LEVEL


def meetings(problem: ConvProblem) -> int:
    """Return how many tasks of the direct sum meet a panel of filters, at least."""
    depth, height, width = problem.three(problem.output_size)
    together = max(SMALL // (height * width or 1), 1)
    return -(-problem.batch // together) * depth * -(-height * width // PIXELS)


def in_rows(problem: ConvProblem) -> bool:
    """Whether the direct sum meets rows of patches where they are, if pixels of a row lie side by side.

    That is, patches that do not overlap, of channels that are too few to be transposed well: 4 → 16 channels at 241²,
    4 × 4 at stride 4, so take 55 µs instead of 138. With many filters it pays for long rows alone, as to begin with one
    takes as long as some products: 3 → 96 at 224² took 177 µs instead of 167, 3 → 768 by 16 × 16 take 1030, once 1065.
    """
    rows, filters = problem.kernel_size[-1], problem.out_channels // problem.groups
    few = problem.in_channels // problem.groups < 8 and rows > 1 and (rows >= 8 or filters <= 64)
    apart = all(k <= s for k, s in zip(problem.kernel_size, problem.stride, strict=True))
    padded = problem.padding_mode == "zeros" and any(map(any, problem.padding))  # others are made before
    return few and apart and not padded and set(problem.dilation) == {1} and not problem.channels_last


def in_slivers(problem: ConvProblem) -> bool:
    """Whether the filters of a group are so many that slivers of pixels pay (`npconv.kernels.numba.planes`).

    With more than one tap, and some channels, a slab of rows is met in place: what a tap finds there is moved by a
    pixel from what the tap before finds, and to copy it for each takes as long as products with some filters.
    """
    filters = problem.out_channels // problem.groups
    few = 40 if problem.taps > 1 and problem.in_channels // problem.groups >= 8 else 11
    return filters > few


LAST, LANES, LAST_AT_ONCE = 1.25, 2, 4
"""How many times as long a plane's last pixels take as others, if their channels are in the vectors
(`npconv.kernels.numba.last_pixels`); how many slivers' worth of channels take as long as to add up the lanes; and the
pixels of a tile."""


def left_over(pixels: int, sliver: int, channels: int) -> int:
    """Return how many of a plane's pixels are computed so: what slivers of so many leave, in whole tiles, or none.

    As many as take less than another sliver, and half of one at most. Some of a tile may belong to slivers, too.

    Examples
    --------
    >>> [left_over(pixels, 32, 64) for pixels in (196, 169, 49, 784, 20)]
    [4, 12, 0, 0, 0]
    >>> left_over(784, 32, 128)
    16
    """
    left = (pixels % sliver + LAST_AT_ONCE - 1) // LAST_AT_ONCE * LAST_AT_ONCE
    fits = pixels >= sliver >= 2 * LAST_AT_ONCE and 2 * left <= sliver and channels >= sliver // 2
    return left if fits and LAST * left * (channels + LANES * sliver) <= sliver * channels else 0


def others_for(left: int, sliver: int, channels: int) -> float:
    """Return how many other pixels take as long as so many that are left over."""
    return LAST * left * (1 + LANES * sliver / max(channels, 1))


def slivers_of(pixels: int, sliver: int, channels: int) -> float:
    """Return how many slivers of so many pixels take as long as some of a plane, what is left over as that does.

    Examples
    --------
    >>> [slivers_of(pixels, 32, 256) for pixels in (36, 48, 49, 64)]
    [1.1953125, 1.78125, 2.0, 2.0]
    """
    left = left_over(pixels, sliver, channels)
    return -(-(pixels - left) // sliver) + others_for(left, sliver, channels) / sliver


PIXELS_OF_QUARTERS = 100
"""Pixels of a task of products by quarters, at most: enough for the weights to stream in well, and few enough for
products of a pair of panels to stay in the first-level cache. 1024 to 256 channels at 14² take 0.55 ms with 98 and 0.58
with 49, though the sums of 98 take more than the second-level cache."""


DENSE = 4
"""Images, of results of one position, from which on some are met at a time."""


def in_pairs(problem: ConvProblem) -> bool:
    """Whether rows of filters and of images meet as they lie (`npconv.kernels.numba.inner`).

    So they do if there are some images; or planes of several channels, as a weight gradient of several images has them,
    which need not be put one behind the other then.
    """
    many, line = max(problem.batch, problem.out_channels), 64 // problem.compute_dtype.itemsize
    planes = problem.in_channels > 1 and problem.taps >= line
    return (problem.batch >= DENSE or planes) and many >= 8 and problem.products >= line and not problem.turned


SIDE_BY_SIDE = 4
"""Filters of a tile of `dots` where a group has so many."""


def results_at_once(results: int, registers: int) -> int:
    """Return the results of a tile with `SIDE_BY_SIDE` filters, so that there are as few tiles of as many as can be.

    A tile of r loads r + 4 vectors, most of which lie across lines of the cache, for 4 r products: with 3, as many as
    16 registers hold, loading takes longer than multiplying. With 5, 7 × 7 results of 3 → 64 filters at 224², stride
    2, take 1.11 ms instead of 1.31, 7 × 7 at 85² 113 µs instead of 139; with 6 of 7 × 7 1.31 and 129. But 3 × 3, of
    which 3 leave none in vain, take 235 µs instead of 219 with 5, at 112².
    """
    fitting = (3, 4, 5) if registers >= 32 else (3,)
    return min(fitting, key=lambda rows: -(-results // rows) * (SIDE_BY_SIDE * rows + 2))


PARTS, PLANE = 6, 4
"""Parts of filters that planes meet one after the other, at most; and those whose products take as long as to load a
plane."""


def shared_filters(filters: int, at_once: int, planes: int, threads: int) -> tuple[int, float]:
    """Return how many filters a task has that computes so many at once of a plane: all, or as share out few planes.

    And how many times as long the products then take as with all threads at work. The gradient of 3 → 80 filters at
    183², stride 2, has 3 planes, and took 297 µs in two threads instead of 234.
    """
    rounds = {}
    for parts in range(1, PARTS + 1):
        share = min(-(-filters // (parts * at_once)) * at_once, filters)
        number = -(-filters // share)
        if number == 1 or filters - (number - 1) * share >= at_once:  # else the last tile would be of others', too
            rounds[share] = -(-planes * number // threads)
    share = min(rounds, key=lambda share: rounds[share] * (share + PLANE))
    return share, rounds[share] * share * threads / (planes * filters)


class Blocks(NamedTuple):
    """Rows and columns of a task's rectangle, and its panels of filters."""

    rows: int
    columns: int
    panels: int


def even(size: int, most: int) -> int:
    """Return the largest share when ``size`` is cut into as few pieces of at most ``most`` as there can be."""
    pieces = -(-size // max(most, 1))
    return -(-size // pieces)


EVEN, MANY = 0.95, 8
"""How much sooner tasks have to be done to be dealt out in turns; and tasks of a thread from which on it is no help."""


def in_turns(block: Blocks, height: int, width: int, others: int, panels: int, threads: int) -> bool:
    """Return whether tasks, of rectangles of height × width, are of such sizes that it is better to deal them in turns.

    Else a thread has those that lie side by side (`npconv.kernels.numba.calls.run`).

    Examples
    --------
    >>> [in_turns(Blocks(rows, columns, 1), 7, 7, 1, 1, 2) for rows, columns in ((2, 7), (4, 4))]
    [False, True]
    """
    number = -(-height // block.rows) * -(-width // block.columns) * -(-panels // block.panels) * others
    if threads == 1 or number >= MANY * threads:  # before as many are told, as images may be of any size
        return False
    sizes = [
        min(block.rows, height - y) * min(block.columns, width - x)
        for y in range(0, height, block.rows)
        for x in range(0, width, block.columns)
    ]
    parts = [min(block.panels, panels - first) for first in range(0, panels, block.panels)]
    tasks = [part * size for part in parts for _ in range(others) for size in sizes]
    aside = [sum(tasks[len(tasks) * t // threads : len(tasks) * (t + 1) // threads]) for t in range(threads)]
    dealt = [0] * threads
    for number, task in enumerate(tasks):
        turn, thread = divmod(number, threads)
        dealt[threads - 1 - thread if turn % 2 else thread] += task
    return max(dealt) < EVEN * max(aside)


def blocks(
    height: int, width: int, pixels: int, others: int, panels: int, threads: int, load: float = 0.1, together: int = 0,
    border: float = 0, channels: int = 0,
) -> Blocks:  # fmt: skip
    """Return rectangles of at most ``pixels`` of height × width, and how many panels a task should have.

    ``others`` is the number of images, planes and groups, each of which is cut so. Each task loads its input, which
    takes as long as ``load`` panels: fewer tasks load less, more tasks are shared out better. Two threads so get 4
    rectangles rather than 3, all panels of each: 256 → 64 channels at 56² took 10 % longer with 3 in two halves. So
    many pixels are computed ``together``, even if there are less; or what is left over with so many ``channels`` in the
    vectors, if these are told. Rectangles of one plane share lines of the cache where they meet, which threads that
    write to them take from each other: that takes as long as a ``border`` of so many pixels, for each panel. Without
    panels it is 0, and rectangles are as large as they may: of depthwise convolutions, more of them took up to 1.7
    times as long. (Of one panel, all of a small image was one task: with AVX-512, 144 to 32 channels at 28² took 81 µs
    by `planes` in two threads, and take 45; 512 to 24 at 5² by `direct`, 7 × 7, 359 and 224.)
    """
    columns = even(width, pixels if width > pixels else width)
    rows = even(height, pixels // columns)
    shares = {-(-panels // parts) for parts in range(1, (panels if threads > 1 else 1) + 1)}
    times = {}
    for more in range(threads if panels > 1 or together else 1):
        block = (rows, _fewer(width, columns, more)) if rows == 1 else (_fewer(height, rows, more), columns)
        pieces = -(-height // block[0]) * -(-width // block[1])
        rectangles, shared = others * pieces, border * (threads > 1 and pieces > 1)
        for share in shares:
            rounds = -(-rectangles * -(-panels // share) // threads)
            each = slivers_of(block[0] * block[1], max(together, 1), channels)
            times[Blocks(*block, share)] = rounds * ((share + load) * each + share * shared)
    best = TOLERANCE * min(times.values())
    return min((block for block, time in times.items() if time <= best), key=lambda block: block.panels)


def _fewer(size: int, most: int, more: int) -> int:
    """Return the largest share of ``size`` in so many ``more`` pieces than shares of at most ``most`` make."""
    return -(-size // min(-(-size // most) + more, max(size, 1)))


TILES = 8, 64
"""Winograd tiles of a task, with which the weights stream in well: at least these, as far as there are so many, and at
most. 512 channels at 28² take 11.7 ms on a Zen 3 core with 49 tiles a task and 13 with 14; 128 take 0.76 and 0.80.
(Of 16 at least, the limit of workspace leaves one thread where a small image has many channels and few filters: 448 to
32 at 13² took 0.26 ms, and take 0.16. With 6, 512 to 16 channels of 7 × 7 took up to 1.8 times as long.)"""

WEIGHTS, PIECE = 1.0, 16
"""How long it takes to begin with a panel, in products of a tile with it, and to write a piece of a row of tiles: so
many products of a point. In whole rows 3 to 64 channels at 224² take 0.96 ms in two threads instead of 1.45, and 1.92
instead of 2.23 in one; 8 to 64 at 112² 0.27 instead of 0.38."""


def tiles_at_once(problem: ConvProblem, axes: tuple[Filtering, Filtering], threads: int) -> int:
    """Return how many Winograd tiles, by filterings of height and width, a task may have at most.

    All threads share `engine_limit`. Packed weights share it, too, if they leave enough. Calls with larger ones pack
    them within their tasks.
    """
    least, most = TILES
    itemsize, elements = problem.compute_dtype.itemsize, elements_of(problem, axes)
    points, room = axes[0].points * axes[1].points, engine_limit(problem)
    packed = axes[0].number * axes[1].number * elements * (problem.out_channels + 32) * itemsize
    # A tile's pixels, and its share of those that its neighbours meet, too, or the sums of a panel, and their results.
    pixels = math.prod(axis.pace + (axis.reach - axis.pace) / 3 for axis in axes)
    size = points * elements * itemsize + max(pixels * elements * itemsize, points * 256)
    if room - packed >= threads * least * size:
        room -= packed
    return min(max(int(room / threads / size), least), most)


def tiled(
    height: int, width: int, most: int, images: int, others: int, panels: int, threads: int, load: float, elements: int,
    saved: tuple[float, float] = (0, 0),
) -> tuple[int, Blocks]:  # fmt: skip
    """Return images whose tiles a task has, rectangles of at most ``most`` Winograd tiles, and panels.

    A point has so many ``elements``, and last tiles down and across take so many fewer points, which are ``saved``, as
    a share of all; the other arguments are those of `blocks`. All threads shall be busy to the end:
    where there are few tasks, those at the edges, which are smaller, decide which cut is best: 7 × 7 tiles in rows of
    2, 2, 2 and 1 leave two threads with 28 and 21, in blocks of 4 and 3 with 24 and 25. Of cuts that are as good, the
    one of most tasks evens out best what else the machine does. Several images, of which a task can have all tiles, are
    taken together: as rows of tiles of one image.
    """
    together, piece = most // (height * width) if height * width else 1, PIECE / elements
    if min(together, images) > 1:
        shares = {-(-images // parts) for parts in range(-(-images // together), images + 1)}
        sizes = [(share * height, width) for share in shares if 2 * share > min(together, images)]
        block = _best(sizes, images * height, width, others, panels, threads, load, WEIGHTS, piece, halo=0.5)
        return block.rows // height, Blocks(height, width, block.panels)
    sizes = []
    first = -(-width // most)
    for across in range(first, min(first + 2, width) + 1):
        columns = -(-width // across)
        upper = -(-height // (most // columns))
        sizes += [(-(-height // down), columns) for down in range(upper, min(upper + 2, height) + 1)]
    return 1, _best(sizes, height, width, images * others, panels, threads, load, WEIGHTS, piece, 0.5, saved)


def lined(
    height: int, width: int, most: int, others: int, panels: int, threads: int, load: float, begin: float
) -> Blocks:
    """Return whole rows of at most ``most`` pixels, or parts of a row, and panels, in the same way.

    To begin with a panel takes as long as ``begin`` products of a pixel with it. Rows that are cut are loaded and
    written in short pieces, which cost more than uneven shares: 14 pixels of 28 a tenth of all.
    """
    if width > most:
        first = -(-width // most)
        sizes = [(1, -(-width // across)) for across in range(first, 2 * first + 1)]
    else:
        rows = min(most // width, height)
        sizes = [(n, width) for n in range(-(-rows // 2), rows + 1)]
    return _best(sizes, height, width, others, panels, threads, load, begin, piece=0, halo=0)


def _best(
    sizes: list[tuple[int, int]], height: int, width: int, others: int, panels: int, threads: int, load: float,
    begin: float, piece: float, halo: float, saved: tuple[float, float] = (0, 0),
) -> Blocks:  # fmt: skip
    """Return the rectangle of these that takes the shortest time, with some panels.

    To begin with a panel takes as long as ``begin`` products with it, to write a row of results as ``piece`` of them.
    What is ``saved`` of the last rows and columns is no product.
    """
    shares = {-(-panels // parts) for parts in range(1, (panels if threads > 1 else 1) + 1)}
    cuts = []
    for rows, columns in dict.fromkeys(sizes):
        corners = [(y, x) for y in range(0, height, rows) for x in range(0, width, columns)]
        rectangles = [(min(rows, height - y), min(columns, width - x)) for y, x in corners]
        products = [
            (down - saved[0] * (y + down == height)) * (across - saved[1] * (x + across == width) + piece) + begin
            for (down, across), (y, x) in zip(rectangles, corners, strict=True)
        ]
        loads = [load * (down + halo) * (across + halo) for down, across in rectangles]
        cuts += [
            (duration(products, loads, others, panels, share, threads), Blocks(rows, columns, share))
            for share in shares
        ]
    best = TOLERANCE * min(time for time, _ in cuts)
    return max((block for time, block in cuts if time <= best), key=lambda block: _tasks(block, height, width, panels))


def _tasks(block: Blocks, height: int, width: int, panels: int) -> int:
    return -(-height // block.rows) * -(-width // block.columns) * -(-panels // block.panels)


def duration(products: list[float], loads: list[float], others: int, panels: int, share: int, threads: int) -> float:
    """Return how long all tasks take, in products of a tile with a panel, if threads take them in order."""
    parts = -(-panels // share)
    total = others * (sum(products) * panels + sum(loads) * parts)
    if threads == 1 or others * len(products) * parts > min(16 * threads, 256):
        return total / threads + (threads > 1) * (products[0] * share + loads[0]) / 2
    busy = [0.0] * threads
    for _ in range(others):
        for part in range(parts):
            here = min(share, panels - part * share)
            for product, filling in zip(products, loads, strict=True):
                heapreplace(busy, busy[0] + product * here + filling)
    return max(busy)

"""Pixels times filters: the product that all fast kernels spend their time in, and how its weights are packed.

A register tile is up to six pixels times two vectors of filters. For each element of a filter it takes one number of
each pixel, broadcast, and two vectors of the packed weights, and keeps the sums in registers from the first element to
the last. Weights are packed in *panels*, as many filters side by side as a tile's row holds, element after element, so
that they are read in one stream; zeros fill the last panel.

A pixel's numbers are a few *runs*, the same for all pixels, each beginning somewhere behind the pixel's own start, and
with one of the filters' elements. Long
sums are cut into chains, as `npconv.kernels.summation` tells, two products at a time.

Goto and van de Geijn, *Anatomy of high-performance matrix multiplication* (2008), is where the blocking comes from.
Their inner blocks, parts of 128 or 224 elements of a panel that stay in the first-level cache while they meet all
pixels of a task, were tried and cost 2 to 10 %: the sums go through memory between the parts, and a panel comes fast
enough from the second level. Prefetching it gained nothing either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npconv.kernels import host
from npconv.kernels.numba import blocking, buffers, jit
from npconv.kernels.numba.blocking import ELEMENTS
from npconv.kernels.numba.calls import calling
from npconv.kernels.numba.lean import max, min, tuple_of
from npconv.kernels.numba.moves import BLOCK, blank, copy, move, transpose
from npconv.kernels.numba.tile import COLUMNS, LEAST_ROWS, ROWS, VECTOR_BYTES
from npconv.kernels.numba.vector import (
    activated,
    add,
    add_row,
    add_to,
    lanes_of,
    multiply_add,
    prefetch,
    prefetch_to_write,
    starts_from,
    store,
    zeros,
)
from npconv.problem import ConvProblem
from npconv.threads import get_num_threads


def width(dtype: Any) -> int:
    """Return the filters of a panel."""
    return COLUMNS * VECTOR_BYTES // int(np.dtype(dtype).itemsize)


@jit.inline
def width_of(numbers):  # type: ignore[no-untyped-def]
    """Return the filters of a panel of an array's dtype."""
    return COLUMNS * lanes_of(numbers)


TASKS = 16
"""Tasks of a packing, or all there are. Each is of channels side by side, and comes after one of another panel: threads
that wrote side by side took each other's lines of the cache, and two were slower than one, up to twice."""


LINE, ANY, MATRIX = 1, 2, 3
"""How the taps of a weight lie that is not contiguous: in a line, forwards or backwards; or anyhow; or there is one,
whose filters lie side by side, and as `blocking.side_by_side` has them."""


(
    NUMBER, PIECES, CHANNELS, FILTERS, TAPS, KIND, FIRST, TO_FILTER, TO_CHANNEL, TO_PLANE, TO_LINE, TO_TAP,
    DEPTH, HEIGHT, WIDTH, SHARE, PANELS, TOGETHER, FILL,
) = range(19)  # fmt: skip
"""Places of the numbers of a packing: panels of a group, and pieces of a panel; channels and filters of a group; taps,
and how they lie; the first element, and steps from one to the next; sizes of the kernel; channels of a piece; panels of
all groups; pieces of a task; and the part that fills what `load_filters` tells."""


class Weights(NamedTuple):
    """Plain filters, which tasks pack for themselves, and the numbers of their packing."""

    numbers: np.ndarray
    packing: np.ndarray


class Packing(NamedTuple):
    """The numbers of a packing, as its kernel takes them."""

    tasks: int
    sizes: np.ndarray
    scratch: tuple[int, np.dtype[Any]]
    flat: Callable[[np.ndarray], np.ndarray]
    """Returns a weight as flat memory, which ends with its last element."""


def packing(problem: ConvProblem, weight: np.ndarray) -> Packing:
    """Cut the packing of filters (K, C/groups, kd, kh, kw), of this weight's strides, into tasks.

    These have some channels of a panel. What is packed at once is a *piece*, and a task some of them. Filters of
    gradients and transposed convolutions are views with the channels swapped and the taps reversed.
    """
    channels, filters = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    wide = width(problem.compute_dtype)
    share = blocking.piece(problem)
    number, pieces = -(-filters // wide), -(-channels // share)
    panels = problem.groups * number
    together = -(-pieces // min(-(-TASKS // max(panels, 1)), pieces))
    if any(step % weight.itemsize for step in weight.strides):
        weight = np.ascontiguousarray(weight)
    steps, first, flat = host.in_memory(weight)
    _, _, depth, height, columns = weight.shape
    if weight.flags.c_contiguous:
        kind, first, flat = 0, 0, np.ndarray.ravel  # which copies those of odd strides
    else:
        tap = steps[4] if columns > 1 else 1 if height == 1 and depth == 1 else 0
        in_line = abs(tap) == 1 and (height == 1 or steps[3] == tap * columns)
        kind = LINE if in_line and (depth == 1 or steps[2] == tap * columns * height) else ANY
        in_matrix = problem.groups == problem.taps == steps[0] == 1 and steps[1] >= filters
        if in_matrix and blocking.side_by_side(problem, steps[1]):
            kind = MATRIX
    sizes = [number, pieces, channels, filters, problem.taps, kind, first, *steps, depth, height, columns, share]
    fill = "rows" if kind == 0 else "lines" if kind == LINE and problem.taps >= BLOCK else "any"
    sizes += [panels, together, _FILLS[fill].address(problem.compute_dtype)]
    scratch = problem.taps * share * wide, problem.compute_dtype
    return Packing(panels * -(-pieces // together), np.array(sizes), scratch, flat)


def plain_packer(problem: ConvProblem, weight: np.ndarray) -> Callable[[np.ndarray], Weights]:
    """Return what makes `Weights` of filters (K, C/groups, kd, kh, kw) of this weight's strides."""
    cut = packing(problem, weight)
    return lambda weight: Weights(cut.flat(weight), cut.sizes)


def panel_packer(problem: ConvProblem, weight: np.ndarray) -> Callable[[np.ndarray], Weights]:
    """Return what makes `Weights` of filters of one group that `pack` has packed, which tasks then make more of."""
    pack, wide, channels = packer(problem, weight), width(problem.compute_dtype), problem.in_channels
    sizes = packing(problem, weight).sizes
    sizes[[FIRST, TO_FILTER, TO_CHANNEL, TO_PLANE]] = 0, channels * problem.taps, wide, channels * wide  # to each tap
    sizes[FILL] = _FILLS["panels"].address(problem.compute_dtype)
    return lambda weight: Weights(pack(weight), sizes)


def packed_like(problem: ConvProblem, elements: int) -> Callable[[], np.ndarray]:
    """Return what makes room for the panels of a problem's weight, of so many elements each, flat."""
    wide, dtype = width(problem.compute_dtype), problem.compute_dtype
    panels = problem.groups * -(-(problem.out_channels // problem.groups) // wide)
    size = panels * elements * wide * dtype.itemsize
    return lambda: buffers.aligned(size).view(dtype)


WORTH = 2
"""Packed numbers that take as long as one product of a kernel's work: over threads from a hundred thousand on."""


def pack(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """Return filters (K, C/groups, kd, kh, kw) as panels, the channels of a tap side by side, group after group."""
    return packer(problem, weight)(weight)


def packer(problem: ConvProblem, weight: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what does so with weights of this one's strides.

    What is known without their numbers is found once: small calls of a function, of 60 to 140 µs,
    so took 8 to 15 less.
    """
    make, threads = packed_like(problem, problem.products), get_num_threads()
    work = make().size // WORTH
    if problem.taps == 1 and problem.groups == 1 and not weight.flags.c_contiguous:
        matrix = weight[:, :, 0, 0, 0].T
        if matrix.flags.c_contiguous:
            channels, filters = matrix.shape
            in_lines = _pack_lines.fixed(-(-channels // AT_ONCE), work, threads)
            shape = np.array([channels, filters])

            def pack_lines(weight: np.ndarray) -> np.ndarray:
                packed = make()
                in_lines(weight[:, :, 0, 0, 0].T.reshape(-1), packed, shape)
                return packed

            return pack_lines
    cut = packing(problem, weight)
    in_pieces = _pack.fixed(cut.tasks, work, threads, scratch=cut.scratch)

    def pack(weight: np.ndarray) -> np.ndarray:
        packed = make()
        in_pieces(cut.flat(weight), packed, cut.sizes)
        return packed

    return pack


AT_ONCE = 16
"""Channels of a task that packs filters which lie side by side. Those of a panel alone, a line of the cache for each,
came two and a half times as slowly as when whole rows of filters are read: 400 µs for 2048 × 512."""


@jit.Kernel
def _pack_lines(task, weight, packed, sizes):  # type: ignore[no-untyped-def]
    """Pack some channels of 1 × 1 filters that lie side by side, as a gradient's do."""
    wide = width_of(packed)
    channels, filters = sizes[0], sizes[1]
    first = task * AT_ONCE
    last = min(first + AT_ONCE, channels)
    for k in range(0, filters, wide):
        for channel in range(first, last):
            at, source = k * channels + channel * wide, channel * filters + k
            if k + wide <= filters:
                copy(packed, at, weight, source)
            else:
                blank(packed, at, COLUMNS)
                for lane in range(filters - k):
                    move(packed, at + lane, weight, source + lane)


@jit.scratch_kernel()
def _pack(task, taps_of, weight, packed, sizes):  # type: ignore[no-untyped-def]
    """Pack some channels of a panel."""
    panel, first, last = pieces_of(task, sizes)
    at = panel * sizes[CHANNELS] * sizes[TAPS] * width_of(packed)
    for piece in range(first, last):
        pack_piece(packed, at, panel, piece, taps_of, weight, sizes)


@jit.inline
def pack_piece(packed, at, panel, piece, taps_of, weight, sizes):  # type: ignore[no-untyped-def]
    """Write a piece of a panel, which begins at ``packed[at]``, the channels of a tap side by side."""
    wide, (channels, _, taps, kind, _, to_filter, to_channel) = width_of(packed), tuple_of(sizes, 2, 7)
    channel, count, wanted, start = _place(panel, piece, wide, sizes)
    at += channel * wide
    full = wanted == wide and wide >= BLOCK
    if kind == 0 and full and taps == 1 and count >= BLOCK:
        _transpose_filters(packed, at, wide, weight, start, to_filter, wide, count)
    elif kind == 0 and full and taps >= ELEMENTS:
        for c in range(count):
            source = start + c * to_channel
            _transpose_filters(packed, at + c * wide, channels * wide, weight, source, to_filter, wide, taps)
    elif kind != 0 and taps == 1 and to_filter == 1 and wanted == wide:
        for c in range(count):
            copy(packed, at + c * wide, weight, start + c * to_channel)
    else:
        load_filters(panel, piece, taps_of, weight, sizes)
        for c in range(count):
            for tap in range(taps):
                copy(packed, at + (tap * channels + c) * wide, taps_of, (c * taps + tap) * wide)


@jit.inline
def pieces_of(task, sizes):  # type: ignore[no-untyped-def]
    """Return a task's panel, its first piece and the one after its last."""
    part, panel = divmod(task, sizes[PANELS])
    return panel, part * sizes[TOGETHER], min((part + 1) * sizes[TOGETHER], sizes[PIECES])


@jit.inline
def _place(panel, piece, wide, sizes):  # type: ignore[no-untyped-def]
    """Return a piece's first channel, its number of channels and of filters, and where its weight begins."""
    number, _, channels, filters, _, _, start, to_filter, to_channel = tuple_of(sizes, 0, 9)
    g, k = divmod(panel, number)
    channel = piece * sizes[SHARE]
    start += (g * filters + k * wide) * to_filter + channel * to_channel
    return channel, min(sizes[SHARE], channels - channel), min(wide, filters - k * wide), start


@jit.inline
def load_filters(panel, piece, taps_of, weight, sizes):  # type: ignore[no-untyped-def]
    """Fill ``taps_of`` (channel, tap, filter) for a piece of a panel.

    Return its first channel, how many it has, and how many filters.
    """
    channel, count, wanted, start = _place(panel, piece, width_of(weight), sizes)
    _fill(sizes[FILL], (taps_of, weight, sizes, start, wanted, count))
    return channel, count, wanted


@jit.inline
def _transpose_filters(taps_of, at, step, weight, start, to_filter, filters, elements):  # type: ignore[no-untyped-def]
    """Write the elements of some filters, which lie side by side, to rows that are ``step`` apart.

    Blocks are transposed, the last of them overlapping the one before.
    """
    if filters >= BLOCK and elements >= BLOCK:
        for begin in range(0, elements, ELEMENTS):
            for lane in range(0, filters, BLOCK):
                lane = min(lane, filters - BLOCK)
                for e in range(begin, min(begin + ELEMENTS, elements), BLOCK):
                    e = min(e, elements - BLOCK)
                    transpose(taps_of, at + e * step + lane, step, weight, start + lane * to_filter + e, to_filter)
    else:
        for e in range(elements):
            for lane in range(filters):
                move(taps_of, at + e * step + lane, weight, start + lane * to_filter + e)


def _filling(kind: str) -> jit.Part:
    """Return the part that fills what `load_filters` tells, of weights of a kind.

    They are contiguous, have the taps in a line, lie anyhow, or in panels, as `pack` leaves them. With one for all, and
    one for all results (`npconv.kernels.numba.slab`), a first call of Winograd's had 8 % more to compile.
    """
    rows, lines, panels = (kind == one for one in ("rows", "lines", "panels"))

    def fill_taps(taps_of, weight, sizes, start, wanted, count):  # type: ignore[no-untyped-def]
        wide, taps, to_filter, to_channel = width_of(taps_of), sizes[TAPS], sizes[TO_FILTER], sizes[TO_CHANNEL]
        if wanted < wide and not panels:
            for e in range(count * taps):
                blank(taps_of, e * wide, COLUMNS)
        if rows:
            _transpose_filters(taps_of, 0, wide, weight, start, to_filter, wanted, count * taps)
        elif lines:
            forwards = sizes[TO_TAP] > 0 or sizes[WIDTH] == 1
            for c in range(count):
                to, source = c * taps * wide, start + c * to_channel
                if forwards:
                    _transpose_filters(taps_of, to, wide, weight, source, to_filter, wanted, taps)
                else:
                    to += (taps - 1) * wide
                    _transpose_filters(taps_of, to, -wide, weight, source - taps + 1, to_filter, wanted, taps)
        elif panels:
            for c in range(count):
                for tap in range(taps):
                    copy(taps_of, (c * taps + tap) * wide, weight, start + tap * sizes[TO_PLANE] + c * to_channel)
        else:
            e = 0
            for c in range(count):
                for i in range(sizes[DEPTH]):
                    for j in range(sizes[HEIGHT]):
                        for m in range(sizes[WIDTH]):
                            at = start + c * to_channel + i * sizes[TO_PLANE] + j * sizes[TO_LINE] + m * sizes[TO_TAP]
                            if to_filter == 1 and wanted == wide:
                                copy(taps_of, e * wide, weight, at)
                            else:
                                for lane in range(wanted):
                                    move(taps_of, e * wide + lane, weight, at + lane * to_filter)
                            e += 1

    return jit.Part(fill_taps, _TAPS, kind)


_TAPS = "aaniii"
_fill = calling(_TAPS)
_FILLS = {kind: _filling(kind) for kind in ("rows", "lines", "any", "panels")}


def panel_bias(problem: ConvProblem, bias: np.ndarray | None) -> np.ndarray:
    """Return the bias in the order of the panels of all groups, flat."""
    dtype = problem.compute_dtype
    filters, wide = problem.out_channels // problem.groups, width(dtype)
    packed = np.zeros((problem.groups, -(-filters // wide) * wide), dtype)
    if bias is not None:
        packed[:, :filters] = bias.reshape(problem.groups, filters)
    return packed.reshape(-1)


LINES = max(COLUMNS * VECTOR_BYTES // buffers.LINE, 1)
"""Lines of the cache that a tile's row fills."""


@jit.inline
def ask_for(out, i, count):  # type: ignore[no-untyped-def]
    """Ask for the lines of the cache of ``out[i : i + count]``, which a tile will write, before it computes them.

    Rows of results lie in lines, or pages, apart, which come one after the other where a tile does not ask for all of
    them at once: the more so, the fewer the channels are that it sums up. With pixels in the vectors, 64 → 256 channels
    at 56² so take 5 to 8 % less in two threads, and transposed 2 × 2 of 64 → 32 at 112² a tenth to a sixth; with the
    channels last, 64 → 256 4 % less in two threads, and a quarter on one core. Asked for one tile earlier, or as if
    they were to be read, they gained less.

    Not so where results leave by way of the second-level cache: Winograd's, a panel's asked for before its sums are
    transformed, took up to a tenth longer, Strassen's and those of planes as long, those of depthwise kernels with the
    channels last a tenth longer, and gradients of 1 × 1 weights by outer products as long, or a twentieth longer.
    """
    for line in range(i, i + count, width_of(out) // LINES):
        prefetch_to_write(out, line)
    prefetch_to_write(out, i + count - 1)


def _height(rows, columns):  # type: ignore[no-untyped-def]
    """Return the product for a register tile of ``rows`` pixels and so many vectors of a panel's filters.

    A chain of sums has ``chain`` products, or one more, and ends within a run. As runs of their own, chains took 2 to
    3 % longer: the processor foretells the end of a loop of two products at a time better than of one of each.
    """

    def multiply(result, at, pitch, numbers, starts, pixel, runs, chain, weights, first, step, bias, b, epilogue):  # type: ignore[no-untyped-def]
        wide = width_of(result)
        begins = tuple_of(starts, pixel, rows)
        for row in range(rows):
            ask_for(result, at + row * pitch, wide)
        tile = zeros(result, rows, columns)
        total, end, panel = tile, first + chain * step, first
        for run in range(len(runs)):
            begin, pairs = runs[run, 0], runs[run, 1] // 2 * 2
            first = panel + runs[run, 2] * step
            for element in range(begin, begin + pairs, 2):
                if first >= end:
                    total = add(total, tile)
                    tile = zeros(result, rows, columns)
                    end = first + chain * step
                tile = multiply_add(tile, numbers, begins, element, weights, first)
                tile = multiply_add(tile, numbers, begins, element + 1, weights, first + step)
                first += 2 * step
            if pairs < runs[run, 1]:
                if first >= end:
                    total = add(total, tile)
                    tile = zeros(result, rows, columns)
                    end = first + chain * step
                tile = multiply_add(tile, numbers, begins, begin + pairs, weights, first)
                first += step
        total = add(total, tile)
        total = add_row(total, bias, b)
        if epilogue[0] != 0:
            total = activated(total, epilogue)
        store(total, result, at, pitch)

    return jit.specialised(multiply, rows, columns, within=True)


def _finishing(columns):  # type: ignore[no-untyped-def]
    """Return the product of pixels with so many vectors of a panel's filters."""
    four, five, six = (_height(rows, columns) for rows in range(LEAST_ROWS, ROWS + 1))

    def multiply_tiles(  # type: ignore[no-untyped-def]
        result, at, pitch, numbers, starts, pixels, runs, chain, weights, first, step, bias, b, epilogue
    ):
        # As many tiles as need be, each as high as the others or one row less: 49 pixels are 4 tiles of 6 and 5 of 5.
        tiles = -(-pixels // ROWS)
        least, higher = divmod(pixels, tiles)
        pixel = 0
        for tile in range(tiles):
            height = least + 1 if tile < higher else least
            if height == ROWS:
                six(result, at, pitch, numbers, starts, pixel, runs, chain, weights, first, step, bias, b, epilogue)
            elif height == ROWS - 1:
                five(result, at, pitch, numbers, starts, pixel, runs, chain, weights, first, step, bias, b, epilogue)
            else:
                four(result, at, pitch, numbers, starts, pixel, runs, chain, weights, first, step, bias, b, epilogue)
            pixel += height
            at += height * pitch

    return jit.specialised(multiply_tiles, columns)


_whole, _half = _finishing(COLUMNS), _finishing(1)


@jit.inline
def multiply_and_finish(  # type: ignore[no-untyped-def]
    result, at, pitch, numbers, starts, pixels, runs, chain, weights, first, step, bias, b, epilogue, count
):
    """Write the pixels' products with the panel at ``weights[first]``, with bias and activation, to ``result[at:]``.

    The panel's elements are a ``step`` apart, pixels are ``pitch``. Of fewer than `FEWEST`, some are written that there
    are not. Of a panel's filters those that one vector holds are left out if ``count``, as many as there are, says so.
    """
    if count <= lanes_of(result):
        _half(result, at, pitch, numbers, starts, pixels, runs, chain, weights, first, step, bias, b, epilogue)
    else:
        _whole(result, at, pitch, numbers, starts, pixels, runs, chain, weights, first, step, bias, b, epilogue)


def _sum_height(rows, columns):  # type: ignore[no-untyped-def]
    """Return the sum of products for a register tile."""

    def multiply(sums, at, numbers, first, to_row, to_element, weights, w, count, fresh, asked, pace):  # type: ignore[no-untyped-def]
        wide = width_of(sums)
        begins = starts_from(first, to_row, rows)
        tile = zeros(sums, rows, columns)
        element = 0
        for _ in range(count):
            tile = multiply_add(tile, numbers, begins, element, weights, w)
            for line in range(LINES):
                prefetch(weights, asked + line * (wide // LINES))
            asked += pace
            element += to_element
            w += wide
        if fresh:
            store(tile, sums, at * wide, wide)
        else:
            add_to(tile, sums, at * wide, wide)

    return jit.specialised(multiply, rows, columns, within=True)


def _multiplying(columns):  # type: ignore[no-untyped-def]
    """Return the products of a matrix with so many vectors of a panel.

    Weights come from memory where a network has more of them than the caches hold, or others use these. So those that
    follow, which the next product takes, are asked for meanwhile: each tile asks for its share, so that they come as
    evenly as they are used. If all come while the first tile is computed, memory is what that waits for, and it has
    nothing to do with the others. Asked for by each tile, and of two lines one alone, 256 channels at 14² took 520 µs
    where each call had other weights, and take 355; 512 at 7² 890 and 610, 512 → 2048 at 7² by Strassen's algorithm 585
    and 440. Where all calls have the same, they take as long (320, 560 and 430). Asked for 16 or 32 KB ahead, they took
    2 to 6 % longer; direct sums, whose weights are met in one long row, took 5 % longer if they asked at all.
    """
    four, five, six = (_sum_height(rows, columns) for rows in range(LEAST_ROWS, ROWS + 1))

    def multiply_rows(sums, at, numbers, first, to_row, to_element, rows, weights, w, count, fresh):  # type: ignore[no-untyped-def]
        tiles = -(-rows // ROWS)
        least, higher = divmod(rows, tiles)
        row, wide = 0, width_of(sums)
        asked, pace = w + count * wide, -(-wide // tiles)
        for tile in range(tiles):
            height = least + 1 if tile < higher else least
            start = first + row * to_row
            if height == ROWS:
                six(sums, at + row, numbers, start, to_row, to_element, weights, w, count, fresh, asked, pace)
            elif height == ROWS - 1:
                five(sums, at + row, numbers, start, to_row, to_element, weights, w, count, fresh, asked, pace)
            else:
                four(sums, at + row, numbers, start, to_row, to_element, weights, w, count, fresh, asked, pace)
            asked += count * pace
            row += height

    return jit.specialised(multiply_rows, columns, within=True)


multiply_whole, _multiply_half = _multiplying(COLUMNS), _multiplying(1)
"""``multiply_whole`` does what `multiply_rows` tells for whole panels."""


def multiply_rows(sums, at, numbers, first, to_row, to_element, rows, weights, w, count, fresh, filters):  # type: ignore[no-untyped-def]
    """Write products of a matrix with ``count`` elements of a panel, from row ``at`` on; add them if not ``fresh``.

    The matrix begins at ``numbers[first]``, its rows and elements are so far apart; `LEAST_ROWS` rows are read and
    written even if there are fewer. Of a panel with few ``filters`` the second vectors of rows are left out.

    For the products of transforms, many and short: by a table of starts and runs, as above, those of 64 elements ran at
    85 GFLOP/s on a Zen 3 core, and run at 97.
    """
    if filters <= lanes_of(sums):
        _multiply_half(sums, at, numbers, first, to_row, to_element, rows, weights, w, count, fresh)
    else:
        multiply_whole(sums, at, numbers, first, to_row, to_element, rows, weights, w, count, fresh)


multiply_rows = jit.specialised(multiply_rows, within=True)

"""Filters times pixels: the product with pixels in the vectors.

A register tile is up to six filters times some vectors of neighbouring pixels. For each element of a filter it takes
one number of each filter, broadcast, and the vectors of pixels that the element meets. These lie anywhere in planes, as
a table tells; or, where many filters meet them, in a *sliver*, two vectors of pixels for each element, one behind the
other. Long sums are cut into chains, as `npconv.kernels.summation` tells.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from npconv.kernels.layout import CHANNEL, PIXEL
from npconv.kernels.numba import jit
from npconv.kernels.numba.calls import calling
from npconv.kernels.numba.lean import after, flattened, max, min, tuple_of
from npconv.kernels.numba.moves import BLOCK, copy, copy_few, copy_joined, copy_part, move, transpose
from npconv.kernels.numba.plane_slab import OTHERS
from npconv.kernels.numba.product import LINES, ask_for, width_of
from npconv.kernels.numba.tile import COLUMNS, LEAST_ROWS, ROWS, VECTOR_BYTES
from npconv.kernels.numba.vector import (
    activated,
    add,
    add_column,
    add_from,
    lanes_of,
    multiply_add,
    prefetch,
    starts_from,
    store,
    zeros,
)

ABREAST = 2 if VECTOR_BYTES == 64 else 3
"""Vectors in the row of a tile of three or four filters. Three take a tenth less with AVX2, as each number of a filter
meets more; with AVX-512 they take as long, and small images, of which so many pixels are a whole row, longer."""

IN_PLANES = {1: 8, 2: 4, 3: ABREAST, 4: ABREAST}
"""Vectors in the row of a tile that meets planes, by its number of filters: 6 sums or more, so that few wait.

Higher tiles do not pay: a table, six filters and their elements take more registers than there are."""

AHEAD = 512
"""Products between asking for pixels and cutting them, at least; 256 and 1024 seemed to gain less, in noise."""

HIGHEST = max(IN_PLANES)

WIDEST = max(IN_PLANES.values())


CUTS = "cutting", "halving"
"""The kinds of tiles that cut slivers: of pixels that lie side by side, and of every second one."""


def summing(rows, columns, kind):  # type: ignore[no-untyped-def]
    """Return the function for the sums of the products of ``rows`` filters with ``columns`` vectors of pixels.

    These are in ``"planes"``, in ``"slivers"``, or in slivers after ``"cutting"`` or ``"halving"``: what this loads
    from whole planes of an ``image``, it copies to them. A channel's pixels are a page of memory for themselves, which
    no core foresees, and the time that it takes to get at them passes with products: 256 → 64 channels at 56² take 0.60
    ms instead of 0.64. Those of later slivers are asked for meanwhile, `AHEAD` products before: where other programs
    use the third-level cache, layers of 64 channels take 1.2 to 1.4 times as long without, 64 → 64 at 112² 2.0 ms on a
    core, not 1.46. A core waits for so many lines at most: the next tiles, ``"asking"``, take their share of them,
    which gains another 1 to 3 %, and of 128 → 16 at 224² a tenth. Tiles of which there is one for each sliver, so that
    weights that come from memory would keep each of them waiting, ask for those that ``"following"`` products take.
    (Where all tiles did, others took 1 % less if the weights came from memory, and 1 % longer if not.)

    Elements are taken two at a time, and a chain of sums, of an even number of them, ends within the loop: with a loop
    for each chain, whose end the processor does not foretell, 64 products took 6 to 8 % longer. Nothing, or less, was
    gained with four elements at a time, sums of chains that go through memory (10 %), a bias that the first sum begins
    with (5 %), and a stack that begins with a line of the cache.
    """
    in_planes, cutting, halving, following = kind == "planes", kind in CUTS, kind == "halving", kind == "following"
    asking = cutting or kind == "asking"

    def sums(filters, rows_at, piece, source, offsets, sizes, image, n):  # type: ignore[no-untyped-def]
        chain, elements, _, to_element = sizes
        wide, i = width_of(piece), 0  # of a sliver, of which one vector may be all that is met
        pairs = elements // 2 * 2
        if cutting:
            x, start, pixels, to_channel, _ = image
            origin = 0 if halving else start + pixels[n]
        if asking:
            x, (table, step, begin, further, pace) = image[0], image[4]
            asked = begin + table[step * n]
        if following:
            asked, line = image, wide // LINES
        tile = zeros(piece, rows, columns)
        total, end = tile, chain
        for element in range(0, pairs, 2):
            if element == end:
                total = add(total, tile)
                tile = zeros(piece, rows, columns)
                end += chain
            one, two = tuple_of(offsets, element, 2) if in_planes else (0, wide)
            if cutting:
                cut(piece, source, x, origin, pixels, n)
            if asking:
                prefetch(x, asked)
                prefetch(x, asked + further)
            if following:
                prefetch(filters, asked)
                asked += line
            tile = multiply_add(tile, filters, rows_at, i, piece, source + one)
            if cutting:
                origin += to_channel
                cut(piece, source + wide, x, origin, pixels, n)
                origin += to_channel
            if asking:
                prefetch(x, asked + pace)
                prefetch(x, asked + pace + further)
                asked += 2 * pace
            tile = multiply_add(tile, filters, rows_at, i + to_element, piece, source + two)
            if not in_planes:
                source += 2 * wide
            i += 2 * to_element
        if pairs < elements:
            if cutting:
                cut(piece, source, x, origin, pixels, n)
            last = tuple_of(offsets, pairs, 1)[0] if in_planes else 0
            tile = multiply_add(tile, filters, rows_at, i, piece, source + last)
        return add(total, tile)

    cut = cut_halved if halving else _cut_whole
    return jit.specialised(sums, rows, columns, kind, within=True)


@jit.inline
def ahead_of(elements):  # type: ignore[no-untyped-def]
    """Return how many slivers there are between asking for pixels and cutting them."""
    return max(AHEAD // elements, 2)


@jit.inline
def _cut_whole(piece, source, x, origin, pixels, n):  # type: ignore[no-untyped-def]
    """Copy an element's pixels of a sliver, which lie side by side from ``x[origin]`` on."""
    copy(piece, source, x, origin)


@jit.inline
def cut_halved(piece, source, x, origin, pixels, n):  # type: ignore[no-untyped-def]
    """Copy an element's pixels of a sliver, every second one of ``x[origin:]``, from where `starts_halved` tells."""
    lanes = lanes_of(piece)
    one, other, count, second, another, their_count = tuple_of(pixels, 6 * n, 6)
    if count < lanes:
        copy_joined(piece, source, x, origin + one, origin + other, count)
    else:
        copy_part(piece, source, x, origin + one, 2, 1)
    if their_count < lanes:
        copy_joined(piece, source + lanes, x, origin + second, origin + another, their_count)
    else:
        copy_part(piece, source + lanes, x, origin + second, 2, 1)


@jit.inline
def starts_halved(starts, pixels, number, start, to_row, columns, wide):  # type: ignore[no-untyped-def]
    """Return where the pixels of slivers begin in an image at stride 2, for each vector.

    That is, the first one, where the first one of the next row would be if that row's began with the vector, and how
    many there are of the first row. Of ``number`` slivers there are ``pixels``, the first one of each; others follow.
    """
    lanes = wide // COLUMNS
    for n in range(number):
        first = pixels[n] if n < len(pixels) else n * wide
        for vector in range(COLUMNS):
            row, column = divmod(first + vector * lanes, columns)
            at, place = start + row * to_row + 2 * column, COLUMNS * n + vector
            count = columns - column
            starts[place, 0], starts[place, 2] = at, count
            starts[place, 1] = at if count >= lanes else at + to_row - 2 * columns


_SLIVERS = "aiiaianiiiiiaiaaininiiii"
_multiply_tile = calling(_SLIVERS)


def _tile(rows: int, kind: str, columns: int = COLUMNS) -> jit.Part:
    """Return the product of ``rows`` filters with all slivers, or so many vectors of each: see `summing`."""
    sums = summing(rows, columns, kind)

    def multiply(  # type: ignore[no-untyped-def]
        result, at, pitch, filters, first, slivers, places, count, chain, elements, apart, to_element, bias, k,
        epilogue, x, start, pixels, to_channel, table, step, begin, further, pace,
    ):  # fmt: skip
        rows_at, sizes = starts_from(first, apart, rows), (chain, elements, apart, to_element)
        image = x, start, pixels, to_channel, (table, step, begin, further, pace)
        for n in range(count):
            for row in range(rows):
                ask_for(result, at + places[2 * n + 1] + row * pitch, columns * lanes_of(result))
            total = add_column(sums(filters, rows_at, slivers, places[2 * n], (), sizes, image, n), bias, k)
            if epilogue[0] != 0:
                total = activated(total, epilogue)
            store(total, result, at + places[2 * n + 1], pitch)

    return jit.Part(multiply, _SLIVERS, kind, rows, columns)


_PLANES = "aiiaianiniiiaiaii"
_multiply_planes = calling(_PLANES)


def _tile_of_planes(rows: int, columns: int) -> jit.Part:
    """Return the same for planes, of some channels or all: the first ones write results, the last ones finish them."""
    sums = summing(rows, columns, "planes")

    def multiply(  # type: ignore[no-untyped-def]
        result, at, pitch, filters, first, piece, places, count, offsets, chain, elements, apart, bias, k, epilogue,
        begins, ends,
    ):  # fmt: skip
        rows_at = starts_from(first, apart, rows)
        sizes = (chain, elements, apart, 1)  # elements lie side by side, which the compiler shall know
        for n in range(count):
            total, to = sums(filters, rows_at, piece, places[2 * n], offsets, sizes, (), n), at + places[2 * n + 1]
            total = add_column(total, bias, k) if begins else add_from(total, result, to, pitch)
            if ends and epilogue[0] != 0:
                total = activated(total, epilogue)
            store(total, result, to, pitch)

    return jit.Part(multiply, _PLANES, rows)


_OF_PLANES = {rows: _tile_of_planes(rows, columns) for rows, columns in IN_PLANES.items()}
_OF_SLIVERS = {
    kind: {rows: _tile(rows, kind) for rows in range(LEAST_ROWS, ROWS + 1)} for kind in ("slivers", "asking", *CUTS)
}
_OF_HALVES = {rows: _tile(rows, "slivers", 1) for rows in range(LEAST_ROWS, ROWS + 1)}


def tiles_of_planes(counts: Iterable[int]) -> tuple[jit.Part | None, ...]:
    """Return the parts that `multiply_planes` calls for so many filters at once.

    Most layers need one or two of the four. The four took 1.5 s of a first call when each kernel had them all.
    """
    heights = _heights(counts, HIGHEST)
    return tuple(part if rows in heights else None for rows, part in _OF_PLANES.items())


def tiles_of_slivers(counts: Iterable[int], cuts: str, halves: bool, alone: bool) -> tuple[jit.Part | None, ...]:
    """Return the parts that `multiply_slivers` calls for so many filters at once, the first of which ``cuts``, if any.

    There may be ``halves`` of slivers, or these ``alone``.
    """
    counts = set(counts)
    heights, first = _heights(counts, ROWS), {-(-count // -(-count // ROWS)) for count in counts}

    def needed(parts: dict[int, jit.Part], heights: set[int]) -> tuple[jit.Part | None, ...]:
        return tuple(part if rows in heights else None for rows, part in parts.items())

    slivers = needed(_OF_SLIVERS["asking" if cuts else "slivers"], set() if alone else heights)
    cutting = needed(_OF_SLIVERS[cuts or CUTS[0]], first if cuts and not alone else set())
    return *slivers, *cutting, *needed(_OF_HALVES, heights if halves else set())


def _heights(counts: Iterable[int], highest: int) -> set[int]:
    """Return the heights of tiles, which are as high as the others or one row less."""
    tiles = {count: -(-count // highest) for count in counts}
    return {height for count, number in tiles.items() for height in (count // number, -(-count // number))}


@jit.inline
def multiply_planes(  # type: ignore[no-untyped-def]
    parts, result, at, pitch, filters, first, count, piece, begin, pixels, straight, within, places, offsets, sizes,
    bias, k, epilogue, begins, ends,
):  # fmt: skip
    """Write the products of ``count`` filters with pixels to ``result[at:]``, a row of ``pitch`` numbers for each.

    The first filter begins at ``filters[first]``; ``sizes`` are the length of a chain of sums, the elements of a
    filter, and how far apart filters are. Element e of the tile that begins with a pixel meets
    ``piece[begin + offsets[e] + pixel:]``. If ``straight``, the last tile ends with the last pixel and overlaps the one
    before; if only what it reads is to be ``within`` the pixels, it does so there. Tiles are as high as the others or
    one row less. ``places`` is room for a pair of numbers for each vector of pixels.

    Sums of some channels are added to what is there, unless these ``begins`` the results; it is finished where it
    ``ends`` them. ``parts`` has those of `tiles_of_planes`, from `OTHERS` on.
    """
    tiles = -(-count // HIGHEST)
    least, higher = divmod(count, tiles)
    for tile in range(tiles):
        rows = least + 1 if tile < higher else least
        wide = (8 if rows == 1 else 4 if rows == 2 else ABREAST) * lanes_of(result)
        number = -(-pixels // wide)
        for n in range(number):
            pixel = min(n * wide, pixels - wide) if straight or within else n * wide
            places[n, 0], places[n, 1] = begin + pixel, pixel if straight else n * wide
        _multiply_planes(
            parts[OTHERS + rows - 1],
            (result, at, pitch, filters, first, piece, flattened(places), number, offsets, sizes[0], sizes[1], sizes[2],
             bias, k, epilogue, np.int64(begins), np.int64(ends)),
        )  # fmt: skip
        if within and ends and not straight and number * wide > pixels:  # the last tile, to where it belongs
            for row in range(at, at + rows * pitch, pitch):
                for n in range(0, wide, lanes_of(result)):
                    copy_part(result, row + pixels - wide + n, result, row + (number - 1) * wide + n, 1, 1)
        at += rows * pitch
        first += rows * sizes[2]
        k += rows


@jit.inline
def share_out(count, unit):  # type: ignore[no-untyped-def]
    """Return how many tiles ``count`` filters make, in units of some, the units of each, and how many have one more."""
    units = count // unit
    tiles = -(-units // (ROWS // unit))
    least, higher = divmod(units, tiles)
    return tiles, least, higher


CUTTING = ROWS - LEAST_ROWS + 1
"""The place of the tiles that cut slivers, behind the others; those that meet half of one follow."""


@jit.inline
def multiply_slivers(  # type: ignore[no-untyped-def]
    parts, result, at, pitch, filters, first, count, slivers, places, half, turned, sizes, bias, k, epilogue, image,
):  # fmt: skip
    """Do the same with slivers, for at least `FEWEST` filters, ``sizes`` being the chain and the elements of a filter.

    ``places`` are where each sliver begins and where its results belong, behind ``at``; of the last one ``half`` may be
    all. The filters are as `turn_filters` has copied them if ``turned``, else one behind the other. The ``image`` is an
    array, where its pixels begin in it, the first one of each sliver (or what `starts_halved` tells, if they are
    ``halved``), and how far apart channels are: if they are, slivers are cut first. ``parts`` has those of
    `tiles_of_slivers`, from `OTHERS` on.
    """
    (chain, elements), (x, start, pixels, to_channel, halved) = sizes, image
    # Lines of the cache that a later sliver's pixels of a channel lie in, shared out among the first tiles.
    line, lines = width_of(result) // LINES, COLUMNS * LINES if halved else LINES
    tiles, least, higher = share_out(count, 1)
    number, flat = np.int64(len(places) - half), flattened(places)
    for tile in range(tiles):
        rows = least + 1 if tile < higher else least
        which = rows - LEAST_ROWS + (CUTTING if tile == 0 and to_channel > 0 else 0)
        each = -(-lines // tiles)
        vector, part = divmod(tile * each, LINES)
        further, pace = (each - 1) * line, to_channel if tile * each < lines else 0
        # Behind the first tile, those that come next are those of the next call.
        ahead = ahead_of(elements) if tile == 0 else len(places)
        if halved:
            table, step, begin = after(pixels, 6 * ahead + 3 * vector), 6, part * line
        else:
            table, step, begin = pixels, 1, start + ahead * width_of(result) + part * line
        asked = x, start, pixels, to_channel, table, step, begin, further, pace
        if number > 0:
            _multiply_tile(
                parts[OTHERS + which],
                (result, at, pitch, filters, first, slivers, flat, number, chain, elements, 1 if turned else elements,
                 rows if turned else 1, bias, k, epilogue, *asked),
            )  # fmt: skip
        if half > 0:
            _multiply_tile(
                parts[OTHERS + 2 * CUTTING + rows - LEAST_ROWS],
                (result, at, pitch, filters, first, slivers, after(flat, 2 * number), half, chain, elements,
                 1 if turned else elements, rows if turned else 1, bias, k, epilogue, *asked),
            )  # fmt: skip
        at += rows * pitch
        first += rows * elements
        k += rows


AT_ONCE = 8
"""Elements of a tile's filters that are turned together: they fill whole lines of the cache."""


@jit.inline
def turn_filters(turned, filters, first, to_element, count, elements, unit):  # type: ignore[no-untyped-def]
    """Copy filters that lie side by side, ``filters[first + element * to_element:]``, tile by tile, element by element.

    A tile would read a line of the cache, or a page, for each element otherwise. To transpose all beforehand took as
    long as 6 to 20 % of the products of 14 × 14 pixels, and 30 µs for small ones. Tiles have so many ``unit`` as
    `share_out` tells.
    """
    tiles, least, higher = share_out(count, unit)
    for begin in range(0, elements, AT_ONCE):
        source = first + begin * to_element
        number = min(AT_ONCE, elements - begin)
        to = 0
        for tile in range(tiles):
            rows = (least + 1 if tile < higher else least) * unit
            at = to + begin * rows
            if rows == 6:
                for element in range(number):
                    copy_few(turned, at + element * 6, filters, source + element * to_element, 6)
            elif rows == 5:
                for element in range(number):
                    copy_few(turned, at + element * 5, filters, source + element * to_element, 5)
            else:
                for element in range(number):
                    copy_few(turned, at + element * 4, filters, source + element * to_element, 4)
            source += rows
            to += rows * elements


@jit.inline
def cut_slab(slivers, places, pixels, elements, piece, begin, offsets, x, start, layout, count, rows):  # type: ignore[no-untyped-def]
    """Cut slivers, two vectors of pixels for each element e, from a slab: ``piece[begin + offsets[e] + pixel:]``.

    ``places`` tell where each sliver begins, ``pixels`` with which of the ``count`` results. ``rows`` are room for what
    slivers have of each row, how many results there are in a row, and how far apart rows are in the slab. Each part of
    a row is copied in whole vectors, over what follows, which is copied after it: slivers lie a row apart.

    Element by element, so that what lies side by side is copied at once.
    """
    wide, lanes, (parts, columns, line) = width_of(slivers), lanes_of(slivers), rows
    number = 0
    for n in range(len(places)):
        first, end = pixels[n], min(pixels[n] + wide, count)
        while first < end:
            row, column = divmod(first, columns)
            parts[number, 0], parts[number, 1] = places[n, 0] + first - pixels[n], begin + row * line + column
            parts[number, 2] = columns - column
            first += columns - column
            number += 1
    whole = number == len(places)
    for element in range(elements):
        to, source = element * wide, tuple_of(offsets, element, 1)[0]
        for part in range(number):
            if whole or parts[part, 2] > lanes:
                copy(slivers, to + parts[part, 0], piece, source + parts[part, 1])
            else:
                copy_part(slivers, to + parts[part, 0], piece, source + parts[part, 1], 1, 1)


@jit.inline
def cut_planes(slivers, places, pixels, elements, piece, begin, offsets, x, start, layout, count, rows):  # type: ignore[no-untyped-def]
    """Cut slivers from an image whose first pixel is ``x[start]``, for each channel.

    If there is less than a sliver, ``count`` pixels, what follows in the array is cut, too, or the last one repeated
    where the array ends. Rows, which a slab has, do not matter.
    """
    to_channel, to_pixel = layout[CHANNEL], layout[PIXEL]
    wide = width_of(slivers)
    for n in range(len(places)):
        at, first = places[n, 0], start + pixels[n] * to_pixel
        if to_channel == 1 and min(count, elements, wide) >= BLOCK and count >= wide:
            for element in range(0, elements, BLOCK):
                element = min(element, elements - BLOCK)
                for lane in range(0, wide, BLOCK):
                    transpose(slivers, at + element * wide + lane, wide, x, first + lane * to_pixel + element, to_pixel)
            continue
        for element in range(elements):
            source = first + element * to_channel
            if to_pixel == 1 and source + wide <= len(x):
                copy(slivers, at + element * wide, x, source)
                continue
            for lane in range(wide):
                move(slivers, at + element * wide + lane, x, source + min(lane, count - 1) * to_pixel)

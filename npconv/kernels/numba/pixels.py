"""Filters times pixels: the product with pixels in the vectors.

A register tile is up to six filters times some vectors of neighbouring pixels. For each element of a filter it takes
one number of each filter, broadcast, and the vectors of pixels that the element meets. These lie anywhere in planes, as
a table tells; or, where many filters meet them, in a *sliver*, two vectors of pixels for each element, one behind the
other. Long sums are cut into chains, as `npconv.kernels.summation` tells.
"""

from __future__ import annotations

from npconv.kernels.numba import jit
from npconv.kernels.numba.moves import BLOCK, copy, move, transpose
from npconv.kernels.numba.product import width_of
from npconv.kernels.numba.tile import COLUMNS, ROWS
from npconv.kernels.numba.vector import (
    activated,
    add,
    add_column,
    lanes_of,
    multiply_add,
    starts_at,
    starts_from,
    store,
    zeros,
)

IN_PLANES = {1: 8, 2: 4, 3: 2, 4: 2}
"""Vectors in the row of a tile that meets planes, by its number of filters: 6 to 8 sums, so that few wait for others.

Higher tiles do not pay: a table, six filters and their elements take more registers than there are."""

LEAST_ROWS = 4
"""Filters of the lowest tile that meets slivers; each height takes half a second to compile."""

FEWEST = 8
"""Filters that can be cut into tiles of 4 to 6, as all greater numbers can."""

HIGHEST = max(IN_PLANES)

WIDEST = max(IN_PLANES.values())


def _tile(rows, columns, cut):  # type: ignore[no-untyped-def]
    """Return the product of ``rows`` filters with all pixels, ``columns`` vectors of them at a time."""

    def multiply(result, at, pitch, filters, first, piece, places, offsets, sizes, bias, k, epilogue):  # type: ignore[no-untyped-def]
        chain, elements = sizes
        wide = columns * lanes_of(result)
        rows_at = starts_from(first, elements, rows)
        for n in range(len(places)):
            total = zeros(result, rows, columns)
            source = places[n, 0]
            for start in range(0, elements, chain):
                tile = zeros(result, rows, columns)
                for element in range(start, min(start + chain, elements)):
                    if cut:
                        tile = multiply_add(tile, filters, rows_at, element, piece, source)
                        source += wide
                    else:
                        at_element = source + starts_at(offsets, element, 1)[0]
                        tile = multiply_add(tile, filters, rows_at, element, piece, at_element)
                total = add(total, tile)
            total = add_column(total, bias, k)
            if epilogue[0] != 0:
                total = activated(total, epilogue)
            store(total, result, at + places[n, 1], pitch)

    return jit.specialised(multiply, rows, columns, cut, within=True)


_one, _two, _three, _four = (_tile(rows, columns, False) for rows, columns in IN_PLANES.items())
_cut_four, _cut_five, _cut_six = (_tile(rows, COLUMNS, True) for rows in range(LEAST_ROWS, ROWS + 1))


@jit.inline
def multiply_planes(  # type: ignore[no-untyped-def]
    result, at, pitch, filters, first, count, piece, begin, pixels, straight, places, offsets, sizes,
    bias, k, epilogue,
):  # fmt: skip
    """Write the products of ``count`` filters with pixels to ``result[at:]``, a row of ``pitch`` numbers for each.

    The first filter begins at ``filters[first]``; ``sizes`` are the length of a chain of sums and the
    elements of a filter. Element e of the tile that begins with a pixel meets ``piece[begin +
    offsets[e] + pixel:]``. If ``straight``, the last tile ends with the last pixel and overlaps the one before. Tiles
    are as high as the others or one row less. ``places`` is room for a pair of numbers for each vector of pixels.
    """
    tiles = -(-count // HIGHEST)
    least, higher = divmod(count, tiles)
    for tile in range(tiles):
        rows = least + 1 if tile < higher else least
        wide = (8 if rows == 1 else 4 if rows == 2 else 2) * lanes_of(result)
        number = -(-pixels // wide)
        for n in range(number):
            pixel = min(n * wide, pixels - wide) if straight else n * wide
            places[n, 0], places[n, 1] = begin + pixel, pixel
        some = places[:number]
        if rows == 4:
            _four(result, at, pitch, filters, first, piece, some, offsets, sizes, bias, k, epilogue)
        elif rows == 3:
            _three(result, at, pitch, filters, first, piece, some, offsets, sizes, bias, k, epilogue)
        elif rows == 2:
            _two(result, at, pitch, filters, first, piece, some, offsets, sizes, bias, k, epilogue)
        else:
            _one(result, at, pitch, filters, first, piece, some, offsets, sizes, bias, k, epilogue)
        at += rows * pitch
        first += rows * sizes[1]
        k += rows


@jit.inline
def multiply_slivers(result, at, pitch, filters, first, count, slivers, places, sizes, bias, k, epilogue):  # type: ignore[no-untyped-def]
    """Do the same with slivers, for at least `FEWEST` filters.

    ``places`` are where each sliver begins and where its results belong, behind ``at``.
    """
    tiles = -(-count // ROWS)
    least, higher = divmod(count, tiles)
    for tile in range(tiles):
        rows = least + 1 if tile < higher else least
        if rows == 6:
            _cut_six(result, at, pitch, filters, first, slivers, places, places, sizes, bias, k, epilogue)
        elif rows == 5:
            _cut_five(result, at, pitch, filters, first, slivers, places, places, sizes, bias, k, epilogue)
        else:
            _cut_four(result, at, pitch, filters, first, slivers, places, places, sizes, bias, k, epilogue)
        at += rows * pitch
        first += rows * sizes[1]
        k += rows


@jit.inline
def cut_slab(slivers, places, pixels, elements, piece, begin, offsets, x, start, layout, count):  # type: ignore[no-untyped-def]
    """Cut slivers from a slab: ``piece[begin + offsets[e] + pixel:]`` for each element e, two vectors of pixels.

    ``places`` tell where each sliver begins, ``pixels`` with which pixel. Element by element, so that what lies side by
    side is copied at once.
    """
    wide = width_of(slivers)
    for element in range(elements):
        source = begin + starts_at(offsets, element, 1)[0]
        for n in range(len(places)):
            copy(slivers, places[n, 0] + element * wide, piece, source + pixels[n])


@jit.inline
def cut_planes(slivers, places, pixels, elements, piece, begin, offsets, x, start, layout, count):  # type: ignore[no-untyped-def]
    """Cut slivers from an image whose first pixel is ``x[start]``, for each channel.

    If there is less than a sliver, ``count`` pixels, the last one is repeated.
    """
    to_channel, to_pixel = layout[1], layout[4]
    wide = width_of(slivers)
    if to_pixel == 1 and count >= wide:
        for element in range(elements):
            source = start + element * to_channel
            for n in range(len(places)):
                copy(slivers, places[n, 0] + element * wide, x, source + pixels[n])
        return
    for n in range(len(places)):
        at, first = places[n, 0], start + pixels[n] * to_pixel
        if to_channel == 1 and min(count, elements, wide) >= BLOCK and count >= wide:
            for element in range(0, elements, BLOCK):
                element = min(element, elements - BLOCK)
                for lane in range(0, wide, BLOCK):
                    transpose(slivers, at + element * wide + lane, wide, x, first + lane * to_pixel + element, to_pixel)
        else:
            for element in range(elements):
                for lane in range(wide):
                    source = first + min(lane, count - 1) * to_pixel + element * to_channel
                    move(slivers, at + element * wide + lane, x, source)

"""Products with what a row of taps meets in an image that is read as it is: for kernels of one channel a group.

What lies outside of the image is masked. Arrays are given flat, with the index of the first element, and nothing is
checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from npconv.kernels.numba.tile import (
    VECTOR_BYTES,
    Tile,
    lanes_within,
    order_of,
    pointer_to,
    product_and_sum,
    repeated,
    sum_of,
    vector_at,
    vectors_at,
)
from npconv.kernels.summation import chain_length

SHIFTS = VECTOR_BYTES == 64
"""Whether one instruction takes every second number of two vectors, in order, or shifts a vector by a number."""


def _folded(tile: Tile) -> list[int]:
    """Return in which order every second number of two vectors comes out of one instruction: by blocks of 16 bytes."""
    if SHIFTS:
        return list(range(tile.lanes))
    block = min(128 // tile.dtype.bitwidth, tile.lanes)
    return [
        half * tile.lanes // 2 + (first + lane) // 2
        for first in range(0, tile.lanes, block) for half in range(2) for lane in range(0, block, 2)
    ]  # fmt: skip


def _taps(
    builder: Any, tile: Tile, taps: range, stride: int, dense: bool, pointer: Any, step: Any, order: list[int]
) -> Iterator[Any]:
    """Yield, for each of some taps of a row, the vector that it meets from ``pointer`` on, its lanes in this order.

    Taps are ``step`` apart, or one if ``dense``. The stride is 1 or 2, where two vectors are loaded for every second
    number of each, and one number more is read than is met. The numbers between them are those of the next tap. Vectors
    of the AVX-512 all lie in two lines of the cache, and take as long as two to load: what a third tap meets is what
    the first one does, shifted by a number.
    """
    before: list[Any] = []
    for at, m in enumerate(taps):
        if stride == 2 and dense and at >= 2 and SHIFTS:  # whose order is always the numbers' own
            number = builder.load(builder.gep(pointer, [step.type(m + 2 * (tile.lanes - 1))]))
            last = builder.insert_element(ir.Constant(before[-2].type, ir.Undefined), number, ir.IntType(32)(0))
            vector = builder.shuffle_vector(before[-2], last, order_of(range(1, tile.lanes + 1)))
        elif stride == 2:
            second = dense and m % 2 == 1
            if not second or at == 0:
                loaded = _loaded(builder, tile, 2, pointer, m - second, dense, step)
            vector = builder.shuffle_vector(*loaded, order_of([second + 2 * lane for lane in order]))
        else:
            (vector,) = _loaded(builder, tile, 1, pointer, m, dense, step)
        before.append(vector)
        yield vector


def _loaded(builder: Any, tile: Tile, number: int, pointer: Any, m: int, dense: bool, step: Any) -> list[Any]:
    """Return so many vectors from what tap ``m`` meets first on."""
    away = step.type(m) if dense else builder.mul(step, step.type(m))
    row = vectors_at(builder, Tile(tile.dtype, 1, number), builder.gep(pointer, [away]))
    return [vector_at(builder, vector, tile) for vector in row]


def addresses_of(number: int) -> Any:
    """Return an intrinsic that tells where some rows of an image are in memory: those beyond it are ``blank``.

    ``addresses(x, j, line, y, jump, height, blank)`` returns the addresses of ``x[j + y * line]`` and of the next rows
    that are ``jump`` further on.
    """

    @intrinsic
    def addresses(typing: Any, x: Any, j: Any, line: Any, y: Any, jump: Any, height: Any, blank: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x, j, line, y, jump, height, blank = arguments
            nothing = pointer_to(context, builder, signature.args[6], blank, ir.IntType(64)(0))
            found = []
            at, further = builder.add(j, builder.mul(y, line)), builder.mul(jump, line)
            for _ in range(number):
                there = builder.icmp_unsigned("<", y, height)
                pointer = pointer_to(context, builder, signature.args[0], x, at)
                found.append(builder.ptrtoint(builder.select(there, pointer, nothing), ir.IntType(64)))
                y, at = builder.add(y, jump), builder.add(at, further)
            return context.make_tuple(builder, signature.return_type, found)

        integer = types.int64
        result = types.containers.UniTuple(integer, number)
        return result(x, integer, integer, integer, integer, integer, blank), code

    return addresses


def products_of_rows(kernel: tuple[int, int], stride: tuple[int, int], dense: bool) -> Any:
    """Return an intrinsic that adds to each row of a tile, a vector wide, what a kernel gives there.

    ``add_products(tile, kept, addresses, i, apart)`` lets tap (n, m) meet, in row r and lane l, the number ``i + m *
    apart + l * stride[1]`` of the image's row at ``addresses[r * stride[0] + n]``, with the weight ``kept[n * kernel[1]
    + m]``.

    With a stride of 2 along the row, the tile's lanes are in the order that `unfolded` ends: to bring each tap's in
    order took one instruction more for each vector.
    """
    down, across = kernel

    @intrinsic
    def add_products(typing: Any, tile: Any, kept: Any, addresses: Any, i: Any, apart: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result, kept, addresses, i, apart = arguments
            order = list(range(tile.lanes)) if stride[1] == 1 else _folded(tile)
            rows = [builder.extract_value(result, row) for row in range(tile.rows)]
            for met, pointer in _lines(context, builder, tile, down, stride[0], addresses, i):
                every = _taps(builder, tile, range(across), stride[1], dense, pointer, apart, order)
                for m, vector in enumerate(every):
                    for row, tap in met:
                        weight = builder.extract_value(kept, tap * across + m)
                        rows[row] = product_and_sum(builder, tile, weight, vector, rows[row])
            for row, total in enumerate(rows):
                result = builder.insert_value(result, total, row)
            return result

        return tile(tile, kept, addresses, types.int64, types.int64), code

    return add_products


def products_of_columns(kernel: tuple[int, int], stride: tuple[int, int], dense: bool) -> Any:
    """Return an intrinsic that does the same with masks, column of taps by column.

    ``add_products(tile, weights, w, addresses, i, apart, masks, mask)`` takes the weights from ``weights[w:]``. Only
    those of the lanes count that `mask_of` has written to ``masks[mask:]``, tap behind tap; the others are zeros,
    whatever was loaded. It costs next to nothing: a vector is loaded and masked in one instruction.

    Registers hold the weights of a column and not of the kernel, which leaves them for more rows: each number of the
    image is loaded for up to ``down`` of them. A chain of sums is of as many columns as `chain_length` allows. At a
    stride of 2 columns that share what is loaded are taken together, if they are of one chain: 3 × 3 takes 5 to
    15 % less. (5 × 5, in chains of 3 columns, took 8 % longer with 16 registers.)
    """
    down, across = kernel
    columns = -(-across // -(-down * across // (chain_length(down * across) // down * down)))
    together = 1
    if stride[1] == 2 and dense and (SHIFTS or columns == across):
        together = columns if SHIFTS else 2

    @intrinsic
    def add_products(
        typing: Any, tile: Any, weights: Any, w: Any, addresses: Any, i: Any, apart: Any, masks: Any, mask: Any
    ) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result, weights, w, addresses, i, apart, masks, mask = arguments
            index = ir.IntType(64)
            order = list(range(tile.lanes)) if stride[1] == 1 else _folded(tile)
            lines = list(_lines(context, builder, tile, down, stride[0], addresses, i))
            totals: list[Any] = []
            rows = [builder.extract_value(result, row) for row in range(tile.rows)]
            for first in range(0, across, together):
                if first > 0 and first % columns == 0:
                    totals = _sums(builder, tile, totals, rows)
                    rows = [ir.Constant(row.type, None) for row in rows]
                some = range(first, min(first + together, across))
                masked, kept = [], {}
                for m in some:
                    at = builder.add(mask, index(m * tile.lanes))
                    masked.append(_mask_at(builder, tile, pointer_to(context, builder, signature.args[6], masks, at)))
                    for n in range(down):
                        at = builder.add(w, index(n * across + m))
                        weight = builder.load(pointer_to(context, builder, signature.args[1], weights, at))
                        kept[n, m] = repeated(builder, weight, tile.lanes)
                for met, pointer in lines:
                    every = _taps(builder, tile, some, stride[1], dense, pointer, apart, order)
                    for m, within, vector in zip(some, masked, every, strict=True):
                        vector = _masked(builder, vector, within)
                        for row, tap in met:
                            rows[row] = product_and_sum(builder, tile, kept[tap, m], vector, rows[row])
            for row, total in enumerate(_sums(builder, tile, totals, rows)):
                result = builder.insert_value(result, total, row)
            return result

        integer = types.int64
        return tile(tile, weights, integer, addresses, integer, integer, masks, integer), code

    return add_products


def _lines(
    context: Any, builder: Any, tile: Tile, down: int, stride: int, addresses: Any, i: Any
) -> Iterator[tuple[list[tuple[int, int]], Any]]:
    """Yield for each row of the image the rows of the tile that it reaches, each with the tap, and where it begins."""
    number = context.get_value_type(tile.dtype).as_pointer()
    for line in range((tile.rows - 1) * stride + down):
        met = [(row, line - row * stride) for row in range(tile.rows) if 0 <= line - row * stride < down]
        if met:
            yield met, builder.gep(builder.inttoptr(builder.extract_value(addresses, line), number), [i])


def _sums(builder: Any, tile: Tile, totals: list[Any], rows: list[Any]) -> list[Any]:
    """Return the sums of two lists of vectors, of which the first may be empty."""
    return [sum_of(builder, tile, a, b) for a, b in zip(totals, rows, strict=True)] if totals else rows


def mask_of(stride: int, folded: bool = False) -> Any:
    """Return an intrinsic that writes which lanes of a vector meet columns of an image.

    ``write(masks, i, column, width)`` does so for columns from ``column`` on, ``stride`` apart, in order or, if
    ``folded``, in that of `products_of_columns` at a stride of 2.
    """

    @intrinsic
    def write(typing: Any, masks: Any, i: Any, column: Any, width: Any) -> Any:
        tile = Tile(masks.dtype, 1, 1)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            masks, i, column, width = arguments
            order = _folded(tile) if folded else list(range(tile.lanes))
            within = lanes_within(builder, tile.lanes, column, width, 0, stride, order)
            bits = _bits_of(tile)
            pointer = builder.bitcast(pointer_to(context, builder, signature.args[0], masks, i), bits.as_pointer())
            builder.store(builder.sext(within, bits), pointer, align=tile.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.none(masks, types.int64, types.int64, types.int64), code

    return write


def _bits_of(tile: Tile) -> Any:
    """Return the type of a vector's mask."""
    return ir.VectorType(ir.IntType(tile.dtype.bitwidth), tile.lanes)


def _mask_at(builder: Any, tile: Tile, pointer: Any) -> Any:
    """Return the mask at a pointer."""
    return builder.load(builder.bitcast(pointer, _bits_of(tile).as_pointer()), align=tile.dtype.bitwidth // 8)


def _masked(builder: Any, vector: Any, within: Any) -> Any:
    """Return a vector, with zeros in the lanes that a mask leaves out."""
    return builder.bitcast(builder.and_(builder.bitcast(vector, within.type), within), vector.type)


@intrinsic
def unfolded(typing: Any, tile: Any) -> Any:
    """Return the sums of `products_of_rows` for a stride of 2, their lanes in order."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (result,), order = arguments, _folded(tile)
        for at in range(tile.rows * tile.columns):
            vector = builder.extract_value(result, at)
            vector = builder.shuffle_vector(vector, vector, order_of([order.index(n) for n in range(tile.lanes)]))
            result = builder.insert_value(result, vector, at)
        return result

    return tile(tile), code


@intrinsic
def address_of(typing: Any, x: Any, j: Any) -> Any:
    """Return where ``x[j]`` is in memory."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(pointer_to(context, builder, signature.args[0], *arguments), ir.IntType(64))

    return types.int64(x, types.int64), code


def rows_of_taps(rows: int, taps: int, stride: int, dense: bool, masked: bool, together: int = 1, pace: int = 1) -> Any:
    """Return an intrinsic that adds the products of a few vectors with what each meets in some rows of an image.

    ``add_products(tile, a, i, line, addresses, t, j, step, masks, mask)`` adds, to row ``row * taps + m`` of the tile,
    a vector wide, ``a[i + k * line + l]`` for each of ``together`` k times the number ``j + m * step + l * stride`` of
    the row of an image at ``addresses[t + k * pace + row]``: a row is loaded once for all. If ``masked``, lanes of tap
    m count that `mask_of` has written to ``masks[mask:]``, tap behind tap, and of ``a`` those behind them.
    """

    @intrinsic
    def add_products(
        typing: Any, tile: Any, a: Any, i: Any, line: Any, addresses: Any, t: Any, j: Any, step: Any, masks: Any,
        mask: Any,
    ) -> Any:  # fmt: skip
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result, a, i, line, addresses, t, j, step, masks, mask = arguments
            index, natural = ir.IntType(64), list(range(tile.lanes))

            def kept(vector: Any, m: int) -> Any:
                if not masked:
                    return vector
                at = builder.add(mask, index(m * tile.lanes))
                within = _mask_at(builder, tile, pointer_to(context, builder, signature.args[8], masks, at))
                return _masked(builder, vector, within)

            numbers = []
            for k in range(together):
                at = builder.add(i, builder.mul(line, index(k)))
                (pointer,) = vectors_at(builder, tile, pointer_to(context, builder, signature.args[1], a, at))
                numbers.append(kept(vector_at(builder, pointer, tile), taps))
            table = pointer_to(context, builder, signature.args[4], addresses, t)
            number = context.get_value_type(tile.dtype).as_pointer()
            for place in range((together - 1) * pace + rows):
                address = builder.load(builder.gep(table, [index(place)]))
                pointer = builder.gep(builder.inttoptr(address, number), [j])
                for m, met in enumerate(_taps(builder, tile, range(taps), stride, dense, pointer, step, natural)):
                    met = kept(met, m)
                    for k, vector in enumerate(numbers):
                        if 0 <= place - k * pace < rows:
                            at = (place - k * pace) * taps + m
                            total = product_and_sum(builder, tile, vector, met, builder.extract_value(result, at))
                            result = builder.insert_value(result, total, at)
            return result

        integer = types.int64
        return tile(tile, a, integer, integer, addresses, integer, integer, integer, masks, integer), code

    return add_products


def spread_rows(kernel: tuple[int, int], odd: tuple[int, int], stride: int) -> Any:
    """Return an intrinsic that adds what some rows of pixels give to ``stride`` rows of twice as many.

    ``add_spread(tile, kept, b, j, pitch)`` adds to the even and the odd numbers of each row (two columns of the tile)
    ``kept[i * across + m]`` times the pixel that tap (i, m) lets reach them, a vector for each. Tap m takes pixel c to
    2 c + m - odd[1], tap i row r to stride · r + i - odd[0]. Pixel c of row r is ``b[j + c + r * pitch]``, where the
    first row is the one that the last tap takes.
    """
    down, across = kernel
    above = (down - 1 - odd[0]) // stride

    @intrinsic
    def add_spread(typing: Any, tile: Any, kept: Any, b: Any, j: Any, pitch: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result, kept, b, j, pitch = arguments
            index = ir.IntType(64)
            row = Tile(tile.dtype, 1, 1)
            loaded: dict[tuple[int, int], Any] = {}
            for i in range(down):
                met, rank = divmod(i - odd[0], stride)
                line = above - met
                for m in range(across):
                    half, away = (m - odd[1]) % 2, -((m - odd[1]) // 2)
                    if (line, away) not in loaded:
                        start = builder.add(j, builder.mul(pitch, index(line)))
                        pointer = pointer_to(context, builder, signature.args[2], b, builder.add(start, index(away)))
                        (pointer,) = vectors_at(builder, row, pointer)
                        loaded[line, away] = vector_at(builder, pointer, tile)
                    weight = builder.extract_value(kept, i * across + m)
                    place = 2 * rank + half
                    total = product_and_sum(
                        builder, tile, weight, loaded[line, away], builder.extract_value(result, place)
                    )
                    result = builder.insert_value(result, total, place)
            return result

        return tile(tile, kept, b, types.int64, types.int64), code

    return add_spread


def products_of_pixels(taps: int, pace: int, masked: bool) -> Any:
    """Return an intrinsic that adds to each row of a tile, some channels of a pixel, what a row of taps gives there.

    ``add_products(tile, weights, w, x, j, step, column, apart, width)`` adds ``x[j + (row * pace + m) * step:]`` times
    the vectors from ``weights[w]`` on, tap m behind tap, element by element. Pixels are loaded one after the other, and
    once. If ``masked``, those at ``column + n * apart`` are zeros where that is not within ``width``; the products are
    written for both cases, as to choose between pixels took a register too many for rows of 7 taps, and a tenth longer.
    """

    @intrinsic
    def add_products(
        typing: Any, tile: Any, weights: Any, w: Any, x: Any, j: Any, step: Any, column: Any, apart: Any, width: Any
    ) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result, weights, w, x, j, step, column, apart, width = arguments
            index, columns = ir.IntType(64), tile.columns

            def vectors(kind: Any, array: Any, at: Any) -> list[Any]:
                pointer = pointer_to(context, builder, kind, array, at)
                return [vector_at(builder, vector, tile) for vector in vectors_at(builder, tile, pointer)]

            kept = []
            for m in range(taps):
                kept += vectors(signature.args[1], weights, builder.add(w, index(m * columns * tile.lanes)))
            sums = [builder.extract_value(result, at) for at in range(tile.rows * columns)]
            for n in range((tile.rows - 1) * pace + taps):
                met = [(row, n - row * pace) for row in range(tile.rows) if 0 <= n - row * pace < taps]

                def added(pixel: list[Any], met: list[tuple[int, int]] = met) -> list[Any]:
                    return [
                        product_and_sum(builder, tile, vector, kept[m * columns + at], sums[row * columns + at])
                        for row, m in met for at, vector in enumerate(pixel)
                    ]  # fmt: skip

                if masked:
                    place = builder.add(column, builder.mul(apart, index(n)))
                    with builder.if_else(builder.icmp_unsigned("<", place, width)) as (within, beyond):
                        with within:
                            totals, there = added(vectors(signature.args[3], x, j)), builder.block
                        with beyond:
                            zero = ir.Constant(sums[0].type, None)
                            others, elsewhere = added([zero] * columns), builder.block
                    for at, other in enumerate(others):
                        total = builder.phi(other.type)
                        total.add_incoming(totals[at], there)
                        total.add_incoming(other, elsewhere)
                        totals[at] = total
                else:
                    totals = added(vectors(signature.args[3], x, j))
                for at, (row, _) in enumerate(met):
                    sums[row * columns : (row + 1) * columns] = totals[at * columns : (at + 1) * columns]
                j = builder.add(j, step)  # not j + n * step, which LLVM computes early, and keeps in memory
            for at, total in enumerate(sums):
                result = builder.insert_value(result, total, at)
            return result

        integer = types.int64
        return tile(tile, weights, integer, x, integer, integer, integer, integer, integer), code

    return add_products


@intrinsic(prefer_literal=True)
def kept_numbers(typing: Any, array: Any, i: Any, step: Any, rows: Any) -> Any:
    """Return weights to be kept in registers, in all lanes of a tile's row each; ``rows`` is a literal.

    The last row is ``array[i]``, and each row before it that ``step`` further on.
    """
    tile = Tile(array.dtype, rows.literal_value, 1)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers, i, step, _ = arguments
        result = ir.Constant(context.get_value_type(tile), None)
        for row in range(tile.rows):
            at = builder.add(i, builder.mul(step, step.type(tile.rows - 1 - row)))
            number = builder.load(pointer_to(context, builder, signature.args[0], numbers, at))
            result = builder.insert_value(result, repeated(builder, number, tile.lanes), row)
        return result

    return tile(array, types.int64, types.int64, rows), code


@intrinsic
def multiply_kept(typing: Any, tile: Any, kept: Any, b: Any, j: Any) -> Any:
    """Return the tile with ``b[j:]`` times each row of ``kept`` added to its rows, or to its last ones."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, weights, b, j = arguments
        pointer = pointer_to(context, builder, signature.args[2], b, j)
        loaded = [vector_at(builder, vector, tile) for vector in vectors_at(builder, tile, pointer)]
        for row in range(kept.rows):
            for column, vector in enumerate(loaded):
                at = (tile.rows - kept.rows + row) * tile.columns + column
                weight = builder.extract_value(weights, row)
                total = product_and_sum(builder, tile, weight, vector, builder.extract_value(result, at))
                result = builder.insert_value(result, total, at)
        return result

    return tile(tile, kept, b, types.int64), code

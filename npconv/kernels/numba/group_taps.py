"""Products of pixels with a row of taps where each filter meets the few channels of its group.

Vectors are of filters that lie side by side, as many as channels, so that each lane meets the channels of its own
group. Arrays are given flat, with the index of the first element, and nothing is checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from npconv.kernels.numba.tile import order_of, pointer_to, product_and_sum, repeated, vector_at, vectors_at


def products_of_groups(taps: int, pace: int, group: int) -> Any:
    """Return an intrinsic that adds to each row of a tile, some filters of a pixel, what a row of taps gives there.

    ``add_products(tile, weights, w, x, j, step)`` lets tap m of row r meet the pixel ``x[j + (r * pace + m) * step:]``.
    If vectors have several groups, it adds the products of all channels of a group, one after the other, each brought
    to all lanes of its group, with the weights of the taps behind those of the channel before, from ``weights[w]`` on;
    else those of ``x[j]`` alone. Pixels are loaded one after the other, once for each channel.
    """

    @intrinsic
    def add_products(typing: Any, tile: Any, weights: Any, w: Any, x: Any, j: Any, step: Any) -> Any:
        index, columns = ir.IntType(64), tile.columns
        alone = group >= tile.lanes

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result, weights, w, x, first, step = arguments
            sums = [builder.extract_value(result, at) for at in range(tile.rows * columns)]

            def vectors(kind: Any, array: Any, at: Any) -> list[Any]:
                pointer = pointer_to(context, builder, kind, array, at)
                return [vector_at(builder, vector, tile) for vector in vectors_at(builder, tile, pointer)]

            def met(channel: int, j: Any) -> list[Any]:
                if alone:
                    number = builder.load(pointer_to(context, builder, signature.args[3], x, j))
                    return [repeated(builder, number, tile.lanes)] * columns
                order = order_of([lane // group * group + channel for lane in range(tile.lanes)])
                return [builder.shuffle_vector(vector, vector, order) for vector in vectors(signature.args[3], x, j)]

            for channel in range(1 if alone else group):
                if channel > 0:  # LLVM would load all weights first, and run out of registers: a tenth longer
                    builder.fence("seq_cst", "singlethread")
                kept, j = [], first
                for m in range(taps):
                    place = builder.add(w, index((channel * taps + m) * columns * tile.lanes))
                    kept.append(vectors(signature.args[1], weights, place))
                for n in range((tile.rows - 1) * pace + taps):
                    pixel = met(channel, j)
                    for row in range(tile.rows):
                        m = n - row * pace
                        if 0 <= m < taps:
                            for at, vector in enumerate(pixel, row * columns):
                                weight = kept[m][at - row * columns]
                                sums[at] = product_and_sum(builder, tile, vector, weight, sums[at])
                    j = builder.add(j, step)  # not j + n * step, which LLVM computes early, and keeps in memory
            for at, total in enumerate(sums):
                result = builder.insert_value(result, total, at)
            return result

        return tile(tile, weights, types.int64, x, types.int64, types.int64), code

    return add_products

"""Winograd's transforms: the matrices of Toom and Cook, and vectors multiplied with two of them from both sides.

A transform M X Nᵀ is one run of instructions: its first half, M X, stays in registers, some rows of it at a time, or
where the compiler puts it. Written to memory and read again, as two loops over halves, it took twice as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from npconv.kernels.filtering import Filtering
from npconv.kernels.numba.tile import Tile, pointer_to, product_and_sum, store_past, vector_at, vectors_at

Matrix = list[list[float]]


def _polynomial(roots: list[float]) -> np.ndarray:
    """Return the coefficients of Π (x - root), lowest first; pairs ±r cancel exactly."""
    total = np.ones(1)
    for root in sorted(roots):
        if root != 0 and -root in roots:
            if root > 0:
                total = np.convolve(total, [-root * root, 0, 1])
        else:
            total = np.convolve(total, [-root, 1])
    return total


def toom_cook(outputs: int, taps: int, points: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Aᵀ, G and Bᵀ for a correlation with ``taps``, from outputs + taps - 2 points besides infinity.

    Examples
    --------
    >>> a, g, b = toom_cook(2, 3, (0.0, 1.0, -1.0))
    >>> data, kernel = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 10.0, 100.0])
    >>> a @ ((g @ kernel) * (b @ data))
    array([321., 432.])
    """
    size = outputs + taps - 1
    a, g, b = np.zeros((outputs, size)), np.zeros((size, taps)), np.zeros((size, size))
    for j, point in enumerate(points):
        others = [other for other in points if other != point]
        a[:, j] = point ** np.arange(outputs)
        g[j] = point ** np.arange(taps) / np.prod([point - other for other in others])
        b[j, :-1] = _polynomial(others)
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = _polynomial(list(points))
    return a, g, b


_ROOT = 0.5**0.5
POINTS = {
    3: (0.0, 1.0),
    4: (0.0, 1.0, -1.0),
    5: (0.5, -0.5, 1.5, -1.5),  # of 512 channels, (±√½, ±√2) lost up to 70 eps instead of 19, and missed the bound
    6: (0.0, _ROOT, -_ROOT, 2 * _ROOT, -2 * _ROOT),
}
"""Points besides infinity, by n."""


def _first_of(outputs: int, taps: int, made: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Aᵀ, G and Bᵀ of a filtering of which so many outputs are made, all or the first ones.

    These take the first points and infinity, and filters that are transformed for all: G then lacks the factors
    (point - other) of a filtering without the other points, and Bᵀ has them.
    """
    points = POINTS[outputs + taps - 1]
    a, g, b = toom_cook(outputs, taps, points)
    if made < outputs:
        kept = points[: made + taps - 2]
        rows = [*range(len(kept)), len(points)]
        a[:], b[:] = 0, 0
        a[:made, rows], _, fewer = toom_cook(made, taps, kept)
        for row, point in zip(fewer, kept, strict=False):
            row *= np.prod([point - other for other in points[len(kept) :]])
        b[rows, : len(rows)] = fewer
    return a, g, b


def filtering(axis: Filtering) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Aᵀ, G and Bᵀ of a minimal filtering: those of its phases, side by side.

    If taps are folded, those of the longest phase; G has columns for the taps of all. Blocks of them, or every second
    one, are for the samples of one part. A short tile has zeros for points that it does not take, and samples that it
    does not meet.

    Examples
    --------
    >>> a, g, b = filtering(Filtering(2, 3, 2))
    >>> data, kernel = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1.0, 10.0, 100.0])
    >>> a @ ((g @ kernel) * (b @ data))
    array([321., 543.])
    >>> filtering(Filtering(4, 3, 1, short=2))[0].round(2)
    array([[ 1.  ,  1.  ,  1.  ,  0.  ,  0.  ,  0.  ],
           [ 0.  ,  0.71, -0.71,  0.  ,  0.  ,  1.  ]])
    """
    made = axis.short or axis.outputs
    if axis.fold > 1:
        most = max(phase.number for phase in axis.phases)
        a, longest, b = _first_of(axis.outputs, most, made)
        g = np.tile(longest, axis.fold) if axis.in_blocks else np.repeat(longest, axis.fold, axis=1)
        return a[:made], g[:, : axis.taps], b
    a, g, b = (
        np.zeros(size) for size in ((axis.results, axis.points), (axis.points, axis.taps), (axis.points, axis.reach))
    )
    first, outputs = 0, axis.outputs
    for phase in axis.phases:
        points = outputs + phase.number - 1
        if phase.number == 1:
            some = np.diag(np.arange(outputs) < made)
            one = some, np.ones((outputs, 1)), some
        else:
            one = _first_of(outputs, phase.number, made)
        rows = slice(first, first + points)
        a[phase.results, rows], g[rows, phase.taps], b[rows, phase.samples] = one
        first += points
    return a[: axis.short or None], g, b


def of_filters(axis: Filtering) -> np.ndarray:
    """Return the rows of G that differ, one for each number that a filter has."""
    _, g, _ = filtering(axis)
    return g[[axis.numbers.index(number) for number in range(axis.number)]]


def transform(lines: Any, columns: Any, past: bool = False, whole: bool = True) -> Any:
    """Return an intrinsic that multiplies rectangles of vectors with small constant matrices from both sides.

    ``transform(out, i, down, across, numbers, j, pitch, pace)`` writes Σ lines[a][k] · columns[b][l] ·
    numbers[j + k · pitch + l · pace:], a vector of them, to out[i + a · down + b · across:]: ``past`` the caches, if
    all begin with a line of them. Rows of zeros give zeros, or, if not ``whole``, nothing.
    """
    matrices = _plain(lines), _plain(columns)

    @intrinsic
    def rectangle(
        typing: Any, out: Any, i: Any, down: Any, across: Any, numbers: Any, j: Any, pitch: Any, pace: Any
    ) -> Any:
        integer = types.int64
        return types.none(out, *[integer] * 3, numbers, *[integer] * 3), _code(*matrices, False, past, whole)

    return rectangle


def transform_and_add(lines: Any, columns: Any) -> Any:
    """Return the same, back from points, with two more arguments: ``row[r:]`` is added to each result."""
    matrices = _plain(lines), _plain(columns)

    @intrinsic
    def rectangle(
        typing: Any, out: Any, i: Any, down: Any, across: Any, numbers: Any, j: Any, pitch: Any, pace: Any, row: Any,
        r: Any,
    ) -> Any:  # fmt: skip
        integer = types.int64
        return types.none(out, *[integer] * 3, numbers, *[integer] * 3, row, integer), _code(*matrices, True)

    return rectangle


def _plain(matrix: Any) -> Matrix:
    return [[float(number) for number in row] for row in matrix]


def _code(lines: Matrix, columns: Matrix, back: bool, past: bool = False, whole: bool = True) -> Any:
    """Return what writes the instructions of a transform."""
    groups = [lines] if back else _groups(lines)
    down_size, across_size = len(lines[0]), len(columns[0])

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tile = Tile(signature.args[0].dtype, 1, 1)
        align = tile.dtype.bitwidth // 8

        def place(array: int, start: Any, down: Any, across: Any, row: int, column: int) -> Any:
            at = builder.add(
                start, builder.add(builder.mul(down, down.type(row)), builder.mul(across, down.type(column)))
            )
            pointer = pointer_to(context, builder, signature.args[array], arguments[array], at)
            return vectors_at(builder, tile, pointer)[0]

        _, i, down, across, _, j, pitch, pace, *row = arguments
        bias = None
        if row:
            pointers = vectors_at(builder, tile, pointer_to(context, builder, signature.args[8], *row))
            bias = vector_at(builder, pointers[0], tile)
        first = 0
        for group in groups:
            wanted = [any(row[k] != 0 for row in group) for k in range(down_size)]
            half = []
            for column in range(across_size):
                vectors = [
                    vector_at(builder, place(4, j, pitch, pace, k, column), tile) if wanted[k] else None
                    for k in range(down_size)
                ]
                half.append(_products(builder, tile, group, vectors, back))
            for at in range(len(group)):
                results = _products(builder, tile, columns, [vectors[at] for vectors in half], back)
                for column, result in enumerate(results):
                    if result is None and not whole:
                        continue
                    pointer = place(0, i, down, across, first + at, column)
                    if result is None:
                        result = ir.Constant(pointer.type.pointee, None)
                    total = result if bias is None else builder.fadd(result, bias)
                    if past:
                        store_past(builder, total, pointer)
                    else:
                        builder.store(total, pointer, align=align)
            first += len(group)
        return context.get_dummy_value()

    return code


def _mirrored(row: list[float], other: list[float]) -> int | None:
    """Return which columns, even ones or odd ones, have the same sign in rows that differ in those of the others."""
    for kept in (0, 1):
        if other == [number if k % 2 == kept else -number for k, number in enumerate(row)]:
            return kept
    return None


def _groups(matrix: Matrix) -> list[Matrix]:
    """Cut a matrix into rows whose products are computed together, as they share sums."""
    groups: list[Matrix] = []
    for row in matrix:
        if groups and len(groups[-1]) == 1 and _mirrored(groups[-1][0], row) is not None:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _products(builder: Any, tile: Tile, matrix: Matrix, vectors: list[Any], back: bool) -> list[Any]:
    """Return the matrix times the vectors, None for zeros. These cost nothing; what points ±p have in common is shared.

    Their rows, in the transforms to points, differ in the sign of every other column: the sums of the even columns and
    of the odd ones are those of both. In a transform ``back`` it is their columns, whose sum and difference go into all
    rows.
    """

    def combined(row: list[float], vectors: list[Any]) -> Any:
        total = None
        for coefficient, vector in sorted(zip(row, vectors, strict=True), key=lambda pair: abs(pair[0]) != 1):
            if coefficient == 0:
                continue
            if total is None:
                total = vector if coefficient == 1 else builder.fmul(vector, constant(vector, coefficient))
            elif coefficient in (1, -1):
                total = (builder.fadd if coefficient == 1 else builder.fsub)(total, vector)
            else:
                total = product_and_sum(builder, tile, vector, constant(vector, coefficient), total)
        return total

    def constant(vector: Any, number: float) -> Any:
        return ir.Constant(vector.type, [vector.type.element(number)] * tile.lanes)

    if back:
        matrix, vectors = [list(row) for row in matrix], list(vectors)
        for k in range(len(vectors) - 1):
            pairs = [(row[k], row[k + 1]) for row in matrix]
            if all(abs(a) == abs(b) for a, b in pairs) and {a == b for a, b in pairs if a != 0} == {True, False}:
                one, other = vectors[k], vectors[k + 1]
                vectors[k], vectors[k + 1] = builder.fadd(one, other), builder.fsub(one, other)
                for row in matrix:
                    row[k], row[k + 1] = (row[k], 0.0) if row[k] == row[k + 1] else (0.0, row[k])
        return [combined(row, vectors) for row in matrix]
    if all(vector is None for vector in vectors):
        return [None for _ in matrix]
    results: list[Any] = []
    for group in _groups(matrix):
        kept = _mirrored(*group) if len(group) == 2 and sum(number != 0 for number in group[0]) > 2 else None
        if kept is None:
            results += [combined(row, vectors) for row in group]
        else:
            row = group[0]
            same = combined([number if k % 2 == kept else 0.0 for k, number in enumerate(row)], vectors)
            other = combined([0.0 if k % 2 == kept else number for k, number in enumerate(row)], vectors)
            results += [builder.fadd(same, other), builder.fsub(same, other)]
    return results

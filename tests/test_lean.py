"""What kernels have in the place of what Python and NumPy have."""

import builtins
import itertools

import numba
import numpy as np
import pytest

from npconv.kernels.numba import lean

NUMBERS = (-(2**63), -1, 0, 1, 7, 2**63 - 1)


@pytest.mark.parametrize("name", ["min", "max"])
def test_of_integers(name):
    function, expected = getattr(lean, name), getattr(builtins, name)
    of_two, of_three = numba.njit(lambda a, b: function(a, b)), numba.njit(lambda a, b: function(a, 0, b))
    for a, b in itertools.product(NUMBERS, repeat=2):
        assert of_two(a, b) == function(a, b) == expected(a, b)
        assert of_three(a, b) == function(a, 0, b) == expected(a, 0, b)


def test_in_python():
    assert lean.min(["b", "ca"], key=len) == "b"
    assert lean.max((), default=3) == 3


def test_tables():
    @numba.njit
    def tables(count):
        one, other = lean.table(count), lean.pair_table(count)
        for i in range(count):
            one[i] = other[i, 0] = i
            other[i, 1] = -i
        return one, other

    for count in (0, 1, 7):
        one, other = tables(count)
        assert one.tolist() == list(range(count))
        assert other.shape == (count, 2)
        assert other.tolist() == [[i, -i] for i in range(count)]


def test_want_of_memory():
    with pytest.raises(MemoryError):
        numba.njit(lambda: lean.table(2**60)[0])()


def test_tuples():
    rows = np.arange(21).reshape(7, 3)
    taken = numba.njit(lambda rows: (lean.triples(rows, 0, 2), lean.triples(rows, 4, 3)))(rows)
    assert taken == tuple(tuple(map(tuple, part.tolist())) for part in (rows[:2], rows[4:]))
    assert numba.njit(lambda row, i: lean.tuple_of(row, i, 4))(rows.ravel(), 5) == (5, 6, 7, 8)


@pytest.mark.parametrize("shape", [(7,), (7, 2)])
def test_views(shape):
    """They keep what they are views of, and reach as far as they say."""
    make = lean.table if len(shape) == 1 else lean.pair_table

    @numba.njit
    def views(count, i, number):
        array = make(count)
        flat = array.reshape(array.size)
        for n in range(flat.size):
            flat[n] = n
        return lean.after(array, i), lean.part_of(array, i, number)

    expected = np.arange(np.prod(shape)).reshape(shape)
    for i, number in ((0, 0), (0, 7), (2, 3), (7, 0)):
        behind, part = views(7, i, number)
        np.testing.assert_array_equal(behind, expected[i:])
        np.testing.assert_array_equal(part, expected[i : i + number])
    line = numba.njit(lambda count: lean.flattened(make(count)))(7)
    assert line.shape == (np.prod(shape),)
    assert numba.njit(lambda array: lean.flattened(array)[-1])(expected) == expected[(-1,) * len(shape)]

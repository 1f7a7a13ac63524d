"""The least and the greatest of integers, in kernels and in Python."""

import builtins
import itertools

import numba
import pytest

from npconv.kernels.numba import integers

NUMBERS = (-(2**63), -1, 0, 1, 7, 2**63 - 1)


@pytest.mark.parametrize("name", ["min", "max"])
def test_of_integers(name):
    function, expected = getattr(integers, name), getattr(builtins, name)
    of_two, of_three = numba.njit(lambda a, b: function(a, b)), numba.njit(lambda a, b: function(a, 0, b))
    for a, b in itertools.product(NUMBERS, repeat=2):
        assert of_two(a, b) == function(a, b) == expected(a, b)
        assert of_three(a, b) == function(a, 0, b) == expected(a, 0, b)


def test_in_python():
    assert integers.min(["b", "ca"], key=len) == "b"
    assert integers.max((), default=3) == 3

"""What is done to kernels before Numba infers their types."""

import itertools

import numba
import pytest

from npconv.kernels.numba import jit

SEVEN = 7


def compiled(function):
    return numba.njit(pipeline_class=jit._Compiler)(function)


def upwards(start, stop, step):
    seen = [0]
    for i in range(stop):
        seen.append(i)
    for i in range(start, stop):
        seen.append(i)
    for i in range(start, stop, step):
        seen.append(i)
    for i in range(2, SEVEN, 2):
        seen.append(i)
    return seen


def downwards(start, stop, step):
    seen = [0]
    for i in range(stop, start, -1):
        seen.append(i)
    for i in range(stop, start, -3):
        seen.append(i)
    for i in range(stop, start, -step):
        seen.append(i)
    return seen


def changed(start, stop, step):
    """The body changes what the range was made of, and its number."""
    seen = [0]
    for i in range(start, stop, step):
        seen.append(i)
        i, start, stop, step = i * 2, start + 1, stop - 1, step + 1
        seen.append(i)
    return [*seen, start, stop, step]


def nested(start, stop, step):
    seen = [0]
    for i in range(start, stop):
        if i == 3:
            continue
        for j in range(i, stop, step):
            if j > 5:
                break
            for k in range(2):
                seen.append(100 * i + 10 * j + k)
        else:
            seen.append(-i)
        while start < 2:
            for k in range(step):
                start += 1
                seen.append(k)
    return seen


def kept(start, stop, step):
    """A range, and the last of its numbers, outlive the loop."""
    numbers = range(start, stop, step)
    last = -1
    for last in numbers:  # noqa: B007
        pass
    total = 0
    for i in numbers:
        total += i
    return [last, total, len(numbers)]


@pytest.mark.parametrize("function", [upwards, downwards, changed, nested, kept])
def test_loops_are_those_of_python(function):
    fast = compiled(function)
    for start, stop, step in itertools.product((-2, 0, 1, 4), (-1, 0, 3, 7), (1, 2, 5)):
        assert list(fast(start, stop, step)) == list(function(start, stop, step))


def test_divisions_are_those_of_python():
    def divided(a, b):
        c = a
        c //= b
        d = a
        d %= b
        return a // b, a % b, divmod(a, b), c, d, -(-a // b)

    fast = compiled(divided)
    numbers = (-(2**63), -(2**40) - 1, -9, -8, -1, 0, 1, 2, 7, 8, 2**40 + 1, 2**63 - 1)
    for a, b in itertools.product(numbers, numbers):
        if b == 0:
            assert fast(a, b) == (0, 0, (0, 0), 0, 0, 0)
        elif abs(a) < 2**63:
            assert fast(a, b) == divided(a, b)


def test_loops_have_no_iterators():
    fast = compiled(nested)
    fast(0, 7, 2)
    assert "range_iter" not in next(iter(fast.inspect_llvm().values()))


def test_one_version_for_all_integers():
    """Literals do not make a function be compiled once more."""
    inner = compiled(lambda number, pair: number + pair[0])
    three = 3

    def outer(n):
        start = 0
        total = inner(n, (n, n)) + inner(5, (n, 1)) + inner(three, (2, n)) + inner(SEVEN, (SEVEN, three))
        while start < n:
            total += inner(start, (0, start))
            start += 1
        for i in range(n):
            total += inner(i, (0, i))
        return total

    assert compiled(outer)(4) == 8 + 9 + 5 + 14 + sum(i + i for i in range(4))
    assert len(inner.overloads) == 1

"""unfold and fold: torch's for two spatial axes, an oracle's for one and three, and each other's adjoint."""

import itertools
import random

import numpy as np
import pytest
import torch
from checks import DTYPES, assert_same, cast, named
from transposed import draw

import npconv


def taken(rank, seed):
    """Sizes, kernels and steps that fit."""
    rng = random.Random(seed)
    while True:
        size, kernel, dilation, padding, stride = (
            tuple(rng.choice(values) for _ in range(rank))
            for values in ((1, 3, 4, 6), (1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2, 4))
        )
        spans = ((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        if all(n + 2 * p >= span for n, p, span in zip(size, padding, spans, strict=True)):
            return size, kernel, dilation, padding, stride


def columns(x, kernel, dilation, padding, stride):
    """The region matrix of (N, C, …), element by element."""
    size = x.shape[2:]
    positions = [
        range(-p, n + p - (k - 1) * d, s) for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True)
    ]
    rows = [(c, tap) for c in range(x.shape[1]) for tap in np.ndindex(*kernel)]
    result = np.zeros((x.shape[0], len(rows), len(list(itertools.product(*positions)))), x.dtype)
    for row, (c, tap) in enumerate(rows):
        for column, start in enumerate(itertools.product(*positions)):
            at = tuple(b + t * d for b, t, d in zip(start, tap, dilation, strict=True))
            if all(0 <= i < n for i, n in zip(at, size, strict=True)):
                result[:, row, column] = x[(slice(None), c, *at)]
    return result


def numbers(*shape, seed=0, complex_=False):
    return draw(np.random.default_rng(seed), shape, complex_)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unfold_and_fold(rank, seed):
    """unfold is the oracle's and torch's; fold is torch's, and for all ranks the adjoint of unfold."""
    size, kernel, *steps = taken(rank, seed)
    x = numbers(2, 3, *size, seed=seed)
    got = npconv.unfold(x, kernel, *steps)
    assert_same(got, columns(x, kernel, *steps), (size, kernel, steps))
    assert_same(npconv.unfold(x[0], kernel, *steps) if rank > 1 else got[0], got[0], "unbatched")
    y = numbers(*got.shape, seed=seed + 100)
    back = npconv.fold(y, size, kernel, *steps)
    assert back.shape == x.shape
    assert np.vdot(got, y) == np.vdot(x, back)
    assert_same(npconv.fold(y[0], size, kernel, *steps), back[0], "unbatched")
    if rank == 2:
        assert_same(got, torch.nn.functional.unfold(torch.from_numpy(x), kernel, *steps).numpy(), "torch")
        assert_same(back, torch.nn.functional.fold(torch.from_numpy(y), size, kernel, *steps).numpy(), "torch")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_fold_counts_overlaps(rank, dtype):
    for seed in range(10):
        size, kernel, *steps = taken(rank, seed)
        ones = np.ones((1, 2, *size), named(dtype))
        counts = np.zeros(size, int)
        for column in columns(np.arange(1.0, np.prod(size) + 1).reshape(1, 1, *size), kernel, *steps)[0].T:
            counts.reshape(-1)[column[column > 0].astype(int) - 1] += 1
        got = npconv.fold(npconv.unfold(ones, kernel, *steps), size, kernel, *steps)
        assert_same(got, np.broadcast_to(cast(counts, named(dtype)), ones.shape), (size, kernel, steps))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype):
    to = named(dtype)
    x = numbers(2, 3, 5, 6, complex_=to.kind == "c")
    want = npconv.unfold(x, (3, 2), padding=1)
    assert_same(npconv.unfold(cast(x, to), (3, 2), padding=1), cast(want, to), dtype)
    back = npconv.fold(want, (5, 6), (3, 2), padding=1)
    assert_same(npconv.fold(cast(want, to), (5, 6), (3, 2), padding=1), cast(back, to), dtype)


def test_sums_of_float16_are_rounded_once():
    got = npconv.fold(np.array([[[2048], [1], [1]]], "f2").reshape(1, 3, 1).repeat(3, 2), (5,), (3,))
    assert_same(got, np.array([[[2048, 2049, 2050, 2, 1]]]).astype("f2"), "2048 + 1 + 1 is 2050 in float32")


def test_kernel_size():
    """One number serves all axes, where the axes say how many there are; a sequence says it itself."""
    for shape, rank in (((3, 6), 1), ((3, 6, 7), 2), ((2, 3, 6, 7), 2), ((2, 3, 6, 4, 5), 3)):
        x = numbers(*shape)
        assert npconv.unfold(x, 2).shape == npconv.unfold(x, (2,) * rank if rank > 1 else 2).shape
        assert npconv.unfold(x, 2).shape[-2] == 3 * 2**rank
    assert npconv.unfold(numbers(2, 3, 6), (2,)).shape == (2, 6, 5)
    assert npconv.unfold(numbers(2, 3, 6, 5, 4), (2,)).shape == (2, 24, 60)
    assert npconv.unfold(numbers(3, 6, 5, 4), (2, 2, 2)).shape == (24, 60)
    assert npconv.unfold(numbers(2, 3, 6, 5), np.array([2, 3])).shape == (2, 18, 15)


def test_forms_of_padding_and_steps():
    x = numbers(2, 3, 6, 5)
    wide = np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 3)))
    assert_same(npconv.unfold(x, 2, padding=((1, 2), (0, 3))), npconv.unfold(wide, 2), "pairs")
    same = npconv.unfold(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), 3)
    assert_same(npconv.unfold(x, 3, padding="same"), same, "same")
    assert_same(npconv.unfold(x, [3], (1,), [1, 1], np.int8(1)), same, "sequences")
    x = numbers(2, 3, 6, 6)
    assert_same(npconv.fold(npconv.unfold(x, 2, stride=2), 6, 2, stride=2), x, "an int is two axes, as in torch")


@pytest.mark.parametrize(
    ("shape", "kernel"), [((1, 2, 5), (1,)), ((1, 2, 5, 4), (5, 4)), ((2, 2, 5), (2,)), ((1, 1, 6), (3,))]
)
def test_the_result_is_the_callers_own(shape, kernel):
    x = np.ones(shape)
    for padding in (1, "same"):  # regions of a copy in line share their elements
        padded = npconv.unfold(x, kernel, padding=padding)
        assert padded.flags.writeable
        assert padded.flags.c_contiguous
    for got in (npconv.unfold(x, kernel), npconv.fold(npconv.unfold(x, kernel), shape[2:], kernel)):
        assert got.flags.writeable
        assert not np.shares_memory(got, x)


def test_nothing():
    assert npconv.unfold(np.ones((0, 3, 4, 4)), 2).shape == (0, 12, 9)
    assert npconv.unfold(np.ones((2, 0, 4, 4)), 2).shape == (2, 0, 9)
    assert npconv.fold(np.ones((0, 12, 9)), 4, 2).shape == (0, 3, 4, 4)
    assert npconv.fold(np.ones((2, 0, 9)), 4, 2).shape == (2, 0, 4, 4)


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
def test_overflow_is_silent(dtype):
    got = npconv.fold(np.full((1, 2, 3), np.finfo(dtype).max, dtype), (4,), (2,))
    assert np.isinf(got).tolist() == [[[False, True, True, False]]]


X = np.ones((2, 3, 6, 5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: npconv.unfold(np.ones(5), 2), ValueError, "input must have two to five axes"),
        (lambda: npconv.unfold(np.ones((1,) * 6), 2), ValueError, "input must have two to five axes"),
        (lambda: npconv.unfold(X, (2, 2, 2, 2)), ValueError, "kernel_size"),
        (lambda: npconv.unfold(X[0, 0], (2, 2)), ValueError, r"input must have 4 axes.*\(6, 5\)"),
        (lambda: npconv.unfold(X[0], (2, 2, 2)), ValueError, "input must have 5 axes"),
        (lambda: npconv.unfold(X, 7), ValueError, r"kernel_size and dilation span \(7, 7\).*\(6, 5\)"),
        (lambda: npconv.unfold(X, 3, 3), ValueError, r"span \(7, 7\)"),
        (lambda: npconv.unfold(X, 0), ValueError, "kernel_size must be at least 1"),
        (lambda: npconv.unfold(X, 2, 0), ValueError, "dilation must be at least 1"),
        (lambda: npconv.unfold(X, 2, stride=0), ValueError, "stride must be at least 1"),
        (lambda: npconv.unfold(X, 2, padding=-1), ValueError, "padding must be at least 0"),
        (lambda: npconv.unfold(X, 2, padding="full"), ValueError, "padding must be one of"),
        (lambda: npconv.unfold(X, 2.0), TypeError, "kernel_size must be an integer"),
        (lambda: npconv.unfold(X, 2, True), TypeError, "dilation must be an integer"),
        (lambda: npconv.unfold(X > 0, 2), TypeError, "input has dtype bool"),
        (lambda: npconv.fold(np.ones((2, 12, 19)), (6, 5), 2), ValueError, r"20 columns.*\(2, 12, 19\)"),
        (lambda: npconv.fold(np.ones((2, 13, 20)), (6, 5), 2), ValueError, r"multiple of 4 rows.*\(2, 13, 20\)"),
        (lambda: npconv.fold(np.ones(20), (6, 5), 2), ValueError, "input must have shape"),
        (lambda: npconv.fold(np.ones((1, 1, 1, 1)), (1, 1), 1), ValueError, "input must have shape"),
        (lambda: npconv.fold(np.ones((2, 12, 20)), (1, 2, 3, 4), 2), ValueError, "one, two or three axes"),
        (lambda: npconv.fold(np.ones((2, 12, 20)), (), 2), ValueError, "one, two or three axes"),
        (lambda: npconv.fold(np.ones((2, 12, 20)), (0, 5), 2), ValueError, "output_size must be at least 1"),
        (lambda: npconv.fold(np.ones((2, 12, 20)), (6, 5), (2, 2, 2)), ValueError, "kernel_size"),
        (lambda: npconv.fold(np.ones((2, 12, 20)), (6, 5), 7), ValueError, "kernel_size and dilation span"),
        (lambda: npconv.fold(np.ones((2, 12, 20)), 6.5, 2), TypeError, "output_size must be an integer"),
        (lambda: npconv.fold(np.ones((2, 12, 20)), "65", 2), TypeError, "output_size"),
        (lambda: npconv.fold(np.ones((2, 12, 20), object), (6, 5), 2), TypeError, "input has dtype object"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()

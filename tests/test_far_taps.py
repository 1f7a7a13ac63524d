"""Taps that meet nothing but padding, as those of dilations longer than the image: they are left out, unseen."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import npconv
from npconv.arguments import conv_problem

CASES = (
    # Image, kernel, dilation, padding, stride; the taps that are left.
    ((33, 33), (3, 3), (36, 36), (36, 36), 1, (1, 1)),
    ((16, 16), (3, 3), (3000, 3000), (3000, 3000), 1, (1, 1)),
    ((16, 19), (5, 5), (9, 9), (18, 18), 1, (3, 5)),
    ((7, 7), (7, 7), (5, 5), (15, 15), 3, (3, 3)),
    ((12, 12), (4, 4), (11, 11), (20, 20), 2, (2, 2)),
    ((20, 20), (3, 3), (18, 18), (18, 18), 1, (3, 3)),
    ((5, 40), (3, 4), (8, 1), (8, 2), 1, (1, 4)),
    ((9, 9), (3, 3), (40, 2), (60, 2), 1, (1, 3)),
    ((11,), (3,), (12,), (12,), 1, (1,)),
    ((4, 5, 6), (3, 3, 3), (5, 5, 5), (5, 5, 5), 1, (1, 1, 3)),
)


def arrays(image, kernel, channels=5, filters=6, groups=1):
    rng = np.random.default_rng(1)
    return (
        rng.standard_normal((2, channels * groups, *image)),
        rng.standard_normal((filters * groups, channels, *kernel)),
        rng.standard_normal(filters * groups),
    )


def of_torch(x, w, b, options, transposed=False):
    function = getattr(torch.nn.functional, f"conv{'_transpose' * transposed}{x.ndim - 2}d")
    return function(*(None if array is None else torch.from_numpy(array) for array in (x, w, b)), **options).numpy()


def assert_close(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-11 * max(np.abs(want).max(initial=0), 1))


@pytest.mark.parametrize(("image", "kernel", "dilation", "padding", "stride", "left"), CASES)
def test_they_are_left_out(image, kernel, dilation, padding, stride, left):
    problem = conv_problem(
        len(image), (2, 5, *image), (6, 5, *kernel), None, np.dtype("f8"), stride=stride, padding=padding,
        dilation=dilation, groups=1, padding_mode="zeros", data_format="channels_first",
    )  # fmt: skip
    assert problem.met.kernel_size == left
    assert problem.met.output_size == problem.output_size
    assert problem.met.met == problem.met
    assert all(min(pair) >= 0 for pair in problem.met.padding)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("image", "kernel", "dilation", "padding", "stride", "left"), CASES)
def test_results_are_those_of_torch(image, kernel, dilation, padding, stride, left, groups):
    x, w, b = arrays(image, kernel, groups=groups)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    want, rank = of_torch(x, w, b, options), len(image)
    assert_close(getattr(npconv, f"conv{rank}d")(x, w, b, **options), want)
    assert_close(getattr(npconv, f"conv{rank}d")(x, np.asfortranarray(w), b, **options), want)
    assert_close(getattr(npconv, f"Conv{rank}d")(w, b, **options)(x), want)
    slope = np.random.default_rng(2).standard_normal(want.shape)
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w)]
    getattr(torch.nn.functional, f"conv{rank}d")(*tensors, None, **options).backward(torch.from_numpy(slope))
    assert_close(getattr(npconv.grad, f"conv{rank}d_input")(x.shape, w, slope, **options), tensors[0].grad.numpy())
    assert_close(getattr(npconv.grad, f"conv{rank}d_weight")(x, w.shape, slope, **options), tensors[1].grad.numpy())
    bias = np.zeros(x.shape[1])
    want = of_torch(slope, w, bias, options, transposed=True)
    assert_close(getattr(npconv, f"conv_transpose{rank}d")(slope, w, bias, **options), want)
    assert_close(getattr(npconv, f"ConvTranspose{rank}d")(w, bias, **options)(slope), want)


def test_a_layer_meets_images_of_several_sizes():
    """Of which each meets other taps, so that weights packed for one are not for the other."""
    _, w, b = arrays((9, 9), (5, 5))
    layer = npconv.Conv2d(w, b, padding=20, dilation=10)
    for size in (9, 11, 25, 9, 60, 11, 25):
        x = np.random.default_rng(size).standard_normal((1, 5, size, size))
        assert_close(layer(x), of_torch(x, w, b, {"padding": 20, "dilation": 10}))


def test_named_algorithms_and_backends():
    """Winograd's computes all taps, as it is for kernels of several."""
    x, w, b = arrays((6, 6), (3, 3))
    options = {"padding": 7, "dilation": 7}
    want = of_torch(x, w, b, options)
    for algorithm in ("winograd4", "direct", "planes", "im2col", "loop"):
        assert_close(npconv.conv2d(x, w, b, **options, algorithm=algorithm), want)
    assert_close(npconv.conv2d(x, w, b, **options, backend="numpy"), want)
    whole = [np.rint(array * 9).astype(int) for array in (x, w, b)]
    np.testing.assert_array_equal(npconv.conv2d(*whole, **options), npconv.conv2d(*whole, **options, backend="numpy"))


def test_what_is_told_is_what_runs():
    """The textbook's algorithms compute all taps, and need memory for them; refusals are those of named algorithms."""
    shapes = (1, 64, 33, 33), (64, 64, 3, 3)
    far, near = ({"padding": n, "dilation": n} for n in (300, 1))
    loop = {"algorithm": "im2col", "backend": "numpy"}
    assert npconv.explain("conv2d", *shapes, **far, **loop).workspace > 1e8
    found = npconv.explain("conv2d", *shapes, **far, backend="numba")
    assert found.workspace <= npconv.explain("conv2d", *shapes, **near, backend="numba").workspace + 2**20
    x, w = (np.ones(shape, np.float32) for shape in shapes)
    for algorithm in ("direct", "strassen", "winograd4", "dots"):
        refused = ("numba", algorithm) in found.refusals
        if refused:
            with pytest.raises(ValueError, match="cannot do this problem"):
                npconv.conv2d(x, w, **far, algorithm=algorithm)
        else:
            npconv.conv2d(x, w, **far, algorithm=algorithm)
        assert refused == (algorithm == "dots")


def test_a_layer_keeps_the_weights_of_few_sizes():
    layer = npconv.Conv1d(np.ones((8, 8, 31), np.float32), padding=120, dilation=8)
    for size in range(2, 118, 8):
        layer(np.ones((1, 8, size), np.float32))
    assert all(len(kept) <= 4 for kept in layer._workspace._packed.values())
    assert not any(isinstance(road, partial) for road in layer._roads.values())  # each of which would keep weights


@settings(max_examples=200)
@given(st.data())
def test_any_axis(data):
    size, taps, dilation = (data.draw(st.integers(1, most)) for most in (12, 6, 9))
    before, after, stride = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30)), data.draw(st.integers(1, 4))
    assume(size + before + after >= (taps - 1) * dilation + 1)
    x, w, b = arrays((size,), (taps,), 2, 3)
    options = {"stride": stride, "padding": ((before, after),), "dilation": dilation}
    got = npconv.conv1d(x, w, b, **options)
    padded = torch.from_numpy(np.pad(x, ((0, 0), (0, 0), (before, after)))).requires_grad_()
    weight = torch.from_numpy(w).requires_grad_()
    want = torch.nn.functional.conv1d(padded, weight, torch.from_numpy(b), stride=stride, dilation=dilation)
    assert_close(got, want.detach().numpy())
    slope = np.random.default_rng(2).standard_normal(got.shape)
    want.backward(torch.from_numpy(slope))
    assert_close(
        npconv.grad.conv1d_input(x.shape, w, slope, **options), padded.grad.numpy()[..., before : before + size]
    )
    assert_close(npconv.grad.conv1d_weight(x, w.shape, slope, **options), weight.grad.numpy())

"""Taps that meet nothing but padding, as those of dilations longer than the image: they are left out, unseen."""

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


def close(got, want):
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
    close(getattr(npconv, f"conv{rank}d")(x, w, b, **options), want)
    close(getattr(npconv, f"conv{rank}d")(x, np.asfortranarray(w), b, **options), want)
    close(getattr(npconv, f"Conv{rank}d")(w, b, **options)(x), want)
    slope = np.random.default_rng(2).standard_normal(want.shape)
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w)]
    getattr(torch.nn.functional, f"conv{rank}d")(*tensors, None, **options).backward(torch.from_numpy(slope))
    close(getattr(npconv.grad, f"conv{rank}d_input")(x.shape, w, slope, **options), tensors[0].grad.numpy())
    close(getattr(npconv.grad, f"conv{rank}d_weight")(x, w.shape, slope, **options), tensors[1].grad.numpy())
    bias = np.zeros(x.shape[1])
    try:
        want = of_torch(slope, w, bias, options, transposed=True)
    except RuntimeError:  # torch takes no padding that leaves nothing
        return
    close(getattr(npconv, f"conv_transpose{rank}d")(slope, w, bias, **options), want)
    close(getattr(npconv, f"ConvTranspose{rank}d")(w, bias, **options)(slope), want)


def test_a_layer_meets_images_of_several_sizes():
    """Of which each meets other taps, so that weights packed for one are not for the other."""
    _, w, b = arrays((9, 9), (5, 5))
    layer = npconv.Conv2d(w, b, padding=20, dilation=10)
    for size in (9, 11, 25, 9, 60, 11, 25):
        x = np.random.default_rng(size).standard_normal((1, 5, size, size))
        close(layer(x), of_torch(x, w, b, {"padding": 20, "dilation": 10}))


def test_a_named_algorithm_computes_all_taps():
    x, w, b = arrays((6, 6), (3, 3))
    options = {"padding": 7, "dilation": 7}
    for algorithm in ("winograd4", "direct", "im2col", "loop"):
        close(npconv.conv2d(x, w, b, **options, algorithm=algorithm), of_torch(x, w, b, options))


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
    close(got, want.detach().numpy())
    slope = np.random.default_rng(2).standard_normal(got.shape)
    want.backward(torch.from_numpy(slope))
    close(npconv.grad.conv1d_input(x.shape, w, slope, **options), padded.grad.numpy()[..., before : before + size])
    close(npconv.grad.conv1d_weight(x, w.shape, slope, **options), weight.grad.numpy())

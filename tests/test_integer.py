"""Convolutions of 8-bit numbers with zero points are those of the differences, in 64 bits."""

import numpy as np
import pytest
from checks import BACKENDS, assert_same, poison

import npconv

EIGHT = ("int8", "uint8")
FUNCTIONS = {1: npconv.conv1d_integer, 2: npconv.conv2d_integer, 3: npconv.conv3d_integer}


def drawn(rng, dtype, shape):
    """Any numbers of a dtype, its extremes among them."""
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
    return np.where(rng.random(shape) < 0.3, rng.choice([limits.min, limits.max], shape), values).astype(dtype)


def reference(x, w, zero, zeros, **options):
    """The int64 convolution of the differences, padded by zeros, which are the zero point."""
    shift = np.asarray(zeros, np.int64).reshape((-1,) + (1,) * (w.ndim - 1) if np.ndim(zeros) else ())
    rank = max(w.ndim - 2, 2 if w.ndim == 2 else 1)
    conv = getattr(npconv, f"conv{rank}d")
    wide = conv(
        x.astype(np.int64) - int(zero), w.astype(np.int64) - shift, backend="numpy", algorithm="im2col", **options
    )
    assert np.abs(wide).max(initial=0) < 2**31
    return wide.astype(np.int32)


OPTIONS = [
    {},
    {"stride": 2, "padding": 1, "groups": 2},
    {"padding": "same_lower", "stride": 3, "dilation": 2},
    {"padding": 3, "dilation": 2, "data_format": "channels_last"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("weights", EIGHT)
@pytest.mark.parametrize("inputs", EIGHT)
def test_every_combination(inputs, weights, rank, options):
    rng = np.random.default_rng(rank)
    shape = (2, 4, *(7, 6, 5)[:rank])
    x = drawn(rng, inputs, (2, *shape[2:], 4) if "data_format" in options else shape)
    w = drawn(rng, weights, (6, 4 // options.get("groups", 1), *(3, 2, 2)[:rank]))
    for zero in (0, np.iinfo(inputs).min, np.iinfo(inputs).max, x.flat[0]):
        for zeros in (0, int(np.iinfo(weights).max), drawn(rng, weights, (6,))):
            want = reference(x, w, zero, zeros, **options)
            for backend in BACKENDS:
                assert_same(FUNCTIONS[rank](x, w, zero, zeros, **options, backend=backend), want, (zero, zeros))


def test_padding_is_the_zero_point():
    x = np.full((1, 1, 3), 200, np.uint8)
    got = npconv.conv1d_integer(x, np.ones((1, 1, 3), np.int8), 128, 0, 1, 1)
    assert_same(got, np.array([[[144, 216, 144]]], np.int32), "200 - 128 is 72, and the padding 0")


@pytest.mark.parametrize("backend", BACKENDS)
def test_extremes(backend):
    x, w = np.full((1, 500, 3), 255, np.uint8), np.full((1, 500, 3), -128, np.int8)
    got = npconv.conv1d_integer(x, w, 0, 127, backend=backend)
    assert_same(got, np.array([[[1500 * 255 * -255]]], np.int32), "the least")
    got = npconv.conv1d_integer(x, w + np.int8(0), 0, -128, backend=backend)
    assert_same(got, np.array([[[0]]], np.int32), "nothing")
    x, w = np.full((1, 11009, 3), 255, np.uint8), np.full((1, 11009, 3), 255, np.uint8)
    exact = 33027 * 255 * 255
    assert exact > 2**31 - 1
    got = npconv.conv1d_integer(x, w, backend=backend)
    assert_same(got, np.array([[[exact - 2**32]]], np.int32), "modulo 2**32")


def test_unbatched_and_images():
    rng = np.random.default_rng(3)
    x, w = drawn(rng, "uint8", (4, 6, 5)), drawn(rng, "int8", (3, 4, 3, 2))
    assert_same(npconv.conv2d_integer(x, w, 7, [1, 2, 3]), reference(x, w, 7, [1, 2, 3]), "unbatched")
    assert_same(npconv.conv2d_integer(x[0], w[0, 0], 7, [5]), reference(x[0], w[0, 0], 7, 5), "an image")


@pytest.mark.parametrize("backend", BACKENDS)
def test_out(backend):
    rng = np.random.default_rng(3)
    x, w = drawn(rng, "uint8", (2, 4, 6, 5))[:, ::-1, ::2], drawn(rng, "int8", (3, 4, 3, 2))[..., ::-1]
    want = reference(x, w, 7, 3)
    out = poison(np.empty((*want.shape, 2), np.int32))[..., 0]
    assert npconv.conv2d_integer(x, w, 7, 3, out=out, backend=backend) is out
    assert_same(out, want, "out")
    with pytest.raises(TypeError, match=r"out must have.*int32"):
        npconv.conv2d_integer(x, w, out=np.empty(want.shape, np.int64))


X, W = np.ones((1, 2, 5), np.uint8), np.ones((3, 2, 2), np.int8)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X.astype("i2"), W), {}, TypeError, "input of conv1d_integer must be int8 or uint8; got int16"),
        ((X, W.astype("f4")), {}, TypeError, "weight of conv1d_integer must be int8 or uint8; got float32"),
        ((X > 0, W), {}, TypeError, "input of conv1d_integer"),
        ((X, W, 256), {}, ValueError, "input_zero_point.*uint8, 0 to 255.*256"),
        ((X, W, -1), {}, ValueError, "input_zero_point.*uint8"),
        ((X, W, 0, 128), {}, ValueError, "weight_zero_point.*int8, -128 to 127"),
        ((X, W, 0, [0, 0, 200]), {}, ValueError, "weight_zero_point.*int8"),
        ((X, W, 0, [0, 0]), {}, ValueError, r"weight_zero_point.*\(3,\).*\(2,\)"),
        ((X, W, [1, 2]), {}, ValueError, "input_zero_point must be an integer"),
        ((X, W, 1.0), {}, TypeError, "input_zero_point must be an integer"),
        ((X, W, True), {}, TypeError, "input_zero_point must be an integer"),
        ((X, W, 0, None), {}, TypeError, "weight_zero_point must be an integer"),
        ((X, W, 0, 0, 0), {}, ValueError, "stride"),
        ((X, W[:, :1]), {}, ValueError, "2 channels"),
        ((X, W), {"padding": "full"}, ValueError, "padding"),
        ((X, W), {"dilation": 5}, ValueError, "kernel"),
        ((X, W), {"backend": "torch"}, ValueError, "backend"),
        ((X, W), {"data_format": "NCL"}, ValueError, "data_format"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        npconv.conv1d_integer(*arguments, **options)

"""Activations are torch's, of convolutions, transposed ones and layers; NaN goes through, integers stay exact."""

import numpy as np
import pytest
import torch
from checks import BACKENDS, INTEGERS, assert_same, eps, named, poison

import npconv

F = torch.nn.functional
TORCHS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hardswish": F.hardswish,
    ("leaky_relu", 0.2): lambda x: F.leaky_relu(x, 0.2),
    ("leaky_relu", 0): lambda x: F.leaky_relu(x, 0),
    ("leaky_relu", 3): lambda x: F.leaky_relu(x, 3),
    ("leaky_relu", -1.5): lambda x: F.leaky_relu(x, -1.5),
    ("clip", -1.5, 2): lambda x: torch.clamp(x, -1.5, 2),
    ("clip", 1, 1): lambda x: torch.clamp(x, 1, 1),
    ("clip", -np.inf, 0.5): lambda x: torch.clamp(x, max=0.5),
}
VALUES = [
    -np.inf,
    -1000,
    -89,
    -7,
    -3.5,
    -3,
    -1,
    -0.125,
    -0.0,
    0,
    0.125,
    1,
    2.5,
    3,
    5.75,
    6,
    6.5,
    89,
    1000,
    np.inf,
    np.nan,
]
ONE = np.ones((1, 1, 1))


def transposed_layer(x, w, **options):
    return npconv.ConvTranspose1d(w, **options)(x)


def layer(x, w, **options):
    return npconv.Conv1d(w, **options)(x)


FUNCTIONS = [npconv.conv1d, npconv.conv_transpose1d, layer, transposed_layer]


def assert_close(got, values, activation, dtype):
    want = TORCHS[activation](torch.tensor(values, dtype=torch.float64)).numpy()
    assert got.dtype == dtype
    error = 8 * eps(np.dtype("f4") if dtype.itemsize < 4 else dtype) + (eps(dtype) if dtype.itemsize < 4 else 0)
    with np.errstate(all="ignore"):
        same = np.isclose(got.astype(float), want, rtol=error, atol=error * 1e-3, equal_nan=True)
    assert same.all(), f"{activation} of {np.array(values)[~same]}: {got[~same]}, not {want[~same]}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("activation", TORCHS, ids=str)
def test_torchs(activation, dtype, backend):
    to = named(dtype)
    x = np.array(VALUES, to)[None, None]
    for function in FUNCTIONS:
        got = function(x, ONE.astype(to), activation=activation, backend=backend)
        assert_close(got[0, 0], x[0, 0].astype(float), activation, to)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", TORCHS, ids=str)
def test_every_form_of_out(activation, backend):
    """Of channels last, and of any strides, beyond one piece of an activation's work."""
    x = np.random.default_rng(0).standard_normal((2, 3, 70, 101)) * 4
    w = np.random.default_rng(1).standard_normal((4, 3, 1, 1))
    plain = npconv.conv2d(x, w, backend=backend)
    want = npconv.conv2d(x, w, activation=activation, backend=backend)
    assert_close(want, plain, activation, want.dtype)
    out = poison(np.empty((*want.shape[::-1], 2)))[..., 0].T
    assert npconv.conv2d(x, w, activation=activation, backend=backend, out=out) is out
    assert_same(out, want, "strides")
    last = npconv.conv2d(np.moveaxis(x, 1, -1), w, activation=activation, backend=backend, data_format="channels_last")
    np.testing.assert_allclose(np.moveaxis(last, -1, 1), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", TORCHS, ids=str)
def test_after_the_bias(activation):
    bias = np.array([-2.0, 0.5, 7])
    got = npconv.conv2d(np.zeros((1, 1, 2, 2)), np.ones((3, 1, 1, 1)), bias, activation=activation)
    assert_close(got[0, :, 0, 0], bias, activation, got.dtype)
    got = npconv.conv_transpose2d(np.zeros((1, 1, 2, 2)), np.ones((1, 3, 1, 1)), bias, 2, activation=activation)
    assert got.shape == (1, 3, 3, 3)
    assert_close(got.reshape(3, 9), np.repeat(bias, 9).reshape(3, 9), activation, got.dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_after_the_modulo(dtype, backend):
    to = np.dtype(dtype)
    x = np.array([0, 1, 3, 7, 100, 127], dtype)[None, None]
    plain = npconv.conv1d(x, np.array([[[5]]], dtype))
    low, high = 2, 100
    for activation, want in (
        ("relu", np.maximum(plain, to.type(0))),
        ("relu6", np.clip(plain, 0, 6)),
        (("clip", low, high), np.clip(plain, low, high)),
        (("clip", np.int8(low), np.uint8(high)), np.clip(plain, low, high)),
    ):
        for function in FUNCTIONS:
            got = function(x, np.array([[[5]]], dtype), activation=activation, backend=backend)
            assert_same(got, want.astype(dtype), (activation, dtype))


def test_int8_wraps_first():
    x, w = np.array([[[100, 50]]], np.int8), np.array([[[2]]], np.int8)
    assert_same(npconv.conv1d(x, w, activation="relu"), np.array([[[0, 100]]], np.int8), "200 is -56")


def test_spellings():
    x = np.array([[[-3.0, 9.0]]])
    for clip in (("clip", 0, 6), ["clip", 0.0, 6.0], ("clip", np.float32(0), np.int64(6))):
        assert_same(npconv.conv1d(x, ONE, activation=clip), np.array([[[0.0, 6.0]]]), clip)
    assert_same(npconv.conv1d(x, ONE, activation=("relu",)), np.array([[[0.0, 9.0]]]), "a tuple of a name")


ERRORS = [
    ("tanh", "f8", ValueError, "activation must be one of relu"),
    ("ReLU", "f8", ValueError, "activation must be one of relu"),
    (3, "f8", TypeError, "activation must be a string"),
    ((), "f8", TypeError, "activation must be a string"),
    (np.maximum, "f8", TypeError, "activation must be a string"),
    ("clip", "f8", ValueError, r"\('clip', low, high\)"),
    (("clip", 1), "f8", ValueError, r"\('clip', low, high\)"),
    ("leaky_relu", "f8", ValueError, r"\('leaky_relu', slope\)"),
    (("relu", 1), "f8", ValueError, "is given as 'relu'"),
    (("clip", 2, 1), "f8", ValueError, "low ≤ high"),
    (("clip", np.nan, 1), "f8", ValueError, "low.*NaN"),
    (("leaky_relu", np.nan), "f8", ValueError, "slope.*NaN"),
    (("leaky_relu", "1"), "f8", TypeError, "slope.*number"),
    (("leaky_relu", True), "f8", TypeError, "slope.*number"),
    (("leaky_relu", 1j), "f8", TypeError, "slope.*number"),
    (("clip", 0, 10**400), "f8", ValueError, "high"),
    ("relu", "c16", TypeError, "not defined for complex"),
    (("clip", 0, 1), "c8", TypeError, "not defined for complex"),
    ("silu", "i4", TypeError, "no integer results"),
    (("leaky_relu", 2), "i4", TypeError, "no integer results"),
    (("clip", 0, 1.5), "i4", ValueError, "high.*integer"),
    (("clip", -1, 1), "u1", ValueError, "low.*uint8"),
    (("clip", 0, 200), "i1", ValueError, "high.*int8"),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize(("activation", "dtype", "error", "message"), ERRORS, ids=lambda value: str(value)[:40])
def test_errors(function, activation, dtype, error, message):
    with pytest.raises(error, match=message):
        function(np.ones((1, 1, 3), dtype), ONE.astype(dtype), activation=activation)

"""Layers give bit for bit what their functions give, however often, from wherever and whatever was computed before.

That is by the same algorithm; ``"auto"`` may take another one where the weight is packed.
"""

import itertools
import os
import pickle
import threading
from functools import cache

import numpy as np
import pytest
from checks import BACKENDS, assert_same, poison

import npconv
from npconv import registry

KINDS = {
    "Conv1d": ((6, 2, 3), {"stride": 2, "padding": ((1, 2),), "groups": 2, "activation": "relu"}),
    "Conv2d": ((5, 4, 3, 2), {"padding": "same", "dilation": 2, "activation": "silu"}),
    "Conv3d": ((3, 4, 2, 2, 2), {"padding": 1, "padding_mode": "circular"}),
    "ConvTranspose1d": ((4, 3, 3), {"stride": 3, "output_padding": 2, "groups": 2}),
    "ConvTranspose2d": ((4, 3, 3, 2), {"stride": 2, "padding": ((1, 0), (0, 1)), "activation": ("clip", -1, 1)}),
    "ConvTranspose3d": ((4, 3, 2, 2, 2), {"stride": (1, 2, 3), "dilation": 2}),
}
FUNCTIONS = {name: "conv_transpose" + name[-2:] if "Transpose" in name else "conv" + name[-2:] for name in KINDS}


def made(name, dtype="float32", **changes):
    """A layer, and the function with its arguments."""
    shape, options = KINDS[name]
    options = {**options, **changes}
    rng = np.random.default_rng(2)
    filters = shape[1] * options.get("groups", 1) if "Transpose" in name else shape[0]
    w, b = rng.standard_normal(shape).astype(dtype), rng.standard_normal(filters).astype(dtype)
    return getattr(npconv, name)(w, b, **options), lambda x: getattr(npconv, FUNCTIONS[name])(x, w, b, **options)


def image(name, seed=0, n=2, extra=0, dtype="float32"):
    rank = int(name[-2])
    size = tuple(7 + extra - axis for axis in range(rank))
    return np.random.default_rng(seed).standard_normal((n, 4, *size)).astype(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", KINDS)
def test_a_layer_is_its_function(name, dtype, backend):
    choice = {"backend": backend, "algorithm": "planes" if backend == "numba" else "im2col"}
    layer, function = made(name, dtype, **choice)
    for seed, extra in enumerate((0, 1, 0, 2, 1, 0)):  # shapes in turns
        x = image(name, seed, extra=extra, dtype=dtype)
        want = function(x)
        assert_same(layer(x), want, name)
        assert_same(layer(x[0]), want[0] if dtype != "float16" else function(x[0]), "unbatched")
        for order in "FCC":  # the third goes a shorter way
            out = poison(np.empty(want.shape, dtype, order))
            assert layer(x, out=out) is out
            assert_same(out, want, "out")
    last, function = made(name, dtype, **choice, data_format="channels_last")
    x = np.moveaxis(image(name, dtype=dtype), 1, -1)
    assert_same(last(x), function(x), "channels last")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", KINDS)
def test_a_layer_is_near_its_function_whatever_either_chooses(name, dtype, backend):
    layer, function = made(name, dtype, backend=backend)
    for seed, extra in enumerate((0, 1, 0, 2)):
        x = image(name, seed, extra=extra, dtype=dtype)
        got, want = layer(x), function(x)
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(got, want, rtol=0, atol=8 * np.finfo(dtype).eps * np.abs(want).max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", KINDS)
def test_the_border_stays_zero(name, backend):
    """The workspace of a call full of NaN and infinity is the next call's."""
    mode = {} if "Transpose" in name else {"padding": 2, "padding_mode": "zeros"}
    layer, function = made(name, backend=backend, activation=None, **mode)
    for n in (1, 2):
        clean = image(name, n=n)
        want = function(clean)
        for bad in (np.nan, np.inf):
            layer(np.full_like(clean, bad))
            assert_same(layer(clean), want, name)


def test_paddings_of_one_size_do_not_meet():
    """Both fill a workspace of 9 × 9, with borders at other places."""
    x = np.random.default_rng(0).standard_normal((1, 1, 7, 7))
    for padding in (((2, 0), (2, 0)), ((0, 2), (0, 2)), ((1, 1), (2, 0))):
        layer = npconv.ConvTranspose2d(np.ones((1, 1, 3, 3)), padding=padding)
        want = npconv.conv_transpose2d(x, np.ones((1, 1, 3, 3)), padding=padding)
        for _ in range(3):
            layer(np.full_like(x, np.nan))
            assert_same(layer(x), want, padding)
    for stride in (2, 3):  # the phases of one layer
        layer = npconv.ConvTranspose2d(np.ones((1, 1, 5, 5)), stride=stride)
        layer(np.full_like(x, np.nan))
        assert_same(layer(x), npconv.conv_transpose2d(x, np.ones((1, 1, 5, 5)), stride=stride), stride)


def test_many_shapes():
    layer, function = made("Conv2d", padding=1)
    for _ in range(2):
        for extra in range(20):  # more than a workspace keeps
            x = image("Conv2d", extra, extra=extra)
            assert_same(layer(x), function(x), extra)


@pytest.mark.parametrize("algorithm", ["auto", "direct", "planes", "dense"])
@pytest.mark.parametrize("shape", [(8, 4, 2, 2), (40, 6, 5, 5), (200, 33, 1, 1), (33, 3, 4, 4)], ids=str)
def test_any_number_of_images(shape, algorithm):
    """What is packed for one image is met by several, in another way, and the other way round."""
    rng = np.random.default_rng(4)
    weight = rng.integers(-9, 9, shape).astype("float32")
    for images in ((4, 1, 9, 2), (1, 4, 2, 9), (3, 40)):
        for made in (weight, np.asfortranarray(weight), np.ascontiguousarray(weight.swapaxes(0, 1)).swapaxes(0, 1)):
            layer = npconv.Conv2d(made, algorithm=algorithm)
            for n in images * 2:
                x = rng.integers(-9, 9, (n, *shape[1:])).astype("float32")
                want = npconv.conv2d(x, weight, backend="numpy")
                np.testing.assert_allclose(layer(x), want, rtol=0, atol=1e-3 if algorithm == "auto" else 0)
                assert_same(npconv.conv2d(x, made, algorithm="dense"), want, f"{n} images")


ENGINES = [found.name for found in registry.candidates("numba") if found.engine is not None]
CHOICES = [(name, dtype) for name in ("auto", *ENGINES) for dtype in ("float32", "complex64")]
CHOICES.remove(("pieces", "complex64"))  # real and imaginary planes are a third axis, which it does not have
SIZES = ((8, 9), (24, 24), (4, 4), (9, 8), (5, 31), (8, 8))


@cache
def refusals(shape, weight_shape, dtype, **options):
    """Why algorithms do not take a problem: asked once for all of them."""
    return npconv.explain("conv2d", shape, weight_shape, dtype=dtype, backend="numba", **options).refusals


@pytest.mark.parametrize(("algorithm", "dtype"), CHOICES)
def test_images_of_many_sizes(algorithm, dtype):
    """What is packed for one is not taken for another whose padding, which follows from its size, asks for more."""
    rng = np.random.default_rng(5)
    images = 2 if algorithm == "pieces" else 1  # which is for weight gradients, whose images are channels
    met = 0
    for channels, filters, groups in ((3, 16, 1), (16, 40, 4), (8, 8, 8), (32, 32, 8), (64, 64, 1)):
        for kernel, stride, dilation in itertools.product(((1, 1), (2, 2), (3, 3), (4, 4)), (1, 2, 4), (1, 9)):
            weight = rng.integers(-9, 9, (filters, channels // groups, *kernel)).astype(dtype)
            for padding in ("same_upper", "same_lower"):
                options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
                layer = npconv.Conv2d(weight, **options, algorithm=algorithm, backend="numba")
                for size in SIZES:
                    x = rng.integers(-9, 9, (images, channels, *size)).astype(dtype)
                    if ("numba", algorithm) in refusals(x.shape, weight.shape, dtype, **options):
                        continue
                    got = layer(x)
                    want = npconv.conv2d(x, weight, **options, backend="numpy")
                    np.testing.assert_allclose(got, want, rtol=0, atol=0.5, err_msg=f"{weight.shape} {options} {size}")
                    met += 1
    assert met > 0


@pytest.mark.parametrize("name", KINDS)
def test_pickle(name):
    layer, function = made(name)
    x = image(name)
    before = len(pickle.dumps(layer))
    want = layer(x)
    assert len(pickle.dumps(layer)) == before, "no plan and no workspace is pickled"
    again = pickle.loads(pickle.dumps(layer))
    assert_same(again(x), want, name)
    assert_same(want, function(x), name)
    assert repr(again) == repr(layer)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["Conv2d", "ConvTranspose2d"])
def test_threads(name, backend):
    layer, function = made(name, backend=backend, activation=None, padding=1)
    inputs = [image(name, seed, extra=seed % 3) for seed in range(6)]
    want, wrong, done = [function(x) for x in inputs], [], []
    start = threading.Barrier(6)

    def work(first):
        start.wait()
        for number in range(first, first + 30):
            if not np.array_equal(layer(inputs[number % 6]), want[number % 6]):
                wrong.append(number)
        done.append(first)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 6
    assert not wrong


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork():
    layer, _ = made("Conv2d", backend="numpy")
    x = image("Conv2d")
    want = layer(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(layer(x), want) else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_same(layer(x), want, "the parent")


@pytest.mark.parametrize("name", KINDS)
def test_weights_are_copied(name):
    shape, options = KINDS[name]
    w = np.random.default_rng(0).standard_normal(shape).astype("f4")
    b = np.ones(shape[1] * options.get("groups", 1) if "Transpose" in name else shape[0], "f4")
    layer = getattr(npconv, name)(w, b, **options)
    x = image(name)
    want = layer(x)
    w[...], b[...] = np.nan, np.nan
    assert_same(layer(x), want, name)


def test_weights_of_any_making():
    w = np.random.default_rng(0).standard_normal((3, 4, 3, 3))
    x = image("Conv2d", dtype="float64")
    want = npconv.conv2d(x, w)
    frozen = w.copy()
    frozen.flags.writeable = False
    for same in (frozen, np.asfortranarray(w), w.astype(">f8"), w[..., ::-1].copy()[..., ::-1], w.tolist()):
        assert_same(npconv.Conv2d(same)(x), want, type(same))


def test_promotion():
    x, w = np.arange(24.0).reshape(1, 2, 3, 4), np.arange(8.0).reshape(1, 2, 2, 2)
    for inputs in ("float16", "float64", "int32", "complex64", "uint8"):
        for weights in ("float16", "float32", "int8", "complex128"):
            for layer, function in ((npconv.Conv2d, npconv.conv2d), (npconv.ConvTranspose2d, npconv.conv_transpose2d)):
                kernel = (w if layer is npconv.Conv2d else w.swapaxes(0, 1)).astype(weights)
                want = function(x.astype(inputs), kernel)
                assert_same(layer(kernel)(x.astype(inputs)), want, (inputs, weights))


def test_explain():
    for name in KINDS:
        layer, function = made(name)
        shape = image(name).shape
        found = layer.explain(shape)
        assert found.output_shape == function(image(name)).shape
        shape_, options = KINDS[name]
        other = npconv.explain(FUNCTIONS[name], shape, shape_, bias=True, **options)
        # Choice and times may differ: a layer's weights are packed already.
        assert str(found).partition("\nchosen")[0] == str(other).partition("\nchosen")[0]
        with pytest.raises(ValueError, match="input"):
            layer.explain(shape[:1])
    assert (
        npconv.Conv2d(np.ones((1, 1, 1, 1)), algorithm="loop", backend="numpy").explain((1, 1, 2, 2)).algorithm
        == "loop"
    )


W = np.ones((4, 2, 3, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: npconv.Conv2d(W[0]), ValueError, "weight of Conv2d must have 4 axes"),
        (lambda: npconv.Conv1d(W), ValueError, "weight of Conv1d must have 3 axes"),
        (lambda: npconv.ConvTranspose3d(W), ValueError, "weight of ConvTranspose3d must have 5 axes"),
        (lambda: npconv.Conv2d(W, np.ones(3)), ValueError, r"bias must have shape \(4,\)"),
        (lambda: npconv.ConvTranspose2d(W, np.ones(4)), ValueError, r"bias must have shape \(2,\)"),
        (lambda: npconv.Conv2d(W, groups=3), ValueError, "groups"),
        (lambda: npconv.ConvTranspose2d(W, groups=3), ValueError, "groups"),
        (lambda: npconv.Conv2d(W, groups=0), ValueError, "groups"),
        (lambda: npconv.Conv2d(W[:, :, :0]), ValueError, "weight"),
        (lambda: npconv.Conv2d(W, stride=0), ValueError, "stride"),
        (lambda: npconv.Conv2d(W, stride=1.0), TypeError, "stride"),
        (lambda: npconv.Conv2d(W, padding="full"), ValueError, "padding"),
        (lambda: npconv.Conv2d(W, padding="same", stride=2), ValueError, "padding='same' needs stride 1"),
        (lambda: npconv.Conv2d(W, padding=(1, 1, 1)), ValueError, "padding"),
        (lambda: npconv.ConvTranspose2d(W, padding="same"), ValueError, "padding"),
        (lambda: npconv.ConvTranspose2d(W, output_padding=1), ValueError, "output_padding"),
        (lambda: npconv.Conv2d(W, dilation=(1, 2, 3)), ValueError, "dilation"),
        (lambda: npconv.Conv2d(W, padding_mode="mirror"), ValueError, "padding_mode"),
        (lambda: npconv.Conv2d(W, data_format="NCHW"), ValueError, "data_format"),
        (lambda: npconv.Conv2d(W)(np.ones((1, 5, 9, 9))), ValueError, f"input has 5 .* for {W.shape[1]} channels"),
        (lambda: npconv.Conv2d(W, activation="tanh"), ValueError, "activation"),
        (lambda: npconv.Conv2d(W.astype(int), activation="silu"), TypeError, "activation"),
        (lambda: npconv.Conv2d(W, algorithm="fft2000"), ValueError, "algorithm"),
        (lambda: npconv.Conv2d(W, backend="torch"), ValueError, "backend"),
        (lambda: npconv.Conv2d(W, precision="exact"), ValueError, "precision"),
        (lambda: npconv.Conv2d(W > 0), TypeError, "weight has dtype bool"),
        (lambda: npconv.Conv2d(W)(np.ones((1, 3, 5, 5))), ValueError, "3 channels"),
        (lambda: npconv.Conv2d(W)(np.ones((1, 2, 2, 5))), ValueError, "kernel"),
        (lambda: npconv.Conv2d(W)(np.ones((1, 2, 5, 5)), out=np.ones((1, 4, 3, 4))), ValueError, "out must have"),
        (lambda: npconv.Conv2d(W)(np.ones((1, 2, 5, 5)) > 0), TypeError, "input has dtype bool"),
        (lambda: npconv.Conv2d(W.astype(int), activation="relu")(np.ones((1, 2, 5, 5), complex)), TypeError, "complex"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()

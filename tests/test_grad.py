"""Gradients are torch's: exactly, on small integers, by autograd through the same function."""

import inspect
import random

import numpy as np
import pytest
import torch
import transposed
from checks import BACKENDS, TEXTBOOK, assert_same, cast, named, poison, small_integers, torch_pad
from corpus import DILATIONS, GROUPS, LAYOUTS, PADDINGS, RANKS, SIZES, parse
from corpus import TEXTBOOK as PROBLEMS
from oracle import pads

import npconv
from npconv import grad

TEXTS = (*PROBLEMS, *SIZES, *PADDINGS, *GROUPS, *DILATIONS, *RANKS, *LAYOUTS)
NAMES = [
    f"conv{kind}{rank}d_{what}" for kind in ("", "_transpose") for rank in (1, 2, 3) for what in ("input", "weight")
]
WHAT = ("input", "weight", "bias")


def drawn(shape, seed, complex_):
    return transposed.draw(np.random.default_rng(seed), shape, complex_)


def torch_gradients(case, arrays, complex_):
    """The gradient that comes in, as the caller has it, and torch's gradients of input, weight and bias."""
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    x, w, bias = tensors
    if case.kind == "image":
        x, w = x[None, None], w[None, None]
    elif case.kind == "unbatched":
        x = x[None]
    if case.channels_last:
        x = x.movedim(-1, 1)
    x = torch_pad(x, [width for pair in reversed(pads(case)) for width in pair], case.mode)
    y = getattr(torch.nn.functional, f"conv{case.rank}d")(x, w, bias, case.stride, 0, case.dilation, case.groups)
    if case.channels_last:
        y = y.movedim(1, -1)
    y = y[0, 0] if case.kind == "image" else y[0] if case.kind == "unbatched" else y
    incoming = drawn(tuple(y.shape), 9, complex_)
    return incoming, [g.numpy() for g in torch.autograd.grad(y, tensors, torch.from_numpy(incoming))]


def gradients(function, arrays, incoming, options, **more):
    """npconv's gradients of input, weight and bias."""
    x, w, _ = arrays
    yield getattr(grad, f"{function}_input")(x.shape, w, incoming, **options, **more)
    yield getattr(grad, f"{function}_weight")(x, w.shape, incoming, **options, **more)
    yield getattr(grad, f"{function}_bias")(incoming, data_format=options["data_format"])


def data_of(case, complex_):
    x, w, _ = small_integers(case, 8, complex_)
    return x, w, drawn((case.filters,), 7, complex_)


def assert_gradients(got, want, about):
    for name, one, other in zip(WHAT, got, want, strict=True):
        assert_same(one, other, f"{name} of {about}")


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_convolutions(text, complex_):
    """Every padding by name, mode, format and kind of the corpus, and strides that do not divide."""
    case = parse(text)
    arrays = data_of(case, complex_)
    incoming, want = torch_gradients(case, arrays, complex_)
    assert_gradients(gradients(f"conv{case.rank}d", arrays, incoming, case.arguments, backend="numpy"), want, text)


@pytest.mark.parametrize("algorithm", TEXTBOOK)
@pytest.mark.parametrize("backend", BACKENDS)
def test_convolutions_on_every_engine(backend, algorithm):
    for text in TEXTS[::4]:
        case = parse(text)
        arrays = data_of(case, False)
        incoming, want = torch_gradients(case, arrays, False)
        got = gradients(f"conv{case.rank}d", arrays, incoming, case.arguments, backend=backend, algorithm=algorithm)
        assert_gradients(got, want, text)


def transposed_gradients(problem, complex_):
    arrays = transposed.arrays_of(transposed.Problem(**vars(problem) | {"bias": True}), complex_)
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    y = transposed.torch_tensors(problem, *tensors)
    incoming = drawn(tuple(y.shape), 9, complex_)
    gx, gw, gb = (g.numpy() for g in torch.autograd.grad(y, tensors, torch.from_numpy(incoming)))
    return (problem.seen(arrays[0]), *arrays[1:]), problem.seen(incoming), [problem.seen(gx), gw, gb]


FULL = [name for name, p in transposed.PROBLEMS.items() if p.batch and p.channels and p.filters]


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("name", FULL)
def test_transposed(name, complex_):
    problem = transposed.PROBLEMS[name]
    arrays, incoming, want = transposed_gradients(problem, complex_)
    got = gradients(f"conv_transpose{problem.rank}d", arrays, incoming, problem.options, backend="numpy")
    assert_gradients(got, want, problem)


@pytest.mark.parametrize("algorithm", TEXTBOOK)
def test_transposed_compiled(algorithm):
    for name in FULL[::5]:
        problem = transposed.PROBLEMS[name]
        arrays, incoming, want = transposed_gradients(problem, False)
        more = {"backend": "numba", "algorithm": algorithm}
        got = gradients(f"conv_transpose{problem.rank}d", arrays, incoming, problem.options, **more)
        assert_gradients(got, want, problem)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64", "int8", "uint8", "int64", "uint16"])
@pytest.mark.parametrize("text", ["mb2g2ic4oc6ih5iw6kh3sh2ph1:2", "ic2oc3ih5iw6kh3ph2+reflect", "ic3oc2iw9kw3+last"])
def test_dtypes(text, dtype):
    """Integers modulo 2**bits; float16 and bfloat16 summed in float32 and rounded once."""
    case, to = parse(text), named(dtype)
    arrays = data_of(case, to.kind == "c")
    incoming, want = torch_gradients(case, arrays, to.kind == "c")
    made = [cast(array, to) for array in arrays]
    got = gradients(f"conv{case.rank}d", made, cast(incoming, to), case.arguments, backend="numpy")
    assert_gradients(got, [cast(array, to) for array in want], f"{text} {dtype}")


def loss(function, arrays, incoming, options):
    return np.real(np.sum(np.conj(incoming) * getattr(npconv, function)(*arrays, **options)))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(
    ("function", "weight", "options"),
    [
        ("conv1d", (4, 2, 3), {"stride": 2, "padding": ((1, 2),), "padding_mode": "circular", "groups": 2}),
        ("conv2d", (3, 4, 3, 2), {"padding": "same", "dilation": (1, 2), "padding_mode": "reflect"}),
        ("conv2d", (3, 4, 3, 2), {"padding": "same_lower", "stride": (2, 3), "padding_mode": "replicate"}),
        ("conv3d", (2, 4, 2, 1, 3), {"stride": (2, 1, 3), "padding": 1}),
        ("conv_transpose1d", (4, 3, 3), {"stride": 4, "dilation": 2, "output_padding": 3, "groups": 2}),
        ("conv_transpose2d", (4, 3, 3, 2), {"stride": (2, 3), "padding": ((1, 0), (0, 1)), "output_padding": 1}),
    ],
)
def test_finite_differences(function, weight, options, dtype):
    """Central differences, which are exact but for rounding, since the loss is linear in each argument."""
    rng = np.random.default_rng(6)
    rank, options = int(function[-2]), {"data_format": "channels_first", "backend": "numpy", **options}

    def normal(shape):
        values = rng.standard_normal(shape)
        return values + 1j * rng.standard_normal(shape) if dtype == "complex128" else values

    x, w = normal((2, 4, *(5, 4, 4)[:rank])), normal(weight)
    filters = weight[1] * options.get("groups", 1) if "transpose" in function else weight[0]
    arrays = [x, w, normal(filters)]
    incoming = normal(getattr(npconv, function)(*arrays, **options).shape)
    for which, got in enumerate(gradients(function, arrays, incoming, options)):
        assert got.shape == arrays[which].shape
        for index in random.Random(0).sample(list(np.ndindex(*got.shape)), min(got.size, 12)):
            found = 0
            for step in (1e-3, 1e-3j)[: 1 + (dtype == "complex128")]:
                values = []
                for sign in (1, -1):
                    moved = [array.copy() for array in arrays]
                    moved[which][index] += sign * step
                    values.append(loss(function, moved, incoming, options))
                found += (values[0] - values[1]) / 2e-3 * (step / 1e-3)
            assert abs(found - got[index]) < 1e-9, (WHAT[which], index)


@pytest.mark.parametrize("backend", BACKENDS)
def test_out(backend):
    case = parse("mb2g2ic4oc6ih5iw6kh3sh2ph1:2+replicate")
    arrays = data_of(case, False)
    incoming, want = torch_gradients(case, arrays, False)
    for order in "CF":
        outs = [poison(np.empty(array.shape, order=order)) for array in want]
        assert grad.conv2d_input(arrays[0].shape, arrays[1], incoming, **case.arguments, out=outs[0]) is outs[0]
        more = case.arguments | {"backend": backend}
        assert grad.conv2d_weight(arrays[0], arrays[1].shape, incoming, **more, out=outs[1]) is outs[1]
        assert grad.conv2d_bias(incoming, out=outs[2]) is outs[2]
        assert_gradients(outs, want, "out")
    with pytest.raises(ValueError, match=r"out must have.*\(2, 4, 5, 6\)"):
        grad.conv2d_input(arrays[0].shape, arrays[1], incoming, **case.arguments, out=outs[1])
    with pytest.raises(ValueError, match="out shares memory with grad_output"):
        grad.conv1d_input((1, 1, 4), np.ones((1, 1, 1)), outs[2][None, None, :4], out=outs[2][None, None, :4])
    with pytest.raises(TypeError, match=r"out must have.*float64"):
        grad.conv2d_bias(incoming, out=np.empty(6, "f4"))


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5)])
def test_nothing_gives_zeros(shape):
    w = (4, shape[1], 3)
    incoming = np.ones((shape[0], 4, 3))
    assert_same(grad.conv1d_weight(np.ones(shape), w, incoming), np.zeros(w), "weight")
    assert_same(grad.conv1d_input(shape, np.ones(w), incoming), np.zeros(shape), "input")
    assert_same(grad.conv1d_bias(incoming), np.full(4, 3.0 * shape[0]), "bias")


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("images", "channels", "filters"), [(0, 4, 6), (2, 0, 6), (2, 4, 0), (0, 0, 0)])
def test_nothing_gives_zeros_in_groups(images, channels, filters, groups):
    x, incoming = np.ones((images, channels, 5, 7), "f4"), np.ones((images, filters, 5, 7), "f4")
    weight = np.ones((filters, channels // groups, 3, 3), "f4")
    for _ in range(2):
        got = grad.conv2d_weight(x, weight.shape, incoming, padding=1, groups=groups)
        assert_same(got, np.zeros_like(weight), "weight")
        got = grad.conv2d_input(x.shape, weight, incoming, padding=1, groups=groups)
        assert_same(got, np.zeros_like(x), "input")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0), (1, 0)])
def test_images_of_nothing(size, stride):
    """With padding there is a result, and a gradient of it, even if it is that of nothing."""
    shape, w = (1, 4, *size), np.ones((6, 4, 3, 3), "f4")
    for _ in range(2):
        incoming = np.ones_like(npconv.conv2d(np.ones(shape, "f4"), w, stride=stride, padding=2))
        assert grad.conv2d_input(shape, w, incoming, stride=stride, padding=2).shape == shape
        assert not grad.conv2d_weight(np.ones(shape, "f4"), w.shape, incoming, stride=stride, padding=2).any()


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_overflow_is_silent(mode):
    """Infinity comes out, without a warning, as from every function."""
    more = {"padding": 1, "padding_mode": mode, "backend": "numpy"}
    w, incoming = np.full((1, 1, 3), 6e4, "f2"), np.ones((1, 1, 4), "f2")
    got = grad.conv1d_input((1, 1, 4), w, incoming, **more)
    assert_same(got, np.full((1, 1, 4), np.inf, "f2"), "input")
    assert np.isinf(grad.conv1d_weight(np.full((1, 1, 4), 6e4, "f2"), (1, 1, 3), incoming, **more)).all()
    assert grad.conv1d_bias(np.full((1, 1, 4), 6e4, "f2")) == np.inf


def test_torchs_names_and_orders():
    for rank in (1, 2, 3):
        for what in ("input", "weight"):
            name = f"conv{rank}d_{what}"
            theirs = inspect.signature(getattr(torch.nn.grad, name)).parameters.values()
            ours = list(inspect.signature(getattr(grad, name)).parameters.values())[: len(theirs)]
            assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs], name
            assert getattr(grad, name).__name__ == name
    transposed_ = ["stride", "padding", "output_padding", "groups", "dilation"]
    for name in NAMES:
        mine = getattr(grad, name)
        ours = [p.name for p in inspect.signature(mine).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        function = inspect.signature(getattr(npconv, name.rsplit("_", 1)[0])).parameters
        assert ours[3:] == [n for n in function if n in (*transposed_, "output_padding") and n in ours], name
        assert "grad_output" in mine.__doc__
        assert name in grad.__all__


def test_called_as_torch_is():
    rng = np.random.default_rng(1)
    x, w = rng.integers(-4, 5, (2, 4, 7, 8)).astype(float), rng.integers(-4, 5, (6, 2, 3, 3)).astype(float)
    go = rng.integers(-4, 5, (2, 6, 4, 4)).astype(float)
    tx, tw, tg = map(torch.from_numpy, (x, w, go))
    want = torch.nn.grad.conv2d_input(x.shape, tw, tg, 2, 1, 1, 2).numpy()
    assert_same(grad.conv2d_input(x.shape, w, go, 2, 1, 1, 2), want, "input")
    assert_same(grad.conv2d_input(tx.shape, tw, tg, 2, 1, 1, 2), want, "torch's size and tensors")
    want = torch.nn.grad.conv2d_weight(tx, w.shape, tg, 2, 1, 1, 2).numpy()
    assert_same(grad.conv2d_weight(x, list(w.shape), go, 2, 1, 1, 2), want, "weight")


X, W, GO = np.ones((2, 3, 6)), np.ones((4, 3, 3)), np.ones((2, 4, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: grad.conv1d_input((2, 3, 7), W, GO), ValueError, r"grad_output.*\(2, 4, 5\).*\(2, 4, 4\)"),
        (lambda: grad.conv1d_input((3, 6), W, GO), ValueError, r"grad_output.*\(4, 4\)"),
        (lambda: grad.conv1d_input((2, 4, 6), W, GO), ValueError, "4 channels"),
        (lambda: grad.conv1d_input((2, 3), W, GO), ValueError, "3|2 channels"),
        (lambda: grad.conv1d_input((2, 3, 2), W, GO), ValueError, "kernel"),
        (lambda: grad.conv1d_input((2, 3, -6), W, GO), ValueError, "input_size must be at least 0"),
        (lambda: grad.conv1d_input((2, 3, 6.0), W, GO), TypeError, "input_size must be an integer"),
        (lambda: grad.conv1d_input((2, 3, True), W, GO), TypeError, "input_size must be an integer"),
        (lambda: grad.conv1d_input(6, W, GO), TypeError, "input_size must be a tuple"),
        (lambda: grad.conv1d_input("236", W, GO), TypeError, "input_size must be a tuple"),
        (lambda: grad.conv1d_input(X.shape, W, GO, padding="same"), ValueError, "grad_output"),
        (lambda: grad.conv1d_input(X.shape, W, GO, padding_mode="mirror"), ValueError, "padding_mode"),
        (lambda: grad.conv1d_input(X.shape, W, GO > 0), TypeError, "grad_output has dtype bool"),
        (lambda: grad.conv1d_weight(X, (4, 3), GO), ValueError, "weight of conv1d"),
        (lambda: grad.conv1d_weight(X, (4, 2, 3), GO), ValueError, "3 channels"),
        (lambda: grad.conv1d_weight(X, (4, 3, 0), GO), ValueError, "weight"),
        (lambda: grad.conv1d_weight(X, 3, GO), TypeError, "weight_size must be a tuple"),
        (lambda: grad.conv1d_weight(X, (4, 3, 2), GO), ValueError, "grad_output"),
        (lambda: grad.conv1d_weight(X, W.shape, GO, algorithm="no"), ValueError, "algorithm"),
        (lambda: grad.conv1d_bias(np.ones(4)), ValueError, "grad_output must have 3 axes, or 2"),
        (lambda: grad.conv2d_bias(np.ones(4)), ValueError, "grad_output must have 4 axes"),
        (lambda: grad.conv_transpose2d_bias(np.ones((4, 4))), ValueError, "grad_output must have 4 axes"),
        (lambda: grad.conv1d_bias(GO, data_format="NCL"), ValueError, "data_format"),
        (lambda: grad.conv_transpose1d_input((2, 4, 4), W, np.ones((2, 3, 7))), ValueError, r"\(2, 3, 6\)"),
        (lambda: grad.conv_transpose1d_weight(GO, (3, 3, 3), X), ValueError, "4 channels"),
        (lambda: grad.conv_transpose1d_weight(GO, W.shape, X, output_padding=1), ValueError, "output_padding"),
        (lambda: grad.conv_transpose1d_input((4, 4), W, X[0], padding="same"), ValueError, "padding"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((1,), (2,), 2, 1), ((4, 1), (1, 2), (1, 2), (0, 1)), ((1, 3), (3, 3), 2, 1)],
)
def test_one_phase_of_some_taps_is_the_same_when_it_is_remembered(size, kernel, stride, padding):
    gradient = getattr(grad, f"conv{len(size)}d_input")
    rng = np.random.default_rng(3)
    weight = rng.integers(-9, 9, (14, 5, *kernel)).astype(np.float32)
    shape = (2, 5, *size)
    slope = np.ones_like(
        getattr(npconv, f"conv{len(size)}d")(np.ones(shape, np.float32), weight, None, stride, padding)
    )
    for _ in range(3):
        slope = rng.integers(-9, 9, slope.shape).astype(np.float32)
        want = gradient(shape, weight, slope, stride, padding, backend="numpy")
        np.testing.assert_array_equal(gradient(shape, weight, slope, stride, padding, algorithm="direct"), want)


APART = (
    "mb3g4ic8oc12ih9iw7kh3ph1", "mb2g5ic5oc5ih12iw9kh3sh2ph1+last", "mb2g2ic6oc4iw40kw3pw1", "mb11g3ic3oc3ih4iw3kh2",
    "mb3g3ic3oc6id3ih4iw5kd2kh3kw2ph1pw1+reflect", "mb40g3ic3oc3ih4kh3",
)  # fmt: skip
"""Groups of several images, the last of which are more than their results."""


@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64", "int16"])
@pytest.mark.parametrize("text", APART)
def test_groups_of_several_images(text, dtype):
    """Image by image, or in one sum over all as by an algorithm that is named."""
    case = parse(text)
    complex_ = dtype == "complex64"
    x, weight, _ = data_of(case, complex_)
    y = getattr(npconv, f"conv{case.rank}d")(x, weight, **case.arguments)
    arrays = [cast(array, named(dtype)) for array in (x, drawn(y.shape, 9, complex_))]
    gradient = getattr(grad, f"conv{case.rank}d_weight")
    want = gradient(arrays[0], weight.shape, arrays[1], **case.arguments, backend="numpy", algorithm="im2col")
    out = poison(np.zeros_like(want))
    for _ in range(2):  # the second call may go a shorter way
        assert_same(gradient(arrays[0], weight.shape, arrays[1], **case.arguments), want, text)
        assert gradient(arrays[0], weight.shape, arrays[1], **case.arguments, out=out) is out
        assert_same(out, want, text)


@pytest.mark.parametrize("images", [2, 9, 81])
def test_groups_of_several_images_are_within_the_bound(images):
    """Where all roundings go one way: of numbers that are all the same."""
    x, slope = np.full((images, 4, 9, 9), 0.1, "f4"), np.full((images, 6, 9, 9), 1 / 3, "f4")
    got = grad.conv2d_weight(x, (6, 2, 1, 1), slope, groups=2, precision="strict")
    products = images * 81
    want = products * np.float64(x[0, 0, 0, 0]) * np.float64(slope[0, 0, 0, 0])
    assert np.abs(got - want).max() <= (8 + np.sqrt(products)) * np.finfo("f4").eps * want

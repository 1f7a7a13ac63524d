"""Random problems: gradients and transposed convolutions are the adjoints of convolutions, exactly on small integers.

For every input x, weight w and gradient g of the result, ⟨g, conv(x, w)⟩ = ⟨input gradient, x⟩ = ⟨weight gradient, w⟩.
That is what makes them gradients, and it holds for every argument. `test_properties` ties conv itself to torch.
"""

import numpy as np
import pytest
from checks import ENGINES, assert_same, call, cast, named, small_integers
from hypothesis import given
from hypothesis import strategies as st
from strategies import cases

import npconv

seeds = st.integers(0, 2**32 - 1)
engines = st.sampled_from([*ENGINES, ("auto", "auto")])
dtypes = st.sampled_from(["float64", "complex128", "int64", "uint8"])


def integers(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-4, 5, shape)
    if dtype == "complex128":
        return values + 1j * rng.integers(-4, 5, shape)
    return values.astype(dtype)


def exact(engine):
    """Options for an engine, whose sums of small integers are exact: what ``"auto"`` may take else are transforms."""
    backend, algorithm = engine
    return {"backend": backend, "algorithm": algorithm, "precision": "strict" if algorithm == "auto" else None}


def inner(a, b, dtype):
    """⟨a, b⟩, modulo 2**bits for integers."""
    return np.sum(a.conj() * b, dtype=dtype)


@given(cases(), engines, dtypes, seeds)
def test_gradients_are_adjoint(case, engine, dtype, seed):
    x, weight, _ = small_integers(case, seed, dtype == "complex128")
    x, weight = cast(x, named(dtype)), cast(weight, named(dtype))
    options = case.arguments | exact(engine)
    y = call(case, (x, weight))
    gradient = integers(y.shape, dtype, seed)
    grads = [getattr(npconv.grad, f"conv{case.rank}d_{name}") for name in ("input", "weight", "bias")]
    by_input = grads[0](x.shape, weight, gradient, **options)
    by_weight = grads[1](x, weight.shape, gradient, **options)
    by_bias = grads[2](gradient, data_format=options["data_format"])
    assert (by_input.shape, by_weight.shape) == (x.shape, weight.shape), str(case)
    want = inner(gradient, y, dtype)
    assert inner(by_input, x, dtype) == want, f"{case} {dtype} {engine} seed {seed}: gradient of the input"
    assert inner(by_weight, weight, dtype) == want, f"{case} {dtype} {engine} seed {seed}: gradient of the weight"
    bias = integers(case.filters, dtype, seed)
    plus = call(case, (np.zeros_like(x), weight, bias))
    assert inner(by_bias, bias, dtype) == inner(gradient, plus, dtype), f"{case} {dtype} seed {seed}: of the bias"


@given(cases(modes=("zeros",), names=(), kinds=("batched", "unbatched")), engines, dtypes, seeds)
def test_transposed_is_the_gradient(case, engine, dtype, seed):
    """A transposed convolution of a gradient is the gradient of the input, and its own gradients are adjoint to it."""
    if 0 in (case.batch, case.filters, case.channels):
        return
    shape = call(case, [np.zeros(s) for s in (case.input_shape, case.weight_shape)]).shape
    z, weight = integers(shape, dtype, seed), integers(case.weight_shape, dtype, seed + 1)
    first = 1 if case.kind == "unbatched" else 2
    spatial = shape[first - 1 : -1] if case.channels_last else shape[first:]
    extra = tuple(
        n + sum(pad) - (k - 1) * d - 1 - (o - 1) * s
        for n, pad, k, d, o, s in zip(
            case.size, case.padding, case.kernel, case.dilation, spatial, case.stride, strict=True
        )
    )
    options = case.arguments | exact(engine)
    del options["padding_mode"]
    name = f"conv_transpose{case.rank}d"
    y = getattr(npconv, name)(z, weight, output_padding=extra, **options)
    about = f"{case} {dtype} {engine} seed {seed}"
    want = getattr(npconv.grad, f"conv{case.rank}d_input")(case.input_shape, weight.conj(), z, **options)
    assert_same(y, want, about)
    gradient = integers(y.shape, dtype, seed + 2)
    by_input = getattr(npconv.grad, f"{name}_input")(z.shape, weight, gradient, output_padding=extra, **options)
    by_weight = getattr(npconv.grad, f"{name}_weight")(z, weight.shape, gradient, output_padding=extra, **options)
    assert inner(by_input, z, dtype) == inner(gradient, y, dtype), f"{about}: gradient of the input"
    assert inner(by_weight, weight, dtype) == inner(gradient, y, dtype), f"{about}: gradient of the weight"


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_gradients_meet_finite_differences(dtype):
    rng = np.random.default_rng(0)
    options = {"stride": 2, "padding": ((1, 2), (0, 1)), "dilation": (1, 2), "groups": 2, "padding_mode": "circular"}

    def draw(*shape):
        values = rng.standard_normal(shape)
        return values + 1j * rng.standard_normal(shape) if dtype == "complex128" else values

    x, weight = draw(2, 4, 6, 7), draw(6, 2, 3, 2)
    gradient = draw(*npconv.conv2d(x, weight, **options).shape)

    def loss(x, weight):
        return np.vdot(gradient, npconv.conv2d(x, weight, **options)).real

    by_input = npconv.grad.conv2d_input(x.shape, weight, gradient, **options)
    by_weight = npconv.grad.conv2d_weight(x, weight.shape, gradient, **options)
    step = 1e-6
    for array, found, at in ((x, by_input, 0), (weight, by_weight, 1)):
        for direction in (draw(*array.shape) for _ in range(5)):
            plus, minus = [x, weight], [x, weight]
            plus[at], minus[at] = array + step * direction, array - step * direction
            difference = (loss(*plus) - loss(*minus)) / (2 * step)
            assert difference == pytest.approx(np.vdot(found, direction).real, rel=1e-7)

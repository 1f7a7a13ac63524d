"""Random problems: torch's result exactly, and what makes a convolution one: linear, shift-equivariant, adjoint."""

import numpy as np
import oracle
import pytest
import torch
from checks import (
    DTYPES,
    ENGINES,
    assert_same,
    call,
    cast,
    named,
    poison,
    small_integers,
    torch_conv,
)  # fmt: skip
from corpus import Case
from hypothesis import event, given, settings
from hypothesis import strategies as st
from strategies import any_cases, cases

import npconv

seeds = st.integers(0, 2**32 - 1)
engines = st.sampled_from([*ENGINES, ("auto", "auto")])


def with_engine(engine):
    return {"backend": engine[0], "algorithm": engine[1]}


def data(case, seed, dtype):
    to = named(dtype)
    arrays = small_integers(case, seed, to.kind == "c")
    return tuple(cast(array, to) for array in arrays), arrays


def exact_result(case, arrays):
    if 0 in (case.batch, case.channels, case.filters):
        return oracle.wrapped(oracle.convolve(case, *arrays), arrays[0].dtype)
    return torch_conv(case, *arrays)


@st.composite
def memory_orders(draw, rank):
    """How an array of this rank lies in memory: the order of its axes, and which of them run backwards or in steps."""
    order = draw(st.permutations(range(rank)))
    steps = draw(st.lists(st.sampled_from([1, 1, 1, -1, 2, -3]), min_size=rank, max_size=rank))
    return order, steps


def laid_out(array, layout):
    order, steps = layout
    shape = [array.shape[axis] * abs(steps[axis]) for axis in order]
    memory = poison(np.empty(shape, array.dtype)).transpose(np.argsort(order))
    view = memory[tuple(slice(None, None, step) for step in steps)]
    view[...] = array
    return view


@settings(max_examples=400)
@given(case=cases(), dtype=st.sampled_from(DTYPES), engine=engines, seed=seeds, layout=st.data())
def test_torch_exactly(case, dtype, engine, seed, layout):
    given_arrays, arrays = data(case, seed, dtype)
    want = cast(exact_result(case, arrays), named(dtype))
    event(f"rank {case.rank}, {case.mode}, {'empty' if not want.size else case.kind}")
    made, options = list(given_arrays), with_engine(engine)
    for at in (0, 1):
        if layout.draw(st.booleans(), label="laid out anew"):
            made[at] = laid_out(made[at], layout.draw(memory_orders(made[at].ndim)))
    if layout.draw(st.booleans(), label="with out"):
        options["out"] = laid_out(poison(np.empty(want.shape, want.dtype)), layout.draw(memory_orders(want.ndim)))
    for array in made:
        if array is not None:
            array.flags.writeable = False
    got = call(case, tuple(made), **options)
    assert_same(got, want, f"{case} {dtype} {engine} seed {seed}")
    for array, original in zip(made, given_arrays, strict=True):
        assert array is None or np.array_equal(array, original)


@settings(max_examples=150)
@given(case=any_cases(), engine=engines)
def test_an_error_is_raised_just_where_there_is_no_result(case, engine):
    arrays = small_integers(case, 0)
    options = with_engine(engine)
    if oracle.is_valid(case):
        event("has a result")
        assert call(case, arrays, **options).shape == oracle.output_shape(case), str(case)
    else:
        event("has none")
        with pytest.raises(ValueError, match=r"kernel|padding"):
            call(case, arrays, **options)


@settings(max_examples=60)
@given(case=cases(), engine=engines, seed=seeds, a=st.integers(-3, 3), b=st.integers(-3, 3))
def test_linear_in_input_and_weight(case, engine, seed, a, b):
    case = Case(**vars(case) | {"bias": False})
    x1, w1, _ = small_integers(case, seed)
    x2, w2, _ = small_integers(case, seed ^ 1)

    def conv(x, w):
        return call(case, (x, w, None), **with_engine(engine))

    about = f"{case} {engine} seed {seed}"
    y = conv(x1, w1)
    assert_same(conv(a * x1 + b * x2, w1), a * y + b * conv(x2, w1), about)
    assert_same(conv(x1, a * w1 + b * w2), a * y + b * conv(x1, w2), about)


@settings(max_examples=60)
@given(case=cases(), engine=engines, seed=seeds)
def test_bias_is_added_to_each_channel(case, engine, seed):
    case = Case(**vars(case) | {"bias": True})
    x, w, b = small_integers(case, seed)
    plain = call(case, (x, w, None), **with_engine(engine))
    channel = b if case.channels_last or case.kind == "image" else b.reshape(-1, *(1,) * case.rank)
    assert_same(call(case, (x, w, b), **with_engine(engine)), plain + channel, f"{case} {engine} seed {seed}")


@settings(max_examples=60)
@given(cases(modes=("zeros",), names=()), engines, seeds, st.integers(1, 3), st.integers(0, 2))
def test_shifts_with_its_input(case, engine, seed, shift, axis):
    """An input that lies in zeros, moved by whole strides, moves the result by as many positions."""
    axis %= case.rank
    extra = shift * case.stride[axis]
    pads = list(case.padding)
    pads[axis] = (pads[axis][0] + extra, pads[axis][1])
    x, w, b = small_integers(case, seed)
    moved = call(Case(**vars(case) | {"padding": tuple(pads)}), (x, w, b), **with_engine(engine))
    y = call(case, (x, w, b), **with_engine(engine))
    first = 0 if case.kind == "image" else moved.ndim - case.rank - case.channels_last
    window = tuple(slice(shift, None) if at == first + axis else slice(None) for at in range(moved.ndim))
    assert_same(moved[window].copy(), y, f"{case} {engine} seed {seed}")


@settings(max_examples=60)
@given(case=cases(kinds=("batched",)), engine=engines, seed=seeds, shift=st.integers(-5, 5), axis=st.integers(0, 2))
def test_rolls_with_its_input(case, engine, seed, shift, axis):
    """On a circle, whatever the dilation, a rolled input gives a rolled result."""
    spans = [(k - 1) * d for k, d in zip(case.kernel, case.dilation, strict=True)]
    size = tuple(max(n, span) for n, span in zip(case.size, spans, strict=True))
    pads = tuple((span - span // 2, span // 2) for span in spans)
    case = Case(**vars(case) | {"size": size, "padding": pads, "mode": "circular", "stride": (1,) * case.rank})
    at = axis % case.rank + (1 if case.channels_last else 2)
    x, w, b = small_integers(case, seed)
    y = call(case, (x, w, b), **with_engine(engine))
    assert y.shape[at] == x.shape[at]
    rolled = call(case, (np.roll(x, shift, at), w, b), **with_engine(engine))
    assert_same(rolled, np.roll(y, shift, at), f"{case} {engine} seed {seed}")


@settings(max_examples=60)
@given(case=cases(modes=("zeros",), names=(), kinds=("batched",)), engine=engines, seed=seeds)
def test_transposed_convolution_is_the_adjoint(case, engine, seed):
    """<conv(x), y> = <x, conv_transpose(y)> with torch's transposed convolution."""
    case = Case(
        **vars(case)
        | {"batch": max(case.batch, 1), "channels": case.groups * 2, "filters": case.groups * 3}
        | {"padding": tuple((before, before) for before, _ in case.padding), "channels_last": False, "bias": False}
    )
    if not oracle.is_valid(case):
        case = Case(**vars(case) | {"kernel": (1,) * case.rank})
    x, w, _ = small_integers(case, seed)
    result = call(case, (x, w, None), **with_engine(engine))
    y = np.random.default_rng(seed).integers(-4, 5, result.shape).astype(float)
    padding = tuple(before for before, _ in case.padding)
    left_over = tuple(
        (n + 2 * p - (k - 1) * d - 1) % s
        for n, p, k, d, s in zip(case.size, padding, case.kernel, case.dilation, case.stride, strict=True)
    )
    transpose = getattr(torch.nn.functional, f"conv_transpose{case.rank}d")
    back = transpose(
        torch.from_numpy(y), torch.from_numpy(w), None, case.stride, padding, left_over, case.groups, case.dilation
    )
    assert np.vdot(result, y) == np.vdot(x, back.numpy()), f"{case} {engine} seed {seed}"


@settings(max_examples=60)
@given(case=cases(), seed=seeds)
def test_every_engine_agrees(case, seed):
    arrays = small_integers(case, seed)
    results = [call(case, arrays, **with_engine(engine)) for engine in ENGINES]
    for engine, result in zip(ENGINES, results, strict=True):
        assert_same(result, results[0], f"{case} {engine} seed {seed}")


@settings(max_examples=100)
@given(case=cases())
def test_explanation_knows_the_shape(case):
    explanation = npconv.explain(
        f"conv{case.rank}d", case.input_shape, case.weight_shape, bias=case.bias, **case.arguments
    )
    assert explanation.output_shape == oracle.output_shape(case), str(case)

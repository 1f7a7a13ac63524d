"""The fast engines: every problem that one takes, every making of its arrays, every way to it.

The direct sums of whole numbers are exact. Winograd's transforms are not, and are held to a bound on normal numbers.
"""

import copy
import itertools
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache, partial

import engine_problems as problems
import numpy as np
import oracle
import pytest
from checks import FLOATS, assert_same, exact, poison
from corpus import Case, format_case, parse, replace
from engine_problems import (
    COUNTS,
    DIRECT,
    FAST,
    PIECES,
    SHAPES,
    STRASSEN,
    TERMWISE,
    WINOGRAD,
    arrays_for,
    call,
    judge,
    named,
    ordinary,
    refusal,
    taken,
)  # fmt: skip
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from processes import python
from test_arrays import MAKINGS, as_is, reversed_memory, spread

import npconv
from npconv import costs, registry
from npconv.arguments import conv_problem
from npconv.kernels import activation as activations
from npconv.kernels import filtering
from npconv.kernels.numba import (
    bands,
    blocking,
    depthwise,
    direct,
    far_taps,
    jit,
    outer,
    piecing,
    plane_plan,
    planes,
    product,
    strassen_plan,
    strassen_planes,
    winograd,
    winograd_plain,
)
from npconv.problem import ConvProblem
from npconv.threads import max_threads

FEW = SHAPES[::5]
THREADS = tuple(range(1, min(max_threads(), 2) + 1))


AT_GUARD_PAGES = () if sys.platform == "win32" else pytest.mark.long
"""Of dtypes that are computed in: test_guards computes the same problems in them."""


def few(dtype, algorithm):
    """Some of the problems, in float64 of those that few kernels serve."""
    return tuple(text for text in FEW if dtype != "float64" or text in problems.few_kernels(algorithm))


# --- what is computed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", *(pytest.param(dtype, marks=AT_GUARD_PAGES) for dtype in ("float32", "float64"))]
)
@pytest.mark.parametrize("algorithm", FAST)
def test_table(algorithm, dtype, request):
    """In one thread with ``--long``, too."""
    everything = request.config.getoption("--long")
    texts = problems.texts_for(dtype, algorithm, everything)
    for n in THREADS if everything else THREADS[-1:]:
        with npconv.threads(n):
            number = problems.check(texts, dtype, algorithm)
    least = {"pieces": 2 * len(PIECES), "strassen": 2 * len(STRASSEN), **dict.fromkeys(DIRECT, 2 * len(texts))}
    least["grouped"] = 40 if dtype != "float64" else 20
    assert number >= least.get(algorithm, 40)


WINDOWS = {
    1: [((3,), (1,))],
    2: [((r, r), (1, 1)) for r in (2, 3, 3, 5)] + [((r, r), (2, 2)) for r in (3, 3, 4, 5)] + [((3, 4), (1, 2))],
}
"""Kernels and strides that Winograd's engines take, by rank; each is compiled for itself."""


@st.composite
def engine_cases(draw, algorithm, dtype):
    """A problem that an engine may take, of sizes around its vectors, tiles and blocks."""
    rank = draw(st.sampled_from((1, 2, 2, 3) if algorithm == "pieces" else (1, 2, 3)))

    def per_axis(strategy):
        return tuple(draw(st.lists(strategy, min_size=rank, max_size=rank)))

    size = per_axis(st.integers(1, (70, 23, 6)[rank - 1]))
    padding = tuple((draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in size)
    dilation = per_axis(st.integers(1, 3))
    groups, stride, batch = 1, (1,) * rank, draw(st.sampled_from((1, 1, 2, 3, 9)))
    if algorithm == "pieces":
        inner = min(rank, 2)
        spread = tuple(draw(st.integers(1, 2)) for _ in range(inner))
        results = tuple(draw(st.sampled_from((2, 3, 3, 4, 5) if d == 1 else (3, 4))) for d in spread)
        kernel = tuple(draw(st.integers(4, 40 if n == 0 else 20)) for n in range(inner))
        pace = tuple(draw(st.integers(1, 3)) if max(spread) == 1 else 1 for _ in range(inner))
        behind = draw(st.integers(0, 2))
        size = tuple(
            (k - 1) * d + 1 + (n - 1) * s - behind for k, d, n, s in zip(kernel, spread, results, pace, strict=True)
        )
        one = (1,) * (rank - inner)
        size, kernel, dilation, stride = ((*one, *numbers) for numbers in (size, kernel, spread, pace))
        padding = ((0, 0),) * len(one) + ((0, behind),) * inner
        groups = draw(st.sampled_from((1, 1, 2, 3)))
        batch, channels, filters = draw(st.integers(2, 70)), draw(st.integers(1, 3)), draw(st.integers(2, 70))
    elif algorithm in WINOGRAD:
        last, pace = draw(st.sampled_from(WINDOWS[min(rank, 2)]))
        kernel, stride = (draw(st.integers(1, 3)), *last)[-rank:], (draw(st.integers(1, 2)), *pace)[-rank:]
        dilation = tuple(d if s == 1 else 1 for d, s in zip(dilation, stride, strict=True))
        channels, filters = draw(st.integers(32, 70)), draw(st.sampled_from((*COUNTS, 2, 40)))
    elif algorithm == "strassen":
        kernel, stride = (1,) * rank, per_axis(st.integers(1, 3))
        channels, filters = 2 * draw(st.integers(32, 140)), draw(st.integers(64, 140))
    else:
        kernel, stride = per_axis(st.integers(1, 5)), per_axis(st.integers(1, 4))
        groups, channels, filters = draw(
            st.one_of(
                st.tuples(st.just(1), st.sampled_from(COUNTS), st.sampled_from(COUNTS)),
                st.tuples(st.sampled_from(COUNTS[:10]), st.just(1), st.integers(1, 9)),
                st.tuples(st.integers(2, 5), st.integers(1, 9), st.integers(1, 19)),
            )
        )
    room = zip(size, padding, kernel, dilation, strict=True)
    assume(all((k - 1) * d + 1 <= n + sum(pad) for n, pad, k, d in room))
    mode = draw(st.sampled_from(("zeros", "zeros", "zeros", "reflect", "replicate", "circular")))
    most = [{"circular": n, "reflect": n - 1}.get(mode, 4) for n in size]
    assume(all(max(pad) <= limit for pad, limit in zip(padding, most, strict=True)))
    return Case(
        batch, groups, groups * channels, groups * filters, size, kernel, stride,
        dilation, padding, mode, channels_last=draw(st.booleans()), bias=draw(st.booleans()),
    )  # fmt: skip


MADE = st.sampled_from([as_is, as_is, as_is, *MAKINGS])


@settings(max_examples=150)
@given(st.data())
def test_any_problem(data):
    algorithm, dtype = data.draw(st.sampled_from(FAST)), data.draw(st.sampled_from(FLOATS))
    case = data.draw(engine_cases(algorithm, dtype))
    assume(refusal(case, dtype, algorithm) is None)
    text = format_case(case)
    arrays = [None if array is None else data.draw(MADE)(array) for array in arrays_for(text, dtype, algorithm)]
    out = data.draw(st.none() | MADE)
    if out is not None:
        out = poison(out(np.zeros_like(problems.exact(text, dtype))))
    with npconv.threads(data.draw(st.sampled_from(THREADS))):
        got = call(case, arrays, out=out, backend="numba", algorithm=algorithm)
        again = call(case, arrays, out=None, backend="numba", algorithm=algorithm)
    assert out is None or got is out
    for result in (got, again):
        said = judge(np.asarray(result).astype(named(dtype)), text, dtype, algorithm)
        assert said is None, said


@pytest.mark.parametrize("limit", [None, 2**17, 2**18])
@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(name, marks=pytest.mark.long) for name in ("float64", "float16"))]
)
@pytest.mark.parametrize("algorithm", ["winograd2", "winograd2x4", "winograd4"])
def test_filters_packed_within_tasks(algorithm, dtype, limit, request):
    """Winograd's engines transform filters within their tasks where transformed ones take too much memory, or longer.

    In any bands; of functions, and of layers, whose filters are packed before.
    """
    texts = problems.texts_for(dtype, algorithm, request.config.getoption("--long"))
    with problems.packing_within(limit):
        for text, case in taken(texts, dtype, algorithm):
            arrays = arrays_for(text, dtype, algorithm)
            layer = layer_of(text, dtype, algorithm)
            for threads in THREADS:
                with npconv.threads(threads):
                    results = call(case, arrays, backend="numba", algorithm=algorithm), layer(arrays[0])
                for got in results:
                    said = judge(got, text, dtype, algorithm)
                    assert said is None, said


@pytest.mark.parametrize("algorithm", ["winograd2", "winograd2x4", "winograd4"])
def test_a_layer_may_transform_filters_once_and_within_its_tasks(algorithm, monkeypatch):
    """By the size of its image: what it keeps for one way is not taken for the other."""

    def within_tasks(cost, problem, threads, packed):
        return problem.input_size[-1] > 10 and cost.may_be_within(problem, threads, packed)

    monkeypatch.setattr(costs.Engine, "within_tasks", within_tasks)
    problems.forget()
    arrays = {size: arrays_for(f"ic40oc70ih{size}kh3ph1", "float32", algorithm) for size in (19, 5)}
    weight, bias = arrays[19][1:]
    layer = npconv.Conv2d(weight, bias, padding=1, algorithm=algorithm)
    for size in (19, 5, 19, 5):
        x = arrays[size][0]
        want = npconv.conv2d(x, weight, bias, padding=1, algorithm="direct")
        np.testing.assert_allclose(layer(x), want, rtol=0, atol=1e-4 * np.abs(want).max())
    monkeypatch.undo()
    problems.forget()


@pytest.mark.parametrize("tiles", [1, 3, 16, 100])
@pytest.mark.parametrize("algorithm", ["winograd2", "winograd2x4", "winograd4"])
def test_winograds_tasks_with_points_of_their_own(algorithm, tiles, request, monkeypatch):
    """Where filters are packed within the tasks, of any problem, in sections of so many tiles."""
    monkeypatch.setattr(bands, "LEAST", 1)
    monkeypatch.setattr(bands, "TILES", tiles)
    monkeypatch.setattr(blocking, "SECOND_LEVEL", 2**24)
    monkeypatch.setattr(bands, "cut", lru_cache(bands._own))
    texts = problems.texts_for("float32", algorithm, request.config.getoption("--long"))
    with problems.packing_within():
        for text, case in taken(texts, "float32", algorithm):
            for threads in THREADS:
                with npconv.threads(threads):
                    got = call(case, arrays_for(text, "float32", algorithm), backend="numba", algorithm=algorithm)
                said = judge(got, text, "float32", algorithm)
                assert said is None, said


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algorithm", FAST)
def test_the_same_numbers_every_time(algorithm, dtype):
    """Bit for bit, whichever thread takes which task."""
    for text, case in taken((*few(dtype, algorithm), "mb2ic40oc40ih35iw38kh3ph1"), dtype, algorithm):
        arrays = problems.data(text, dtype, False)
        for n in THREADS:
            with npconv.threads(n):
                first = call(case, arrays, algorithm=algorithm)
                for _ in range(3):
                    assert first.tobytes() == call(case, arrays, algorithm=algorithm).tobytes(), (text, n)


# --- arrays of any making ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("making", MAKINGS)
@pytest.mark.parametrize("algorithm", FAST)
def test_arrays_of_any_making(algorithm, making, dtype, request):
    """Float16, for which engines get copies, with ``--long`` as often as float32."""
    everything = dtype == "float32" or request.config.getoption("--long")
    for text, case in taken(FEW if everything else FEW[::3], dtype, algorithm):
        plain = arrays_for(text, dtype, algorithm)
        arrays = [None if array is None else making(array) for array in plain]
        before = [None if array is None else array.copy() for array in arrays]
        for array in arrays:
            if array is not None:
                array.flags.writeable = False
        out = making(np.zeros_like(problems.exact(text, dtype)))
        layer = getattr(npconv, f"Conv{case.rank}d")(*arrays[1:], **case.arguments, algorithm=algorithm)
        for given_out in (None, out, out):  # the second call may go a shorter way
            for function in (
                *(partial(call, case, those, algorithm=algorithm) for those in (arrays, plain)),
                *(partial(layer, those[0]) for those in (arrays, plain)),
            ):
                got = function(out=None if given_out is None else poison(given_out))
                said = judge(np.asarray(got).astype(named(dtype)), text, dtype, algorithm)
                assert said is None, said
        for array, copied in zip(arrays, before, strict=True):
            assert array is None or np.array_equal(array, copied), f"{text}: an argument was changed"


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        ("mb2g40ic40oc40ih13iw17kh5ph2+bias", "depthwise"),
        ("g36ic36oc36ih9iw20kh4sh3sw1ph1:0pw0:2", "depthwise"),
        ("mb2g9ic36oc36ih7iw10kh3ph1+bias", "grouped"),
        ("g4ic32oc32ih5iw80kh3dw2dh1ph1pw1:3", "grouped"),
    ],
)
def test_sums_by_channels_meet_any_memory_order_of_input_and_result(text, algorithm):
    """The channels lie side by side in one of them, in both, or in none."""
    case = parse(text)
    x, weight, bias = arrays_for(text, "float32", algorithm)
    blank = np.empty(oracle.output_shape(case), np.float32)
    for made, out in itertools.product(*([array, channels_beside(array)] for array in (x, blank))):
        for to in (out, out[..., ::-1]):
            got = call(case, (made, weight, bias), out=to, algorithm=algorithm)
            assert judge(got, text, "float32", algorithm) is None, f"{made.strides} {to.strides}"


def channels_beside(array):
    """The same numbers with the channels, its second axis, side by side in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


@pytest.mark.parametrize("algorithm", FAST)
def test_zero_strides_and_overlapping_windows(algorithm):
    """Inputs whose pixels or channels are one, or share memory with each other."""
    cases = [parse(text) for text in (ordinary(algorithm), "mb2ic64oc64ih5iw9")]
    rng = np.random.default_rng(3)
    line = rng.standard_normal(21000)
    step = line.itemsize
    for case, last in itertools.product(cases, (False, True)):
        if refusal(case, "float64", algorithm) is not None:
            continue
        case = replace(case, batch=max(case.batch, 2))
        weight = rng.standard_normal(case.weight_shape)
        shape = replace(case, channels_last=last).input_shape
        inputs = [np.broadcast_to(rng.standard_normal(shape[-1]), shape), np.broadcast_to(2.5, shape)]
        for strides in ((3, 1, 2, 1), (0, 9, 0, 1), (1, 40, 2, 0), (1, 1, 1, 1), (360, 1, 40, 2), (500, 2, 40, 1),
                        (45, 0, 9, 1)):  # fmt: skip
            inputs.append(np.lib.stride_tricks.as_strided(line, shape, [n * step for n in strides]))
        for x in inputs:
            arrays, options = (x, weight, None), {"data_format": "channels_last" if last else "channels_first"}
            want = call(case, (x.copy(), weight, None), **options, backend="numpy", algorithm="im2col")
            got = call(case, arrays, **options, algorithm=algorithm)
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-11, err_msg=f"{last} {x.strides}")


@pytest.mark.parametrize("algorithm", FAST)
def test_out_leaves_what_lies_between_its_elements(algorithm):
    for text, case in taken(FEW, "float32", algorithm):
        arrays = arrays_for(text, "float32", algorithm)
        out = spread(np.zeros_like(problems.exact(text, "float32")))
        memory = out.base
        while memory.base is not None:
            memory = memory.base
        memory[...] = 77
        said = judge(call(case, arrays, out=out, algorithm=algorithm).copy(), text, "float32", algorithm)
        assert said is None, said
        out[...] = 77
        assert (memory == 77).all(), text


# --- activations ------------------------------------------------------------------------------------------------------

ACTIVATIONS = (
    "relu", "relu6", ("leaky_relu", 0.2), ("leaky_relu", -1.5), ("leaky_relu", 0), ("clip", -2, 3.5),
    ("clip", -np.inf, 0.5), ("clip", 0, 10**300), "silu", "hardswish",
)  # fmt: skip


def activated(array, activation):
    """The array with an activation applied."""
    name, *numbers = activation if isinstance(activation, tuple) else (activation,)
    with np.errstate(all="ignore"):
        activations.ACTIVATIONS[name](array, *numbers)
    return array


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("algorithm", FAST)
def test_activations(algorithm, activation):
    """Fused ones as well give what the activation makes of the plain result."""
    parameters = activation[1:] if isinstance(activation, tuple) else ()
    for dtype in ("float32", "float64"):
        if 10**300 in parameters and dtype == "float32":
            continue
        texts = [text for text in FEW if text in problems.few_kernels(algorithm)]  # each kind is compiled for itself
        for text, case in taken(texts, dtype, algorithm):
            arrays = problems.data(text, dtype, False)
            want = activated(call(case, arrays, algorithm=algorithm), activation)
            got = call(case, arrays, algorithm=algorithm, activation=activation)
            assert_same(got, want, f"{algorithm} {activation} {dtype} {text}")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("activation", ACTIVATIONS[:-3] + ACTIVATIONS[-2:], ids=str)
@pytest.mark.parametrize("algorithm", FAST)
def test_activations_of_narrow_results(algorithm, activation, dtype):
    """They are those of the sum in float32, rounded once.

    Of layers: calls may pack filters within their tasks for one of the dtypes only, and add up in another order then.
    """
    for text, case in taken(FEW[::2], dtype, algorithm):
        layer = getattr(npconv, f"Conv{case.rank}d")
        arrays = problems.data(text, dtype, False)
        x, *wide = (None if array is None else array.astype(np.float32) for array in arrays)
        want = activated(layer(*wide, **case.arguments, algorithm=algorithm)(x), activation)
        got = layer(*arrays[1:], **case.arguments, algorithm=algorithm, activation=activation)(arrays[0])
        assert_same(got, want.astype(named(dtype)), f"{algorithm} {activation} {dtype} {text}")


@pytest.mark.parametrize("algorithm", FAST)
def test_bounds_beyond_the_dtype(algorithm):
    """A bound that float32 does not hold is none, and nobody is warned of an overflow."""
    text = ordinary(algorithm)
    arrays = problems.data(text, "float32", False)
    want = call(parse(text), arrays, algorithm=algorithm, activation="relu")
    with np.errstate(all="raise"):
        got = call(parse(text), arrays, algorithm=algorithm, activation=("clip", 0, 1e300))
    assert_same(got, want, algorithm)


class Stubborn(np.ndarray):
    """An array whose class has ideas of its own about arithmetic."""

    def __array_ufunc__(self, *arguments, **options):
        raise AssertionError("arithmetic of a subclass")


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("algorithm", FAST)
def test_activations_into_a_subclass(algorithm, activation):
    text = ordinary(algorithm)
    arrays = problems.data(text, "float32", False)
    want = call(parse(text), arrays, algorithm=algorithm, activation=activation)
    out = np.zeros_like(want).view(Stubborn)
    assert call(parse(text), arrays, algorithm=algorithm, activation=activation, out=out) is out
    assert_same(out.view(np.ndarray), want, algorithm)


@pytest.mark.parametrize("algorithm", TERMWISE)
def test_activations_of_nan_and_infinity(algorithm):
    values = np.array([-np.inf, -3, -0.0, 0, 1, 7, np.inf, np.nan] * 5, np.float32)
    for activation in ACTIVATIONS:
        if activation == ("clip", 0, 10**300):
            continue
        # Of one number each for the engines of results that are smaller than their kernels, or of a few images.
        x = values[:, None, None] if algorithm in ("outer", "dense") else values[None, None]
        weight, groups = np.ones((1, 1, 1), np.float32), 1
        if algorithm == "dense":
            x, weight = weight, x
        if algorithm == "grouped":
            x, weight, groups = np.repeat(x, 16, axis=1), np.ones((16, 2, 1), np.float32), 8
        got = npconv.conv1d(x, weight, groups=groups, activation=activation, algorithm=algorithm)
        want = npconv.conv1d(x, weight, groups=groups, activation=activation, backend="numpy", algorithm="im2col")
        assert_same(got, want, (algorithm, activation))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algorithm", ["planes", "strassen"])
def test_activations_of_the_last_pixels(algorithm, dtype):
    """Of those beyond whole vectors, of one tile or more: numbers of which none, some or all are changed, and NaN."""
    rng = np.random.default_rng(7)
    weight, bias = rng.standard_normal((70, 66, 1), dtype), rng.standard_normal(70).astype(dtype)
    for pixels in (33, 34, 35, 36, 39, 97, 99):
        x = rng.standard_normal((2, 66, pixels), dtype)
        x[0, 3, -1] = np.nan
        plain = npconv.conv1d(x, weight, bias, algorithm=algorithm)
        assert np.isnan(plain).any()
        assert np.isfinite(plain[1]).all()
        for activation in ACTIVATIONS:
            if activation == ("clip", 0, 10**300):
                continue
            got = npconv.conv1d(x, weight, bias, algorithm=algorithm, activation=activation)
            assert_same(got, activated(plain.copy(), activation), (algorithm, pixels, activation))


# --- transposed convolutions and gradients ----------------------------------------------------------------------------

TRANSPOSED = (
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": 3, "dilation": 2, "groups": 2},
    {"stride": 1, "padding": 1},
    {"stride": 5, "groups": 2},
    {"stride": (1, 2), "dilation": (3, 1), "padding": (2, 0)},
)


@pytest.mark.parametrize("algorithm", [*DIRECT, "auto"])
@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_transposed(options, algorithm):
    """Phases are written into every stride-th element of the result."""
    rng = np.random.default_rng(5)
    for channels, filters in ((6, 4), (34, 20)):
        x = rng.integers(-4, 5, (2, channels, 6, 7)).astype(np.float32)
        w = rng.integers(-4, 5, (channels, filters // options.get("groups", 1), 3, 3)).astype(np.float32)
        b = rng.integers(-4, 5, filters).astype(np.float32)
        want = npconv.conv_transpose2d(x, w, b, **options, activation="relu", backend="numpy", algorithm="im2col")
        got = npconv.conv_transpose2d(x, w, b, **options, activation="relu", backend="numba", algorithm=algorithm)
        atol = 1e-2 if algorithm == "auto" else 0  # which may be Winograd's
        np.testing.assert_allclose(got, want, rtol=0, atol=atol)
        last = npconv.conv_transpose2d(
            np.moveaxis(x, 1, -1), w, b, **options, data_format="channels_last", activation="relu", algorithm=algorithm
        )
        np.testing.assert_allclose(np.moveaxis(last, -1, 1), want, rtol=0, atol=atol)
        out = reversed_memory(np.zeros_like(want))
        layer = npconv.ConvTranspose2d(w, b, **options, activation="relu", algorithm=algorithm)
        for _ in range(2):
            assert layer(x, out=poison(out)) is out
            np.testing.assert_allclose(out, want, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.long)])
@pytest.mark.parametrize("algorithm", [*DIRECT, "auto"])
@pytest.mark.parametrize("text", [text for text in SHAPES[::7] if text not in PIECES])  # which are gradients
def test_gradients(text, algorithm, dtype):
    """Of whole numbers, exact but where ``"auto"`` may take Winograd's transforms, which are held to their bound."""
    case = parse(text)
    x, w, _ = problems.data(text, dtype)
    rng = np.random.default_rng(6)
    gradient = rng.integers(-4, 5, problems.exact(text, dtype).shape).astype(dtype)
    options = case.arguments
    of_input, of_weight = (getattr(npconv.grad, f"conv{case.rank}d_{name}") for name in ("input", "weight"))
    for function, arguments in ((of_input, (x.shape, w, gradient)), (of_weight, (x, w.shape, gradient))):
        want = function(*arguments, **options, backend="numpy", algorithm="im2col")
        got = function(*arguments, **options, backend="numba", algorithm=algorithm)
        absolute = [abs(array) if isinstance(array, np.ndarray) else array for array in arguments]
        sizes = function(*absolute, **options, backend="numpy", algorithm="im2col")
        atol = 64 * np.finfo(dtype).eps * sizes.max(initial=0) if algorithm == "auto" else 0
        np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=f"{function.__name__} {text}")


# --- layers -----------------------------------------------------------------------------------------------------------


def layer_of(text, dtype, algorithm, **options):
    case = parse(text)
    _, weight, bias = arrays_for(text, dtype, algorithm)
    arguments = case.arguments | {"algorithm": algorithm, "backend": "numba"} | options
    return getattr(npconv, f"Conv{case.rank}d")(weight, bias, **arguments)


@pytest.mark.parametrize("algorithm", FAST)
def test_layers(algorithm):
    """Packed once, called often, pickled, copied."""
    for dtype in ("float32", "float16", "float64"):
        for text, _ in taken(few(dtype, algorithm), dtype, algorithm):
            layer = layer_of(text, dtype, algorithm)
            x = arrays_for(text, dtype, algorithm)[0]
            for applied in (layer, layer, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
                for made in (x, x, reversed_memory(x)):
                    said = judge(applied(made), text, dtype, algorithm)
                    assert said is None, f"layer: {said}"


SEVERAL = (
    "mb{n}ic40oc33ih{a}iw{b}kh3ph1+bias",
    "mb{n}g8ic8oc16ih{a}iw{b}kh3sh2ph1+bias",
    "mb{n}ic40oc9ih{a}iw{b}+last",
)


@pytest.mark.parametrize("pattern", SEVERAL)
@pytest.mark.parametrize("algorithm", [*FAST, "auto"])
def test_layers_meet_many_shapes_dtypes_and_threads(pattern, algorithm):
    """The weights are packed for an algorithm and a dtype, and are those of every shape."""
    shapes = [(1, 5, 7), (2, 12, 9), (3, 1, 1), (1, 30, 31)]
    texts = [pattern.format(n=n, a=a, b=b) for n, a, b in shapes]
    said = None if algorithm == "auto" else refusal(parse(texts[0]), "float32", algorithm)
    if said is not None:
        pytest.skip(said)
    rng = np.random.default_rng(8)
    case = parse(texts[0])
    weight, bias = rng.standard_normal(case.weight_shape).astype("f4"), rng.standard_normal(case.filters).astype("f4")
    layer = npconv.Conv2d(weight, bias, **case.arguments, algorithm=algorithm, backend="numba")
    jobs = []
    for text in texts:
        for dtype in ("float32", "float64", "float16"):
            x = rng.standard_normal(parse(text).input_shape).astype(dtype)
            wide = [array.astype("f8") for array in (x, weight, bias)]
            want = npconv.conv2d(*wide, **case.arguments, backend="numpy", algorithm="im2col")
            jobs.append((x, want, 1e-11 if dtype == "float64" else 1e-3))
    start = threading.Barrier(6)

    def work(number):
        start.wait()
        with npconv.threads(THREADS[number % len(THREADS)]):
            for x, want, atol in (jobs * 3)[number:]:
                np.testing.assert_allclose(layer(x), want, rtol=0, atol=atol)
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


@pytest.mark.parametrize("algorithm", FAST)
def test_functions_look_at_their_arrays_each_time(algorithm):
    """However often they were called with arrays of the same shapes."""
    case, rng = parse(ordinary(algorithm)), np.random.default_rng(4)
    for _ in range(4):
        arrays = [rng.standard_normal(shape) for shape in (case.input_shape, case.weight_shape, (case.filters,))]
        want = call(case, arrays, backend="numpy", algorithm="im2col")
        np.testing.assert_allclose(call(case, arrays, algorithm=algorithm), want, rtol=0, atol=1e-11)


def test_a_layers_weight_is_its_own():
    """What the caller does with the array later does not reach the packed filters."""
    for algorithm in FAST:
        text = ordinary(algorithm)
        x, weight, bias = (array.copy() for array in arrays_for(text, "float32", algorithm))
        layer = npconv.Conv2d(weight, bias, **parse(text).arguments, algorithm=algorithm)
        weight[...], bias[...] = 0, 0
        for _ in range(2):
            said = judge(layer(x), text, "float32", algorithm)
            assert said is None, said


# --- numbers at the edge ----------------------------------------------------------------------------------------------

EDGES = (
    "ic3oc5ih7iw9kh3ph1+bias", "g9ic9oc9ih6iw20kh3sh2ph1", "ic40oc33ih9iw10kh3ph1", "mb9ic8oc16ih2kh2",
    "g8ic32oc32ih9iw10kh3ph1",
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algorithm", FAST)
def test_denormal_numbers_are_numbers(algorithm, dtype):
    """Nothing is flushed to zero: multiples of the least number are exact as whole numbers are.

    Winograd's engines get larger multiples, and each of their steps rounds to a whole one.
    """
    least = np.finfo(dtype).smallest_subnormal * (2**12 if algorithm in WINOGRAD else 1)
    found = list(taken((*EDGES, ordinary(algorithm)), dtype, algorithm))
    assert found
    for text, case in found:
        x, weight, bias = problems.data(text, dtype)
        want = call(case, (x, weight, bias), backend="numpy", algorithm="im2col")
        tiny = [x * least, weight, None if bias is None else bias * least]
        for array in (tiny[0], tiny[2]):
            assert array is None or 0 < np.abs(array).max() < np.finfo(dtype).smallest_normal
        got = call(case, tiny, backend="numba", algorithm=algorithm) / least
        if algorithm in WINOGRAD:
            np.testing.assert_allclose(got, want, rtol=0, atol=0.25)
        else:
            assert_same(got, want, f"{algorithm} {dtype} {text}")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("algorithm", TERMWISE)
def test_nan_and_infinity_are_where_they_belong(algorithm, dtype):
    rng = np.random.default_rng(9)
    found = list(taken(EDGES, dtype, algorithm))
    assert found
    for text, case in found:
        for where in range(3):
            arrays = [None if array is None else array.copy() for array in problems.data(text, dtype)]
            if arrays[where] is None:
                continue
            for value in (np.nan, np.inf, -np.inf):
                flat = arrays[where].reshape(-1)
                flat[rng.integers(flat.size)] = value
            with np.errstate(all="ignore"):
                want = call(case, arrays, backend="numpy", algorithm="im2col")
            got = call(case, arrays, backend="numba", algorithm=algorithm)
            assert_same(got, want, f"{algorithm} {dtype} {text} argument {where}")
            assert not np.isfinite(got.astype("f4")).all()
            assert np.isfinite(got.astype("f4")).any()


def test_outer_sums_up_sums(monkeypatch):
    """What hundreds of blocks add is summed up in parts, which is within the bound where all roundings go one way."""
    monkeypatch.setattr(outer, "ELEMENTS", (16,))
    rng = np.random.default_rng(5)
    for n, text in enumerate(("mb5ic2oc17ih41iw33kh40kw32", "mb16ic3oc32ih45kh45", "mb3ic1oc5iw3000kw2998")):
        case = parse(text)
        problem = conv_problem(
            case.rank, case.input_shape, case.weight_shape, None, np.dtype("f4"), stride=1, padding=0, dilation=1,
            groups=1, padding_mode="zeros", data_format="channels_first",
        )  # fmt: skip
        assert outer.plan(problem.canonical_form(), 1).sizes.ways[2] > 1
        x = np.full(case.input_shape, np.float32(0.1 + n)), rng.uniform(0, 1, case.input_shape).astype("f4")
        weight = np.full(case.weight_shape, np.float32(1 / 3))
        for array in x:
            want = call(case, (array.astype("f8"), weight.astype("f8"), None), backend="numpy", algorithm="im2col")
            for threads in THREADS:
                with npconv.threads(threads):
                    got = call(case, (array, weight, None), algorithm="outer")
                bound = (8 + np.sqrt(case.products)) * np.finfo("f4").eps * want
                assert (np.abs(got - want) <= bound).all(), text


@pytest.mark.parametrize("cut", [None, (4, 1), (9, 2), (40, 3)])
def test_outer_writes_rows_of_lanes_at_once(cut, monkeypatch):
    """Channels of a 1 × 1 kernel's gradient, the last of which overlap those before: in one task or two, in chains.

    In tasks of so many filters and panels; or as is thought best.
    """
    if cut is not None:
        best = outer._best
        cut_so = lambda *given: (0 if given[2] else 1, best(*given)[1]._replace(share=cut[0], together=cut[1]))  # noqa: E731
        monkeypatch.setattr(outer, "_best", cut_so)
        problems.forget()
    rng = np.random.default_rng(4)
    for channels, filters, size, images in (
        (33, 40, 7, 1),
        (65, 9, 20, 1),
        (100, 41, 12, 2),
        (31, 12, 9, 1),
        (96, 17, 5, 3),
    ):
        x = rng.integers(-9, 9, (images, channels, size, size)).astype("f4")
        slope = rng.integers(-9, 9, (images, filters, size, size)).astype("f4")
        shape = filters, channels, 1, 1
        want = npconv.grad.conv2d_weight(x, shape, slope, backend="numpy")
        for threads in THREADS:
            with npconv.threads(threads):
                assert_same(npconv.grad.conv2d_weight(x, shape, slope, algorithm="outer"), want, (shape, threads))
    monkeypatch.undo()
    problems.forget()


@pytest.mark.parametrize(
    ("filters", "channels", "size"),
    [(300, 65, 3), (40, 64, 20), (1030, 32, 4), (270, 1024, 4), (129, 2048, 2), (17, 40, 5)],
)
def test_filters_of_one_tap_are_met_where_they_are(filters, channels, size):
    """Those of gradients, and of weights that are views; not where rows of them meet in the sets of the caches."""
    rng = np.random.default_rng(filters)
    weight = rng.integers(-4, 4, (filters, channels, 1, 1)).astype("f4")
    slope = rng.integers(-4, 4, (2, filters, size, size)).astype("f4")
    shape = 2, channels, size, size
    want = npconv.grad.conv2d_input(shape, weight, slope, backend="numpy")
    swapped = weight.swapaxes(0, 1)  # a view, as are these
    views = (
        swapped,
        np.asfortranarray(weight.swapaxes(0, 1)),
        weight[::-1].swapaxes(0, 1),
        weight[:, ::-1].swapaxes(0, 1),
    )
    for threads in THREADS:
        with npconv.threads(threads):
            assert_same(npconv.grad.conv2d_input(shape, weight, slope, algorithm="direct"), want, threads)
            for view in views:
                other = npconv.conv2d(slope, view, algorithm="direct")
                assert_same(other, npconv.conv2d(slope, view.copy(), backend="numpy"), threads)


@pytest.mark.parametrize(
    ("algorithm", "stride"),
    [
        *[("auto", stride) for stride in ((2, 2, 2), (2, 1, 1), (1, 2, 2), (2, 1, 2))],
        *[("winograd2", (1, 2, 2)), ("winograd4", (1, 2, 2))],
    ],
)
def test_transposed_volumes(algorithm, stride):
    """Winograd's engines filter height and width only: zeros between planes are none of theirs."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((1, 40, 3, 6, 7)).astype("f4")
    for kernel in ((3, 3, 3), (1, 3, 3), (4, 3, 3)):
        weight = rng.standard_normal((40, 20, *kernel)).astype("f4")
        options = {"stride": stride, "padding": (kernel[0] // 2, 1, 1)}
        got = npconv.conv_transpose3d(x, weight, **options, algorithm=algorithm)
        want = npconv.conv_transpose3d(x.astype("f8"), weight.astype("f8"), **options, backend="numpy")
        sizes = npconv.conv_transpose3d(abs(x), abs(weight), **options, backend="numpy")
        assert np.abs(got - want).max() <= 64 * np.finfo("f4").eps * sizes.max(), kernel
        same = npconv.grad.conv3d_input(got.shape, weight, x, **options, algorithm=algorithm)
        assert np.abs(same - want).max() <= 64 * np.finfo("f4").eps * sizes.max(), kernel


@pytest.mark.parametrize("shape", [(31, 31, 5, 1), (64, 64, 3, 3), (512, 512, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
def test_no_images_and_large_weights(shape, stride):
    """Nothing is cut, and nothing is estimated, where there is nothing to compute."""
    x, weight = np.ones((0, shape[1], 9, 83)), np.ones(shape)
    for kind in (np.float32, np.float64):
        y = npconv.conv2d(x.astype(kind), weight.astype(kind), stride=stride)
        back = npconv.conv_transpose2d(y, weight.astype(kind), stride=stride)
        assert y.shape[:2] == back.shape[:2] == (0, shape[1])


@pytest.mark.parametrize("algorithm", FAST)
def test_a_named_engine_computes_nothing(algorithm):
    """An empty batch is no error, as the last one of a program that names its algorithm may be."""
    case = replace(parse(ordinary(algorithm)), batch=0)
    x, weight, bias = (np.ones(shape, "f4") for shape in (case.input_shape, case.weight_shape, case.filters))
    bias = bias if case.bias else None
    want = np.zeros(oracle.output_shape(case), "f4")
    layer = getattr(npconv, f"Conv{case.rank}d")(weight, bias, **case.arguments, algorithm=algorithm)
    for _ in range(2):
        assert_same(call(case, (x, weight, bias), algorithm=algorithm), want, "function")
        assert_same(layer(x), want, "layer")
    gradient = getattr(npconv.grad, f"conv{case.rank}d_input")
    got = gradient(x.shape, weight, want, **case.arguments, algorithm="direct")
    assert got.shape == x.shape
    with pytest.raises(ValueError, match="it is for kernels of several elements"):
        npconv.conv2d(np.ones((0, 40, 5, 5)), np.ones((40, 40, 1, 1)), algorithm="winograd4")


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize(
    ("size", "weight", "stride"),
    [
        ((1, 1024, 12, 28, 1000), (64, 1024, 5, 3, 3), (1, 2, 2)),
        ((1, 2048, 1, 33, 1000), (512, 2048, 1, 3, 3), (1, 1, 1)),
        ((2, 256, 1, 8, 1000), (512, 256, 1, 3, 3), (1, 2, 2)),
    ],
)
def test_workspace_of_filters_packed_within_tasks(size, weight, stride, threads):
    """Where the points of one row of tiles are too many, rows are cut, too; a quarter is for what cannot be cut."""
    for kind in (np.float32, np.float64):
        problem = conv_problem(
            3, size, weight, None, np.dtype(kind), stride=stride, padding=0, dilation=1, groups=1,
            padding_mode="zeros", data_format="channels_first",
        ).canonical_form()  # fmt: skip
        for engine in (winograd_plain.two, winograd_plain.two_by_four, winograd_plain.four):
            found = engine.plan(problem, threads)
            numbers = found.points + threads * max(found.scratch)
            assert numbers * np.dtype(kind).itemsize <= 1.25 * blocking.engine_limit(problem)


def canonical(case: Case, dtype: str) -> ConvProblem:
    """Return a problem of two axes as engines plan it."""
    shapes = case.input_shape, case.weight_shape, None
    return conv_problem(2, *shapes, np.dtype(dtype), **case.arguments).canonical_form()


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("ic16oc32ih14iw13kh3ph1", (2, 1)),
        ("ic16oc32ih16iw15kh3ph1", (0, 3)),
        ("ic16oc32ih70iw50kh3ph1", (0, 0)),  # which would save too little
        ("ic16oc32ih6kh3ph1", (0, 0)),  # four tiles take as long as one
        ("mb2ic16oc32ih6kh3ph1", (2, 2)),
        ("ic8oc32ih14kh3ph1", (0, 0)),  # fewer channels than a vector holds
        ("ic16oc32ih28iw26kh3dh2ph2", (2, 1)),
        ("ic16oc32ih27iw26kh3dh2ph2", (0, 0)),  # residues of 14 rows, and of 13
        ("ic16oc32ih28iw34kh3sh2ph1", (2, 1)),
    ],
)
def test_short_tiles_where_they_save_something(text, short):
    ends = filtering.last_axes(canonical(parse(text), "f4"), (4, 4))
    assert tuple(axis.short for axis in ends) == short


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("text", ["ic128oc128ih56kh3ph1", "ic128oc128ih56kh3sh2ph1", "ic256oc256ih28kh5sh2ph2"])
def test_winograd_tiles_keep_to_the_share_of_a_thread(text, threads):
    """As planned, and as expected when an algorithm is chosen; a tile of stride 2 meets four times as many pixels.

    Weights, which a layer has packed, do not count.
    """
    case = parse(text)
    problem = canonical(case, "f4")
    limit = blocking.engine_limit(problem)
    for engine in (winograd.two, winograd.four):
        numbers, dtype = engine.plan(problem, threads).scratch
        assert threads * numbers * dtype.itemsize <= limit
    for algorithm in registry.candidates("numba"):
        if algorithm.name in ("winograd2", "winograd4"):
            assert algorithm.cost.workspace(problem, threads, True) <= limit


@pytest.mark.parametrize(
    "text", ["ic3oc64ih224kh3ph1", "ic8oc64ih112kh3ph1", "mb4ic3oc64ih28kh7sh4ph3", "ic512oc32ih14kh3ph1"]
)
def test_two_threads_share_winograds_tiles(text):
    """Of few channels, whose transforms are most of the work, in whole rows; and where there is just room for two."""
    case = parse(text)
    problem = canonical(case, "f4")
    plan = winograd.four.plan(problem, 2)
    assert plan.tasks >= 2
    assert jit.sharing(plan.work, 2) == 2
    assert 2 * plan.scratch[0] * 4 <= blocking.engine_limit(problem)
    assert plan.sizes[1, 2] == -(-problem.output_size[2] // 4)


@pytest.mark.parametrize(
    ("text", "algorithm", "reason"),
    [
        ("ic2oc8ih9kh3ph1", "winograd4", "it needs 3 input channels or more, and there are 2"),
        ("g2ic4oc8ih9kh5ph1", "winograd2", "it needs 3 input channels a group or more, and there are 2"),
        ("ic1oc8ih19kh7kw1sh2sw1", "winograd4", "it needs 2 input channels or more, and there are 1"),
        ("ic3oc8ih19kh7sh5", "winograd4", "it is for strides of 1 to 4"),
        ("ic3oc8ih19kh3sh2", "winograd2x4", "it is for stride 1"),
        ("ic3oc8ih19kh13sh3", "winograd2", "it is for kernels of 5 to 12 elements at stride 3, not of 13"),
    ],
)
def test_winograd_tells_what_it_does_not_take(text, algorithm, reason):
    assert problems.refusal(parse(text), "float32", algorithm) == reason


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "text", ["ic360oc{}ih28", "ic360oc{}ih1iw800", "ic36oc{}ih14kh7ph3", "ic240oc{}ih15iw31kh3sh2ph1"]
)
def test_few_filters_are_shared_out_by_pixels(text, dtype):
    """One panel of filters of one small image is work for two threads, whatever a panel has on this machine."""
    case = parse(text.format(product.width(np.dtype(dtype))))
    problem = canonical(case, dtype)
    arrays, want = exact(format_case(case), dtype)
    for name, engine in (("direct", direct), ("planes", planes)):
        assert engine.plan(problem, 2).tasks >= 2
        for n in THREADS:
            with npconv.threads(n):
                assert_same(call(case, arrays, algorithm=name), want, (text, name, n))


@pytest.mark.parametrize(
    "text", ["ic3oc48ih64kh3ph1", "ic8oc64ih64", "g4ic32oc64ih56kh3ph1", "g16ic192oc192ih28kh3ph1"]
)
def test_planes_have_the_threads_that_have_room(text):
    """What is expected when an algorithm is chosen is not so much more than what is planned that one thread is left."""
    case = parse(text)
    problem = canonical(case, "f4")
    limit = blocking.engine_limit(problem)
    algorithm = next(one for one in registry.candidates("numba") if one.name == "planes")
    numbers, dtype = planes.plan(problem, 2).scratch
    assert 2 * numbers * dtype.itemsize <= limit
    assert algorithm.cost.workspace(problem, 2, True) <= limit


@pytest.mark.parametrize(
    "text", ["g2ic2oc128ih4003iw4kh3", "g2ic2oc512ih300iw9kh3dh2dw2", "g3ic3oc192ih700iw3kh5ph2+bias"]
)
def test_many_filters_a_channel_keep_to_their_workspace(text):
    """Rows of narrow images take a vector each, in the results of a task for each of its filters."""
    case = parse(text)
    for kind in ("float32", "float64"):
        problem = canonical(case, kind)
        arrays, want = exact(text, kind)
        for n in (1, 2):
            numbers, dtype = depthwise.plan(problem, n).scratch
            assert n * numbers * dtype.itemsize <= blocking.engine_limit(problem)
            with npconv.threads(n):
                assert_same(call(case, arrays, algorithm="depthwise"), want, (text, kind, n))


@pytest.mark.parametrize("packing", [nullcontext, problems.packing_within])
@pytest.mark.parametrize(
    "text",
    [
        "ic32oc32ih20iw25kh3sh2",
        "mb2ic40oc33ih23iw30kh7sh3",
        "ic33oc20ih30iw29kh11kw8sh4ph1:0",
        "ic48oc9ih12iw14kh4kw3sh1sw2",
    ],
)
def test_what_no_window_of_a_stride_meets_spoils_nothing(text, packing):
    """Winograd's last tiles reach behind the last window, where numbers may be anything."""
    case = parse(text)
    (x, *others), want = exact(text, "float32")
    x, unmet = x.copy(), []
    for axis in (-2, -1):
        pads, stride, n = case.arguments["padding"][axis], case.arguments["stride"][axis], x.shape[axis]
        end = (want.shape[axis] - 1) * stride + case.weight_shape[axis] - pads[0]
        unmet.append(n - end)
        np.moveaxis(x, axis, 0)[max(end, 0) :] = np.nan
    assert max(unmet) > 0
    with packing():
        for algorithm in ("winograd4", "winograd2"):
            if problems.refusal(case, "float32", algorithm) is None:
                for data_format in ("channels_first", "channels_last"):
                    given = x if data_format == "channels_first" else np.moveaxis(x, 1, -1).copy()
                    got = call(case, (given, *others), algorithm=algorithm, data_format=data_format)
                    got = got if data_format == "channels_first" else np.moveaxis(got, -1, 1)
                    assert np.isfinite(got).all()
                    assert np.allclose(got, want, rtol=1e-3, atol=1e-2 * np.abs(want).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "text",
    [
        "g64ic64oc64ih41iw5kh7sh2ph3+bias", "mb2g64ic64oc64ih40iw7kh5sh2ph4:1pw2+bias", "g64ic64oc64ih39iw5kh3sh2",
        "g128ic128oc128ih47iw9kh5dh2dw1ph9pw2", "g64ic64oc64ih40iw5kh7sh2ph3+reflect",
    ],
)  # fmt: skip
def test_depthwise_rows_put_channels_first_band_by_band(text, dtype, monkeypatch):
    """A task has some rows, the last one fewer, and what these meet, whatever the machine would choose."""
    monkeypatch.setattr(depthwise, "turns", lambda problem, threads: True)
    monkeypatch.setattr(depthwise, "_is_tall", lambda *_: False)
    case, (arrays, want) = parse(text), exact(text, dtype)
    for rows, n in itertools.product((1, 6), THREADS):
        monkeypatch.setattr(depthwise.channels, "_rows", lambda problem, threads, rows=rows: rows)
        problems.forget()
        assert depthwise.plan(canonical(case, dtype), n).turned.sizes[4, 0] == rows < oracle.output_shape(case)[2]
        with npconv.threads(n):
            assert_same(call(case, arrays, algorithm="depthwise"), want, (text, rows, n))
    problems.forget()


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "mb2ic3oc33ih7iw1kh3kw1ph1", "ic5oc40ih11iw5kh3ph1+bias", "mb2g2ic6oc50ih9iw19kh3sh2ph1",
        "ic4oc37ih13iw33kh3ph1", "ic3oc29ih20iw70kh5sh3sw2ph2:3pw1:0+bias", "ic2oc64ih8iw9kh3sh2ph1",
        "ic7oc24ih18iw47kh3dh3dw2ph4+bias", "ic60oc90ih5iw3kh3ph1", "ic3oc33ih33iw1kh3kw1ph1",
        "ic3oc20ih37iw2kh3ph1",
    ],
)  # fmt: skip
def test_slivers_go_on_with_the_next_row_or_do_not(text, closed, monkeypatch):
    """Whatever is faster on this machine: rows shorter and longer than a sliver, parts of one at its ends."""
    monkeypatch.setattr(plane_plan, "_are_closed", lambda *_: closed)
    problems.forget()
    for dtype in ("float32", "float64"):
        case, (arrays, want) = parse(text), exact(text, dtype)
        for n in THREADS:
            assert planes.plan(canonical(case, dtype), n).sizes.parts[2] == closed
            with npconv.threads(n):
                assert_same(call(case, arrays, algorithm="planes"), want, (text, dtype, n))
                spaced = np.full((*want.shape[:-1], want.shape[-1] + 2), 7, dtype)
                call(case, arrays, algorithm="planes", out=spaced[..., 1:-1])
                assert_same(spaced[..., 1:-1], want, (text, dtype, n, "rows apart"))
                assert (spaced[..., [0, -1]] == 7).all()
    problems.forget()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", ["mb2ic9oc24ih7iw67sh2+bias", "ic5oc13ih20iw40sh1sw2", "g2ic8oc40id3ih9iw35sd2sh3sw2"])
def test_every_second_pixel_is_cut_from_where_it_is(text, dtype, monkeypatch):
    """If a row's lie side by side, rows do not overlap and channels differ; else all are put side by side first."""
    found, ask = [], planes._are_halved
    monkeypatch.setattr(planes, "_are_halved", lambda *arguments: found.append(ask(*arguments)) or found[-1])
    case, (arrays, _) = parse(text), exact(text, dtype)
    x, rest = arrays[0], arrays[1:]
    rows_apart = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 4)])[..., 1:-4]
    fewer = np.pad(x, [(0, 0), (3, 2)] + [(0, 0)] * (x.ndim - 2))[:, 3:-2]
    views = [(x, True), (rows_apart, True), (fewer, True), (channels_beside(x), False)]
    views += [(np.repeat(x, 2, -1)[..., ::2], False), (np.broadcast_to(x[:, :1], x.shape), False)]
    views += [(np.broadcast_to(x[..., :1, :], x.shape), False)]
    for n in THREADS:
        with npconv.threads(n):
            for view, halved in views:
                found.clear()
                problems.forget()
                got = call(case, (view, *rest), algorithm="planes")
                assert set(found) == {halved}, view.strides
                want = call(case, (view.copy(), *rest), backend="numpy", algorithm="im2col")
                assert_same(got, want, (text, dtype, n, view.strides))
    problems.forget()


DILATED = ("ic40oc70ih9iw13kh3dh5dw4ph5pw4+bias", "mb2g2ic16oc48ih17iw30kh3dh7dw9ph7pw9", "ic33oc40iw50kw3dw19pw19")


@pytest.mark.parametrize("text", DILATED)
def test_regions_of_far_taps_are_met_where_they_are(text):
    """In an image whose channels lie side by side, or are put so; rows may lie apart, or be one."""
    case, (arrays, want) = parse(text), exact(text, "float32")
    x, rest = arrays[0], arrays[1:]
    wider = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 4)])[..., 1:-4]
    more = np.moveaxis(np.pad(np.moveaxis(x, 1, -1), [(0, 0)] * (x.ndim - 1) + [(3, 2)])[..., 3:-2], -1, 1)
    for n in THREADS:
        shapes = case.input_shape, case.weight_shape, None
        problem = conv_problem(case.rank, *shapes, x.dtype, **case.arguments).canonical_form()
        assert direct.plan(problem, n).shared == x.nbytes
        with npconv.threads(n):
            for made in (x, wider, more, channels_beside(x), np.asfortranarray(x), x[..., ::-1].copy()[..., ::-1]):
                assert_same(call(case, (made, *rest), algorithm="direct"), want, (text, n, made.strides))
            for made in (np.broadcast_to(x[:, :1], x.shape), np.broadcast_to(x[..., :1], x.shape)):
                numpy = call(case, (made.copy(), *rest), backend="numpy", algorithm="im2col")
                assert_same(call(case, (made, *rest), algorithm="direct"), numpy, (text, n, made.strides))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_dilation_by_regions(data):
    """Whether it is worth it or not: kernels, strides and paddings of every size, regions of no taps; and gradients."""
    axes = data.draw(st.integers(1, 3))
    draw = lambda least, most: tuple(data.draw(st.integers(least, most)) for _ in range(axes))  # noqa: E731
    size, kernel, dilation, stride = draw(1, 9), draw(1, 3), draw(1, 7), draw(1, 3)
    padding = draw(0, 8)
    assume(all(n + 2 * p >= (k - 1) * d + 1 for n, p, k, d in zip(size, padding, kernel, dilation, strict=True)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    groups, channels, filters = (
        data.draw(st.integers(1, 2)),
        data.draw(st.integers(1, 9)),
        data.draw(st.integers(1, 40)),
    )
    x = rng.integers(-9, 9, (2, channels * groups, *size)).astype(np.float32)
    weight = rng.integers(-9, 9, (filters * groups, channels, *kernel)).astype(np.float32)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    convolve = getattr(npconv, f"conv{axes}d")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(far_taps, "WORTH", -1e9)
        problems.forget()
        got = convolve(x, weight, **options, algorithm="direct")
        last = convolve(channels_beside(x), weight, **options, algorithm="direct")
        first = x
        slope = rng.integers(-9, 9, got.shape).astype(np.float32)
        x = rng.integers(-9, 9, (2, 9 * groups, *size)).astype(np.float32)
        shape = filters * groups, 9, *kernel
        gradient = getattr(npconv.grad, f"conv{axes}d_weight")
        of_weight = [gradient(made, shape, slope, **options, algorithm="direct") for made in (x, channels_beside(x))]
    problems.forget()
    want = convolve(first, weight, **options, backend="numpy", algorithm="im2col")
    assert_same(got, want, options)
    assert_same(last, want, options)
    want = gradient(x, shape, slope, **options, backend="numpy")
    for one in of_weight:
        assert_same(one, want, options)


@pytest.mark.parametrize("in_turns", [False, True])
@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 7, 16, 33])
def test_each_task_is_run_once(tasks, in_turns):
    """Side by side or dealt out in turns, and by threads that take what is left of others'."""
    kernel, work = jit.Kernel(_count), 2 * jit.SMALL_WORK
    for threads in THREADS:
        found = np.zeros(tasks, np.int64)
        for _ in range(20):
            kernel.fixed(tasks, work, threads, in_turns=in_turns)(found)
        assert (found == 20).all(), (threads, found)


def _count(task, found):
    found[task] += 1


def test_tasks_of_unequal_sizes_are_dealt_out_in_turns():
    """Where that makes threads end sooner together, and there are few tasks."""
    blocks = blocking.Blocks
    assert blocking.in_turns(blocks(4, 4, 1), 7, 7, 1, 1, 2)  # 16, 12, 12 and 9 tiles
    assert not blocking.in_turns(blocks(4, 4, 1), 8, 8, 1, 1, 2)
    assert not blocking.in_turns(blocks(4, 4, 1), 7, 7, 1, 1, 1)
    assert not blocking.in_turns(blocks(4, 4, 1), 7, 7, 16, 1, 2)


def test_narrow_results_have_room_for_the_parts_of_their_rows():
    """The last sliver goes back over many rows. What a table has no room for spoils the heap, which glibc may check."""
    python(
        """
        import numpy as np
        import npconv
        from npconv.kernels.numba import plane_plan

        plane_plan._are_closed = lambda *_: True
        for columns in (1, 2, 3, 5):
            for rows in (9, 17, 18, 25, 33, 34, 47, 65):
                x, weight = np.ones((1, 2, rows + 1, columns), "f"), np.ones((20, 2, 2, 1), "f")
                for dtype in ("float32", "float64"):
                    for _ in range(3):
                        got = npconv.conv2d(x.astype(dtype), weight.astype(dtype), algorithm="planes")
                    assert (got == 4).all(), (rows, columns, dtype)
        """,
        MALLOC_CHECK_="3",
        LD_PRELOAD="libc_malloc_debug.so.0",
    )


def test_depthwise_channels_of_one_vector_are_not_turned_for_several_threads():
    """If that leaves but one of them with work, and rows fill their vectors nearly."""
    side = 3 * product.width("float32") // 2 + 3
    channels = product.width("float32") // 2
    case = parse(f"g{channels}ic{channels}oc{channels}ih{side}kh7ph3")
    assert depthwise.plan(canonical(case, "float32"), 2).turned is None


@pytest.mark.parametrize("pixels", [36, 40, 48])
def test_planes_share_out_filters_where_few_pixels_are_left_over(pixels):
    """Two threads had pieces of a sliver each: 1704 to 136 channels at 6² took 191 µs, and take 89."""
    lanes = product.width("float32") // 2
    case = parse(f"ic640oc136ih1iw{pixels * lanes // 16}")  # as images are met whose rows go on
    plan = planes.plan(canonical(case, "float32"), 2)
    assert plan.grid.prod() == plan.grid[2] > 1, plan.grid


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(2, 2), (3, 4), (4, 5), (5, 5)])
def test_pixels_behind_a_plane_that_is_less_than_a_sliver_spoil_nothing(size, dtype):
    """They are cut with it: another image's, or what lies behind a view, or nothing at the end of the array."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((20, 8, 1, 1)).astype(dtype)
    whole = np.full((3, 9, *size), np.nan, dtype)
    whole[1, :8] = rng.standard_normal((8, *size))
    layer = npconv.Conv2d(weight, algorithm="planes", precision="strict")
    expected = layer(np.ascontiguousarray(whole[1:2, :8]))
    assert np.isfinite(expected).all()
    assert_same(layer(whole[:2, :8])[1], expected[0], "another channel")
    assert_same(layer(whole[1:, :8])[0], expected[0], "another image")


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_depthwise_images_about_half_a_vector_wide(kernel, ratio):
    """Narrower ones, however high, may be turned to have their channels side by side; all are right."""
    for dtype in ("float32", "float64"):
        half = product.width(np.dtype(dtype)) // 4
        for width in (half - 1, half, half + 1):
            if width < 1:
                continue
            text = f"mb2g37ic37oc{37 * ratio}ih19iw{width}kh{kernel}ph{kernel // 2}+bias"
            arrays, want = exact(text, dtype)
            for n in THREADS:
                with npconv.threads(n):
                    assert_same(call(parse(text), arrays, algorithm="depthwise"), want, (text, n))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "text",
    ["ic257oc1ih14kh7dh5ph15", "g2ic2048oc4ih9iw20kh5dh5ph10+bias", "mb2ic512oc2id3ih9kd3kh5dd1dh4ph8pd1+bias"],
)
def test_few_filters_of_many_channels_keep_to_their_workspace(text, dtype):
    """Where kernels are so large that the planes of all channels would take more, they are summed up in parts."""
    case = parse(text)
    arrays, want = exact(text, dtype)
    x, weight, _ = arrays
    for n in THREADS:
        with npconv.threads(n):
            assert_same(call(case, arrays, algorithm="planes"), want, (text, n))
            last = call(
                case, (np.moveaxis(x, 1, -1).copy(), *arrays[1:]), algorithm="planes", data_format="channels_last"
            )
            assert_same(np.moveaxis(last, -1, 1), want, (text, n, "channels last"))
            found = npconv.explain(
                f"conv{case.rank}d", x.shape, weight.shape, algorithm="planes", dtype=dtype, **case.arguments
            )
        assert found.workspace <= x.nbytes + weight.nbytes + want.nbytes + 2**20


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("swapped", [False, True])
def test_pieces_in_any_cut(swapped, threads, monkeypatch):
    """Whether it is filters or images that fill the vectors, and with few rows and pieces or many."""
    cuts = piecing._cuts

    def others(which, *arguments):
        found = [cut for cut in cuts(*arguments) if cut.swapped == swapped]
        return [sorted(found, key=lambda cut: cut.numbers)[which]]

    computed = 0
    for which in (0, -1):
        monkeypatch.setattr(piecing, "_cuts", partial(others, which))
        problems.forget()
        for text in PIECES:
            plain = text.replace("+bias", "")
            case = parse(plain)
            with npconv.threads(threads):
                got = call(case, arrays_for(plain, "float32", "pieces"), algorithm="pieces")
            said = judge(got, plain, "float32", "pieces")
            assert said is None, said
            computed += 1
    problems.forget()
    assert computed == 2 * len(PIECES)


def test_pieces_keep_nan_to_its_image():
    """And, where it is the kernel's, to its filter."""
    case = parse(ordinary("pieces"))
    x, weight, bias = problems.data(ordinary("pieces"), "float32", False)
    plain = call(case, (x, weight, bias), algorithm="pieces")
    for array, spoiled in ((x, np.s_[7]), (weight, np.s_[:, 7])):
        saved, array[7, 1, 2, 3] = array[7, 1, 2, 3], np.nan
        got = call(case, (x, weight, bias), algorithm="pieces")
        array[7, 1, 2, 3] = saved
        assert np.isnan(got[spoiled]).all()
        got[spoiled] = plain[spoiled]
        assert_same(got, plain, "pieces")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_quarters_of_pixels_in_vectors(dtype, monkeypatch):
    """Of any number that fills half a unit, asked for or not; of functions, swapped filters among them, and layers.

    By threads that sum up the filters for themselves, or if there is no room for that, all of them beforehand.
    """
    monkeypatch.setattr(strassen_plan, "TRANSPOSED", 99)
    cut, ways, plans = strassen_planes.plan, set(), []

    def plan(*given):
        ways.add(given)
        plans.append(cut(*given))
        return plans[-1]

    monkeypatch.setattr(strassen_planes, "plan", plan)
    for far, limit in ((0, None), (2**40, None), (0, 1)):
        monkeypatch.setattr(strassen_planes, "FAR", far)
        with problems.packing_within(limit):
            for text, case in taken(STRASSEN, dtype, "strassen"):
                x, weight, bias = arrays_for(text, dtype, "strassen")
                layer = layer_of(text, dtype, "strassen")
                for threads in THREADS:
                    with npconv.threads(threads):
                        results = [
                            call(case, (x, filters, bias), backend="numba", algorithm="strassen")
                            for filters in (weight, np.asfortranarray(weight))
                        ]
                        results.append(layer(x))
                    for got in results:
                        said = judge(got, text, dtype, "strassen")
                        assert said is None, said
    forms = {problem for problem, _, _ in ways}
    assert len(forms) >= 20
    if dtype == "float32":  # a few pixels are left, or none, and are one tile, or more
        assert len({min(plan.left, 5) for plan in plans}) == 3
    assert {(threads, plain) for _, threads, plain in ways} == set(itertools.product(THREADS, (False, True)))


@pytest.mark.parametrize("filters", [300, 96])
@pytest.mark.parametrize("size", [(5, 9), (3, 23), (129, 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_strassen_keeps_nan_to_its_image(value, size, filters, monkeypatch):
    """Or to its filter: it reaches two other pixels of the image, or one other filter, at most.

    Or two, where the halves of the filters overlap, as they are whole panels, and it is in both.
    """
    monkeypatch.setattr(strassen_plan, "TRANSPOSED", 99)
    problems.forget()
    rng = np.random.default_rng(2)
    x, weight = rng.standard_normal((3, 64, *size), "f4"), rng.standard_normal((filters, 64, 1, 1), "f4")
    plain = npconv.conv2d(x, weight, algorithm="strassen")
    pixels = [(0, 0), (size[0] // 2, size[1] // 2), (size[0] - 1, size[1] - 1)]
    for array, place, axes in (*((x, (1, 2, *pixel), (1,)) for pixel in pixels), (weight, (33, 9, 0, 0), (0, 2, 3))):
        changed = array.copy()
        changed[place] = value
        got = npconv.conv2d(*(changed if array is old else old for old in (x, weight)), algorithm="strassen")
        spoiled = ~np.isfinite(got)
        assert spoiled[1, :, *place[2:]].all() if array is x else spoiled[:, place[0]].all()
        assert np.count_nonzero(spoiled.any(axis=axes)) <= (3 if array is x or filters == 96 else 2)
        if array is x:
            assert not spoiled[::2].any()
            assert_same(got[~spoiled], plain[~spoiled], "strassen")
        else:  # the channel is scaled in another way
            np.testing.assert_allclose(got[~spoiled], plain[~spoiled], rtol=0, atol=1e-4)
    monkeypatch.undo()
    problems.forget()


@pytest.mark.parametrize("algorithm", ["strassen", "planes", "direct"])
@pytest.mark.parametrize("options", [{}, {"stride": 2}], ids=str)
def test_axes_of_one_element_may_have_any_stride(algorithm, options):
    """Arrays of one column in C order are computed the same way, bit for bit, whatever NumPy says of that axis."""
    rng = np.random.default_rng(4)
    x, weight = rng.standard_normal((1, 128, 1, 64), "f4"), rng.standard_normal((70, 128, 1, 1), "f4")
    column, plain = x.swapaxes(2, 3), x.reshape(1, 128, 64, 1)
    assert column.flags.c_contiguous
    assert column.strides != plain.strides
    layer = npconv.Conv2d(weight, algorithm=algorithm, **options)
    for function in (layer, lambda x: npconv.conv2d(x, weight, algorithm=algorithm, **options)):
        for array in (column, plain, column):
            assert_same(function(array), layer(plain), algorithm)


@pytest.mark.parametrize("algorithm", ["winograd2", "winograd2x4", "winograd4"])
def test_winograd_keeps_nan_to_its_tile(algorithm):
    """A transform spreads what is not finite over a tile, but no further, and never hides it."""
    x = np.random.default_rng(2).standard_normal((2, 40, 30, 30)).astype("f4")
    weight = np.random.default_rng(3).standard_normal((9, 40, 3, 3)).astype("f4")
    plain = npconv.conv2d(x, weight, padding=1, algorithm=algorithm)
    x[1, 7, 15, 15] = np.nan
    got = npconv.conv2d(x, weight, padding=1, algorithm=algorithm)
    assert np.isnan(got[1, :, 14:17, 14:17]).all()
    far = np.ones_like(got, bool)
    far[1, :, 8:23, 8:23] = False
    assert_same(got[far], plain[far], algorithm)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("algorithm", ["outer", "direct", "planes"])
def test_an_axis_of_one_element_may_have_any_dilation(algorithm, dtype):
    """And any stride: of a kernel that fills the image, whose elements `outer` meets as one line."""
    rng = np.random.default_rng(4)
    for size, dilation in (((1, 9), (7, 1)), ((9, 1), (1, 3)), ((4, 5), (1, 1)), ((1, 1), (3, 2))):
        x, weight = (rng.integers(-4, 5, (n, 3, *size)).astype(dtype) for n in (5, 23))
        options = {"dilation": dilation, "stride": dilation[::-1]}
        want = npconv.conv2d(x, weight, backend="numpy", **options)
        for _ in range(3):
            assert_same(npconv.conv2d(x, weight, algorithm=algorithm, **options), want, (size, dilation))

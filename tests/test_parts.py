"""Complex numbers on the fast engines: as parts of the result by filters, or as parts of the input by images."""

import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import engine_problems as problems
import numpy as np
import pytest
from checks import COMPLEX, assert_same, assert_within, call, eps, exact, seed_of
from corpus import parse
from engine_problems import EXACT, FAST, SHAPES, arrays_for, judge, ordinary, refusal
from hypothesis import given
from hypothesis import strategies as st
from test_accuracy import alternating, constants, dust, normal, positive, spikes, sums, thirds

import npconv
from npconv import complex_parts
from npconv.arguments import conv_problem
from npconv.threads import max_threads

THREADS = tuple(range(1, min(max_threads(), 2) + 1))

BY_IMAGES = "ic40oc40ih5iw6kh3ph1+bias"
"""A problem whose weight is larger than its input and result."""

BY_FILTERS = "mb2ic5oc6ih20iw21kh3ph1+bias"


def canonical(text, dtype="complex64"):
    """The problem of a text."""
    case = parse(text)
    return conv_problem(
        case.rank, case.input_shape, case.weight_shape, (case.filters,) if case.bias else None, np.dtype(dtype),
        **{"data_format": "channels_first", **case.arguments},
    )  # fmt: skip


@pytest.mark.parametrize(("text", "images"), [(BY_IMAGES, True), (BY_FILTERS, False)])
def test_what_copies_less(text, images):
    assert complex_parts.by_images(canonical(text)) == images
    assert complex_parts.of(canonical(text)).batch == parse(text).batch * (2 if images else 1)


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("algorithm", FAST)
def test_table(algorithm, dtype, request):
    """Every engine, of the channels first and last."""
    texts = problems.texts_for("float64", algorithm, request.config.getoption("--long"))
    if dtype == "complex128" or algorithm in EXACT:
        texts = texts[:: 3 if dtype == "complex64" else 5]
    if algorithm in problems.DIRECT:
        texts = [text for text in texts if parse(text).products <= complex_parts.LONGEST]
    for n in THREADS:
        with npconv.threads(n):
            number = problems.check((*texts, ordinary(algorithm)), dtype, algorithm)
    assert number >= (2 if algorithm in problems.CHOOSY else 2 * len(texts))


@pytest.mark.parametrize("ways", ["by filters", "by images"])
@pytest.mark.parametrize(
    "text",
    [
        BY_FILTERS, BY_IMAGES, "mb3g4ic8oc12ih9iw11kh3sh2ph1+bias", "mb2ic3oc5id4ih6iw7kd3pd1+bias", "ic4oc9iw50kw5pw2",
        "mb2ic5oc6ih9iw8kh3ph1+reflect", "ic5oc7ih9iw13kh3dh4dw5ph4pw5+bias", "g6ic6oc6ih20kh5ph2", "ih12kh3",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", COMPLEX)
def test_both_ways(text, dtype, ways, monkeypatch):
    """Whichever copies less: contiguous arrays, spread and reversed ones, any result, with the channels last, too."""
    monkeypatch.setattr(complex_parts, "by_images", lambda problem: ways == "by images")
    complex_parts.of.cache_clear()
    problems.forget()
    for layout in ("", "+last")[: 1 if parse(text).kind == "image" else 2]:
        case, ((x, weight, bias), want) = parse(text + layout), exact(text + layout, dtype)
        spread = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan, dtype)[..., ::2]
        spread[...] = x
        backwards = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
        unaligned = np.empty(weight.nbytes + 1, np.int8)[1:].view(dtype).reshape(weight.shape)
        unaligned[...] = weight
        swapped = x.astype(x.dtype.newbyteorder())
        for algorithm in ("direct", "planes"):
            for n in THREADS:
                with npconv.threads(n):
                    for given_x in (x, spread, backwards, swapped):
                        for given_weight in (weight, unaligned):
                            got = call(case, (given_x, given_weight, bias), algorithm=algorithm)
                            assert_same(got, want, (text, layout, algorithm, n))
                    out = np.full((*want.shape[:-1], want.shape[-1] + 2), 7, dtype)
                    call(case, (x, weight, bias), algorithm=algorithm, out=out[..., 1:-1])
                    assert_same(out[..., 1:-1], want, (text, layout, algorithm, n, "out"))
                    assert (out[..., [0, -1]] == 7).all()
    complex_parts.of.cache_clear()
    problems.forget()


@given(
    st.sampled_from((1, 2, 3)), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3),
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.booleans(), st.data(),
)  # fmt: skip
def test_whatever_is_chosen_is_right(rank, images, channels, filters, groups, taps, stride, dilation, pad, last, data):
    """Of functions, layers, and all three gradients: within the bound of sums in twice the precision."""
    size = [data.draw(st.integers(max((taps - 1) * dilation + 1 - 2 * pad, 1), 14)) for _ in range(rank)]
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))

    def draw(*shape):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype("complex64")

    channels, filters = channels * groups, filters * groups
    x = draw(images, *size, channels) if last else draw(images, channels, *size)
    weight = draw(filters, channels // groups, *[taps] * rank)
    options = {
        "stride": stride, "padding": pad, "dilation": dilation, "groups": groups,
        "data_format": "channels_last" if last else "channels_first",
    }  # fmt: skip
    grad, name = npconv.grad, f"conv{rank}d"
    conv = getattr(npconv, name)
    want = conv(x.astype("complex128"), weight.astype("complex128"), backend="numpy", **options)
    slope = draw(*want.shape)

    def close(got, want):
        size = np.abs(want).max(initial=0) + 1e-3
        assert got.dtype == np.complex64
        assert np.abs(got - want).max(initial=0) <= 64 * 2**-23 * 8 * size

    layer = getattr(npconv, f"Conv{rank}d")(weight, **options)
    for _ in range(2):  # the second call goes a shorter way
        close(conv(x, weight, **options), want)
        close(layer(x), want)
    for what, first, second in (("input", x.shape, weight), ("weight", x, weight.shape)):
        gradient = getattr(grad, f"{name}_{what}")
        wide = (each.astype("complex128") if isinstance(each, np.ndarray) else each for each in (first, second))
        want = gradient(*wide, slope.astype("complex128"), backend="numpy", **options)
        for _ in range(2):
            close(gradient(first, second, slope, **options), want)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("channels", [2, 40])
def test_transposed_convolutions_and_their_gradients(rank, channels):
    """Twice each, for the second call goes a shorter way; those of the input conjugate the weight."""
    rng = np.random.default_rng(rank)

    def draw(*shape):
        return (rng.integers(-4, 5, shape) + 1j * rng.integers(-4, 5, shape)).astype("complex64")

    x, weight = draw(2, channels, *[5] * rank), draw(channels, 3, *[3] * rank)
    name, options = f"conv_transpose{rank}d", {"stride": 2, "padding": 1}
    function, layer = getattr(npconv, name), getattr(npconv, f"ConvTranspose{rank}d")(weight, **options)
    want = function(x, weight, backend="numpy", **options)
    slope = draw(*want.shape)
    for _ in range(2):
        np.testing.assert_allclose(function(x, weight, **options), want, atol=2e-3)
        np.testing.assert_allclose(layer(x), want, atol=2e-3)
    for what, first, second in (("input", x.shape, weight), ("weight", x, weight.shape)):
        gradient = getattr(npconv.grad, f"{name}_{what}")
        want = gradient(first, second, slope, backend="numpy", **options)
        for _ in range(2):
            np.testing.assert_allclose(gradient(first, second, slope, **options), want, atol=2e-3)


@pytest.mark.parametrize("text", [BY_IMAGES, "g2ic40oc60ih5iw6kh3ph1"])
def test_layers(text):
    """Of several sizes, of which some go by images, from many threads, pickled; weights are packed for each way."""
    case, ((_, weight, bias), _) = parse(text), exact(text, "complex64")
    options = {name: value for name, value in case.arguments.items() if name != "bias"}
    layer = npconv.Conv2d(weight, bias, **options)
    rng = np.random.default_rng(1)

    def check(side):
        x = rng.integers(-4, 5, (2, case.channels, side, side)) + 1j * rng.integers(
            -4, 5, (2, case.channels, side, side)
        )
        want = npconv.conv2d(x, weight.astype("complex128"), bias, backend="numpy", **options)
        for each in (layer, pickle.loads(pickle.dumps(layer))):
            got = each(x.astype("complex64"))
            assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()

    sides = [3, 40, 4, 60, 3, 40]
    of = f"mb2g{case.groups}ic{case.channels}oc{case.filters}"
    ways = {complex_parts.by_images(canonical(f"{of}ih{side}kh3ph1")) for side in sides}
    assert ways == {False, True}
    for side in sides:
        check(side)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, sides * 3))


@pytest.mark.parametrize(
    "text",
    [
        *SHAPES[::9],
        "ic64oc64ih56kh3ph1",
        "ic256oc256ih14kh3ph1",
        "ic16oc16id20ih30kd3pd1",
        "ic512oc512ih40kh3ph1",
        "ic256oc256ih40kh5ph2",
        "ic64oc192ih27kh5ph2",
    ],
)
@pytest.mark.parametrize("layout", ["", "+last"])
def test_workspace_is_within_its_limit(text, layout):
    """Copies and all; what `auto` chooses takes no more than the arrays do, and a mebibyte."""
    case = parse(text + layout)
    found = npconv.explain(
        f"conv{case.rank}d", case.input_shape, case.weight_shape, **case.arguments, dtype="complex64"
    )
    problem = canonical(text + layout)
    arrays = problem.input_bytes + problem.weight_bytes + problem.output_bytes
    assert found.workspace <= arrays + 2**20


@pytest.mark.parametrize("step", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("dtype", COMPLEX)
def test_channels_that_lie_apart(step, dtype):
    """By images, of one position. NumPy 2.4.6 makes wrong negative numbers of some of these."""
    rng = np.random.default_rng(step)
    x, weight = ((rng.integers(-3, 4, s) + 1j * rng.integers(-3, 4, s)).astype(dtype) for s in ((2, 640), (64, 64)))
    assert complex_parts.by_images(canonical("mb2ic64oc64ih1", dtype))
    for given_x in (x[:, : 64 * step : step], x[:, : 64 * step : step][:, ::-1]):
        got = npconv.conv2d(given_x[:, :, None, None], weight[:, :, None, None], algorithm="direct")
        assert_same(got[:, :, 0, 0], given_x @ weight.T, step)


@pytest.mark.parametrize(
    ("algorithm", "taps", "stride"), [("winograd4", 3, 1), ("winograd2", 3, 1), ("winograd4", 3, 2)]
)
@pytest.mark.parametrize("channels", [40, 129, 512])
@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("make", [constants, thirds, positive, normal, alternating, dust, spikes])
def test_bound_of_transforms(algorithm, taps, stride, channels, dtype, make):
    """Winograd's largest error is within that of the default precision, of parts as large as their modulus allows."""
    rng, to = np.random.default_rng(seed_of(f"{algorithm} {taps} {channels} {make.__name__} {dtype}")), np.dtype(dtype)
    x = (make(rng, (1, channels, 9, 11), to) * (1 + 1j)).astype(to)
    for other in (constants, positive, normal, spikes):
        if make is dust and other is spikes:
            continue  # the one large number meets zeros only, and is rounded with those that do not
        w = (other(rng, (5, channels, taps, taps), to) * (1 - 1j)).astype(to)
        got = npconv.conv2d(x, w, algorithm=algorithm, stride=stride)
        wide = np.clongdouble if dtype == "complex128" else np.complex128
        want, largest = sums(x, w, stride, wide), float(sums(np.abs(x), np.abs(w), stride, np.float64).max())
        bound = max(64, 8 + math.sqrt(channels * taps * taps)) * eps(to) * largest
        assert_within(got, want, np.full(want.shape, bound), f"{algorithm} {make.__name__} {other.__name__}")


@pytest.mark.parametrize("channels", [40, 130, 512])
@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("make", [constants, thirds, positive, normal, alternating, dust])
def test_bound_of_quarters(channels, dtype, make):
    """The same for Strassen's, of kernels of one element."""
    rng, to = np.random.default_rng(seed_of(f"quarters {channels} {make.__name__} {dtype}")), np.dtype(dtype)
    x = (make(rng, (1, channels, 5, 9), to) * (1 + 1j)).astype(to)
    for other in (constants, thirds, positive, normal, alternating, dust):
        w = (other(rng, (70, channels, 1, 1), to) * (1 - 1j)).astype(to)
        got = npconv.conv2d(x, w, algorithm="strassen")
        wide = np.clongdouble if dtype == "complex128" else np.complex128
        want, largest = sums(x, w, 1, wide), float(sums(np.abs(x), np.abs(w), 1, np.float64).max())
        bound = max(64, 8 + math.sqrt(channels)) * eps(to) * largest
        assert_within(got, want, np.full(want.shape, bound), f"{make.__name__} {other.__name__}")


def test_large_images_of_one_element_kernels_are_not_copied():
    assert complex_parts.of(canonical("ic64oc9ih56")).kernel_size == (1, 1, 1)
    large = complex_parts.of(canonical("ic64oc9ih300"))
    assert large.kernel_size == (2, 1, 1)
    assert complex_parts.copied(canonical("ic64oc9ih300"), is_packed=True) == 0


def test_explain_tells():
    """Which algorithm computes the parts, and how; and that strict sums are the textbook's."""
    found = npconv.explain("conv2d", (1, 64, 56, 56), (64, 64, 3, 3), padding=1, dtype="complex64")
    assert found.algorithm == "winograd4"
    assert "by filters, as npconv.complex_parts" in str(found)
    few = npconv.explain("conv2d", (1, 64, 5, 5), (64, 64, 3, 3), dtype="complex64", algorithm="direct")
    assert "by images, as npconv.complex_parts" in str(few)
    strict = npconv.explain("conv2d", (1, 64, 56, 56), (64, 64, 3, 3), padding=1, dtype="complex64", precision="strict")
    assert strict.algorithm == "im2col"
    assert "strict" in strict.refusals["numba", "direct"]


def test_volumes_too_large_to_copy_are_left_to_others():
    """With the channels first; with the channels last nothing is copied."""
    shape = (1, 8, 100, 100, 100)
    found = npconv.explain("conv3d", shape, (8, 8, 3, 3, 3), padding=1, dtype="complex64")
    assert "apart" in found.refusals["numba", "direct"]
    assert found.algorithm == "im2col"
    last = (1, 100, 100, 100, 8)
    found = npconv.explain("conv3d", last, (8, 8, 3, 3, 3), padding=1, dtype="complex64", data_format="channels_last")
    assert ("numba", "direct") not in found.refusals


@pytest.mark.parametrize("text", [BY_FILTERS, BY_IMAGES])
def test_not_a_number_stays_where_it_belongs(text):
    """In both parts of the results that meet it, and nowhere else."""
    case, ((x, weight, bias), _) = parse(text), exact(text, "complex64")
    x = x.copy()
    x[0, 1, 2, 3] = complex(np.nan, 1)
    for algorithm in ("direct", "planes"):
        got = call(case, (x, weight, bias), algorithm=algorithm)
        met = np.zeros(got.shape, bool)
        met[0, :, 1:4, 2:5] = True
        assert (np.isnan(got.real) == met).all()
        assert (np.isnan(got.imag) == met).all()


def test_judge_sees_a_wrong_part():
    text = ordinary("direct")
    got = call(parse(text), arrays_for(text, "complex64", "direct"), algorithm="direct")
    assert judge(got, text, "complex64", "direct") is None
    assert judge(got.conj(), text, "complex64", "direct")
    assert refusal(parse(text), "complex64", "direct") is None

"""The textbook algorithms and the fast direct sums keep the documented bound for each element, whatever the data.

|y − exact| ≤ (8 + √n) · eps · Σ|x||w|, with n products an element and eps of the dtype summed in; a bias counts as one
more product. The exact results are sums by `math.fsum` of products split into parts that float64 holds exactly.
"""

import math
from functools import cache

import numpy as np
import pytest
from checks import (
    BACKENDS,
    COMPLEX,
    ENGINES,
    FLOATS,
    accuracy_bound,
    assert_within,
    call,
    eps,
    named,
    seed_of,
    summed_in,
)
from corpus import parse
from engine_problems import DIRECT, forget, packing_within, refusal

import npconv
from npconv import complex_parts
from npconv.kernels import filtering

LARGE = (
    "ic6oc2ih12iw14kh11kw13",  # 858, the weight gradient of six images
    "ic14oc2ih31kh29",  # 11774
)
"""For the sums of real numbers that fast engines cut in their own ways; complex ones are cut as those of `SHAPES`."""

SHAPES = (
    "ic3oc2ih6kh3ph1",
    "ic32oc2ih2",
    "ic128oc2ih2",
    "g2ic8oc4iw40kw30+bias",
    "ic16oc2id4kd3",  # 432 products
    "ic64oc2ih4kh3",  # 576
    "ih34iw33kh31",  # 961, a box blur of one channel
    "iw1003kw1000",
    "ic2048oc3ih2",  # a fully connected layer
    "ic512oc1ih3kh3",  # 4608
    "g17ic17oc17ih8kh7ph3",  # depthwise
    "g2ic2oc4id5ih7iw40kd5kh6",  # 180
    "g2ic4oc10ih30iw14kh28kw13",  # 728, of more filters than channels
    "ic1oc5iw900kw899",
    "g2ic2oc2iw120kw63sw9",  # a step of 9 elements, or of 63 in the other direction
    *LARGE,
)


def constants(rng, shape, dtype):
    """The textbook's box blur: every product is the same, so that rounding errors add up instead of averaging out."""
    return np.full(shape, 0.1)


def thirds(rng, shape, dtype):
    return np.full(shape, 1 / 3)


def a_constant(rng, shape, dtype):
    return np.full(shape, rng.uniform(0.5, 1))


def positive(rng, shape, dtype):
    return rng.uniform(0, 1, shape)


def normal(rng, shape, dtype):
    return rng.standard_normal(shape)


def alternating(rng, shape, dtype):
    """Sums that cancel to nearly nothing."""
    signs = np.resize([1.0, -1.0], math.prod(shape)).reshape(shape)
    return signs * (1 + 1e-3 * rng.uniform(0, 1, shape))


def wide_range(rng, shape, dtype):
    """Magnitudes over most of what the dtype holds, without overflow of products or their underflow."""
    decades = {"float16": 1.5, "bfloat16": 9, "float32": 9, "complex64": 9}.get(dtype.name, 100)
    return 10 ** rng.uniform(-decades, decades, shape) * rng.choice([-1.0, 1.0], shape)


def dust(rng, shape, dtype):
    """A one first, then numbers that each lose half of an eps when added to it, all in the same direction."""
    values = np.full(shape, eps(summed_in(dtype)) / 2 * (1 + 2**-5))
    values[:, 0, *(0 for _ in shape[2:])] = 1
    return values


def spikes(rng, shape, dtype):
    """Zeros but for a few numbers: a result meets one of them, and is rounded as the others of its tile are."""
    values = np.zeros(shape)
    places = np.unravel_index(rng.choice(values.size, 9, replace=False), shape)
    values[places[0], 0, *places[2:]] = rng.uniform(1, 2, 9)
    return values


def ones(rng, shape, dtype):
    return np.ones(shape)


DATA = [
    (constants, constants), (thirds, a_constant), (a_constant, a_constant), (positive, positive), (normal, normal),
    (normal, constants), (ones, alternating), (alternating, positive), (wide_range, wide_range), (ones, dust),
]  # fmt: skip


def split(values):
    """Each number as the sum of two of at most 26 bits (Veltkamp)."""
    scaled = values * (2.0**27 + 1)
    high = scaled - (scaled - values)
    return high, values - high


def exact_sums(a, b):
    """The sums of ``a · b`` over the last axis, rounded once."""
    (a1, a2), (b1, b2) = split(a), split(b)
    terms = np.concatenate([a1 * b1, a1 * b2, a2 * b1, a2 * b2], axis=-1)
    rows = terms.reshape(-1, terms.shape[-1]).tolist()
    return np.array([math.fsum(row) for row in rows]).reshape(terms.shape[:-1])


def factors(case, x, w, b):
    """All pairs (value, weight) of each element of the result, along the last axis; the bias goes with a one."""
    x = np.pad(x, [(0, 0), (0, 0), *case.padding])
    spatial = range(2, x.ndim)
    regions = np.lib.stride_tricks.sliding_window_view(x, case.kernel, tuple(spatial))[0]
    regions = regions[:, *(slice(None, None, step) for step in case.stride)]
    size = regions.shape[1 : case.rank + 1]
    regions = np.moveaxis(regions.reshape(case.groups, -1, math.prod(size), math.prod(case.kernel)), 1, 2)
    regions = regions.reshape(case.groups, 1, -1, case.products)  # (group, filter, position, product)
    filters = w.reshape(case.groups, -1, 1, case.products)
    if b is not None:
        regions = np.concatenate([regions, np.ones_like(regions[..., :1])], -1)
        filters = np.concatenate([filters, b.reshape(case.groups, -1, 1, 1)], -1)
    return *np.broadcast_arrays(regions, filters), (1, case.filters, *size)


def reference(case, x, w, b):
    """The exact result, rounded to float64 or complex128, and Σ|x||w|."""
    values, weights, shape = factors(case, x, w, b)
    if np.iscomplexobj(x):
        parts = np.concatenate([values.real, values.imag], -1)
        real = exact_sums(parts, np.concatenate([weights.real, -weights.imag], -1))
        want = real + 1j * exact_sums(parts, np.concatenate([weights.imag, weights.real], -1))
    else:
        want = exact_sums(values, weights)
    return want.reshape(shape), (np.abs(values) * np.abs(weights)).sum(-1).reshape(shape)


@cache
def problem(text, dtype, data):
    """Arrays in a dtype, and the exact result for just these arrays with its bound."""
    case, to, (make_x, make_w) = parse(text), named(dtype), DATA[data]
    rng = np.random.default_rng(seed_of(text) + data)

    def draw(make, shape, turn):
        values = make(rng, shape, to)
        return (values * turn if to.kind == "c" else values).astype(to)

    # Turned by ±45°, a complex product's parts are each as large as its modulus allows.
    x, w = draw(make_x, case.input_shape, 1 + 1j), draw(make_w, case.weight_shape, 1 - 1j)
    b = draw(make_w, (case.filters, 1), 1)[:, 0] if case.bias else None
    wide = np.complex128 if to.kind == "c" else np.float64
    want, magnitude = reference(case, *(None if array is None else array.astype(wide) for array in (x, w, b)))
    return (x, w, b), want, accuracy_bound(case.products, magnitude, want, to)


def about_data(data):
    return " and ".join(make.__name__ for make in DATA[data])


CASES = [(text, dtype) for text in SHAPES for dtype in (*FLOATS, *COMPLEX) if dtype in FLOATS or text not in LARGE]


SLOW = [("numpy", "loop"), ("numpy", "flatten")]
"""Loops in Python: with every third kind of numbers, or all with ``--long``."""


@pytest.mark.parametrize(("text", "dtype"), CASES)
def test_bound(text, dtype, request):
    everything = request.config.getoption("--long")
    engines = list(ENGINES)
    if dtype in FLOATS:
        others = ("depthwise", "grouped", "dots", "outer", "dense")
        names = (*DIRECT, *(name for name in others if refusal(parse(text), dtype, name) is None))
        engines += [("numba", name) for name in names]
    for data in range(len(DATA)):
        arrays, want, bound = problem(text, dtype, data)
        for backend, algorithm in engines:
            if (backend, algorithm) in SLOW and data % 3 and not everything:
                continue
            got = call(parse(text), arrays, backend=backend, algorithm=algorithm, precision="strict")
            assert got.dtype == named(dtype)
            assert_within(got, want, bound, f"{text} {dtype} {about_data(data)}, {algorithm} on {backend}")


@pytest.mark.parametrize("text", [*SHAPES, "ic64oc14ih5", "ic126oc14ih3iw9", "ic147oc40iw20", "ic3967oc3ih2"])
@pytest.mark.parametrize("dtype", ["float32", "float64", *COMPLEX])
@pytest.mark.parametrize("algorithm", DIRECT)
@pytest.mark.parametrize("data", range(len(DATA)), ids=about_data)
def test_bound_of_default_precision(text, dtype, data, algorithm):
    """The fast direct sums have longer chains there, and stay within its bound, even of each element's own sum.

    So do those of the parts of complex numbers, which are twice as long, or are refused.
    """
    if parse(text).products > complex_parts.LONGEST and dtype in COMPLEX:
        assert "exact enough" in refusal(parse(text), dtype, algorithm)
        return
    arrays, want, bound = problem(text, dtype, data)
    least = 8 + math.sqrt(parse(text).products)
    got = call(parse(text), arrays, backend="numba", algorithm=algorithm)
    assert_within(got, want, bound * max(64 / least, 1), f"{text} {dtype} {about_data(data)}")


@pytest.mark.parametrize("algorithm", DIRECT)
def test_strict_is_closer(algorithm):
    """Strict sums are cut into shorter chains than those of the default precision."""
    arrays, want, bound = problem("ic64oc14ih5", "float32", DATA.index((ones, dust)))
    strict, default = (
        np.abs(call(parse("ic64oc14ih5"), arrays, algorithm=algorithm, precision=precision) - want).max()
        for precision in ("strict", "default")
    )
    assert strict <= bound.max() < default


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", ["ic24oc14ih13iw17kh3ph1", "ic300oc7ih12", "g3ic9oc6ih40kh5"])
def test_bound_over_threads_and_tiles(text, backend):
    """Results wide enough for whole register tiles, panels and several threads."""
    case, rng = parse(text), np.random.default_rng(11)
    x = rng.standard_normal(case.input_shape).astype(np.float32)
    w = rng.standard_normal(case.weight_shape).astype(np.float32)
    values, weights, shape = factors(case, x.astype(float), w.astype(float), None)
    want, magnitude = (values * weights).sum(-1), np.abs(values * weights).sum(-1)  # float64 is exact enough
    for algorithm in ("flatten", "im2col", *(DIRECT if backend == "numba" else ())):
        got = call(case, (x, w, None), backend=backend, algorithm=algorithm, precision="strict")
        bound = accuracy_bound(case.products, magnitude, want, got.dtype)
        assert_within(got, want.reshape(shape), bound.reshape(shape), f"{text} {algorithm} seed 11")


def test_exact_sums_are_exact():
    """1e16 + 1 - 1e16 is 1, and (1 + e)(1 - e) - 1 is -e²."""
    assert exact_sums(np.array([1e16, 1.0, 1e16]), np.array([1.0, 1.0, -1.0])) == 1
    e = 2.0**-30
    assert exact_sums(np.array([1 + e, 1.0]), np.array([1 - e, -1.0])) == -(e**2)


def sums(x, w, stride, wide, dilation=1):
    size = [(n - 1) * dilation + 1 for n in w.shape[2:]]
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(wide), size, (2, 3))
    windows = windows[:, :, ::stride, ::stride, ::dilation, ::dilation]
    return np.einsum("nchwij,kcij->nkhw", windows, w.astype(wide), optimize=wide is np.float64)


def exactly(x, w, stride=1, dilation=1):
    """Sums of products, by windows: those of float64 in extended precision, others in float64."""
    return sums(x, w, stride, np.longdouble if x.dtype == np.float64 else np.float64, dilation)


def largest_size(x, w, stride=1, dilation=1):
    """The largest Σ|x||w|, for bounds: float64 is near enough."""
    return float(sums(np.abs(x), np.abs(w), stride, np.float64, dilation).max())


FILTERINGS = [
    *[("winograd4", 3, 1), ("winograd2", 3, 1), ("winograd2", 5, 1), ("winograd4", 2, 1)],
    *[("winograd4", 3, 2), ("winograd2", 3, 2), ("winograd4", 4, 2), ("winograd2", 5, 2)],
    *[("winograd4", 4, 1), ("winograd4", 5, 2), ("winograd4", 7, 2), ("winograd2x4", 3, 1)],
]
SELDOM = FILTERINGS[3:11]
"""Those that run in float16 and float64 with ``--long`` only: the matrices are those of float32, in which float16 is
summed, and each takes 6 s to compile in float64."""


@pytest.fixture(params=["whole tiles", "short tiles"])
def _tiles(request, monkeypatch):
    """Last tiles that are transformed as others are, or as few results as they have."""
    limits = {"ENOUGH": 1, "SAVED": 0.0} if request.param == "short tiles" else {"ENOUGH": 2**30}
    for name, value in limits.items():
        monkeypatch.setattr(filtering, name, value)
    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize(
    ("algorithm", "taps", "stride", "dtype"),
    [
        pytest.param(*one, dtype, marks=pytest.mark.long if dtype != "float32" and one in SELDOM else ())
        for dtype in ("float16", "float32", "float64")
        for one in FILTERINGS
    ],
)
@pytest.mark.parametrize("channels", [40, 128, 129, 512])
@pytest.mark.parametrize("make", [constants, thirds, positive, normal, alternating, dust, spikes])
def test_bound_of_transforms(algorithm, taps, stride, channels, make, dtype):
    """Winograd's largest error is within that of the default precision, also where all roundings go one way."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed_of(f"{algorithm} {taps} {channels} {make.__name__} {dtype}"))
    x = make(rng, (1, channels, 9, 11), dtype).astype(dtype)
    for other in (constants, positive, normal, spikes):
        if make is dust and other is spikes:
            continue  # the one large number meets zeros only, and is rounded with those that do not
        w = other(rng, (5, channels, taps, taps), dtype).astype(dtype)
        got = npconv.conv2d(x, w, algorithm=algorithm, backend="numba", stride=stride)
        want, largest = exactly(x, w, stride), largest_size(x, w, stride)
        bound = max(64, 8 + math.sqrt(channels * taps * taps)) * np.finfo(summed_in(dtype)).eps * largest
        step = np.finfo(dtype).smallest_subnormal
        rounding = np.abs(want) * np.finfo(dtype).eps + step if dtype != summed_in(dtype) else 0
        assert_within(got, want, np.broadcast_to(bound + rounding, want.shape), f"{algorithm} {make.__name__}")


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("period", [(1, 1), (1, -1), (1, 1, -1, -1), (1, 1, -1)])
def test_bound_of_one_live_tap(dtype, period):
    """Pixels of a tile count as if each met each tap: signs in squares are made to lose more than the pixel that does.

    In float32 this data meets more than twice the bound of the pixels that the one tap meets.
    """
    rows, columns = np.resize(np.array(period, float), 9), np.resize(np.array(period, float), 11)
    x = np.broadcast_to(np.outer(rows, columns) * 0.56, (1, 129, 9, 11)).astype(dtype)
    for tap in range(9):
        w = np.zeros((1, 129, 3, 3), dtype)
        w.reshape(129, 9)[:, tap] = 0.9
        wide = np.promote_types(dtype, np.float64)
        want = npconv.conv2d(x.astype(wide), w.astype(wide), backend="numpy")
        bound = 64 * eps(np.dtype(dtype)) * 36 * 129 * 0.56 * 0.9
        got = npconv.conv2d(x, w, algorithm="winograd4")
        assert_within(got, want, np.full(want.shape, bound), f"{period} {tap}")


@pytest.mark.parametrize("taps", [5, 7, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bound_where_residues_are_folded(taps, dtype):
    """The same for the few channels of first layers, many images of which are nearly empty."""
    rng = np.random.default_rng(taps)
    for make in (constants, positive, normal, spikes):
        for other in (constants, normal, spikes):
            x, w = make(rng, (60, 3, 21, 19), None).astype(dtype), other(rng, (16, 3, taps, taps), None).astype(dtype)
            got = npconv.conv2d(x, w, algorithm="winograd4", stride=2)
            want, bound = exactly(x, w, 2), 64 * np.finfo(dtype).eps * largest_size(x, w, 2)
            assert_within(got, want, np.broadcast_to(bound, want.shape), f"{make.__name__} and {other.__name__}")


@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [*((kernel, "float32") for kernel in ((6, 6), (7, 1), (1, 9), (12, 12))), ((7, 7), "float32"), ((7, 7), "float64")],
)
def test_bound_where_blocks_of_taps_are_folded(kernel, dtype):
    """The same for long kernels at stride 1."""
    rng = np.random.default_rng(sum(kernel))
    for channels in (32, 150):
        for make in (constants, positive, normal, alternating, spikes):
            for other in (constants, normal, spikes):
                x = make(rng, (1, channels, 19, 17), dtype).astype(dtype)
                w = other(rng, (5, channels, *kernel), dtype).astype(dtype)
                got = npconv.conv2d(x, w, algorithm="winograd4")
                want, bound = exactly(x, w), 64 * np.finfo(dtype).eps * largest_size(x, w)
                assert_within(got, want, np.broadcast_to(bound, want.shape), f"{make.__name__} and {other.__name__}")


def offset(rng, shape, dtype):
    """Small differences of large numbers."""
    return 100 + rng.standard_normal(shape)


def channels_apart(rng, shape, dtype):
    """Channels of sizes that differ by many decades, at random."""
    sizes = np.exp(2 * rng.standard_normal((1, shape[1], *(1 for _ in shape[2:]))))
    return rng.standard_normal(shape) * sizes


def a_spike(rng, shape, dtype):
    """One number larger than all others together."""
    values = rng.standard_normal(shape)
    values.flat[rng.integers(values.size)] = 1e4
    return values


def sparse(rng, shape, dtype):
    """Few numbers, and channels that have none."""
    return rng.standard_normal(shape) * (rng.uniform(size=shape) < 0.02)


KINDS = [constants, thirds, a_constant, positive, normal, alternating, dust, offset, channels_apart, a_spike, sparse]


@pytest.mark.parametrize("channels", [64, 130, 1024])
@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bound_of_quarters(channels, make, dtype):
    """Strassen's largest error is within the bound of the default precision, whatever the sizes of channels.

    Within half of it, where not each single addition is made to lose what it can.
    """
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed_of(f"strassen {channels} {make.__name__} {dtype}"))
    x = make(rng, (1, channels, 5, 9), dtype).astype(dtype)
    for other in KINDS:
        w = other(rng, (70, channels, 1, 1), dtype).astype(dtype)
        got = npconv.conv2d(x, w, algorithm="strassen", backend="numba")
        assert_close(got, x, w, f"{make.__name__} {other.__name__}", 1 if dust in (make, other) else 0.5)


def assert_close(got, x, w, about, part):
    """Check a 1 × 1 convolution against a part of the bound of the default precision."""
    matrices = (w[:, :, 0, 0].astype(np.longdouble), x[0].reshape(x.shape[1], -1).astype(np.longdouble))
    want, largest = np.dot(*matrices), float(np.dot(*map(np.abs, matrices)).max())
    bound = part * max(64, 8 + math.sqrt(x.shape[1])) * np.finfo(x.dtype).eps * largest
    assert_within(got[0].reshape(want.shape), want, np.broadcast_to(bound, want.shape), about)


@pytest.mark.parametrize("channels", [64, 256, 512])
def test_strassen_where_channels_are_dead(channels):
    """Errors of sums that belong to no result are left in results that are single numbers: within the bound still."""
    half = channels // 2
    for seed, kind in enumerate((positive, normal, thirds)):
        rng = np.random.default_rng(seed)
        x, w = rng.uniform(0, 1, (1, channels, 7, 7)).astype("f4"), np.zeros((channels, channels, 1, 1), "f4")
        x[:, half:] = 0
        w[np.arange(half), np.arange(half)] = 1
        w[half:, half:] = kind(rng, (half, half, 1, 1), None)
        assert_close(npconv.conv2d(x, w, algorithm="strassen"), x, w, kind.__name__, 1)
    x, w = np.ones((1, 1026, 5, 5), "f4"), np.ones((64, 1026, 1, 1), "f4")
    with pytest.raises(ValueError, match="errors grow with the channels"):
        npconv.conv2d(x, w, algorithm="strassen")


def test_strassen_balances_channels():
    """Channels whose large numbers never meet are mixed, but not before they are scaled to weights alike."""
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal((1, 64, 3, 8)).astype("f4"), rng.standard_normal((64, 64, 1, 1)).astype("f4")
    x[:, 5] *= 1e6
    w[:, 5 + 32] *= 1e6
    assert_close(npconv.conv2d(x, w, algorithm="strassen"), x, w, "balanced", 0.5)
    x[:, 7], w[:, 7] = 1e6, 0  # meets no weight at all
    assert_close(npconv.conv2d(x, w, algorithm="strassen"), x, w, "no weight", 0.5)
    x, w = (1e-3 * rng.standard_normal(array.shape).astype("f4") for array in (x, w))
    x[:, 9] = 1e38 * rng.uniform(1, 2, x[:, 9].shape)
    w[:, 9] = 1e-40 * rng.standard_normal(w[:, 9].shape)  # no number scales the smallest ones to 1 at once
    assert_close(npconv.conv2d(x, w, algorithm="strassen"), x, w, "smallest", 0.5)


@pytest.mark.parametrize("algorithm", ["winograd4", "winograd2x4", "winograd2"])
@pytest.mark.parametrize("make", [constants, thirds])
def test_bound_of_transforms_of_volumes(algorithm, make):
    """Where filters are packed within the tasks, those of many planes are no longer chains than others."""
    x, w = make(None, (1, 32, 129, 5, 7), None).astype("f4"), constants(None, (5, 32, 129, 3, 3), None).astype("f4")
    want = float(x.flat[0]) * float(w.flat[0]) * w[0].size
    bound = (8 + math.sqrt(w[0].size)) * np.finfo("f4").eps * want
    with packing_within():
        got = npconv.conv3d(x, w, algorithm=algorithm)
    assert np.abs(got - want).max() <= bound


@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (5, 1), (2, 1), (4, 1), (3, 2), (4, 2)])
@pytest.mark.parametrize("make", [constants, thirds, positive, normal, alternating, dust])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bound_of_transformed_gradients(taps, stride, make, dtype):
    """The same holds for weight gradients, whose sums go over whole images."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed_of(f"gradient {taps} {make.__name__} {dtype}"))
    height, width = ((n - 1) * stride + taps for n in (44 - taps, 38 - taps)) if stride == 2 else (43, 37)
    x = make(rng, (2, 32, height, width), dtype).astype(dtype)
    for other in (constants, positive, normal):
        slope = other(rng, (2, 32, 44 - taps, 38 - taps), dtype).astype(dtype)
        got = npconv.grad.conv2d_weight(x, (32, 32, taps, taps), slope, stride=stride, algorithm="pieces")
        swapped = x.swapaxes(0, 1), slope.swapaxes(0, 1)
        want, largest = exactly(*swapped, dilation=stride), largest_size(*swapped, dilation=stride)
        bound = max(64, 8 + math.sqrt(2 * slope[0, 0].size)) * np.finfo(summed_in(dtype)).eps * largest
        rounding = np.abs(want) * np.finfo(dtype).eps if dtype != summed_in(dtype) else 0
        bound = np.broadcast_to(bound + rounding, want.shape)
        assert_within(got.swapaxes(0, 1), want, bound, f"{make.__name__} and {other.__name__}")

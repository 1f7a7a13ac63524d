"""Each engine gives exactly torch's result, for every problem of the corpus and every dtype.

The data are small integers, so that sums are exact and equality is ``==``.
"""

import importlib

import numpy as np
import pytest
import torch
from checks import (
    BACKENDS,
    DTYPES,
    ENGINES,
    TEXTBOOK,
    assert_same,
    call,
    cast,
    exact,
    exact_problem,
    frozen,
    named,
    seed_of,
    small_integers,
    torch_conv,
)  # fmt: skip
from corpus import CORPUS, SMALL, parse, replace

import npconv


@pytest.mark.parametrize("text", CORPUS)
def test_corpus(text):
    for dtype in DTYPES:
        case, (arrays, want) = parse(text), exact(text, dtype)
        before = [None if array is None else array.tobytes() for array in arrays]
        for backend, algorithm in ENGINES:
            about = f"{text} {dtype} seed {seed_of(text)}, {algorithm} on {backend}"
            assert_same(call(case, arrays, backend=backend, algorithm=algorithm), want, about)
            after = [None if array is None else array.tobytes() for array in arrays]
            assert after == before, f"{about}: an argument was changed"


@pytest.mark.parametrize("text", SMALL)
def test_results_are_not_mostly_zeros(text):
    _, want = exact_problem(text, False)
    assert np.count_nonzero(want) > want.size / 3, text


@pytest.mark.parametrize("algorithm", TEXTBOOK)
@pytest.mark.parametrize("dtype", ["float32", "complex64", "int16"])
def test_corpus_over_threads(monkeypatch, algorithm, dtype):
    """The corpus is too small for more than one thread: here every problem gets them."""
    monkeypatch.setattr(importlib.import_module("npconv.kernels.numba.jit"), "SMALL_WORK", 0)
    for text in CORPUS:
        arrays, want = exact(text, dtype)
        got = call(parse(text), arrays, backend="numba", algorithm=algorithm)
        assert_same(got, want, f"{text} {dtype} seed {seed_of(text)}")


MEDIUM = (
    "mb2g2ic24oc14ih13iw17kh3sh2sw1ph1+bias",
    "ic19oc29ih9iw11kh3ph1+last",
    "ic40oc7iw300kw5dw2pw3",
    "mb3ic37oc13ih6iw7",
    "g32ic32oc32ih15kh5ph2+bias",
    "mb2ic8oc9id6ih7iw5kd3ph1+reflect",
    "mb70ic9oc8ih4kh3",
    "ih90iw70kh15+same+image",
)


@pytest.mark.parametrize("text", MEDIUM)
@pytest.mark.parametrize(("backend", "algorithm"), [engine for engine in ENGINES if engine != ("numpy", "loop")])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "int16"])
def test_medium_sizes(text, backend, algorithm, dtype):
    """Beyond one tile, one panel, one chain of additions and one thread."""
    arrays, want = exact(text, dtype)
    got = call(parse(text), arrays, backend=backend, algorithm=algorithm)
    assert_same(got, want, f"{text} {dtype} seed {seed_of(text)}")


@pytest.mark.parametrize("text", [*CORPUS, *MEDIUM])
def test_auto(text):
    arrays, want = exact(text, "float32")
    assert_same(call(parse(text), arrays), want, text)


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_modes_are_those_of_torchs_layer(backend):
    for mode in ("zeros", "reflect", "replicate", "circular"):
        case = replace(parse("mb2ic2oc3ih5iw6kh3kw2sh2ph2pw1+bias"), mode=mode)
        x, w, b = small_integers(case, 1)
        layer = torch.nn.Conv2d(2, 3, (3, 2), case.stride, (2, 1), padding_mode=mode, dtype=torch.float64)
        layer.weight.data, layer.bias.data = torch.from_numpy(w), torch.from_numpy(b)
        want = layer(torch.from_numpy(x)).detach().numpy()
        assert_same(call(case, (x, w, b), padding=(2, 1), backend=backend), want, mode)


PADDINGS = [
    ("ih7iw6kh3kw2", 2, "ih7iw6kh3kw2ph2"),
    ("ih7iw6kh3kw2", (2,), "ih7iw6kh3kw2ph2"),
    ("ih7iw6kh3kw2", (2, 1), "ih7iw6kh3kw2ph2pw1"),
    ("ih7iw6kh3kw2", [2, 1], "ih7iw6kh3kw2ph2pw1"),
    ("ih7iw6kh3kw2", np.array([2, 1]), "ih7iw6kh3kw2ph2pw1"),
    ("ih7iw6kh3kw2", np.int8(2), "ih7iw6kh3kw2ph2"),
    ("ih7iw6kh3kw2", np.array(2), "ih7iw6kh3kw2ph2"),
    ("ih7iw6kh3kw2", ((1, 2), (3, 0)), "ih7iw6kh3kw2ph1:2pw3:0"),
    ("ih7iw6kh3kw2", [[1, 2], [3, 0]], "ih7iw6kh3kw2ph1:2pw3:0"),
    ("ih7iw6kh3kw2", np.array([[1, 2], [3, 0]]), "ih7iw6kh3kw2ph1:2pw3:0"),
    ("ih7iw6kh3kw2", ((1, 2),), "ih7iw6kh3kw2ph1:2"),
    ("ih7iw6kh3kw2", (1, (3, 0)), "ih7iw6kh3kw2ph1pw3:0"),
    ("ih7iw6kh3kw2", "valid", "ih7iw6kh3kw2"),
    ("ih7iw6kh3kw2", "same", "ih7iw6kh3kw2ph1pw0:1"),
    ("ih7iw6kh3kw2", "same_upper", "ih7iw6kh3kw2ph1pw0:1"),
    ("ih7iw6kh3kw2", "same_lower", "ih7iw6kh3kw2ph1pw1:0"),
    ("ih7iw6kh3kw2sh3sw5", "same_upper", "ih7iw6kh3kw2sh3sw5ph1pw0:1"),
    ("ih7iw6kh4kw2sh3sw5", "same_lower", "ih7iw6kh4kw2sh3sw5ph2:1pw1:0"),
    ("iw7kw3", ((1, 2),), "iw7kw3pw1:2"),
    ("iw7kw3", 1, "iw7kw3pw1"),
    ("iw7kw3", (1,), "iw7kw3pw1"),
    ("id4kd3", 1, "id4kd3pd1"),
    ("id4kd3", ((1, 0), (0, 1), (2, 2)), "id4kd3pd1:0ph0:1pw2"),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("text", "padding", "same_as"), PADDINGS, ids=lambda value: repr(value).replace("\n", ""))
def test_forms_of_padding(text, padding, same_as, backend):
    case = parse(text)
    arrays = small_integers(case, seed_of(text))
    got = call(case, arrays, padding=padding, backend=backend)
    assert_same(got, torch_conv(parse(same_as), *arrays), f"{text} padding {padding!r}")


@pytest.mark.parametrize("value", [2, (2,), [2], (2, 2), np.array([2, 2]), np.uint8(2), (np.int64(2), 2), range(2, 3)])
def test_forms_of_stride_and_dilation(value):
    case = parse("ic2oc3ih9iw10kh3sh2dh2")
    arrays = small_integers(case, 3)
    got = npconv.conv2d(*arrays[:2], stride=value, dilation=value, groups=np.int16(1))
    assert_same(got, torch_conv(case, *arrays), repr(value))


def test_arguments_by_position_are_torchs():
    case = parse("mb2g2ic4oc6ih7iw8kh3sh2ph1dh2+bias")
    arrays = small_integers(case, 4)
    assert_same(npconv.conv2d(*arrays, 2, 1, 2, 2), torch_conv(case, *arrays), case)


def test_lists():
    got = npconv.conv1d([[[1, 2, 3]]], [[[1, 10]]], [100])
    assert_same(got, np.array([[[121, 132]]]), "integers")
    assert_same(npconv.conv1d([[1.0, 2.0, 3.0]], [[[1, 10]]]), np.array([[21.0, 32.0]]), "mixed")
    assert_same(npconv.conv2d([[1, 2], [3, 4]], ((1, 0), (0, 1))), np.array([[5]]), "an image")


MIXED = [
    ("int8", "int8", None, "int8"),
    ("int8", "uint8", None, "int16"),
    ("uint8", "int16", "int8", "int16"),
    ("int8", "float32", None, "float32"),
    ("int32", "float32", None, "float64"),
    ("float16", "float32", None, "float32"),
    ("float16", "float16", "float32", "float32"),
    ("float32", "float64", "float32", "float64"),
    ("float32", "float32", "float64", "float64"),
    ("uint8", "float16", None, "float16"),
    ("int64", "uint64", None, "float64"),
    ("float64", "complex64", None, "complex128"),
    ("float32", "complex64", None, "complex64"),
    ("float32", "float32", "complex64", "complex64"),
    ("bfloat16", "float32", None, "float32"),
    ("float32", "float32", "bfloat16", "float32"),
    ("bfloat16", "bfloat16", "float64", "float64"),
    ("int16", "int16", "int64", "int64"),
    ("int8", "int8", "float16", "float16"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("x", "weight", "bias", "result"), MIXED)
def test_mixed_dtypes_promote_as_numpys(x, weight, bias, result, backend):
    case = parse("mb2ic3oc4ih5iw6kh3ph1" + ("+bias" if bias else ""))
    arrays, want = exact_problem(str(case), False)
    dtypes = (x, weight, bias or x)
    positive = [None if array is None else np.abs(array) for array in arrays]  # which every dtype holds
    mixed = tuple(
        None if array is None else cast(array, named(dtype)) for array, dtype in zip(positive, dtypes, strict=True)
    )
    want = torch_conv(case, *positive)
    got = call(case, mixed, backend=backend)
    assert got.dtype.name == result
    assert_same(got, cast(want, named(result)), f"{case} {dtypes}")


def test_promotion_comes_before_arithmetic():
    x, w = np.full((1, 1, 2), 100, np.int8), np.full((1, 1, 2), 200, np.uint8)
    assert npconv.conv1d(x, w).item() == 40000 - 2**16
    assert npconv.conv1d(x, np.full((1, 1, 2), 100, np.int16)).item() == 20000
    assert npconv.conv1d(x, x, np.array([7], np.int32)).item() == 20007


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_integers_wrap_at_their_extremes(backend, algorithm, dtype):
    info = np.iinfo(dtype)
    x = np.array([[[info.max, info.min, info.max, 1]]], dtype)
    w = np.array([[[info.max, info.min]], [[info.max, info.max]]], dtype)
    b = np.array([info.min, info.max], dtype)
    bits = 8 * info.dtype.itemsize
    want = [
        [sum(int(x[0, 0, i + t]) * int(w[k, 0, t]) for t in range(2)) + int(b[k]) for i in range(3)] for k in range(2)
    ]
    got = npconv.conv1d(x, w, b, backend=backend, algorithm=algorithm)
    assert [[int(value) % 2**bits for value in row] for row in got[0]] == [[v % 2**bits for v in row] for row in want]
    assert got.dtype == dtype


NOT_FINITE = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    "text", ["ic2oc3ih5iw6kh3ph1", "mb2g2ic4oc2ih9iw8kh3sh2sw1dw2+last+bias", "ic20oc20ih8iw9kh3ph2+replicate"]
)
def test_nan_and_infinity_go_through(text, dtype, backend, algorithm):
    """They reach the results that they belong to and no others; infinities meet as IEEE has it."""
    case = parse(text)
    rng = np.random.default_rng(seed_of(text))
    for value in [*NOT_FINITE, "mixed"]:
        x, w, b = small_integers(case, seed_of(text))
        places = rng.choice(x.size, 3, replace=False)
        x.flat[places] = NOT_FINITE if value == "mixed" else value
        with np.errstate(invalid="ignore"):
            want = cast(torch_conv(case, x, w, b), named(dtype))
        got = call(case, tuple(cast(a, named(dtype)) for a in (x, w, b)), backend=backend, algorithm=algorithm)
        assert not np.isfinite(want.astype(float)).all()
        assert np.isfinite(want.astype(float)).any()
        assert_same(got, want, f"{text} {dtype} {value} seed {seed_of(text)}")


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("value", NOT_FINITE)
def test_infinite_weight_spoils_zero_padding(value, backend, algorithm):
    """The padding holds zeros, and 0 · ∞ is NaN, as for torch's conv of a padded input."""
    case = parse("ic2oc3ih5iw6kh3ph1")
    x, w, b = small_integers(case, 1)
    w[1, 0, 0, 2] = value
    got = call(case, (x, w, b), backend=backend, algorithm=algorithm)
    assert np.isnan(got[0, 1, 0]).all()
    assert np.isfinite(got[0, [0, 2]]).all()
    assert_same(got, torch_conv(case, x, w, b), f"{case} {value}")


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_nan_stays_where_it_belongs(dtype, backend, algorithm):
    case = parse("mb2ic2oc3ih5iw6kh3ph1")
    x, w, b = (cast(a, np.dtype(dtype)) for a in small_integers(case, 1, complex_=True))
    clean = call(case, (x, w, b), backend=backend, algorithm=algorithm)
    x[1, 0, 2, 3] = complex(np.nan, 1)
    got = call(case, (x, w, b), backend=backend, algorithm=algorithm)
    assert np.isnan(got[1, :, 1:4, 2:5]).all()
    got[1, :, 1:4, 2:5] = clean[1, :, 1:4, 2:5]
    assert_same(got, clean, case)


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_overflow_gives_infinity_and_no_warning(dtype, backend, algorithm):
    big = float(np.finfo(dtype).max)
    x = np.array([[[big, big, 1, -big]]], dtype)
    got = npconv.conv1d(x, np.full((1, 1, 2), 1, dtype), backend=backend, algorithm=algorithm)
    assert_same(got, np.array([[[np.inf, big, -big]]], dtype), "overflow")


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("other", ["float32", "float64", "complex128"])
def test_signalling_nan_gives_nan_and_no_warning(other, backend, algorithm):
    """NumPy's casts warn of them."""
    x = np.array([[[0x3F800000, 0x7F800001, 0x3F800000]]], np.uint32).view(np.float32)
    got = npconv.conv1d(x, np.ones((1, 1, 1), other), padding=1, backend=backend, algorithm=algorithm)
    assert np.isnan(got).tolist() == [[[False, False, True, False, False]]]


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("stride", [7, 2**31, 2**62, 2**63 - 1])
def test_strides_beyond_the_input(stride, backend, algorithm):
    got = npconv.conv2d(
        np.ones((1, 1, 5, 6)), np.ones((1, 1, 2, 2)), stride=stride, backend=backend, algorithm=algorithm
    )
    assert_same(got, np.full((1, 1, 1, 1), 4.0), stride)


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
def test_float16_is_summed_in_float32(backend, algorithm):
    """2048 + 1 - 2048 is 0 in float16; a sum beyond 65504 that comes back is no infinity."""
    x = np.array([[[2048, 1, -2048, 60000, 60000, -60000]]], np.float16)
    got = npconv.conv1d(x, np.ones((1, 1, 3), np.float16), stride=3, backend=backend, algorithm=algorithm)
    assert_same(got, np.array([[[1, 60000]]], np.float16), "float16")


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
def test_bfloat16_is_summed_in_float32(backend, algorithm):
    """256 + 1 - 256 is 0 in bfloat16."""
    x = np.array([[[256, 1, -256]]]).astype(named("bfloat16"))
    got = npconv.conv1d(x, np.ones((1, 1, 3)).astype(named("bfloat16")), backend=backend, algorithm=algorithm)
    assert_same(got, np.array([[[1]]]).astype(named("bfloat16")), "bfloat16")


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("text", ["mb2ic24oc14ih13iw17kh3ph1+bias", "ic3oc4ih7iw6kh3"])
def test_the_same_call_gives_the_same_bits(text, dtype, backend, algorithm):
    if (backend, algorithm) == ("numpy", "loop"):
        text = "ic3oc4ih7iw6kh3"
    case, rng = parse(text), np.random.default_rng(7)
    shapes = (case.input_shape, case.weight_shape, (case.filters,))
    arrays = tuple(frozen(rng.standard_normal(shape).astype(dtype)) for shape in shapes)
    first = call(case, arrays, backend=backend, algorithm=algorithm)
    for _ in range(5):
        again = call(case, tuple(array.copy() for array in arrays), backend=backend, algorithm=algorithm)
        assert again.tobytes() == first.tobytes(), f"{text} {dtype} seed 7"


@pytest.mark.parametrize(
    ("shape", "algorithm"),
    [
        (shape, algorithm)
        for shape in ((20, 7, 3, 3), (65, 40, 3, 3), (33, 48, 1, 1), (20, 3, 4, 4))
        for algorithm in ("direct", "planes", "auto", *["winograd4"] * (shape[-1] == 3))
    ],
)
def test_one_weight_after_another_whose_strides_differ(shape, algorithm):
    """What is known of a packing is kept for the strides of the weight it was found for, and for the threads."""
    rng, step = np.random.default_rng(len(algorithm)), shape[-1] if shape[-1] == 4 else 1
    x = rng.integers(-4, 5, (1, shape[1], 12, 13)).astype("f4")
    views = {
        "plain": lambda w: w,
        "filters last": lambda w: np.ascontiguousarray(w.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2),
        "turned": lambda w: np.ascontiguousarray(w[..., ::-1, ::-1])[..., ::-1, ::-1],
        "apart": lambda w: np.repeat(w, 2, axis=1)[:, ::2],
        "unaligned": lambda w: np.frombuffer(b"." + w.tobytes(), np.uint8)[1:].view("f4").reshape(w.shape),
    }
    for threads in (1, npconv.get_num_threads()):
        for view in (*views.values(), *views.values()):
            weight = rng.integers(-4, 5, shape).astype("f4")
            with npconv.threads(threads):
                got = npconv.conv2d(x, view(weight), stride=step, algorithm=algorithm)
            want = npconv.conv2d(x, weight, stride=step, backend="numpy", algorithm="im2col")
            np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())

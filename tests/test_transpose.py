"""Transposed convolutions give exactly torch's results, in every form of their arguments and every dtype."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from checks import BACKENDS, DTYPES, ENGINES, assert_same, cast, named, poison
from transposed import PROBLEMS, SPECIAL, Problem, arrays_of, call, exact, exact_problem, scatter, torch_answer

import npconv
from npconv import adjoint, merging, patches, recall, transposing
from npconv.arguments import conv_problem
from npconv.choice import Choice
from npconv.kernels import packed
from npconv.kernels.numba import planes, strassen_plan, strassen_planes
from npconv.kernels.numba.blocking import engine_limit
from npconv.plan import choose

SOME = [name for number, name in enumerate(PROBLEMS) if name in SPECIAL or number % 4 == 0]


@pytest.mark.parametrize("name", [name for name, problem in PROBLEMS.items() if np.prod(problem.whole) < 700])
def test_two_oracles_agree(name):
    for complex_ in (False, True):
        arrays = arrays_of(PROBLEMS[name], complex_)
        assert_same(scatter(PROBLEMS[name], *arrays), torch_answer(PROBLEMS[name], *arrays), PROBLEMS[name])


def test_problems_cover_what_is_hard():
    """Padding that torch has no word for, tapless phases, common factors, output padding of the stride or more."""
    axes = [
        axis
        for problem in PROBLEMS.values()
        for axis in zip(
            problem.kernel, problem.stride, problem.dilation, problem.output_padding, problem.padding, strict=True
        )
    ]
    assert sum(before != after for *_, (before, after) in axes) > 30
    assert sum(stride > kernel for kernel, stride, *_ in axes) > 30
    assert sum(np.gcd(s, d) > 1 and s != d and k > 1 for k, s, d, *_ in axes) > 10
    assert sum(more >= s for _, s, _, more, _ in axes) > 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_all_dtypes(name, dtype):
    problem, (arrays, want) = PROBLEMS[name], exact(PROBLEMS[name], dtype)
    before = [None if array is None else array.tobytes() for array in arrays]
    assert_same(call(problem, arrays, backend="numpy"), want, f"{problem} {dtype}")
    assert [None if array is None else array.tobytes() for array in arrays] == before, "an argument was changed"


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("dtype", ["float32", "complex128", "int16", "float16"])
def test_every_engine(dtype, backend, algorithm):
    for name in SOME:
        arrays, want = exact(PROBLEMS[name], dtype)
        got = call(PROBLEMS[name], arrays, backend=backend, algorithm=algorithm)
        assert_same(got, want, f"{PROBLEMS[name]} {dtype}")


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name.startswith("depthwise")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_depthwise_in_one_pass(name, dtype, monkeypatch):
    done, merged = [], adjoint.merged

    def noted(one, *arguments):
        done.append((one.merged.algorithm, merged(one, *arguments)))
        return done[-1][1]

    monkeypatch.setattr(adjoint, "merged", noted)
    problem, (arrays, want) = PROBLEMS[name], exact(PROBLEMS[name], dtype)
    activations = (None, "relu", "hardswish") if dtype == "float32" else (None,)
    for activation in activations:
        got = call(problem, arrays, algorithm="depthwise", activation=activation)
        one = npconv.conv1d(want.reshape(1, 1, -1), np.ones((1, 1, 1), dtype), activation=activation, backend="numpy")
        assert_same(got, one.reshape(want.shape), f"{problem} {dtype} {activation}")
    assert done == [("depthwise", True)] * len(activations)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name.startswith("depthwise")])
def test_depthwise_in_one_pass_with_nan_and_infinity(name):
    """Where a weight is infinite, the zeros around the image make NaN, as in the phases one by one."""
    problem, (arrays, _) = PROBLEMS[name], exact(PROBLEMS[name], "float32")
    for where, value in itertools.product(range(2), (np.nan, np.inf)):
        special = [None if array is None else array.copy() for array in arrays]
        special[where].reshape(-1)[:: special[where].size // 3 + 1] = value
        with np.errstate(all="ignore"):
            want = call(problem, special, backend="numpy", algorithm="im2col")
        assert_same(call(problem, special, algorithm="depthwise"), want, f"{problem} {value} in argument {where}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "complex64"])
def test_out_of_any_strides(dtype, backend):
    for name in SOME:
        arrays, want = exact(PROBLEMS[name], dtype)
        flip = (slice(None, None, -1),) * want.ndim
        larger = poison(np.empty([2 * n + 1 for n in want.shape], named(dtype)))
        kept = larger.copy()
        spread = larger[(slice(1, None, 2),) * want.ndim]
        kept[(slice(1, None, 2),) * want.ndim] = want
        outs = [np.empty(want.shape, named(dtype)), np.empty(want.shape, named(dtype), order="F"), spread]
        for out in (*outs, np.empty(want.shape, named(dtype))[flip]):
            got = call(PROBLEMS[name], arrays, backend=backend, out=poison(out))
            assert got is out
            assert_same(got, want, f"{PROBLEMS[name]} strides {out.strides}")
        assert_same(larger, kept, "what lies between the elements of out")


def test_views_and_byte_order():
    problem = PROBLEMS["pairs"]
    arrays, want = exact(problem, "float64")
    flip = (slice(None, None, -1),) * 4
    made = [arrays[0][flip].copy()[flip], np.asfortranarray(arrays[1]), arrays[2].astype(">f8")]
    for some in itertools.product(*zip(arrays, made, strict=True)):
        assert_same(call(problem, some, backend="numpy"), want, problem)
    same = np.broadcast_to(np.float64(2), problem.seen(np.empty((2, 2, 4, 5))).shape)
    assert_same(call(problem, (same, *arrays[1:])), call(problem, (same.copy(), *arrays[1:])), "zero strides")


def test_torchs_order_of_arguments():
    x, w, b = (torch.from_numpy(a) for a in arrays_of(Problem((4, 5), (3, 2), *[(1, 1)] * 4, 2, 2, 2, 2, bias=True), 0))
    for rest in [(3, 1, 2, 2, 1), ((3, 2), (1, 0), (1, 0), 2, (1, 2)), (2,), (2, 1)]:
        groups = rest[3] if len(rest) > 3 else 1
        bias, weight = (b, w) if groups == 2 else (b[:2], w)
        want = torch.nn.functional.conv_transpose2d(x, weight, bias, *rest).numpy()
        assert_same(npconv.conv_transpose2d(x, weight, bias, *rest), want, rest)


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [(1, ((1, 1), (1, 1))), ([2, 1], ((2, 2), (1, 1))), ((1, (0, 2)), ((1, 1), (0, 2))), (((1, 2),), ((1, 2), (1, 2)))],
)
def test_forms_of_padding(padding, pairs):
    problem = Problem((4, 5), (3, 3), (2, 2), pairs, (1, 1), (1, 1), 2, 1, 2, 2)
    arrays, want = exact_problem(problem, False)
    assert_same(call(problem, arrays, padding=padding), want, padding)


@pytest.mark.parametrize("backend", BACKENDS)
def test_transposed_is_the_adjoint(backend):
    """⟨conv(x), y⟩ = ⟨x, conv_transpose(y)⟩, with the size that output_padding says."""
    rng = np.random.default_rng(5)
    for n, k, s, d, p in itertools.product((5, 8, 9), (1, 3), (1, 2, 4), (1, 2, 3), (0, 2)):
        if n + 2 * p < (k - 1) * d + 1:
            continue
        x, w = rng.integers(-4, 5, (2, 4, n)).astype(float), rng.integers(-4, 5, (6, 2, k)).astype(float)
        forward = npconv.conv1d(x, w, None, s, p, d, 2, backend=backend)
        y = rng.integers(-4, 5, forward.shape).astype(float)
        more = (n + 2 * p - (k - 1) * d - 1) % s
        back = npconv.conv_transpose1d(y, w, None, s, p, more, 2, d, backend=backend)
        assert back.shape == x.shape
        assert np.vdot(forward, y) == np.vdot(x, back), (n, k, s, d, p)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_and_infinity_stay_where_they_belong(backend):
    x = np.array([[[1.0, np.nan, 1.0, np.inf]]])
    got = npconv.conv_transpose1d(x, np.ones((1, 1, 1)), np.ones(1), stride=2, backend=backend)
    assert_same(got, np.array([[[2, 1, np.nan, 1, 2, 1, np.inf]]]), "stride 2")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_warning_is_nobodys_result(backend):
    """Overflow goes through silently, in elements that meet a tap and in those that meet none."""
    x, w = np.full((1, 1, 2), -1e30, "f4"), np.full((1, 1, 1), 1e30, "f4")
    got = npconv.conv_transpose1d(x, w, np.float32([-1e30]), stride=2, activation=("leaky_relu", 1e20), backend=backend)
    assert_same(got, np.full((1, 1, 3), -np.inf, "f4"), "leaky_relu")
    small = np.ones((1, 1, 2), "f2"), np.ones((1, 1, 1), "f2"), np.float16([-60000])
    got = npconv.conv_transpose1d(*small, stride=2, activation=("leaky_relu", 10), backend=backend)
    assert_same(got, np.full((1, 1, 3), -np.inf, "f2"), "float16")
    got = npconv.conv_transpose1d(x, w, np.float32([-1000]), stride=2, activation="silu", backend=backend)
    assert got[0, 0, 1] == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["stride beyond kernel", "no element meets a tap", "doubling", "channels last"])
def test_activation(name, backend):
    arrays, want = exact(PROBLEMS[name], "float32")
    got = call(PROBLEMS[name], arrays, activation=("clip", -3, 5), backend=backend)
    assert_same(got, np.clip(want, np.float32(-3), np.float32(5)), name)
    got = call(PROBLEMS[name], tuple(cast(array, np.dtype("int8")) for array in arrays), activation="relu")
    assert_same(got, np.maximum(cast(want, np.dtype("int8")), np.int8(0)), name)


def test_promotion():
    x, w = np.ones((1, 1, 2), "i2"), np.ones((1, 1, 2), "f4")
    assert npconv.conv_transpose1d(x, w).dtype == np.float32
    assert npconv.conv_transpose1d(x, w, np.ones(1, "c8")).dtype == np.complex64
    assert npconv.conv_transpose1d(x.astype("u1"), w.astype("i1")).dtype == np.int16


@pytest.mark.parametrize("name", [name for name, problem in PROBLEMS.items() if problem.filters and problem.channels])
def test_explain(name):
    problem = PROBLEMS[name]
    arrays, want = exact_problem(problem, False)
    found = npconv.explain(
        f"conv_transpose{problem.rank}d", arrays[0].shape, arrays[1].shape, bias=problem.bias, **problem.options
    )
    assert found.output_shape == want.shape
    assert f"result  shape {want.shape}" in str(found)


GOOD = {"input": np.ones((2, 4, 5, 6)), "weight": np.ones((4, 3, 3, 3))}
BAD = {
    "input of 2 axes": ({"input": np.ones((5, 6))}, "input.*4 axes"),
    "weight of 2 axes": ({"weight": np.ones((3, 3))}, r"weight.*\(C, K/groups"),
    "a convolution's weight": ({"weight": np.ones((3, 4, 3, 3))}, "weight.*4"),
    "groups that do not divide": ({"groups": 3}, "groups is 3"),
    "groups 0": ({"groups": 0}, "groups"),
    "bias of another length": ({"bias": np.ones(4)}, r"bias.*\(3,\)"),
    "bias of one group": ({"bias": np.ones(3), "groups": 2}, r"bias.*\(6,\)"),
    "padding by name": ({"padding": "same"}, "padding.*numbers"),
    "negative padding": ({"padding": -1}, "padding"),
    "negative output padding": ({"output_padding": -1}, "output_padding"),
    "output padding of the stride": ({"output_padding": 1}, "output_padding.*smaller"),
    "output padding on one axis": ({"output_padding": (2, 3), "stride": (3, 1), "dilation": (1, 3)}, "output_padding"),
    "three output paddings": ({"output_padding": (0, 0, 0)}, "output_padding"),
    "nothing left": ({"padding": ((4, 3), (0, 0))}, "at least one element"),
    "an empty image": ({"input": np.ones((2, 4, 0, 6))}, "at least one element"),
    "an empty kernel": ({"weight": np.ones((4, 3, 0, 3))}, "weight.*at least one element"),
    "stride 0": ({"stride": 0}, "stride"),
    "an unknown format": ({"data_format": "NCHW"}, "data_format.*channels_last"),
    "an unknown algorithm": ({"algorithm": "fft2000"}, "algorithm.*im2col"),
    "an unknown backend": ({"backend": "torch"}, "backend.*numba"),
    "an unknown precision": ({"precision": "exact"}, "precision.*strict"),
    "out of another shape": ({"out": np.ones((2, 3, 7, 7))}, r"out.*\(2, 3, 7, 8\)"),
    "out of the input": ({"weight": np.ones((4, 4, 1, 1)), "out": "input"}, "out shares"),
    "a size beyond addresses": ({"stride": 2**61}, "addressed"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_errors(name):
    changes, message = BAD[name]
    arguments = GOOD | changes
    if changes.get("out") is not None:
        arguments["out"] = arguments["input"] if isinstance(changes["out"], str) else changes["out"]
    with pytest.raises(ValueError, match=message):
        npconv.conv_transpose2d(**arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": 2.0}, "stride"),
        ({"output_padding": True}, "output_padding"),
        ({"groups": "2"}, "groups"),
        ({"padding": 1.5}, "padding"),
        ({"weight": np.ones((4, 3, 3, 3), bool)}, "weight has dtype bool"),
        ({"out": np.ones((2, 3, 7, 8), "f4")}, "out must have.*float64"),
        ({"out": [0.0]}, "out must be"),
        ({"activation": 3}, "activation"),
    ],
)
def test_type_errors(changes, message):
    with pytest.raises(TypeError, match=message):
        npconv.conv_transpose2d(**GOOD | changes)


def test_an_error_comes_before_out_is_filled():
    out = np.full((2, 3, 7, 8), 7.0)
    for changes in ({"bias": np.ones(2)}, {"algorithm": "fft2000"}, {"output_padding": 1}, {"precision": 1}):
        with pytest.raises((ValueError, TypeError)):
            npconv.conv_transpose2d(**GOOD | changes, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("activation", [None, "relu", ("clip", -20.0, 50.0), "hardswish"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("more", [(0, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_patches_in_pairs(activation, groups, more, data_format):
    """Even and odd rows and columns, each with one tap, by function, layer and into an array, the second time too."""
    rng = np.random.default_rng(5)
    x = rng.integers(-4, 5, (2, 6 * groups, 3, 17)).astype("f4")
    weight, bias = (
        rng.integers(-4, 5, (6 * groups, 13, 2, 2)).astype("f4"),
        rng.integers(-4, 5, 13 * groups).astype("f4"),
    )
    options = {"stride": 2, "output_padding": more, "groups": groups, "activation": activation}
    want = npconv.conv_transpose2d(x, weight, bias, **options, backend="numpy")
    if data_format == "channels_last":
        x, want = (np.ascontiguousarray(np.moveaxis(array, 1, -1)) for array in (x, want))
    options |= {"data_format": data_format, "algorithm": "planes"}
    layer, out = npconv.ConvTranspose2d(weight, bias, **options), np.empty_like(want)
    for _ in range(2):
        for got in (npconv.conv_transpose2d(x, weight, bias, **options), layer(x), layer(x, out=out)):
            np.testing.assert_allclose(got, want, rtol=1e-6)


QUARTERS = {
    **{f"patches {down} × 2": ((1, down, 2), (0, down - 1, 1)) for down in (1, 2, 3)},
    "even pixels": ((1, 2, 2), (0, 1, 1)),
    "even pixels, odd rows": ((1, 2, 2), (0, 0, 1)),
    "even pixels, odd columns": ((1, 2, 2), (0, 1, 0)),
}


@pytest.mark.parametrize("activation", [None, "relu", "hardswish"])
@pytest.mark.parametrize("size", [(2, 17), (9, 17), (5, 64), (3, 4, 24)])
@pytest.mark.parametrize("name", QUARTERS)
def test_results_of_quarters_are_merged(name, size, activation, monkeypatch):
    """By sums of filters that threads make for themselves, and layers' beforehand, whatever the number of pixels."""
    monkeypatch.setattr(strassen_plan, "TRANSPOSED", 99)
    recall.forget()
    cut, ways = strassen_planes.plan, set()

    def plan(problem, threads, plain, merged="", *rest, **options):
        ways.add((plain, merged))
        return cut(problem, threads, plain, merged, *rest, **options)

    monkeypatch.setattr(strassen_planes, "plan", plan)
    (stride, more), rank = QUARTERS[name], len(size)
    stride, more = stride[-rank:], more[-rank:]
    rng, even = np.random.default_rng(rank), name.startswith("even")
    kernel, filters = ((1,) * rank, 66) if even else (stride, 34)
    x, weight, bias = (
        rng.integers(-4, 5, shape).astype("f4") for shape in ((2, 66, *size), (66, filters, *kernel), (filters,))
    )
    options = {"stride": stride, "activation": activation, "output_padding": more}
    transposed = getattr(npconv, f"conv_transpose{rank}d")
    want = transposed(x, weight, bias, **options, backend="numpy")
    options["algorithm"] = "strassen"
    for memory in (np.ascontiguousarray, np.asfortranarray):
        layer = getattr(npconv, f"ConvTranspose{rank}d")(memory(weight), bias, **options)
        out = np.empty_like(want)
        for threads in (1, 2):
            with npconv.threads(threads):
                for got in (
                    transposed(x, memory(weight), bias, **options),
                    layer(x),
                    layer(x, out=out),
                    layer(memory(x)),
                ):
                    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-3)
    monkeypatch.undo()
    recall.forget()
    if not even:
        assert {(False, "pairs"), (True, "pairs")} <= ways
    elif more[-1] and not activation:
        assert {(False, "beside"), (True, "beside")} <= ways


@pytest.mark.parametrize(("weight", "input"), [("f4", "f8"), ("f2", "f4"), ("i4", "f8")])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (2, 2), (3, 2), (3, 1)])
def test_layers_of_narrower_weights(weight, input, kernel, stride):
    """Their second call is like the first one."""
    x, w = np.arange(8 * 9 * 30.0).reshape(1, 8, 9, 30).astype(input), np.ones((8, 6, kernel, kernel), weight)
    layer, want = npconv.ConvTranspose2d(w, stride=stride), npconv.conv_transpose2d(x, w, stride=stride)
    for _ in range(3):
        got = layer(x)
        assert got.dtype == input
        np.testing.assert_array_equal(got, want)


PHASES = {
    # Few filters, whose phases are merged row by row; taps of several lengths, odd sizes, and rows that end with one.
    "groups of few": ((2, 8, 7, 9), (8, 3, 3, 3), {"stride": 2, "padding": 1, "groups": 4}),
    "groups of eight": ((1, 16, 9, 17), (16, 8, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    "no groups": ((2, 5, 6, 20), (5, 3, 5, 4), {"stride": (1, 2), "padding": (2, 1)}),
    "many of several taps": ((1, 20, 5, 18), (20, 17, 4, 3), {"stride": 2, "padding": 1}),
    "too many": ((1, 6, 5, 18), (6, 40, 4, 3), {"stride": 2, "padding": 1}),
    # Stride 3, dilation, taps that meet nothing, elements that meet no tap.
    "stride three": ((1, 4, 5, 6), (4, 5, 3, 4), {"stride": 3, "padding": (0, 1)}),
    "dilated": ((1, 4, 7, 8), (4, 5, 3, 3), {"stride": 2, "dilation": (3, 2), "padding": 2}),
    "longer stride": ((2, 4, 5, 6), (4, 5, 2, 1), {"stride": 3}),
    "even ones": ((1, 9, 5, 8), (9, 13, 1, 1), {"stride": 2}),
    "even ones of few": ((1, 9, 5, 8), (9, 3, 1, 1), {"stride": 2, "output_padding": 1}),
    "even ones of groups": ((1, 12, 5, 8), (12, 3, 1, 1), {"stride": 2, "output_padding": 1, "groups": 3}),
    "little is left": ((1, 3, 2, 2), (3, 4, 5, 5), {"stride": 2, "padding": 3}),
    "signals": ((2, 6, 37), (6, 3, 5), {"stride": 2, "padding": 2, "groups": 2}),
    "volumes": ((1, 4, 3, 4, 6), (4, 2, 3, 3, 3), {"stride": 2, "padding": 1, "groups": 2}),
}


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("algorithm", ["auto", "planes", "direct"])
@pytest.mark.parametrize("activation", [None, "relu", "hardswish"])
def test_phases_are_the_same_when_they_are_remembered(name, algorithm, activation):
    """By function, layer and gradient, the second time too, and in other memory orders."""
    shape, size, options = PHASES[name]
    rng, rank = np.random.default_rng(len(name)), len(shape) - 2
    x, weight = rng.integers(-4, 5, shape).astype("f4"), rng.integers(-4, 5, size).astype("f4")
    bias = rng.integers(-4, 5, size[1] * options.get("groups", 1)).astype("f4")
    function = getattr(npconv, f"conv_transpose{rank}d")
    more = {"algorithm": algorithm, "activation": activation, "precision": "strict"}  # sums of whole numbers are exact
    layer = getattr(npconv, f"ConvTranspose{rank}d")(weight, bias, **options, **more)
    for _ in range(3):
        x = rng.permuted(x)
        want = function(x, weight, bias, **options, activation=activation, backend="numpy")
        turned = np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)
        for array in (x, turned):
            np.testing.assert_allclose(function(array, weight, bias, **options, **more), want, rtol=1e-6)
            np.testing.assert_allclose(layer(array), want, rtol=1e-6)
        last = function(np.moveaxis(x, 1, -1).copy(), weight, bias, **options, **more, data_format="channels_last")
        np.testing.assert_allclose(np.moveaxis(last, -1, 1), want, rtol=1e-6)
        if activation is None:
            kept = {key: value for key, value in options.items() if key != "output_padding"}
            gradient = getattr(npconv.grad, f"conv{rank}d_input")
            got = gradient(want.shape, weight, x, **kept, algorithm=algorithm, precision="strict")
            np.testing.assert_array_equal(got, function(x, weight, **options, backend="numpy"))


@pytest.mark.parametrize(
    ("shape", "size", "padding"),
    [((1, 2048, 9, 9), (2048, 32, 4, 4), 1), ((1, 20000, 3, 3), (20000, 640, 2, 2), 0)],
    ids=["phases", "patches"],
)
def test_workspace_of_what_is_merged(shape, size, padding):
    """Of many threads, no more work on what is computed in one pass than have room."""
    whole = (1, size[1], *(2 * n for n in shape[2:]))
    problem = conv_problem(
        2, whole, size, None, np.dtype("f4"), stride=2, padding=padding, dilation=1, groups=1, padding_mode="zeros",
        data_format="channels_first",
    ).canonical_form()  # fmt: skip
    fewer = set()  # threads than were asked for
    for threads in (1, 2, 64):
        choice = Choice("planes", "numba", "default", threads, True)
        for some in merging.together(transposing.steps(problem, choice)[0]):
            run = merging.merge(some, choice, in_line=True).run
            all_of_them = packed.Merged(run.engine, run.problems, threads, True).bytes
            limit = engine_limit(*run.problems)
            assert run.bytes <= limit
            assert (run.bytes == all_of_them) == (all_of_them <= limit)
            if run.bytes < all_of_them:
                fewer.add(threads)
    assert 64 in fewer
    assert 1 not in fewer


@pytest.mark.parametrize("algorithm", ["auto", "planes"])
@pytest.mark.parametrize("threads", [1, 4, 64])
def test_workspace_of_filters_that_tasks_turn(threads, algorithm):
    """Gradients of 1 × 1 kernels copy the filters of each task, which counts."""
    for shape, size in (((1, 512, 7, 7), (2048, 512, 1, 1)), ((1, 256, 14, 14), (64, 256, 1, 1))):
        problem = conv_problem(
            2, shape, size, None, np.dtype("f4"), stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros",
            data_format="channels_first",
        ).canonical_form()  # fmt: skip
        choice = Choice(algorithm, "numba", "default", threads, False)
        ((step,), _) = transposing.steps(problem, choice)
        found = choose(step.forward, choice)
        assert found._run.bytes <= engine_limit(step.forward)
        plan, turned = planes.plan(step.forward, threads), planes.plan(replace(step.forward, turned=False), threads)
        assert plan.scratch == plan.turning <= turned.turning  # of fewer filters, if they are known to lie so
        assert turned.turning > turned.scratch


def test_filters_are_dealt_out_in_one_pass(monkeypatch):
    """Where all phases take filters in rows; neither swapped nor taken tap by tap before."""
    x, weight = np.ones((1, 16, 5, 9), "f4"), np.ones((16, 8, 3, 3), "f4")
    options = {"stride": 2, "padding": 1, "groups": 2, "algorithm": "planes"}
    want = npconv.conv_transpose2d(x, weight, **options)
    monkeypatch.setattr(adjoint, "swapped", lambda *arguments: pytest.fail("filters were swapped by themselves"))
    np.testing.assert_array_equal(npconv.conv_transpose2d(x, weight, **options), want)


@pytest.fixture
def other_steps():
    """Let steps be found anew, before and after a test that changes what they depend on."""
    recall.forget()
    yield
    recall.forget()


@pytest.mark.usefixtures("other_steps")
@pytest.mark.parametrize("name", [name for name in PROBLEMS if name.startswith("patches")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64", "int32"])
def test_patches(name, dtype, monkeypatch):
    """Kernels as long as their stride run as one convolution, of some images after the other where there are many."""
    problem, (arrays, want) = PROBLEMS[name], exact(PROBLEMS[name], dtype)
    shapes = [array.shape for array in arrays if array is not None][:2]
    function = f"conv_transpose{problem.rank}d"
    options = problem.options | {"bias": arrays[2] is not None, "dtype": named(dtype)}
    for most in (patches.MOST, 1):
        monkeypatch.setattr(patches, "MOST", most)
        recall.forget()
        found = npconv.explain(function, *shapes, **options, backend="numpy")
        convolutions = problem.batch if most == 1 else 1
        assert f"runs as {convolutions} convolution" in str(found).replace("one", "1")
        for activation in (None, "relu") if dtype == "float32" else (None,):
            kept = want if activation is None else np.maximum(want, 0)
            for backend in BACKENDS:
                for _ in range(2):
                    got = call(problem, arrays, backend=backend, activation=activation)
                    assert_same(got, kept, f"{problem} {dtype} {backend} {activation}")


def test_what_else_it_could_run_as_is_explained():
    """One convolution with zeros between elements, or the phases, whichever is not chosen; sizes of its own rank."""
    shapes = (1, 256, 14, 14), (256, 128, 4, 4)
    whole = str(npconv.explain("conv_transpose2d", *shapes, stride=2, padding=1)).splitlines()
    assert whole[0].startswith("runs as one convolution of stride 1, with zeros between elements")
    assert whole[1].startswith("instead 4 convolutions of stride 1: expected ")
    assert whole[3:6] == ["kernel  128 filters of 4 × 4, groups 1", "steps   stride 1 × 1, dilation 1 × 1",
                          "padding 2+2, 2+2 (zeros)"]  # fmt: skip
    options = {"stride": 2, "padding": 1, "algorithm": "direct", "precision": "strict"}
    phases = str(npconv.explain("conv_transpose2d", *shapes, **options))
    assert phases.startswith("runs as 4 convolutions of stride 1")
    assert "instead" not in phases  # direct takes no zeros
    small = str(npconv.explain("conv_transpose2d", (1, 64, 56, 56), (64, 3, 4, 4), stride=2, padding=1))
    assert "instead one convolution of stride 1, with zeros between elements: expected " in small
    signal = str(npconv.explain("conv_transpose1d", (1, 6, 28), (6, 8, 3)))
    assert "channels, 28, float32" in signal
    assert "instead" not in signal


TOLD = {
    "depthwise": ((1, 32, 14, 15), (32, 1, 3, 3), {"stride": 2, "groups": 32}, "in one pass"),
    "patches": ((1, 32, 14, 15), (32, 8, 2, 2), {"stride": 2}, None),
    "even pixels": ((1, 64, 14, 15), (64, 64, 1, 1), {"stride": 2}, None),
    "pairs of phases": ((1, 64, 14, 14), (64, 16, 4, 4), {"stride": 2, "precision": "strict"}, "in 2 passes"),
    "one by one": ((1, 64, 14, 14), (64, 128, 4, 4), {"stride": 2, "precision": "strict"}, None),
}


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_what_is_explained_is_what_runs(name, data_format, monkeypatch):
    """Passes are told if they are taken, and their workspace."""
    size, weight, options, said = TOLD[name]
    options = options | {"data_format": data_format}
    if data_format == "channels_last":
        size = (size[0], *size[2:], size[1])
    ran, merged = [], adjoint.merged

    def noted(one, *arguments):
        done = merged(one, *arguments)
        ran.extend([one] * done)
        return done

    monkeypatch.setattr(adjoint, "merged", noted)
    recall.forget()
    npconv.conv_transpose2d(np.ones(size, np.float32), np.ones(weight, np.float32), **options)
    found = npconv.explain("conv_transpose2d", size, weight, **options)
    told = [(steps, one) for steps, one in found._passes if one is not None]
    assert [one for _, one in told] == [one.merged for one in ran]
    assert [len(steps) for steps, _ in told] == [len(one.steps) for one in ran]
    if ran:
        assert found.workspace == max(one.merged.workspace(packed=False) for one in ran)
        assert found.algorithm in {one.merged.algorithm for one in ran}
    if said is not None and data_format == "channels_first":
        assert said in str(found).splitlines()[0]


@pytest.mark.parametrize("precision", ["default", "strict"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("size", "kernel"),
    [
        ((1, 8, 4), (2, 2)),
        ((2, 16, 7), (3, 2)),
        ((1, 64, 33), (1, 1)),
        ((1, 8, 3, 5), (2, 2, 2)),
        ((1, 8, 5, 1), (1, 3, 2)),
    ],
)
def test_images_of_one_column(size, kernel, dtype, precision):
    """Whose axis of one element may have any stride, and which may be a column of a wider image."""
    rng, rank = np.random.default_rng(0), len(kernel)
    weight = rng.integers(-3, 4, (size[1], 64, *kernel)).astype(dtype)
    whole = rng.integers(-3, 4, (*size, 3)).astype(dtype)
    compute, layer = getattr(npconv, f"conv_transpose{rank}d"), getattr(npconv, f"ConvTranspose{rank}d")
    options, gradient = {"stride": 2, "precision": precision}, getattr(npconv.grad, f"conv{rank}d_input")
    plain = np.ascontiguousarray(whole[..., 1:2])
    with_axis = np.ascontiguousarray(whole[..., 1])[..., None]
    torch_of = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    want = torch_of(torch.from_numpy(plain), torch.from_numpy(weight), stride=2).numpy()
    for x in (with_axis, whole[..., 1:2], plain, whole[..., ::-1][..., 1:2]):
        recall.forget()
        made, shape = layer(weight, **options), (x.shape[0], 64, *want.shape[2:])
        for _ in range(2):
            for got in (compute(x, weight, **options), made(x), gradient(shape, weight, x, **options)):
                within = 0 if precision == "strict" else 1e-3
                np.testing.assert_allclose(got, want, rtol=0, atol=within, err_msg=f"{size} {kernel} {x.strides}")

"""The frame around the kernels: plans, explanations, tables, threads."""

import asyncio
import itertools
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from checks import ENGINES, TEXTBOOK, assert_same, call, exact
from corpus import CORPUS, LAYERS, parse
from engine_problems import DIRECT, FAST
from processes import python

import npconv
from npconv import arguments, phasing, plan, recall, transposing, weight_gradient, winners
from npconv.choice import Choice
from npconv.threads import max_threads


def problem_of(case, **changes):
    bias = (case.filters,) if case.bias else None
    shapes = case.input_shape, case.weight_shape, bias
    return arguments.conv_problem(case.rank, *shapes, np.dtype("float32"), **case.arguments | changes)


# --- plans ------------------------------------------------------------------------------------------------------------

SPELLINGS = {
    "stride": [1, (1,), (1, 1), [1, 1], np.array([1, 1]), np.int64(1)],
    "dilation": [1, (1, 1), [np.uint8(1)]],
    "padding": [1, (1,), (1, 1), [[1, 1]], ((1, 1), (1, 1)), "same", "same_upper", "same_lower", np.array(1)],
    "groups": [1, np.int8(1)],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_one_problem_however_it_is_written(name):
    problems = [problem_of(parse("mb2ic3oc4ih5iw6kh3ph1"), **{name: value}) for value in SPELLINGS[name]]
    assert len(set(problems)) == 1
    plans = {id(plan.choose(problem, Choice("auto", "auto", "default", 1))) for problem in problems}
    assert len(plans) == 1


def test_other_problems_are_others():
    case = parse("mb2ic3oc4ih5iw6kh3ph1")
    changes = [{}, {"stride": 2}, {"padding": ((1, 1), (1, 0))}, {"dilation": (1, 2)}, {"padding_mode": "reflect"}]
    assert len({problem_of(case, **change) for change in changes}) == len(changes)


@pytest.mark.parametrize("text", CORPUS)
def test_shapes_of_problems(text):
    """`explain` needs no array, and knows the result's shape."""
    case = parse(text)
    _, want = exact(text, "float32")
    function = f"conv{case.rank}d"
    found = npconv.explain(function, case.input_shape, case.weight_shape, bias=case.bias, **case.arguments)
    assert found.output_shape == want.shape
    per_result = 2 * case.products
    assert found.flops == per_result * want.size


# --- explanations -----------------------------------------------------------------------------------------------------


def test_explanation_of_a_layer():
    found = npconv.explain("conv2d", (1, 64, 56, 56), (64, 64, 3, 3), bias=True, padding=1)
    assert (found.algorithm, found.backend) == ("winograd4", "numba")
    assert found.output_shape == (1, 64, 56, 56)
    assert found.flops == 2 * 64 * 56 * 56 * 64 * 9
    assert found.refusals == {
        ("numba", "depthwise"): "it is for groups of one input channel",
        ("numba", "dense"): "it is for kernels as large as the input",
        ("numba", "dots"): "it is for kernels of many elements and few channels",
        ("numba", "grouped"): "it is for groups of 2, 4, 8 or 16 channels, and as many filters",
        ("numba", "outer"): "it is for kernels that are larger than their results",
        ("numba", "pieces"): "it is for results of 2 to 5 along an axis, or of 3 and 4 with dilation 2",
        ("numba", "strassen"): "it is for kernels of one element",
    }
    assert found.threads == npconv.get_num_threads()
    assert 1e-5 < found.seconds < 10
    text = str(found)
    for name in (*FAST, "loop", "flatten", "im2col", "numba", "numpy", found.reason, "231 MFLOP", "56 × 56"):
        assert name in text
    assert repr(found) == f"<Explanation: numba winograd4, {found.reason}>"


def test_complex_products_count_as_four_multiplications():
    shapes = (1, 1, 4), (1, 1, 2)
    assert npconv.explain("conv1d", *shapes, dtype="complex64").flops == 4 * npconv.explain("conv1d", *shapes).flops


@pytest.mark.parametrize("text", LAYERS.values())
@pytest.mark.parametrize("backend", ["auto", "numpy", "numba"])
def test_every_layer_has_a_plan(text, backend):
    case = parse(text)
    found = npconv.explain("conv2d", case.input_shape, case.weight_shape, **case.arguments, backend=backend)
    assert found.backend == ("numba" if backend == "auto" else backend)
    assert found.workspace >= 0


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
def test_a_named_algorithm_is_taken(backend, algorithm):
    found = npconv.explain("conv2d", (1, 3, 9, 9), (2, 3, 3, 3), backend=backend, algorithm=algorithm)
    assert (found.backend, found.algorithm, found.reason) == (backend, algorithm, "named by the caller")


def test_a_refusal_is_explained_and_never_passed_over(monkeypatch):
    """A candidate that takes odd sizes alone: auto goes round it, naming it costs an error that says why."""
    from npconv import registry

    def refuse(problem):
        return None if problem.input_size[0] % 2 else "the image's height is even"

    picky = replace(registry.candidates("numpy")[0], name="loop", refuse=refuse)
    others = tuple(a for a in registry.all_algorithms() if (a.backend, a.name) != ("numpy", "loop"))
    monkeypatch.setattr(registry, "_TABLE", (picky, *others))
    recall.forget()
    try:
        found = npconv.explain("conv2d", (1, 3, 8, 9), (2, 3, 3, 3), backend="numpy")
        assert found.refusals == {("numpy", "loop"): "the image's height is even"}
        assert found.algorithm != "loop"
        assert "the image's height is even" in str(found)
        with pytest.raises(ValueError, match=r"'loop' cannot do this problem: the image's height is even; .* can"):
            npconv.conv2d(np.ones((1, 3, 8, 9)), np.ones((2, 3, 3, 3)), backend="numpy", algorithm="loop")
        odd = npconv.explain("conv2d", (1, 3, 9, 9), (2, 3, 3, 3), backend="numpy", algorithm="loop")
        assert odd.algorithm == "loop"
    finally:
        recall.forget()


EXPLAIN_ERRORS = [
    (("conv4d", (1, 1, 4), (1, 1, 2)), {}, ValueError, "function.*conv2d.*conv4d"),
    (("conv1d", (1, 1, 4), (1, 1, 5)), {}, ValueError, "kernel"),
    (("conv1d", 4, (1, 1, 5)), {}, TypeError, "input_shape.*4"),
    (("conv1d", "114", (1, 1, 5)), {}, TypeError, "input_shape.*114"),
    (("conv1d", (1, 1, 4.0), (1, 1, 2)), {}, TypeError, "input_shape.*4.0"),
    (("conv1d", (1, 1, -4), (1, 1, 2)), {}, ValueError, "input_shape.*-4"),
    (("conv1d", (1, 1, 4), (1, True, 2)), {}, TypeError, "weight_shape.*True"),
    (("conv1d", (1, 1, 4), (1, 1, 2)), {"dtype": "float31"}, TypeError, "dtype.*float31"),
    (("conv1d", (1, 1, 4), (1, 1, 2)), {"dtype": bool}, TypeError, "dtype.*bool"),
    (("conv1d", (1, 1, 4), (1, 1, 2)), {"dtype": object}, TypeError, "dtype.*object"),
    (("conv1d", (1, 1, 4), (1, 1, 2)), {"algorithm": "slow"}, ValueError, "algorithm.*im2col.*slow"),
    (("conv1d", (1, 1, 4), (1, 1, 2)), {"backend": "slow"}, ValueError, "backend.*numba.*slow"),
    (("conv1d", (1, 1, 4), (1, 1, 2)), {"stride": 0}, ValueError, "stride.*0"),
    (("conv1d", (1, 1, 4), (1, 1, 2)), {"bias": np.array([1, 2])}, TypeError, "bias must be True or False"),
    (("conv1d", np.array(1), (1, 1, 2)), {}, TypeError, "input_shape must be a tuple"),
    (("conv1d", (1, 1, 4), np.array(1)), {}, TypeError, "weight_shape must be a tuple"),
]


@pytest.mark.parametrize(("args", "options", "kind", "said"), EXPLAIN_ERRORS)
def test_explain_raises_what_the_function_would(args, options, kind, said):
    with pytest.raises(kind, match=said):
        npconv.explain(*args, **options)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_every_cpu_algorithm_is_tested():
    tested = {*ENGINES, *(("numba", name) for name in FAST)}
    assert {(a.backend, a.name) for a in npconv.algorithms() if a.backend != "cuda"} == tested


@pytest.mark.parametrize("backend", ["numpy", "numba", "cuda"])
def test_the_textbooks_three_exist_everywhere(backend):
    table = npconv.algorithms(backend)
    assert set(TEXTBOOK) <= {a.name for a in table}
    assert {a.backend for a in table} == {backend}


def test_the_table_prints_itself():
    table = npconv.algorithms()
    lines = str(table).splitlines()
    assert len(lines) == len(table) + 2
    assert lines[0].split()[:2] == ["algorithm", "backend"]
    assert table[0] in list(table)


def test_no_such_backend():
    with pytest.raises(ValueError, match="backend must be one of numpy, numba, cuda; got 'auto'"):
        npconv.algorithms("auto")


def test_config():
    config = npconv.show_config()
    assert config["npconv"] == npconv.__version__
    assert config["numpy"] == np.__version__
    assert config["threads"].endswith(f"of {max_threads()}")
    for name in ("python", "numba", "llvmlite", "machine", "cuda", "threading layer"):
        assert config[name]
        assert name in str(config)
    assert len(str(config).splitlines()) == len(config) + 2


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def threads_restored():
    before = npconv.get_num_threads()
    yield before
    npconv.set_num_threads(before)


@pytest.mark.parametrize("function", [npconv.set_num_threads, lambda n: npconv.threads(n).__enter__()])
@pytest.mark.parametrize(
    ("n", "kind"),
    [(n, ValueError) for n in (0, -1, 10**6)] + [(n, TypeError) for n in (1.0, True, "1", None)],
)
def test_numbers_of_threads_that_will_not_do(function, n, kind, threads_restored):
    with pytest.raises(kind, match=r"\bn must be"):
        function(n)
    assert npconv.get_num_threads() == threads_restored


@pytest.mark.skipif(max_threads() < 2, reason="one CPU has no second thread to give")
def test_threads_for_a_block(threads_restored):
    npconv.set_num_threads(2)
    with npconv.threads(1):
        assert npconv.get_num_threads() == 1
        assert npconv.explain("conv1d", (1, 1, 4), (1, 1, 2)).threads == 1
        with npconv.threads(np.int64(2)):
            assert npconv.get_num_threads() == 2
        assert npconv.get_num_threads() == 1
        npconv.set_num_threads(1)  # for the process, once the block is left
        assert npconv.get_num_threads() == 1
        npconv.set_num_threads(2)
        assert npconv.get_num_threads() == 1
    assert npconv.get_num_threads() == 2
    with pytest.raises(KeyError), npconv.threads(1):
        raise KeyError
    assert npconv.get_num_threads() == 2


@pytest.mark.skipif(max_threads() < 2, reason="one CPU has no second thread to give")
def test_threads_belong_to_one_python_thread_or_task(threads_restored):
    npconv.set_num_threads(2)
    with npconv.threads(1), ThreadPoolExecutor(1) as pool:
        assert pool.submit(npconv.get_num_threads).result() == 2

    async def count(n, seen):
        with npconv.threads(n):
            await asyncio.sleep(0)
            seen.append((n, npconv.get_num_threads()))

    async def both():
        seen = []
        await asyncio.gather(count(1, seen), count(2, seen))
        return seen

    assert all(wanted == got for wanted, got in asyncio.run(both()))


@pytest.mark.parametrize("algorithm", [*TEXTBOOK, *DIRECT])
def test_any_number_of_threads_gives_the_same_result(algorithm):
    case = parse("mb2ic24oc30ih13iw17kh3ph1+bias")
    arrays, want = exact(str(case), "float32")
    for n in range(1, max_threads() + 1):
        with npconv.threads(n):
            assert_same(call(case, arrays, backend="numba", algorithm=algorithm), want, f"{case} {n} threads")


def test_numbas_own_number_of_threads_is_left_alone():
    """A caller's other Numba code goes on with the threads that it was given."""
    import numba

    case = parse("mb2ic24oc30ih13iw17kh3ph1+bias")
    arrays, want = exact(str(case), "float32")
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert_same(call(case, arrays, backend="numba", precision="strict"), want, case)
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_many_callers_at_once(backend):
    """Problems of different sizes and dtypes from many Python threads, all starting together."""
    texts = "mb2ic24oc30ih13iw17kh3ph1+bias", "ic40oc7iw300kw5dw2pw3", "mb2ic3oc4ih5iw6kh3ph1+reflect", "ih40kh7+image"
    jobs = list(itertools.product(texts, ("float32", "int16"), ("flatten", "im2col", "auto")))
    start, callers = threading.Barrier(8), 8

    def work(number):
        start.wait()
        for text, dtype, algorithm in (jobs * 2)[number:] + jobs[:number]:
            arrays, want = exact(text, dtype)
            got = call(parse(text), arrays, backend=backend, algorithm=algorithm, precision="strict")
            assert_same(got, want, f"{text} {dtype}")
        return True

    with ThreadPoolExecutor(callers) as pool:
        assert all(pool.map(work, range(callers)))


CALLERS = """
import sys, threading
import numpy as np, npconv
rng = np.random.default_rng(1)
x = rng.integers(-4, 5, (2, 24, 20, 20)).astype(np.float32)
w = rng.integers(-4, 5, (16, 24, 3, 3)).astype(np.float32)
want = npconv.conv2d(x, w, backend="numpy")
def right(times=1):
    return all(np.array_equal(npconv.conv2d(x, w, backend="numba", algorithm=a), want)
               for _ in range(times) for a in ("im2col", "flatten", "loop", "direct", "planes"))
"""

TOGETHER = """
results = []
threads = [threading.Thread(target=lambda: results.append(right(10))) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert results == [True] * 6, results
import numba
print(numba.threading_layer())
"""

FORKED = """
import os
assert right()
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        os._exit(0 if right(2) else 3)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert codes == [0, 0], codes
assert right()
grandchild = os.fork()
if not grandchild:
    inner = os.fork()
    if not inner:
        os._exit(0 if right() else 3)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))
assert os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
print("forked")
"""

WHILE_BUSY = """
import os, time
assert right()
stop = False
def keep_busy():
    while not stop:
        right()
busy = threading.Thread(target=keep_busy)
busy.start()
codes = []
for _ in range(5):
    time.sleep(0.01)
    child = os.fork()
    if not child:
        os._exit(0 if right() else 3)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop = True
busy.join()
assert codes == [0] * 5, codes
print("forked")
"""


def test_many_callers_over_the_workqueue():
    """Numba's workqueue aborts the process when two threads enter it at once (numba#8563)."""
    assert python(CALLERS + TOGETHER, NUMBA_THREADING_LAYER="workqueue") == ["workqueue"]


def test_many_callers_over_the_layer_found():
    assert python(CALLERS + TOGETHER)[0] in ("omp", "tbb", "workqueue")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("layer", ["default", "workqueue"])
@pytest.mark.parametrize("code", [FORKED, WHILE_BUSY], ids=["idle parent", "busy parent"])
def test_forked_children_compute(layer, code):
    """GNU OpenMP aborts a forked child that goes parallel after its parent did."""
    assert python(CALLERS + code, NUMBA_THREADING_LAYER=layer) == ["forked"]


def test_more_threads_than_cpus_are_an_error_and_fewer_are_not():
    code = "import npconv; print(npconv.get_num_threads())"
    assert python(code, NUMBA_NUM_THREADS="1") == ["1"]
    assert python(code, NUMBA_NUM_THREADS="3") == ["3"]
    code = "import npconv; npconv.set_num_threads(5); print(npconv.get_num_threads())"
    assert python(code, NUMBA_NUM_THREADS="7") == ["5"]


def test_results_over_more_threads_than_cpus():
    assert python(CALLERS + "assert right()\nprint(npconv.get_num_threads())", NUMBA_NUM_THREADS="5") == ["5"]


@pytest.mark.parametrize(
    ("shape", "weight", "algorithms"),
    [
        ((1, 512, 1, 1), (512, 512, 1, 1), {"dense"}),
        ((4, 512, 1, 1), (1000, 512, 1, 1), {"dense"}),
        ((5, 512, 1, 1), (1000, 512, 1, 1), {"dense"}),
        # Images that the direct sum puts together, too; `outer` is for panels of them that are full.
        ((45, 512, 1, 1), (1000, 512, 1, 1), {"dense", "direct", "outer"}),
        (
            (1, 256, 33, 33),
            (256, 256, 3, 3),
            {"winograd4", "direct"},
        ),  # of images of one tile, many of which are taken together
    ],
)
def test_odd_shapes_are_not_left_to_what_takes_ten_times_as_long(shape, weight, algorithms):
    more = {"dilation": 12, "padding": 12} if weight[2] > 1 else {}
    assert npconv.explain("conv2d", shape, weight, **more).algorithm in algorithms


def test_transposed_convolutions_keep_to_their_workspace():
    """With few filters, zeros between elements would need more than phases do."""
    shape, weight = (4, 512, 7, 7), (512, 2, 7, 7)
    found = npconv.explain("conv_transpose2d", shape, weight, stride=2, groups=2)
    assert found.workspace <= 4 * (math.prod(shape) + math.prod(weight) + math.prod(found.output_shape)) + 2**20


def test_no_textbook_kernel_where_an_engine_needs_less():
    """Though none is within the engines' limit."""
    shape, weight = (1, 56, 28, 1024), (1024, 16, 7, 7)
    given = {"dilation": 5, "dtype": "float16", "precision": "strict", "data_format": "channels_last"}
    found = npconv.explain("conv_transpose2d", shape, weight, **given)
    other = npconv.explain("conv_transpose2d", shape, weight, **given, algorithm="im2col")
    assert found.algorithm in FAST
    assert found.workspace < other.workspace


def test_canonical_forms_remember_which_axis_is_last():
    """For the choice of an algorithm, and for what is tuned; but not where channels and images change places."""
    for data_format in ("channels_first", "channels_last"):
        shape = (2, 8, 9, 9) if data_format == "channels_first" else (2, 9, 9, 8)
        problem = arguments.conv_problem(
            2, shape, (4, 8, 3, 3), None, np.dtype("f4"), stride=1, padding=1, dilation=1, groups=1,
            padding_mode="zeros", data_format=data_format,
        )  # fmt: skip
        form = problem.canonical_form()
        steps = [step for _, step in phasing.phases(form)]
        assert len(steps) == 1
        for some in (problem, form, *steps):
            assert some.channels_last == (data_format == "channels_last")
            assert data_format in winners.key(some, Choice("auto", "numba", "default", 1))
        assert not weight_gradient.weight_step(problem).forward.channels_last


def test_times_are_those_of_a_problem_of_its_kind():
    """A transposed convolution's filters lie side by side, and a gradient's come with each call."""
    problem, choice = problem_of(parse("ic8oc4ih9kh3sh2ph1")), Choice("auto", "numba", "default", 1)
    alike = (problem, replace(problem, turned=True), replace(problem, of_weight=True))
    assert len({winners.key(some, choice) for some in alike}) == 3


def test_what_follows_from_choices_is_forgotten_with_them():
    choice = Choice("auto", "numba", "default", 1)
    transposing.steps(problem_of(parse("ic8oc4ih9kh3sh2ph1")).canonical_form(), choice)
    assert transposing.steps.cache_info().currsize > 0
    recall.forget()
    assert plan.choose.cache_info().currsize == transposing.steps.cache_info().currsize == 0


def test_patches_count_as_workspace():
    """Those of as many images as have four mebibytes, beside what threads work in.

    That is an image and its products, of which tiles make up to eight vectors more.
    """
    from npconv.kernels.numba.tile import VECTOR_BYTES

    pixels, patches = 16 * 14, 20 * 7 * 14
    of_thread = 4 * (64 * pixels + patches * (pixels + 2 * VECTOR_BYTES))
    for images, kept in ((1, 1), (3, 2), (40, 2)):
        found = npconv.explain("conv_transpose2d", (images, 64, 16, 14), (64, 20, 7, 14), stride=(7, 14))
        most = min(found.threads * of_thread, 2**22 if VECTOR_BYTES < 64 else math.inf)
        assert 0 <= found.workspace - 4 * kept * patches * pixels < most

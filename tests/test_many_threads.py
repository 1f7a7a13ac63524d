"""More threads than a problem's memory is enough for: some of them run it, on the engine that fewer would take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from processes import python

from npconv import transposing, weight_gradient
from npconv.arguments import conv_problem
from npconv.choice import Choice
from npconv.kernels import packed
from npconv.kernels.numba import blocking, buffers, direct, outer, planes, product
from npconv.kernels.numba.tile import VECTOR_BYTES
from npconv.plan import choose

RUN = """
import numpy as np, npconv
from npconv.kernels.numba import jit

seen = []
first = jit.Kernel._first

def watched(self, threads, tasks, scratch, arguments, dtype):
    seen.append((threads, scratch.nbytes, tasks))
    first(self, threads, tasks, scratch, arguments, dtype)
    for handles in self._handles:  # so that the next call is a first one, too
        handles.clear()

jit.Kernel._first = watched
rng = np.random.default_rng(0)
channels, filters, side, taps, groups = {problem}
x = rng.integers(-8, 8, (1, channels, side, side)).astype("f4")
weight = rng.integers(-8, 8, (filters, channels // groups, taps, taps)).astype("f4")
options = dict(padding=taps // 2, groups=groups)
want = npconv.conv2d(x, weight, algorithm="im2col", backend="numpy", **options)
limit = x.nbytes + weight.nbytes + want.nbytes + 2**20
layer = npconv.Conv2d(weight, **options)
function = lambda x: npconv.conv2d(x, weight, **options)
for call, explained in (
    (function, npconv.explain("conv2d", x.shape, weight.shape, **options)),
    (layer, layer.explain(x.shape)),
):
    seen.clear()
    np.testing.assert_allclose(call(x), want, atol=1e-3 * abs(want).max())
    threads, scratch, tasks = seen[-1]  # after what packs the weights
    assert threads == min(explained.threads, tasks), (seen, explained)
    assert explained.threads <= npconv.get_num_threads() == 16, explained
    assert max(scratch for _, scratch, _ in seen) <= limit, (seen, limit)
    assert explained.workspace <= limit, explained
    print(explained.algorithm, threads)
with npconv.threads(2):
    layer(x)
assert seen[-1][0] == 2
"""


@pytest.mark.parametrize(
    ("problem", "algorithms"),
    [
        ((64, 64, 28, 3, 1), {"winograd2", "winograd2x4", "winograd4"}),
        ((128, 64, 20, 3, 1), {"winograd2", "winograd2x4", "winograd4"}),
        ((256, 256, 28, 7, 256), {"depthwise"}),
    ],
)
def test_engines_run_in_as_many_threads_as_there_is_memory_for(problem, algorithms):
    lines = python(RUN.format(problem=problem), NUMBA_NUM_THREADS="16")
    function, layer = (line.split() for line in lines)
    if VECTOR_BYTES < 64:
        assert {function[0], layer[0]} <= algorithms
        assert 1 < int(layer[1]) < 16
    else:  # products are faster there, beside transforms, and some layers have room for all threads
        assert {function[0], layer[0]} <= {*algorithms, "planes"}
        assert 1 < min(int(function[1]), int(layer[1])) < 16


ROOM = """
import random
import numpy as np, npconv
from npconv.kernels.numba import jit
from npconv.kernels.numba.buffers import Room

seen, rows = [], Room.rows
Room.rows = lambda self, place: rows(Room(), place)  # those of a room are as far apart as the longest were

def watched(self, threads, tasks, scratch, arguments, dtype):
    seen.append((threads, scratch.nbytes))

jit.Kernel._first = watched  # nothing is computed, and each call is a first one
draw = random.Random(0)
algorithms, calls = set(), 0
for _ in range(120):
    groups, depth = draw.choice([1, 1, 1, 4]), draw.choice([None, None, None, 6])
    channels, filters = (groups * draw.choice([1, 3, 16, 32, 64, 128, 256, 512]) for _ in "ab")
    if draw.random() < 0.2:
        channels = groups = draw.choice([4, 64, 256])
        filters = channels * draw.choice([1, 1, 64])
    sides = [draw.choice([1, 5, 7, 13, 14, 20, 28, 56]) for _ in "ab"]
    taps, stride, dilation = draw.choice([1, 3, 3, 5, 7]), draw.choice([1, 1, 1, 2]), draw.choice([1, 1, 2])
    taps = min(taps, 3) if depth else taps
    rank = 3 if depth else 2
    x = np.zeros((draw.choice([1, 1, 2, 8]), channels, *[depth] * (rank - 2), *sides), draw.choice(["f4", "f4", "f8"]))
    weight = np.zeros((filters, channels // groups, *[taps] * rank), x.dtype)
    options = dict(stride=stride, padding=dilation * (taps // 2), dilation=dilation, groups=groups)
    with npconv.threads(draw.choice([1, 2, 3, 4, 6, 8, 12, 16])):
        layer = npconv.Conv2d(weight, **options) if rank == 2 else npconv.Conv3d(weight, **options)
        function = npconv.conv2d if rank == 2 else npconv.conv3d
        for call, explained in (
            (lambda: function(x, weight, **options),
             npconv.explain(function.__name__, x.shape, weight.shape, dtype=x.dtype, **options)),
            (lambda: layer(x), layer.explain(x.shape)),
        ):
            seen.clear()
            limit = min(x.nbytes + weight.nbytes + call().nbytes + 2**20, 2**26)
            told = explained.algorithm, explained.threads, explained.workspace
            for _, scratch in [*seen, (0, explained.workspace)]:
                assert scratch <= limit, (x.shape, weight.shape, options, seen, limit, told)
            for threads, scratch in seen[-1:]:  # after what packs the weights; rows have room for lines of the cache
                assert scratch <= explained.workspace + 512 * threads, (x.shape, weight.shape, options, seen, told)
            if seen:
                algorithms.add(explained.algorithm)
                calls += 1
print(calls, *sorted(algorithms))
"""


def test_no_number_of_threads_works_in_more_than_the_limit():
    """Engines cut it, and are chosen by estimates of it: what ran was beyond the limit, before they were asked."""
    (said,) = python(ROOM, NUMBA_NUM_THREADS="16")
    calls, *algorithms = said.split()
    assert int(calls) >= 210  # of 240; where there is nothing to compute, no kernel runs
    assert {"depthwise", "direct", "planes", "winograd2", "winograd4"} <= set(algorithms)


GREEDY = """
import numpy as np, npconv
from npconv.kernels.numba import jit

@jit.scratch_kernel()
@jit.makes_arrays
def kernel(task, scratch, out, sizes):
    scratch[:] = task
    out[task] = scratch[-1] + np.ones(sizes[task]).sum()

for threads in (1, 3):
    with npconv.threads(threads):
        for sizes, want in (([4] * 7, np.arange(7) + 4), ([4, 4, 2**50, 4, 4, 4, 4], "no memory"), ([1], [1])):
            out = np.zeros(len(sizes))
            try:
                kernel.run(len(sizes), 10**6, out, np.array(sizes), scratch=(5, np.dtype(np.float64)))
            except MemoryError as error:
                assert want in str(error), error
                print("refused")
            else:
                np.testing.assert_array_equal(out, want)
"""


def test_a_task_that_finds_no_memory_is_an_error_in_any_thread():
    assert python(GREEDY, NUMBA_NUM_THREADS="3") == ["refused"] * 2
    assert python(GREEDY, NUMBA_NUM_THREADS="3", NUMBA_THREADING_LAYER="workqueue") == ["refused"] * 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2, 4, 16])
@pytest.mark.parametrize(
    ("engine", "input_shape", "weight_shape", "options"),
    [
        # Sums that are kept twice, and planes that are copied: a cut that leaves these out takes threads away.
        (outer, (32, 64, 28, 1), (64, 64, 3, 3), {"stride": 3, "padding": 2, "dilation": 2}),
        (outer, (5, 512, 56, 1), (3, 512, 3, 3), {"padding": 5, "dilation": 5}),
        (outer, (5, 1024, 5, 14), (512, 1024, 7, 7), {"padding": 6, "dilation": 2}),
        (outer, (1, 512, 7, 7), (2048, 512, 1, 1), {}),
        # Weights that a call packs, and results, beside the slab.
        (direct, (5, 1024, 1, 5), (16, 1024, 3, 3), {"padding": 1}),
        (direct, (32, 512, 5, 1), (512, 512, 3, 3), {"stride": 3, "padding": 1}),
        (direct, (1, 512, 28, 28), (512, 512, 3, 3), {"padding": 2, "dilation": 2}),
    ],
)
def test_tasks_keep_to_the_share_of_a_thread(engine, input_shape, weight_shape, options, threads, dtype):
    """Unless that share is less than fits a cache anyway: then fewer threads run."""
    problem, packed, results = conv_problem(2, input_shape, weight_shape, None, np.dtype(dtype), **options), 0, 0
    if engine is outer:
        problem = weight_gradient.weight_step(problem).forward
    else:
        packed, results = problem.weight_bytes, (direct.PIXELS + blocking.SPARE) * product.width(problem.compute_dtype)
    numbers, kind = engine.plan(problem.canonical_form(), threads).scratch
    share = (blocking.engine_limit(problem) - packed) // threads
    assert numbers * kind.itemsize <= max(share, blocking.CACHE + results * kind.itemsize)


@pytest.mark.parametrize("threads", [1, 2, 4, 64])
def test_each_plan_has_the_threads_that_it_has_room_for(threads):
    """Those of images and of planes as one row, apart: of 744 channels at 23² one had too much for two, and both ran in
    one thread."""
    problem = conv_problem(2, (1, 744, 23, 23), (200, 744, 1, 1), None, np.dtype("f4"))
    choice = Choice("planes", "numba", "default", threads, False)
    ((step,), _) = transposing.steps(problem.canonical_form(), choice)
    found, limit = choose(step.forward, choice), blocking.engine_limit(step.forward)
    run = found._fitted[1]
    line = replace(step.forward, input_size=(1, 1, 23 * 23))
    for (plan, number), form in ((run._plan, step.forward), (run._line, line)):
        assert number == 1 or packed._bytes(plan, number) <= limit
        for more in range(number + 1, found.chosen.threads + 1):
            assert packed._bytes(planes.plan(form, more), more) > limit
    assert found.threads == run.threads == run._line[1]


TAKEN = """
import numpy as np, npconv
from npconv.kernels.numba import jit

@jit.Kernel
def count(task, taken, sizes):
    for _ in range(sizes[0]):
        taken[task] += 1

for threads in (1, 2, 3, 5, 16):
    for tasks in (1, 2, threads, 8 * threads - 1, 8 * threads, 8 * threads + 1, 1000):
        taken = np.zeros(tasks, np.float32)
        with npconv.threads(threads):
            for times in range(1, 4):
                count.run(tasks, 10**9, taken, np.array([times]))
        print(threads, tasks, *set(taken.tolist()))
"""


def test_each_task_is_taken_once():
    """By whichever thread: where tasks are many, each has a share of its own, and takes of those of others then."""
    lines = [line.split() for line in python(TAKEN, NUMBA_NUM_THREADS="16")]
    assert [int(threads) for threads, *_ in lines] == [threads for threads in (1, 2, 3, 5, 16) for _ in range(7)]
    assert {tuple(times) for _, _, *times in lines} == {("6.0",)}, lines


def test_rows_of_scratch_stay_where_they_are(monkeypatch):
    """Whichever kernel's they are; and one that there was no memory for leaves no trace."""
    room, new = buffers.Room(), buffers._new
    numbers = np.dtype("float32")

    def places(workers, count):
        rows = room.rows((workers, (count, numbers)))
        assert len(rows) == workers
        assert rows.shape[1] >= count
        assert rows.flags.c_contiguous
        return [row.ctypes.data for row in rows]

    longest = places(3, 1000)
    assert places(3, 10) == places(3, 999) == longest
    assert all(place % buffers.LINE == 0 for place in longest + places(2, 7))

    def too_much(size):
        if size > 2**20:
            raise MemoryError
        return new(size)

    monkeypatch.setattr(buffers, "_new", too_much)
    with pytest.raises(MemoryError):
        room.rows((3, (2**20, numbers)))
    assert places(3, 10) == longest
    assert places(3, 2000) == places(3, 10) != longest

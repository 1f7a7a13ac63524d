"""More threads than a problem's memory is enough for: some of them run it, on the engine that fewer would take."""

from __future__ import annotations

import pytest
from processes import python

RUN = """
import numpy as np, npconv
from npconv.kernels.numba import jit

seen = []
drive = jit.Kernel._drive

def watched(self, threads, tasks, scratch, arguments):
    seen.append((threads, scratch.nbytes))
    drive(self, threads, tasks, scratch, arguments)

jit.Kernel._drive = watched
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
    threads, scratch = seen[-1]  # after what packs the weights
    assert threads == explained.threads <= npconv.get_num_threads() == 16, (seen, explained)
    assert max(scratch for _, scratch in seen) <= limit, (seen, limit)
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
    assert {function[0], layer[0]} <= algorithms
    assert 1 < int(layer[1]) < 16


GREEDY = """
import numpy as np, npconv
from npconv.kernels.numba import jit

@jit.scratch_kernel
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

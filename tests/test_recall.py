"""Calls whose road is remembered: which are, that these are no others', and what it takes to find the road."""

import tracemalloc

import numpy as np
import pytest

import npconv
from npconv import api, grad, recall

X, W = np.ones((2, 4, 40, 41), np.float32), np.ones((6, 4, 3, 3), np.float32)
CALLS = {
    "silu": {"activation": "silu"},
    "leaky_relu": {"activation": ("leaky_relu", 0.1)},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "textbook": {"algorithm": "im2col"},
    "NumPy": {"backend": "numpy"},
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_all_ordinary_calls_are_remembered(name, dtype):
    """Those that have no road that leaves their arrays unseen, too; functions and layers."""
    options, x, w = CALLS[name], X.astype(dtype), W.astype(dtype)
    recall.forget()
    api._roads.clear()
    layer = npconv.Conv2d(w, **options)
    for compute, roads in ((lambda: npconv.conv2d(x, w, **options), api._roads), (lambda: layer(x), layer._roads)):
        first = compute()
        assert len(roads) == 1
        np.testing.assert_array_equal(compute(), first)
        assert len(roads) == 1


def test_options_that_are_equal_but_differ():
    """A stride of 1 is right, 1.0 and True are errors; slopes may be any of these numbers."""
    x, w = np.full((1, 1, 3), -1, np.float32), np.ones((1, 1, 1), np.float32)
    for _ in range(2):
        npconv.conv1d(x, w, stride=1)
        npconv.conv1d(x, w, stride=(1,))
        for stride in (1.0, (1.0,), True, (True,)):
            with pytest.raises(TypeError, match="stride"):
                npconv.conv1d(x, w, stride=stride)
        for slope in (0, 0.0, 1, 1.0, 0.5):
            assert (npconv.conv1d(x, w, activation=("leaky_relu", slope)) == -slope).all()
        with pytest.raises(TypeError, match="activation"):
            npconv.conv1d(x, w, activation=("leaky_relu", True))


def _peak(compute):
    tracemalloc.start()
    try:
        compute()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_a_first_call_needs_no_more_memory_than_the_next(dtype):
    """Its road is found from the arrays that it has."""
    x, w, slope = (np.ones(shape, dtype) for shape in ((1, 8, 300, 310), (8, 8, 3, 3), (1, 8, 298, 308)))
    layer, transposed = npconv.Conv2d(w), npconv.ConvTranspose2d(w)
    calls = {
        "function": lambda: npconv.conv2d(x, w),
        "layer": lambda: layer(x),
        "transposed": lambda: npconv.conv_transpose2d(x, w),
        "transposed layer": lambda: transposed(x),
        "input's gradient": lambda: npconv.grad.conv2d_input(x.shape, w, slope),
        "weight's gradient": lambda: npconv.grad.conv2d_weight(x, w.shape, slope),
    }
    for compute in calls.values():
        compute()  # compiles
    recall.forget()
    for roads in (api._roads, api._transposed_roads, grad._roads, layer._roads, transposed._roads):
        roads.clear()
    for name, compute in calls.items():
        first, second = _peak(compute), _peak(compute)
        assert first <= second + x.nbytes // 4, (name, first, second, x.nbytes)

"""The promised accuracy of transposed convolutions and gradients: each is a sum of n products like any other."""

import numpy as np
import pytest
from checks import assert_within

import npconv

PROBLEMS = [
    ((2, 24, 9, 10), (16, 24, 3, 3), {"stride": 1, "padding": 1}),
    ((2, 24, 13, 10), (16, 12, 3, 2), {"stride": (3, 2), "padding": 1, "groups": 2}),
    ((4, 3, 40, 40), (2, 3, 1, 1), {"stride": 1}),
    ((1, 8, 30, 12), (256, 8, 2, 3), {"stride": 2, "dilation": 2}),
    ((1, 16, 8, 36), (1024, 16, 2, 2), {"stride": 2}),  # patches that are written where they belong
    ((1, 4, 16, 36), (1024, 4, 4, 4), {"stride": 2, "padding": 1}),  # phases that are merged
]
FILLS = {
    "random": lambda rng, shape: rng.standard_normal(shape),
    "constant": lambda rng, shape: np.full(shape, 0.1),
    "positive": lambda rng, shape: rng.random(shape),
}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("problem", range(len(PROBLEMS)))
def test_bound(problem, fill, dtype, backend):
    x_shape, w_shape, options = PROBLEMS[problem]
    rng = np.random.default_rng(problem)
    y_shape = npconv.conv2d(np.ones(x_shape), np.ones(w_shape), **options).shape
    draw = FILLS[fill]
    x, weight, gradient = (draw(rng, shape).astype(dtype) for shape in (x_shape, w_shape, y_shape))
    exact = np.result_type(dtype, np.float64)
    functions = {
        "input": lambda a, b, **more: npconv.grad.conv2d_input(x_shape, a, b, **options, **more),
        "weight": lambda a, b, **more: npconv.grad.conv2d_weight(a, w_shape, b, **options, **more),
    }
    for name, first in (("input", weight), ("weight", x)):
        function = functions[name]
        got = function(first, gradient, backend=backend, precision="strict")
        products = function(np.ones(first.shape), np.ones(y_shape))
        magnitude = function(np.abs(first).astype(float), np.abs(gradient).astype(float))
        bound = (8 + np.sqrt(products)) * np.finfo(dtype).eps * magnitude
        want = function(first.astype(exact), gradient.astype(exact), backend="numpy")
        assert_within(got, want, bound, f"{name} {problem} {fill} {dtype} {backend}")

"""PyTorch's own samples for conv1d, conv2d and conv3d, and its own errors.

`sample_inputs` come in every dtype that npconv has; torch itself computes the convolution in seven of these, so the
reference is its float64 or complex128 result for the same numbers (the samples' integers are small, so float64 holds
their sums exactly).
"""

from functools import cache

import numpy as np
import pytest
import torch
from checks import DTYPES, ENGINES, accuracy_bound, assert_same, assert_within, cast, named
from torch.testing._internal import common_utils
from torch.testing._internal.common_methods_invocations import op_db

import npconv

# torch copies the input for even kernels with padding="same", and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

# It looks for the unittest that samples are made for, in the files of all modules: 0.1 s each time, for nothing here.
common_utils.extract_test_fn = lambda: None

FUNCTIONS = ("conv1d", "conv2d", "conv3d")
OPS = {name: next(op for op in op_db if op.name == f"nn.functional.{name}") for name in FUNCTIONS}
CANDIDATES = [*ENGINES, ("auto", "auto")]
SAMPLES = {"conv1d": 10, "conv2d": 30, "conv3d": 20}


def arrays_of(sample):
    """Input, weight and bias as NumPy arrays."""

    def array(tensor):
        if tensor is None:
            return None
        if tensor.dtype is torch.bfloat16:  # which NumPy's side of DLPack does not know
            return tensor.view(torch.int16).numpy().view(named("bfloat16"))
        return tensor.numpy()

    return tuple(array(tensor) for tensor in (sample.input, *sample.args))


def reference(function, sample):
    """torch's result in float64 or complex128, and Σ|x||w|."""
    wide = torch.complex128 if sample.input.is_complex() else torch.float64
    tensors = [None if t is None else t.to(wide) for t in (sample.input, *sample.args)]
    conv = getattr(torch.nn.functional, function)
    magnitude = conv(*(None if t is None else t.abs() for t in tensors), **sample.kwargs)
    return conv(*tensors, **sample.kwargs).numpy(), magnitude.numpy()


@cache
def samples_of(function, dtype):
    """Each sample with its reference: they are the same for every engine."""
    return [
        (sample, *reference(function, sample)) for sample in OPS[function].sample_inputs("cpu", getattr(torch, dtype))
    ]


def check(function, sample, want, magnitude, dtype, backend, algorithm):
    arrays = arrays_of(sample)
    assert arrays[0].dtype == dtype
    got = getattr(npconv, function)(*arrays, **sample.kwargs, backend=backend, algorithm=algorithm)
    about = f"{function} {[None if a is None else a.shape for a in arrays]} {sample.kwargs} {dtype}"
    if dtype.kind in "iu":
        assert_same(got, cast(want, dtype), about)
        return
    assert got.dtype == dtype
    products = arrays[1][0].size
    bound = accuracy_bound(products, magnitude, want, dtype)
    # torch's float64 is no more exact than npconv's: each may be off by the bound.
    own = accuracy_bound(products, magnitude, want, want.dtype)
    assert_within(got, want, bound + own, about)


@pytest.mark.parametrize(("backend", "algorithm"), CANDIDATES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_samples(function, dtype, backend, algorithm, count_samples):
    samples = samples_of(function, dtype)
    assert len(samples) == SAMPLES[function], "PyTorch has other samples than before: see what is new"
    failures = []
    for sample, want, magnitude in samples:
        try:
            check(function, sample, want, magnitude, named(dtype), backend, algorithm)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {str(error)[:300]}")
    count_samples(function, dtype, f"{backend} {algorithm}", len(samples) - len(failures), len(samples))
    assert not failures, f"{len(failures)} of {len(samples)} samples:\n" + "\n".join(failures)


def test_every_dtype_that_torch_computes_is_among_these():
    for op in OPS.values():
        assert {str(dtype).removeprefix("torch.") for dtype in op.dtypes} <= set(DTYPES)


# torch wants all arguments to have one dtype; npconv promotes, as NumPy does.
PROMOTED = "should be the same"


@pytest.mark.parametrize(("backend", "algorithm"), CANDIDATES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors(function, backend, algorithm):
    """Each of PyTorch's bad calls is an error here too, but for those with mixed dtypes."""
    errors = list(OPS[function].error_inputs("cpu"))
    assert len(errors) == 10, "PyTorch has other bad calls than before: see what is new"
    conv, promoted = getattr(npconv, function), 0
    for bad in errors:
        sample = bad.sample_input
        arrays = arrays_of(sample)

        def call(sample=sample, arrays=arrays):
            return conv(*arrays, **sample.kwargs, backend=backend, algorithm=algorithm)

        with pytest.raises(bad.error_type):
            getattr(torch.nn.functional, function)(sample.input, *sample.args, **sample.kwargs)
        if PROMOTED in bad.error_regex:
            promoted += 1
            dtype = np.result_type(*arrays)
            same = tuple(array.astype(dtype) for array in arrays)
            want = conv(*same, **sample.kwargs, backend=backend, algorithm=algorithm)
            assert_same(call(), want, bad.error_regex)
        else:
            with pytest.raises(ValueError, match=r"stride|padding|dilation|groups|weight|input"):
                call()
    assert promoted == 2

"""PyTorch's own samples for transposed convolutions and unfold, and gradients through all its samples."""

from functools import cache

import numpy as np
import pytest
import torch
from checks import BACKENDS, DTYPES, TEXTBOOK, accuracy_bound, assert_same, assert_within, cast, named
from test_opinfo import OPS, arrays_of
from torch.testing._internal.common_methods_invocations import op_db

import npconv

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

SAMPLES = {"conv_transpose1d": 10, "conv_transpose2d": 12, "conv_transpose3d": 10, "unfold": 163}
MORE = {name: next(op for op in op_db if op.name == f"nn.functional.{name}") for name in SAMPLES}
ALL = {**OPS, **MORE}
TRANSPOSED = [name for name in SAMPLES if "transpose" in name]
CANDIDATES = [("numpy", "im2col"), ("numba", "auto"), *[("numba", name) for name in TEXTBOOK if name != "im2col"]]


@cache
def samples_of(function, dtype):
    return list(ALL[function].sample_inputs("cpu", getattr(torch, dtype)))


def wide(tensor):
    if not isinstance(tensor, torch.Tensor):
        return tensor
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)


@cache
def transposed(function, dtype):
    """Each sample with its reference, torch's result in float64 or complex128, and Σ|x||w|."""
    conv, found = getattr(torch.nn.functional, function), []
    for sample in samples_of(function, dtype):
        tensors = [wide(t) for t in (sample.input, *sample.args)]
        magnitude = conv(*(None if t is None else t.abs() for t in tensors), **sample.kwargs)
        found.append((sample, conv(*tensors, **sample.kwargs).numpy(), magnitude.numpy()))
    return found


def passed(samples, check):
    failures = []
    for sample in samples:
        try:
            check(*sample)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {str(error)[:300]}")
    return failures


@pytest.mark.parametrize(("backend", "algorithm"), CANDIDATES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", TRANSPOSED)
def test_transposed_samples(function, dtype, backend, algorithm, count_samples):
    samples = transposed(function, dtype)
    assert len(samples) == SAMPLES[function], f"PyTorch has {len(samples)} samples now: see what is new"

    def check(sample, want, magnitude):
        arrays = arrays_of(sample)
        got = getattr(npconv, function)(*arrays, **sample.kwargs, backend=backend, algorithm=algorithm)
        about = f"{function} {[None if a is None else a.shape for a in arrays]} {sample.kwargs} {dtype}"
        if named(dtype).kind in "iu":
            return assert_same(got, cast(want, named(dtype)), about)
        assert got.dtype == named(dtype)
        products = arrays[1][:, 0].size
        own = accuracy_bound(products, magnitude, want, want.dtype)
        return assert_within(got, want, accuracy_bound(products, magnitude, want, got.dtype) + own, about)

    failures = passed(samples, check)
    count_samples(function, dtype, f"{backend} {algorithm}", len(samples) - len(failures), len(samples))
    assert not failures, f"{len(failures)} of {len(samples)} samples:\n" + "\n".join(failures)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unfold_samples(dtype, count_samples):
    """Elements are copied: unfold is exact. And fold of each is torch's, in float64 where torch has no other."""
    samples = [(sample,) for sample in samples_of("unfold", dtype)]
    assert len(samples) == SAMPLES["unfold"], f"PyTorch has {len(samples)} samples now: see what is new"

    def check(sample):
        tensor = wide(sample.input)
        want = torch.nn.functional.unfold(tensor, *sample.args, **sample.kwargs)
        x = sample.input.view(torch.int16).numpy().view(named(dtype)) if dtype == "bfloat16" else sample.input.numpy()
        assert_same(npconv.unfold(x, *sample.args, **sample.kwargs), cast(want.numpy(), named(dtype)), sample.kwargs)
        back = torch.nn.functional.fold(want, tensor.shape[-2:], *sample.args, **sample.kwargs).numpy()
        got = npconv.fold(want.numpy(), tuple(tensor.shape[-2:]), *sample.args, **sample.kwargs)
        np.testing.assert_allclose(got, back, rtol=1e-13, atol=1e-13)

    failures = passed(samples, check)
    count_samples("unfold", dtype, "numpy", len(samples) - len(failures), len(samples))
    assert not failures, f"{len(failures)} of {len(samples)} samples:\n" + "\n".join(failures)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("function", [name for name in ALL if name != "unfold"])
def test_gradients_of_samples(function, dtype, backend, count_samples):
    """autograd's gradients of input, weight and bias, through torch's own function and arguments."""
    samples = [(sample,) for sample in samples_of(function, dtype)]

    def check(sample):
        tensors = [None if t is None else t.detach().clone().requires_grad_() for t in (sample.input, *sample.args)]
        y = getattr(torch.nn.functional, function)(*tensors, **sample.kwargs)
        incoming = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
        wanted = [t for t in tensors if t is not None]
        want = [g.resolve_conj().numpy() for g in torch.autograd.grad(y, wanted, incoming)]
        x, w, go = (t.detach().numpy() for t in (*tensors[:2], incoming))
        grad, options = npconv.grad, {**sample.kwargs, "backend": backend}
        got = [getattr(grad, f"{function}_input")(x.shape, w, go, **options)]
        got.append(getattr(grad, f"{function}_weight")(x, w.shape, go, **options))
        got.append(getattr(grad, f"{function}_bias")(go))
        for mine, theirs in zip(got, want, strict=False):
            assert mine.shape == theirs.shape
            scale = np.abs(theirs).max(initial=1)
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-13 * scale * max(go.size, 64))

    failures = passed(samples, check)
    count_samples(f"gradients of {function}", dtype, backend, len(samples) - len(failures), len(samples))
    assert not failures, f"{len(failures)} of {len(samples)} samples:\n" + "\n".join(failures)


@pytest.mark.parametrize("function", SAMPLES)
def test_pytorch_has_no_bad_calls_of_these(function):
    """When it has, they belong here, as in test_opinfo."""
    assert ALL[function].error_inputs_func is None

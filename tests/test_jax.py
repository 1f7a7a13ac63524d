"""A second opinion: JAX's reference implementation, which is pure NumPy and shares nothing with torch's kernels."""

import numpy as np
import oracle
from checks import assert_same, call, small_integers
from corpus import Case
from hypothesis import given
from hypothesis import strategies as st
from jax._src import lax_reference
from strategies import cases

import npconv

seeds = st.integers(0, 2**32 - 1)


def by_groups(case, x, weight, padding, stride, base_dilation, dilation):
    """JAX's convolution, which has no groups, of each group."""
    parts = zip(np.split(x, case.groups, 1), np.split(weight, case.groups, 0), strict=True)
    return np.concatenate(
        [lax_reference.conv_with_general_padding(a, b, stride, padding, base_dilation, dilation) for a, b in parts], 1
    )


@given(cases(modes=("zeros",), kinds=("batched",)), st.booleans(), seeds)
def test_convolution(case: Case, complex_, seed):
    x, weight, bias = small_integers(case, seed, complex_)
    if 0 in (case.batch, case.channels, case.filters):
        return
    first = np.moveaxis(x, -1, 1) if case.channels_last else x
    want = by_groups(case, first, weight, oracle.pads(case), case.stride, (1,) * case.rank, case.dilation)
    if bias is not None:
        want = want + bias.reshape(-1, *(1,) * case.rank)
    if case.channels_last:
        want = np.moveaxis(want, 1, -1)
    # By default transforms may be chosen, which round.
    assert_same(call(case, (x, weight, bias), precision="strict"), want, f"{case} seed {seed}")
    np.testing.assert_allclose(call(case, (x, weight, bias)), want, atol=1e-11)


@given(cases(modes=("zeros",), names=(), kinds=("batched",)), seeds, st.data())
def test_transposed_convolution(case: Case, seed, data):
    """JAX writes it as a convolution of an input with zeros between its elements, of a flipped kernel."""
    if 0 in (case.batch, case.channels, case.filters):
        return
    rng = np.random.default_rng(seed)
    z = rng.integers(-4, 5, (case.batch, case.filters, *case.size)).astype(float)
    weight = rng.integers(-4, 5, case.weight_shape).astype(float)
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(case.stride, case.dilation, strict=True))
    pads = [
        ((k - 1) * d - before, (k - 1) * d - after + more)
        for k, d, (before, after), more in zip(case.kernel, case.dilation, case.padding, extra, strict=True)
    ]
    size = [
        (n - 1) * s + 1 + sum(pad) - (k - 1) * d
        for n, s, pad, k, d in zip(case.size, case.stride, pads, case.kernel, case.dilation, strict=True)
    ]
    if min(size) < 1:
        return
    filters, channels = case.filters // case.groups, case.channels // case.groups
    swapped = weight.reshape(case.groups, filters, channels, -1).swapaxes(1, 2)[..., ::-1]
    swapped = swapped.reshape(case.channels, filters, *case.kernel)
    # JAX cuts a negative end where it would be without the padding before it: here it comes off the result.
    positive = [(max(before, 0), max(after, 0)) for before, after in pads]
    want = by_groups(case, z, swapped, positive, (1,) * case.rank, case.stride, case.dilation)
    kept = (slice(max(-before, 0), max(-before, 0) + n) for (before, _), n in zip(pads, size, strict=True))
    want = want[(..., *kept)]
    function = getattr(npconv, f"conv_transpose{case.rank}d")
    arguments = z, weight, None, case.stride, case.padding, extra, case.groups, case.dilation
    assert_same(function(*arguments, precision="strict"), want, f"{case} output_padding {extra} seed {seed}")
    np.testing.assert_allclose(function(*arguments), want, atol=1e-11)

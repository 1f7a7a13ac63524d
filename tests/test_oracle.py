"""The oracle agrees with torch, and with numbers worked out by hand."""

import numpy as np
import oracle
import pytest
import torch
from checks import assert_same, seed_of, small_integers, torch_conv
from corpus import SMALL, parse


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_oracle_is_torch(text, complex_):
    case, seed = parse(text), seed_of(text)
    arrays = small_integers(case, seed, complex_)
    got = oracle.wrapped(oracle.convolve(case, *arrays), arrays[0].dtype)
    assert_same(got, torch_conv(case, *arrays), f"{text} seed {seed}")


def test_by_hand():
    case = parse("iw4kw2sw2pw1:0")
    x, w = np.array([[[1, 2, 3, 4]]]), np.array([[[10, 1]]])
    assert oracle.convolve(case, x, w, None).tolist() == [[[1, 23]]]


@pytest.mark.parametrize(
    ("mode", "want"),
    [("zeros", "..abc.."), ("replicate", "aaabccc"), ("reflect", "cbabcba"), ("circular", "bcabcab")],
)
def test_padding_modes_by_hand(mode, want):
    seen = [oracle.source(index, 3, mode) for index in range(-2, 5)]
    assert "".join("." if at is None else "abc"[at] for at in seen) == want


def test_integers_wrap():
    values = np.array([127, 128, 255, 256, -129], object)
    assert oracle.wrapped(values, np.dtype("int8")).tolist() == [127, -128, -1, 0, 127]
    assert oracle.wrapped(values, np.dtype("uint8")).tolist() == [127, 128, 255, 0, 127]
    assert oracle.wrapped(np.array([2**64 + 3, -1], object), np.dtype("uint64")).tolist() == [3, 2**64 - 1]


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch copies the input
@pytest.mark.parametrize("text", ["ih5iw6kh3kw4dw2", "ih6iw4kh4kw3", "ih4iw7kh2kw3dh3"])
def test_same_is_torchs(text):
    case = parse(text + "+same")
    x, w, _ = small_integers(case, seed_of(text))
    want = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding="same", dilation=case.dilation)
    got = oracle.wrapped(oracle.convolve(case, x, w, None), x.dtype)
    assert_same(got, want.numpy(), text)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes_are_those_of_torchs_layer(mode):
    case = parse("mb2ic2oc3ih5iw6kh3kw2ph2pw1sw2")
    case = parse(f"{case}+{mode}") if mode != "zeros" else case
    x, w, _ = small_integers(case, 1)
    layer = torch.nn.Conv2d(2, 3, (3, 2), case.stride, (2, 1), bias=False, padding_mode=mode, dtype=torch.float64)
    layer.weight.data = torch.from_numpy(w)
    want = layer(torch.from_numpy(x)).detach().numpy()
    assert_same(oracle.wrapped(oracle.convolve(case, x, w, None), x.dtype), want, case)

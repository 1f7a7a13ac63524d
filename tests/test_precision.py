"""`precision`: an argument of every function, and a default that is set for good or for a while."""

import threading

import numpy as np
import pytest
from checks import assert_same

import npconv
from npconv import registry

X, W = np.arange(12.0).reshape(1, 2, 6), np.arange(12.0).reshape(2, 2, 3)
CALLS = {
    "conv1d": lambda **p: npconv.conv1d(X, W, **p),
    "conv2d": lambda **p: npconv.conv2d(X[0], W[0], **p),
    "conv3d": lambda **p: npconv.conv3d(X[None, None], W[None, None, :1, :1], **p),
    "conv_transpose1d": lambda **p: npconv.conv_transpose1d(X, W, **p),
    "conv_transpose2d": lambda **p: npconv.conv_transpose2d(X[None], W[None, :1], **p),
    "conv_transpose3d": lambda **p: npconv.conv_transpose3d(X[None, None], W[None, None], **p),
    "Conv1d": lambda **p: npconv.Conv1d(W, **p)(X),
    "ConvTranspose1d": lambda **p: npconv.ConvTranspose1d(W, **p)(X),
    "conv1d_input": lambda **p: npconv.grad.conv1d_input(X.shape, W, np.ones((1, 2, 4)), **p),
    "conv1d_weight": lambda **p: npconv.grad.conv1d_weight(X, W.shape, np.ones((1, 2, 4)), **p),
    "conv_transpose1d_input": lambda **p: npconv.grad.conv_transpose1d_input(X.shape, W, np.ones((1, 2, 8)), **p),
    "conv_transpose1d_weight": lambda **p: npconv.grad.conv_transpose1d_weight(X, W.shape, np.ones((1, 2, 8)), **p),
}


@pytest.fixture(autouse=True)
def _default_again():
    yield
    npconv.set_default_precision("default")


@pytest.mark.parametrize("name", CALLS)
def test_argument(name):
    strict = CALLS[name](precision="strict")
    assert_same(strict, CALLS[name](precision=None), "exact data")
    assert_same(strict, CALLS[name](precision="default"), "exact data")
    with npconv.set_default_precision("strict"):
        assert_same(CALLS[name](), strict, "the default")
    with pytest.raises(ValueError, match="precision must be one of default, strict; got 'exact'"):
        CALLS[name](precision="exact")
    for value in (1, True, b"strict"):
        with pytest.raises(TypeError, match="precision must be a string"):
            CALLS[name](precision=value)


def test_function():
    assert npconv.get_default_precision() == "default"
    npconv.set_default_precision("strict")
    assert npconv.get_default_precision() == "strict"
    npconv.set_default_precision("strict")
    npconv.set_default_precision("default")
    assert npconv.get_default_precision() == "default"


def test_context_manager():
    with npconv.set_default_precision("strict"):
        assert npconv.get_default_precision() == "strict"
        with npconv.set_default_precision("default"):
            assert npconv.get_default_precision() == "default"
        assert npconv.get_default_precision() == "strict"
    assert npconv.get_default_precision() == "default"
    with pytest.raises(KeyError), npconv.set_default_precision("strict"):
        raise KeyError
    assert npconv.get_default_precision() == "default"


def test_it_is_the_processs():
    seen = []
    with npconv.set_default_precision("strict"):
        thread = threading.Thread(target=lambda: seen.append(npconv.get_default_precision()))
        thread.start()
        thread.join()
    assert seen == ["strict"]


def test_errors_change_nothing():
    npconv.set_default_precision("strict")
    for value, error in (("exact", ValueError), (None, TypeError), (1, TypeError)):
        with pytest.raises(error, match="precision"):
            npconv.set_default_precision(value)
        assert npconv.get_default_precision() == "strict"


def test_strict_rules_out_what_transforms(monkeypatch):
    """Whatever is not direct is refused, by name and by auto, when strict is asked for or is the default."""
    entries = list(npconv.algorithms("numpy"))
    fake = [type(e)(**vars(e) | {"direct": e.name == "loop"}) for e in entries]
    monkeypatch.setattr(registry, "candidates", lambda backend: tuple(fake))
    shapes = "conv1d", (1, 2, 97), (2, 2, 3)
    assert npconv.explain(*shapes, backend="numpy").algorithm == "im2col"
    found = npconv.explain(*shapes, backend="numpy", precision="strict")
    assert found.algorithm == "loop"
    assert "strict" in found.refusals["numpy", "im2col"]
    with npconv.set_default_precision("strict"):
        assert npconv.explain(*shapes, backend="numpy", dtype="float64").algorithm == "loop"
        assert npconv.explain(*shapes, backend="numpy", precision="default", dtype="float64").algorithm == "im2col"
    with pytest.raises(ValueError, match=r"im2col.*strict.*loop can"):
        npconv.explain(*shapes, backend="numpy", precision="strict", algorithm="im2col")

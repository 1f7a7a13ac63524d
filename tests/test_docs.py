"""Every public name says what it takes and gives, and shows an example that pytest runs."""

import inspect

import pytest

import npconv

NAMES = [name for name in npconv.__all__ if callable(getattr(npconv, name))]
GRADIENTS = list(npconv.grad.__all__)


@pytest.mark.parametrize("name", [*NAMES, *(f"grad.{name}" for name in GRADIENTS)])
def test_docstring(name):
    value = npconv
    for part in name.split("."):
        value = getattr(value, part)
    text = inspect.getdoc(value)
    assert text is not None
    assert ">>> " in text, f"{name} shows no example"
    if inspect.isfunction(value):
        assert "Returns\n-------" in text or inspect.signature(value).return_annotation in ("None", "Iterator[None]")
        if inspect.signature(value).parameters:
            assert "Parameters\n----------" in text, f"{name} does not say what it takes"
            assert "Raises\n------" in text, f"{name} does not say what it refuses"


COMPUTING = [name for name in NAMES if name.lower().startswith("conv") or name == "explain"]


@pytest.mark.parametrize("name", [*COMPUTING, *(f"grad.{name}" for name in GRADIENTS if "bias" not in name)])
def test_a_backend_may_be_missing(name):
    value = getattr(npconv.grad, name[5:]) if name.startswith("grad.") else getattr(npconv, name)
    text = inspect.getdoc(value)
    assert "CudaUnavailableError" in text or "everything else is as for `Conv" in text

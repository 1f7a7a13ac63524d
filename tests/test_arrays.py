"""Arrays of any making: strides, byte order, alignment, read-only, other libraries' arrays, and `out`."""

import sys

import numpy as np
import pytest
import torch
from checks import (
    BACKENDS,
    DTYPES,
    ENGINES,
    assert_same,
    call,
    cast,
    exact,
    frozen,
    named,
    poison,
    seed_of,
    small_integers,
    torch_conv,
)  # fmt: skip
from corpus import parse

import npconv
from npconv.arguments import as_array


def as_is(array):
    return array


def reversed_memory(array):
    """Negative strides on every axis."""
    flip = (slice(None, None, -1),) * array.ndim
    return array[flip].copy()[flip]


def spread(array):
    """Every second, third and so on element of a larger array, of which the rest is poison."""
    larger = poison(np.empty([n * (2 + axis % 2) + 1 for axis, n in enumerate(array.shape)], array.dtype))
    view = larger[tuple(slice(1, 1 + n * (2 + axis % 2), 2 + axis % 2) for axis, n in enumerate(array.shape))]
    view[...] = array
    return view


def fortran(array):
    return np.asfortranarray(array)


def rotated(array):
    """Axes in memory in an order of their own."""
    order = [*range(1, array.ndim), 0]
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def misaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    view = memory.view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned or array.itemsize == 1
    return view


def foreign(array):
    """The other byte order."""
    return array.astype(array.dtype.newbyteorder(">" if sys.byteorder == "little" else "<"))


def subclass(array):
    return array.view(type("Subclass", (np.ndarray,), {}))


MAKINGS = [reversed_memory, spread, fortran, rotated, misaligned, foreign, subclass]
TEXTS = [
    "mb2g2ic4oc6ih5iw6kh3ph1+bias",
    "mb2ic3oc4ih7iw6kh3kw2sh2",  # nothing to pad, so nothing is copied on the way but for the making
    "mb2ic3oc4ih6iw5kh3+last+bias",
    "ih6iw5kh3+image",
    "ic2oc3ih5iw6kh3ph1+reflect",
]


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("making", MAKINGS)
@pytest.mark.parametrize("dtype", ["float32", "int16", "complex128", "float16"])
def test_inputs_of_any_making(making, dtype, backend, algorithm):
    for text in TEXTS:
        arrays, want = exact(text, dtype)
        made = tuple(None if array is None else frozen(making(array)) for array in arrays)
        got = call(parse(text), made, backend=backend, algorithm=algorithm)
        assert_same(got, want, f"{text} {dtype} seed {seed_of(text)}")
        for array, original in zip(made, arrays, strict=True):
            assert array is None or np.array_equal(array, original), f"{text}: an argument was changed"


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
def test_zero_strides(backend, algorithm):
    case = parse("mb2ic3oc4ih5iw6kh3ph1+bias")
    x = np.broadcast_to(np.arange(6.0), case.input_shape)
    w = np.broadcast_to(np.arange(1.0, 4.0)[:, None, None], case.weight_shape)
    b = np.broadcast_to(np.float64(5), (4,))
    want = torch_conv(case, *map(np.array, (x, w, b)))
    assert_same(call(case, (x, w, b), backend=backend, algorithm=algorithm), want, case)


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@pytest.mark.parametrize("making", [as_is, *MAKINGS])
@pytest.mark.parametrize("dtype", ["float32", "int16", "complex128", "float16"])
def test_out_of_any_making(making, dtype, backend, algorithm):
    for text in TEXTS:
        arrays, want = exact(text, dtype)
        out = poison(making(np.zeros(want.shape, named(dtype))))
        got = call(parse(text), arrays, backend=backend, algorithm=algorithm, out=out)
        assert got is out
        assert_same(np.asarray(out).astype(want.dtype), want, f"{text} {dtype} seed {seed_of(text)}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_leaves_what_lies_between_its_elements(backend):
    case = parse("mb2ic3oc4ih5iw6kh3ph1")
    arrays, want = exact(str(case), "float32")
    memory = np.full((2, 9, 5, 12), 77, np.float32)
    got = call(case, arrays, backend=backend, out=memory[:, 1::2, :, ::-2])
    assert_same(got.copy(), want, case)
    memory[:, 1::2, :, ::-2] = 77
    assert (memory == 77).all()


def test_out_between_the_inputs_elements():
    """Interleaved arrays touch the same stretch of memory, but share none of it."""
    memory = np.zeros((1, 1, 10), np.float32)
    x, out = memory[..., ::2], memory[..., 1:8:2]
    x[...] = [1, 2, 3, 4, 5]
    npconv.conv1d(x, np.ones((1, 1, 2), np.float32), out=out)
    assert memory.tolist() == [[[1, 3, 2, 5, 3, 7, 4, 9, 5, 0]]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
def test_poisoned_memory(monkeypatch, dtype, backend, algorithm):
    """Memory from `numpy.empty` holds anything; no element may be read before it is written."""
    arrays, _ = exact(TEXTS[0], dtype)
    call(parse(TEXTS[0]), arrays, backend=backend, algorithm=algorithm)  # Numba compiles by the true numpy.empty
    empty = np.empty
    monkeypatch.setattr(np, "empty", lambda *args, **kwargs: poison(empty(*args, **kwargs)))
    for text in (*TEXTS, "mb2ic3oc2iw9kw3+last+bias", "mb2ic0oc3ih5kh3", "ic2oc3ih6iw7kh4kw2+same"):
        arrays, want = exact(text, dtype)
        assert_same(call(parse(text), arrays, backend=backend, algorithm=algorithm), want, f"{text} {dtype}")


def test_results_own_their_memory():
    x = np.ones((1, 1, 3, 3))
    for backend in BACKENDS:
        got = npconv.conv2d(x, np.ones((1, 1, 1, 1)), backend=backend)
        assert not np.shares_memory(got, x)
        assert got.flags.c_contiguous
        assert got.flags.writeable


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "complex64", "complex128", "int8", "int16", "int32", "int64", "uint8"]
)
def test_torch_tensors(dtype):
    case = parse("mb2ic3oc4ih5iw6kh3ph1+bias")
    arrays, want = exact(str(case), dtype)
    tensors = tuple(torch.from_numpy(array.copy()) for array in arrays)
    for backend in BACKENDS:
        assert_same(call(case, tensors, backend=backend), want, dtype)


def test_torch_tensors_of_any_strides():
    case = parse("mb2ic3oc4ih5iw6kh3ph1")
    x, w, _ = small_integers(case, 1)
    t = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
    assert_same(npconv.conv2d(t, torch.from_numpy(w), padding=1), torch_conv(case, x, w, None), case)
    strided = torch.from_numpy(np.repeat(x, 2, axis=-1))[..., ::2]
    assert_same(npconv.conv2d(strided, torch.from_numpy(w), padding=1), torch_conv(case, x, w, None), case)


def test_tensors_are_taken_without_a_copy():
    tensor = torch.zeros(2, 3)
    view = as_array("input", tensor)
    tensor[1, 2] = 7
    assert view[1, 2] == 7
    array = np.zeros(3)
    assert as_array("input", array) is array


class DLPackOnly:
    """A CPU array of a library that npconv knows nothing of."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class InterfaceOnly:
    def __init__(self, array):
        self.__array_interface__ = array.__array_interface__
        self._array = array


@pytest.mark.parametrize("wrap", [DLPackOnly, InterfaceOnly, memoryview, np.ndarray.tolist])
def test_arrays_of_other_libraries(wrap):
    case = parse("mb2ic3oc4ih5iw6kh3ph1")
    x, w, _ = small_integers(case, 1)
    assert_same(npconv.conv2d(wrap(x), wrap(w), padding=1), torch_conv(case, x, w, None), case)


def test_arrays_that_dlpack_does_not_know():
    """JAX gives its bfloat16 as an array, though not by DLPack."""
    jax_numpy = pytest.importorskip("jax.numpy")
    x, w = (jax_numpy.ones(shape, "bfloat16") for shape in ((1, 2, 4, 4), (3, 2, 3, 3)))
    found = npconv.conv2d(x, w)
    assert found.dtype == np.asarray(x).dtype
    assert (found == 18).all()


def test_memory_maps(tmp_path):
    case = parse("mb2ic3oc4ih5iw6kh3")
    x, w, _ = small_integers(case, 1)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    out = np.memmap(tmp_path / "out", x.dtype, "w+", shape=(2, 4, 3, 4))
    for backend in BACKENDS:
        assert npconv.conv2d(mapped, w, out=out, backend=backend) is out
        assert_same(np.asarray(out), torch_conv(case, x, w, None), case)


def test_matrices_are_images():
    """An np.matrix is taken as the array that it holds; the result is an ndarray."""
    with pytest.warns(PendingDeprecationWarning):
        x = np.matrix([[1.0, 2], [3, 4]])
    assert_same(npconv.conv2d(x, [[1.0, 1]]), np.array([[3.0], [7]]), "matrix")


@pytest.mark.parametrize("backend", BACKENDS)
def test_read_only_views_are_not_made_writeable(backend):
    """The kernels see read-only memory as ordinary; the caller's flag stays."""
    x = frozen(cast(np.ones((1, 1, 4, 4)), np.dtype("float32")))
    npconv.conv2d(x, np.ones((1, 1, 2, 2), np.float32), backend=backend)
    assert not x.flags.writeable

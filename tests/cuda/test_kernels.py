"""Results of the CUDA backend: the NumPy backend's, element by element, on data whose sums are exact."""

from __future__ import annotations

import math
import sys
import threading
import zlib

import numpy as np
import pytest
from corpus import parse
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError

import npconv
from npconv.kernels.cuda import device, im2col, jit

# The simulator computes with NumPy's scalars, which warn where a GPU wraps around or returns NaN in silence.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")

ALGORITHMS = ("loop", "flatten", "im2col")
DTYPES = (
    "float16", "float32", "float64", "complex64", "complex128",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip

PROBLEMS = (
    "mb2ic3oc2ih4kh3ph1+bias",
    "ih4iw5kh2kw3+image+bias",
    "ih4iw3kh3ph2pw1+image+reflect",
    "ic3oc4ih7kh3sh2+bias",
    "mb2g2ic4oc6ih4iw3kh3kw2ph1+bias",
    "g3ic3oc6ih4kh3sh2ph1",
    "ic2oc3ih7iw6kh3kw2dh2dw3ph0:2+bias",
    "ic2oc2ih3iw4kh2ph2pw3+reflect",
    "ic2oc2ih3iw2kh2ph1:0pw4+replicate",
    "ic2oc2ih3iw4kh2ph3pw1:4+circular",
    "ic3oc2iw8kw3sw2pw1+bias",
    "mb2g2ic4oc2iw5kw2dw2+last+bias",
    "ic2oc3id3ih4iw3kd2kh1sd1sh2sw1pd1+bias",
    "mb2ic2oc2id2ih3iw2kd2pd0ph1:0pw0+last",
    "mb2ic2oc3ih4iw3kh2+last+bias",
    "ic2oc3ih4iw3kh2ph1+last+unbatched+reflect",
    "ic2oc2ih3kh2+unbatched",
    "ic2oc2ih4kh3+same_lower+bias",
    "ic2oc2ih2kh6ph2+bias",
)

EMPTY = (
    "mb0ic3oc4ih4kh3ph1+bias",
    "mb2ic3oc0ih4kh3",
    "mb2g2ic0oc4ih4kh3ph1+bias",
    "mb2ic0oc3ih4kh3",
    "oc0id3kd2+unbatched",
    "ic2oc3ih0iw2kh3ph2",
    "ic2oc3ih0iw2kh3ph2+last+bias",
)


def poison(shape, dtype):
    """Return an array of 0xFF bytes, which are NaN in every floating-point dtype."""
    return np.full(math.prod(shape) * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Let new device arrays hold poison, and in the simulator a block's shared and a thread's local memory, too."""
    monkeypatch.setattr(jit, "empty", lambda shape, dtype: cuda.to_device(poison(shape, dtype)))
    if not jit.SIMULATED:
        return
    lock = threading.Lock()

    def shared(self, shape, dtype):
        # Numba's own asks and then allocates, so that two threads can get an array each.
        caller = sys._getframe(1)
        with lock:
            place = caller.f_code, caller.f_lineno
            if place not in self._allocations:
                self._allocations[place] = poison(shape, dtype)
            return self._allocations[place]

    monkeypatch.setattr("numba.cuda.simulator.kernelapi.FakeCUDAShared.array", shared)
    monkeypatch.setattr("numba.cuda.simulator.kernelapi.FakeCUDALocal.array", lambda _, *args: poison(*args))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Launch few threads, so that each has several turns, and take small tiles, so that tiny problems have several."""
    monkeypatch.setattr(jit, "THREADS", 4)
    monkeypatch.setattr(jit, "MAX_BLOCKS", 2)
    if jit.SIMULATED:  # a GPU's kernels keep the numbers that they were compiled with
        for name, value in {"SIDE": 2, "EACH": 2, "TILE": 4, "ROW": 5}.items():
            monkeypatch.setattr(im2col, name, value)


def data(text, dtype):
    """Input, weight and bias of small integers; in unsigned dtypes the negative ones wrap."""
    case, rng = parse(text), np.random.default_rng(zlib.crc32(text.encode()))

    def draw(*shape):
        values = rng.integers(-4, 5, shape)
        return (values + 1j * rng.integers(-4, 5, shape)).astype(dtype) if dtype[0] == "c" else values.astype(dtype)

    return case, [draw(*case.input_shape), draw(*case.weight_shape), draw(case.filters) if case.bias else None]


def conv(case, arrays, backend, algorithm, **options):
    return getattr(npconv, f"conv{case.rank}d")(
        *arrays, **case.arguments, backend=backend, algorithm=algorithm, **options
    )


def assert_as_numpy(case, arrays, algorithm, got):
    want = conv(case, arrays, "numpy", algorithm)
    assert type(got) is np.ndarray
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    np.testing.assert_array_equal(got, want)  # NaN equals NaN
    if case.products and 0 not in case.size:
        assert np.count_nonzero(want) >= want.size // 2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("text", PROBLEMS)
def test_problems(text, algorithm):
    case, arrays = data(text, "float32")
    assert_as_numpy(case, arrays, algorithm, conv(case, arrays, "cuda", algorithm))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype, algorithm):
    case, arrays = data("g2ic4oc2ih3kh2ph1+bias", dtype)
    if np.dtype(dtype).kind in "iu":
        arrays[0] *= np.array(np.iinfo(dtype).max // 3, dtype)  # sums wrap around
    assert_as_numpy(case, arrays, algorithm, conv(case, arrays, "cuda", algorithm))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bfloat16(algorithm):
    """Numba has no such dtype: it goes over and comes back as float32."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    case, arrays = data("g2ic4oc2ih3kh2ph1+bias", "float32")
    want = conv(case, arrays, "numpy", algorithm).astype(bfloat16)
    got = conv(case, [array.astype(bfloat16) for array in arrays], "cuda", algorithm)
    assert got.dtype == bfloat16
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_mixed_dtypes(algorithm):
    case, (x, w, b) = data("ic2oc2ih3kh2+last+bias", "int8")
    for arrays in ((x, w.astype("float32"), b), (x.astype("float32"), w.astype("complex64"), b.astype("float64"))):
        assert_as_numpy(case, arrays, algorithm, conv(case, arrays, "cuda", algorithm))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("text", EMPTY)
def test_empty(text, algorithm):
    case, arrays = data(text, "float32")
    assert_as_numpy(case, arrays, algorithm, conv(case, arrays, "cuda", algorithm))
    on_device = [None if array is None else cuda.to_device(array) for array in arrays]
    assert_as_numpy(case, arrays, algorithm, conv(case, on_device, "auto", algorithm).copy_to_host())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_numpy_arrays_of_every_kind(algorithm):
    """Read-only, in foreign byte order, with negative, zero and large strides, not aligned; and such an ``out``."""
    case, (x, w, b) = data("mb2ic3oc2ih4iw3kh2+bias", "float32")
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)[1:]
    shifted = bytes_.view("float32").reshape(x.shape)
    shifted[...] = x
    repeated = np.broadcast_to(x[:1, :, :1], x.shape)
    x.flags.writeable = False
    for odd in (x, x.astype(">f4"), x[::-1, :, ::-1], np.asfortranarray(x), shifted, repeated):
        arrays = (odd, w.transpose(0, 1, 3, 2), b[::-1])
        out = np.full((2, 2, 3, 2, 2), np.nan, ">f4")[..., ::-1, 0]
        assert conv(case, arrays, "cuda", algorithm, out=out) is out
        assert_as_numpy(case, arrays, algorithm, np.array(out, "f4"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("text", ["mb2ic3oc2ih4iw3kh2+bias", "mb2ic3oc2ih4iw3kh2ph1+last+bias", "ih4kh3+image"])
def test_device_arrays(text, algorithm):
    """A device array comes back for a device array; weight and bias may be on either side."""
    case, arrays = data(text, "float32")
    want = conv(case, arrays, "numpy", algorithm)
    x, *rest = [None if array is None else cuda.to_device(array) for array in arrays]
    for others in (rest, arrays[1:]):
        got = conv(case, (x, *others), "auto", algorithm)
        assert not isinstance(got, np.ndarray)
        assert_as_numpy(case, arrays, algorithm, got.copy_to_host())
    out = cuda.to_device(np.full(want.shape, np.nan, "float32"))
    assert conv(case, (x, *rest), "auto", algorithm, out=out) is out
    assert_as_numpy(case, arrays, algorithm, out.copy_to_host())
    np.testing.assert_array_equal(x.copy_to_host(), arrays[0])


def every_second(array):
    """Every second element of the last axis; an array on a GPU, unlike the simulator's, takes no Ellipsis."""
    return array[(*(slice(None),) * (array.ndim - 1), slice(None, None, 2))]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_device_arrays_with_strides(algorithm):
    case, arrays = data("mb2ic3oc2ih4iw3kh2+bias", "float32")
    x, w, b = (every_second(cuda.to_device(np.repeat(array, 2, axis=-1))) for array in arrays)
    room = cuda.to_device(np.full((2, 2, 3, 4), np.nan, "float32"))
    out = every_second(room)
    assert conv(case, (x, w, b), "auto", algorithm, out=out) is out
    assert_as_numpy(case, arrays, algorithm, np.ascontiguousarray(room.copy_to_host()[..., ::2]))
    assert np.isnan(room.copy_to_host()[..., 1::2]).all()


def test_input_on_the_device_follows_the_backend():
    case, (x, w, b) = data("ic3oc2ih4iw3kh2+bias", "float32")
    with pytest.raises(TypeError, match="input is on a CUDA device"):
        conv(case, (cuda.to_device(x), w, b), "numpy", "loop")
    with pytest.raises(TypeError, match="out must be a device array"):
        conv(case, (cuda.to_device(x), w, b), "cuda", "loop", out=np.zeros((1, 2, 3, 2), "float32"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nan_and_infinity(algorithm):
    case, arrays = data("ic2oc2ih5kh2ph1+bias", "float32")
    arrays[0][0, 0, 1, 1], arrays[0][0, 1, 3, 3], arrays[1][1, 1, 0, 0] = np.nan, np.inf, -np.inf
    assert_as_numpy(case, arrays, algorithm, conv(case, arrays, "cuda", algorithm))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("channels", "taps"), [(1, 500), (500, 1), (20, 25)])
def test_long_sums_are_accurate(channels, taps, algorithm):
    """Products that are all alike, so that a single chain of additions breaks the promise."""
    x, w = np.full((1, channels, taps), np.float32(0.57)), np.ones((1, channels, taps), np.float32)
    exact = 500 * float(np.float32(0.57))
    bound = (8 + 500**0.5) * np.finfo(np.float32).eps * exact
    assert abs(np.cumsum((x * w).ravel(), dtype=np.float32)[-1] - exact) > bound
    assert abs(npconv.conv1d(x, w, algorithm=algorithm, backend="cuda").item() - exact) < bound


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_grids_and_tiles_of_a_gpu(algorithm, monkeypatch):
    monkeypatch.undo()
    case, arrays = data("ic2oc3ih4iw3kh3ph1+bias", "float32")
    assert_as_numpy(case, arrays, algorithm, conv(case, arrays, "cuda", algorithm))


def test_want_of_memory(monkeypatch):
    monkeypatch.undo()  # of poison
    with pytest.raises(MemoryError, match="bytes does not fit"):
        jit.empty((2**31, 2**31), np.float64)

    def full(*_):
        raise CudaAPIError(2, "Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(jit.cuda, "device_array", full)
    with pytest.raises(MemoryError, match="4 bytes does not fit"):
        jit.empty((1,), np.float32)


def test_copies_where_need_be():
    room = cuda.to_device(np.zeros((2, 3, 1, 4, 10), np.float32))
    x, part = room[:1], every_second(room)
    assert device.contiguous(x, np.dtype("float32")) is x
    for copy in (device.contiguous(part, np.dtype("float32")), device.contiguous(x, np.dtype("float64"))):
        assert copy is not x
        assert copy.is_c_contiguous()
    padding = ((0, 0), (0, 0), (0, 1))
    assert device.padded(x, padding, "zeros", np.dtype("float32")).shape == (1, 3, 1, 4, 11)

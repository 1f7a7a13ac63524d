"""Each bad call costs a clear error: its type, and a message that names the argument, what was given and what would do.

An error comes before anything is computed: `out` stays as it was.
"""

import sys
import tracemalloc

import numpy as np
import pytest
import torch
from checks import BACKENDS, ENGINES, poison
from processes import python

import npconv


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def good(**changes):
    """Arguments of a good call, (2, 3, 5, 6) by (4, 3, 3, 3), but for the changes."""
    arguments = {"input": zeros(2, 3, 5, 6), "weight": zeros(4, 3, 3, 3), "bias": zeros(4)}
    return arguments | changes


SHAPES = {
    "input of 1 axis": (good(input=zeros(5)), ["input", "4 axes", "3 axes", "(5,)"]),
    "input of 5 axes": (good(input=zeros(1, 2, 3, 5, 6)), ["input", "4 axes", "(1, 2, 3, 5, 6)"]),
    "a scalar input": (good(input=np.float32(1)), ["input", "4 axes", "()"]),
    "an image with a filter bank": (good(input=zeros(5, 6)), ["input", "(H, W)", "(5, 6)"]),
    "a batch with one kernel": (good(weight=zeros(3, 3)), ["weight", "4 axes", "(3, 3)"]),
    "weight of 3 axes": (good(weight=zeros(4, 3, 3)), ["weight", "4 axes", "(4, 3, 3)"]),
    "weight of 5 axes": (good(weight=zeros(4, 3, 3, 3, 3)), ["weight", "4 axes", "(4, 3, 3, 3, 3)"]),
    "too few channels in weight": (good(weight=zeros(4, 2, 3, 3)), ["weight", "3 channels", "(4, 2, 3, 3)"]),
    "channels last not said": (good(input=zeros(2, 5, 6, 3)), ["input", "5 channels", "weight"]),
    "channels last wrongly said": (good(data_format="channels_last"), ["input", "6 channels", "weight"]),
    "groups do not divide channels": (good(groups=2), ["groups is 2", "3 channels", "weight"]),
    "groups do not divide filters": (good(weight=zeros(4, 1, 3, 3), groups=3), ["groups", "4 output channels", "3"]),
    "more groups than channels": (good(weight=zeros(4, 0, 3, 3), groups=6), ["groups is 6", "3 channels"]),
    "an empty kernel": (good(weight=zeros(4, 3, 0, 3)), ["weight", "at least one", "(4, 3, 0, 3)"]),
    "bias of another length": (good(bias=zeros(3)), ["bias", "(4,)", "(3,)"]),
    "bias of one value": (good(bias=zeros(1)), ["bias", "(4,)", "(1,)"]),
    "a scalar bias": (good(bias=1.0), ["bias", "(4,)", "()"]),
    "bias of 4 axes": (good(bias=zeros(1, 4, 1, 1)), ["bias", "(4,)", "(1, 4, 1, 1)"]),
    "a large kernel": (good(weight=zeros(4, 3, 6, 3)), ["kernel", "(6, 3)", "(5, 6)", "padding"]),
    "a large dilation": (good(dilation=3), ["kernel", "dilation", "(3, 3)", "(7, 7)", "(5, 6)"]),
    "larger than with padding": (good(weight=zeros(4, 3, 8, 3), padding=1), ["kernel", "(8, 3)", "(7, 8)"]),
    "one axis too small": (good(weight=zeros(4, 3, 3, 7)), ["kernel", "(3, 7)", "(5, 6)"]),
    "an empty batch too small for the kernel": (good(input=zeros(0, 3, 2, 6)), ["kernel", "(3, 3)", "(2, 6)"]),
    "no filters, and too small": (good(input=zeros(2, 3, 2, 6), weight=zeros(0, 3, 3, 3), bias=None), ["kernel"]),
    "no channels, and too small": (good(input=zeros(2, 0, 2, 6), weight=zeros(4, 0, 3, 3)), ["kernel", "(2, 6)"]),
    "an empty image": (good(input=zeros(2, 3, 0, 6)), ["kernel", "(0, 6)"]),
}

VALUES = {
    "stride 0": (good(stride=0), ["stride", "at least 1", "0"]),
    "stride -1": (good(stride=(1, -1)), ["stride", "at least 1", "-1"]),
    "three strides": (good(stride=(1, 1, 1)), ["stride", "2 of them", "(1, 1, 1)"]),
    "no strides": (good(stride=()), ["stride", "2 of them", "()"]),
    "dilation 0": (good(dilation=0), ["dilation", "at least 1", "0"]),
    "three dilations": (good(dilation=[1, 1, 1]), ["dilation", "2 of them", "[1, 1, 1]"]),
    "groups 0": (good(groups=0), ["groups", "at least 1", "0"]),
    "groups -1": (good(groups=-1), ["groups", "at least 1", "-1"]),
    "padding -1": (good(padding=-1), ["padding", "at least 0", "-1"]),
    "padding -1 in a pair": (good(padding=((0, 0), (1, -1))), ["padding", "at least 0", "-1"]),
    "three paddings": (good(padding=(1, 1, 1)), ["padding", "2 of them", "(1, 1, 1)"]),
    "four paddings": (good(padding=(1, 1, 1, 1)), ["padding", "(before, after)", "(1, 1, 1, 1)"]),
    "three pairs": (good(padding=((1, 1),) * 3), ["padding", "(before, after)", "((1, 1), (1, 1), (1, 1))"]),
    "a triple": (good(padding=((1, 1, 1), (1, 1, 1))), ["padding", "(before, after)", "(1, 1, 1)"]),
    "a pair of one": (good(padding=((1,), (1,))), ["padding", "(before, after)", "(1,)"]),
    "padding of an unknown name": (good(padding="full"), ["padding", "same_upper", "valid", "'full'"]),
    "padding in capitals": (good(padding="SAME"), ["padding", "same", "'SAME'"]),
    "same with a stride": (good(padding="same", stride=2), ["padding", "stride", "(2, 2)", "same_upper"]),
    "same with one stride": (good(padding="same", stride=(1, 2)), ["padding", "stride", "(1, 2)", "same_upper"]),
    "an unknown padding mode": (good(padding_mode="symmetric"), ["padding_mode", "reflect", "'symmetric'"]),
    "an unknown data format": (good(data_format="NHWC"), ["data_format", "channels_last", "'NHWC'"]),
    "an unknown algorithm": (good(algorithm="fft2000"), ["algorithm", "im2col", "'fft2000'"]),
    "an unknown backend": (good(backend="torch"), ["backend", "numba", "'torch'"]),
    "reflecting all of it": (good(padding=(5, 0), padding_mode="reflect"), ["reflect", "less than 5", "(5, 5)"]),
    "reflecting after": (good(padding=((0, 0), (0, 6)), padding_mode="reflect"), ["reflect", "less than 6", "(0, 6)"]),
    "around more than once": (good(padding=(0, 7), padding_mode="circular"), ["circular", "at most 6", "(7, 7)"]),
    "around nothing": (good(input=zeros(2, 3, 0, 6), padding=2, padding_mode="circular"), ["circular", "at most 0"]),
    "repeating nothing": (good(input=zeros(2, 3, 0, 6), padding=2, padding_mode="replicate"), ["replicate", "empty"]),
    "reflecting nothing": (good(input=zeros(2, 3, 0, 6), padding=2, padding_mode="reflect"), ["reflect", "axis of 0"]),
    "a padding beyond addresses": (good(padding=10**30), ["padding", "addressed"]),
    "a padding of 2**62": (good(padding=2**62), ["padding", "addressed"]),
    "a padding of 2**63 - 1": (good(padding=((0, 2**63 - 1), (0, 0))), ["padding", "addressed"]),
    "paddings whose product is beyond": (good(padding=2**31), ["padding", "addressed"]),
    "a dilation beyond the input": (good(dilation=2**62), ["dilation", "padded input", "(5, 6)"]),
    "a dilation beyond addresses": (good(dilation=2**63), ["dilation", str(2**63)]),
    "of a kernel that has none": (good(weight=zeros(4, 3, 1, 1), dilation=10**30), ["dilation", str(10**30)]),
    "a stride beyond addresses": (good(stride=(2**63, 1)), ["stride", str(2**63)]),
    "a stride of 10**30": (good(stride=10**30, padding="same_upper"), ["stride", str(10**30)]),
    "10**30 groups": (good(groups=10**30), ["groups", str(10**30), "3 channels"]),
}

TYPES = {
    "stride 2.0": (good(stride=2.0), ["stride", "integer", "2.0"]),
    "stride True": (good(stride=True), ["stride", "integer", "True"]),
    "stride np.bool": (good(stride=(1, np.True_)), ["stride", "integer", "True"]),
    "stride np.float32": (good(stride=np.float32(1)), ["stride", "integer", "1.0"]),
    "stride of floats": (good(stride=np.array([1.0, 2.0])), ["stride", "integer", "1.0"]),
    "stride None": (good(stride=None), ["stride", "integer", "None"]),
    "stride as a string": (good(stride="11"), ["stride", "integer", "'11'"]),
    "stride as a set": (good(stride={1, 2}), ["stride", "integer", "{1, 2}"]),
    "dilation 1.5": (good(dilation=1.5), ["dilation", "integer", "1.5"]),
    "groups 1.0": (good(groups=1.0), ["groups", "integer", "1.0"]),
    "groups True": (good(groups=True), ["groups", "integer", "True"]),
    "groups in a tuple": (good(groups=(1,)), ["groups", "integer", "(1,)"]),
    "padding 1.0": (good(padding=1.0), ["padding", "integer", "1.0"]),
    "padding False": (good(padding=False), ["padding", "integer", "False"]),
    "padding None": (good(padding=None), ["padding", "integer", "None"]),
    "padding of a float in a pair": (good(padding=((0, 1.0), (0, 0))), ["padding", "integer", "1.0"]),
    "padding of strings": (good(padding=("1", "1")), ["padding", "integer", "'1'"]),
    "padding in bytes": (good(padding=b"same"), ["padding", "integer", "b'same'"]),
    "padding too deep": (good(padding=(((0, 1), 0), (0, 0))), ["padding", "integer", "(0, 1)"]),
    "padding_mode None": (good(padding_mode=None), ["padding_mode", "zeros", "None"]),
    "data_format 1": (good(data_format=1), ["data_format", "channels_last", "1"]),
    "algorithm None": (good(algorithm=None), ["algorithm", "auto", "None"]),
    "backend as a list": (good(backend=["numpy"]), ["backend", "numba", "['numpy']"]),
    "input of bools": (good(input=zeros(2, 3, 5, 6, dtype=bool)), ["input", "bool", "float32"]),
    "weight of bools": (good(weight=zeros(4, 3, 3, 3, dtype=bool)), ["weight", "bool", "float32"]),
    "bias of bools": (good(bias=zeros(4, dtype=bool)), ["bias", "bool", "float32"]),
    "input of objects": (good(input=zeros(2, 3, 5, 6, dtype=object)), ["input", "object", "float32"]),
    "input of strings": (good(input=np.full((2, 3, 5, 6), "1")), ["input", "<U1", "float32"]),
    "input of bytes": (good(input=np.full((2, 3, 5, 6), b"1")), ["input", "S1", "float32"]),
    "input of dates": (good(input=zeros(2, 3, 5, 6, dtype="M8[s]")), ["input", "datetime64", "float32"]),
    "input of records": (good(input=zeros(2, 3, 5, 6, dtype=[("r", "f4")])), ["input", "'r'", "float32"]),
    "input of long doubles": (good(input=zeros(2, 3, 5, 6, dtype=np.longdouble)), ["input", "float128", "float32"]),
    "a string": (good(input="image.png"), ["input", "float32"]),
    "None": (good(input=None), ["input", "float32"]),
    "no weight": (good(weight=None), ["weight", "float32"]),
    "a dict": (good(weight={}), ["weight", "float32"]),
    "a ragged list": (good(input=[[1, 2], [3]]), ["input", "list"]),
    "a masked array": (good(input=np.ma.masked_equal(zeros(2, 3, 5, 6), 1)), ["input", "mask", "filled"]),
    "a masked bias": (good(bias=np.ma.masked_equal(zeros(4), 1)), ["bias", "mask", "filled"]),
    "a tensor with a gradient": (good(input=torch.zeros(2, 3, 5, 6, requires_grad=True)), ["input", "Tensor", "grad"]),
    "a conjugated tensor": (good(weight=torch.zeros(4, 3, 3, 3, dtype=torch.complex64).conj()), ["weight", "Tensor"]),
    "a sparse tensor": (good(bias=torch.zeros(4).to_sparse()), ["bias", "Tensor"]),
    "a bfloat16 tensor": (good(input=torch.zeros(2, 3, 5, 6, dtype=torch.bfloat16)), ["input", "Tensor", "bfloat16"]),
    "a tensor of bools": (good(input=torch.zeros(2, 3, 5, 6, dtype=torch.bool)), ["input", "bool"]),
    "a tensor without data": (good(input=torch.zeros(2, 3, 5, 6, device="meta")), ["input", "Tensor"]),
}


class NeedsGradient:
    """What a torch tensor on a CUDA device does that requires a gradient."""

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")


TYPES["a device tensor with a gradient"] = good(input=NeedsGradient()), ["input", "NeedsGradient", "requires grad"]

OUTS = {
    "out of another shape": (ValueError, lambda x: zeros(2, 4, 3, 3), ["out", "(2, 4, 3, 4)", "(2, 4, 3, 3)"]),
    "out without a batch": (ValueError, lambda x: zeros(4, 3, 4), ["out", "(2, 4, 3, 4)", "(4, 3, 4)"]),
    "out to be broadcast": (ValueError, lambda x: zeros(1, 2, 4, 3, 4), ["out", "(2, 4, 3, 4)", "(1, 2, 4, 3, 4)"]),
    "out of float64": (TypeError, lambda x: zeros(2, 4, 3, 4, dtype=float), ["out", "float32", "float64"]),
    "out of integers": (TypeError, lambda x: zeros(2, 4, 3, 4, dtype=int), ["out", "float32", "int64"]),
    "out of objects": (TypeError, lambda x: zeros(2, 4, 3, 4, dtype=object), ["out", "float32", "object"]),
    "out as a list": (TypeError, lambda x: zeros(2, 4, 3, 4).tolist(), ["out", "NumPy array", "float32", "list"]),
    "out as a tensor": (TypeError, lambda x: torch.zeros(2, 4, 3, 4), ["out", "NumPy array", "Tensor"]),
    "out as True": (TypeError, lambda x: True, ["out", "NumPy array", "bool"]),
    "out read-only": (ValueError, lambda x: np.broadcast_to(zeros(4), (2, 4, 3, 4)), ["out", "read-only", "written"]),
    "out over itself": (
        ValueError,
        lambda x: np.lib.stride_tricks.as_strided(zeros(96), (2, 4, 3, 4), (48, 12, 4, 4)),
        ["out", "share memory", "(48, 12, 4, 4)"],
    ),
    "out with a stride of zero": (
        ValueError,
        lambda x: np.lib.stride_tricks.as_strided(zeros(96), (2, 4, 3, 4), (0, 48, 16, 4)),
        ["out", "share memory"],
    ),
    "out in the input": (ValueError, lambda x: x.reshape(-1)[:96].reshape(2, 4, 3, 4), ["out", "memory", "input"]),
    "out across the input": (ValueError, lambda x: x.reshape(-1)[-96:][::-1].reshape(2, 4, 3, 4), ["out", "input"]),
    "out masked": (TypeError, lambda x: np.ma.zeros((2, 4, 3, 4), np.float32), ["out", "mask"]),
}


def names(table):
    return pytest.mark.parametrize("bad", table)


def assert_error(kind, said, arguments, function=npconv.conv2d):
    out = poison(np.empty((2, 4, 3, 4), np.float32))
    with pytest.raises(kind) as caught:
        function(**{"out": out} | arguments)
    assert type(caught.value) is kind, f"{type(caught.value)} instead of {kind}: {caught.value}"
    message = str(caught.value)
    missing = [word for word in said if word not in message]
    assert not missing, f"the message does not say {missing}: {message}"
    assert np.isnan(out).all(), "out was written to"


@names(SHAPES)
def test_shapes_that_do_not_fit(bad):
    arguments, said = SHAPES[bad]
    assert_error(ValueError, said, arguments)


@names(VALUES)
def test_values_that_will_not_do(bad):
    arguments, said = VALUES[bad]
    assert_error(ValueError, said, arguments)


@names(TYPES)
def test_types_that_will_not_do(bad):
    arguments, said = TYPES[bad]
    assert_error(TypeError, said, arguments)


@names(OUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_out_that_will_not_do(bad, backend):
    kind, make, said = OUTS[bad]
    x, weight = np.ones((2, 3, 5, 6), np.float32), np.ones((4, 3, 3, 3), np.float32)
    layer = npconv.Conv2d(weight, backend=backend)
    for compute in (lambda out: npconv.conv2d(x, weight, out=out, backend=backend), lambda out: layer(x, out=out)):
        compute(np.empty((2, 4, 3, 4), np.float32))  # is remembered
        with pytest.raises(kind) as caught:
            compute(make(x))
        assert type(caught.value) is kind
        message = str(caught.value)
        assert all(word in message for word in said), message
        assert (x == 1).all()


@pytest.mark.parametrize("which", ["weight", "bias"])
def test_out_may_not_be_another_input_either(which):
    memory = zeros(4, 3, 3, 3)
    arguments = good(weight=memory) if which == "weight" else good(bias=memory.reshape(-1)[:4])
    npconv.conv2d(**arguments, out=np.empty((2, 4, 3, 4), np.float32))
    with pytest.raises(ValueError, match=f"out shares memory with {which}"):
        npconv.conv2d(**arguments, out=memory.reshape(-1)[:96].reshape(2, 4, 3, 4))


def test_other_ranks_say_their_axes():
    assert_error(ValueError, ["input of conv1d", "3 axes", "2 axes", "length"], good(), npconv.conv1d)
    assert_error(ValueError, ["input of conv3d", "5 axes", "depth"], good(input=zeros(5, 6)), npconv.conv3d)
    conv1d = {"input": zeros(1, 1, 5), "weight": zeros(1, 1, 2)}
    # (1, 2) would be two axes in one reading, and before and after in the other.
    assert_error(ValueError, ["padding", "((before, after),)", "(1, 2)"], conv1d | {"padding": (1, 2)}, npconv.conv1d)
    assert_error(ValueError, ["stride", "1 of them", "(1, 2)"], conv1d | {"stride": (1, 2)}, npconv.conv1d)


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d"])
def test_unknown_arguments(name):
    with pytest.raises(TypeError, match="strides"):
        getattr(npconv, name)(zeros(1), zeros(1), strides=1)
    with pytest.raises(TypeError, match="positional"):
        getattr(npconv, name)(zeros(1), zeros(1), None, 1, 0, 1, 1, "zeros")


@pytest.mark.parametrize(
    ("dtype", "other"), [("float16", "bfloat16"), ("bfloat16", "int32"), ("bfloat16", "complex64")]
)
def test_dtypes_without_a_common_one(dtype, other):
    """Where NumPy knows no common dtype, or one that npconv does not take, it is a TypeError; else the call works."""
    x = zeros(1, 1, 4).astype(dtype)
    w = zeros(1, 1, 2).astype(other)
    try:
        common = np.result_type(x, w)
    except TypeError:
        with pytest.raises(TypeError, match="common dtype"):
            npconv.conv1d(x, w)
    else:
        assert npconv.conv1d(x, w).dtype == common


EMPTY = {
    "no images": ((0, 3, 5, 6), (4, 3, 3, 3)),
    "no filters": ((2, 3, 5, 6), (0, 3, 3, 3)),
    "no channels": ((2, 0, 5, 6), (4, 0, 3, 3)),
    "nothing at all": ((0, 0, 5, 6), (0, 0, 3, 3)),
}


@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
@names(EMPTY)
def test_empty_is_no_error(bad, backend, algorithm):
    input_shape, weight_shape = EMPTY[bad]
    bias = np.arange(weight_shape[0], dtype=np.float32)
    got = npconv.conv2d(zeros(*input_shape), zeros(*weight_shape), bias, backend=backend, algorithm=algorithm)
    want = np.broadcast_to(bias[:, None, None], (input_shape[0], weight_shape[0], 3, 4))
    assert np.array_equal(got, want)
    assert got.shape == want.shape


LIMITED = """
import resource
import numpy as np, npconv
x, w = np.ones((1, 1, 8, 8), np.float32), np.ones((1, 1, 2, 2), np.float32)
npconv.conv2d(x, w, backend={backend!r}, algorithm={algorithm!r})
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
for arguments in {calls}:
    try:
        eval(f"npconv.conv2d({{arguments}}, backend={backend!r}, algorithm={algorithm!r})")
    except MemoryError as error:
        print("MemoryError:", error)
    y = npconv.conv2d(x, w, backend={backend!r}, algorithm={algorithm!r})
    assert (y == 4).all()
"""

TOO_LARGE = {
    "the result": "x, w, padding=2**21",
    "the padded input": "x, w, padding=2**21, stride=2**20, out=np.empty((1, 1, 5, 5), np.float32)",
    "a copy of an endless view": "np.broadcast_to(np.float32(1), (1, 1, 2**22, 2**20)), w, stride=2**19",
}


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS holds on Linux")
@pytest.mark.parametrize(("backend", "algorithm"), ENGINES)
def test_sizes_that_memory_cannot_hold(backend, algorithm):
    """In a process with little memory, so that no machine really gives 16 TiB; the process goes on working."""
    said = python(LIMITED.format(calls=list(TOO_LARGE.values()), backend=backend, algorithm=algorithm))
    assert [line.split()[0] for line in said] == ["MemoryError:"] * len(TOO_LARGE), said


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_leaked_by_an_error(backend):
    x, w = zeros(1, 16, 64, 64), zeros(4, 16, 3, 3)  # 256 KiB of input
    npconv.conv2d(x, w, backend=backend)
    bad_calls = [
        lambda: npconv.conv2d(x, w, padding=10**30, backend=backend),
        lambda: npconv.conv2d(x, w, stride=2.0, backend=backend),
        lambda: npconv.conv2d(x.astype(bool), w, backend=backend),
        lambda: npconv.conv2d(x.astype(np.float64), w, out=zeros(1), backend=backend),
    ]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for bad in bad_calls * 5:
            with pytest.raises((ValueError, TypeError)):
                bad()
        assert tracemalloc.get_traced_memory()[0] - before < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("algorithm", ["loop", "flatten", "im2col", "auto"])
def test_cuda_without_a_device_says_what_is_missing(algorithm):
    from npconv import backends

    if backends.missing("cuda") is None:
        pytest.skip("a CUDA device is here")
    with pytest.raises(npconv.CudaUnavailableError, match=r"cuda.*cannot run here: .*(driver|GPU|install)"):
        npconv.conv2d(**good(), backend="cuda", algorithm=algorithm)


def test_errors_do_not_depend_on_the_cache():
    """A plan that is kept must not let a bad call pass, nor a refused one spoil a good one."""
    for _ in range(2):
        with pytest.raises(ValueError, match="stride"):
            npconv.conv2d(**good(stride=0))
        with pytest.raises(TypeError, match="stride"):
            npconv.conv2d(**good(stride=True))
        assert npconv.conv2d(**good(stride=1)).shape == (2, 4, 3, 4)

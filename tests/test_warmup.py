"""`warmup`: what it reports, how it shows progress, what it refuses."""

import numpy as np
import pytest
from checks import COMPLEX, DTYPES, FLOATS, TEXTBOOK, named
from engine_problems import FAST
from processes import python

import npconv


def test_report():
    with npconv.threads(1):
        report = npconv.warmup(["float32", np.float64], ["loop", "im2col"], progress=False)
        assert {(e.algorithm, e.dtype, e.threads) for e in report} == {
            (name, dtype, 1) for name in ("loop", "im2col") for dtype in ("float32", "float64")
        }
        again = npconv.warmup(["float32"], ["loop"], progress=False)
    assert again[0].seconds == 0
    lines = str(again).splitlines()
    assert lines[0].split() == ["algorithm", "dtype", "threads", "compiled", "in"]
    assert lines[-1].split() == ["loop", "float32", "1", "from", "disk"]


def test_by_default_everything_in_float32():
    report = npconv.warmup(progress=False)
    assert {e.algorithm for e in report} == {entry.name for entry in npconv.algorithms("numba")} >= set(TEXTBOOK)
    assert {e.dtype for e in report} == {"float32"}
    assert {e.threads for e in report} == {1, npconv.get_num_threads()}


def test_by_default_with_other_dtypes_what_computes_with_them():
    with npconv.threads(1):
        report = npconv.warmup(["int32", "float16"], progress=False)
    assert {e.algorithm for e in report if e.dtype == "int32"} == set(TEXTBOOK)
    assert {e.algorithm for e in report if e.dtype == "float16"} == {*TEXTBOOK, *FAST}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("algorithm", FAST)
def test_what_an_algorithm_does_not_compute_with_is_said(algorithm, dtype):
    to = named(dtype)
    if dtype in FLOATS + COMPLEX:
        assert npconv.warmup([to], [algorithm], progress=False)[0].algorithm == algorithm
        return
    message = f"algorithms has '{algorithm}', which does not take {dtype}: it computes in floats and complex numbers"
    with pytest.raises(ValueError, match=message):
        npconv.warmup([to], [algorithm], progress=False)


COLD = """
import numpy as np, npconv
from npconv.kernels.numba import jit
npconv.warmup(progress=False)
def refuse(task, *options, **more):
    raise AssertionError(f"{task} was not made ready")
jit._compile = refuse  # called for what may be on disk as well
rng = np.random.default_rng(0)
with jit.compile_clock() as clock:
    for channels, side in ((32, 4), (64, 30), (320, 8)):
        x = rng.standard_normal((1, channels, side, side), np.float32)
        weight = rng.standard_normal((channels, channels, 3, 3), np.float32)
        large = rng.standard_normal((channels, channels, 5, 5), np.float32)
        for threads in (1, npconv.get_num_threads()):
            with npconv.threads(threads):
                for algorithm in ("winograd4", "winograd2", "direct", "planes", "im2col", "auto"):
                    npconv.conv2d(x, weight, padding=1, algorithm=algorithm, backend="numba", activation="relu")
                    npconv.Conv2d(weight, padding=1, algorithm=algorithm, backend="numba")(x)
                npconv.conv2d(x, large, padding=2, algorithm="winograd2")
                far = {"padding": side // 2, "dilation": side // 2}
                npconv.conv2d(x, weight, **far, algorithm="direct")
                for stride in (1, 2) if side > 16 else ():
                    npconv.conv2d(x, weight[..., :1, :1], stride=stride, algorithm="planes")
                for stride in (1, 2):
                    for activation in (None, "relu6"):
                        npconv.conv2d(x, weight[:, :1], stride=stride, groups=channels, activation=activation)
                    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
                    npconv.conv2d(last, weight[:, :1], stride=stride, groups=channels, data_format="channels_last")
print(clock.seconds)
"""


def test_nothing_is_left_to_compile():
    """Nor are the kernels that pack weights, for functions and layers, small and large, on one thread and on all."""
    assert float(python(COLD)[-1]) == 0


def test_progress_of_ones_own():
    seen = []

    def progress(items, total):
        for number, item in enumerate(items, 1):
            seen.append((number, total))
            yield item

    with npconv.threads(1):
        report = npconv.warmup(["float32"], ["loop", "flatten"], progress=progress)
    assert seen == [(1, 2), (2, 2)]
    assert len(report) == 2


def test_progress_goes_to_standard_error(capfd):
    npconv.warmup(["float32"], ["loop"])
    assert capfd.readouterr().out == ""


def test_nothing():
    assert npconv.warmup([], progress=False) == ()
    assert npconv.warmup(["float32"], [], progress=False) == ()


@pytest.mark.parametrize(
    ("dtypes", "algorithms", "error", "message"),
    [
        (["float32"], ["fft2000"], ValueError, "algorithms must be one of .*im2col.*'fft2000'"),
        (["float32"], [3], TypeError, "algorithms must be a string"),
        (["bool"], ["loop"], TypeError, "dtypes has dtype bool"),
        (["object"], ["loop"], TypeError, "dtypes has dtype object"),
        (["no such dtype"], ["loop"], TypeError, "dtypes must be a dtype"),
    ],
)
def test_errors(dtypes, algorithms, error, message):
    with pytest.raises(error, match=message):
        npconv.warmup(dtypes, algorithms, progress=False)

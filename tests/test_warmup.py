"""`warmup`: what it reports, how it shows progress, what it refuses."""

import numpy as np
import pytest
from checks import TEXTBOOK

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

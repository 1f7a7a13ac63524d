"""What once went wrong, or could: each found by somebody who tried to break npconv."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npconv

PROGRAM = """
import os, sys, threading
import numpy as np
import npconv

x = np.arange(2 * 16 * 32 * 32, dtype=np.float32).reshape(2, 16, 32, 32) % 7
weight = np.arange(16 * 16 * 9, dtype=np.float32).reshape(16, 16, 3, 3) % 5
"""
FORK = """
layer = npconv.Conv2d(weight, padding=1, algorithm="loop", backend="numba")  # which compiles within two seconds
threads = [threading.Thread(target=lambda: [layer(x[: 1 + i % 2]) for i in range(10)]) for _ in range(8)]
for thread in threads:
    thread.start()
want = npconv.conv2d(x, weight, padding=1, backend="numpy")
child = os.fork()
if child == 0:
    os._exit(0 if (layer(x) == want).all() else 1)
for thread in threads:
    thread.join()
assert os.waitpid(child, 0)[1] == 0
"""
CALL = "print(npconv.conv2d(x, weight, backend=sys.argv[1], algorithm='loop').sum())"


def run(program, cache, warnings, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", PROGRAM + program, *arguments],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)} | environment,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def test_fork_while_other_threads_compile(tmp_path):
    done = run(FORK, tmp_path, "ignore")
    assert done.returncode == 0, done.stderr


def test_damaged_files_on_disk_are_compiled_anew(tmp_path):
    """And written anew: the next process finds them."""
    first = run(CALL, tmp_path, "error", "numba")
    assert first.returncode == 0, first.stderr
    for kind, damage in (
        ("nb?", lambda _: b"garb"), ("nbi", lambda _: b""), ("nbc", lambda content: content[: len(content) // 2]),
        ("nbc", lambda _: pickle.dumps({"other": 1})),
    ):  # fmt: skip
        damaged = {path: path.write_bytes(damage(path.read_bytes())) for path in Path(tmp_path).rglob(f"*.{kind}")}
        assert damaged
        again = run(CALL, tmp_path, "always", "numba")
        assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
        assert "damaged" in again.stderr
        written = {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.nb?")}
        assert written.keys() >= damaged.keys()
        last = run(CALL, tmp_path, "error", "numba")
        assert (last.returncode, last.stdout, last.stderr) == (0, first.stdout, "")
        assert {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.nb?")} == written


def test_without_its_compiler_numba_is_missing(tmp_path):
    done = run(CALL, tmp_path, "error", "numba", NUMBA_DISABLE_JIT="1")
    assert done.returncode == 1
    assert "ValueError: backend 'numba' cannot run here" in done.stderr
    assert "NUMBA_DISABLE_JIT" in done.stderr
    done = run(CALL.replace("loop", "im2col"), tmp_path, "ignore", "auto", NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr


def test_threads_are_counted_as_numba_counts_them(tmp_path):
    done = run(f"{CALL}\nprint(npconv.get_num_threads())", tmp_path, "error", "numba", NUMBA_NUM_THREADS=" 1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n1\n")


def test_strides_far_longer_than_the_kernel():
    y = npconv.conv_transpose1d(np.ones((1, 1, 3)), np.full((1, 1, 2), 2.0), np.ones(1), stride=10**5)
    assert y.shape == (1, 1, 2 * 10**5 + 2)
    assert y.sum() == y.size + 12
    found = npconv.explain("conv_transpose2d", (1, 8, 6, 6), (8, 8, 3, 3), stride=10**6)
    assert found.output_shape == (1, 8, 5 * 10**6 + 3, 5 * 10**6 + 3)


def test_layers_take_what_their_functions_take():
    far = npconv.Conv3d(np.ones((1, 1, 2, 1, 1), np.float32), dilation=(2**22, 1, 1))
    assert far(np.ones((1, 1, 2**22 + 1, 1, 1), np.float32)).item() == 2
    assert npconv.Conv3d(np.ones((1, 1, 1, 1, 1)), padding=(2**22, 0, 0)).rank == 3
    assert npconv.ConvTranspose2d(np.ones((1, 1, 1, 1)), stride=2**40)(np.ones((1, 1, 1, 1))).item() == 1


def test_layers_keep_no_lists_of_the_caller():
    padding = [1, 1]
    layer = npconv.Conv2d(np.ones((1, 1, 3, 3)), padding=padding)
    padding.append(3)
    assert layer(np.ones((1, 1, 4, 4))).shape == (1, 1, 4, 4)


class Stubborn(np.ndarray):
    def __array_ufunc__(self, *arguments, **options):
        raise AssertionError("arithmetic of a subclass")

    def __getitem__(self, index):
        raise AssertionError("indexing of a subclass")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_out_of_a_subclass(backend):
    out = np.zeros((1, 1, 3, 3)).view(Stubborn)
    assert npconv.conv2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2)), out=out, backend=backend) is out
    assert (out.view(np.ndarray) == 4).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: npconv.unfold(np.ones((1, 1, 3, 3)), 1, padding=2**62), ["padding", "addressed"]),
        (lambda: npconv.fold(np.ones((1, 9, 1)), (2**62, 1), (3, 3), stride=2**62, padding=1), ["addressed"]),
        (
            lambda: npconv.conv_transpose2d(
                np.ones((1, 4, 1, 1)), np.ones((4, 4, 3, 3)), stride=2**62, output_padding=2**61
            ),
            ["the result", "stride", "addressed"],
        ),
        (lambda: npconv.grad.conv2d_input((1, 4, 8), np.ones((3, 4, 2, 2)), np.ones((1, 3, 7, 7))), ["input_size"]),
        (lambda: npconv.grad.conv2d_weight(np.ones((1, 4, 8, 8)), (4, 3), np.ones((1, 3, 7, 7))), ["weight_size"]),
    ],
)
def test_sizes_are_refused_by_name(call, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the words are checked
        call()
    assert [word for word in words if word not in str(caught.value)] == []


def test_zero_points_are_not_overwritten():
    points = np.ones(288, np.int32)
    with pytest.raises(ValueError, match="shares memory with weight_zero_point"):
        npconv.conv2d_integer(
            np.ones((1, 4, 6, 6), np.uint8), np.ones((4, 4, 1, 1), np.uint8), 0, points[:4],
            out=points[:144].reshape(1, 4, 6, 6),
        )  # fmt: skip
    assert (points == 1).all()


INTERRUPTED = """
import signal

def interrupt(*_):
    raise KeyboardInterrupt

def after(times, function):
    def interrupted(*arguments, **options):
        nonlocal times
        times -= 1
        if times == 0:
            signal.raise_signal(signal.SIGALRM)
        return function(*arguments, **options)
    return interrupted

signal.signal(signal.SIGALRM, interrupt)
if sys.argv[1] == "import":
    class Finder:
        def find_spec(self, name, *_):
            if name == "numba.core.dispatcher":
                sys.meta_path.remove(self)
                signal.raise_signal(signal.SIGALRM)
    sys.meta_path.insert(0, Finder())
else:
    from numba.core.base import BaseContext
    BaseContext.install_registry = after(3, BaseContext.install_registry)
try:
    npconv.conv2d(x, weight, algorithm="loop", backend="numba")
except KeyboardInterrupt:
    print("interrupted")
fast = npconv.conv2d(x, weight, algorithm="loop", backend="numba")
print((fast == npconv.conv2d(x, weight, backend="numpy")).all())
"""


@pytest.mark.parametrize("during", ["import", "first compilation"])
def test_an_interrupt_leaves_nothing_half_done(tmp_path, during):
    """Ctrl-C in the first second of a first call: later ones compile and compute as ever."""
    done = run(INTERRUPTED, tmp_path, "error", during)
    assert (done.returncode, done.stdout.split()) == (0, ["interrupted", "True"]), done.stdout + done.stderr

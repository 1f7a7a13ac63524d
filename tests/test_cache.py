"""Compiled kernels on disk: found again, right whichever process compiled which, and not missed where there is none."""

import importlib
import itertools
import pkgutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher
from numba.core.errors import TypingError
from processes import python

import npconv.kernels.numba
from npconv.kernels.filtering import Filtering
from npconv.kernels.numba import jit, points
from npconv.kernels.numba.calls import calling, taking
from npconv.kernels.numba.jit import Kernel

CALL = """
import sys, warnings
import numpy as np, npconv

def wrong(algorithm, size):
    count = 0
    for filters in range(1, 14):
        x = np.arange(3 * size * size).reshape(1, 3, size, size) % 7
        weight = np.arange(filters * 27).reshape(filters, 3, 3, 3) % 5
        x, weight = x.astype("float32"), weight.astype("float32")
        y = npconv.conv2d(x, weight, algorithm=algorithm, backend="numba")
        count += np.count_nonzero(y != npconv.conv2d(x, weight, backend="numpy", algorithm="im2col"))
    return count
"""


def test_kernels_of_different_processes(tmp_path):
    # Numba names compiled functions by place, types and a count of the process. Code from two processes that bears one
    # name and differs (closures of one function, for register tiles of 5 and 6 rows) is mixed up silently, see
    # numba#10486: one process here keeps the version for one thread, another that for several, the third loads both.
    def run(*jobs):
        code = CALL + "".join(f"print(wrong({algorithm!r}, {size}))\n" for algorithm, size in jobs)
        return [int(line) for line in python(code, NUMBA_CACHE_DIR=str(tmp_path))]

    assert run(("im2col", 5)) == [0]
    assert run(("loop", 5), ("im2col", 60)) == [0, 0]
    assert run(("im2col", 5), ("im2col", 60)) == [0, 0]


def test_no_two_compiled_functions_share_a_name():
    """What makes the above safe for every kernel."""
    found = {}
    for info in pkgutil.iter_modules(npconv.kernels.numba.__path__, "npconv.kernels.numba."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            function = value.task.function if isinstance(value, Kernel) else getattr(value, "py_func", None)
            if isinstance(value, (Kernel, Dispatcher)):
                found[id(function)] = function
    axes = [Filtering(*numbers) for numbers in ((4, 3, 1), (2, 3, 1), (4, 3, 2), (1, 1, 21), (1, 12, 1), (3, 7, 2))]
    for pair in itertools.product(axes, axes):
        of_both = [part(pair, past) for part in (points._of_tiles, points._of_filters) for past in (False, True)]
        for part in (points._of_sums(pair), *of_both):
            found[id(part.code.function)] = part.code.function
    names = Counter((function.__module__, function.__qualname__) for function in found.values())
    assert len(names) >= 10
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constants_come_in_a_block(dtype):
    """A call keeps them, and takes none of another form."""
    take = taking("naNn")

    def fill(index, out, constants):
        integers, numbers, matrix, more = take(constants, out)
        out[index] = integers[index] + numbers[len(numbers) - 1] + matrix[1, index] + 100 * matrix.shape[0] + len(more)

    def constants():
        return np.arange(4), np.array([7, 0.5], dtype), np.arange(8).reshape(2, 4), np.zeros(0, int)

    run = Kernel(fill, form="naNn").fixed(4, 1, 1, constants())
    for _ in range(2):
        run(out := np.zeros(4, dtype))
        assert out.tolist() == [204.5, 206.5, 208.5, 210.5]
    other = np.zeros(4, "float64" if dtype == "float32" else "float32")
    with pytest.raises(AssertionError, match="constants of float"):
        run(other)
    assert not other.any()
    first, *others = constants()
    for wrong in ((), (first,), (first.astype("i4"), *others), (first[::2], *others), (first, first, *others[1:])):
        with pytest.raises(AssertionError, match="constants"):
            Kernel(fill, form="naNn").fixed(4, 1, 1, wrong)
    with pytest.raises(AssertionError, match="constants"):
        Kernel(fill).fixed(4, 1, 1, constants())


def test_arguments_of_other_types():
    """A kernel's address is used for the types only that it was compiled for."""

    def fill(index, out, number, table):
        out[index] = number * table[0]

    kernel = Kernel(fill)
    for _ in range(2):
        for number, table in ((3, np.ones(1)), (2.5, np.ones(1, np.int32)), (3, np.full((1, 2), 4.0))):
            out = np.zeros(5)
            kernel.run(5, 0, out, number, table[0] if table.ndim == 2 else table)
            assert (out == number * table.reshape(-1)[0]).all()


def test_parts_are_given_what_they_take():
    """An address has no types: so what is given is checked when the kernel that calls it is compiled."""

    def double(numbers, count, table):
        for index in range(count):
            numbers[index] *= table[0]

    part, call = jit.Part(double, "ain"), calling("ain")

    def task(index, numbers, table, parts):
        call(parts[0], (numbers, len(numbers), table))

    parts = jit.addresses((part,), np.dtype(np.float64))
    numbers, wrong = np.arange(4.0), "not of the form 'ain'"
    Kernel(task).run(1, 0, numbers, np.array([2]), parts)
    assert numbers.tolist() == [0, 2, 4, 6]
    for others in ((np.ones((2, 2)), np.array([2])), (np.ones(4), np.array([2.0])), (np.ones(8)[::2], np.array([2]))):
        with pytest.raises(TypingError, match=wrong):
            Kernel(task).run(1, 0, *others, parts)


COMPILING = """
from npconv.kernels.numba import jit
with jit.compile_clock() as clock:
    print(wrong("flatten", 5))
print("compiled" if clock.seconds else "loaded")
print("numba.np.linalg" in sys.modules)
"""


def test_a_second_process_compiles_nothing(tmp_path):
    """Nor does it import what Numba needs to compile, which takes as long as all else that a first call does."""
    lines = [python(CALL + COMPILING, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    assert lines == [["0", "compiled", "True"], ["0", "loaded", "False"]]


COUNTING = """
from collections import Counter
from numba.core.event import Listener, register

class Compiled(Listener):
    names = Counter()
    def on_start(self, event):
        pass
    def on_end(self, event):
        function = event.data["dispatcher"]
        if function.stats.cache_path is not None:
            self.names[f"{function.py_func.__qualname__}{event.data['args']}".replace(" ", "")] += 1

register("numba:compile", Compiled())
print(wrong("loop", 5) + wrong("flatten", 5))
print(*Compiled.names.elements())
"""


def test_processes_that_begin_together_compile_each_kernel_once(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: python(CALL + COUNTING, NUMBA_CACHE_DIR=str(tmp_path)), range(3)))
    assert [wrong for wrong, _ in runs] == ["0"] * 3
    compiled = Counter(name for _, names in runs for name in names.split())
    assert len(compiled) >= 3
    assert set(compiled.values()) == {1}


LOCKLESS = """
from npconv.kernels.numba import jit
jit.turn = None
print(wrong("flatten", 5))
"""


def test_what_is_there_is_loaded_without_a_lock(tmp_path):
    """A stopped process may have one, and processes that begin together would wait for each other."""
    assert python(CALL + COMPILING, NUMBA_CACHE_DIR=str(tmp_path))[:2] == ["0", "compiled"]
    assert python(CALL + LOCKLESS, NUMBA_CACHE_DIR=str(tmp_path)) == ["0"]


def test_a_lock_is_waited_for_in_vain_once(tmp_path, monkeypatch):
    """A stopped process that holds it costs another one's patience for the first kernel, not for each."""
    waits, compiled = [], []

    @contextmanager
    def held(lock, patience):
        waits.append(patience)
        yield False

    function = SimpleNamespace(
        overloads={}, stats=SimpleNamespace(cache_path=str(tmp_path)), py_func=CALL.lower, compile=compiled.append,
        _cache=SimpleNamespace(has=lambda kinds: False),
    )  # fmt: skip
    monkeypatch.setattr(jit, "turn", held)
    monkeypatch.setattr(jit, "_in_vain", set())
    for kinds in ("first", "second"):
        jit._compile_once(function, kinds)
    assert compiled == ["first", "second"]
    assert waits == [jit._PATIENCE, 0]
    assert jit._PATIENCE > 0


GONE = """
import os, pathlib, shutil
print(wrong("loop", 5))
place = pathlib.Path(os.environ["NUMBA_CACHE_DIR"])
shutil.rmtree(place)
place.write_text("no folder")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(wrong("flatten", 5))
print(len(caught), caught[0].category.__name__)
"""


def test_a_place_that_has_gone(tmp_path):
    """Kernels that can no longer be kept are compiled, with one warning."""
    lines = python(CALL + GONE, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert lines == ["0", "0", "1 RuntimeWarning"]


NOWHERE = """
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(wrong("loop", 5), wrong("flatten", 5))
print(len(caught), caught[0].category.__name__, caught[0].filename)
print(caught[0].message)
"""


def test_without_a_place_to_keep_them():
    """A read-only installation compiles in each process, and says so once, pointing at the caller."""
    result, warning, message = python(CALL + NOWHERE)
    assert (result, warning) == ("0 0", "1 RuntimeWarning <string>")
    assert "NUMBA_CACHE_DIR" in message

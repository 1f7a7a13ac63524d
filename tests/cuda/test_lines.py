"""Every line of the kernels, and of the Python that launches them, runs in the simulator.

Only ``jit.py`` is left out, which holds what a GPU and the simulator do not share.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numba import cuda

import npconv
from npconv.kernels import cuda as folder

FILES = {str(path): path for path in Path(folder.__file__).parent.glob("*.py") if path.name != "jit.py"}


def functions(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of the functions defined in a piece of code."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from functions(constant)


def lines(path: Path) -> set[tuple[str, int]]:
    """The lines of a file's functions that can run."""
    module = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    return {
        (path.name, line)
        for code in functions(module)
        for _, _, line in code.co_lines()
        if line is not None and line != code.co_firstlineno
    }


@pytest.fixture
def seen():
    """The lines that run during a test, in threads that it starts, too."""
    found = set()

    def trace(frame, event, argument):
        path = FILES.get(frame.f_code.co_filename)
        if path is None:
            return None
        if event == "line":
            found.add((path.name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    yield found
    sys.settrace(before)
    threading.settrace(before)


def test_every_line_runs(seen):
    image = np.ones((2, 2), np.float16)
    for mode in ("zeros", "reflect", "replicate", "circular"):
        npconv.conv2d(image, image, padding=1, padding_mode=mode, algorithm="loop", backend="cuda")
    for algorithm in ("loop", "flatten", "im2col"):
        x, w = np.ones((1, 4, 9), np.float32), np.ones((1, 4, 8), np.float32)  # enough products for two chains
        out = np.empty((1, 1, 2), np.float32)
        npconv.conv1d(x, w, np.ones(1, np.float32), algorithm=algorithm, backend="cuda", out=out)
        npconv.conv1d(cuda.to_device(x), w[:0], algorithm=algorithm)
    sys.settrace(None)
    missed = set().union(*map(lines, FILES.values())) - seen
    assert not missed, f"lines that no test in the simulator ran: {sorted(missed)}"

"""What a new process pays before it runs at full speed: importing npconv, and the first call of an algorithm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import npconv
from npconv import backends

CHILD = """
import json, sys, time
start = time.perf_counter()
import numpy as np
numpy = time.perf_counter()
import npconv
imported = time.perf_counter()
x, w = np.ones((1, 64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32)
before = time.perf_counter()
npconv.conv2d(x, w, padding=1, algorithm=sys.argv[1], backend="numba")
after = time.perf_counter()
print(json.dumps({"import numpy": numpy - start, "import npconv": imported - start, "first call": after - before}))
"""

ROUNDS = 3
CACHES = ("kernel on disk", "nothing on disk")
ALGORITHMS = ("loop", "flatten", "im2col", "direct", "winograd4")

pytestmark = pytest.mark.skipif(backends.missing("numba") is not None, reason="Numba is not installed")


@pytest.fixture(scope="module")
def times(pytestconfig, tmp_path_factory):
    """Seconds by what was measured, in processes of their own, taking turns."""
    found = defaultdict(list)
    kept = tmp_path_factory.mktemp("cache")
    for algorithm in ALGORITHMS:
        run(algorithm, kept)
    for number in range(min(ROUNDS, pytestconfig.getoption("--rounds"))):
        for algorithm in ALGORITHMS:
            for cache in CACHES:
                empty = tmp_path_factory.mktemp(f"empty-{algorithm}-{number}")
                told = run(algorithm, kept if cache == "kernel on disk" else empty)
                found[f"first call of {algorithm}, {cache}"].append(told.pop("first call"))
                for what, seconds in told.items():
                    found[what].append(seconds)
    return found


def run(algorithm: str, cache: Path) -> dict[str, float]:
    root = Path(npconv.__file__).parents[1]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(root)}
    child = [sys.executable, "-c", CHILD, algorithm]
    return json.loads(subprocess.run(child, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("what", ["import numpy", "import npconv"])
def test_import(what, times, report):
    report("import", times[what], what=what)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_first_call(algorithm, cache, times, report):
    what = f"first call of {algorithm}, {cache}"
    report(f"first call, {cache}", times[what], what=what)

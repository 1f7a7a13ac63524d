"""What is paid before calls run at full speed: importing npconv, and the first call of a kind or of a size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
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
ones = lambda *shape: np.ones(shape, np.float32)
x = ones(1, 64, 56, 56)
before = time.perf_counter()
eval(sys.argv[1])
after = time.perf_counter()
print(json.dumps({
    "import numpy": numpy - start, "import npconv": imported - start,
    "first call": after - before + imported - start,
}))
"""

ROUNDS = 3
CACHES = ("kernel on disk", "nothing on disk")
TEXTBOOK = {
    f"of {name}": f'npconv.conv2d(x, ones(64, 64, 3, 3), padding=1, algorithm="{name}", backend="numba")'
    for name in ("loop", "flatten", "im2col")
}
CALLS = TEXTBOOK | {
    "textbook 3×3, 4 × 3→2@5": "npconv.conv2d(ones(4, 3, 5, 5), ones(2, 3, 3, 3))",
    "3×3": "npconv.conv2d(x, ones(64, 64, 3, 3), padding=1)",
    "3×3, strict": "npconv.conv2d(x, ones(64, 64, 3, 3), padding=1, precision='strict')",
    "1×1": "npconv.conv2d(x, ones(256, 64, 1, 1))",
    "7×7 stride 2": "npconv.conv2d(ones(1, 3, 224, 224), ones(64, 3, 7, 7), stride=2, padding=3)",
    "depthwise 3×3": "npconv.conv2d(x, ones(64, 1, 3, 3), padding=1, groups=64)",
    "transposed 2×2 stride 2": "npconv.conv_transpose2d(x, ones(64, 32, 2, 2), stride=2)",
    "gradient of the input, 3×3": (
        "npconv.grad.conv2d_input(x.shape, ones(64, 64, 3, 3), ones(1, 64, 56, 56), padding=1)"
    ),
    "gradient of the weight, 3×3": "npconv.grad.conv2d_weight(x, (64, 64, 3, 3), ones(1, 64, 56, 56), padding=1)",
    "gradient of the weight, 1×1": "npconv.grad.conv2d_weight(x, (256, 64, 1, 1), ones(1, 256, 56, 56))",
}
"""What is called, in a process of its own. Its time counts from the start of the imports."""

pytestmark = pytest.mark.skipif(backends.missing("numba") is not None, reason="Numba is not installed")


@pytest.fixture(scope="module")
def times(pytestconfig, tmp_path_factory):
    """Seconds by what was measured, in processes of their own, taking turns."""
    found = defaultdict(list)
    kept = tmp_path_factory.mktemp("cache")
    for code in CALLS.values():
        run(code, kept)
    for number in range(min(ROUNDS, pytestconfig.getoption("--rounds"))):
        for call, code in CALLS.items():
            for cache in CACHES:
                empty = tmp_path_factory.mktemp(f"empty-{number}")
                told = run(code, kept if cache == "kernel on disk" else empty)
                found[f"import and first call {call}, {cache}"].append(told.pop("first call"))
                for what, seconds in told.items():
                    found[what].append(seconds)
    return found


def run(code: str, cache: Path) -> dict[str, float]:
    root = Path(npconv.__file__).parents[1]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(root)}
    child = [sys.executable, "-c", CHILD, code]
    return json.loads(subprocess.run(child, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("what", ["import numpy", "import npconv"])
def test_import(what, times, report):
    report("import", times[what], what=what)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("call", CALLS)
def test_first_call(call, cache, times, report):
    what = f"import and first call {call}, {cache}"
    report(f"first call, {cache}", times[what], what=what)


SIZES = 20


@pytest.mark.parametrize("kind", ["function", "layer"])
def test_first_call_of_a_size(kind, pytestconfig, report):
    """What images of sizes not met before pay in a process that runs: most of it to choose, and to cut into tasks."""
    weight = np.ones((64, 64, 3, 3), np.float32)
    called = npconv.Conv2d(weight) if kind == "layer" else lambda x: npconv.conv2d(x, weight)
    found = defaultdict(list)
    for number in range(min(ROUNDS, pytestconfig.getoption("--rounds"))):
        for size in range(SIZES):
            x = np.ones((1, 64, 20 + size, 20 + number), np.float32)
            for call in ("first", "next"):
                start = time.perf_counter()
                called(x)
                found[call].append(time.perf_counter() - start)
    spared = np.array(found["first"]) - min(found["next"])
    report("first call of a size", spared.tolist(), what=f"a size not met before, 3×3 {kind}: more than the next call")

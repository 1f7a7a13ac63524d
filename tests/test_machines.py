"""The engines on vectors of other widths, with and without fused products, between guard pages (guarded.py).

On this machine's own vectors test_guards runs them.
"""

import platform
from pathlib import Path

import pytest
from engine_problems import FAST
from llvmlite import binding
from processes import python

HERE = str(Path(__file__).parent)
AVX2 = ["sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "avx2", "fma", "bmi", "bmi2", "lzcnt", "f16c", "movbe"]
MACHINES = {"SSE2": ("x86-64", [], 16), "AVX2": ("haswell", AVX2, 32)}
"""Name, features besides SSE2, and bytes of a vector."""

PROGRAM = f"""
import re, sys; sys.path.insert(0, {HERE!r})
import engine_problems as problems, guarded, npconv
from npconv.kernels.numba.tile import VECTOR_BYTES
large = re.compile("kh[4-9]|kh[1-9][0-9]")  # each of which is a kernel more to compile
problems.SHAPES = (*(text for text in problems.SHAPES if not large.search(text)), *problems.PIECES[:4])
npconv.set_num_threads(1)
for algorithm in problems.FAST:
    guarded.main("end", "nan", algorithm, "float32")
print(VECTOR_BYTES)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the machines are x86 ones")
@pytest.mark.skipif(platform.system() == "Windows", reason="there is no mprotect")
@pytest.mark.parametrize("machine", MACHINES)
def test_engines(machine, tmp_path):
    cpu, features, width = MACHINES[machine]
    here = binding.get_host_cpu_features()
    absent = [feature for feature in features if not here.get(feature)]
    if absent:
        pytest.skip(f"this CPU has no {', '.join(absent)}")
    settings = {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": ",".join(f"+{feature}" for feature in ("sse2", *features)),
    }
    said = python(PROGRAM, "-X", "faulthandler", **settings)
    assert said.count("untouched") == len(FAST)
    assert said[-1] == str(width)

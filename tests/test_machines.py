"""The engines on vectors of other widths, with and without fused products, between guard pages (guarded.py).

On this machine's own vectors test_guards runs them.
"""

import platform
from concurrent.futures import ThreadPoolExecutor
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
rare = re.compile("k[hw]([24-9]|[1-9][0-9])|s[hw][3-9]")  # each of which is a kernel more to compile
problems.SHAPES = (*(text for text in problems.SHAPES if not rare.search(text)), *problems.PIECES[:4],
                   "g40ic80oc40ih16iw16kh14kw14+bias")
npconv.set_num_threads(1)
for algorithm in problems.FAST:
    guarded.main("end", "nan", algorithm, "float32")
print(VECTOR_BYTES)
"""


pytestmark = [
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the machines are x86 ones"),
    pytest.mark.skipif(platform.system() == "Windows", reason="there is no mprotect"),
]


def run(machine, folder):
    cpu, features, _ = MACHINES[machine]
    settings = {
        "NUMBA_CACHE_DIR": str(folder),
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": ",".join(f"+{feature}" for feature in ("sse2", *features)),
    }
    return python(PROGRAM, "-X", "faulthandler", **settings)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The programs of all machines, side by side: most of a minute is compiling."""
    with ThreadPoolExecutor(len(MACHINES)) as pool:
        yield {name: pool.submit(run, name, tmp_path_factory.mktemp(name)) for name in MACHINES if not absent(name)}


def absent(machine):
    here = binding.get_host_cpu_features()
    return [feature for feature in MACHINES[machine][1] if not here.get(feature)]


@pytest.mark.parametrize("machine", MACHINES)
def test_engines(machine, runs):
    if absent(machine):
        pytest.skip(f"this CPU has no {', '.join(absent(machine))}")
    said = runs[machine].result()
    assert said.count("untouched") == len(FAST)
    assert said[-1] == str(MACHINES[machine][2])

"""The engines on vectors of other widths, with and without fused products, between guard pages (guarded.py).

On this machine's own vectors test_guards runs them.
"""

import platform
from pathlib import Path

import pytest
from engine_problems import FAST
from llvmlite import binding
from processes import python

from npconv.kernels.numba.tile import VECTOR_BYTES

HERE = str(Path(__file__).parent)
AVX2 = ["sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "avx2", "fma", "bmi", "bmi2", "lzcnt", "f16c", "movbe"]
MACHINES = {"SSE2": ("x86-64", [], 16), "AVX2": ("haswell", AVX2, 32)}
"""Name, features besides SSE2, and bytes of a vector."""

PROGRAM = """
import sys; sys.path.insert(0, HERE)
import engine_problems as problems, guarded, npconv
from npconv.kernels.numba.tile import VECTOR_BYTES
npconv.set_num_threads(1)
for algorithm in ENGINES:
    texts = problems.COMMON
    if not EVERYTHING:
        guarded.TRANSPOSED["depthwise"] = guarded.TRANSPOSED["depthwise"][:2]  # each is compiled for itself
        texts = problems.few_kernels(algorithm)[::2]
        if algorithm.startswith("winograd"):
            texts = [text for text in texts if "sh2" not in text]
    # Panels of 4 filters, which are packed by a way of their own, and some of what meets them: 9 s less to compile.
    double = texts if EVERYTHING else texts[::12] if algorithm == "direct" else ()
    single = (*texts, "g40ic80oc40ih16iw16kh14kw14+bias")
    guarded.main("end", "nan", algorithm, {"float32": single, "float64": double})
print(VECTOR_BYTES)
"""


pytestmark = [
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the machines are x86 ones"),
    pytest.mark.skipif(platform.system() == "Windows", reason="there is no mprotect"),
]


ENGINES = FAST[::2], FAST[1::2]
"""Those of each program: half of what there is to compile."""


def run(machine, engines, everything, folder):
    cpu, features, _ = MACHINES[machine]
    settings = {
        "NUMBA_CACHE_DIR": str(folder),
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": ",".join(f"+{feature}" for feature in ("sse2", *features)),
    }
    return python(
        f"HERE, ENGINES, EVERYTHING = {HERE!r}, {engines!r}, {everything}\n{PROGRAM}", "-X", "faulthandler", **settings
    )


def absent(machine):
    here = binding.get_host_cpu_features()
    return [feature for feature in MACHINES[machine][1] if not here.get(feature)]


@pytest.mark.parametrize("engines", ENGINES, ids="-".join)
@pytest.mark.parametrize("machine", MACHINES)
def test_engines(machine, engines, tmp_path, request):
    if absent(machine):
        pytest.skip(f"this CPU has no {', '.join(absent(machine))}")
    everything = request.config.getoption("--long")
    if MACHINES[machine][2] == VECTOR_BYTES and not everything:
        pytest.skip("on vectors of this width all other tests run the engines; runs with --long")
    if not everything:  # one of Winograd's engines for all, which differ in tables
        engines = [name for name in engines if name not in ("winograd2", "winograd2x4")]
    said = run(machine, engines, everything, tmp_path)
    assert said.count("untouched") == len(engines)
    assert said[-1] == str(MACHINES[machine][2])

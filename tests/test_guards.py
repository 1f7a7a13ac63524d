"""No engine reads or writes beyond its arrays, or reads what was not written; guarded.py tells how that is seen."""

import itertools
import sys
from pathlib import Path

import pytest
from engine_problems import FAST, few_kernels, taken, texts_for
from processes import python

import npconv

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no mprotect")

PLACES = ("end", "begin")
HERE = str(Path(__file__).parent)


def program(code):
    code = f"import sys; sys.path.insert(0, {HERE!r}); import guarded; {code}"
    return python(
        code, "-X", "faulthandler", OPENBLAS_NUM_THREADS="1"
    )  # which waits for threads that Numba's keep busy


@pytest.mark.parametrize("place", PLACES)
def test_guards_guard(place):
    with pytest.raises(AssertionError, match="return code -"):
        program(f"guarded.trespass({place!r})")


RUNS = (("end", "nan"), ("begin", "large"), ("end", "small"))
"""Where arrays end or begin with the guard, and what lies between."""


WITHIN = [
    pytest.param(f"{name} {how}", marks=() if name in ("direct", "winograd4") else pytest.mark.long)
    for name, how in itertools.product(("direct", "winograd2", "winograd2x4", "winograd4"), ("within", "own"))
    if (name, how) != ("direct", "own")
]
"""Filters packed within tasks: by the direct sum, and by functions that Winograd's engines share, for points that
all tasks meet and for their own."""


@pytest.mark.parametrize("algorithm", [*FAST, *WITHIN])
def test_no_engine_trespasses(algorithm, request):
    """All of it with ``--long``: else in two threads, and every other problem in one; every other at the beginning.

    And every other in float64 at the end in one thread: vectors are as wide as those of float32 on SSE2, which
    test_machines runs. Where filters are packed within tasks, then only what few kernels serve, in
    float32.
    """
    everything, (engine, _, within) = request.config.getoption("--long"), algorithm.partition(" ")
    single, double = (
        tuple(text for text in texts_for(dtype, engine, everything) if any(taken((text,), dtype, engine)))
        for dtype in ("float32", "float64")
    )
    runs = [(*run, {"float32": single, "float64": double}, (1, 2)) for run in RUNS]
    if not everything:
        if within:
            single = tuple(text for text in few_kernels(engine) if text in single)
        runs = [(*RUNS[0], {"float32": single}, (2,)), (*RUNS[0], {"float32": single[1::2]}, (1,))]
        runs.append((*RUNS[1], {"float32": single[::2]}, (2,)))
        if not within:
            runs.append((*RUNS[0], {"float64": double[::2]}, (1,)))
    mains = [f"guarded.main({place!r}, {poison!r}, {algorithm!r}, {some!r}, {n})" for place, poison, some, n in runs]
    said = program("; ".join(mains))
    assert said.count("untouched") == len(runs)
    problems = 0
    for *_, some, numbers in runs:
        times = len({min(n, npconv.get_num_threads()) for n in numbers})
        problems += times * sum(1 for dtype in some for _ in taken(some[dtype], dtype, engine))
    assert len(said) > problems >= 10

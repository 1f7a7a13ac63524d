"""No engine reads or writes beyond its arrays, or reads what was not written; guarded.py tells how that is seen."""

import sys
from pathlib import Path

import pytest
from engine_problems import FAST, taken, texts_for
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


@pytest.mark.parametrize(
    ("place", "poison"), [("end", "nan"), ("begin", "large"), pytest.param("end", "small", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("algorithm", [*FAST, "winograd2 within", "winograd4 within"])
def test_no_engine_trespasses(algorithm, place, poison, request):
    """All of it with ``--long``: else every other problem at the beginning, and float64 at the end only."""
    everything = request.config.getoption("--long")
    both = everything or (place == "end" and not algorithm.endswith(" within"))
    dtypes = ("float32", "float64") if both else ("float32",)
    engine = algorithm.partition(" ")[0]
    texts = {dtype: texts_for(dtype, engine, everything) for dtype in dtypes}
    if place == "begin" and not everything:
        texts = {dtype: some[::2] for dtype, some in texts.items()}
    said = program(f"guarded.main({place!r}, {poison!r}, {algorithm!r}, {texts!r})")
    assert said[-1] == "untouched"
    problems = sum(1 for dtype in dtypes for _ in taken(texts[dtype], dtype, engine))
    assert len(said) > problems * min(2, npconv.get_num_threads()) >= 10

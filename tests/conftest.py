"""Settings for all tests: hypothesis's profiles, and the count of PyTorch's samples at the end."""

import gc
import os
import tempfile

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "npconv", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# The same examples on every run, and no database of failures to remember.
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("npconv"), derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "npconv")

SAMPLES = pytest.StashKey[dict[tuple[str, str], dict[str, tuple[int, int]]]]()


def pytest_addoption(parser):
    parser.addoption(
        "--long", action="store_true", help="also run tests that take minutes, and seldom find what others do not"
    )


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.path.name != "test_machines.py")  # minutes: no worker shall begin with it last
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="runs with --long"))


def pytest_configure(config):
    """Give this run, and the processes that it starts, a folder of its own for what `npconv.tune` keeps."""
    config.addinivalue_line("markers", "long: takes minutes, and is left out without --long")
    config.stash[SAMPLES] = {}
    # The same choices on every machine, in the processes of tests, too. Peers are measured in as many as one asks for.
    if not any("peers" in argument for argument in config.args):
        gc.set_threshold(20_000, 50, 20)  # see `pytest_collection_finish`
        os.environ.setdefault("NUMBA_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
        if not any("bench" in argument for argument in config.args):
            # Idle threads sleep: spinning ones, OpenMP's default, take from the other workers a third of their time.
            os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.pop("PYTEST_XDIST_WORKER", None)  # lest the pytest that a test starts takes itself for a worker
    folder = tempfile.TemporaryDirectory(prefix="npconv-")
    os.environ["NPCONV_CACHE_DIR"] = folder.name
    config.add_cleanup(folder.cleanup)


def pytest_collection_finish():
    """Let the garbage collector pass over PyTorch and all tests: to look at them took a twelfth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def count_samples(request):
    """Note how many of how many samples an engine passed, for the summary."""

    def count(function, dtype, engine, passed, total):
        request.config.stash[SAMPLES].setdefault((function, dtype), {})[engine] = (passed, total)

    return count


def pytest_sessionfinish(session):
    """Hand the samples over to the process that sums up, where pytest-xdist has several."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["samples"] = list(session.config.stash[SAMPLES].items())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Take them from a process that is done."""
    for function, engines in getattr(node, "workeroutput", {}).get("samples", ()):
        node.config.stash[SAMPLES].setdefault(tuple(function), {}).update(engines)


def pytest_terminal_summary(terminalreporter, config):
    """Print, per function, in how many dtypes how many of PyTorch's samples passed on every engine."""
    functions: dict[str, list[tuple[str, int, int, int]]] = {}
    for (function, dtype), engines in config.stash[SAMPLES].items():
        passed = min(passed for passed, _ in engines.values())
        total = max(total for _, total in engines.values())
        functions.setdefault(function, []).append((dtype, passed, total, len(engines)))
    if functions:
        terminalreporter.section("PyTorch's samples passed on every engine tested")
    for function, rows in functions.items():
        passed, total, engines = sum(row[1] for row in rows), sum(row[2] for row in rows), min(row[3] for row in rows)
        each = ", ".join(f"{dtype} {passed}/{total}" for dtype, passed, total, _ in rows)
        terminalreporter.line(f"{function}: {passed} of {total}, on {engines} engines ({each})")

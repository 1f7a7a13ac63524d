"""Settings for ``pytest tests/peers``: threads, rounds, and what goes into the JSON besides the times."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import npconv
from bench import conftest as bench
from npconv.threads import max_threads
from peers.before import Before
from peers.cores import Cores
from peers.drawn import drawn
from peers.networks import Chain
from peers.race import Contestant, LeftOut, check, keep_memory, others_seconds, race
from peers.work import Work, real

PEERS = ("torch", "onnxruntime", "ncnn")
CORES = pytest.StashKey[Cores]()
MOST_THREADS = max_threads()

report = bench.report  # a fixture: it hands recorded times to pytest-benchmark


def pytest_addoption(parser):
    group = parser.getgroup("npconv beside its peers")
    group.addoption(
        "--peers-rounds", type=int, default=8, metavar="N", help="rounds in which contestants take turns (default: 8)"
    )
    group.addoption(
        "--peers-threads", default=str(min(2, MOST_THREADS)), metavar="N[,N]",
        help="threads of every contestant; of several numbers, one after the other (default: %(default)s)",
    )  # fmt: skip
    group.addoption(
        "--peers-drawn", type=int, default=0, metavar="N", help="drawn layers, to be raced in each way (default: 0)"
    )
    group.addoption("--peers-seed", type=int, default=0, metavar="N", help="what they are drawn by (default: 0)")
    group.addoption(
        "--peers-before", type=Path, metavar="FOLDER", help="another npconv, which takes part in drawn layers, too"
    )
    group.addoption(
        "--peers-keep-memory",
        action="store_true",
        help="keep freed memory, which the C library may give back otherwise",
    )


def pytest_configure(config):
    config.stash[CORES] = Cores()
    if config.getoption("--peers-keep-memory"):
        keep_memory()


def pytest_report_header():
    told = [f"{name} {version or '(not installed, left out)'}" for name, version in versions().items()]
    return f"npconv's peers: {', '.join(told)}"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.benchmark(timer=bench.CLOCK))


def pytest_generate_tests(metafunc):
    if "threads" in metafunc.fixturenames:
        numbers = [int(text) for text in metafunc.config.getoption("--peers-threads").split(",")]
        metafunc.parametrize("threads", numbers, ids=[f"{number}threads" for number in numbers])
    if "drawn" in metafunc.fixturenames:
        count, seed = (metafunc.config.getoption(f"--peers-{name}") for name in ("drawn", "seed"))
        layers = drawn(count, seed)
        metafunc.parametrize("drawn", layers.items(), ids=layers.values())


def pytest_benchmark_update_machine_info(config, machine_info):
    bench.pytest_benchmark_update_machine_info(config, machine_info)
    machine_info["peers"] = versions()


def pytest_benchmark_update_json(config, output_json):
    """Put in the peaks, as the whole run has found them."""
    peaks = config.stash[CORES].peaks
    for entry in output_json["benchmarks"]:
        extra = entry["extra_info"]
        extra["peak_gflops"] = peaks.get((extra["threads"], real(extra["dtype"])))
    output_json["peak_gflops"] = peaks.get((npconv.get_num_threads(), "float32"))


def versions() -> dict[str, str | None]:
    """Return the peers' versions, None for who is not there."""
    found: dict[str, str | None] = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


@pytest.fixture(autouse=True)
def torch_as_for_inference(threads):
    """Give torch its threads, and let it keep nothing for a backward pass that does not come."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def version_before(request):
    """Return the other version to take part, None if there is none."""
    folder = request.config.getoption("--peers-before")
    if folder is None:
        yield None
        return
    before = Before(folder.resolve())
    yield before
    before.close()


@pytest.fixture
def compete(request, report, threads, version_before):
    """Measure contestants on a work, hand over what came out, and return who took part.

    Each entrant is a function that returns a contestant, or raises LeftOut, which only a peer may. A ratio (title, of,
    to) is for the report: how many times faster the contestant `of` is than the fastest of those in `to`.
    """

    def others_had() -> float | None:
        spent = others_seconds()
        return spent if spent is None or version_before is None else spent - version_before.seconds

    def run(
        group: str,
        work: Work | Chain,
        entrants: dict[str, Callable[[], Contestant]],
        ratios: Sequence[tuple[str, str, Sequence[str]]],
        reference: np.ndarray,
    ) -> set[str]:
        with ExitStack() as stack:
            running, left_out = admitted(entrants, reference, stack)
            cores, rounds = request.config.stash[CORES], request.config.getoption("--peers-rounds")
            others, start, waited = others_had(), time.perf_counter(), cores.waited
            race(list(running.values()), rounds, lambda: cores.wait(threads, real(work.dtype)))
            taken = None if others is None else (others_had() - others) / (time.perf_counter() - start)
        report(
            f"{group}, {threads} threads",
            next(iter(running.values())).times,
            title=group,
            layer=work.name,
            problem=work.text,
            dtype=work.dtype,
            threads=threads,
            operations=work.flops,
            contestants={name: running[name].times if name in running else [] for name in entrants},
            left_out=left_out,
            cores_taken_by_others=taken,
            seconds_waited=cores.waited - waited,
            ratios=[list(ratio) for ratio in ratios],
        )
        return {name for name, contestant in running.items() if contestant.times}

    return run


def admitted(
    entrants: dict[str, Callable[[], Contestant]], reference: np.ndarray, stack: ExitStack
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Return who computes what it should, and why the others do not take part; the stack is to close them all."""
    running, left_out = {}, {}
    for name, enter in entrants.items():
        try:
            contestant = enter()
            stack.callback(contestant.close)
            check(contestant, reference)
            running[name] = contestant
        except LeftOut as reason:
            if name.startswith("npconv"):
                pytest.fail(f"{name}: {reason}")
            left_out[name] = str(reason)
    return running, left_out

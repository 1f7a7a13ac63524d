"""Settings for ``pytest bench``: what is measured, how long, and what goes into the JSON besides the times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import npconv
from npconv import backends
from npconv.cli import record


def pytest_addoption(parser):
    group = parser.getgroup("npconv's benchmarks")
    group.addoption(
        "--problem", action="append", metavar="STRING", help="this problem (see tests/corpus.py), not the usual"
    )
    group.addoption(
        "--rounds", type=int, default=5, metavar="N", help="rounds in which contestants take turns (default: 5)"
    )


class Clock:
    """A clock that moves by recorded times only.

    pytest-benchmark times one contestant after the other, minutes apart, which says nothing about ratios. So they are
    timed in turns before, and it is handed what was measured, by a clock that plays it back.
    """

    __name__ = "recorded"

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def play(self, times: Sequence[float]) -> Callable[[], None]:
        """Return a function whose calls last, on this clock, as long as the times say, one after the other."""
        left = iter(times)

        def step() -> None:
            self._now += next(left)

        return step


CLOCK = Clock()


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.benchmark(timer=CLOCK))


@pytest.fixture
def report(benchmark):
    """Hand over the recorded times of a contestant, its group, and what else there is to tell."""

    def hand_over(group: str, times: Sequence[float], **extra: object) -> None:
        benchmark.group = group
        benchmark.extra_info.update(extra)
        benchmark.pedantic(CLOCK.play(times), rounds=len(times))

    return hand_over


class Peak:
    """The machine's peak in float32: the most that was seen at several moments. NaN without Numba."""

    gflops = float("nan")

    def measure(self) -> None:
        if backends.missing("numba") is None:
            from npconv.kernels.numba import peak

            now = peak.flops_per_second(seconds=0.1) / 1e9
            self.gflops = now if self.gflops != self.gflops else max(now, self.gflops)


PEAK = pytest.StashKey[Peak]()


def pytest_configure(config):
    config.stash[PEAK] = Peak()


@pytest.fixture(scope="session")
def peak(pytestconfig):
    return pytestconfig.stash[PEAK]


def pytest_benchmark_update_machine_info(config, machine_info):
    """Tell what npconv runs on; drop what differs from run to run, for pytest-benchmark warns of any difference."""
    machine_info["npconv"] = record.machine() | {"threads": str(npconv.get_num_threads())}
    machine_info["npconv"].pop("threading layer", None)  # known only once threads have started
    machine_info.pop("node", None)
    for name in ("hz_actual", "hz_actual_friendly"):
        machine_info.get("cpu", {}).pop(name, None)


def pytest_benchmark_update_json(config, benchmarks, output_json):
    """Put in the peak, as the whole run has found it, and each contestant's share of it."""
    peak = config.stash[PEAK].gflops
    output_json["peak_gflops"] = peak if peak == peak else None
    for entry in output_json["benchmarks"]:
        extra = entry["extra_info"]
        if "flops" in extra:
            extra["gflops"] = extra["flops"] / entry["stats"]["min"] / 1e9
            extra["share_of_peak"] = extra["gflops"] / peak if peak == peak and extra["backend"] != "cuda" else None


def pytest_terminal_summary(terminalreporter, config):
    peak = config.stash[PEAK].gflops
    if peak == peak:
        terminalreporter.line(f"peak: {peak:.4g} GFLOP/s in float32, on {npconv.get_num_threads()} threads")

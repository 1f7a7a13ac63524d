"""Every algorithm of every backend on the same problems, taking turns. One group a problem."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from corpus import LAYERS, parse

from npconv.cli import measure
from npconv.cli.tasks import Task

PROBLEMS = {
    name: LAYERS[name]
    for name in (
        "ResNet-50 3×3 64@56",
        "ResNet-50 conv1",
        "ResNet-50 1×1 64→256@56",
        "ResNet-50 3×3 512@7",
        "VGG-16 conv5_1",
        "depthwise 3×3 32@112",
        "32 groups 3×3 128@56",
    )
} | {
    "1-D, 9 taps, 4 × 8→16@1024": "mb4ic8oc16iw1024kw9pw4",
    "3-D 3×3×3, 4→8@16×32×32": "ic4oc8id16ih32kd3pd1",
    "textbook 3×3, 4 × 3→2@5": "mb4ic3oc2ih5kh3",
}

BUDGET = 12.0
"""Seconds that one call may take, by npconv's own estimate; where NumPy's loop takes longer, it is left out."""

IN_FULL = LAYERS["ResNet-50 3×3 64@56"]
"""The one layer of this size on which NumPy's loop is waited for, about 50 seconds."""


def pytest_generate_tests(metafunc):
    problems = metafunc.config.getoption("--problem") or list(PROBLEMS.values())
    backends, _ = measure.available()
    engines = [(row.backend, row.algorithm) for row in measure.contestants(task(problems[0]), backends, None, np.inf)]
    parameters = [(text, *engine) for text in problems for engine in engines]
    metafunc.parametrize(("text", "backend", "algorithm"), parameters, ids=["-".join(p) for p in parameters])


@cache
def task(text: str) -> Task:
    """The problem of a string, with random numbers."""
    case, rng = parse(text), np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, np.float32) for shape in (case.input_shape, case.weight_shape))
    return Task(text, f"conv{case.rank}d", x, weight, case.arguments)


@pytest.fixture(scope="module")
def races(request, peak):
    """What was measured of the contestants that pytest was asked for. A problem's race is run when first needed."""
    asked = {tuple(item.callspec.params.values()) for item in request.session.items if "races" in item.fixturenames}
    rounds = request.config.getoption("--rounds")
    found = {}

    def race(text: str) -> dict[tuple[str, str], measure.Row]:
        if text not in found:
            budget = np.inf if text == IN_FULL else BUDGET
            rows = [
                row
                for row in measure.contestants(task(text), measure.available()[0], None, budget)
                if (text, row.backend, row.algorithm) in asked
            ]
            running = [(row, measure.prepared(task(text), row)) for row in rows if row.skipped is None]
            for row, call in running:
                row.begin(call)
            for _ in range(rounds):
                peak.measure()
                for row, call in running:
                    row.take_turn(call)
            found[text] = {(row.backend, row.algorithm): row for row in rows}
        return found[text]

    return race


def test_speed(text, backend, algorithm, races, report):
    row = races(text)[backend, algorithm]
    if row.skipped is not None:
        pytest.skip(f"{text}, {algorithm} on {backend} {row.skipped}")
    name = next((name for name, problem in PROBLEMS.items() if problem == text), text)
    plan = task(text).explain(backend, algorithm)
    report(
        f"{name} ({text})" if name != text else name,
        row.times,
        problem=text,
        name=name,
        backend=backend,
        algorithm=algorithm,
        dtype="float32",
        threads=plan.threads,
        flops=plan.flops,
        compile_seconds=row.compile,
        first_call_seconds=row.first_call,
    )

"""``pytest bench`` on tiny problems, and the README's table made of what it measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import parse
from engine_problems import CHOOSY

import npconv
from npconv.registry import candidates
from npconv.table import seconds

ROOT = Path(__file__).parents[1]
PROBLEMS = ("mb2ic2oc4ih9iw8kh3ph1", "ic3oc2iw40kw5")
CPU = ("numpy", "numba")
MARKED = "# Title\n\n<!-- bench -->\nold\n<!-- /bench -->\n\nThe rest.\n"


def run(*arguments, cwd):
    source = str(Path(npconv.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, encoding="utf-8"
    )


def explained(case):
    return npconv.explain(f"conv{case.rank}d", case.input_shape, case.weight_shape, **case.arguments)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The file of a run, and what it holds."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    problems = [f"--problem={text}" for text in PROBLEMS]
    options = ["-q", "--rounds=2", f"--benchmark-json={path}", "-p", "no:cacheprovider"]
    done = run("-m", "pytest", "bench/test_speed.py", *problems, *options, cwd=ROOT)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return path, json.loads(path.read_text(encoding="utf-8"))


def test_every_algorithm_is_measured_in_its_problems_group(measured):
    _, content = measured
    entries = {}
    for entry in content["benchmarks"]:
        extra = entry["extra_info"]
        entries[extra["problem"], extra["backend"], extra["algorithm"]] = entry
    every = {(text, backend, found.name) for text in PROBLEMS for backend in CPU for found in candidates(backend)}
    refused = {(text, *engine) for text in PROBLEMS for engine in explained(parse(text)).refusals}
    assert {algorithm for _, _, algorithm in refused} == CHOOSY
    assert {key for key in entries if key[1] in CPU} == every - refused
    for (text, _, _), entry in entries.items():
        assert text in entry["group"]


def test_each_tells_its_speed(measured):
    _, content = measured
    for entry in content["benchmarks"]:
        extra, case = entry["extra_info"], parse(entry["extra_info"]["problem"])
        shape = explained(case).output_shape
        elements = 1
        for n in shape:
            elements *= n
        assert extra["flops"] == 2 * elements * case.products
        assert extra["gflops"] == pytest.approx(extra["flops"] / entry["stats"]["min"] / 1e9)
        if extra["backend"] in CPU:
            assert extra["share_of_peak"] == pytest.approx(extra["gflops"] / content["peak_gflops"])
        assert extra["threads"] == npconv.get_num_threads()
        assert (extra["compile_seconds"] is None) == (extra["backend"] == "numpy")
        assert entry["stats"]["rounds"] >= 2
        assert min(entry["stats"]["data"]) > 0


def test_report_writes_the_runs_figures_into_the_readme(measured, tmp_path):
    path, content = measured
    readme, plot = tmp_path / "README.md", tmp_path / "pictures" / "plot.png"
    plot.parent.mkdir()
    readme.write_text(MARKED, encoding="utf-8")
    for _ in range(2):  # the second time, the table is replaced by itself
        done = run(ROOT / "bench" / "report.py", path, readme, "--plot", plot, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        text = readme.read_text(encoding="utf-8")
        assert text.startswith("# Title\n\n<!-- bench -->\n")
        assert text.endswith("<!-- /bench -->\n\nThe rest.\n")
        assert "old" not in text
        assert "(pictures/plot.png)" in text
        assert text.count("| NumPy → Numba |") == 1
        assert f"peak of {content['peak_gflops']:.3g} GFLOP/s" in text
        least = {
            (e["extra_info"]["problem"], e["extra_info"]["backend"], e["extra_info"]["algorithm"]): e["stats"]["min"]
            for e in content["benchmarks"]
        }
        for problem in PROBLEMS:
            (row,) = [line for line in text.splitlines() if line.startswith(f"| {problem} |")]
            for algorithm in ("loop", "flatten", "im2col"):
                numpy, numba = (least[problem, backend, algorithm] for backend in CPU)
                assert f"{seconds(numpy)} → {seconds(numba)}" in row
            numpy, numba = ({a: t for (p, b, a), t in least.items() if (p, b) == (problem, name)} for name in CPU)
            best = min(numba, key=numba.__getitem__)
            assert f"| {best}: {seconds(min(numpy.values()))} → {seconds(numba[best])}, " in row
    assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_report_without_a_place_for_the_table(measured, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no markers", encoding="utf-8")
    done = run(ROOT / "bench" / "report.py", measured[0], readme, "--plot", tmp_path / "plot.png", cwd=tmp_path)
    assert done.returncode == 2
    assert "no place for the table" in done.stderr
    assert readme.read_text(encoding="utf-8") == "no markers"


def test_report_without_times_of_numba(measured, tmp_path):
    path, readme = tmp_path / "bench.json", tmp_path / "README.md"
    content = measured[1] | {"benchmarks": []}
    path.write_text(json.dumps(content), encoding="utf-8")
    readme.write_text(MARKED, encoding="utf-8")
    done = run(ROOT / "bench" / "report.py", path, readme, "--plot", tmp_path / "plot.png", cwd=tmp_path)
    assert done.returncode == 2
    assert "no times of Numba's algorithms" in done.stderr

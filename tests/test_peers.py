"""What ``pytest tests/peers`` is made of, as far as nothing has to be timed, one short run of it, and its report."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from peers import ours, race, report, with_ncnn
from peers.before import Before
from peers.drawn import CLASSES, LEAST, MOST, drawn
from peers.networks import Chain, alone, chain
from peers.race import Contestant, LeftOut
from peers.work import Work

import npconv

ROOT = Path(__file__).parents[1]
MARKED = "# Title\n\n<!-- bench -->\nother\n<!-- /bench -->\n\n<!-- peers -->\nold\n<!-- /peers -->\n\nThe rest.\n"
PROBLEMS = [
    ("mb2ic3oc4ih9iw8kh3sh2ph1", False),
    ("g4ic4oc8ih6kh3dh2ph2", False),
    ("ic3oc2iw40kw5", False),
    ("ic2oc3id4ih5iw6kd3pd1", False),
    ("mb2ic3oc4ih5iw6kh4sh2ph1", True),
]


def run(*arguments, cwd=ROOT):
    source = str(Path(npconv.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, encoding="utf-8"
    )


def collected(*arguments):
    done = run("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments)
    return [line for line in done.stdout.splitlines() if "peers/test_times.py::" in line.replace(os.sep, "/")]


def test_runs_only_where_it_is_named():
    here = sorted(ROOT.glob("tests/*.py"))  # their tests would take a while to be collected, and are not asked for
    assert not collected("tests", *(f"--ignore={path}" for path in here))
    assert collected("tests/peers", "-k", "test_layers and 2threads-ic64oc64ih56kh3ph1", "--peers-threads=2,1")
    assert len(collected("tests/peers", "-k", "test_drawn", "--peers-drawn=3", "--peers-threads=1")) == 4 * 3
    both = collected("tests/peers/test_times.py", "-k", "test_textbook", "--peers-threads=2,1")
    assert len(both) == 4


@pytest.mark.parametrize(("text", "transposed"), PROBLEMS)
def test_work_has_its_shapes_and_operations(text, transposed):
    work = Work("name", text, transposed)
    result = getattr(npconv, work.function)(work.input, work.weight, **work.options)
    assert result.shape == work.result_shape == work.slope.shape
    windows = work.input if transposed else result
    products = work.weight[0].size
    assert work.flops == 2 * windows.size * products


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("text", "transposed"), PROBLEMS)
def test_npconv_passes_the_check_in_every_role(text, transposed, dtype):
    work = Work("name", text, transposed, dtype)
    expected = getattr(npconv, work.function)(work.input, work.weight, **work.options, backend="numpy")
    for make in (ours.layer, ours.function):
        for last in (False, True):
            race.check(make(work, 1, last=last), expected)
        race.check(make(work, 1, precision="strict"), expected)
    for of in ("input", "weight"):
        race.check(ours.gradient(work, 1, of), ours.gradient(work, 1, of, backend="numpy").call())


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones((2, 3), np.float32),
        np.ones((2, 2), np.float64),
        np.array([[1, 1], [1, 1.1]], np.float32),
        np.array([[1, 1], [1, np.nan]], np.float32),
    ],
    ids=["shape", "dtype", "value", "nan"],
)
def test_who_computes_something_else_is_left_out(wrong):
    with pytest.raises(LeftOut, match="its result is"):
        race.check(Contestant(1, lambda: wrong), np.ones((2, 2), np.float32))


def test_contestants_take_turns_with_their_threads(monkeypatch):
    monkeypatch.setattr(race, "PAUSE", 1e-3)
    monkeypatch.setattr(race, "TURN", 1e-3)
    calls = []

    def contestant(name, threads):
        return Contestant(threads, lambda: calls.append((name, npconv.get_num_threads())))

    both = [contestant("a", 1), contestant("b", npconv.get_num_threads())]
    race.race(both, rounds=3)
    assert [len(one.times) for one in both] == [3, 3]
    turns = [call for call, before in zip(calls, [None, *calls], strict=False) if call != before]
    assert turns == [("a", 1), ("b", npconv.get_num_threads())] * 3


def test_another_version_takes_turns_in_its_process():
    work = Work("name", "ic4oc3ih9iw8kh3")
    before = Before(Path(npconv.__file__).parents[1])
    try:
        for what in ("layers", "functions", "gradients of the input", "gradients of the weight"):
            here, there = ours.drawn(what, work, 1), before.contestant(what, work, 1)
            race.check(there, here.call())
            race.race([here, there], rounds=2)
            assert [len(one.times) for one in (here, there)] == [2, 2]
            assert all(0 < least < 1 for least in there.times)
        assert before.seconds > 0
    finally:
        before.close()
    with pytest.raises(ValueError, match=r"--peers-before must name a folder with another npconv in it; got '.*tests'"):
        Before(ROOT / "tests")


def test_drawn_layers_are_of_their_classes():
    layers = drawn(4 * len(CLASSES), seed=3)
    assert layers == drawn(4 * len(CLASSES), seed=3) != drawn(4 * len(CLASSES), seed=4)
    assert len(set(layers.values())) == 4 * len(CLASSES)
    for number, (name, text) in enumerate(layers.items()):
        kind, work = CLASSES[number % len(CLASSES)], Work(name, text)
        assert name.startswith(kind)
        assert LEAST / 2 <= work.flops <= 2 * MOST
        assert (kind in ("1×1", "1×1, tall", "1×1 s2")) <= (set(work.case.kernel) == {1})
        assert (work.case.groups > 1) == (kind in ("depthwise", "groups"))


@pytest.mark.parametrize(
    ("name", "layers", "millions", "filters"),
    [
        ("ResNet-18", 18, 11, 512), ("ResNet-50", 50, 21, 2048), ("ResNeXt-50", 50, 20, 2048), ("VGG-16", 13, 15, 512),
        ("MobileNetV2", 52, 2, 1280), ("ConvNeXt-T", 58, 28, 768),
    ],
)  # fmt: skip
def test_networks_are_chains(name, layers, millions, filters):
    network = chain(name)
    assert len(network.works) == layers
    assert round(sum(np.prod(work.weight_shape) for work in network.works) / 1e6) == millions
    for work, following in itertools.pairwise(network.works):
        assert work.result_shape == following.case.input_shape
    assert network.result_shape == (1, filters, 7, 7)


def test_chains_hand_on_their_results():
    network = Chain("some", (Work("one", "ic3oc4ih9iw8kh3sh2ph1"), Work("two", "g4ic4oc8ih5iw4kh3")))
    expected = network.input
    for work in network.works:
        expected = npconv.conv2d(expected, work.weight, **work.options, backend="numpy")
    for last in (False, True):
        race.check(ours.network(network, 1, last), expected)
    assert "\nConvolution layer0 1 1 x x1 " in with_ncnn.description(network)
    assert "\nConvolutionDepthWise layer1 1 1 x1 y " in with_ncnn.description(network)


def test_net_in_ncnns_words():
    convolution = Work("name", "g4ic4oc8ih6iw7kh3kw2sw3dh2dw1ph2pw1")
    assert with_ncnn.description(alone(convolution)) == (
        "7767517\n2 2\nInput in 0 1 x\nConvolutionDepthWise layer0 1 1 x y "
        "0=8 1=2 2=1 3=3 4=1 5=0 6=48 7=4 11=3 12=2 13=1 14=2 15=1 16=2\n"
    )
    transposed = Work("name", "ic2oc3iw5kw2sw2", transposed=True)
    net = alone(transposed)
    assert "\nDeconvolution1D layer0 1 1 x y 0=3 1=2 2=1 3=2 4=0 5=0 6=12 15=0\n" in with_ncnn.description(net)
    flag, *numbers = np.frombuffer(with_ncnn.weights(net), np.float32)
    assert flag == 0
    np.testing.assert_array_equal(numbers, transposed.weight.swapaxes(0, 1).ravel())


def entry(layer, contestants, left_out=None, threads=2, taken=0.0):
    ratios = [("× fastest", "npconv", ["torch", "ncnn"]), ("strict × fastest", "strict", ["torch", "ncnn"])]
    extra = {
        "title": "Layers", "layer": layer, "problem": "ih1", "dtype": "float32", "threads": threads,
        "operations": 1_000_000, "contestants": contestants, "left_out": left_out or {}, "ratios": ratios,
        "peak_gflops": 10.0, "cores_taken_by_others": taken,
    }  # fmt: skip
    return {"extra_info": extra, "stats": {"min": min(contestants["npconv"])}}


RUN = {
    "benchmarks": [
        entry("first", {"npconv": [2e-3, 1e-3], "strict": [4e-3], "torch": [2e-3, 9e-3], "ncnn": [3e-3]}),
        entry("second", {"npconv": [1e-3], "strict": [1e-3], "torch": [5e-4], "ncnn": []}, {"ncnn": "has no batches"}),
        entry("first", {"npconv": [1e-6], "strict": [1e-6], "torch": [1e-6]}, {"ncnn": "no"}, threads=1, taken=0.91),
        {"extra_info": {"what": "anything else that a run may hold"}, "stats": {"min": 1.0}},
    ],
    "machine_info": {
        "cpu": {"brand_raw": "A CPU"}, "machine": "x86_64", "python_version": "3.11.7",
        "npconv": {"cpu": "znver4", "threads": "2", "numpy": "2.4", "numba": "0.68"},
        "peers": {"torch": "2.13.0", "onnxruntime": None, "ncnn": "1.0"},
    },
    "peak_gflops": 10.0,
    "datetime": "2026-11-23T00:00:00",
}  # fmt: skip


def test_report_in_paragraphs():
    machine, title, table, left_out, single, _, _, disturbed = report.paragraphs(RUN)
    assert "torch 2.13.0, ncnn 1.0; not installed, and so left out: onnxruntime." in machine
    assert title == "**Layers** (2 threads, float32)"
    assert table.splitlines() == [
        "| | npconv | strict | torch | ncnn | × fastest | strict × fastest | of peak |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| first | 1 ms | 4 ms | 2 ms | 3 ms | 2.00× | **0.50×** | 10 % |",
        "| second | 1 ms | 1 ms | 500 µs | – | **0.50×** | **0.50×** | 10 % |",
        "| geometric mean | | | | | 1.00×, 1 of 2 lost | **0.50×**, 2 of 2 lost | |",
    ]
    assert left_out == "Left out: ncnn (second: has no batches)."
    assert single == "**Layers** (1 thread, float32)"
    assert disturbed == "Not to be trusted, for other programs ran at the same time: first (0.91 of a core)."


def test_drawn_layers_are_summed_up_by_class(tmp_path):
    def drawn(title, layer, mine, other):
        made = entry(layer, {"npconv": [mine], "strict": [mine], "torch": [other], "ncnn": []})
        made["extra_info"]["title"] = title
        return made

    run = RUN | {
        "benchmarks": [
            RUN["benchmarks"][0],
            drawn("Drawn layers", "1×1: ic3oc4ih5", 1.0, 2.0),
            drawn("Drawn layers", "1×1: ic4oc4ih5", 2.0, 1.0),
            drawn("Drawn layers", "5×5: ic5oc4ih5kh5", 1.0, 4.0),
            drawn("Drawn functions", "1×1: ic3oc4ih5", 1.0, 0.25),
        ]
    }
    machine, table, worst = report.summary(run)
    assert machine.startswith("A CPU")
    assert table.splitlines() == [
        "| | layers | functions |",
        "| --- | ---: | ---: |",
        "| 1×1 | 1.00×, 1 of 2 lost | **0.25×**, 1 of 1 lost |",
        "| 5×5 | 4.00×, 0 of 1 lost | – |",
        "| all | 1.58×, 1 of 3 lost | **0.25×**, 1 of 1 lost |",
    ]
    assert worst == "The worst of each: layers **0.50×** (ic4oc4ih5); functions **0.25×** (ic3oc4ih5)."
    path, readme = tmp_path / "peers.json", tmp_path / "README.md"
    path.write_text(json.dumps(run), encoding="utf-8")
    readme.write_text(MARKED + "<!-- drawn -->\n<!-- /drawn -->\n", encoding="utf-8")
    assert report.main([str(path), str(readme)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.count("**Layers**") == 1
    assert "Drawn" not in text
    assert text.count("| 5×5 | 4.00×") == 1
    readme.write_text(MARKED, encoding="utf-8")
    assert report.main([str(path), str(readme)]) == 2
    assert report.summary(RUN) == []


def test_ratios_are_told_without_flattery():
    assert report.ratio(0.999) == "**0.99×**"
    assert report.ratio(1.0) == "1.00×"
    assert report.ratio(float("nan")) == "–"
    assert report.mean([float("nan")]) == "–"
    assert report.mean([4.0, float("nan"), 0.25]) == "1.00×, 1 of 2 lost"


def test_report_in_the_readme_and_without_a_place(tmp_path):
    path, readme = tmp_path / "peers.json", tmp_path / "README.md"
    path.write_text(json.dumps(RUN), encoding="utf-8")
    readme.write_text(MARKED, encoding="utf-8")
    for _ in range(2):  # the second time, the tables are replaced by themselves
        assert report.main([str(path), str(readme)]) == 0
        text = readme.read_text(encoding="utf-8")
        assert text.startswith("# Title\n\n<!-- bench -->\nother\n<!-- /bench -->\n\n<!-- peers -->\n")
        assert text.endswith("<!-- /peers -->\n\nThe rest.\n")
        assert "old" not in text
        assert text.count("**Layers** (2 threads, float32)") == 1
    readme.write_text("no markers", encoding="utf-8")
    assert report.main([str(path), str(readme)]) == 2
    assert readme.read_text(encoding="utf-8") == "no markers"
    path.write_text(json.dumps(RUN | {"benchmarks": []}), encoding="utf-8")
    assert report.main([str(path)]) == 2


def test_a_run_and_its_report(tmp_path):
    path = tmp_path / "peers.json"
    options = ["-q", "-k", "test_textbook", "--peers-rounds=1", "--peers-threads=1", "-p", "no:cacheprovider"]
    done = run("-m", "pytest", "tests/peers", *options, f"--benchmark-json={path}")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    told = run(ROOT / "tests" / "peers" / "report.py", path, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "**The textbook's example** (1 thread, float32)" in told.stdout
    entries = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    assert [e["extra_info"]["layer"].partition(",")[0] for e in entries] == ["layer", "function"]
    for e in entries:
        times = e["extra_info"]["contestants"]
        assert e["stats"]["min"] == pytest.approx(min(times["npconv"]))
        assert {"npconv", "torch", "torch, channels last"} <= set(times)
        assert e["extra_info"]["peak_gflops"] > 0

"""The command line: what it prints and writes, and what it says when it is called wrongly."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from checks import TEXTBOOK
from engine_problems import CHOOSY
from PIL import Image
from processes import python

import npconv
from npconv import backends, cli, timing
from npconv.cli import layers, measure, reference, tasks
from npconv.kernels.numba import peak
from npconv.kernels.numpy import im2col
from npconv.registry import candidates

PNG = b"\x89PNG\r\n\x1a\n"
CPU = ("numpy", "numba")


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """A small photograph in a file."""
    path = tmp_path_factory.mktemp("images") / "small.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (23, 31, 3), np.uint8)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def letterboxed(tmp_path_factory):
    """A picture in a black frame, where all that a textbook's algorithm adds up is zeros."""
    path, pixels = tmp_path_factory.mktemp("images") / "framed.png", np.zeros((96, 160, 3), np.uint8)
    pixels[20:-20, 20:-20] = np.random.default_rng(0).integers(0, 256, (56, 120, 3))
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.fixture
def run(capsys):
    """Run a command in this process; the answer is its exit status, its output and its errors."""

    def call(*arguments):
        try:
            status = cli.main(arguments)
        except SystemExit as stop:  # argparse's way
            status = stop.code
        return (status, *capsys.readouterr())

    return call


def strict(path):
    """The JSON of a file; NaN and infinity are none."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture(scope="module")
def compared(photograph, tmp_path_factory):
    """One whole run, as a user starts it: its output, its numbers and its plot."""
    folder = tmp_path_factory.mktemp("compared")
    files = {name: folder / name for name in ("compare.json", "compare.png")}
    arguments = ["compare", "--image", photograph, "--repeat", "2", "--backends", *CPU]
    arguments += ["--json", str(files["compare.json"]), "--plot", str(files["compare.png"])]
    root = Path(npconv.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "npconv", *arguments],
        env=os.environ | {"PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout, strict(files["compare.json"]), files["compare.png"]


def test_compare_prints_a_row_for_each_algorithm(compared):
    output, numbers, _ = compared
    assert "small.png, 31 × 23 pixels" in output
    rows = [line.split()[:2] for line in output.splitlines()]
    for row in numbers["problems"][0]["rows"]:
        if row["left_out"] is None:
            assert [row["algorithm"], row["backend"]] in rows
        else:
            assert f"{row['algorithm']} on {row['backend']} {row['left_out']}" in output.splitlines()
    assert (
        "winograd4 on numba left out: it is for kernels of 2 to 4 or 6 to 12 elements at stride 1, not of 5" in output
    )


def test_compare_writes_every_number(compared):
    _, numbers, _ = compared
    (problem,) = numbers["problems"]
    assert problem["input_shape"] == [1, 3, 23, 31]
    assert problem["weight_shape"] == [5, 3, 5, 5]
    assert problem["flops"] == 2 * 5 * 19 * 27 * 75
    rows = {(row["backend"], row["algorithm"]): row for row in problem["rows"]}
    assert set(rows) == {(backend, entry.name) for backend in CPU for entry in candidates(backend)}
    refused = {key for key, row in rows.items() if row["left_out"] is not None}
    takers = {"dots", "winograd2"}  # of three channels of 5 × 5
    assert refused == {("numba", algorithm) for algorithm in CHOOSY - takers}
    for backend, algorithm in rows.keys() - refused:
        row = rows[backend, algorithm]
        least = row["seconds"]["least"]
        assert 0 < least <= row["seconds"]["median"] <= row["seconds"]["most"]
        assert row["seconds"]["calls"] >= 1
        if algorithm in TEXTBOOK:
            assert row["times_numpy"] == rows["numpy", algorithm]["seconds"]["least"] / least
        else:
            assert row["times_numpy"] is None
        assert row["gflops"] == pytest.approx(problem["flops"] / least / 1e9)
        assert row["share_of_peak"] == pytest.approx(row["gflops"] / numbers["peak_gflops"])
        assert row["accurate"] is True
        assert row["largest_error_of_bound"] <= 1
        assert row["memory_bytes"] >= 5 * 19 * 27 * 4
        assert (row["compile_seconds"] is None) == (backend == "numpy")
    assert numbers["threads"] == npconv.get_num_threads()
    assert numbers["machine"]["numpy"] == np.__version__
    assert not any(str(Path.home()) in text for text in numbers["machine"].values())


def test_compare_draws(compared):
    _, _, plot = compared
    assert plot.read_bytes().startswith(PNG)
    with Image.open(plot) as image:
        assert min(image.size) > 500
        colors = np.unique(np.asarray(image.convert("RGB").resize((200, 100))).reshape(-1, 3), axis=0)
    assert len(colors) > 100


def test_planned_memory_is_what_is_allocated(run, tmp_path, photograph):
    """Where a call is too slow to be made again for its memory, the plan stands in for it."""
    large, numbers = tmp_path / "large.png", tmp_path / "numbers.json"
    with Image.open(photograph) as image:
        image.resize((60, 40)).save(large)
    arguments = ["--algorithms", "loop", "im2col", "--backends", "numpy", "--repeat", "1"]
    run("compare", "--image", str(large), "--json", str(numbers), *arguments)
    (problem,) = strict(numbers)["problems"]
    result = 5 * 36 * 56 * 4
    for row in problem["rows"]:
        assert row["memory_measured"]
        assert row["memory_bytes"] == pytest.approx(row["planned_workspace_bytes"] + result, rel=0.1, abs=8000)


def test_brackets_in_names_are_no_markup(run, photograph, tmp_path):
    path = tmp_path / "a [red]face[bold].png"
    path.write_bytes(Path(photograph).read_bytes())
    only = ["--backends", "numpy", "--algorithms", "im2col", "--repeat", "1"]
    status, output, _ = run("compare", "--image", str(path), *only)
    assert status == 0
    assert path.name in output


def test_a_terminal_that_cannot_show_every_character(photograph):
    only = ["--backends", "numpy", "--algorithms", "im2col", "--repeat", "1"]
    arguments = ["compare", "--image", photograph, *only]
    lines = python(f"from npconv.cli import main; assert main({arguments!r}) == 0", PYTHONIOENCODING="ascii")
    assert "small.png, 31 ? 23 pixels" in lines[0]


def test_without_numba_compare_does_what_it_can(photograph):
    arguments = ["compare", "--image", photograph, "--algorithms", "im2col", "--repeat", "1"]
    lines = python(f"""
import sys
sys.modules["numba"] = None
from npconv.cli import main
assert main({arguments!r}) == 0
""")
    assert any(line.split()[:2] == ["im2col", "numpy"] for line in lines)
    assert any(line.startswith("numba is left out: ") for line in lines)


def test_the_budget_scales_the_photograph_down(run, photograph, tmp_path):
    numbers = tmp_path / "numbers.json"
    loop = ["--algorithms", "loop", "--backends", "numpy", "--repeat", "1"]
    status, output, _ = run("compare", "--image", photograph, "--budget", "0.01", "--json", str(numbers), *loop)
    assert status == 0
    assert "The photograph was scaled" in output
    (problem,) = strict(numbers)["problems"]
    _, _, height, width = problem["input_shape"]
    assert 5 <= height < 23
    assert width / height == pytest.approx(31 / 23, rel=0.15)
    assert all(row["left_out"] is None for row in problem["rows"])
    _, output, _ = run("compare", "--image", photograph, "--budget", "1e-9", *loop)
    assert "5 × 5 pixels" in output  # the filters' size is the least


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compare_in_each_dtype_on_one_thread(run, photograph, tmp_path, dtype):
    numbers = tmp_path / "numbers.json"
    arguments = ["--dtype", dtype, "--threads", "1", "--algorithms", "im2col", "--backends", *CPU, "--repeat", "1"]
    status, output, _ = run("compare", "--image", photograph, "--json", str(numbers), *arguments)
    assert status == 0
    assert "npconv on 1 thread," in output
    assert f"GFLOP/s in {dtype}" in output
    told = strict(numbers)
    assert told["problems"][0]["dtype"] == dtype
    assert told["threads"] == 1


WRONG_BY = [("photograph", 0.001), ("photograph", math.nan), ("photograph", math.inf), ("letterboxed", 1e-7)]


@pytest.mark.parametrize(("picture", "value"), WRONG_BY)
def test_a_wrong_result_is_seen(run, request, monkeypatch, picture, value):
    """The textbook's algorithms are held to each element: where all is black, to zero."""
    right = im2col.conv

    def wrong(x, weight, bias, out, *steps):
        right(x, weight, bias, out, *steps)
        out[0, -1, 0, -1, -1] += value

    monkeypatch.setattr(im2col, "conv", wrong)
    only = ["--backends", "numpy", "--algorithms", "im2col", "--repeat", "1"]
    status, output, _ = run("compare", "--image", request.getfixturevalue(picture), *only)
    assert status == 1
    (said,) = [line for line in output.splitlines() if line.startswith("im2col on numpy is WRONG")]
    assert said.endswith(reference.STRICT)


def test_a_letterboxed_picture_is_right(run, letterboxed):
    """Winograd's tiles mix the picture with the frame: by default an error may be of the largest element's size."""
    only = ["--backends", *CPU, "--algorithms", "winograd2", "direct", "planes", "im2col", "--repeat", "1"]
    status, output, _ = run("compare", "--image", letterboxed, *only)
    assert status == 0
    assert "WRONG" not in output
    assert output.count(reference.STRICT) == output.count(reference.DEFAULT) == 1


def test_a_result_of_another_shape_is_wrong():
    row = measure.Row("numpy", "loop", 0.0, None, 0)
    measure.check(row, np.ones((1, 2)), np.ones((1, 1)), np.ones((1, 1)))
    assert not row.accurate


def test_layers(run, tmp_path):
    numbers, plot = tmp_path / "numbers.json", tmp_path / "layers.svg"
    arguments = ["--repeat", "1", "--algorithms", "loop", "im2col", "--backends", "numpy", "--budget", "0.1"]
    status, output, _ = run("compare", "--layers", "mobilenet", "--json", str(numbers), "--plot", str(plot), *arguments)
    assert status == 0
    problems = strict(numbers)["problems"]
    assert len(problems) == len(layers.SETS["mobilenet"])
    for problem in problems:
        rows = {row["algorithm"]: row for row in problem["rows"]}
        assert rows["im2col"]["accurate"]
        assert rows["loop"]["left_out"].startswith("left out: about ")
    assert output.count("loop on numpy left out: about ") == len(problems)
    assert "</svg>" in plot.read_text(encoding="utf-8")


def test_nothing_but_what_is_left_out(run, tmp_path):
    plot = tmp_path / "nothing.png"
    arguments = ["--algorithms", "loop", "--backends", "numpy", "--budget", "0.001", "--plot", str(plot)]
    assert run("compare", "--layers", "mobilenet", *arguments)[0] == 0
    assert plot.exists()


def test_an_image_that_is_not_there(run, tmp_path):
    path = tmp_path / "nothing.png"
    status, _, errors = run("compare", "--image", str(path))
    assert status == 2
    assert f"the image {str(path)!r} cannot be read" in errors


@pytest.mark.parametrize("name", layers.SETS)
def test_layers_are_problems(name):
    for task in tasks.layers(name, "float32"):
        height, width = task.explain("numpy").output_shape[2:]
        assert height == width == -(-task.input.shape[2] // task.options["stride"])


OPTIONS = [{}, {"stride": 2}, {"padding": 2}, {"stride": 3, "padding": 1, "dilation": 2}, {"groups": 2, "padding": 1}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_reference_is_torch(options):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 4, 11, 9))
    w = rng.standard_normal((6, 4 // options.get("groups", 1), 3, 2))
    want = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), **options)
    np.testing.assert_allclose(reference.convolve(x, w, **options), want.numpy(), rtol=1e-12, atol=1e-12)


def test_a_race_tells_its_steps_and_gives_each_its_turns():
    rng = np.random.default_rng(2)
    task = tasks.Task("", "conv2d", rng.random((1, 3, 8, 8)), rng.random((2, 3, 3, 3)))
    rows = measure.contestants(task, ["numpy"], ["flatten", "im2col"], math.inf)
    told, rounds = [], []
    measure.race(task, rows, 3, lambda: rounds.append(len(told)), told.append)
    assert len(told) == measure.steps(rows, 3)
    assert len(rounds) == 3
    assert all(len(row.times) >= 3 for row in rows)


def test_a_slow_contestant_runs_once(monkeypatch):
    monkeypatch.setattr(timing, "ENOUGH", 0.0)
    calls = []
    row = measure.Row("numpy", "loop", 0.0, None, 1000)

    def call():
        calls.append(1)
        return np.zeros(1)

    row.begin(call)
    measure.memory(row, call, 8)
    row.take_turn(call)
    assert len(calls) == len(row.times) == 1
    assert (row.memory, row.memory_is_planned) == (1008, True)


def test_a_contestant_that_was_held_up_has_its_turns(monkeypatch):
    """Its first call found the code on disk, waited seconds for an import, and was taken for the time of a call."""
    monkeypatch.setattr(timing, "ENOUGH", 0.2)
    monkeypatch.setattr(timing, "TURN", 0.0)
    row, waits = timing.Contestant("numba", "im2col", 1e-5), iter([0.3, 0.0, 0.3, 0.0, 0.0])

    def call():
        time.sleep(next(waits))
        return np.zeros(1)

    row.begin(call)
    row.take_turn(call)  # held up, too
    row.take_turn(call)
    assert len(row.times) == 2
    assert row.times[0] >= 0.3 > row.least


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peak(dtype):
    """Whatever the machine, it is more than one product each ten nanoseconds, and less than a supercomputer's."""
    assert 2e8 < peak.flops_per_second(dtype, seconds=0.02) < 1e15


WRONG = {
    "no command": [],
    "no such command": ["paint"],
    "no such flag": ["compare", "--loud"],
    "no such backend": ["compare", "--backends", "abacus"],
    "no such algorithm": ["compare", "--algorithms", "guess"],
    "no such layers": ["compare", "--layers", "alexnet"],
    "two subjects": ["compare", "--layers", "vgg16", "--image", "x.png"],
    "no repetition": ["compare", "--repeat", "0"],
    "not a number": ["compare", "--repeat", "many"],
    "no budget": ["compare", "--budget", "nan"],
    "no threads": ["compare", "--threads", "0"],
    "too many threads": ["compare", "--threads", "99999"],
    "no such image": ["compare", "--image", "no such file.png"],
    "no image": ["compare", "--image", __file__],
    "a folder": ["compare", "--image", str(Path(__file__).parent)],
    "no such folder": ["compare", "--json", str(Path(__file__).parent / "none" / "numbers.json")],
    "a folder to write": ["compare", "--json", str(Path(__file__).parent)],
    "no such format": ["compare", "--plot", "picture.doc"],
    "no format": ["compare", "--plot", "picture"],
    "no shapes": ["explain", "conv2d"],
    "bad shape": ["explain", "conv2d", "--input", "1,3,x", "--weight", "1,3,3,3"],
    "bad weight": ["explain", "conv2d", "--input", "1,3,8,8", "--weight", "1,2,3,3"],
    "bad padding": ["explain", "conv2d", "--input", "1,3,8,8", "--weight", "1,3,3,3", "--padding", "1:"],
    "bad dtype": ["explain", "conv2d", "--input", "1,3,8,8", "--weight", "1,3,3,3", "--dtype", "bool"],
    "bad function": ["explain", "conv9d", "--input", "1,3,8,8", "--weight", "1,3,3,3"],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line(run, arguments):
    status, output, errors = run(*arguments)
    assert status == 2
    assert output == ""
    assert errors.startswith("npconv: ")
    assert errors.count("\n") == 1
    assert errors.endswith("\n")


def test_an_image_smaller_than_the_filters(run, tmp_path):
    path = tmp_path / "tiny.png"
    Image.new("RGB", (4, 9)).save(path)
    status, _, errors = run("compare", "--image", str(path))
    assert status == 2
    assert errors.startswith("npconv: the image is too small")
    assert errors.count("\n") == 1


@pytest.mark.skipif(backends.missing("cuda") is None, reason="the CUDA backend can run here")
def test_without_cuda_one_line_says_why(run, photograph):
    status, output, _ = run("compare", "--image", photograph, "--algorithms", "im2col", "--repeat", "1")
    assert status == 0
    assert "cuda is left out: " in output
    status, _, errors = run("compare", "--image", photograph, "--backends", "cuda")
    assert status == 2
    assert errors.startswith("npconv: backend cuda cannot run here: ")
    assert errors.count("\n") == 1


def test_cuda_in_the_simulator(tmp_path):
    path, numbers = tmp_path / "tiny.png", tmp_path / "numbers.json"
    Image.new("RGB", (6, 5), "red").save(path)
    arguments = ["compare", "--image", str(path), "--json", str(numbers), "--repeat", "1", "--algorithms", "loop"]
    python(f"from npconv.cli import main; assert main({arguments!r}) == 0", NUMBA_ENABLE_CUDASIM="1")
    rows = {row["backend"]: row for row in strict(numbers)["problems"][0]["rows"]}
    assert rows["cuda"]["accurate"]
    assert rows["cuda"]["share_of_peak"] is None  # the measured peak is the CPU's


def test_ctrl_c_ends_cleanly(run, photograph, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure.Row, "begin", interrupt)
    status, output, errors = run("compare", "--image", photograph)
    assert (status, output) == (130, "")
    assert errors.strip() == "npconv: interrupted"


@pytest.mark.parametrize("name", ["rich", "matplotlib", "PIL"])
def test_missing_extras_are_named(name):
    lines = python(f"""
import contextlib, io, sys
sys.modules[{name!r}] = None
from npconv.cli import main
with contextlib.redirect_stderr(io.StringIO()) as errors:
    status = main(["compare"])
print(status, errors.getvalue().count("\\n"))
print(errors.getvalue(), end="")
assert main(["info"]) == 0
assert main(["explain", "conv1d", "--input", "1,1,9", "--weight", "1,1,3"]) == 0
main(["compare", "--help"])
""")
    assert lines[0] == "2 1"
    assert name in lines[1]
    assert 'pip install "npconv[cli]"' in lines[1]
    assert "--layers" in "\n".join(lines)


def test_importing_npconv_leaves_the_command_line_alone():
    assert python("import npconv, sys; print([name for name in sys.modules if name.startswith('npconv.cli')])") == [
        "[]"
    ]


def test_explain_prints_what_the_function_returns(run):
    options = {"stride": (2, 1), "padding": ((0, 1), (2, 2)), "dilation": 2, "groups": 2, "dtype": "float64"}
    want = npconv.explain("conv2d", (1, 4, 20, 30), (6, 2, 3, 3), bias=True, backend="numpy", **options)
    flags = "--stride 2,1 --padding 0:1,2:2 --dilation 2 --groups 2 --dtype float64 --bias --backend numpy"
    status, output, errors = run("explain", "conv2d", "--input", "1,4,20,30", "--weight", "6x2x3x3", *flags.split())
    assert (status, output, errors) == (0, f"{want}\n", "")


def test_explain_takes_transposed_convolutions_and_activations(run):
    shapes = ["--input", "1,4,5,5", "--weight", "4,2,3,3", "--stride", "2"]
    flags = ["--output-padding", "1", "--activation", "leaky_relu:0.1", "--precision", "strict"]
    options = {"stride": 2, "output_padding": 1, "activation": ("leaky_relu", 0.1), "precision": "strict"}
    want = npconv.explain("conv_transpose2d", (1, 4, 5, 5), (4, 2, 3, 3), **options)
    assert run("explain", "conv_transpose2d", *shapes, *flags) == (0, f"{want}\n", "")
    status, _, errors = run("explain", "conv2d", *shapes, "--dtype", "int8", "--activation", "clip:0:6")
    assert (status, errors) == (2, run("explain", "conv2d", *shapes)[2])  # the shapes do not fit, the activation does
    for other in ("clip:a", "leaky_relu,0.1"):
        status, _, errors = run("explain", "conv2d", *shapes, "--activation", other)
        assert status == 2
        assert "clip:0:6" in errors


def test_warmup(run):
    status, output, errors = run("warmup", "--dtype", "float32", "--algorithm", "loop", "--quiet")
    assert (status, errors) == (0, "")
    assert output.splitlines()[2].split()[:3] == ["loop", "float32", "1"]
    status, _, errors = run("warmup", "--algorithm", "none")
    assert status == 2
    assert "loop" in errors


def test_explain_takes_padding_by_name_and_threads(run):
    shapes = ["--input", "1,3,9", "--weight", "2,3,3", "--threads", "1"]
    status, output, _ = run("explain", "conv1d", *shapes, "--padding", "same_lower", "--padding-mode", "reflect")
    assert status == 0
    assert "1+1 (reflect)" in output
    assert "threads 1\n" in output


def test_info_prints_the_configuration(run):
    status, output, errors = run("info")
    assert status == 0
    assert errors == ""
    assert output == f"{npconv.show_config()}\n"

"""`tune` and `forget`: what is measured, where it is kept, for whom it holds, and what happens when it cannot be kept.

Which algorithm wins is left to the machine; where it matters which one, the file is written here.
"""

import itertools
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from processes import HERE, python

import npconv
from npconv import adjoint, backends, cli, patches, plan, recall, registry, timing, tuning, winners
from npconv.threads import max_threads
from npconv.turns import turn

SHAPES = (1, 3, 9, 9), (4, 3, 3, 3)
QUICK = {"rounds": 1, "progress": False}
NUMPY = {"backend": "numpy", **QUICK}
TUNED = "the fastest when npconv.tune measured it here"


def start_afresh():
    """What a new process knows."""
    winners._kept = None
    winners._warned.clear()
    recall.forget()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache folder for each test, and no pauses: no thread spins here (conftest.py)."""
    monkeypatch.setenv("NPCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    start_afresh()
    yield tmp_path / "cache"
    start_afresh()


def files(folder):
    return sorted(folder.glob("tuned-*.json"))


def enthrone(algorithm, backend="numpy", **changes):
    """Write a file in which an algorithm wins everything that `tune` has measured, and read it as a new process."""
    (path,) = files(winners.folder())
    content = json.loads(path.read_text())
    content["seconds"] = {key: {**times, f"{backend} {algorithm}": 1e-9} for key, times in content["seconds"].items()}
    path.write_text(json.dumps(content | changes))
    start_afresh()


def layer(**options):
    return npconv.Conv2d(np.ones(SHAPES[1], np.float32), **options)


# --- winners ----------------------------------------------------------------------------------------------------------


def test_report():
    report = npconv.tune("conv2d", *SHAPES, **NUMPY)
    assert [entry.use for entry in report] == ["function"] * 3 + ["layer"] * 3
    assert {entry.algorithm for entry in report} == {"im2col", "flatten", "loop"}
    assert {(entry.backend, entry.compiled, entry.convolution) for entry in report} == {("numpy", None, 1)}
    for use in ("function", "layer"):
        first, *rest = [entry for entry in report if entry.use == use]
        assert first.winner
        assert not any(entry.winner for entry in rest)
        assert first.seconds == min(entry.seconds for entry in report if entry.use == use and not entry.note)
        assert first.speed_up >= 1
    text = str(report)
    assert text.splitlines()[0].split() == ["algorithm", "backend", "as", "a", "time", "speed-up", "compiled", "in"]
    assert text.count("→ ") == 2


@pytest.mark.skipif(backends.missing("numba") is not None, reason="no Numba")
def test_both_backends_and_compilation():
    report = npconv.tune("conv1d", (1, 1, 9), (1, 1, 3), measure="function", **QUICK)
    found = {(entry.backend, entry.algorithm): entry for entry in report}
    refusals = npconv.explain("conv1d", (1, 1, 9), (1, 1, 3)).refusals
    assert set(found) == {(e.backend, e.name) for e in npconv.algorithms() if e.backend != "cuda"} - set(refusals)
    assert all(entry.compiled >= 0 for entry in report if entry.backend == "numba" and not entry.note)
    assert npconv.explain("conv1d", (1, 1, 9), (1, 1, 3)).reason == TUNED


@pytest.mark.parametrize("algorithm", ["loop", "flatten"])  # which auto would not take
def test_auto_takes_the_winner(algorithm, folder):
    npconv.tune("conv2d", *SHAPES, bias=True, **NUMPY)
    enthrone(algorithm)
    found = npconv.explain("conv2d", *SHAPES, bias=True, backend="numpy")
    assert (found.algorithm, found.reason, found.seconds) == (algorithm, TUNED, 1e-9)
    assert "measured" in str(found)
    assert "1 ns" in str(found)
    as_layer = layer(bias=np.ones(4, np.float32), backend="numpy").explain(SHAPES[0])
    assert (as_layer.algorithm, as_layer.reason) == (algorithm, TUNED)
    # Other problems, and named algorithms, are as they were.
    for options in ({}, {"bias": True, "padding": 1}, {"bias": True, "dtype": "float64"}, {"algorithm": "im2col"}):
        other = npconv.explain("conv2d", *SHAPES, backend="numpy", **options)
        assert (other.algorithm, "tune" in other.reason) == ("im2col", False)
        assert "measured" not in str(other)


def test_calls_take_the_winner_and_forget_it_again(monkeypatch):
    x, weight = np.ones(SHAPES[0], np.float32), np.ones(SHAPES[1], np.float32)
    as_layer = layer(backend="numpy")
    taken = []
    run = plan.Plan.run
    monkeypatch.setattr(plan.Plan, "run", lambda self, *a: taken.append(self.algorithm.name) or run(self, *a))

    def used():
        taken.clear()
        npconv.conv2d(x, weight, backend="numpy")
        as_layer(x)
        return list(taken)

    assert used() == ["im2col", "im2col"]
    monkeypatch.setattr(tuning._Race, "times", lambda self: {("numpy", "flatten"): 1e-9, ("numpy", "im2col"): 1.0})
    npconv.tune("conv2d", *SHAPES, **NUMPY)
    assert used() == ["flatten", "flatten"]
    assert npconv.forget() == 2
    assert used() == ["im2col", "im2col"]


@pytest.mark.skipif(backends.missing("numba") is not None, reason="no Numba")
def test_calls_like_earlier_ones_take_the_winner(monkeypatch):
    """The ways of earlier calls, which functions and layers remember, are not gone any more."""
    shapes = (1, 1, 9), (1, 1, 3)
    x, weight = (np.ones(shape, np.float32) for shape in shapes)
    as_layer = npconv.Conv1d(weight, backend="numba")
    for _ in range(3):
        npconv.conv1d(x, weight, backend="numba")
        as_layer(x)
    monkeypatch.setattr(tuning._Race, "times", lambda self: {("numba", "loop"): 1e-9})
    npconv.tune("conv1d", *shapes, backend="numba", **QUICK)
    taken = []
    run = plan.Plan.run
    monkeypatch.setattr(plan.Plan, "run", lambda self, *a: taken.append(self.algorithm.name) or run(self, *a))
    npconv.conv1d(x, weight, backend="numba")
    as_layer(x)
    assert taken == ["loop", "loop"]


@pytest.mark.parametrize("measure", ["function", "layer"])
def test_one_use_alone(measure):
    report = npconv.tune("conv2d", *SHAPES, measure=measure, **NUMPY)
    assert {entry.use for entry in report} == {measure}
    reasons = {
        "function": npconv.explain("conv2d", *SHAPES, backend="numpy").reason,
        "layer": layer(backend="numpy").explain(SHAPES[0]).reason,
    }
    assert {use for use, reason in reasons.items() if reason == TUNED} == {measure}


def test_the_spelling_of_a_problem_makes_no_difference():
    npconv.tune("conv2d", (1, 1, 9, 9), (1, 1, 3, 3), padding="same", activation="relu", measure="function", **NUMPY)
    for shapes in (((9, 9), (3, 3)), ((1, 9, 9), (1, 1, 3, 3))):
        found = npconv.explain("conv2d", *shapes, padding=(1, 1), activation=("clip", 0, 6), backend="numpy")
        assert found.reason == TUNED
    options = {"padding": 1, "backend": "numpy"}
    assert npconv.explain("conv2d", (1, 1, 9, 9), (1, 1, 3, 3), **options).reason != TUNED
    options |= {"activation": "relu", "data_format": "channels_last"}
    assert npconv.explain("conv2d", (1, 9, 9, 1), (1, 1, 3, 3), **options).reason != TUNED


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_patches_have_the_images_and_the_biases_that_they_have(backend, monkeypatch):
    """Some images at a time, and a bias for each tap: what is measured is what runs."""
    monkeypatch.setattr(patches, "MOST", 1000)
    shapes, options = ((3, 5, 6, 7), (5, 4, 3, 3)), {"bias": True, "stride": 3, "backend": backend}
    run, met = plan.Plan.run, []

    def noted(self, x, weight, bias, out, *more):
        made = run(self, x, weight, bias, out, *more)
        assert (x.shape, bias.shape) == (self.problem.input_shape, (self.problem.out_channels,))
        want = np.einsum("ncdhw,kc->nkdhw", x, weight[:, :, 0, 0, 0]) + bias[:, None, None, None]
        np.testing.assert_allclose(made, want, rtol=1e-4, atol=1e-4)
        met.append(self.algorithm.name)
        return made

    monkeypatch.setattr(plan.Plan, "run", noted)
    report = npconv.tune("conv_transpose2d", *shapes, **options, **QUICK, measure="function")
    assert "im2col" in met
    assert {entry.convolution for entry in report} == {1, 2, 3}
    assert all(entry.seconds > 0 for entry in report if not entry.note)


def test_transposed_convolutions_are_tuned_piece_by_piece():
    shapes, options = ((1, 3, 5, 5), (3, 2, 3, 3)), {"stride": 2, "output_padding": 1, "bias": True}
    for data_format in ("channels_first", "channels_last"):
        shape = shapes[0] if data_format == "channels_first" else (1, 5, 5, 3)
        report = npconv.tune("conv_transpose2d", shape, shapes[1], data_format=data_format, **options, **NUMPY)
        assert {entry.convolution for entry in report} == {1, 2, 3, 4}
        assert "convolution" in str(report)
        assert sum(entry.winner for entry in report) == 8
    found = npconv.explain("conv_transpose2d", *shapes, backend="numpy", **options)
    assert found.reason == TUNED
    arrays = np.ones(shapes[0], np.float32), np.ones(shapes[1], np.float32), np.ones(2, np.float32)
    del options["bias"]
    want = npconv.conv_transpose2d(*arrays, **options, backend="numpy", algorithm="loop")
    np.testing.assert_allclose(npconv.conv_transpose2d(*arrays, **options, backend="numpy"), want)
    weight, bias = arrays[1:]
    as_layer = npconv.ConvTranspose2d(weight, bias, **options, backend="numpy")
    assert as_layer.explain(shapes[0]).reason == TUNED
    np.testing.assert_allclose(as_layer(arrays[0]), want)


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "int8", "uint16"])
def test_every_kind_of_number(dtype):
    options = {"dtype": dtype, "bias": True, "padding": 1, "padding_mode": "reflect", "data_format": "channels_last"}
    report = npconv.tune("conv1d", (2, 9, 2), (3, 2, 3), **options, **NUMPY)
    assert all(entry.seconds > 0 for entry in report if not entry.note)
    assert npconv.explain("conv1d", (2, 9, 2), (3, 2, 3), backend="numpy", **options).reason == TUNED


def test_nothing_to_compute():
    assert npconv.tune("conv1d", (0, 1, 9), (1, 1, 3), **NUMPY)
    report = npconv.tune("conv_transpose1d", (1, 1, 1), (1, 1, 1), stride=9, output_padding=3, padding=1, **NUMPY)
    assert all(entry.seconds > 0 for entry in report)


# --- what a winner depends on -----------------------------------------------------------------------------------------


@pytest.mark.skipif(max_threads() < 2, reason="one CPU has no second thread to give")
def test_threads_have_winners_of_their_own():
    with npconv.threads(1):
        npconv.tune("conv2d", *SHAPES, **NUMPY)
    for count in (1, 2):
        with npconv.threads(count):
            assert (npconv.explain("conv2d", *SHAPES, backend="numpy").reason == TUNED) == (count == 1)


def test_precisions_have_winners_of_their_own():
    npconv.tune("conv2d", *SHAPES, **NUMPY)
    assert npconv.explain("conv2d", *SHAPES, backend="numpy", precision="strict").reason != TUNED
    with npconv.set_default_precision("strict"):
        npconv.tune("conv2d", *SHAPES, **NUMPY)
    assert npconv.explain("conv2d", *SHAPES, backend="numpy", precision="strict").reason == TUNED


def test_strict_precision_still_rules(monkeypatch):
    """Whatever a file says, an algorithm that transforms its data is not taken."""
    npconv.tune("conv2d", *SHAPES, precision="strict", **NUMPY)
    table = [replace(a, direct=False) if (a.backend, a.name) == ("numpy", "loop") else a for a in registry._TABLE]
    monkeypatch.setattr(registry, "_TABLE", tuple(table))
    enthrone("loop")
    found = npconv.explain("conv2d", *SHAPES, backend="numpy", precision="strict")
    assert found.algorithm != "loop"
    assert "strict" in found.refusals["numpy", "loop"]
    report = npconv.tune("conv2d", *SHAPES, precision="strict", **NUMPY)
    assert "loop" not in {entry.algorithm for entry in report}


def test_a_winner_that_refuses_is_passed_over(monkeypatch):
    npconv.tune("conv2d", *SHAPES, **NUMPY)
    enthrone("loop")
    table = [
        replace(a, refuse=lambda problem: "not today") if (a.backend, a.name) == ("numpy", "loop") else a
        for a in registry._TABLE
    ]
    monkeypatch.setattr(registry, "_TABLE", tuple(table))
    found = npconv.explain("conv2d", *SHAPES, backend="numpy")
    assert (found.algorithm, found.reason == TUNED) == ("im2col", False)


def test_a_winner_that_does_not_exist_is_passed_over():
    npconv.tune("conv2d", *SHAPES, **NUMPY)
    enthrone("fft2000")
    found = npconv.explain("conv2d", *SHAPES, backend="numpy")
    assert (found.algorithm, found.reason == TUNED) == ("im2col", False)


def test_too_much_workspace_is_not_measured(monkeypatch):
    monkeypatch.setattr(registry, "WORKSPACE_LIMIT", 100)
    report = npconv.tune("conv2d", *SHAPES, **NUMPY)
    notes = {entry.algorithm: entry.note for entry in report}
    assert "of workspace" in notes["im2col"]
    assert not notes["loop"]
    enthrone("im2col")
    assert npconv.explain("conv2d", *SHAPES, backend="numpy").algorithm == "loop"


def test_hopeless_candidates_are_not_measured():
    report = npconv.tune("conv2d", (1, 8, 30, 30), (8, 8, 3, 3), measure="function", **NUMPY)
    (loop,) = [entry for entry in report if entry.algorithm == "loop"]
    assert loop.note.startswith("left out: about")
    assert math.isnan(loop.seconds)
    assert loop.note in str(report)
    assert not loop.winner


def test_memory_that_does_not_suffice(monkeypatch):
    start = tuning._Contestant.start

    def starve():
        raise MemoryError

    def scarce(names):
        def begin(self):
            if self.algorithm in names:
                self.prepare = lambda: starve
            start(self)

        monkeypatch.setattr(tuning._Contestant, "start", begin)

    scarce(["im2col"])
    report = npconv.tune("conv2d", *SHAPES, **NUMPY)
    assert {entry.note for entry in report if entry.algorithm == "im2col"} == {"left out: it ran out of memory"}
    assert math.isnan(report[0].speed_up)  # there is nothing to compare with
    scarce(["im2col", "flatten", "loop"])
    npconv.forget()
    with pytest.raises(MemoryError, match="workspace"):
        npconv.tune("conv2d", *SHAPES, **NUMPY)
    assert npconv.forget() == 0


def test_the_beaten_have_no_further_turn():
    fast, late = (
        tuning._Contestant("numpy", name, expected, lambda: None, times=[least])
        for name, expected, least in (("im2col", 1.0, 1.0), ("loop", 10.0, 4.0))
    )
    race = tuning._Race(None, None, 1, [fast, late])
    assert [race.beaten(c) for c in race.contestants] == [False, True]
    late.times = []  # it has not run yet
    assert not race.beaten(late)
    fast.times, late.times = [4.0], [1.0]  # what is expected to be fast may have been disturbed
    assert [race.beaten(c) for c in race.contestants] == [False, False]


def test_a_contestant_that_was_held_up_has_its_turns(monkeypatch):
    """Its first call, which compiled nothing, waited for an import: that is not the time of a call."""
    right, waits = timing.timed, iter([5.0])

    def timed(call):
        result, taken = right(call)
        return result, taken + next(waits, 0.0)

    monkeypatch.setattr(timing, "timed", timed)
    report = npconv.tune("conv2d", *SHAPES, measure="function", **NUMPY)
    assert all(entry.seconds < 1 for entry in report)


# --- the file ---------------------------------------------------------------------------------------------------------

ASK = f"""
import npconv
found = npconv.explain("conv2d", *{SHAPES}, backend="numpy")
print(found.algorithm, "tune" in found.reason)
"""


def test_a_second_process_takes_the_winner(folder):
    npconv.tune("conv2d", *SHAPES, **NUMPY)
    enthrone("flatten")
    assert python(ASK) == ["flatten True"]
    assert python(ASK, NUMBA_CPU_NAME="generic") == ["im2col False"]  # another CPU, as far as Numba is concerned
    assert python(ASK, NPCONV_CACHE_DIR=str(folder / "elsewhere")) == ["im2col False"]
    assert python("import npconv; print(npconv.forget())") == ["2"]
    assert python(ASK) == ["im2col False"]


def test_other_kernels_make_another_file(monkeypatch):
    before = winners.file()
    monkeypatch.setattr(winners, "_sources", lambda: "others")
    assert winners.file() != before
    monkeypatch.undo()
    monkeypatch.setattr(npconv, "__version__", "9.9.9")
    assert winners.file().name.startswith("tuned-9.9.9-")


def test_without_llvmlite_there_is_a_file_all_the_same(folder):
    code = f"""
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
import npconv
npconv.tune("conv2d", *{SHAPES}, backend="numpy", rounds=1, progress=False)
"""
    python(code)
    assert len(files(folder)) == 1
    assert python(code.rpartition("npconv.tune")[0] + ASK)[0].endswith("True")


def test_nothing_is_read_or_imported_where_nothing_is_kept(folder):
    (line,) = python(ASK + "import sys; print('llvmlite' in sys.modules or 'json' in sys.modules)")[1:]
    assert line == "False"
    assert not folder.exists()


TUNE = """
import sys, npconv
for length in range(int(sys.argv[1]), 60, 4):
    npconv.tune("conv1d", (1, 1, length), (1, 1, 3), backend="numpy", measure="layer", rounds=1, progress=False)
"""


def test_processes_that_tune_at_once_lose_nothing(folder):
    environment = {**os.environ, "PYTHONPATH": HERE}
    running = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", TUNE, str(first)], env=environment)
        for first in (40, 41, 42, 43)
    ]
    assert [process.wait(120) for process in running] == [0] * 4
    (path,) = files(folder)
    assert len(json.loads(path.read_text())["seconds"]) == 20
    assert sorted(folder.iterdir()) == sorted([path, folder / "tuned.lock"])  # no half-written file is left
    assert npconv.forget() == 20


def test_threads_that_tune_at_once_lose_nothing():
    def work(length):
        return npconv.tune("conv1d", (1, 1, length), (1, 1, 3), measure="layer", **NUMPY)

    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(work, range(20, 32)))) == 12
    start_afresh()
    assert npconv.forget() == 12


def test_a_lock_that_is_not_given_back_is_waited_for_in_vain(folder, monkeypatch):
    monkeypatch.setattr(winners, "_PATIENCE", 0.05)
    folder.mkdir()
    with turn(folder / "tuned.lock", 0):
        npconv.tune("conv2d", *SHAPES, **NUMPY)
    assert len(files(folder)) == 1


DAMAGED = {
    "not JSON": "{",
    "not text": b"\xff\xfe\x00",
    "empty": "",
    "a list": "[]",
    "deep": "[" * 100_000,
    "another format": '{"format": 2, "seconds": {}}',
    "no times": '{"format": 1}',
    "no names": '{"format": 1, "seconds": {"a": {"b": 1}}}',
    "text for a time": '{"format": 1, "seconds": {"a": {"numpy loop": "soon"}}}',
    "no time": '{"format": 1, "seconds": {"a": {"numpy loop": NaN}}}',
    "a list of times": '{"format": 1, "seconds": {"a": [1]}}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_passed_over_with_one_warning(content, folder):
    folder.mkdir()
    path = winners.file()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.warns(RuntimeWarning, match=r"npconv\.tune kept in .* cannot be used") as caught:
        assert npconv.explain("conv2d", *SHAPES, backend="numpy").algorithm == "im2col"
    assert caught[0].filename == __file__
    npconv.explain("conv1d", (1, 1, 4), (1, 1, 2), backend="numpy")
    assert path.exists()
    npconv.tune("conv2d", *SHAPES, **NUMPY)  # which replaces it
    start_afresh()
    assert npconv.explain("conv2d", *SHAPES, backend="numpy").reason == TUNED


def test_the_warning_of_a_damaged_file_may_be_an_error(folder):
    folder.mkdir()
    winners.file().write_text("{")
    with pytest.raises(RuntimeWarning):
        npconv.explain("conv2d", *SHAPES, backend="numpy")
    npconv.explain("conv2d", *SHAPES, backend="numpy")


def test_a_damaged_file_can_be_forgotten(folder):
    folder.mkdir()
    path = winners.file()
    path.write_text("{")
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        assert npconv.forget() == 0
    assert not path.exists()


def test_taps_that_meet_nothing_are_left_out_as_auto_leaves_them():
    """So that one element of the kernel is left, which is for other algorithms."""
    for function in ("conv2d", "conv_transpose2d"):
        report = npconv.tune(function, (1, 64, 12, 12), (64, 64, 3, 3), padding=13, dilation=13, progress=False)
        assert "strassen" in str(report)


@pytest.fixture(params=["a file in its place", "a folder that cannot be written to", "no folder at all"])
def unwritable(request, folder, monkeypatch):
    if request.param == "a file in its place":
        folder.write_text("")
    elif request.param == "no folder at all":
        monkeypatch.delenv("NPCONV_CACHE_DIR")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

        def nowhere():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", nowhere)
    else:
        folder.mkdir()
        folder.chmod(0o500)
        if os.access(folder, os.W_OK):  # as root may write everywhere

            def refuse(*arguments, **options):
                raise PermissionError(13, "Permission denied", str(folder))

            monkeypatch.setattr("tempfile.mkstemp", refuse)


@pytest.mark.usefixtures("unwritable")
def test_what_cannot_be_written_holds_for_the_process():
    with pytest.warns(RuntimeWarning, match="NPCONV_CACHE_DIR") as caught:
        npconv.tune("conv2d", *SHAPES, **NUMPY)
    assert (len(caught), caught[0].filename) == (1, __file__)
    npconv.tune("conv1d", (1, 1, 4), (1, 1, 2), **NUMPY)  # warns no more
    assert npconv.explain("conv2d", *SHAPES, backend="numpy").reason == TUNED
    assert npconv.explain("conv1d", (1, 1, 4), (1, 1, 2), backend="numpy").reason == TUNED
    assert npconv.show_config()["tuned"].startswith("4 winners")
    assert npconv.forget() == 4
    assert npconv.explain("conv2d", *SHAPES, backend="numpy").reason != TUNED


def test_where_the_file_is(monkeypatch, tmp_path):
    assert winners.folder() == tmp_path / "cache"
    monkeypatch.delenv("NPCONV_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert winners.folder() == tmp_path / "xdg" / "npconv"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert winners.folder() == tmp_path / ".cache" / "npconv"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert winners.folder() == tmp_path / "Library" / "Caches" / "npconv"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert winners.folder() == tmp_path / "local" / "npconv" / "Cache"


def test_show_config_tells(folder):
    npconv.tune("conv2d", *SHAPES, **NUMPY)
    config = npconv.show_config()
    assert config["NPCONV_CACHE_DIR"] == str(folder)
    assert config["tuned"] == f"2 winners in {files(folder)[0].name}"


# --- forget -----------------------------------------------------------------------------------------------------------


def test_forget(folder):
    assert npconv.forget() == 0
    assert not folder.exists()
    npconv.tune("conv2d", *SHAPES, **NUMPY)
    npconv.tune("conv2d", *SHAPES, **NUMPY)  # the same winners again
    assert npconv.forget() == 2
    assert files(folder) == []
    assert npconv.explain("conv2d", *SHAPES, backend="numpy").reason != TUNED
    assert npconv.forget() == 0


def test_forget_leaves_other_cpus_and_other_files(folder):
    npconv.tune("conv2d", *SHAPES, **NUMPY)
    (mine,) = files(folder)
    other, damaged = folder / "tuned-0.1.0-other-0123456789ab.json", folder / "tuned-0.0.9-other-0123456789ab.json"
    strangers = folder / "tuned-by-me.json", folder / "package.json"
    other.write_text('{"format": 1, "seconds": {"a problem": {"numpy loop": 1}}}')
    for path in (damaged, *strangers):
        path.write_text("not npconv's")
    assert npconv.forget() == 2
    assert not mine.exists()
    assert other.exists()
    npconv.tune("conv2d", *SHAPES, **NUMPY)
    assert npconv.forget(everything=True) == 3
    assert not other.exists()
    assert not damaged.exists()
    assert all(path.exists() for path in strangers)


def test_forget_takes_a_bool():
    with pytest.raises(TypeError, match="everything must be True or False; got 'conv2d'"):
        npconv.forget("conv2d")


# --- arguments and progress -------------------------------------------------------------------------------------------

GOOD = ("conv2d", *SHAPES)
ERRORS = [
    (("conv4d", *SHAPES), {}, ValueError, "function.*conv2d.*conv4d"),
    ((3, *SHAPES), {}, TypeError, "function"),
    (("conv2d", SHAPES[0], (4, 2, 3, 3)), {}, ValueError, "weight"),
    (("conv2d", 9, SHAPES[1]), {}, TypeError, "input_shape.*9"),
    (GOOD, {"stride": 0}, ValueError, "stride.*0"),
    (GOOD, {"dtype": "float31"}, TypeError, "dtype.*float31"),
    (GOOD, {"activation": "tanh"}, ValueError, "activation"),
    (GOOD, {"output_padding": 1}, ValueError, "output_padding.*conv2d"),
    (GOOD, {"backend": "cuda"}, ValueError, "backend must be one of auto, numpy, numba; got 'cuda'"),
    (GOOD, {"backend": None}, TypeError, "backend"),
    (GOOD, {"precision": "high"}, ValueError, "precision.*strict"),
    (GOOD, {"measure": "layers"}, ValueError, "measure must be one of both, function, layer; got 'layers'"),
    (GOOD, {"rounds": 0}, ValueError, "rounds must be at least 1"),
    (GOOD, {"rounds": 1.5}, TypeError, "rounds must be an integer"),
    (GOOD, {"progress": "yes"}, TypeError, "progress must be True, False or a function"),
    (("conv_transpose2d", (1, 4, 5, 5), SHAPES[1]), {"padding_mode": "reflect"}, ValueError, "padding_mode"),
]


@pytest.mark.parametrize(("arguments", "options", "kind", "said"), ERRORS)
def test_errors(arguments, options, kind, said, folder, monkeypatch):
    monkeypatch.setattr(tuning._Contestant, "start", None)  # nothing is measured
    with pytest.raises(kind, match=said):
        npconv.tune(*arguments, **{"progress": False, **options})
    assert not folder.exists()


def test_progress_of_ones_own():
    seen = []

    def progress(items, total):
        for number, item in enumerate(items, 1):
            seen.append((number, total))
            yield item

    npconv.tune("conv2d", *SHAPES, backend="numpy", rounds=2, progress=progress)
    assert seen == list(zip(range(1, 19), itertools.repeat(18)))  # 3 algorithms, 2 uses, the first call and 2 rounds


@pytest.mark.parametrize("rich", [True, False])
def test_progress_goes_to_standard_error(rich, capfd, monkeypatch):
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    npconv.tune("conv1d", (1, 1, 4), (1, 1, 2), backend="numpy", rounds=1, measure="layer")
    output, errors = capfd.readouterr()
    assert output == ""
    assert rich or "measuring 6 of 6" in errors


# --- the command ------------------------------------------------------------------------------------------------------

COMMAND = ["tune", "conv2d", "--input", "1,3,9,9", "--weight", "4,3,3,3", "--rounds", "1", "--quiet"]


def test_command(capsys):
    assert cli.main([*COMMAND, "--backend", "numpy", "--padding", "1", "--threads", "1", "--measure", "function"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    rows = output.splitlines()[2:]
    assert sorted(row.strip("→ ").split()[0] for row in rows) == ["flatten", "im2col", "loop"]
    assert sum(row.startswith("→") for row in rows) == 1
    with npconv.threads(1):
        assert npconv.explain("conv2d", *SHAPES, padding=1, backend="numpy").reason == TUNED


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--backend", "cuda"], "backend must be one of auto, numpy, numba"),
        (["--groups", "2"], "groups is 2"),
        (["--dtype", "float31"], "float31"),
        (["--rounds", "0"], "at least 1"),
        (["--measure", "layers"], "invalid choice"),
    ],
)
def test_command_called_wrongly(flags, said, capsys):
    try:
        status = cli.main([*COMMAND, *flags])
    except SystemExit as stop:
        status = stop.code
    output, errors = capsys.readouterr()
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert said in errors


PASSES = {
    "depthwise, all at once": ((1, 16, 9, 10), (16, 1, 3, 3), {"stride": 2, "groups": 16}, {1}, "depthwise"),
    "two by two": ((1, 16, 9, 10), (16, 8, 4, 4), {"stride": 2, "precision": "strict"}, {1, 2}, "planes"),
    "even pixels": ((1, 64, 7, 8), (64, 16, 1, 1), {"stride": 2}, {1}, "planes"),
    "patches": ((1, 16, 9, 10), (16, 8, 2, 2), {"stride": 2}, {1}, "planes"),
}


@pytest.mark.parametrize("name", PASSES)
def test_what_runs_in_one_pass_is_tuned_in_one(name, monkeypatch, folder):
    """By algorithms that do so as such, by others one after the other; and the winner is what runs."""
    size, weight, options, numbers, merging = PASSES[name]
    ran, merged = [], adjoint.merged

    def noted(one, *arguments):
        ran.append(merged(one, *arguments))
        return ran[-1]

    monkeypatch.setattr(adjoint, "merged", noted)
    report = npconv.tune("conv_transpose2d", size, weight, **options, **QUICK)
    assert {entry.convolution for entry in report} == numbers
    assert set(ran) == {True, False}
    (path,) = files(folder)
    content = path.read_text()
    for best in (merging, "im2col"):
        path.write_text(content)
        enthrone(best, "numba")
        ran.clear()
        npconv.conv_transpose2d(np.ones(size, np.float32), np.ones(weight, np.float32), **options)
        assert any(ran) == (best == merging), best


@pytest.mark.parametrize("best", ["loop", "direct", "planes"])
def test_what_was_tuned_is_what_runs(best):
    """Phases are not left for one convolution with zeros between elements, or for patches, which were not measured."""
    size, weight = (1, 32, 9, 9), (32, 16, 3, 3)
    before = str(npconv.explain("conv_transpose2d", size, weight, stride=2))
    npconv.tune("conv_transpose2d", size, weight, stride=2, measure="function", **QUICK)
    enthrone(best, "numba")
    found = npconv.explain("conv_transpose2d", size, weight, stride=2)
    assert str(found).split(" of stride 1")[0] == before.split(" of stride 1")[0]
    assert "fastest expected" not in found.reason

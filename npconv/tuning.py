"""Measuring instead of expecting: `tune` and `forget`. What is kept, and where, is `npconv.winners`'s business.

What is measured is what users call: functions and layers with the algorithm named, so that everything which they cost
is in it. A transposed convolution runs as several convolutions (`npconv.adjoint`), each with an algorithm of its own:
these are measured one by one, or pass by pass where one kernel may compute several, over views as they have in there.

How turns are taken, `npconv.timing` tells.

Time is not spent on contestants that cannot win: those expected to be far slower than the fastest are left out, and
those which prove to be so have no further turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import npconv
from npconv import adjoint, call, candidates, inspection, recall, timing, transposing, values, winners
from npconv.choice import Choice
from npconv.kernels import packed
from npconv.kernels.host import Workspace
from npconv.phasing import Step
from npconv.problem import ConvProblem
from npconv.progress import Progress, shown
from npconv.table import quantity, seconds, table

USES = ("function", "layer")

HOPELESS = 30
"""A contestant that is expected to take so many times as long as the fastest expected is left out."""

LONG = 10.0
"""Seconds that no call should take: of longer ones, those three times as long as the fastest expected are left out."""

BEATEN = 3
"""A contestant that took so many times as long as the fastest, and was expected to, has no further turn.

Having taken long is not enough: beside another program that is busy, whole turns of fast kernels were seen to take 50
times as long as they should.
"""


class Timing(NamedTuple):
    """What was measured of one algorithm.

    `use` is ``"function"`` or ``"layer"``; `convolution` counts those of a transposed one, or its passes, from 1;
    `seconds` is the least time of a call, NaN if the algorithm was left out, and `note` says why; `speed_up` is how
    many times faster that is than what ``"auto"`` would take without any measurement; `compiled` are the seconds that
    Numba spent compiling, 0 if the code was there, None where nothing is compiled; `winner` tells the one that
    ``"auto"`` takes.
    """

    algorithm: str
    backend: str
    use: str
    convolution: int
    seconds: float
    speed_up: float
    compiled: float | None
    winner: bool
    note: str


class TuneReport(tuple[Timing, ...]):
    """What `tune` measured: a tuple of records, the fastest of each use first, which prints as a table."""

    def __repr__(self) -> str:
        several = any(entry.convolution > 1 for entry in self)
        headers = ("algorithm", "backend", "as a", *["convolution"] * several, "time", "speed-up", "compiled in", "")
        rows = [
            (
                ("→ " if entry.winner else "  ") + entry.algorithm,
                entry.backend,
                entry.use,
                *[str(entry.convolution)] * several,
                "-" if math.isnan(entry.seconds) else seconds(entry.seconds),
                "-" if math.isnan(entry.speed_up) else f"{entry.speed_up:.2f}×",
                "-" if entry.compiled is None else seconds(entry.compiled) if entry.compiled else "from disk",
                entry.note,
            )
            for entry in self
        ]
        return table(headers, rows)


@dataclass
class _Race:
    """The contestants for one convolution, used as a function or as a layer, or for some that run in one pass."""

    problems: Sequence[ConvProblem]
    choice: Choice
    convolution: int
    contestants: list[_Contestant]

    @property
    def least(self) -> float:
        """The least time of any contestant; infinite if none has run."""
        return min(c.least for c in self.contestants)

    def beaten(self, contestant: _Contestant) -> bool:
        """Tell whether a contestant that has run need not run again."""
        expected = min(c.expected for c in self.contestants)
        late = BEATEN * self.least < contestant.least < math.inf
        return late and contestant.expected > BEATEN * expected

    def timings(self) -> list[Timing]:
        """Return the records, the fastest first."""
        expected = min(self.contestants, key=lambda c: c.expected)
        found = sorted(self.contestants, key=lambda c: (c.least, c.expected))
        return [
            Timing(
                c.algorithm,
                c.backend,
                "layer" if self.choice.packed else "function",
                self.convolution,
                c.least if c.times else math.nan,
                expected.least / c.least if c.times and expected.times else math.nan,
                c.compile,
                c is found[0] and c.least < math.inf,
                c.note,
            )
            for c in found
        ]

    def times(self) -> winners.Times:
        """Return the times of those that ran."""
        return {(c.backend, c.algorithm): c.least for c in self.contestants if c.times}

    def kept(self) -> dict[str, winners.Times]:
        """Return what is to be kept for each convolution, which has its share of a pass."""
        work = [max(problem.flops, 1) for problem in self.problems]
        return {
            winners.key(problem, self.choice): {who: least * share / sum(work) for who, least in self.times().items()}
            for problem, share in zip(self.problems, work, strict=True)
        }


@dataclass
class _Contestant(timing.Contestant):
    """A contestant, and a way to call it."""

    prepare: Callable[[], Callable[[], object]]
    note: str = ""
    call: Callable[[], object] = field(init=False, repr=False)

    def start(self) -> None:
        """Prepare the call and make the first one; where memory does not suffice, a note says so."""
        try:
            call = self.prepare()
            self.begin(call)
            self.call = call
        except MemoryError:
            self.note = "left out: it ran out of memory"


def tune(
    function: str,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    *,
    bias: bool = False,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
    padding_mode: str = "zeros",
    output_padding: Any = 0,
    data_format: str = "channels_first",
    dtype: Any = "float32",
    activation: Any = None,
    backend: str = "auto",
    precision: str | None = None,
    measure: str = "both",
    rounds: int = 5,
    progress: Progress = True,
) -> TuneReport:
    """Measure the algorithms for a problem on this machine; ``"auto"`` takes the fastest from now on, later on, too.

    Parameters
    ----------
    function : {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
        The function that is to be fast, and the layer of its name.
    input_shape, weight_shape : tuple of int
        Shapes of its arrays.
    bias : bool, default False
        Whether there is a bias.
    dtype : dtype_like, default "float32"
        Dtype of the result.
    stride, padding, dilation, groups, padding_mode, output_padding, data_format, activation, precision
        As for the function; ``padding_mode`` is for convolutions, ``output_padding`` for transposed ones. All
        activations share a winner.
    backend : {"auto", "numpy", "numba"}
        The backend that calls name; ``"auto"`` measures both.
    measure : {"both", "function", "layer"}
        What to measure: the function, which packs the weight in each call, the layer, or each of them.
    rounds : int, default 5
        Turns of each algorithm.
    progress : bool or callable, default True
        As for `warmup`.

    Returns
    -------
    TuneReport
        A tuple of what was measured, which prints as a table.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As the function would; also for a backend that cannot be tuned.

    Warns
    -----
    RuntimeWarning
        If the winner cannot be kept on disk. It then holds for this process.

    Notes
    -----
    A winner holds for this problem on this CPU, with this number of threads, this precision, this backend, and this
    version of npconv. It is kept in ``NPCONV_CACHE_DIR``, else in the user's cache folder, which `show_config` tells.
    Processes that run already do not see it. `explain` shows what was measured, `forget` removes it all. Other work on
    the machine spoils what is measured.

    A transposed convolution runs as several convolutions, for each of which there is a winner; those that one kernel
    may compute in one pass are measured together. They hold for the gradient of a convolution's input as well, which
    runs as the same ones; gradients of weights are not tuned.

    Examples
    --------
    >>> import npconv
    >>> report = npconv.tune("conv1d", (1, 2, 50), (3, 2, 5), backend="numpy", rounds=1, progress=False)
    >>> sorted(entry.algorithm for entry in report if entry.use == "layer")
    ['flatten', 'im2col', 'loop']
    >>> npconv.explain("conv1d", (1, 2, 50), (3, 2, 5), backend="numpy").reason
    'the fastest when npconv.tune measured it here'
    >>> npconv.forget()  # the winners as a function and as a layer
    2
    """
    values.choice("backend", backend, ("auto", "numpy", "numba"))
    values.choice("measure", measure, ("both", *USES))
    rounds = values.integer("rounds", rounds, 1)
    options = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": padding_mode,
        "output_padding": output_padding, "data_format": data_format, "activation": activation,
    }  # fmt: skip
    problem, transposed = inspection.described(function, input_shape, weight_shape, bias, dtype, **options)
    choices = [
        replace(call.choice("auto", backend, precision, {}), packed=use == "layer")
        for use in USES
        if measure in ("both", use)
    ]
    if transposed:
        races = _transposed(problem, choices)
    else:
        del options["output_padding"]
        races = _plain(function, problem, choices, options)
    pairs = [(race, contestant) for race in races for contestant in race.contestants]
    tasks = [(number, *pair) for number in range(rounds + 1) for pair in pairs]
    for number, race, contestant in shown(tasks, progress, "measuring"):
        if contestant.note or race.beaten(contestant):
            continue
        if number == 0:
            contestant.start()
        else:
            contestant.take_turn(contestant.call)
    if any(race.least == math.inf for race in races):
        raise MemoryError("memory cannot hold the result or the workspace of any algorithm")
    winners.keep({key: times for race in races for key, times in race.kept().items()})
    recall.forget()
    return TuneReport(timing for race in races for timing in race.timings())


def forget(everything: bool = False) -> int:
    """Forget what `tune` has measured: ``"auto"`` takes again what is expected to be the fastest.

    Parameters
    ----------
    everything : bool, default False
        Also forget what holds for other CPUs and other versions of npconv.

    Returns
    -------
    int
        The number of winners forgotten.

    Raises
    ------
    TypeError
        If ``everything`` is no bool.
    OSError
        If a file cannot be removed.

    Examples
    --------
    >>> import npconv
    >>> report = npconv.tune("conv1d", (1, 1, 9), (1, 1, 3), backend="numpy", measure="layer", progress=False)
    >>> npconv.forget(), npconv.forget()
    (1, 0)
    """
    everything = values.boolean("everything", everything)
    try:
        return winners.forget(everything)
    finally:
        recall.forget()


def _plain(function: str, problem: ConvProblem, choices: Sequence[Choice], options: dict[str, Any]) -> list[_Race]:
    """Return the races of a convolution."""
    dtype = np.dtype(problem.dtype)
    x, weight = _numbers(problem.input_shape, dtype), _numbers(problem.weight_shape, dtype)
    bias = _numbers((problem.out_channels,), dtype) if problem.bias else None
    as_function, as_layer = getattr(npconv, function), getattr(npconv, function.capitalize())

    def prepare(choice: Choice) -> Callable[[], object]:
        named = {"algorithm": choice.algorithm, "backend": choice.backend, "precision": choice.precision}
        if not choice.packed:
            return lambda: as_function(x, weight, bias, **options, **named)
        layer = as_layer(weight, bias, **options, **named)
        return lambda: layer(x)

    return [_race([problem], choice, 1, prepare) for choice in choices]


def _transposed(problem: ConvProblem, choices: Sequence[Choice]) -> list[_Race]:
    """Return the races of the convolutions that a transposed one runs as, the arrays being as they are there.

    Those that some algorithm computes in one pass are raced together: by each as it would compute them.
    """
    dtype, form = np.dtype(problem.dtype), problem.canonical_form()
    x, out = problem.canonical(_numbers(problem.result_shape, dtype)), np.empty(problem.input_shape, dtype)
    bias = _numbers((problem.in_channels,), dtype) if problem.bias else None
    races = []
    for choice in choices:
        weight = _numbers(form.weight_shape, problem.compute_dtype if choice.packed else dtype)
        filters = adjoint.swapped(form, weight, choice)
        steps, reached = transposing.steps(form, choice, transposing.may_be_in_place(problem))
        for number, some in enumerate(transposing.raced_together(form, steps, reached, choice), 1):

            def prepare(
                choice: Choice, some: list[Step] = some, reached: bool = reached, filters: np.ndarray = filters
            ) -> Callable[[], object]:
                passes, _ = transposing.passes_of(form, some, reached, choice, packed.in_line(x))
                workspace = Workspace() if choice.packed else None

                def call() -> None:
                    for one in passes:
                        arrays = filters, x, bias, problem.canonical(out), workspace
                        if not adjoint.merged(one, *arrays):
                            adjoint.one_by_one(one, choice, *arrays)

                return call

            races.append(_race([step.forward for step in some], choice, number, prepare))
    return races


def _race(
    problems: Sequence[ConvProblem],
    choice: Choice,
    convolution: int,
    prepare: Callable[[Choice], Callable[[], object]],
) -> _Race:
    """Return the race of all candidates that take the problems; those that need not run have a note that says why."""
    race = _Race(problems, choice, convolution, [])
    standing = [candidates.candidates(problem, choice) for problem in problems]
    small = [
        candidates.modest(problem, [c for c in each if c.refusal is None])
        for problem, each in zip(problems, standing, strict=True)
    ]
    for each in zip(*standing, strict=True):  # what an algorithm is to each problem
        if any(c.refusal is not None for c in each):
            continue
        backend, name = each[0].algorithm.backend, each[0].algorithm.name
        named = replace(choice, algorithm=name, backend=backend)
        contestant = _Contestant(backend, name, sum(c.seconds for c in each), partial(prepare, named))
        if any(c not in those for c, those in zip(each, small, strict=True)):
            contestant.note = f"left out: {quantity(max(c.workspace for c in each), 'B')} of workspace"
        race.contestants.append(contestant)
    best = min(c.expected for c in race.contestants if not c.note)
    most = min(HOPELESS * best, max(LONG, 3 * best))
    for contestant in race.contestants:
        if contestant.expected > most and not contestant.note:
            contestant.note = f"left out: about {seconds(contestant.expected)} a call"
    return race


def _numbers(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Return numbers of no special kind."""
    rng = np.random.default_rng(0)
    if dtype.kind in "iu":
        return rng.integers(0, 8, shape).astype(dtype)
    numbers = rng.standard_normal(shape, np.float32)
    return (numbers + 1j * numbers).astype(dtype) if dtype.kind == "c" else numbers.astype(dtype)

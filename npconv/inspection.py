"""Seeing inside without computing: what exists (`algorithms`), and what would run (`explain`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from npconv import arguments, backends, call, complex_parts, registry, transposing, values
from npconv.choice import Choice
from npconv.merging import Merging
from npconv.plan import Plan, choose
from npconv.problem import ConvProblem
from npconv.registry import Algorithm
from npconv.table import quantity, seconds, table

_Pass = tuple[Sequence[Plan], Merging | None]
"""Convolutions, and how one kernel computes all of them."""

_FUNCTIONS = tuple(f"{name}{rank}d" for name in ("conv", "conv_transpose") for rank in (1, 2, 3))


class AlgorithmTable:
    """The algorithms that exist: a sequence of `Algorithm` records that prints as a table."""

    def __init__(self, entries: tuple[Algorithm, ...]) -> None:
        self._entries = entries

    def __iter__(self) -> Iterator[Algorithm]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Algorithm:
        return self._entries[index]

    def __repr__(self) -> str:
        rows = [
            (a.name, a.backend, a.dtypes, a.ranks, "yes" if backends.missing(a.backend) is None else "no", a.summary)
            for a in self._entries
        ]
        return table(("algorithm", "backend", "dtypes", "ranks", "here", "what it does"), rows)


def algorithms(backend: str | None = None) -> AlgorithmTable:
    """Return the table of the algorithms that exist.

    Parameters
    ----------
    backend : {"numpy", "numba", "cuda"}, optional
        Only this backend's.

    Returns
    -------
    AlgorithmTable
        A sequence of records with ``name``, ``backend``, ``dtypes``, ``ranks`` and ``summary``, which prints as a
        table.

    Raises
    ------
    ValueError
        If there is no such backend.

    Examples
    --------
    >>> import npconv
    >>> [entry.name for entry in npconv.algorithms("numpy")]
    ['im2col', 'flatten', 'loop']
    """
    if backend is None:
        return AlgorithmTable(registry.all_algorithms())
    return AlgorithmTable(registry.candidates(values.choice("backend", backend, backends.NAMES)))


class Explanation:
    """What would run for a problem, and why: `npconv.explain` returns it, and it prints as a table.

    Attributes
    ----------
    algorithm, backend : str
        What was chosen.
    reason : str
        Why.
    seconds : float
        Rough expected time, only good for ranking and orders of magnitude; the measured one where `npconv.tune` has
        measured it.
    flops, workspace, threads : int
        Floating-point operations of the direct sum, bytes of workspace, and threads.
    output_shape : tuple of int
        Shape of the result.
    refusals : dict
        Reasons by (backend, algorithm), for the candidates that refuse the problem.

    Examples
    --------
    >>> import npconv
    >>> found = npconv.explain("conv1d", (1, 8, 100), (4, 8, 5), backend="numpy", algorithm="loop")
    >>> found
    <Explanation: numpy loop, named by the caller>
    >>> print(str(found).splitlines()[0])
    input   1 × 8 channels, 100, float32
    """

    def __init__(
        self, problem: ConvProblem, output_shape: tuple[int, ...], passes: Sequence[_Pass], kept: int = 0,
        instead: tuple[int, float] | None = None,
    ) -> None:  # fmt: skip
        plans = [plan for those, _ in passes for plan in those]
        self._problem, self._passes, self._kept, self._instead = problem, passes, kept, instead
        self._plan = plan = max(plans, key=lambda plan: plan.problem.flops)
        chosen = [plan.fitted for plan in plans]
        self.algorithm = plan.algorithm.name
        self.backend = plan.algorithm.backend
        self.reason = plan.reason
        self.seconds = sum(c.seconds if c.measured is None else c.measured for c in chosen)
        self.flops = sum(plan.problem.flops for plan in plans)
        self.workspace = max(_needed(*one)[1] for one in passes) + kept
        self.threads = max(_needed(*one)[0] for one in passes if plan in one[0])
        self.output_shape = output_shape
        self.refusals = plan.refusals

    def __repr__(self) -> str:
        return f"<Explanation: {self.backend} {self.algorithm}, {self.reason}>"

    def __str__(self) -> str:
        problem = self._plan.problem

        def by(sizes: tuple[int, ...]) -> str:
            return " × ".join(map(str, sizes[-self._problem.rank :]))

        facts, pads = [], problem.padding[-self._problem.rank :]
        if self._plan.problem != self._problem:
            number = sum(len(plans) for plans, _ in self._passes)
            largest = ", of which this is the largest" if number > 1 else ""
            told, passes = _convolutions(number, bool(problem.up)), len(self._passes)
            told += "" if passes == number else ", in one pass" if passes == 1 else f", in {passes} passes"
            facts.append(("runs as", f"{told}, as npconv.adjoint tells{largest}"))
            if self._instead:
                number, expected = self._instead
                facts.append(("instead", f"{_convolutions(number, not problem.up)}: expected {seconds(expected)}"))
            if self._kept:
                facts.append(("patches", f"{quantity(self._kept, 'B')} at a time, as npconv.patches tells"))
        if self._plan.in_parts:
            of = "images" if complex_parts.by_images(problem) else "filters"
            facts.append(("parts", f"real and imaginary ones, by {of}, as npconv.complex_parts tells"))
        facts += [
            ("input", f"{problem.batch} × {problem.in_channels} channels, {by(problem.input_size)}, {problem.dtype}"),
            ("kernel", f"{problem.out_channels} filters of {by(problem.kernel_size)}, groups {problem.groups}"),
            ("steps", f"stride {by(problem.stride)}, dilation {by(problem.dilation)}"),
            ("padding", f"{', '.join(f'{b}+{a}' for b, a in pads)} ({problem.padding_mode})"),
            ("result", f"shape {self.output_shape}, {self._problem.data_format}"),
            ("work", quantity(self.flops, "FLOP")),
            (
                "memory",
                f"input {quantity(problem.input_bytes, 'B')}, weight {quantity(problem.weight_bytes, 'B')}, "
                f"result {quantity(problem.output_bytes, 'B')}",
            ),
            ("threads", str(self.threads)),
            ("chosen", f"{self.algorithm} on {self.backend}: {self.reason}"),
        ]
        tuned = any(c.measured is not None for c in self._plan.candidates)
        few = len({c.threads for c in self._plan.candidates if not c.refusal}) > 1
        rows = [
            (
                ("→ " if c.algorithm is self._plan.algorithm else "  ") + c.algorithm.name,
                c.algorithm.backend,
                "-" if c.refusal else seconds(c.seconds),
                *["-" if c.measured is None else seconds(c.measured)] * tuned,
                *["-" if c.refusal else str(c.threads)] * few,
                "-" if c.refusal else quantity(c.workspace, "B"),
                c.refusal or c.algorithm.summary,
            )
            for c in self._plan.candidates
        ]
        headers = ("algorithm", "backend", "expected", *["measured"] * tuned, *["threads"] * few,
                   "workspace", "what it does, or why not")  # fmt: skip
        head = "\n".join(f"{name:<8}{text}" for name, text in facts)
        return f"{head}\n\n{table(headers, rows)}"


def _needed(plans: Sequence[Plan], merged: Merging | None) -> tuple[int, int]:
    """Return the threads and the workspace of a pass."""
    if merged is not None:
        return merged.run.threads, merged.workspace(plans[0].choice.packed)
    return max(plan.threads for plan in plans), max(plan.fitted.workspace for plan in plans)


def _convolutions(number: int, spaced: bool) -> str:
    """Return what a transposed convolution runs as, in words."""
    if spaced:
        return "one convolution of stride 1, with zeros between elements"
    return "one convolution of stride 1" if number == 1 else f"{number} convolutions of stride 1"


def explain(
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
    algorithm: str = "auto",
    backend: str = "auto",
    precision: str | None = None,
) -> Explanation:
    """Tell what would run for a problem, and why, without any array.

    Parameters
    ----------
    function : {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
        The function that would be called.
    input_shape, weight_shape : tuple of int
        Shapes of its arrays.
    bias : bool, default False
        Whether there would be a bias.
    dtype : dtype_like, default "float32"
        Dtype of the result.
    stride, padding, dilation, groups, padding_mode, output_padding, data_format, activation, algorithm, backend,
    precision
        As for the function; ``padding_mode`` is for convolutions, ``output_padding`` for transposed ones.

    Returns
    -------
    Explanation
        Prints as a table: the problem, its floating-point operations and bytes, the chosen algorithm and why, and every
        candidate with its expected time and workspace, or why it refuses.

    Raises
    ------
    ValueError, TypeError, CudaUnavailableError
        As the function would.

    Examples
    --------
    >>> import npconv
    >>> found = npconv.explain("conv2d", (1, 64, 56, 56), (64, 64, 3, 3), padding=1, backend="numpy")
    >>> found.algorithm, found.output_shape, found.flops
    ('im2col', (1, 64, 56, 56), 231211008)
    """
    problem, transposed = described(
        function, input_shape, weight_shape, bias, dtype, stride=stride, padding=padding, dilation=dilation,
        groups=groups, padding_mode=padding_mode, output_padding=output_padding, data_format=data_format,
        activation=activation,
    )  # fmt: skip
    return explain_problem(problem, transposed, call.choice(algorithm, backend, precision, {}))


def described(
    function: str, input_shape: Any, weight_shape: Any, bias: bool, dtype: Any, **options: Any
) -> tuple[ConvProblem, bool]:
    """Return the problem that a call would have, and whether it is transposed; raise what the call would raise.

    Options are all that any of the functions takes; those that it does not take must have their defaults, and are left
    out.
    """
    values.choice("function", function, _FUNCTIONS)
    rank, transposed = int(function[-2]), "transpose" in function
    input_shape = values.shape("input_shape", input_shape)
    weight_shape = values.shape("weight_shape", weight_shape)
    dtype = arguments.dtype_named("dtype", dtype)
    shape = bias_shape(weight_shape, transposed, options["groups"]) if values.boolean("bias", bias) else None
    padding_mode, output_padding = options["padding_mode"], options["output_padding"]
    if transposed and padding_mode != "zeros":
        raise ValueError(f"padding_mode of a transposed convolution is 'zeros'; got {padding_mode!r}")
    if not transposed and output_padding != 0:
        raise ValueError(f"output_padding is for transposed convolutions; got {output_padding!r} for {function}")
    del options["padding_mode" if transposed else "output_padding"]
    make = arguments.transposed_problem if transposed else arguments.conv_problem
    return make(rank, input_shape, weight_shape, shape, dtype, **options), transposed


def bias_shape(weight_shape: tuple[int, ...], transposed: bool, groups: Any) -> tuple[int, ...] | None:
    """Return the shape of the bias that belongs to a weight."""
    if len(weight_shape) < 2:
        return None
    if transposed:
        return (weight_shape[1] * values.integer("groups", groups, 1),)
    return (1 if len(weight_shape) == 2 else weight_shape[0],)


IN_PLACE = "the one that writes patches where they belong, if arrays are in C order"
IN_ONE_PASS = "the one that does in one pass what others take several for, if arrays are in C order"
"""Why a transposed convolution runs by kernels of `npconv.merging`."""


def explain_problem(problem: ConvProblem, transposed: bool, choice: Choice) -> Explanation:
    """Explain a convolution, or the transposed convolution that belongs to it."""
    if not transposed:
        return Explanation(problem, problem.result_shape, [([choose(problem, choice)], None)])
    canonical, in_place = problem.canonical_form(), transposing.may_be_in_place(problem)
    passes, _ = transposing.passes(canonical, choice, in_line=True, in_place=in_place)
    if not passes:  # no element meets a tap: the result is the bias, as of a convolution without input channels
        one = (1, 1, 1)
        nothing = replace(
            canonical, in_channels=0, out_channels=canonical.in_channels, groups=1, kernel_size=one, stride=one,
            dilation=one, padding=((0, 0),) * 3,
        )  # fmt: skip
        return Explanation(problem, problem.input_shape, [([choose(nothing, choice)], None)])
    explained: list[_Pass] = []
    for some in passes:
        merged = some.merged
        if merged is None or problem.dtype != problem.compute_dtype.name or (problem.channels_last and some.in_rows):
            explained += [([choose(step.forward, choice)], None) for step in some.steps]
        else:
            explained.append(([_instead_of(choose(step.forward, choice), merged) for step in some.steps], merged))
    steps = [step for some in passes for step in some.steps]
    kept = steps[0].forward.output_bytes if steps[0].patch and explained[0][1] is None else 0
    instead = transposing.instead(canonical, steps, choice)
    return Explanation(problem, problem.input_shape, explained, kept, instead)


def _instead_of(plan: Plan, merged: Merging) -> Plan:
    """Return the plan of a convolution as what is ``merged`` computes it."""
    choice, in_patches = plan.choice, merged.steps[0].patch
    if plan.algorithm.name == merged.algorithm and not in_patches:
        return plan
    named = choose(plan.problem, replace(choice, algorithm=merged.algorithm))
    return replace(named, choice=choice, reason=IN_PLACE if in_patches else IN_ONE_PASS)

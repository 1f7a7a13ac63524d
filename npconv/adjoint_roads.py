"""Short roads from a gradient's arrays to a kernel, for C-contiguous arrays of the problem's dtype.

`npconv.adjoint` looks at its arrays anew in each call, which takes 40 µs for each of its convolutions. What it finds
depends on the problem alone if they are C-contiguous; here it is found once, from the arrays of the first call, of
which nothing is kept. `npconv.recall` tells which calls are remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npconv import adjoint, loading, phasing, transposing, weight_gradient
from npconv.choice import Choice
from npconv.kernels import host, packed
from npconv.plan import choose
from npconv.problem import ConvProblem

Road = Callable[[np.ndarray, np.ndarray], np.ndarray]


def of_input(
    problem: ConvProblem, choice: Choice, grad_output: np.ndarray, weight: np.ndarray, out: np.ndarray
) -> Road | None:
    """Return a function of ``grad_output`` and ``weight``, or None; the problem has no bias and no activation."""
    road = of_transposed(problem, choice, grad_output, out)
    return None if road is None else lambda grad_output, weight: road(grad_output, weight, None)


def of_transposed(
    problem: ConvProblem, choice: Choice, input: np.ndarray, out: np.ndarray
) -> Callable[[Any, Any, Any], np.ndarray] | None:
    """Return a function of input, weight and bias of a transposed convolution, or None."""
    pieces = _Pieces.of(problem, choice, input, out)
    if pieces is None:
        return None
    return lambda input, weight, bias: pieces.fill(input, pieces.packed(weight, bias, None), bias)


def of_layer(
    problem: ConvProblem, choice: Choice, weight: np.ndarray, bias: np.ndarray | None, workspace: host.Workspace,
    input: np.ndarray, out: np.ndarray,
) -> Callable[[np.ndarray], np.ndarray] | None:  # fmt: skip
    """Return a function of the input of such a layer, or None, as where its weight is narrower than the input."""
    if weight.dtype != problem.compute_dtype:
        return None
    pieces = _Pieces.of(problem, choice, input, out, workspace)
    if pieces is None:
        return None
    packed = pieces.packed(weight, bias, workspace)
    return lambda input: pieces.fill(input, packed, bias)


class _Piece(NamedTuple):
    """What one call of a kernel fills."""

    pack: Callable[[np.ndarray, np.ndarray | None, host.Workspace | None], Any]
    """Pack the weight, its channels and filters swapped, and the bias."""

    fill: packed.Fill
    """Fill a part of the result."""

    first: int
    """Where the part begins in the result."""

    numbers: int
    """How many numbers of filters are packed."""

    steps: list[phasing.Step]
    in_rows: bool
    """Whether the engine takes filters in rows (`npconv.kernels.numba.planes`)."""


class _Pieces(NamedTuple):
    """A transposed convolution as calls of kernels, each with some of the phases.

    What the problem tells is kept beside it: to find it anew takes 4 µs a call.
    """

    problem: ConvProblem
    choice: Choice
    form: ConvProblem
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: list[_Piece]
    whole: bool
    """Whether they fill all of the result."""

    places: np.ndarray | None
    """Where the taps of a weight belong, if all calls take filters in rows (`npconv.kernels.numba.rows.dealt`)."""

    spread: Any
    """The module of the kernel that computes all phases of depthwise convolutions, of weights as they are, or None.

    Packed as those of other kernels, they took small gradients from 9 to 19 µs.
    """

    @classmethod
    def of(
        cls, problem: ConvProblem, choice: Choice, x: np.ndarray, out: np.ndarray,
        workspace: host.Workspace | None = None,
    ) -> _Pieces | None:  # fmt: skip
        """Find them for arrays like these of the problem's dtype in C order, or None; a layer has a workspace."""
        if not _is_plain(problem):
            return None
        form, dtype = problem.canonical_form(), problem.compute_dtype
        passes, whole = transposing.passes(form, choice, in_line=True)
        if not passes or (passes[0].steps[0].patch and len(passes) > 1):
            return None
        x, out = x.reshape(form.result_shape), out.reshape(form.input_shape)
        pieces: list[_Piece] = []
        spread = None
        for steps, merged, _ in passes:
            if merged is not None:
                spread = merged.run.engine if merged.algorithm == "depthwise" else None
                part = merged.of(out)
                in_rows = merged.algorithm == "planes" and not steps[0].patch
                found = [(merged.steps, part, merged.packed, merged.run.fixed(x, part), in_rows)]
            elif steps[0].patch:
                return None
            else:
                found = [_packing(step, choice, x, out[step.elements], workspace) for step in steps]
            for some, part, pack, fill, in_rows in found:
                if fill is None:
                    return None
                first = (part.ctypes.data - out.ctypes.data) // dtype.itemsize
                numbers = sum(step.forward.out_channels * step.forward.products for step in some)
                pieces.append(_Piece(pack, fill, first, numbers, some, in_rows))
        return cls(problem, choice, form, problem.input_shape, dtype, pieces, whole, _places(form, pieces), spread)

    def packed(self, weight: np.ndarray, bias: np.ndarray | None, workspace: host.Workspace | None) -> list[Any]:
        """Return weight and bias in the order of the kernels."""
        if self.spread is not None and workspace is None and weight.flags.c_contiguous:
            return [packed.Packed(host.writeable(weight).ravel(), self.spread.pack_bias(self.form, bias))]
        weight = weight.reshape(self.form.weight_shape)
        if self.places is None or workspace is not None or not weight.flags.c_contiguous:
            filters = adjoint.swapped(self.form, weight, self.choice)
            return [piece.pack(filters, bias, workspace) for piece in self.pieces]
        planes, rows = (loading.module(f"npconv.kernels.numba.{name}") for name in ("planes", "rows"))
        ordered = rows.dealt(host.writeable(weight), self.form.groups, self.places)
        number = planes.pack_bias(self.pieces[0].steps[0].forward, bias)
        found, first = [], 0
        for piece in self.pieces:
            found.append(packed.Packed(rows.Filters(ordered[first : first + piece.numbers], False), number))
            first += piece.numbers
        return found

    def fill(self, input: np.ndarray, packed: list[Any], bias: np.ndarray | None) -> np.ndarray:
        """Return the result."""
        out = np.empty(self.shape, self.dtype)
        if not self.whole:
            with np.errstate(all="ignore"):
                self.problem.canonical(out)[...] = adjoint.constant(self.problem, bias)
        x, flat = host.writeable(input).ravel(), out.ravel()
        for piece, numbers in zip(self.pieces, packed, strict=True):
            piece.fill(x, numbers.weight, numbers.bias, flat[piece.first :])
        return out


def _packing(
    step: phasing.Step, choice: Choice, x: np.ndarray, part: np.ndarray, workspace: host.Workspace | None
) -> tuple[Any, ...]:
    """Return a phase, its ``part`` of the result, how its numbers are packed, what fills the part, and if in rows."""
    plan = choose(step.forward, choice)
    quick, fill = plan.fixed(x, part, packed=workspace is not None)

    def pack(weight: np.ndarray, bias: np.ndarray | None, workspace: host.Workspace | None) -> Any:
        taps = step.taps_of(weight)
        return quick(taps, bias) if workspace is None else plan.pack(taps, bias, workspace, step.begins)

    return [step], part, pack, fill, plan.algorithm.name == "planes" and not plan.met.among


def _places(form: ConvProblem, pieces: list[_Piece]) -> np.ndarray | None:
    """Return where each tap of a weight belongs in the filters of all pieces, None if these are not in rows.

    Nor if there is one tap: filters that lie side by side are turned within tasks.
    """
    if form.taps == 1:
        return None
    places = np.full((form.taps, 2), -1)
    first = 0
    for piece in pieces:
        for step in piece.steps:
            if not piece.in_rows:
                return None
            taps = step.taps_of(np.arange(form.taps).reshape(form.kernel_size)).reshape(-1)
            places[taps] = np.stack([first + np.arange(len(taps)), np.full(len(taps), len(taps))], axis=1)
            first += step.forward.out_channels * step.forward.products
    return places if (places >= 0).all() else None


def _is_plain(problem: ConvProblem) -> bool:
    """Whether arrays of the problem's dtype in C order are as kernels take them."""
    return problem.padding_mode == "zeros" and transposing.may_be_in_place(problem)


def of_weight(
    problem: ConvProblem, choice: Choice, x: np.ndarray, grad_output: np.ndarray, out: np.ndarray
) -> Road | None:
    """Return a function of the convolution's input and of ``grad_output``, or None."""
    if problem.data_format != "channels_first":
        return None
    apart = weight_gradient.images_apart(problem, choice)
    if apart is not None:
        return _summed(apart, choice, x, grad_output, out)
    step = weight_gradient.weight_step(problem)
    if step.made is not None:
        return None
    dtype, shape, results = np.dtype(problem.dtype), problem.weight_shape, problem.canonical_form().result_shape
    met = weight_gradient.met(problem, problem.canonical(x))
    if not np.may_share_memory(met, x):  # groups of several images, which take a copy
        return None
    pack, fill = choose(step.forward, choice).fixed(met, problem.canonical_weight(out).swapaxes(0, 1))
    if fill is None:
        return None

    def compute(input: np.ndarray, grad_output: np.ndarray) -> np.ndarray:
        out = np.empty(shape, dtype)
        slope = host.writeable(grad_output).reshape(results).swapaxes(0, 1)
        filters = pack(slope, None)
        fill(host.writeable(input).ravel(), filters.weight, filters.bias, out.ravel())
        return out

    return compute


def _summed(apart: ConvProblem, choice: Choice, x: np.ndarray, grad_output: np.ndarray, out: np.ndarray) -> Road | None:
    """Return the same for a problem that is computed image by image."""
    shape, made = out.shape, np.empty(apart.weight_shape, out.dtype)
    road = of_weight(apart, choice, x.reshape(apart.input_shape), grad_output.reshape(apart.result_shape), made)
    if road is None:
        return None

    def compute(input: np.ndarray, grad_output: np.ndarray) -> np.ndarray:
        each = road(input.reshape(apart.input_shape), grad_output.reshape(apart.result_shape))
        return weight_gradient.sum_of_images(each, shape)

    return compute

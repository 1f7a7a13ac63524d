"""From a caller's arrays to a fast kernel's and back.

An *engine* is a module or object with four functions. ``pack(problem, weight)`` and ``pack_bias(problem, bias)`` bring
the filters (K, C/groups, kd, kh, kw) and the bias into its order, once for many calls. Instead of the former, one may
have ``packer(problem, weight)``, which returns what does so with weights of the same strides. If there are several
orders for such a weight, by the image or the padding that follows from its size, ``order(problem)`` tells which one it
is. ``plan(problem, threads)`` cuts a canonical problem into ``tasks``, each of which works in a ``scratch`` of so many
numbers of a dtype, and ``fixed(plan, x_layout, epilogue, out_layout, threads)`` returns what fills arrays of these
memory orders, ``fill(x, weights, bias, out)``: what can be looked up once is not looked up by each call
(`npconv.kernels.numba.jit.Kernel`).
Unlike the textbook kernels, engines take input and result of any memory order, and see to the zeros of the padding
themselves; other paddings are made here. Arrays that they get can be written to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from npconv import loading
from npconv.kernels import activation, host
from npconv.kernels.layout import PIXEL
from npconv.problem import ConvProblem
from npconv.threads import get_num_threads

_ALL = (-np.inf, np.inf)
_SIMPLE: dict[str, Callable[..., tuple[float, float, float]]] = {
    "relu": lambda: (1, 0, np.inf),
    "relu6": lambda: (1, 0, 6),
    "leaky_relu": lambda slope: (slope, *_ALL),
    "clip": lambda low, high: (1, low, high),
}
"""The activations that the kernels apply themselves, as (slope of negative numbers, low, high)."""


@lru_cache
def epilogue_of(chosen: tuple[Any, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Return an activation as the kernels take it; its first number is 0 if they do not know it."""
    simple = bool(chosen) and chosen[0] in _SIMPLE
    with np.errstate(over="ignore"):  # a bound beyond the dtype is none
        return np.array([1, *_SIMPLE[chosen[0]](*chosen[1:])] if simple else [0, 1, *_ALL]).astype(dtype)


class Packed:
    """The filters and bias of one convolution, in an engine's order."""

    def __init__(self, weight: Any, bias: np.ndarray) -> None:
        self.weight, self.bias = weight, bias


class Packing:
    """How filters and bias of a problem are packed on one engine: made once, for many arrays."""

    KEPT = 16
    """Strides of weights that a packer is kept for."""

    def __init__(self, engine: Any, problem: ConvProblem) -> None:
        self._engine, self._problem, self._dtype = engine, problem, problem.compute_dtype
        self._packers: dict[Any, Callable[[np.ndarray], Any]] = {}
        form = problem.canonical_form()
        filters, channels, *kernel = form.weight_shape
        self._shape = filters, channels, *(taps for _, taps in form.among or zip(kernel, kernel, strict=True))
        self._taps = tuple(slice(first, first + n) for (first, _), n in zip(form.among, kernel, strict=False))
        self._no_bias = engine.pack_bias(problem, None)
        self.order = engine.order(problem) if hasattr(engine, "order") else None
        """In which order filters are packed, where such a weight's may be in several."""

    def __call__(self, weight: np.ndarray, bias: np.ndarray | None) -> Packed:
        """Pack a caller's arrays."""
        weight = self._problem.canonical_weight(weight)
        if weight.dtype != self._dtype or not weight.flags.aligned:
            with np.errstate(all="ignore"):
                weight = host.contiguous(weight, self._dtype)
        return self._pack(weight, bias)

    def quick(self, weight: np.ndarray, bias: np.ndarray | None) -> Packed:
        """Do the same, for an aligned weight of the compute dtype and, but for axes of length one, canonical shape."""
        return self._pack(weight.reshape(self._shape), bias)

    def _pack(self, weight: np.ndarray, bias: np.ndarray | None) -> Packed:
        weight = host.writeable(weight)
        if self._taps:
            weight = weight[(slice(None), slice(None), *self._taps)]
        if hasattr(self._engine, "packer"):
            key = (weight.strides, get_num_threads())
            pack = self._packers.get(key)
            if pack is None:
                if len(self._packers) >= self.KEPT:
                    self._packers.clear()
                pack = self._packers[key] = self._engine.packer(self._problem, weight)
            packed = pack(weight)
        else:
            packed = self._engine.pack(self._problem, weight)
        return Packed(packed, self._no_bias if bias is None else self._engine.pack_bias(self._problem, bias))


Fill = Callable[[np.ndarray, Any, np.ndarray, np.ndarray], None]
"""Fills flat memory from such, and from weights and bias in an engine's order: ``fill(x, weights, bias, out)``."""


def _flat(array: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return `npconv.kernels.numba.slab.flat` of an array."""
    found: tuple[np.ndarray, np.ndarray] | None = loading.module("npconv.kernels.numba.slab").flat(array)
    return found


def _bytes(plan: Any, threads: int) -> int:
    """Return how many bytes so many threads work in, and share."""
    if hasattr(plan, "bytes"):
        return int(plan.bytes)
    numbers, dtype = plan.scratch
    return int(min(threads, plan.tasks) * numbers * dtype.itemsize + getattr(plan, "shared", 0))


class Run:
    """A problem and its plans on one engine: made once, run for many arrays.

    Each of its plans has as many of the threads as work ``within`` a limit of bytes, if there is one, and one at least.
    """

    def __init__(
        self, engine: Any, problem: ConvProblem, threads: int, within: Callable[[int], bool] | None = None
    ) -> None:
        self._engine, self._problem = engine, problem
        form = problem.canonical_form()
        self._padding = form.padding if problem.padding_mode != "zeros" and any(map(any, form.padding)) else None
        if self._padding is not None:
            form = replace(form, input_size=form.padded_size, padding=((0, 0),) * 3, padding_mode="zeros")

        def planned(form: ConvProblem) -> tuple[Any, int]:
            for number in range(threads, 0, -1):
                plan = engine.plan(form, number)
                if within is None or within(_bytes(plan, number)):
                    break
            return plan, number

        self._plan, self._line = planned(form), None
        if form.taps == 1 and not any(map(any, form.padding)) and set(form.stride) == {1} and form.positions > 0:
            line = (1, 1, form.positions)
            self._line = planned(replace(form, input_size=line))
        self._epilogue = epilogue_of(problem.activation, problem.compute_dtype)
        self._left = problem.activation if problem.activation and self._epilogue[0] == 0 else ()

    @property
    def bytes(self) -> int:
        """How many bytes its threads work in at most; what the kernels of some engines share counts among them."""
        return max(_bytes(*planned) for planned in (self._plan, self._line) if planned is not None)

    @property
    def threads(self) -> int:
        """How many threads run for arrays that lie in C order."""
        return (self._line or self._plan)[1]

    def __call__(self, input: np.ndarray, packed: Packed, out: np.ndarray) -> None:
        """Fill ``out``."""
        problem = self._problem
        dtype = problem.compute_dtype
        x, target = problem.canonical(input), problem.canonical(out)
        if self._padding is not None:
            with np.errstate(all="ignore"):
                x = host.padded(x, self._padding, problem.padding_mode, dtype)
        planned = self._plan
        if self._line is not None and in_line(x) and in_line(target):
            planned = self._line
            x, target = (array.reshape(*array.shape[:2], 1, 1, -1) for array in (x, target))
        numbers = _flat(x) if x.dtype == dtype else None
        if numbers is None:
            with np.errstate(all="ignore"):
                numbers = _flat(x.astype(dtype)) or _flat(host.contiguous(x, dtype))  # in the memory order it has
        result = _flat(target) if target.dtype == dtype else None
        if result is not None:
            self._fill(planned, numbers, packed, result)
            if self._left:
                with np.errstate(all="ignore"):
                    activation.apply(target, self._left)
        else:
            made = np.empty_like(target, dtype, subok=False)
            self._fill(planned, numbers, packed, _flat(made))
            with np.errstate(all="ignore"):
                activation.apply(made, self._left)
                target[...] = made

    def _fill(self, planned: tuple[Any, int], numbers: Any, packed: Packed, result: Any) -> None:
        (x, x_layout), (out, out_layout), (plan, threads) = numbers, result, planned
        fill = self._engine.fixed(plan, x_layout, self._epilogue, out_layout, threads)
        fill(x, packed.weight, packed.bias, out)

    def fixed(self, x: np.ndarray, out: np.ndarray) -> Fill | None:
        """Do what a call does for arrays that are made like these two, without looking at them again; or None.

        The arrays, (N, C, D, H, W) of the compute dtype, are then given as flat memory that begins with their first
        element. For small problems that looking takes longer than computing.
        """
        dtype = self._problem.compute_dtype
        if self._padding is not None or self._left or not x.dtype == out.dtype == dtype:
            return None
        planned = self._plan
        if self._line is not None and in_line(x) and in_line(out):
            planned = self._line
            x, out = (array.reshape(*array.shape[:2], 1, 1, -1) for array in (x, out))
        plan, threads = planned
        numbers, result = _flat(x), _flat(out)
        if numbers is None or result is None:
            return None
        fill: Fill | None = self._engine.fixed(plan, numbers[1], self._epilogue, result[1], threads)
        return fill

    def quick(
        self, x: np.ndarray, out: np.ndarray
    ) -> Callable[[Packed, np.ndarray, np.ndarray | None], np.ndarray] | None:
        """Do what the call of these C-contiguous arrays did, without looking at others like them; or None.

        It takes what was packed, the input, and a result to fill, or None for a new one.
        """
        shape, dtype = out.shape, out.dtype
        fill = self.fixed(self._problem.canonical(x), self._problem.canonical(out))
        if fill is None:
            return None

        def call(packed: Packed, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
            if out is None:
                out = np.empty(shape, dtype)
            # Views, and in half the time that reshape takes.
            fill(host.writeable(x).ravel(), packed.weight, packed.bias, out.ravel())
            return out

        return call


class Merged:
    """Two problems of one input, whose results are the even and the odd pixels of a row, computed in one pass.

    Or one of the even pixels, if ``all_rows`` are told (`npconv.kernels.numba.plane_plan.plan_of`); or one whose
    filters are those of both in turns (`npconv.kernels.numba.pairs`). Or the convolution whose input's gradient has all
    pixels (`npconv.kernels.numba.spread`).
    """

    def __init__(
        self, engine: Any, problems: tuple[ConvProblem, ...], threads: int, in_line: bool, all_rows: int = 0
    ) -> None:
        self.engine, self.problems, self.threads, self._in_line = engine, problems, threads, in_line
        self._plan = engine.plan_of(problems, threads, in_line, all_rows)
        self._epilogue = epilogue_of(problems[0].activation, problems[0].compute_dtype)

    @property
    def bytes(self) -> int:
        """How many bytes its threads work in."""
        return _bytes(self._plan, self.threads)

    def pack(self, weights: list[np.ndarray], bias: np.ndarray | None) -> Packed:
        """Return weights and bias in the engine's order."""
        numbers = self.engine.pack_all(self.problems, list(map(host.writeable, weights)))
        return Packed(numbers, self.engine.pack_bias(self.problems[0], bias))

    def __call__(self, x: np.ndarray, packed: Packed, out: np.ndarray) -> bool:
        """Fill ``out``, whose rows have the pixels of both, but for `finish`; False if that takes other arrays.

        If `in_line` was said of the input, it must be so.
        """
        numbers, result = _flat(x), _flat(out)
        fill = self._filling(x, numbers, result)
        if fill is None:
            return False
        fill(numbers[0], packed.weight, packed.bias, result[0])  # type: ignore[index]
        return True

    def _filling(self, x: np.ndarray, numbers: Any, result: Any) -> Fill | None:
        """Return what fills flat memory of these layouts, None if the kernel does not take them."""
        if numbers is None or result is None:
            return None
        layout = numbers[1]
        if self._in_line:
            layout[PIXEL] = _step(x) // x.itemsize
        fill: Fill | None = self.engine.fixed(self._plan, layout, self._epilogue, result[1], self.threads)
        return fill

    def fixed(self, x: np.ndarray, out: np.ndarray) -> Fill | None:
        """Do what a call and `finish` do for arrays made like these two, as `Run.fixed` does; or None."""
        if self.problems[0].activation and self._epilogue[0] == 0:
            return None
        return self._filling(x, _flat(x), _flat(out))

    def finish(self, out: np.ndarray) -> None:
        """Apply the activation to all that was filled, if the kernel did not."""
        if self.problems[0].activation and self._epilogue[0] == 0:
            with np.errstate(all="ignore"):
                activation.apply(out, self.problems[0].activation)


def in_line(array: np.ndarray) -> bool:
    """Whether the pixels of an array (N, C, D, H, W) lie at one distance from each other."""
    _, _, plane, line, _ = array.strides
    depth, height, width = array.shape[2:]
    step = _step(array)
    return bool((height == 1 or line == width * step) and (depth == 1 or plane == height * width * step))


def _step(array: np.ndarray) -> int:
    """Return the bytes from one pixel in line to the next: of an axis of one element the stride may be any."""
    _, _, plane, line, pixel = array.strides
    _, height, width = array.shape[2:]
    return int(pixel if width > 1 else line if height > 1 else plane)

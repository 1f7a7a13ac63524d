"""Choosing: which algorithm on which backend for a problem, and why.

`choose` is the only place where that is decided. It needs no array, is cached, and what it returns prints itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from npconv import backends, complex_parts, loading, recall, registry, winners
from npconv.candidates import Candidate, candidates, computed, considered, in_parts, modest, refusal
from npconv.choice import Choice
from npconv.kernels import host, parts
from npconv.kernels.packed import Packing, Run
from npconv.loading import once
from npconv.problem import ConvProblem
from npconv.refusals import NOTHING
from npconv.registry import Algorithm


@dataclass(frozen=True)
class Plan:
    """The chosen algorithm for a problem, and why."""

    problem: ConvProblem
    choice: Choice
    chosen: Candidate
    reason: str

    @property
    def algorithm(self) -> Algorithm:
        """The chosen one."""
        return self.chosen.algorithm

    @property
    def fitted(self) -> Candidate:
        """The chosen one, with the threads and the workspace of its run, where those that chose it were estimates."""
        return self._fitted[0]

    @property
    def threads(self) -> int:
        """How many threads it runs in."""
        return self.fitted.threads

    @property
    def seconds(self) -> float:
        """How long it should take."""
        return self.chosen.seconds

    @once
    def met(self) -> ConvProblem:
        """Return the problem as it is computed."""
        return computed(self.algorithm, self.problem)

    @once
    def in_parts(self) -> bool:
        """Whether complex numbers are computed as real and imaginary parts."""
        return in_parts(self.algorithm, self.problem)

    @once
    def _way(self) -> parts.Way:
        """Return the way in which they are."""
        return complex_parts.way(self.problem)

    @property
    def modest(self) -> bool:
        """Whether it is within its limit of workspace."""
        return self.algorithm.within_limit(self.problem, self.chosen.workspace)

    @once
    def candidates(self) -> list[Candidate]:
        """All algorithms that there are on the backends to choose from, and how they stand to the problem."""
        found = candidates(self.problem, self.choice)
        return [self.fitted if candidate.algorithm is self.algorithm else candidate for candidate in found]

    @property
    def refusals(self) -> dict[tuple[str, str], str]:
        """Why algorithms refuse the problem, by backend and name."""
        found = ((a, refusal(a, self.problem, self.choice.precision)) for a in considered(self.choice))
        return {(a.backend, a.name): refused for a, refused in found if refused is not None}

    def run(self, input: Any, weight: Any, bias: Any, out: Any, workspace: Any = None, part: Any = None) -> Any:
        """Compute the convolution into ``out`` (made by the backend where it is None) and return it.

        A ``workspace`` belongs to one weight and bias, of which ``part`` says which piece is used here.
        """
        backend = self.algorithm.backend
        if backend == "cuda":
            from npconv.kernels.cuda import device

            return device.run(self.algorithm.name, self.problem, input, weight, bias, out)
        if out is None:
            out = np.empty(self.problem.result_shape, self.problem.dtype)
        if self.algorithm.engine is not None:
            self._run_packed(input, weight, bias, out, workspace, part)
            return out
        module = loading.module(f"npconv.kernels.{backend}.{self.algorithm.name}")
        host.run(module.conv, self.problem, input, weight, bias, out, workspace)
        return out

    def _run_packed(self, input: Any, weight: Any, bias: Any, out: Any, workspace: Any, part: Any) -> None:
        if workspace is None:
            packing, run = self._of_call
            run(input, packing(weight, bias), out)
        else:
            self._run(input, self.pack(weight, bias, workspace, part), out)

    def pack(self, weight: Any, bias: Any, workspace: Any = None, part: Any = None) -> Any:
        """Return weight and bias in the order of the algorithm's engine, from the workspace if it has them."""
        if workspace is None:
            return self._packing(weight, bias)
        key, met = (self._packed_engine, self.problem.compute_dtype, part), self.met

        def pack() -> Any:
            return tuple(self._packing(weight, bias)) if self.in_parts else self._packing(weight, bias)

        # Of a dilation that is as long as the image, an image of another size meets other taps; and an image may be met
        # by filters in another order.
        return workspace.packed(key, pack, (met.among, met.kernel_size, self._packing.order))

    def quick(
        self, x: np.ndarray, out: np.ndarray
    ) -> Callable[[Any, np.ndarray, np.ndarray | None], np.ndarray] | None:
        """Return a function of what `pack` returned, an input, and a result to fill or None for a new one; or None.

        The arrays are such as these two are, which are C-contiguous and of the problem's dtype.
        """
        return None if self.algorithm.engine is None else self._run.quick(x, out)

    def fixed(self, x: np.ndarray, out: np.ndarray, packed: bool = False) -> tuple[Any, Any]:
        """Return what packs a weight and a bias, and what fills arrays made like these two; None if nothing does.

        The weight is canonical, aligned and of the compute dtype. If it is to be ``packed`` once, `pack` does it, too.
        The arrays are as `npconv.kernels.packed.Run.fixed` tells.
        """
        if self.algorithm.engine is None or self.in_parts:
            return None, None
        packing, run = (self._packing, self._run) if packed else self._of_call
        return packing.quick, run.fixed(x, out)

    def road(self, x: np.ndarray, out: np.ndarray) -> Callable[[Any, Any, Any, Any], np.ndarray] | None:
        """Return a function of input, aligned weight, bias and ``out``, all of the problem's dtype, or None.

        Input, bias and result are C-contiguous, as these two are.
        """
        if self.algorithm.engine is None:
            return None
        packing, run = self._of_call
        quick, pack = run.quick(x, out), packing.quick
        return None if quick is None else lambda input, weight, bias, out: quick(pack(weight, bias), input, out)

    @once
    def computed(self) -> ConvProblem:
        """Return the problem as engines take it, with the precision of its sums."""
        return replace(self.met, loose=self.choice.precision != "strict" and not self.in_parts)

    @once
    def _of_call(self) -> tuple[Any, Any]:
        """How a call that brings plain weights packs them and runs."""
        packing = self._packing_of(self._engine_of_call) if self._takes_plain else self._packing
        return packing, self._fitted[1]

    @once
    def _packing(self) -> Any:
        return self._packing_of(self._packed_engine)

    def _packing_of(self, path: str | None) -> Any:
        engine = self._named(path)
        if self.in_parts:
            return parts.Packing(engine, self.computed, self.problem, self._way)
        return Packing(engine, self.computed)

    @once
    def _run(self) -> Any:
        """Make the run of packed weights."""
        run = self._in_room(self._packed_engine, 0) if self._takes_plain else self._fitted[1]
        return run

    @once
    def _fitted(self) -> tuple[Candidate, Any]:
        """Fit the run of a call in as many threads as its tasks, which the engine knows, have room for."""
        chosen, plain = self.chosen, self._takes_plain
        if self.algorithm.engine is None:
            return chosen, None
        packed = 0 if plain or self.choice.packed else self.algorithm.cost.packed_bytes(self.met)
        if self.in_parts:
            packed += complex_parts.copied(self.problem, self.choice.packed) - self._way.copied
        run = self._in_room(self._engine_of_call, packed)
        if not self.modest:
            return chosen, run
        return replace(chosen, threads=run.threads, workspace=run.bytes + packed), run

    def _in_room(self, path: str | None, packed: int) -> Any:
        """Return a run in as many threads as leave room for so many bytes, or in all if there is none anyway."""

        def within(size: int) -> bool:
            return self.algorithm.within_limit(self.problem, size + packed)

        engine, threads, limit = self._named(path), self.chosen.threads, within if self.modest else None
        if self.in_parts:
            return parts.Run(engine, self.computed, self.problem, self._way, threads, limit)
        return Run(engine, self.computed, threads, limit)

    @once
    def _within_tasks(self) -> bool:
        """Whether it is tasks that make of filters what they meet."""
        return self.algorithm.cost.within_tasks(self.met, self.chosen.threads, self.choice.packed)

    @property
    def _takes_plain(self) -> bool:
        """Whether a call with plain weights packs them within its tasks."""
        return not self.choice.packed and self._within_tasks

    @property
    def _engine_of_call(self) -> str | None:
        return self.algorithm.plain_engine if self._takes_plain else self._packed_engine

    @property
    def _packed_engine(self) -> str | None:
        return self.algorithm.panel_engine if self.choice.packed and self._within_tasks else self.algorithm.engine

    def _named(self, path: str | None) -> Any:
        name, _, attribute = str(path).partition(".")
        engine: Any = loading.module(f"npconv.kernels.{self.algorithm.backend}.{name}")
        return getattr(engine, attribute) if attribute else engine


def _why_not(algorithm: str, backend: str) -> str:
    """Return why a backend does not have an algorithm: there is none, or what would compute it is missing."""
    elsewhere = registry.backends_of(algorithm) if backend == "auto" else ()
    lacks = [lack for name in elsewhere if name != "cuda" and (lack := backends.missing(name))]
    return f"does not exist on backend {backend!r}" if not lacks else f"cannot run here: {lacks[0]}; backend 'auto'"


@recall.until_forgotten
@lru_cache(maxsize=4096)
def choose(problem: ConvProblem, choice: Choice) -> Plan:
    """Return the plan for a problem: the named algorithm and backend, or the fastest there is for ``"auto"``.

    Raises
    ------
    ValueError
        If the named algorithm does not exist on the backend, or cannot do the problem.
    CudaUnavailableError
        If the CUDA backend was named and cannot run here.
    """
    algorithm, backend, every = choice.algorithm, choice.backend, considered(choice)
    named = [entry for entry in every if algorithm in ("auto", entry.name)]
    if not named:
        exists = ", ".join(dict.fromkeys(entry.name for entry in every))
        raise ValueError(f"algorithm {algorithm!r} {_why_not(algorithm, backend)}, which has {exists}")
    found = candidates(problem, choice, named)
    able = [c for c in found if c.refusal is None]
    if not able:
        all_of_them = candidates(problem, choice, every)
        able = [c for c in all_of_them if c.refusal is None]
        if not able or found[0].refusal != NOTHING:  # of which any other has as little to do
            others = ", ".join(dict.fromkeys(c.algorithm.name for c in all_of_them if c.refusal in (None, NOTHING)))
            can = f"{others} can" if others else "no algorithm of this backend can"
            raise ValueError(f"algorithm {algorithm!r} cannot do this problem: {found[0].refusal}; {can}")
    small = modest(problem, able)
    best = min(small, key=lambda c: c.seconds)
    winner = winners.winner(problem, choice) if algorithm == "auto" and choice.tuned else None
    tuned = [c for c in small if winner == (c.algorithm.backend, c.algorithm.name)]
    if tuned:
        (best,) = tuned
        reason = "the fastest when npconv.tune measured it here"
    elif best.algorithm.name == algorithm:
        reason = "named by the caller"
    elif algorithm != "auto":
        reason = NOTHING
    elif len(able) == 1:
        reason = "the only one that takes this problem"
    elif len(small) < len(able):
        reason = "the fastest expected of those whose workspace is within its limit"
    else:
        reason = "the fastest expected of all that take this problem"
    return Plan(problem, choice, best, reason)

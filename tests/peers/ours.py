"""npconv as a contestant."""

from __future__ import annotations

from typing import Any

import numpy as np

import npconv
from peers.networks import Chain
from peers.race import Contestant
from peers.work import Work


def layer(work: Work, threads: int, last: bool = False, **options: Any) -> Contestant:
    """A layer, which has packed its weight before."""
    kind = getattr(npconv, f"Conv{'Transpose' * work.transposed}{work.rank}d")
    built = kind(work.weight, **work.options, **_format(last), **options)
    x = _input(work, last)
    return Contestant(threads, lambda: built(x), _read(last))


def network(chain: Chain, threads: int, last: bool = False) -> Contestant:
    """Layers, one after the other."""
    layers = [npconv.Conv2d(work.weight, **work.options, **_format(last)) for work in chain.works]
    x = _input(chain, last)

    def call() -> np.ndarray:
        y = x
        for layer in layers:
            y = layer(y)
        return y

    return Contestant(threads, call, _read(last))


def function(work: Work, threads: int, last: bool = False, **options: Any) -> Contestant:
    """A function, which packs its weight on each call."""
    compute = getattr(npconv, work.function)
    x, weight, given = _input(work, last), work.weight, work.options | _format(last) | options
    return Contestant(threads, lambda: compute(x, weight, **given), _read(last))


def gradient(work: Work, threads: int, of: str, **options: Any) -> Contestant:
    """The gradient with respect to the ``"input"`` or the ``"weight"``."""
    compute = getattr(npconv.grad, f"{work.function}_{of}")
    given = work.options | options
    if of == "input":
        size, weight, slope = work.input.shape, work.weight, work.slope
        return Contestant(threads, lambda: compute(size, weight, slope, **given))
    x, size, slope = work.input, work.weight.shape, work.slope
    return Contestant(threads, lambda: compute(x, size, slope, **given))


def drawn(what: str, work: Work, threads: int) -> Contestant:
    """One of these, by the name of a group of drawn layers: ``"layers"``, ``"gradients of the input"``, …"""
    if what.startswith("gradients"):
        return gradient(work, threads, what.rpartition(" ")[2])
    return {"layers": layer, "functions": function}[what](work, threads)


def _format(last: bool) -> dict[str, str]:
    return {"data_format": "channels_last" if last else "channels_first"}


def _input(work: Work | Chain, last: bool) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(work.input, 1, -1)) if last else work.input


def _read(last: bool) -> Any:
    return (lambda result: np.moveaxis(result, -1, 1)) if last else np.asarray

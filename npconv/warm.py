"""Compiling ahead: `warmup`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from npconv import api, arguments, backends, layers, registry, values
from npconv.inspection import explain
from npconv.progress import Progress, shown
from npconv.table import seconds, table
from npconv.threads import get_num_threads, threads


class Compiled(NamedTuple):
    """One kernel made ready: its algorithm, dtype and threads, and the seconds spent compiling (0 from the disk)."""

    algorithm: str
    dtype: str
    threads: int
    seconds: float


class WarmupReport(tuple[Compiled, ...]):
    """What `warmup` made ready; prints as a table."""

    def __repr__(self) -> str:
        rows = [
            (entry.algorithm, entry.dtype, str(entry.threads), seconds(entry.seconds) if entry.seconds else "from disk")
            for entry in self
        ]
        return table(("algorithm", "dtype", "threads", "compiled in"), rows)


class _Call(NamedTuple):
    """Arguments of a `conv2d` that compiles what an algorithm needs."""

    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    options: dict[str, Any]


class _Task(NamedTuple):
    """Calls that compile all that there is to compile of an algorithm, for a dtype and a number of threads."""

    algorithm: str
    dtype: np.dtype[Any]
    within: np.dtype[Any]
    """What the kernels are compiled for."""

    threads: int
    calls: list[_Call]


def warmup(
    dtypes: Sequence[Any] = ("float32",),
    algorithms: Sequence[str] | None = None,
    *,
    progress: Progress = True,
) -> WarmupReport:
    """Compile the Numba kernels ahead, so that no later call waits for it; compiled code is kept on disk.

    Parameters
    ----------
    dtypes : sequence of dtype_like, default ("float32",)
        For arrays of these dtypes.
    algorithms : sequence of str, optional
        These algorithms; by default all of the Numba backend that compute with each dtype.
    progress : bool or callable, default True
        Whether to show a progress bar on the standard error stream; or a function that wraps an iterable, given it and
        its length, such as ``lambda items, total: tqdm(items, total=total)``.

    Returns
    -------
    WarmupReport
        A tuple of what was compiled and how long it took, which prints as a table.

    Raises
    ------
    ValueError, TypeError
        If there is no such dtype or algorithm, if a named algorithm does not compute with a dtype, or if Numba is
        missing.

    Examples
    --------
    >>> import npconv
    >>> [entry.algorithm for entry in npconv.warmup(["float32"], ["loop"], progress=False)]  # doctest: +ELLIPSIS
    ['loop'...]
    """
    backends.require("numba")
    from npconv.kernels.numba.jit import compile_clock

    for name, names in (("dtypes", dtypes), ("algorithms", algorithms or ())):
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(f"{name} must be a sequence of names, such as a list; got {names!r}")
    known = [entry.name for entry in registry.candidates("numba")]
    chosen = None if algorithms is None else [values.choice("algorithms", name, known) for name in algorithms]
    wanted = [arguments.dtype_named("dtypes", dtype) for dtype in dtypes]
    counts = sorted({1, get_num_threads()})
    tasks = [
        _Task(name, dtype, within, count, calls)
        for name in (known if chosen is None else chosen)
        for dtype in wanted
        for within in [_within(name, dtype)]
        for calls in [_calls(name, within, must=chosen is not None)]
        for count in counts
        if calls
    ]
    done = []
    for task in shown(tasks, progress, "compiling"):
        with threads(task.threads), compile_clock() as clock:
            for input_shape, weight_shape, options in task.calls:
                x, weight = np.zeros(input_shape, task.within), np.zeros(weight_shape, task.within)
                api.conv2d(x, weight, algorithm=task.algorithm, **options)
                layers.Conv2d(weight, algorithm=task.algorithm, **options)(x)  # which packs its weight in its own way
        done.append(Compiled(task.algorithm, str(task.dtype), task.threads, clock.seconds))
    return WarmupReport(done)


def _within(algorithm: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of what an algorithm's kernels meet: of complex numbers engines' meet the parts."""
    engine = any(entry.engine for entry in registry.candidates("numba") if entry.name == algorithm)
    return np.empty(0, dtype).real.dtype if engine and dtype.kind == "c" else dtype


def _calls(algorithm: str, dtype: np.dtype[Any], must: bool) -> list[_Call]:
    """Return the calls that compile an algorithm for a dtype; none, or an error if it ``must``, where it refuses all.

    Their work is for several threads. So must be that of an engine's second kernel, which packs the weight. Winograd's
    engines have kernels of their own for each size of the filters, which they pack beforehand or, in calls with so many
    filters for such small images, or with few, within their tasks; layers of many filters transform them there; and
    transforms for each number of results that the last tiles have, down and across, here as many of both. Planes
    are met as they are by few filters, and by others as slivers. So has depthwise, for strides, activations and
    channels that are last as well; what is less usual than 3 × 3 and relu, it compiles when it is asked to. So does
    grouped what is not 3 × 3, or has not 4 or 8 channels a group. Dense, dots, outer and pieces are for large kernels,
    and strassen is for those of one element. Slivers of these are cut from pixels side by side, from every second one,
    or from such as are put side by side first; channels are put so for taps that lie far from each other, and for the
    last pixels of planes that are no whole slivers.
    """
    from npconv.kernels.numba.jit import SMALL_WORK
    from npconv.kernels.numba.product import WORTH

    options: dict[str, Any] = {"backend": "numba", "precision": "default"}
    (entry,) = (entry for entry in registry.candidates("numba") if entry.name == algorithm)
    side = int(SMALL_WORK**0.5) + 1
    calls = [_Call((1, 1, side, side), (1, 1, 1, 1), options)]
    if entry.engine is not None:
        channels = int((SMALL_WORK * WORTH / 9) ** 0.5) + 1
        calls = [
            _Call((images, channels, side, side), (channels, channels, taps, taps), options)
            for taps in (3, 5)
            for images, side in ((1, 8), (2, 12))
        ]
    if entry.plain_engine is not None:
        calls = [
            _Call((1, channels, side, side), (channels, channels, taps, taps), options)
            for taps in (3, 5)
            for channels, side in ((320, 8), (32, 30))
        ]
        # Images of 9, 14 and 15 results in a row, whose last tiles are short, if the engine has tiles of so many.
        calls += [_Call((1, 32, side, side), (32, 32, 3, 3), options) for side in (11, 16, 17)]
    if entry.panel_engine is not None:
        calls.append(_Call((1, 640, 14, 14), (640, 640, 3, 3), options))
    if algorithm == "planes":
        calls.append(_Call((1, 32, 20, 20), (32, 32, 3, 3), options))
        calls += [_Call((1, 64, 60, 60), (64, 64, 1, 1), {**options, "stride": stride}) for stride in (1, 2, 3)]
        calls.append(_Call((1, 64, 30, 30), (64, 64, 1, 1), options))
    if algorithm == "direct":
        calls.append(_Call((1, 64, 16, 16), (64, 64, 3, 3), {**options, "dilation": 9, "padding": 9}))
    grouped = {**options, "groups": 64}
    if algorithm == "depthwise":
        weight, last = (64, 1, 3, 3), {**grouped, "data_format": "channels_last"}
        calls = [
            _Call((1, 64, 99, 99), weight, {**grouped, "stride": stride, "activation": activation})
            for stride in (1, 2)
            for activation in (None, "relu")
        ]
        calls += [_Call((1, 99, 99, 64), weight, {**last, "stride": stride}) for stride in (1, 2)]
    elif algorithm == "grouped":
        calls = [
            _Call((1, 64, 48, 48), (64, 64 // n, 3, 3), {**options, "groups": n, "stride": stride})
            for n in (16, 8)
            for stride in (1, 2)
        ]
    elif algorithm == "strassen":
        calls = [_Call((1, 64, side, side), (64, 64, 1, 1), {**options, "stride": side // 32}) for side in (32, 64)]
        calls += [_Call((1, 64, side, side), (64, 64, 1, 1), options) for side in (29, 30)]
        calls.append(_Call((1, 32, 32, 64), (64, 64, 1, 1), {**options, "data_format": "channels_last"}))
    elif algorithm == "pieces":
        calls = [_Call((64, 1, 30, 30), (64, 1, 31 - results, 31 - results), options) for results in (3, 5)]
    elif algorithm == "outer":
        calls = [_Call((64, 1, 30, 30), (64, 1, 28, 28), options)]
    elif algorithm == "dense":
        shapes = ((1, 4096, 1, 1), (8, 64, 30, 30), (1, 64, 30, 30))
        calls = [_Call(shape, (64, *shape[1:]), options) for shape in shapes]
    elif algorithm == "dots":
        calls = [_Call((1, 64, 30, 30), (64, 1, 28, 28), grouped)]
    refusals = [
        explain("conv2d", call.input_shape, call.weight_shape, dtype=dtype, **call.options).refusals.get(
            ("numba", algorithm)
        )
        for call in calls
    ]
    if must and None not in refusals:
        raise ValueError(f"algorithms has {algorithm!r}, which does not take {dtype}: {refusals[0]}")
    return [call for call, refusal in zip(calls, refusals, strict=True) if refusal is None]

"""Engines between guard pages: a program, because what reads or writes beyond its arrays is killed.

Kernels take raw addresses, and nothing checks an index. Here every array that one sees (input, weight, packed weight,
bias, result, scratch) ends exactly where memory that must not be touched begins, or begins exactly where it ends.
Fresh memory is poisoned, so that a result shows what is read before it is written.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any
from unittest import mock

import engine_problems as problems
import numpy as np
import oracle
from corpus import Case

import npconv
from npconv.kernels.numba import buffers
from npconv.kernels.packed import Packed

PAGE = mmap.PAGESIZE
NOTHING = 0
"""PROT_NONE: neither to be read nor to be written."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


class Guards:
    """Makes arrays that end, or begin, at a page that must not be touched, full of poison."""

    def __init__(self, at_end: bool, poison: int) -> None:
        self.at_end, self._poison = at_end, poison

    def bytes(self, size: int) -> np.ndarray:
        """``size`` bytes between guard pages."""
        inner = -(-max(size, 1) // PAGE) * PAGE
        memory = mmap.mmap(-1, inner + 2 * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for guard in (start, start + PAGE + inner):
            if _libc.mprotect(guard, PAGE, NOTHING):
                raise OSError(ctypes.get_errno(), "mprotect")
        pages = np.frombuffer(memory, np.uint8, inner, PAGE)
        pages[...] = self._poison
        return pages[inner - size :] if self.at_end else pages[:size]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A new array."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.bytes(size).view(dtype).reshape(shape)

    def copy(self, array: np.ndarray | None) -> np.ndarray | None:
        """The same numbers in an array of ours."""
        if array is None:
            return None
        result = self.empty(array.shape, array.dtype)
        result[...] = array
        return result

    def spread(self, array: np.ndarray) -> np.ndarray:
        """The same numbers with one between any two along the last axis; the outermost ones lie at the guard page."""
        larger = self.empty((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        result = larger[..., 1::2] if self.at_end else larger[..., ::2]
        result[...] = array
        return result


def install(guards: Guards) -> None:
    """Let scratch and packed numbers of npconv be guarded, the scratch without the bytes that round it up."""

    def rows(self: Any, place: tuple[int, tuple[int, Any]]) -> np.ndarray:
        workers, (numbers, dtype) = place
        return guards.empty((workers, numbers), dtype)

    pack = Packed.__init__

    def pack_and_guard(self: Any, *arguments: Any) -> None:
        pack(self, *arguments)
        self.bias = guards.copy(self.bias)

    buffers.aligned = guards.bytes
    buffers.Room.rows = rows  # type: ignore[method-assign]
    Packed.__init__ = pack_and_guard  # type: ignore[method-assign]


POISONS = {"nan": 0xFF, "large": 0x7F, "small": 0xA5}
"""Bytes that are, in float32 and float64 alike, NaN, numbers near the largest one, and ones that no sum notices."""


def cut(case: Case, array: np.ndarray, guards: Guards) -> np.ndarray:
    """The same numbers as some channels of an array that has three more, and has them last in memory."""
    last = array if case.channels_last else np.moveaxis(array, 1, -1)
    larger = guards.empty((*last.shape[:-1], last.shape[-1] + 3), array.dtype)
    view = larger[..., 3:] if guards.at_end else larger[..., :-3]
    view[...] = last
    return view if case.channels_last else np.moveaxis(view, -1, 1)


def run(text: str, case: Case, dtype: str, algorithm: str, guards: Guards) -> list[str | None]:
    """Compute a problem from and into guarded arrays of several memory orders; return what is wrong."""
    x, weight, bias = problems.arrays_for(text, dtype, algorithm)
    said = []
    blank = np.full(oracle.output_shape(case), np.nan, x.dtype)
    orders = [
        (guards.copy(x), guards.copy(blank)),
        (guards.spread(x), guards.spread(blank)),
        (cut(case, x, guards), cut(case, blank, guards)),
    ]
    if algorithm in ("depthwise", "grouped"):  # these have a way for channels that lie side by side in the input alone
        orders.append((cut(case, x, guards), guards.copy(blank)))
    for made, out in orders:
        arrays = made, guards.copy(weight), guards.copy(bias)
        got = problems.call(case, arrays, out=out, backend="numba", algorithm=algorithm)
        said.append(problems.judge(got, text, dtype, algorithm))
    layer = getattr(npconv, f"Conv{case.rank}d")(weight, bias, **case.arguments, backend="numba", algorithm=algorithm)
    said.append(problems.judge(layer(guards.copy(x)), text, dtype, algorithm))
    return said


TRANSPOSED = {
    # Batch, channels, filters of each group, groups, image, kernel, stride, padding, more rows and columns.
    "direct": (
        # Filters that lie side by side: less than a panel of them, whole ones, and both.
        (2, 9, 13, 1, (5, 7), (1, 1), (1, 1), (0, 0), (0, 0)),
        (1, 33, 64, 1, (3, 9), (1, 1), (1, 1), (0, 0), (0, 0)),
        (1, 16, 50, 1, (4, 5), (1, 1), (2, 1), (0, 0), (1, 0)),
        (3, 300, 65, 1, (3, 3), (1, 1), (1, 1), (0, 0), (0, 0)),
        # Patches of every width around vectors, put in their places.
        (2, 9, 5, 1, (3, 4), (4, 4), (4, 4), (0, 0), (0, 0)),
        (2, 20, 3, 2, (2, 3), (3, 5), (3, 5), (0, 0), (1, 2)),
        (1, 12, 2, 1, (2, 5), (2, 16), (2, 16), (0, 0), (0, 3)),
        (1, 7, 3, 1, (3, 3), (9, 9), (9, 9), (0, 0), (0, 0)),
    ),
    "dense": (
        # The same, of one pixel: too few of them, whole tiles, and such as overlap.
        (2, 9, 13, 1, (1, 1), (1, 1), (1, 1), (0, 0), (0, 0)),
        (4, 33, 128, 1, (1, 1), (1, 1), (1, 1), (0, 0), (0, 0)),
        (1, 700, 201, 1, (1, 1), (1, 1), (1, 1), (0, 0), (0, 0)),
    ),
    "depthwise": (
        # Phases in one pass, and one whose padding takes away from the image.
        (2, 3, 1, 3, (4, 7), (3, 3), (2, 2), (1, 1), (1, 1)),
        (1, 5, 1, 5, (3, 40), (4, 4), (2, 2), (1, 3), (0, 0)),
        (1, 33, 1, 33, (9, 17), (2, 5), (1, 2), (0, 2), (0, 1)),
        (3, 1, 1, 1, (1, 16), (3, 2), (2, 2), (0, 0), (0, 1)),
        (1, 9, 1, 9, (30, 90), (3, 3), (1, 1), (9, 40), (0, 0)),
        # Rows that end within vectors, and are written over each other's beginnings: several tasks a plane, and planes
        # a task; less than a vector, odd ends, rows of the result that are too many for the stride.
        (2, 40, 1, 40, (7, 7), (3, 3), (2, 2), (1, 1), (0, 0)),
        (1, 40, 1, 40, (9, 10), (5, 5), (2, 2), (2, 2), (1, 1)),
        (1, 3, 1, 3, (40, 61), (5, 5), (3, 2), (1, 2), (1, 0)),
        (1, 5, 1, 5, (9, 35), (7, 7), (2, 2), (3, 3), (1, 1)),
        (2, 2, 1, 2, (90, 33), (4, 2), (2, 2), (0, 0), (1, 1)),
    ),
    "planes": (
        # Phases of even and odd pixels, which meet the same pixels or others, in rows of any parity; or patches.
        (2, 5, 13, 1, (4, 9), (2, 2), (2, 2), (0, 0), (0, 0)),
        (1, 9, 17, 1, (6, 40), (2, 2), (2, 2), (0, 0), (1, 1)),
        (1, 3, 12, 1, (5, 7), (4, 4), (2, 2), (1, 1), (0, 0)),
        (1, 4, 14, 2, (3, 18), (3, 3), (1, 2), (1, 1), (0, 1)),
        (1, 2, 33, 1, (1, 3), (1, 5), (2, 2), (0, 3), (0, 0)),
        (1, 20, 30, 1, (1, 17), (2, 2), (2, 2), (0, 0), (0, 1)),
        (2, 40, 70, 1, (9, 21), (2, 2), (2, 2), (1, 1), (0, 0)),
        (1, 70, 40, 1, (20, 33), (3, 3), (2, 2), (1, 0), (1, 0)),
        (1, 1, 1, 1, (3, 1), (1, 4), (1, 2), (0, 1), (0, 0)),  # one pair: half of a vector of two numbers
        # Patches written in pairs: fewer pixels than a tile has, rows of any length, groups, several rows of a patch.
        (1, 7, 3, 1, (2, 3), (2, 2), (2, 2), (0, 0), (0, 0)),
        (2, 8, 5, 2, (3, 18), (3, 2), (3, 2), (0, 0), (2, 0)),
        (1, 300, 33, 1, (7, 7), (2, 2), (2, 2), (0, 0), (1, 1)),
        (1, 1, 90, 1, (2, 96), (1, 2), (1, 2), (0, 0), (0, 0)),
        # One tap: filters that lie side by side; odd pixels and rows that meet none, up to the end or not.
        (2, 9, 13, 1, (5, 7), (1, 1), (1, 1), (0, 0), (0, 0)),
        (1, 40, 70, 1, (9, 21), (1, 1), (1, 1), (0, 0), (0, 0)),
        (2, 7, 17, 1, (5, 9), (1, 1), (2, 2), (0, 0), (1, 0)),
        (1, 33, 30, 1, (4, 40), (1, 1), (2, 2), (0, 0), (0, 1)),
        (1, 6, 14, 2, (3, 6), (1, 1), (2, 2), (0, 0), (1, 1)),
        (1, 3, 12, 1, (1, 1), (1, 1), (2, 2), (0, 0), (0, 0)),
        (1, 20, 100, 1, (30, 33), (1, 1), (2, 2), (0, 0), (1, 1)),
        # Few filters: rows merged group by group, of several taps, and with pixels that meet none.
        (2, 8, 2, 4, (7, 9), (3, 3), (2, 2), (1, 1), (0, 0)),
        (1, 16, 8, 2, (9, 17), (3, 3), (2, 2), (1, 1), (1, 1)),
        (1, 5, 3, 1, (6, 20), (5, 4), (1, 2), (2, 1), (0, 0)),
        (1, 12, 1, 3, (5, 8), (1, 1), (2, 2), (0, 0), (1, 1)),
    ),
    "winograd2": (
        # Zeros between elements along both axes or one, paddings of any parity, tiles cut at every place.
        (2, 40, 13, 1, (4, 9), (3, 3), (2, 2), (1, 1), (1, 1)),
        (1, 33, 17, 1, (7, 6), (4, 4), (2, 2), (0, 1), (0, 1)),
        (1, 34, 33, 1, (5, 11), (4, 3), (2, 1), (2, 2), (1, 0)),
        (2, 68, 18, 2, (4, 7), (3, 3), (2, 2), (1, 1), (1, 0)),
    ),
}
TRANSPOSED["winograd4"] = TRANSPOSED["winograd2"]
TRANSPOSED["strassen"] = (
    # Patches in pairs: whole units and half ones, rows that end within slivers or with them, several rows of a patch.
    (1, 64, 17, 1, (4, 16), (2, 2), (2, 2), (0, 0), (0, 0)),
    (2, 66, 32, 1, (8, 24), (2, 2), (2, 2), (0, 0), (1, 1)),
    (1, 64, 33, 1, (2, 31), (2, 2), (2, 2), (0, 0), (0, 0)),
    (1, 64, 24, 1, (14, 64), (3, 2), (3, 2), (0, 0), (2, 0)),
    (1, 70, 40, 1, (28, 28), (1, 2), (1, 2), (0, 0), (0, 1)),
    # One tap: odd pixels and rows that meet none, up to the end or not; rows that end within slivers.
    (1, 64, 70, 1, (8, 32), (1, 1), (2, 2), (0, 0), (1, 1)),
    (2, 66, 64, 1, (8, 24), (1, 1), (2, 2), (0, 0), (0, 1)),
    (1, 64, 64, 1, (8, 32), (1, 1), (2, 2), (0, 0), (1, 0)),
)
"""Transposed convolutions by engines that compute several of their phases in one pass, or pack them in other ways."""


def run_transposed(dtype: str, algorithm: str, guards: Guards) -> list[str]:
    """Compute them from and into guarded arrays; return what is wrong."""
    rng, said = np.random.default_rng(4), []
    for batch, channels, filters, groups, size, kernel, stride, padding, more in TRANSPOSED[algorithm]:
        options = {"stride": stride, "padding": padding, "output_padding": more, "groups": groups}
        x = rng.integers(-9, 9, (batch, channels, *size)).astype(dtype)
        weight = rng.integers(-9, 9, (channels, filters, *kernel)).astype(dtype)
        bias = rng.integers(-9, 9, groups * filters).astype(dtype)
        want = npconv.conv_transpose2d(x, weight, bias, **options, backend="numpy")
        longer = guards.empty((*x.shape[:-1], x.shape[-1] + 3), x.dtype)
        rows_apart = longer[..., 3:] if guards.at_end else longer[..., :-3]
        rows_apart[...] = x
        sizes = npconv.conv_transpose2d(abs(x), abs(weight), abs(bias), **options, backend="numpy")
        error = 64 * np.finfo(dtype).eps * sizes.max() if algorithm in problems.WINOGRAD else 0
        turned = guards.copy(np.ascontiguousarray(x.swapaxes(2, 3))).swapaxes(2, 3)
        for _ in range(2):  # the second call goes a shorter way
            arrays = guards.copy(x), guards.copy(weight), guards.copy(bias)
            got = npconv.conv_transpose2d(*arrays, **options, algorithm=algorithm)
            said += [] if np.all(abs(got - want) <= error) else [f"transposed {size} {kernel} {dtype}, remembered"]
        for made in (guards.copy(x), guards.spread(x), rows_apart, turned):
            for spread in (False, True):
                out = guards.copy(np.full_like(want, np.nan))
                out = guards.spread(out) if spread else out
                arrays = made, guards.copy(weight), guards.copy(bias)
                npconv.conv_transpose2d(*arrays, **options, algorithm=algorithm, out=out)
                said += [] if np.all(abs(out - want) <= error) else [f"transposed {size} {kernel} {dtype}"]
    return said


WEIGHTS = (
    # Batch, channels, filters, image, stride: filters meet planes of one image or of several, side by side or not.
    (1, 24, 32, (28, 28), 1),
    (1, 5, 9, (7, 7), 1),
    (3, 7, 40, (9, 5), 1),
    (4, 1, 40, (9, 9), 1),
    (2, 40, 3, (9, 11), 2),
    (3, 9, 9, (3, 3), 1),
    (2, 6, 8, (41, 43), 1),
    # Channels in vectors: the last ones overlap others, of the same task or of another one; in chains of sums.
    (1, 33, 40, (7, 7), 1),
    (1, 100, 9, (13, 11), 1),
    (2, 70, 120, (9, 9), 2),
    (1, 65, 24, (27, 31), 1),
)
"""Convolutions of one tap, whose weight's gradient is dense or made of outer products."""

FEW = (
    # Batch, channels, filters, image, kernel, dilation, padding, groups: rows of the image, whole ones and parts.
    (1, 33, 40, (5, 6), (3, 3), (1, 1), (1, 1), 1),
    (2, 9, 70, (7, 9), (3, 3), (5, 6), (5, 6), 1),
    (1, 70, 9, (12, 33), (3, 5), (4, 7), (4, 14), 1),
    (3, 40, 34, (9, 4), (2, 3), (7, 1), (3, 1), 2),
    (1, 24, 33, (20, 8), (3, 3), (6, 6), (6, 6), 1),
)
"""Convolutions whose weight's gradient has few elements, each of which is computed by itself."""


def run_few(dtype: str, algorithm: str, guards: Guards) -> list[str]:
    """Compute these gradients from guarded arrays; return what is wrong."""
    rng, said = np.random.default_rng(6), []
    for batch, channels, filters, size, kernel, dilation, padding, groups in FEW:
        options = {"dilation": dilation, "padding": padding, "groups": groups}
        results = (n + 2 * p - (k - 1) * d for n, p, k, d in zip(size, padding, kernel, dilation, strict=True))
        x = rng.integers(-9, 9, (batch, channels, *size)).astype(dtype)
        slope = rng.integers(-9, 9, (batch, filters, *results)).astype(dtype)
        shape = filters, channels // groups, *kernel
        want = npconv.grad.conv2d_weight(x, shape, slope, **options, backend="numpy")
        turned = guards.copy(np.ascontiguousarray(np.moveaxis(x, 1, -1)))
        longer = guards.empty((*x.shape[:-1], x.shape[-1] + 3), x.dtype)
        rows_apart = longer[..., 3:] if guards.at_end else longer[..., :-3]
        rows_apart[...] = x
        for made in (guards.copy(x), guards.copy(x), guards.spread(x), rows_apart, np.moveaxis(turned, -1, 1)):
            arrays = made, shape, guards.copy(slope)
            with mock.patch.object(np, "empty", guards.empty):
                got = npconv.grad.conv2d_weight(*arrays, **options, algorithm=algorithm)
            said += [] if np.array_equal(got, want) else [f"weight {batch} {channels} {filters} {size} {dtype}"]
    return said


def run_weights(dtype: str, algorithm: str, guards: Guards) -> list[str]:
    """Compute these gradients from and into guarded arrays; return what is wrong."""
    rng, said = np.random.default_rng(5), []
    for batch, channels, filters, size, stride in WEIGHTS:
        x = rng.integers(-9, 9, (batch, channels, *size)).astype(dtype)
        slope = rng.integers(-9, 9, (batch, filters, *(-(-n // stride) for n in size))).astype(dtype)
        shape = filters, channels, 1, 1
        want = npconv.grad.conv2d_weight(x, shape, slope, stride=stride, backend="numpy")
        turned = guards.copy(np.ascontiguousarray(x.swapaxes(0, 1))).swapaxes(0, 1)
        for made in (guards.copy(x), guards.copy(x), guards.spread(x), turned):  # the second call goes a shorter way
            arrays = made, shape, guards.copy(slope)
            with mock.patch.object(np, "empty", guards.empty):
                got = npconv.grad.conv2d_weight(*arrays, stride=stride, algorithm=algorithm)
            said += [] if np.array_equal(got, want) else [f"weight {batch} {channels} {filters} {size} {dtype}"]
    return said


def main(
    place: str, poison: str, algorithm: str, texts: dict[str, tuple[str, ...]], numbers: tuple[int, ...] = (1, 2)
) -> None:
    """Run an engine on the problems of each dtype, in each of some numbers of threads.

    The last line printed before a crash says which problem it was.

    Winograd's ``within`` pack filters within their tasks, in little memory; or of points of their ``own``, where there
    is enough.
    """
    algorithm, _, within = algorithm.partition(" ")
    if within:
        with problems.packing_within(2**17 if within == "within" else 2**26):
            run_all(place, poison, algorithm, texts, numbers)
    else:
        run_all(place, poison, algorithm, texts, numbers)


def run_all(
    place: str, poison: str, algorithm: str, texts: dict[str, tuple[str, ...]], numbers: tuple[int, ...]
) -> None:
    """Run an engine on the problems of each dtype, in each number of threads that there is."""
    guards = Guards(place == "end", POISONS[poison])
    install(guards)
    wrong: list[str] = []
    for threads in sorted({min(threads, npconv.get_num_threads()) for threads in numbers}):
        with npconv.threads(threads):
            for dtype in texts:
                for text, case in problems.taken(texts[dtype], dtype, algorithm):
                    print(f"{algorithm} {dtype} {text} on {threads} threads, guard at the {place}", flush=True)
                    wrong += [said for said in run(text, case, dtype, algorithm, guards) if said is not None]
                if algorithm in TRANSPOSED:
                    print(f"transposed {dtype} on {threads} threads, guard at the {place}", flush=True)
                    wrong += run_transposed(dtype, algorithm, guards)
                if algorithm in ("dense", "outer"):
                    print(f"gradients {dtype} on {threads} threads, guard at the {place}", flush=True)
                    wrong += run_weights(dtype, algorithm, guards)
                if algorithm == "direct":
                    print(f"gradients of few elements {dtype} on {threads} threads, guard at the {place}", flush=True)
                    wrong += run_few(dtype, algorithm, guards)
    assert not wrong, "\n".join(wrong[:20])
    print("untouched")


def trespass(place: str) -> None:
    """Read the number beyond an array, as no kernel may."""
    array = Guards(place == "end", 0).empty((3,), np.float32)
    beyond = array.ctypes.data + (array.nbytes if place == "end" else -4)
    print(ctypes.c_float.from_address(beyond).value)

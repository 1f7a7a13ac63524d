"""How npconv compiles for the CPU, in one place: when, with which flags, for how many threads, and where it is kept.

A kernel is a function of a task's number and of arrays and integers, which computes some outputs that no other task
touches. `Kernel` compiles it by the first call that needs it, and keeps it on disk. A loop, the same for all kernels,
calls it by its address (`npconv.kernels.numba.calls`) for each task, over threads or in one thread. The latter serves

- small work, for which waking the threads costs more than it gains (3 µs under OpenMP, 45 µs under Numba's workqueue);
- a second Python thread that calls while the first has the threads: sharing them gains nothing, and workqueue
  aborts the process on concurrent callers (numba#8563);
- a forked child of a process whose threads had started, where GNU OpenMP aborts.

Rejected: ``fastmath=True``, which lets the compiler assume that there is no NaN and no infinity. ``prange``, in every
kernel or in a loop for all: its index is unsigned, so that indices computed from it become floats, and it takes a
second to compile for each kind of arguments. Kernels without the passes that Numba runs before the full ones: compiling
took a twentieth less, and loops over integers a fifth longer.
"""

from __future__ import annotations

import os
import threading
import time
import types
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numba.core import event
from numba.core.caching import FunctionCache, NullCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.np.ufunc import parallel as numba_threads

from npconv import loading
from npconv.errors import warn
from npconv.kernels.numba.buffers import rooms
from npconv.kernels.numba.calls import block_of, fits, handle_of, row_of, run, types_of
from npconv.kernels.numba.passes import passes_of
from npconv.kernels.numba.tile import PAST_CACHES, VECTOR_BYTES
from npconv.threads import get_num_threads, max_threads
from npconv.turns import turn

SMALL_WORK = 50_000
"""Products under which one thread is as fast as several."""


def sharing(work: int, threads: int) -> int:
    """Return how many of the threads share so much work: all, or one."""
    return threads if work >= SMALL_WORK else 1


def past_caches(work: int, threads: int | None = None) -> bool:
    """Return whether threads share so much work, and may write what they all read past the caches."""
    return PAST_CACHES and sharing(work, threads or get_num_threads()) > 1


class _Library(JITCodeLibrary):
    """The code of a kernel, optimised once, with all of its parts in it.

    Numba would optimise each function by itself before, and all of them twice: first calls took 0.5 to 1.5 s longer.
    And LLVM would unroll loops: a part that copies rows took 0.9 s to compile instead of 0.4. One of some fifty layers
    was faster for it, by 6 %, and is without, now that the loop over its three channels is written out
    (`npconv.kernels.numba.slab`). To vectorise loops is left to LLVM: `npconv.kernels.numba.flatten` lives on that.
    """

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        options = binding.create_pipeline_tuning_options(speed_level=int(numba.config.OPT))
        options.loop_unrolling, options.slp_vectorization = False, False
        builder = binding.create_pass_builder(self._codegen._tm, options)
        passes = builder.getModulePassManager()
        passes.add_refprune_pass()
        passes.run(self._final_module, builder)


class _Part(_Library):
    """The code of a function that becomes part of kernels, as it was written: it is optimised there, and runs there.

    Numba would make machine code of each by itself, too: a first call of a small convolution takes 5.0 s instead of
    6.2, and kernels are as fast, depthwise ones up to 10 % faster. (Optimised as far as can be, parts took 2.2 s more.)
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Say that there is none."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> _Part:
        """Take the place of what has the memory of machine code."""
        return self

    def set_env(self, name: str, environment: object) -> None:
        """Leave out what only functions with a way in from Python use."""


class _Compiler(Compiler):
    """Numba's compiler, for kernels."""

    library: type[_Library] = _Library

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.library = self.library(self.state.targetctx.codegen(), self.library.__name__)
        self.state.library.enable_object_caching()

    def define_pipelines(self) -> list[Any]:
        """Return the passes."""
        return [passes_of(self.state)]


class _PartCompiler(_Compiler):
    """Numba's compiler, for parts of kernels."""

    library = _Part


_OPTIONS = {"pipeline_class": _Compiler, "nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}

_TASK = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **_OPTIONS}
"""Tasks are called by address: they need no way in from Python or C."""

_ALONE = {"_nrt": False, **_TASK}
"""These make no arrays, so that Numba need not count who uses the ones they are given: 80 cycles a call, and a
twentieth of the time that it takes to compile Winograd's."""

_INLINE = {**_ALONE, "pipeline_class": _PartCompiler}


def inline(function: Callable[..., Any]) -> Any:
    """Decorate a function that becomes part of the kernels which call it, and makes no arrays."""
    return numba.njit(**_INLINE)(function)


def _named(function: Callable[..., Any], values: tuple[object, ...]) -> Callable[..., Any]:
    """Give one of several functions, which differ in the values they have from around them, a name of its own.

    Compiled functions are named by place, types and a count of the process. Two versions of one function that were kept
    on disk by different processes can so bear one name, and a third process runs either for both, without a word.
    """
    function.__name__ = "-".join(map(str, (function.__qualname__.replace(".<locals>", ""), *values)))
    function.__qualname__ = function.__name__
    return function


def specialised(function: Callable[..., Any], *values: object, within: bool = False) -> Any:
    """Decorate a function like `inline`, one of several that differ in the values they have from around them.

    Those ``within`` are copied into each place that calls them: for a register tile a call costs 100 cycles, as each
    array is seven arguments, and all go through memory.
    """
    return numba.njit(**_INLINE, forceinline=within)(_named(function, values))


_DIGEST = loading.fingerprint("*.py", "numba/*.py")[:12]
"""Of the sources that kernels are made of: this folder's, and what the one above tells them, such as the sizes of
Winograd's tiles.

Numba recompiles a cached kernel when its own file has changed, but does not see changes in the files whose functions it
calls (numba#1833). The fingerprint in a kernel's name does.
"""


class _Code:
    """A function's machine code: for each types of arguments compiled when they are first met, and kept on disk."""

    compiled: Any = None

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.function, self._options = function, options

    def __repr__(self) -> str:
        return self.function.__qualname__

    def ready(self, kinds: tuple[Any, ...]) -> Any:
        """Return the code for types of arguments, which is compiled, or loaded, if need be."""
        if self.compiled is None:
            self.compiled = _compile(self.function, **self._options)
        _compile_once(self.compiled, kinds)
        return self.compiled.overloads[kinds]

    def address(self, kinds: tuple[Any, ...]) -> int:
        """Return where it is in memory."""
        found = self.ready(kinds)
        return int(found.library.get_pointer_to_function(found.fndesc.llvm_func_name))


class Part:
    """A part of kernels that there are several of, which differ in it: called by its address.

    It is compiled by itself, so that kernels are compiled once for all of their parts, and kernels that have one part
    compile it once. `npconv.kernels.numba.calls` tells of its ``form``. Calls go through memory, as there are more
    arguments than registers: so parts have loops, and each call is for many tiles, rows or planes. The ``values`` that
    it has from around it tell it from others.
    """

    def __init__(self, function: Callable[..., None], form: str, *values: object) -> None:
        self.code, self._form = _Code(_named(function, values), **_ALONE), form
        self._addresses: dict[Any, int] = {}

    def address(self, dtype: np.dtype[Any]) -> int:
        """Return where it is in memory, for arrays of a dtype."""
        found = self._addresses.get(dtype)
        if found is None:
            with loading.lock:
                found = self.code.address(types_of(self._form, numba.from_dtype(dtype)))
            self._addresses[dtype] = found
        return found


@lru_cache(maxsize=4096)
def addresses(parts: tuple[Part | None, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Return where parts are in memory, as kernels take them, and 0 in the place of one that they do not call."""
    return np.array([part.address(dtype) if part else 0 for part in parts])


def _loop(threads, tasks, handle, scratch, arguments):  # type: ignore[no-untyped-def]
    """Run every task, over threads or in one. False if the task is for other types."""
    if not fits(handle, scratch, arguments):
        return False
    run(threads, tasks, handle, scratch, arguments)
    return True


_NOTHING = np.empty((1, 0), np.uint8)


class Kernel:
    """A function ``task(index, *arguments)``, to be run for every index, over threads or in one.

    With ``scratch``, it is ``task(index, scratch, *arguments)``, where scratch are numbers to work in, as many as `run`
    is told. The last argument of a kernel that takes constants, whose ``form`` is told, is a block of them
    (`npconv.kernels.numba.calls`).
    """

    def __init__(self, task: Callable[..., None], scratch: bool = False, form: str = "") -> None:
        options = _TASK if getattr(task, "makes_arrays", False) else _ALONE
        self.task, self._scratch, self._form = _Code(task, **options), scratch, form
        self._handles: tuple[dict[Any, np.ndarray], dict[Any, np.ndarray]] = {}, {}  # in one thread, over threads

    def run(self, tasks: int, work: int, *arguments: Any, scratch: tuple[int, np.dtype[Any]] | None = None) -> None:
        """Run all tasks with the given arrays and integers, in as many threads as there may be: see `fixed`."""
        self.fixed(tasks, work, get_num_threads(), scratch=scratch)(*arguments)

    def fixed(
        self, tasks: int, work: int, threads: int, constants: tuple[np.ndarray, ...] = (),
        scratch: tuple[int, np.dtype[Any]] | None = None, in_turns: bool = False, cleared: int = 0,
    ) -> Callable[..., None]:  # fmt: skip
        """Return a function that runs all tasks with the arrays it is given, and ``constants``.

        ``work`` is the number of products that they ask for. ``scratch`` says how many numbers each task has to work
        in, and of which dtype; each thread's tasks work in the same ones, so many of which are ``cleared`` before the
        first. Tasks of unequal sizes may be dealt out ``in_turns``. Arrays can be written to: Numba would compile the
        kernel again for those that cannot (`npconv.kernels.host.writeable`).

        What a call does before its tasks begin, it does with cold caches if they have filled these before: all that
        it meets, functions of Python's above all, comes from the third-level cache or memory, 20 to 40 µs of it where
        the same takes 8 in a loop. So as much as can be is done here, for many calls.
        """
        most = min(sharing(work, threads), tasks, numba.config.NUMBA_NUM_THREADS)
        places = scratch and ((1, scratch), (most, scratch))
        block = (block_of(self._form, constants),) if self._form or constants else ()
        dtype = next((one.dtype for one in constants if one.dtype.kind == "f"), None)
        dealt = -tasks if in_turns else tasks

        def call(*arrays: Any, kept: Any = constants) -> None:  # the block has only their addresses
            lock, room, rows = _threads.lock, None, _NOTHING
            several = most > 1 and lock.acquire(blocking=False)
            try:
                if places is not None:
                    room = rooms.take()
                    rows = room.rows(places[several])
                    if cleared:
                        rows[:, :cleared] = 0
                arguments = arrays + block
                handle = self._handles[several].get(dtype or arguments[0].dtype)
                workers = most if several else 1
                if handle is None or not _driver.compiled(workers, dealt, handle, rows, arguments):
                    self._first(workers, dealt, rows, arguments, dtype or arguments[0].dtype)
            finally:
                if room is not None:
                    rooms.give(room)
                if several:
                    lock.release()

        return call

    def _first(
        self, threads: int, tasks: int, scratch: np.ndarray, arguments: tuple[Any, ...], dtype: np.dtype[Any]
    ) -> None:
        """Compile, or load, what it takes to run for arguments of these types, and run.

        Kernels read the numbers of a block as those of the first array, which no type tells: they are of one dtype.
        """
        if arguments[0].dtype != dtype:
            raise AssertionError(f"{self.task} was given {arguments[0].dtype}, and constants of {dtype}")
        # What Numba does with the first arrays of a kind, forks wait for: it takes locks of its own, those of
        # `functools.cached_property` in Python 3.11 among them, and imports modules.
        with loading.lock:
            rows = [row_of(numba.typeof(scratch))] if self._scratch else []
            kinds = (numba.int64, *rows, *map(numba.typeof, arguments))
            if threads > 1:
                _threads.started = True
            handle = handle_of(self.task.address(kinds), kinds, threads > 1)
            given = threads, tasks, handle, scratch, arguments
            _driver.ready(tuple(map(numba.typeof, given)))
            if not _driver.compiled(*given):
                raise AssertionError(f"{self.task} was compiled for other types than {kinds}")
            self._handles[threads > 1][dtype] = handle


_driver = _Code(_loop, _nrt=False, no_cfunc_wrapper=True, **_OPTIONS)
"""The loop over tasks, for all kernels. It makes no arrays, as above: it so takes a third of the time to compile, 0.2 s
instead of 0.6 for each kind of arguments, and a small convolution 7.5 µs instead of 8.0."""


def makes_arrays(task: Callable[..., None]) -> Callable[..., None]:
    """Mark a task that makes arrays, before it becomes a kernel."""
    task.makes_arrays = True  # type: ignore[attr-defined]
    return task


def scratch_kernel(form: str = "", *values: object) -> Callable[[Callable[..., None]], Kernel]:
    """Return what makes a kernel of a function ``task(index, scratch, *arguments)``, with constants of a form.

    The ``values`` that it has from around it tell it from others.
    """
    return lambda task: Kernel(_named(task, values), scratch=True, form=form)


class _Damaged(OSError):
    """What is on disk is no compiled function."""


class _Kept(FunctionCache):
    """Compiled functions on disk, told apart by their names, which have the fingerprint of the sources.

    Numba's own looks at what a function has from around it as well; compiled functions there look different to each
    process.
    """

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load a function without letting Numba know all that it could compile, as it has been compiled."""
        try:
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
        except OSError:
            raise
        except Exception as error:  # there is little that unpickling something else could not raise
            raise _Damaged(repr(error)) from error

    def has(self, kinds: tuple[Any, ...]) -> bool:
        """Whether a function for types of arguments is on disk, as far as can be told."""
        try:
            name = self._cache_file._load_index().get(self._index_key(kinds, cpu_target.target_context.codegen()))
            return name is not None and Path(self._cache_file._data_path(name)).exists()
        except Exception:  # damaged, as loading it will find
            return False


def _compile(task: Callable[..., Any], **options: Any) -> Any:
    """Return a function to be compiled for types, and kept on disk if possible."""
    function = types.FunctionType(task.__code__, task.__globals__, task.__name__, task.__defaults__, task.__closure__)
    function.__module__ = task.__module__
    function.__qualname__ = f"{task.__qualname__}-{_DIGEST}"
    compiled = numba.njit(**options)(function)
    try:
        compiled._cache = _Kept(function)
    except RuntimeError as error:
        if "locator" not in str(error):
            raise
        _warn_uncached()
    return compiled


_LOCKS, _PATIENCE = 64, 60.0
"""Files that functions share as locks while they are compiled, and the seconds that a process waits for another."""

_in_vain: set[Path] = set()
"""Locks that were waited for so long: a stopped process may have them for good."""


def _runtime() -> None:
    """Let compiled functions find what they call."""
    rtsys.initialize(cpu_target.target_context)


def _refresh() -> None:
    """Let Numba know all functions that it has code for."""
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


def _compile_once(compiled: Any, kinds: tuple[Any, ...]) -> None:
    """Compile a function for types of arguments, or load it: another process that compiles it now is waited for.

    Two workers of a test run, or of a server, that begin together would each compile most of what they need. What is
    there already is loaded without a lock.
    """
    if kinds in compiled.overloads:
        return
    folder = compiled.stats.cache_path
    kept = folder and compiled._cache.has(kinds)
    # Numba does so once in a process, which takes 0.4 s: not while others wait.
    loading.in_whole(_runtime if kept else _refresh)
    with ExitStack() as stack:
        if folder and not kept:
            lock = Path(folder) / f"compiling-{zlib.crc32(compiled.py_func.__qualname__.encode()) % _LOCKS}.lock"
            with suppress(OSError):  # there is no place to keep anything, as Numba will find
                lock.parent.mkdir(parents=True, exist_ok=True)
            if not stack.enter_context(turn(lock, 0 if lock in _in_vain else _PATIENCE)):
                _in_vain.add(lock)
        try:
            try:
                compiled.compile(kinds)
            except _Damaged as error:
                compiled._cache.flush()
                warn(f"a compiled kernel kept on disk was damaged, so it is compiled anew ({error})")
                loading.in_whole(_refresh)
                compiled.compile(kinds)
            return
        except OSError:  # the place has gone, is full, or is no longer ours
            _warn_uncached()
        if kinds not in compiled.overloads:
            loading.in_whole(_refresh)
            compiled._cache = NullCache()
            compiled.compile(kinds)


_warned = False


def _warn_uncached() -> None:
    global _warned
    if not _warned:
        _warned = True
        warn(
            "compiled kernels cannot be kept on disk, so each process compiles its own; set NUMBA_CACHE_DIR "
            "to a folder that can be written to"
        )


class _Threads:
    """Who may run over threads: one caller at a time, and nobody in a child whose parent had started them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Who has it may; in such a child nobody gets it."""

        self.started = False
        """Said before Numba starts them, which takes a while, and locks, in which a fork can come."""

    def after_fork(self) -> None:
        self.lock = threading.Lock()
        if self.started or numba_threads._is_initialized:
            self.lock.acquire()


_threads = _Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.after_fork)
    loading.hold_across_fork(global_compiler_lock)
    # Typing an array imports a part of NumPy the first time, and no lock is held then: better now, within an import.
    numba.typeof((np.empty(0), 0))


class CompileClock(event.Listener):
    """Adds up the seconds that Numba spends compiling."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._start = 0.0

    def on_start(self, event: Any) -> None:
        """Take the time at the outermost start; compilations nest."""
        if self._depth == 0:
            self._start = time.perf_counter()
        self._depth += 1

    def on_end(self, event: Any) -> None:
        """Add the time since then at the outermost end."""
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.perf_counter() - self._start


@contextmanager
def compile_clock() -> Iterator[CompileClock]:
    """Measure the seconds that Numba spends compiling within a ``with`` block."""
    clock = CompileClock()
    with event.install_listener("numba:compile", clock):
        yield clock


def facts() -> dict[str, str]:
    """Return what `npconv.show_config` tells of Numba."""
    _, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    told = ("sse2", "avx", "avx2", "fma", "avx512f", "neon")
    present = [name for name in told if f"+{name}" in features.split(",")]
    try:
        layer = numba.threading_layer()
    except ValueError:
        layer = f"{numba.config.THREADING_LAYER} (none started yet)"
    return {
        "cpu": f"{cpu} ({' '.join(present)})",
        "vectors": f"{VECTOR_BYTES} bytes",
        "threading layer": layer,
        "most threads": str(max_threads()),
    }

"""What `npconv.tune` measured, kept on disk: where, in which form, and for whom it holds.

One JSON file for a CPU and a version of npconv, in the user's cache folder, holds the times of every problem tuned
there; the least of them wins. Its name tells the version and the CPU, and ends in a fingerprint of everything that
times depend on and that can be told cheaply: the CPU's features, what Numba is told to compile for, the sources of
the kernels, and the form of the file. Whatever changes, the file is another one, and old times are not believed.

A process reads the file once, at its first problem whose algorithm is ``"auto"``: `npconv.plan.choose` keeps its
answers, so no call pays for looking. Where there is no such file at all, the CPU is not asked for either: that needs
llvmlite, which the NumPy backend does without.

Writers take turns by a lock, read the file again and put theirs in, and replace it in one step: nobody sees half a file
and no winner is lost. Where the lock cannot be had the last writer wins. What cannot be read or written is told in a
warning, once, and costs no more than the winners.
"""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from npconv import loading
from npconv.choice import Choice
from npconv.errors import warn
from npconv.problem import ConvProblem
from npconv.turns import turn

Times = dict[tuple[str, str], float]
"""Least seconds of a call, by (backend, algorithm)."""

_FORMAT = 1
_NAME = re.compile(r"tuned-.+-[0-9a-f]{12}\.json")
_PATIENCE = 5.0
"""Seconds to wait for another process that writes."""

_kept: dict[str, Times] | None = None
"""By key, what the file holds and what could not be written to it; None before it was read."""

_warned: set[str] = set()


def key(problem: ConvProblem, choice: Choice) -> str:
    """Return the text under which a problem's times are kept: whatever makes a difference to them.

    How the caller spells a problem makes none, nor does the number of its spatial axes, nor which activation there is.
    """
    form = problem.canonical_form()
    weight = (form.out_channels, form.in_channels // form.groups, *form.kernel_size)
    words = [
        f"{form.dtype} {_by(form.input_shape)} * {_by(weight)}, groups {form.groups}",
        f"stride {_by(form.stride)}, dilation {_by(form.dilation)}" + (f", up {_by(form.up)}" if form.up else ""),
        f"padding {' '.join(f'{before}+{after}' for before, after in form.padding)} {form.padding_mode}",
        "channels_last" if problem.channels_last else "channels_first",
        *["filters side by side"] * form.turned,
        *["gradient of a weight"] * form.of_weight,
        *["bias"] * form.bias,
        *["activation"] * bool(form.activation),
        f"{choice.precision} precision, backend {choice.backend}, {choice.threads} threads",
        "layer" if choice.packed else "function",
    ]
    return ", ".join(words)


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def times(problem: ConvProblem, choice: Choice) -> Mapping[tuple[str, str], float]:
    """Return what was measured for a problem, nothing as a rule."""
    kept = _all()
    return kept.get(key(problem, choice), {}) if kept else {}


def winner(problem: ConvProblem, choice: Choice) -> tuple[str, str] | None:
    """Return backend and algorithm that were the fastest for a problem; None if nothing was measured."""
    found = times(problem, choice)
    return min(found, key=lambda who: found[who], default=None)


def count() -> int:
    """Return how many winners hold here."""
    return len(_all())


def facts() -> dict[str, str]:
    """Return what `npconv.show_config` tells of all this."""
    try:
        where = str(folder())
        if not os.environ.get("NPCONV_CACHE_DIR"):
            where = f"not set ({where})"
        kept = f"{count()} winners in {file().name}"
    except OSError as error:
        where, kept = "not set", f"{count()} winners ({error})"
    return {"NPCONV_CACHE_DIR": where, "tuned": kept}


def keep(new: Mapping[str, Times]) -> None:
    """Keep times by their keys: on disk, and if that cannot be, for this process."""
    global _kept
    _kept = {**_all(), **new}
    try:
        path = file()
        path.parent.mkdir(parents=True, exist_ok=True)
        with turn(path.parent / "tuned.lock", _PATIENCE):
            on_disk = _read(path)
            _write(path, {**on_disk, **new})
        _kept = {**_kept, **on_disk, **new}
    except OSError as error:
        _warn_once(
            "write",
            f"what npconv.tune found cannot be kept on disk ({error}), and holds for this process alone; "
            "set NPCONV_CACHE_DIR to a folder that can be written to",
        )


def forget(everything: bool) -> int:
    """Remove the file of this CPU and version, or all such files, and return how many winners that were."""
    global _kept
    unwritten, number = set(_all()), 0
    for path in _files() if everything else _existing():
        with suppress(_Unusable):
            found = _parse(path)
            number += len(found)
            unwritten -= set(found)
        path.unlink(missing_ok=True)
    _kept = {}
    return number + len(unwritten)


def folder() -> Path:
    """Return npconv's cache folder, which need not exist.

    Raises
    ------
    OSError
        If nothing says where it could be.
    """
    own = os.environ.get("NPCONV_CACHE_DIR")
    if own:
        return Path(own).absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # others are to be ignored, the standard says
        return Path(shared, "npconv")
    try:
        home = Path.home()
    except RuntimeError as error:
        raise OSError(f"there is no cache folder: {error}") from error
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local", "npconv", "Cache")
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "npconv"


def file() -> Path:
    """Return the path of the file for this CPU and this version of npconv, which need not exist."""
    import hashlib

    from npconv import __version__

    name, features = _cpu()
    digest = hashlib.sha256("\n".join((str(_FORMAT), __version__, name, features, _sources())).encode()).hexdigest()
    readable = re.sub(r"[^\w.+-]", "_", f"{__version__}-{name}")
    return folder() / f"tuned-{readable}-{digest[:12]}.json"


@cache
def _sources() -> str:
    """Return a fingerprint of the kernels that run on a CPU."""
    return loading.fingerprint("*.py", "numpy/*.py", "numba/*.py")


def _cpu() -> tuple[str, str]:
    """Return the name and features of the CPU that Numba compiles for, as far as they can be told."""
    name, features = os.environ.get("NUMBA_CPU_NAME", ""), os.environ.get("NUMBA_CPU_FEATURES", "")
    try:
        from llvmlite import binding
    except ImportError:
        return name or platform.machine() or "cpu", features
    return name or binding.get_host_cpu_name(), features or binding.get_host_cpu_features().flatten()


def _all() -> dict[str, Times]:
    """Return all that is kept, from the disk the first time."""
    global _kept
    if _kept is None:
        with loading.lock:  # reading imports modules
            found: dict[str, Times] = {}
            for path in _existing():
                found = _read(path)
            _kept = found
    return _kept


def _files() -> list[Path]:
    """Return the files of all CPUs and versions."""
    try:
        return [path for path in folder().iterdir() if _NAME.fullmatch(path.name)]
    except OSError:
        return []


def _existing() -> list[Path]:
    """Return the file of this CPU and version in a list, if it exists."""
    files = _files()
    return [path for path in [file()] if path in files] if files else []


class _Unusable(Exception):
    """A file that holds something else than it should."""


def _read(path: Path) -> dict[str, Times]:
    """Return what a file holds; nothing, with a warning, if it is not what `_write` writes."""
    global _kept
    try:
        return _parse(path)
    except _Unusable as error:
        if _kept is None:
            _kept = {}  # warnings may be errors, and the next call is not to warn again
        _warn_once(
            "read", f"what npconv.tune kept in {path} cannot be used ({error}) and is passed over; see npconv.forget()"
        )
        return {}


def _parse(path: Path) -> dict[str, Times]:
    import json

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise _Unusable(f"its format is {content['format']!r}, not {_FORMAT}")
        return {str(key): _times(seconds) for key, seconds in content["seconds"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _Unusable(f"{type(error).__name__}: {error}") from error


def _times(written: dict[str, Any]) -> Times:
    result = {}
    for name, seconds in written.items():
        backend, algorithm = name.split()
        if not 0 < float(seconds) < math.inf:
            raise ValueError(f"{seconds!r} is no time")
        result[backend, algorithm] = float(seconds)
    return result


def _write(path: Path, entries: Mapping[str, Times]) -> None:
    """Replace a file in one step."""
    import json
    import tempfile

    from npconv import __version__

    content = {
        "format": _FORMAT,
        "npconv": __version__,
        "cpu": _cpu()[0],
        "seconds": {
            key: {" ".join(who): found[who] for who in sorted(found, key=lambda who: found[who])}
            for key, found in entries.items()
        },
    }
    handle, temporary = tempfile.mkstemp(prefix=path.stem, suffix=".new", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _warn_once(what: str, message: str) -> None:
    if what not in _warned:
        _warned.add(what)
        warn(message)

"""What this installation runs on: `show_config`."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from npconv import backends, winners
from npconv.table import table
from npconv.threads import get_num_threads, max_threads

_PACKAGES = ("numpy", "numba", "llvmlite", "numba-cuda", "ml_dtypes")


class Config(Mapping[str, str]):
    """Facts by name, which print as a table."""

    def __init__(self, facts: dict[str, str]) -> None:
        self._facts = facts

    def __getitem__(self, name: str) -> str:
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        return table(("npconv", "here"), list(self._facts.items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def show_config() -> Config:
    """Tell versions, CPU features, threads, threading layer, CUDA and caches. Imports Numba, where it is installed.

    Returns
    -------
    Config
        A mapping from names to texts, which prints as a table.

    Examples
    --------
    >>> import npconv
    >>> "numpy" in npconv.show_config()
    True
    """
    import npconv

    facts = {"npconv": npconv.__version__, "python": f"{platform.python_version()} ({sys.implementation.name})"}
    facts |= {package: _version(package) for package in _PACKAGES}
    facts["machine"] = f"{platform.system()} {platform.machine()}"
    facts["threads"] = f"{get_num_threads()} of {max_threads()}"
    if backends.missing("numba") is None:
        from npconv.kernels.numba import jit

        facts |= jit.facts()
    facts["NUMBA_CACHE_DIR"] = os.environ.get("NUMBA_CACHE_DIR", "not set (__pycache__ beside the kernels)")
    facts |= winners.facts()
    facts["cuda"] = backends.missing("cuda") or "available"
    return Config(facts)

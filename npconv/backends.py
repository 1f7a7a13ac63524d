"""Which backends can run here, and what is missing where one cannot."""

from __future__ import annotations

from functools import cache

from npconv import loading
from npconv.errors import CudaUnavailableError, warn

NAMES = ("numpy", "numba", "cuda")


@cache
def missing(backend: str) -> str | None:
    """Return what the backend lacks here, or None if it can run. Asking about CUDA imports Numba."""
    if backend == "numpy":
        return None
    lack = _missing_for_numba()
    if lack is not None or backend == "numba":
        return lack
    return _missing_for_cuda()


@cache
def _missing_for_numba() -> str | None:
    try:
        numba = loading.module("numba")  # asked for just before it is needed; an installed Numba may refuse this NumPy
    except ModuleNotFoundError as error:
        if error.name == "numba":
            return "Numba is not installed (pip install numba)"
        return f"Numba cannot be imported ({error})"
    except ImportError as error:
        return f"Numba cannot be imported ({error})"
    if numba.config.DISABLE_JIT:
        return "Numba's compiler is switched off (NUMBA_DISABLE_JIT)"
    return None


def _missing_for_cuda() -> str | None:
    try:
        from numba import cuda
    except Exception as error:  # not ImportError alone: numba-cuda 0.30 asks NumPy 2.5 for what it no longer has
        return f"numba.cuda cannot be imported ({_one_line(error)}); pip install 'npconv[cuda12]' or 'npconv[cuda13]'"
    reason: object = None
    try:
        if cuda.is_available():
            return None
        reason = cuda.cuda_error()
    except Exception as error:  # whatever a broken driver raises, the caller gets an explanation
        reason = error
    try:
        found = len(cuda.gpus)
    except Exception as error:
        return f"no CUDA driver answers ({_one_line(reason or error)}); an NVIDIA GPU and its driver are needed"
    if not found:
        return "the CUDA driver sees no GPU"
    return (
        "a GPU is there, but numba.cuda cannot use it, for want of the CUDA toolkit's libraries as a rule; "
        f"pip install 'npconv[cuda12]' or 'npconv[cuda13]' ({_one_line(reason)})"
    )


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())


def require(backend: str) -> None:
    """Raise an error that says what is missing, if the backend cannot run here."""
    reason = missing(backend)
    if reason is None:
        return
    if backend == "cuda":
        raise CudaUnavailableError(f"backend 'cuda' cannot run here: {reason}")
    raise ValueError(f"backend {backend!r} cannot run here: {reason}; backend='numpy' needs nothing else")


@cache
def cpu_backends() -> tuple[str, ...]:
    """Return the CPU backends that ``backend="auto"`` chooses from; warn, once, where Numba is not among them."""
    if missing("numba") is None:
        return ("numba", "numpy")
    warn(f"{missing('numba')}, so npconv runs its NumPy algorithms, which are many times slower")
    return ("numpy",)

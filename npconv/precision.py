"""How exact results must be: ``"default"`` or ``"strict"``."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from npconv import values

PRECISIONS = ("default", "strict")
_default = "default"


class set_default_precision:  # a function that can also be used in a ``with`` statement
    """Set the precision of the calls that name none, for the process; in a ``with`` statement, until its end.

    Parameters
    ----------
    precision : {"default", "strict"}
        ``"strict"`` lets ``algorithm="auto"`` take only algorithms that add the products up directly, within
        (8 + √n) · eps · Σ|input · weight| of the exact result for every element. ``"default"`` lets it take any within
        max(64, 8 + √n) · eps · max Σ|input · weight|, the maximum being over the whole result. Numbers that such an
        algorithm mixes count as if they met: those of a Winograd tile, with all taps, and two channels in Strassen's
        algorithm. That matters where the largest numbers meet zeros only.

    Raises
    ------
    ValueError, TypeError
        If there is no such precision.

    Examples
    --------
    >>> import npconv
    >>> with npconv.set_default_precision("strict"):
    ...     npconv.get_default_precision()
    'strict'
    >>> npconv.get_default_precision()
    'default'
    """

    def __init__(self, precision: str) -> None:
        global _default
        self._before = _default
        _default = values.choice("precision", precision, PRECISIONS)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _default
        _default = self._before


def get_default_precision() -> str:
    """Return the precision of the calls that name none.

    Returns
    -------
    {"default", "strict"}

    Examples
    --------
    >>> import npconv
    >>> npconv.get_default_precision()
    'default'
    """
    return _default


def named(precision: Any) -> str:
    """Return the precision that a call has: its own, or the default."""
    return _default if precision is None else values.choice("precision", precision, PRECISIONS)

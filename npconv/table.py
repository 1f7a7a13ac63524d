"""Plain-text tables, for what npconv prints without its command line's libraries."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 60
"""Characters of the longest rule: those under a column of sentences would take more than a line of the terminal."""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of text in columns under headers."""
    lines = [list(headers), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    lines.insert(1, ["-" * min(width, LONGEST) for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


ROUNDED = 0.9995
"""What three digits round to 1: 999.7 µs would be written as 1e+03."""


def seconds(value: float) -> str:
    """Write a time with three digits and the unit that suits it.

    Examples
    --------
    >>> seconds(231e-6), seconds(999.7e-6)
    ('231 µs', '1 ms')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= ROUNDED * scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def percent(share: float) -> str:
    """Write a share of the peak, which transforms that save products may exceed.

    Examples
    --------
    >>> percent(0.0123), percent(2.567)
    ('1.2 %', '257 %')
    """
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def quantity(value: float, unit: str) -> str:
    """Write a number with three digits and a decimal prefix.

    Examples
    --------
    >>> quantity(231211008, "FLOP")
    '231 MFLOP'
    """
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= ROUNDED * scale:
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"

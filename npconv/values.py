"""Single values that users write, numbers, names and sequences of them, each checked by its argument's name."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np


def boolean(name: str, value: Any) -> bool:
    """Return a boolean."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def integer(name: str, value: Any, minimum: int) -> int:
    """Return ``value`` as an int of at least ``minimum``; a bool or a float is none."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got the bool {value}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    return number


def addressable(name: str, number: int) -> int:
    """Return a number that memory can have so many of."""
    if number > sys.maxsize:
        raise ValueError(f"{name} must be at most {sys.maxsize}, got {number}")
    return number


def sequence(name: str, value: Any) -> tuple[Any, ...]:
    """Return the entries of a shape."""
    if not is_sequence(value):
        raise TypeError(f"{name} must be a tuple of integers; got {value!r}")
    return tuple(value)


def shape(name: str, value: Any) -> tuple[int, ...]:
    """Return a shape given as a sequence of integers."""
    return tuple(integer(name, n, 0) for n in sequence(name, value))


def is_sequence(value: Any) -> bool:
    """Tell a sequence of entries from a single one; a string is a single one, and so is an array without axes."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def axes(name: str, value: Any, rank: int, what: str) -> tuple[Any, ...]:
    """Return the ``rank`` entries of a per-axis argument, one entry serving every axis."""
    if not is_sequence(value):
        return (value,) * rank  # a single entry; whoever reads it says what is wrong with it
    entries = tuple(value)
    if len(entries) == 1:
        return entries * rank
    if len(entries) != rank:
        raise ValueError(f"{name} must be {what}, or {rank} of them, one per spatial axis; got {value!r}")
    return entries


def per_axis(name: str, value: Any, rank: int, minimum: int = 1) -> tuple[int, ...]:
    """Return one integer per spatial axis."""
    entries = axes(name, value, rank, "an integer")
    return tuple(addressable(name, integer(name, entry, minimum)) for entry in entries)


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is one of the allowed names."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, one of {', '.join(allowed)}; got {value!r}")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    return value

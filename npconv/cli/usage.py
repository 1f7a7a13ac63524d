"""What the commands share: one-line errors, the argument types, and the libraries that a plain install lacks."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import NoReturn

from npconv.threads import max_threads

_EXTRA_MODULES = ("rich", "matplotlib", "PIL")


class UsageError(Exception):
    """A command was called wrongly; the message, of one line, says how."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split()))


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message, without the usage that argparse puts before it, and exit with status 2."""
        self.exit(2, f"npconv: {message} ({self.prog} --help tells more)\n")


def require_extras() -> None:
    """Raise an error if a library of ``npconv[cli]`` is missing."""
    missing = [name for name in _EXTRA_MODULES if find_spec(name) is None]
    if missing:
        raise UsageError(f'{", ".join(missing)} not installed, which this command needs: pip install "npconv[cli]"')


def shape(text: str) -> tuple[int, ...]:
    """Read a shape.

    >>> shape("1,64,56,56"), shape("1x64x56x56")
    ((1, 64, 56, 56), (1, 64, 56, 56))
    """
    try:
        return tuple(map(int, text.replace("x", ",").split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be integers with commas between them; got {text!r}") from None


def per_axis(text: str) -> int | tuple[int, ...]:
    """Read an integer for all axes, or one for each.

    >>> per_axis("2"), per_axis("2,1")
    (2, (2, 1))
    """
    values = shape(text)
    return values if len(values) > 1 else values[0]


def padding(text: str) -> str | int | tuple[int | tuple[int, int], ...]:
    """Read a padding: a name, an integer, or an integer or ``before:after`` for each axis.

    >>> padding("same"), padding("1"), padding("1,2"), padding("0:1,2:2")
    ('same', 1, (1, 2), ((0, 1), (2, 2)))
    """
    if text[:1].isalpha():
        return text
    if ":" not in text:
        return per_axis(text)
    entries: list[int | tuple[int, int]] = []
    for entry in text.split(","):
        before, colon, after = entry.partition(":")
        try:
            entries.append((int(before), int(after)) if colon else int(before))
        except ValueError:
            message = f"must be integers or before:after for each axis, or a name such as same; got {text!r}"
            raise argparse.ArgumentTypeError(message) from None
    return tuple(entries)


def positive_integer(text: str) -> int:
    """Read an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1; got {text!r}")
    return int(text)


def thread_count(text: str) -> int:
    """Read how many threads to use."""
    count, most = positive_integer(text), max_threads()
    if count > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}, the CPUs open to this process; got {count}")
    return count


def positive_seconds(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0; got {text!r}")
    return value


def activation(text: str) -> tuple[object, ...]:
    """Read an activation, its parameters behind colons."""
    name, *parameters = text.split(":")
    try:
        if not name.isidentifier():
            raise ValueError
        return (name, *(int(number) if number.lstrip("-").isdecimal() else float(number) for number in parameters))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no activation such as relu, leaky_relu:0.1 or clip:0:6"
        ) from None

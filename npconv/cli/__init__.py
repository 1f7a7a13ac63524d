"""The command line, ``python -m npconv``. Nothing that ``import npconv`` loads imports this.

A command is a module with `SUMMARY`, `add_arguments` and `run`, named in `COMMANDS`. Its `run` returns the exit
status; what a user did wrong, it raises as `UsageError`, which becomes one line and status 2. The libraries of
``npconv[cli]`` are imported by the commands that need them, when they run: help and the other commands do without.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from npconv.cli import compare, explain, info, tune, warmup
from npconv.cli.usage import Parser, UsageError


class Command(Protocol):
    """What a command's module has."""

    SUMMARY: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments to its parser."""

    def run(self, parsed: argparse.Namespace) -> int:
        """Run the command and return the exit status."""


COMMANDS: dict[str, Command] = {"compare": compare, "explain": explain, "info": info, "tune": tune, "warmup": warmup}

INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell has it: 128 and the signal's number."""


def parser() -> Parser:
    """Return the parser of the whole command line."""
    result = Parser(prog="python -m npconv", description="Convolutions for NumPy arrays: compared, explained.")
    commands = result.add_subparsers(dest="command", metavar="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.SUMMARY, description=command.__doc__))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        What stands behind ``python -m npconv``; by default that of this process.

    Returns
    -------
    int
        The exit status: 0 if all is well, 1 if a check failed, 2 if the command was wrong, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal and pipe can show × and µ
    parsed = parser().parse_args(arguments)
    try:
        return COMMANDS[parsed.command].run(parsed)
    except UsageError as error:
        print(f"npconv: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output has seen enough, such as head
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # Python flushes it when it ends
        return 0
    except KeyboardInterrupt:
        print("npconv: interrupted", file=sys.stderr)
        return INTERRUPTED

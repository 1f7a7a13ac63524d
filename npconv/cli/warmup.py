"""Compile the kernels ahead, so that no later call waits for it: npconv.warmup()."""

from __future__ import annotations

import argparse

import npconv
from npconv.cli.usage import UsageError

SUMMARY = "compile the kernels ahead"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("--dtype", nargs="+", default=["float32"], metavar="DTYPE", help="(default: float32)")
    parser.add_argument("--algorithm", nargs="+", metavar="NAME", help="(default: all of the Numba backend)")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    try:
        print(npconv.warmup(parsed.dtype, parsed.algorithm, progress=not parsed.quiet))
    except (ValueError, TypeError) as error:
        raise UsageError(error) from error
    return 0

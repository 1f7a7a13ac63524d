"""Measure the algorithms for a problem here, and keep the winner for "auto": npconv.tune()."""

from __future__ import annotations

import argparse

import npconv
from npconv.cli import explain
from npconv.cli.usage import positive_integer
from npconv.tuning import USES

SUMMARY = "measure the algorithms for a problem, keep the winner"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    explain.add_problem(parser)
    parser.add_argument("--measure", choices=("both", *USES), default="both", help="(default: both)")
    parser.add_argument("--rounds", type=positive_integer, default=5, metavar="N", help="(default: 5)")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    options = vars(parsed).copy()
    options["progress"] = not options.pop("quiet")
    print(explain.call(npconv.tune, options))
    return 0

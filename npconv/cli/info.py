"""Tell versions, CPU features, threads, threading layer, CUDA and caches: npconv.show_config()."""

from __future__ import annotations

import argparse

SUMMARY = "versions, CPU features, threads, CUDA, caches"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser: it has none."""


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    import npconv

    print(npconv.show_config())
    return 0

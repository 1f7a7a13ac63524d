"""Tell which algorithm would run for a problem, and why: npconv.explain()."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import npconv
from npconv import arguments
from npconv.cli.usage import UsageError, activation, padding, per_axis, shape, thread_count
from npconv.precision import PRECISIONS
from npconv.registry import names

SUMMARY = "which algorithm would run for a problem, and why"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_problem(parser)
    parser.add_argument("--algorithm", choices=("auto", *names()), default="auto", help="(default: auto)")


def add_problem(parser: argparse.ArgumentParser) -> None:
    """Add arguments that say what is to be computed, and on what."""
    add = parser.add_argument
    add("function", help="what would be called, such as conv2d")
    add("--input", type=shape, required=True, metavar="SHAPE", help="shape of the input, such as 1,64,56,56")
    add("--weight", type=shape, required=True, metavar="SHAPE", help="shape of the weight, such as 64,64,3,3")
    add("--bias", action="store_true", help="there is a bias")
    add("--stride", type=per_axis, default=1, metavar="N[,N]", help="for all axes, or for each (default: 1)")
    add(
        "--padding", type=padding, default=0, metavar="PADDING",
        help="an integer, for all axes or for each, before:after for each, or a name such as same_upper (default: 0)",
    )  # fmt: skip
    add("--dilation", type=per_axis, default=1, metavar="N[,N]", help="for all axes, or for each (default: 1)")
    add("--groups", type=int, default=1, metavar="N", help="(default: 1)")
    add("--padding-mode", choices=arguments.PADDING_MODES, default="zeros", help="(default: zeros)")
    add("--data-format", choices=arguments.DATA_FORMATS, default="channels_first", help="(default: channels_first)")
    add("--dtype", default="float32", metavar="DTYPE", help="(default: float32)")
    add("--output-padding", type=per_axis, default=0, metavar="N[,N]", help="of a transposed convolution (default: 0)")
    add("--activation", type=activation, metavar="NAME[:N[:N]]", help="such as relu, leaky_relu:0.1 or clip:0:6")
    add("--precision", choices=PRECISIONS, help="(default: default)")
    add("--backend", choices=arguments.BACKENDS, default="auto", help="(default: auto)")
    add("--threads", type=thread_count, metavar="N", help="threads of the Numba backend (default: all CPUs)")


def call(function: Callable[..., object], options: dict[str, Any]) -> object:
    """Call a function with what was parsed; what it finds wrong is the user's error."""
    del options["command"]
    threads = options.pop("threads")
    try:
        with npconv.threads(threads or npconv.get_num_threads()):
            return function(options.pop("function"), options.pop("input"), options.pop("weight"), **options)
    except (ValueError, TypeError, npconv.CudaUnavailableError) as error:
        raise UsageError(error) from error


def run(parsed: argparse.Namespace) -> int:
    """Run the command."""
    print(call(npconv.explain, vars(parsed).copy()))
    return 0

"""Which way complex convolutions run as real ones, what that takes, and what it is not exact enough for.

The ways themselves are `npconv.kernels.parts`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from npconv.kernels.parts import Way, dtype_of_part
from npconv.problem import ConvProblem

COPY = 0.1e-9
"""Seconds to copy a byte."""

ROOM = 2**25
"""Bytes of copies of images, at most."""

LONGEST = 1568
"""Complex products whose parts, twice as many, engines add up within 63 eps (`npconv.kernels.summation`); 64 are
promised by default."""


@lru_cache(maxsize=1024)
def of(problem: ConvProblem) -> ConvProblem:
    """Return the convolution of real numbers that a complex one runs as, or that makes one part of its result.

    It is over canonical arrays.
    """
    form, planes, images = problem.canonical_form(), _in_planes(problem), by_images(problem)
    form = replace(
        form,
        dtype=dtype_of_part(problem).name,
        batch=form.batch * (2 if images else 1),
        turned=False,
        apart=planes and not images,
        last=form.last and not images,
    )
    if not planes:
        return replace(form, in_channels=2 * form.in_channels)
    size, kernel, stride, dilation = (
        (first, *each[1:])
        for first, each in ((2, form.input_size), (2, form.kernel_size), (1, form.stride), (1, form.dilation))
    )
    return replace(form, input_size=size, kernel_size=kernel, stride=stride, dilation=dilation)


def by_images(problem: ConvProblem) -> bool:
    """Whether parts of the input are images, and not those of the weight filters."""
    return _of_images(problem) < min(problem.weight_bytes, ROOM)


def copied(problem: ConvProblem, is_packed: bool) -> int:
    """Return how many bytes copies take: of the images, or of the weight for one part, if that is not packed already.

    And of the input, if it is not met where it is.
    """
    if by_images(problem):
        return _of_images(problem)
    return _of_input(problem) + (0 if is_packed else problem.weight_bytes)


def seconds(problem: ConvProblem, each: float, is_packed: bool) -> float:
    """Return how long it should take, if each convolution does so long."""
    return (1 if by_images(problem) else 2) * (each + COPY * copied(problem, is_packed))


def refuse(problem: ConvProblem, direct: bool, strict: bool) -> str | None:
    """Refuse sums, ``direct`` ones or others, that are not exact enough, and inputs whose copy is too large.

    Each part of a result is a sum of twice as many real products as the complex ones that accuracy is promised by.
    """
    if strict:
        return "sums of real and imaginary parts are too long for precision 'strict'"
    if direct and problem.products > LONGEST:
        return f"sums of real and imaginary parts are exact enough for {LONGEST} products, not for {problem.products}"
    if not by_images(problem) and _of_input(problem) > ROOM:
        return f"it would put real and imaginary parts of the input apart, which are over {ROOM // 2**20} MiB"
    return None


def _of_images(problem: ConvProblem) -> int:
    return 2 * problem.input_bytes + problem.output_bytes


def _of_input(problem: ConvProblem) -> int:
    return 0 if _in_planes(problem) or problem.channels_last else problem.input_bytes


def _in_planes(problem: ConvProblem) -> bool:
    """Whether parts are planes, and not channels.

    For the gradient of a weight channels: kernels of one plane are cut into pieces, 64 channels at 56² in 3.7 ms, not
    in 5.6. And for kernels of one element, which meet pixels alone: 64 to 256 channels at 56² 2.57 instead of 2.73.
    """
    form = problem.canonical_form()
    flat = form.input_size[0] == form.kernel_size[0] == 1 and form.padding[0] == (0, 0) and form.up[:1] in ((), (1,))
    alone = problem.taps == 1 and problem.input_bytes <= ROOM
    return flat and not alone and not problem.of_weight and (not form.last or by_images(problem))


def way(problem: ConvProblem) -> Way:
    """Return the way that copies less."""
    return Way(by_images(problem), _in_planes(problem), copied(problem, is_packed=True))

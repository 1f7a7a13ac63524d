"""What the caller of a convolution leaves to be chosen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """What the caller leaves to be chosen and what not."""

    algorithm: str
    backend: str
    precision: str
    threads: int
    packed: bool = False
    """Whether the weights are packed already, as a layer's."""

    tuned: bool = True
    """Whether what `npconv.tune` measured counts."""

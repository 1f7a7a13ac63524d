"""What is asked of every algorithm's cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from npconv.problem import ConvProblem


@dataclass(frozen=True)
class Cost(ABC):
    """How long an algorithm should take, and what memory it works in; ``packed`` if its weights are so already."""

    call: float
    """Seconds of any call."""

    @abstractmethod
    def seconds(self, problem: ConvProblem, threads: int, packed: bool) -> float:
        """Return the time that a problem should take."""

    @abstractmethod
    def workspace(self, problem: ConvProblem, threads: int, packed: bool) -> int:
        """Return the bytes of memory that it needs besides input, weight and result.

        Packed weights count if they are packed for the call.
        """

    def packed_bytes(self, problem: ConvProblem) -> int:
        """Return the bytes of the weights when they are packed; 0 if they are taken as they are."""
        return 0

    def within_tasks(self, problem: ConvProblem, threads: int, packed: bool) -> bool:
        """Whether it is tasks that make of filters, plain or ``packed``, what they meet."""
        return False

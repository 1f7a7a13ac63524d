"""What the textbook algorithms cost, of NumPy, Numba and CUDA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from npconv.costs.cost import Cost
from npconv.costs.machine import machine
from npconv.problem import ConvProblem


def no_matrix(problem: ConvProblem) -> int:
    """Return the bytes of the matrix of an algorithm that makes none."""
    return 0


@dataclass(frozen=True)
class Textbook(Cost):
    """Rough speed of a textbook algorithm: seconds a window of one channel, products a second and thread."""

    window: float
    float32: float
    float64: float
    integer: float
    complex: float
    threaded: bool = True
    region: float = 0
    """Seconds for an element of a region matrix, or of a matrix of results."""

    weight: float = 0
    """Seconds to put a number of the weight in order."""

    vectors: bool = False
    """Whether floats are multiplied in Numba's vectors, whatever their width."""

    matrix: Callable[[ConvProblem], int] = field(default=no_matrix, repr=False)
    """The bytes of the matrices that it makes."""

    TURNED = 1.5e-9
    """Seconds to put a number of a weight in order whose filters are not."""

    SCALING = 0.6
    """16 threads are 3 to 8 times as fast as one, 2 are 1.5 to 1.8 times: the textbook's tasks are few, and uneven."""

    def seconds(self, problem: ConvProblem, threads: int, packed: bool) -> float:
        """Return the time that a problem should take."""
        dtype = problem.compute_dtype
        speed = {"i": self.integer, "u": self.integer, "c": self.complex}.get(dtype.kind)
        if speed is None:
            speed = self.float32 if dtype.itemsize == 4 else self.float64
            if self.vectors:
                speed *= machine().direct
        results = problem.batch * problem.out_channels * problem.positions
        windows = results * (problem.in_channels // problem.groups)
        # The results of all images come in one matrix, too, and are put in their places.
        regions = problem.batch * problem.in_channels * problem.positions * problem.taps + results
        work = windows * self.window + results * problem.products / speed + regions * self.region
        work += problem.out_channels * problem.products * max(self.weight, self.TURNED if problem.turned else 0)
        return float(self.call + work / (threads**self.SCALING if self.threaded else 1))

    def workspace(self, problem: ConvProblem, threads: int, packed: bool) -> int:
        """Return the bytes of copies and matrices."""
        return prepared_bytes(problem) + self.matrix(problem)


@lru_cache(maxsize=64)  # it is the same for each of them
def prepared_bytes(problem: ConvProblem) -> int:
    """Return the bytes of the padded or cast copies that the textbook algorithms start from."""
    dtype = problem.compute_dtype
    padded = any(before or after for before, after in problem.padding)
    cast = dtype.name != problem.dtype
    copied = problem.padded_elements if padded or cast or problem.data_format == "channels_last" else 0
    if cast:
        copied += problem.out_channels * problem.products
    if cast or problem.data_format == "channels_last":
        copied += problem.batch * problem.out_channels * problem.positions
    return copied * dtype.itemsize


def plane_matrix(problem: ConvProblem) -> int:
    """Return the bytes of the region matrix of one plane, and of its products."""
    filters = problem.out_channels // problem.groups
    return problem.positions * (problem.taps + 2 * filters) * problem.compute_dtype.itemsize


def region_matrix(problem: ConvProblem) -> int:
    """Return the bytes of the region matrix of all images and channels."""
    elements = problem.batch * problem.in_channels * problem.taps * problem.positions
    return elements * problem.compute_dtype.itemsize

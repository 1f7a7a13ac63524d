"""What is computed: a convolution of tests/corpus.py's notation, or a transposed one, with random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from corpus import Case, parse

import npconv


@dataclass(frozen=True)
class Work:
    """A convolution with its data. Transposed, the channels are still the input's, and the filters the result's."""

    name: str
    text: str
    transposed: bool = False
    dtype: str = "float32"

    @cached_property
    def case(self) -> Case:
        return parse(self.text)

    @property
    def rank(self) -> int:
        return self.case.rank

    @property
    def pads(self) -> tuple[int, ...]:
        """Padding per axis, the same on both sides, as most of the peers know it only."""
        assert all(before == after for before, after in self.case.padding)
        return tuple(before for before, _ in self.case.padding)

    @cached_property
    def options(self) -> dict[str, Any]:
        """Keyword arguments that npconv's functions and torch's have in common."""
        case = self.case
        return {"stride": case.stride, "padding": self.pads, "dilation": case.dilation, "groups": case.groups}

    @cached_property
    def input(self) -> np.ndarray:
        return self._random(0, self.case.input_shape)

    @cached_property
    def weight(self) -> np.ndarray:
        """Numbers of a size that gives results of about the input's."""
        weight = self._random(1, self.weight_shape)
        return weight / np.sqrt(weight[0].size, dtype=real(self.dtype))

    @cached_property
    def slope(self) -> np.ndarray:
        """A gradient with respect to the result."""
        return self._random(2, self.result_shape)

    @property
    def function(self) -> str:
        """The name of the function that does it, which npconv and torch share."""
        return f"conv{'_transpose' * self.transposed}{self.rank}d"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        case = self.case
        if self.transposed:
            return (case.channels, case.filters // case.groups, *case.kernel)
        return case.weight_shape

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self._explained.output_shape

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct sum; a gradient has as many."""
        return self._explained.flops

    @cached_property
    def _explained(self) -> npconv.Explanation:
        return npconv.explain(
            self.function, self.case.input_shape, self.weight_shape, dtype=self.dtype, **self.options
        )  # fmt: skip

    def _random(self, seed: int, shape: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng(seed)
        numbers = rng.standard_normal(shape, np.float32)
        if np.dtype(self.dtype).kind == "c":
            numbers = numbers + 1j * rng.standard_normal(shape, np.float32)
        return numbers.astype(self.dtype)


def real(dtype: str) -> str:
    """The dtype of a number's real part, which the peaks are measured in."""
    return np.empty(0, dtype).real.dtype.name

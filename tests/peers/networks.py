"""The convolutions of known networks, one after the other: what a layer by itself does not show.

A layer that is timed by itself finds its weights in the caches from one call to the next, and its result has been in
them, too. In a network all other layers' numbers have been there since. Peers that are given a whole network keep
blocks of channels from one layer to the next, and need not put them in order in between; npconv's results are plain
arrays. What else networks have, such as activations and sums of branches, is left out, and pooling is a stride.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from peers.work import Work


class Step(NamedTuple):
    """A convolution with a square kernel, to so many channels."""

    filters: int
    kernel: int
    stride: int = 1
    groups: int = 1


@dataclass(frozen=True)
class Chain:
    """Works, each of which takes what the one before it has made."""

    name: str
    works: tuple[Work, ...]

    @property
    def dtype(self) -> str:
        return self.works[0].dtype

    @property
    def text(self) -> str:
        return f"{len(self.works)} layers"

    @property
    def input(self) -> np.ndarray:
        return self.works[0].input

    @property
    def result_shape(self) -> tuple[int, ...]:
        return self.works[-1].result_shape

    @cached_property
    def flops(self) -> int:
        return sum(work.flops for work in self.works)


def alone(work: Work) -> Chain:
    """Return a chain of one."""
    return Chain(work.name, (work,))


def _resnet18() -> Iterator[Step]:
    yield from (Step(64, 7, 2), Step(64, 3, 2))
    for filters, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        yield from (Step(filters, 3, stride), Step(filters, 3), Step(filters, 3), Step(filters, 3))


def _bottlenecks(inner: Iterable[tuple[int, int, int]], groups: int, wider: int) -> Iterator[Step]:
    yield from (Step(64, 7, 2), Step(64, 3, 2))
    for filters, number, stride in inner:
        for block in range(number):
            yield from (Step(filters, 1), Step(filters, 3, stride if block == 0 else 1, groups))
            yield Step(wider * filters, 1)


def _mobilenet() -> Iterator[Step]:
    yield from (Step(32, 3, 2), Step(32, 3, 1, 32), Step(16, 1))
    channels = 16
    for filters, number, stride in ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)):
        for block in range(number):
            wide = 6 * channels
            yield from (Step(wide, 1), Step(wide, 3, stride if block == 0 else 1, wide), Step(filters, 1))
            channels = filters
    yield Step(1280, 1)


def _convnext() -> Iterator[Step]:
    for stage, (channels, number) in enumerate(((96, 3), (192, 3), (384, 9), (768, 3))):
        yield Step(channels, 4, 4) if stage == 0 else Step(channels, 2, 2)
        for _ in range(number):
            yield from (Step(channels, 7, 1, channels), Step(4 * channels, 1), Step(channels, 1))


def _vgg16() -> Iterator[Step]:
    for filters, number in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for block in range(number):
            yield Step(filters, 3, 2 if block == number - 1 else 1)


NETWORKS = {
    "ResNet-18": _resnet18,
    "ResNet-50": lambda: _bottlenecks(((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)), 1, 4),
    "ResNeXt-50": lambda: _bottlenecks(((128, 3, 1), (256, 4, 2), (512, 6, 2), (1024, 3, 2)), 32, 2),
    "VGG-16": _vgg16,
    "MobileNetV2": _mobilenet,
    "ConvNeXt-T": _convnext,
}


def chain(name: str, size: int = 224) -> Chain:
    """Return the layers of a network, for a picture of ``size`` × ``size`` pixels of three colours."""
    works, channels = [], 3
    for number, (filters, kernel, stride, groups) in enumerate(NETWORKS[name]()):
        padding = 0 if kernel == stride else kernel // 2
        text = f"g{groups}ic{channels}oc{filters}ih{size}kh{kernel}sh{stride}ph{padding}"
        works.append(Work(f"{name}, layer {number + 1}", text))
        channels, size = filters, (size + 2 * padding - kernel) // stride + 1
    return Chain(name, tuple(works))

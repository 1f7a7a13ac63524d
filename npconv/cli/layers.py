"""Layers of well-known networks, for ``compare --layers``: the only place where the sets are listed."""

from __future__ import annotations

from typing import NamedTuple


class Layer(NamedTuple):
    """A convolution of a batch of one square image, padded so that stride 1 keeps the size."""

    name: str
    in_channels: int
    out_channels: int
    size: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        """Zeros put around the image."""
        return self.kernel // 2


SETS = {
    "resnet50": (
        Layer("conv1, 7×7 stride 2, 3→64 at 224×224", 3, 64, 224, 7, stride=2),
        Layer("conv2, 3×3, 64→64 at 56×56", 64, 64, 56, 3),
        Layer("conv2, 1×1, 64→256 at 56×56", 64, 256, 56, 1),
        Layer("conv3, 3×3 stride 2, 128→128 at 56×56", 128, 128, 56, 3, stride=2),
        Layer("conv4, 3×3, 256→256 at 14×14", 256, 256, 14, 3),
        Layer("conv5, 3×3, 512→512 at 7×7", 512, 512, 7, 3),
    ),
    "vgg16": (
        Layer("conv1_1, 3×3, 3→64 at 224×224", 3, 64, 224, 3),
        Layer("conv2_1, 3×3, 64→128 at 112×112", 64, 128, 112, 3),
        Layer("conv3_1, 3×3, 128→256 at 56×56", 128, 256, 56, 3),
        Layer("conv4_1, 3×3, 256→512 at 28×28", 256, 512, 28, 3),
        Layer("conv5_1, 3×3, 512→512 at 14×14", 512, 512, 14, 3),
    ),
    "mobilenet": (
        Layer("conv1, 3×3 stride 2, 3→32 at 224×224", 3, 32, 224, 3, stride=2),
        Layer("depthwise 3×3, 32 at 112×112", 32, 32, 112, 3, groups=32),
        Layer("pointwise 1×1, 32→64 at 112×112", 32, 64, 112, 1),
        Layer("depthwise 3×3 stride 2, 64 at 112×112", 64, 64, 112, 3, stride=2, groups=64),
        Layer("depthwise 3×3, 512 at 14×14", 512, 512, 14, 3, groups=512),
        Layer("pointwise 1×1, 512→512 at 14×14", 512, 512, 14, 1),
    ),
}

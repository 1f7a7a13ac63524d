"""Layers of the classes of tests/corpus.py's list, of drawn sizes: what nobody has looked at, and so tuned for.

A class is a kernel, a stride, a dilation and groups; channels, filters and an image, often a rectangle, are drawn for
it, so that a layer asks for about as many operations as those of the list do. A seed gives the same layers each time.
"""

from __future__ import annotations

import random

CLASSES = ("3×3", "3×3 s2", "1×1", "1×1 s2", "first", "depthwise", "groups", "dilated", "5×5", "1×1, tall", "batch")
LEAST, MOST = 4e6, 2e9
"""Operations of a layer."""


def drawn(count: int, seed: int) -> dict[str, str]:
    """Return so many layers, in the corpus' notation, by a name; the classes take turns."""
    source = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        name = CLASSES[len(found) % len(CLASSES)]
        text, operations = _layer(name, source)
        if LEAST <= operations <= MOST and text not in found.values():
            found[f"{name}: {text}"] = text
    return found


def _layer(name: str, source: random.Random) -> tuple[str, float]:
    """Draw a layer of a class; return it, and about as many operations as it asks for."""

    def among(least: int, most: int, multiple: int = 1) -> int:
        size = least * (most / least) ** source.random()
        return max(round(size / multiple), 1) * multiple

    multiple = source.choice((1, 8, 8, 16, 32))
    channels, filters = among(8, 768, multiple), among(8, 768, multiple)
    height, batch, groups, kernel, stride, dilation = among(5, 160), 1, 1, 3, 1, 1
    width = height if source.random() < 0.6 else among(max(height // 3, 4), height * 3)
    if name.startswith("1×1"):
        kernel = 1
    if name.endswith("s2"):
        stride = 2
    if name == "1×1, tall":  # few pixels, many weights
        height = width = among(2, 16)
        channels, filters = among(128, 2048, 8), among(128, 2048, 8)
    elif name == "first":
        channels, filters, height = source.choice((1, 3, 3, 4)), among(8, 128, 8), among(64, 256)
        width = height
        kernel, stride = source.choice(((3, 1), (3, 2), (4, 4), (5, 2), (7, 2), (11, 4)))
    elif name == "depthwise":
        groups = filters = channels
        kernel, stride = source.choice((3, 3, 5, 7)), source.choice((1, 1, 2))
    elif name == "groups":
        each = source.choice((2, 4, 8, 16, 32))
        groups = max(channels // each, 2)
        channels = filters = groups * each
        stride = source.choice((1, 1, 2))
    elif name == "dilated":
        dilation = source.choice((2, 2, 4, 6))
    elif name == "5×5":
        kernel = 5
    elif name == "batch":
        batch, kernel = among(2, 16), source.choice((1, 3))
        height = width = min(height, 56)
    padding = dilation * (kernel // 2) if stride < kernel else 0
    text = f"mb{batch}" * (batch > 1) + f"g{groups}" * (groups > 1) + f"ic{channels}oc{filters}ih{height}"
    text += f"iw{width}" * (width != height) + f"kh{kernel}" * (kernel > 1) + f"sh{stride}" * (stride > 1)
    text += f"dh{dilation}" * (dilation > 1) + f"ph{padding}" * (padding > 0)
    pixels = batch * height * width / stride**2
    return text, 2 * pixels * filters * channels // groups * kernel**2

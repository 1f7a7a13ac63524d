"""What ``compare`` runs: a photograph through classic filters, or the layers of a network with random numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import npconv
from npconv.cli.layers import SETS
from npconv.cli.usage import UsageError
from npconv.inspection import Explanation

_SOBEL = np.outer([1, 4, 6, 4, 1], [-1, -2, 0, 2, 1])
_GAUSS = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])
_LAPLACE = np.array([[0, 0, 1, 0, 0], [0, 1, 2, 1, 0], [1, 2, -16, 2, 1], [0, 1, 2, 1, 0], [0, 0, 1, 0, 0]])
_EMBOSS = np.array([[-2, -1, -1, -1, 0], [-1, -2, -1, 0, 1], [-1, -1, 1, 1, 1], [-1, 0, 1, 2, 1], [0, 1, 1, 1, 2]])
_IMPULSE = np.pad([[1.0]], 2)

FILTERS = {
    "Gaussian blur": _GAUSS / 256,
    "sharpen": 4 * _IMPULSE - 3 * _GAUSS / 256,
    "emboss": _EMBOSS / 3,
    "vertical edges (Sobel)": _SOBEL / 48,
    "Laplacian of Gaussian": _LAPLACE / 16,
}
"""Filters of 5 × 5 by their names; each is laid over the three colours alike, so it sees the grey image."""


@dataclass(frozen=True)
class Task:
    """A convolution with its data. ``options`` are keyword arguments of ``function``."""

    name: str
    function: str
    input: np.ndarray
    weight: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)

    def explain(self, backend: str, algorithm: str = "auto") -> Explanation:
        """Return npconv's explanation of the task."""
        shapes = self.input.shape, self.weight.shape
        return npconv.explain(
            self.function, *shapes, dtype=self.input.dtype, backend=backend, algorithm=algorithm, **self.options
        )


def photograph(path: str | None, dtype: str, scale: float = 1.0) -> Task:
    """Return a photograph, 1 × 3 × height × width with values from 0 to 1, and `FILTERS` as one weight.

    Parameters
    ----------
    path : str or None
        An image file; None is the portrait of Grace Hopper that matplotlib ships.
    dtype : str
        Dtype of both arrays.
    scale : float, default 1.0
        What to multiply the photograph's height and width by.

    Raises
    ------
    UsageError
        If the file cannot be read.
    """
    from PIL import Image, ImageOps

    name = "grace_hopper.jpg" if path is None else Path(path).name
    try:
        with Image.open(_sample() if path is None else path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # whatever Pillow's readers raise
        where, why = str(path or name), getattr(error, "strerror", None) or error
        raise UsageError(f"the image {where!r} cannot be read: {why}") from error
    if scale != 1:
        width, height = (max(len(_IMPULSE), round(size * scale)) for size in image.size)
        image = image.resize((width, height))
    pixels = np.asarray(image, dtype) / np.asarray(255, dtype)
    filters = np.stack(list(FILTERS.values()))[:, None].repeat(3, axis=1) / 3
    title = f"{name}, {image.width} × {image.height} pixels, through {len(FILTERS)} filters of 5 × 5"
    return Task(title, "conv2d", np.ascontiguousarray(pixels.transpose(2, 0, 1))[None], filters.astype(dtype))


def _sample() -> str:
    from matplotlib import cbook

    return str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))


def layers(name: str, dtype: str) -> list[Task]:
    """Return the layers of a set, with the same random numbers each time."""
    tasks = []
    for layer in SETS[name]:
        rng = np.random.default_rng(0)
        weight_shape = (layer.out_channels, layer.in_channels // layer.groups, layer.kernel, layer.kernel)
        x = rng.standard_normal((1, layer.in_channels, layer.size, layer.size), np.float32).astype(dtype)
        w = rng.standard_normal(weight_shape, np.float32).astype(dtype)
        options = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
        tasks.append(Task(f"{name} {layer.name}", "conv2d", x, w, options))
    return tasks

"""torch as a contestant, and as the one whose results the others' are compared with.

Its two memory formats are two contestants.
"""

from __future__ import annotations

import numpy as np

from peers.networks import Chain
from peers.race import Contestant, LeftOut
from peers.work import Work

try:
    import torch
except ImportError:  # whoever tests only the parts that measure nothing
    torch = None


def reference(work: Work, of: str = "result") -> np.ndarray:
    """What is right: the result, or the gradient with respect to ``"input"`` or ``"weight"``."""
    contestant = function(work, 0) if of == "result" else gradient(work, 0, of)
    return contestant.read(contestant.call())


def function(work: Work, threads: int, last: bool = False) -> Contestant:
    """Its function. Its layers do the same: they keep no packed weight."""
    compute = getattr(torch.nn.functional, work.function)
    x, weight = _tensor(work.input, last), _tensor(work.weight, last)
    given = dict(work.options)
    return Contestant(threads, lambda: compute(x, weight, **given), _read)


def network(chain: Chain, threads: int, last: bool = False) -> Contestant:
    """Its functions, one after the other."""
    x, convolve = _tensor(chain.input, last), torch.nn.functional.conv2d
    given = [(_tensor(work.weight, last), work.options) for work in chain.works]

    def call() -> torch.Tensor:
        y = x
        for weight, options in given:
            y = convolve(y, weight, **options)
        return y

    return Contestant(threads, call, _read)


def gradient(work: Work, threads: int, of: str, last: bool = False) -> Contestant:
    """The part of its backward pass that makes one of the gradients."""
    backward = torch.ops.aten.convolution_backward
    slope, x, weight = (_tensor(array, last) for array in (work.slope, work.input, work.weight))
    case, mask, number = work.case, [of == "input", of == "weight", False], ("input", "weight").index(of)
    further = (case.stride, work.pads, case.dilation, work.transposed, (0,) * work.rank, case.groups, mask)
    return Contestant(threads, lambda: backward(slope, x, weight, None, *further)[number], _read)


def _tensor(array: np.ndarray, last: bool) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    if not last:
        return tensor
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if array.ndim not in formats:
        raise LeftOut("torch has no channels-last format for signals")
    return tensor.contiguous(memory_format=formats[array.ndim])


def _read(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy()

"""The problems that tests and benchmarks share, each written as a short string.

The notation follows oneDNN's benchdnn: ``mb2g2ic4oc6ih7iw8kh3kw2sh2dw2ph1`` is a batch of two images of 4 channels,
7 × 8 pixels, in 2 groups, with 6 filters of 3 × 2, stride (2, 1), dilation (1, 2), padding (1, 0).

========  ==================================================================================================
``mb``    batch size, 1 if not given; ``g`` groups, 1 if not given; ``ic`` and ``oc`` input and output channels
``i``     size of the input along an axis, ``d`` depth, ``h`` height, ``w`` width: ``id``, ``ih``, ``iw``; which of
          them is named first says how many spatial axes there are
``k``     kernel size, ``s`` stride, ``d`` dilation, ``p`` padding, likewise: ``kh3``, ``sh2``, ``dh2``, ``ph1`` or
          ``ph1:2`` for 1 before and 2 after
flags     behind plus signs: a padding by name (``same``, ``same_upper``, ``same_lower``, ``valid``), a padding mode
          (``reflect``, ``replicate``, ``circular``), ``last`` for channels last, ``unbatched``, ``image`` for (H, W)
          and (kh, kw), ``bias``
========  ==================================================================================================

An axis that is not named has what the axis before it has, so ``ih7kh3`` is 7 × 7 with a 3 × 3 kernel. Underscores
may stand anywhere for readability. Dilation counts as in torch (1 is none), not as in benchdnn (where 0 is).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any

AXES = "dhw"
PADDING_NAMES = ("valid", "same", "same_upper", "same_lower")
PADDING_MODES = ("reflect", "replicate", "circular")
KINDS = ("unbatched", "image")


@dataclass(frozen=True)
class Case:
    """One convolution, without its data. `padding` is a name or ((before, after), ...)."""

    batch: int
    groups: int
    channels: int
    filters: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    mode: str = "zeros"
    channels_last: bool = False
    kind: str = "batched"
    bias: bool = False

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def products(self) -> int:
        """Products in one element of the result."""
        return self.channels // self.groups * math.prod(self.kernel)

    @property
    def input_shape(self) -> tuple[int, ...]:
        if self.kind == "image":
            return self.size
        inner = (*self.size, self.channels) if self.channels_last else (self.channels, *self.size)
        return inner if self.kind == "unbatched" else (self.batch, *inner)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return self.kernel if self.kind == "image" else (self.filters, self.channels // self.groups, *self.kernel)

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for npconv's function."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.mode,
            "data_format": "channels_last" if self.channels_last else "channels_first",
        }

    def __str__(self) -> str:
        return format_case(self)


def parse(text: str) -> Case:
    """Read a problem string.

    >>> parse("ic4oc6_ih7iw8_kh3kw2_ph1:0+bias").weight_shape
    (6, 4, 3, 2)
    """
    body, *flags = text.split("+")
    body = body.replace("_", "")
    if not re.fullmatch(r"([a-z]+\d+(:\d+)?)*", body):
        raise ValueError(f"not a problem: {text!r}")
    numbers = dict(re.findall(r"([a-z]+)(\d+(?::\d+)?)", body))
    axes = next((AXES[at:] for at, axis in enumerate(AXES) if "i" + axis in numbers), None)
    if axes is None:
        raise ValueError(f"no size of the input in {text!r}")

    def per_axis(letter: str, default: str) -> list[str]:
        values, value = [], default
        for axis in axes:
            value = numbers.pop(letter + axis, value)
            values.append(value)
        return values

    size, kernel, stride, dilation = (tuple(map(int, per_axis(a, b))) for a, b in zip("iksd", "1111", strict=True))
    pairs = [tuple(map(int, value.split(":"))) for value in per_axis("p", "0")]
    batch, groups, channels, filters = (int(numbers.pop(name, "1")) for name in ("mb", "g", "ic", "oc"))
    if numbers:
        raise ValueError(f"unknown parts {sorted(numbers)} in {text!r}")

    def flag(allowed: tuple[str, ...]) -> str | None:
        return next((flags.pop(flags.index(name)) for name in allowed if name in flags), None)

    case = Case(
        batch, groups, channels, filters, size, kernel, stride, dilation,
        padding=flag(PADDING_NAMES) or tuple((pair[0], pair[-1]) for pair in pairs),
        mode=flag(PADDING_MODES) or "zeros",
        channels_last=flag(("last",)) is not None,
        kind=flag(KINDS) or "batched",
        bias=flag(("bias",)) is not None,
    )  # fmt: skip
    if flags:
        raise ValueError(f"unknown flags {flags} in {text!r}")
    return case


def format_case(case: Case) -> str:
    """Write a problem as its shortest string.

    >>> format_case(parse("mb1_ic4oc6_ih7iw7_kh3kw3_sh1_ph1:1pw0+last"))
    'ic4oc6ih7kh3ph1pw0+last'
    """
    text = "".join(
        f"{name}{value}"
        for name, value in (("mb", case.batch), ("g", case.groups), ("ic", case.channels), ("oc", case.filters))
        if value != 1
    )
    padding: Any = ((0, 0),) * case.rank if isinstance(case.padding, str) else case.padding
    pairs = tuple(str(before) if before == after else f"{before}:{after}" for before, after in padding)
    sizes = ("i", case.size, None), ("k", case.kernel, 1), ("s", case.stride, 1), ("d", case.dilation, 1)
    for letter, values, default in (*sizes, ("p", pairs, "0")):
        known = default
        for axis, value in zip(AXES[-case.rank :], values, strict=True):
            if value != known:
                text += f"{letter}{axis}{value}"
            known = value
    flags = [
        case.padding if isinstance(case.padding, str) else "",
        case.mode if case.mode != "zeros" else "",
        "last" if case.channels_last else "",
        case.kind if case.kind != "batched" else "",
        "bias" if case.bias else "",
    ]
    return text + "".join(f"+{flag}" for flag in flags if flag)


def replace(case: Case, **changes: Any) -> Case:
    """Return a case with some fields changed."""
    return Case(**{field.name: getattr(case, field.name) for field in fields(case)} | changes)


# What the textbook shows, and what it gets wrong: padding, strides that do not divide, images that are not square.
TEXTBOOK = (
    "mb4ic3oc2ih5kh3",
    "mb4ic3oc2ih5kh3+bias",
    "mb4ic3oc2ih5kh3ph1",
    "ih5kh3+image",
    "ih5iw7kh2kw3sh2sw3ph1pw2+image",
    "ic3oc4ih7kh3sh2+bias",
    "ic3oc4ih8kh3sh2",
    "ic2oc2ih9iw6kh3sh4sw2ph1",
    "mb2ic2oc3ih6iw11kh2kw5+bias",
)

SIZES = (
    "ih1",  # everything is one
    "ic5oc7ih1+bias",
    "mb3ic5oc4ih7iw6",  # 1 × 1
    "mb2ic6oc5ih9iw5sh2sw3",  # 1 × 1, strided
    "mb2ic3oc4ih5iw6ph1pw2+bias",  # 1 × 1, padded: a border of bias
    "ic3oc2ih4iw5kh4kw5",  # kernel as large as the input
    "ic3oc2ih4iw5kh6kw7ph1+bias",  # as large as the padded input, larger than the input
    "mb2ic2oc3ih13iw3kw3",
    "mb2ic2oc3ih3iw13kh3kw1ph1pw0",
    "ic2oc3ih11iw12kh5kw4",
    "ic2oc2ih17iw3kh7kw2sh5+bias",
    "oc17ih6kh3ph1",
    "ic17ih6kh3ph1+bias",
    "ic2oc3ih7kh2sh7",  # one position
    "ic2oc3ih6kh3sh9",  # a stride beyond the input
    "mb2ic2oc3ih8iw9kh2sh3",  # positions that skip elements
    "ic3oc2ih6iw7kh3sw2ph2pw0+bias",
)

PADDINGS = (
    "ic2oc3ih5iw6kh3ph1:0pw0:2",
    "ic2oc3ih5iw6kh3sh2ph3:2pw2:4+bias",
    "ic2oc3ih5iw6kh2ph5+bias",  # windows that see nothing but padding
    "ic2oc3ih6iw7kh3+valid",
    "ic2oc3ih6iw7kh3kw5+same",
    "ic2oc3ih6iw7kh4kw2+same+bias",
    "ic2oc3ih6iw7kh3kw2dh2dw3+same",
    "ic2oc3ih7iw8kh4kw3sh2sw3+same_upper",
    "ic2oc3ih7iw8kh4kw3sh2sw3+same_lower+bias",
    "ic2oc3ih6iw9kh2kw1sh3sw4+same_upper",  # a stride beyond the kernel: no padding is needed
    "ic2oc3ih6iw7kh4kw2+same_lower",
    "ic2oc3ih5iw6kh3ph1+reflect",
    "ic2oc3ih5iw6kh3ph4pw5+reflect+bias",  # the most that can be reflected
    "ic2oc3ih5iw6kh3sh2ph2:1pw0:3+reflect",
    "ic2oc3ih4iw3kh3ph1+replicate",
    "ic2oc3ih1iw2kh3ph4:2pw3+replicate+bias",  # more padding than image
    "ic2oc3ih5iw6kh3ph1+circular",
    "ic2oc3ih3iw4kh3ph3pw4+circular+bias",  # once around
    "ic2oc3ih5iw4kh3ph0:4pw2:1+circular",
    "ic2oc3ih7iw6kh4kw3sh2+same_lower+reflect",
    "ic2oc3ih7iw6kh4kw3+same+circular",
    "ic2oc3ih1iw4kw3pw2+reflect",  # nothing to reflect on an axis without padding
)

GROUPS = (
    "mb2g2ic4oc6ih5iw6kh3ph1+bias",
    "mb2g3ic6oc3ih5iw4kh2kw3sh2",
    "mb2g4ic4oc4ih6iw5kh3ph1",  # depthwise
    "g3ic3oc9ih5kh3ph1+bias",  # depthwise with a multiplier
    "g2ic6oc4ih7kh3dh2ph2+replicate",
    "g4ic8oc4ih3iw4",
)

DILATIONS = (
    "ic2oc3ih9iw10kh3dh2",
    "ic2oc3ih9iw10kh3kw2dh3dw4ph2+bias",
    "ic2oc3ih11iw9kh3sh3sw2dh2ph1",
    "ic2oc3ih7kh3dh3",  # the span is the input
    "ic2oc2ih5iw6dh4",  # a dilation that means nothing
    "ic2oc2ih6iw5kh2dh2ph1:2+circular",
)

RANKS = (
    "iw1",
    "mb2ic3oc4iw11kw3+bias",
    "mb2ic3oc4iw12kw4sw3pw2",
    "g2ic4oc2iw9kw2dw3pw1:3+reflect",
    "mb2ic2oc3iw10kw3sw2+same_lower",
    "ic2oc3iw7kw4+same+bias",
    "ic3oc2iw5kw9pw2+circular",
    "mb2ic2oc3id3ih4iw5kd2+bias",
    "ic2oc3id5ih4iw6kd3kh2kw1sd2sh1sw3pd1ph0pw2",
    "g2ic4oc2id3ih5iw4kd2dd2dh1dw2pd1+bias",
    "ic2oc2id4ih3iw5kd3kh1kw2sd2+same_upper",
    "ic2oc2id3ih4iw3kd2pd1:2ph0:1pw2:0+reflect",
    "oc2id2ih3iw2kd3pd1+circular",
    "ic2id2ih1iw3kd2kh3kw1ph1pw0+replicate",
)

LAYOUTS = (
    "mb2ic3oc4ih6iw5kh3ph1+last+bias",
    "mb2g2ic4oc6ih7iw5kh3kw2sh2+last",
    "ic3oc4ih6iw5kh3+last+unbatched",
    "ic3oc4ih6iw5kh3sh2ph1+unbatched+bias",
    "ih6iw5kh3ph2pw1+image+bias",
    "ih6iw5kh3dh2+same+reflect+image",
    "mb2ic3oc2iw9kw3+last+bias",
    "ic3oc2iw9kw3sw2pw1+unbatched",
    "mb2ic3oc2id3ih4iw3kd2+last",
    "ic2oc3id3ih4iw3kd2pd1+circular+last+unbatched+bias",
)

EMPTY = (
    "mb0ic3oc4ih6kh3ph1+bias",
    "mb2ic3oc0ih6kh3",
    "mb2ic0oc3ih5kh3ph1+bias",  # no products: the result is the bias
    "mb2ic0oc3ih5kh3",
    "mb0ic0oc0ih5kh3+last",
    "mb0iw4kw2",
    "oc0id3kd2+unbatched",
    "ic2oc3ih0iw4kh3ph2",  # an empty image, with padding enough
    "mb0ic2oc3ih3iw4kh3kw2ph1+reflect",
)

SMALL = TEXTBOOK + SIZES + PADDINGS + GROUPS + DILATIONS + RANKS + LAYOUTS
CORPUS = SMALL + EMPTY

# Layers of well-known networks, for benchmarks; the goals of the CPU engine are set on these.
LAYERS = {
    "ResNet-50 conv1": "ic3oc64ih224kh7sh2ph3",
    "ResNet-50 3×3 64@56": "ic64oc64ih56kh3ph1",
    "ResNet-50 3×3 128@28": "ic128oc128ih28kh3ph1",
    "ResNet-50 3×3 256@14": "ic256oc256ih14kh3ph1",
    "ResNet-50 3×3 512@7": "ic512oc512ih7kh3ph1",
    "ResNet-50 3×3 128@56 s2": "ic128oc128ih56kh3sh2ph1",
    "ResNet-50 1×1 64→256@56": "ic64oc256ih56",
    "ResNet-50 1×1 1024→256@14": "ic1024oc256ih14",
    "ResNet-50 1×1 512→2048@7": "ic512oc2048ih7",
    "ResNet-50 1×1 256→512@56 s2": "ic256oc512ih56sh2",
    "VGG-16 conv1_2": "ic64oc64ih224kh3ph1",
    "VGG-16 conv3_2": "ic256oc256ih56kh3ph1",
    "VGG-16 conv5_1": "ic512oc512ih14kh3ph1",
    "depthwise 3×3 32@112": "g32ic32oc32ih112kh3ph1",
    "depthwise 3×3 64@112 s2": "g64ic64oc64ih112kh3sh2ph1",
    "depthwise 3×3 512@14": "g512ic512oc512ih14kh3ph1",
    "depthwise 7×7 96@56": "g96ic96oc96ih56kh7ph3",
    "32 groups 3×3 128@56": "g32ic128oc128ih56kh3ph1",
    "dilated 3×3 512@28": "ic512oc512ih28kh3dh2ph2",
    "5×5 64→192@27": "ic64oc192ih27kh5ph2",
    "batch 8 3×3 64@56": "mb8ic64oc64ih56kh3ph1",
}

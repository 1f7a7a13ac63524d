"""Random problems for hypothesis: the whole space of arguments, kept small."""

from __future__ import annotations

import oracle
from corpus import PADDING_MODES, PADDING_NAMES, Case
from hypothesis import strategies as st

MODES = ("zeros", *PADDING_MODES)
COUNTS = st.sampled_from((1, 2, 3, 1, 2, 3, 1, 2, 3, 0))  # of images and channels: nothing is a case, but a rare one


@st.composite
def cases(draw, ranks=(1, 2, 3), modes=MODES, names=PADDING_NAMES, kinds=("batched", "unbatched", "image")):
    """A problem that has a result: sizes first, then padding that its mode allows, then a kernel that fits."""
    rank = draw(st.sampled_from(ranks))

    def per_axis(strategy):
        return tuple(draw(st.lists(strategy, min_size=rank, max_size=rank)))

    kind = draw(st.sampled_from(kinds if rank == 2 else [kind for kind in kinds if kind != "image"]))
    batch, groups, group_channels, group_filters = 1, 1, 1, 1
    if kind != "image":
        batch = draw(COUNTS) if kind == "batched" else 1
        groups = draw(st.integers(1, 3))
        group_channels, group_filters = draw(COUNTS), draw(COUNTS)
    size = per_axis(st.integers(1, (12, 9, 5)[rank - 1]))
    mode = draw(st.sampled_from(modes))
    most = [{"circular": min(n, 4), "reflect": min(n - 1, 4)}.get(mode, 4) for n in size]
    padding = tuple((draw(st.integers(0, side)), draw(st.integers(0, side))) for side in most)
    if draw(st.booleans()):
        padding = tuple((before, before) for before, _ in padding)
    dilation = per_axis(st.integers(1, 3))
    room = [n + sum(pad) for n, pad in zip(size, padding, strict=True)]
    kernel = tuple(draw(st.integers(1, min(4, (r - 1) // d + 1))) for r, d in zip(room, dilation, strict=True))
    case = Case(
        batch, groups, groups * group_channels, groups * group_filters, size, kernel, per_axis(st.integers(1, 4)),
        dilation, padding, mode,
        channels_last=kind != "image" and draw(st.booleans()), kind=kind, bias=draw(st.booleans()),
    )  # fmt: skip
    if names and draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(names if set(case.stride) == {1} else [n for n in names if n != "same"]))
        named = Case(**vars(case) | {"padding": name})
        if oracle.is_valid(named):  # reflecting and going around have limits
            case = named
    return case


@st.composite
def any_cases(draw):
    """A problem that may have no result."""
    case = draw(cases(kinds=("batched",)))
    wild = {
        "size": st.tuples(*[st.integers(0, 6)] * case.rank),
        "kernel": st.tuples(*[st.integers(1, 7)] * case.rank),
        "dilation": st.tuples(*[st.integers(1, 4)] * case.rank),
        "padding": st.one_of(
            st.sampled_from([name for name in PADDING_NAMES if name != "same"]),
            st.tuples(*[st.tuples(st.integers(0, 7), st.integers(0, 7))] * case.rank),
        ),
        "mode": st.sampled_from(MODES),
    }
    changed = draw(st.sets(st.sampled_from(sorted(wild)), min_size=1))
    return Case(**vars(case) | {name: draw(wild[name]) for name in sorted(changed)})

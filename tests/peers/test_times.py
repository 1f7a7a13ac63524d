"""npconv beside its peers, a group of contestants at a time. Ids are problems, as tests/corpus.py writes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from corpus import LAYERS

from peers import ours, with_ncnn, with_onnxruntime, with_torch
from peers.before import NAME
from peers.networks import NETWORKS, chain
from peers.others import OTHERS
from peers.race import Contestant, race
from peers.work import Work

TRANSPOSED = {
    "4×4 stride 2, 256→128@14": "ic256oc128ih14kh4sh2ph1",
    "4×4 stride 2, 64→32@56": "ic64oc32ih56kh4sh2ph1",
    "2×2 stride 2, 256→128@28": "ic256oc128ih28kh2sh2",
    "2×2 stride 2, 64→32@112": "ic64oc32ih112kh2sh2",
}
OTHER_RANKS = {
    "1-D, 3 taps, 256→256@512": "ic256oc256iw512kw3pw1",
    "1-D, 9 taps, 64→64@4096": "ic64oc64iw4096kw9pw4",
    "1-D, 9 taps, 4 × 8→16@1024": "mb4ic8oc16iw1024kw9pw4",
    "3-D 3×3×3, 4→8@16×32×32": "ic4oc8id16ih32kd3pd1",
    "3-D 3×3×3, 64→64@8×28×28": "ic64oc64id8ih28kd3pd1",
}
TEXTBOOK = "mb4ic3oc2ih5kh3"
MILLISECOND = 1e-3

FRAMEWORKS = ("torch", "torch, channels last", "onnxruntime")
ALL = (*FRAMEWORKS, "ncnn")
TORCH = FRAMEWORKS[:2]
BESIDE_ALL = [("× fastest of all", "npconv", ALL), ("× faster of torch and onnxruntime", "npconv", FRAMEWORKS)]
BEFORE = "× npconv, before"
BESIDE_TORCH = [("× faster of torch's", "npconv", TORCH)]


def problems(some: dict[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "text"), some.items(), ids=some.values())


def torch_formats(make: Callable[..., Contestant], *arguments: object) -> dict[str, Callable[[], Contestant]]:
    return {name: partial(make, *arguments, last=last) for name, last in zip(TORCH, (False, True), strict=True)}


def all_peers(work: Work, threads: int) -> dict[str, Callable[[], Contestant]]:
    return torch_formats(with_torch.function, work, threads) | {
        "onnxruntime": partial(with_onnxruntime.layer, work, threads),
        "ncnn": partial(with_ncnn.layer, work, threads),
    }


def gradients(work: Work, threads: int, of: str) -> dict[str, Callable[[], Contestant]]:
    return {
        "npconv": partial(ours.gradient, work, threads, of),
        **torch_formats(with_torch.gradient, work, threads, of),
    }


@problems(LAYERS)
def test_layers(name, text, threads, compete):
    work = Work(name, text)
    entrants = {
        "npconv": partial(ours.layer, work, threads),
        "npconv, strict": partial(ours.layer, work, threads, precision="strict"),
        **all_peers(work, threads),
        # Shown, and counted in no ratio: nobody else could take such data.
        "ncnn, packed data": partial(with_ncnn.layer, work, threads, packed=True),
    }
    ratios = [*BESIDE_ALL, ("strict × fastest of all", "npconv, strict", ALL)]
    assert "npconv" in compete("Layers, their weights packed once", work, entrants, ratios, with_torch.reference(work))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, threads, compete):
    work = chain(name)
    first, last = "npconv", "npconv, channels last"
    entrants = {
        first: partial(ours.network, work, threads),
        last: partial(ours.network, work, threads, last=True),
        **torch_formats(with_torch.network, work, threads),
        "onnxruntime": partial(with_onnxruntime.network, work, threads),
        "ncnn": partial(with_ncnn.network, work, threads),
    }
    ratios = [*BESIDE_ALL, ("channels last × fastest of all", last, ALL)]
    reference = with_torch.network(work, threads)
    assert first in compete("Convolutions of networks", work, entrants, ratios, reference.read(reference.call()))


@pytest.mark.long
@problems({f"{name} {text}": text for name, texts in OTHERS.items() for text in texts})
def test_other_layers(name, text, threads, compete):
    """With ``--long``: a minute and more for each round."""
    work = Work(name, text)
    entrants = {"npconv": partial(ours.layer, work, threads), **all_peers(work, threads)}
    assert "npconv" in compete("Layers of other networks", work, entrants, BESIDE_ALL, with_torch.reference(work))


@pytest.mark.parametrize("what", ["layers", "functions", "gradients of the input", "gradients of the weight"])
def test_drawn(drawn, what, threads, compete, version_before):
    """With ``--peers-drawn N``: the layers of a seed, which nobody has chosen."""
    name, text = drawn
    work, of = Work(name, text), what.rpartition(" ")[2]
    if what == "layers":
        peers, ratios = all_peers(work, threads), BESIDE_ALL
    elif what == "functions":
        peers, ratios = torch_formats(with_torch.function, work, threads), BESIDE_TORCH
    else:
        peers, ratios = torch_formats(with_torch.gradient, work, threads, of), BESIDE_TORCH
    entrants = {"npconv": partial(ours.drawn, what, work, threads), **peers}
    if version_before is not None:
        entrants[NAME] = partial(version_before.contestant, what, work, threads)
        ratios = [*ratios, (BEFORE, "npconv", [NAME])]
    reference = with_torch.reference(work, of if what.startswith("gradients") else "result")
    assert "npconv" in compete(f"Drawn {what}", work, entrants, ratios, reference)


@problems(LAYERS)
def test_functions(name, text, threads, compete):
    work = Work(name, text)
    entrants = {
        "npconv": partial(ours.function, work, threads),
        "npconv, strict": partial(ours.function, work, threads, precision="strict"),
        **torch_formats(with_torch.function, work, threads),
    }
    ratios = [*BESIDE_TORCH, ("strict × faster of torch's", "npconv, strict", TORCH)]
    assert "npconv" in compete(
        "Functions, their weights packed on each call", work, entrants, ratios, with_torch.reference(work)
    )


@pytest.mark.parametrize("of", ["input", "weight"])
@problems(LAYERS)
def test_gradients(name, text, of, threads, compete):
    work = Work(name, text)
    reference = with_torch.reference(work, of)
    assert "npconv" in compete(f"Gradients of the {of}", work, gradients(work, threads, of), BESIDE_TORCH, reference)


@problems(LAYERS)
def test_float64(name, text, threads, compete):
    work = Work(name, text, dtype="float64")
    entrants = {
        "npconv": partial(ours.layer, work, threads),
        "npconv, strict": partial(ours.layer, work, threads, precision="strict"),
        **torch_formats(with_torch.function, work, threads),
    }
    ratios = [*BESIDE_TORCH, ("strict × faster of torch's", "npconv, strict", TORCH)]
    assert "npconv" in compete("Layers in float64", work, entrants, ratios, with_torch.reference(work))


@problems(LAYERS)
def test_complex(name, text, threads, compete):
    work = Work(name, text, dtype="complex64")
    entrants = {"npconv": partial(ours.layer, work, threads), **torch_formats(with_torch.function, work, threads)}
    assert "npconv" in compete("Layers of complex numbers", work, entrants, BESIDE_TORCH, with_torch.reference(work))


@problems(LAYERS)
def test_channels_last(name, text, threads, compete):
    work = Work(name, text)
    first, last = "npconv, channels first", "npconv, channels last"
    entrants = {
        last: partial(ours.layer, work, threads, last=True),
        first: partial(ours.layer, work, threads),
        TORCH[1]: partial(with_torch.function, work, threads, last=True),
    }
    ratios = [("× npconv, channels first", last, [first]), ("× torch, channels last", last, [TORCH[1]])]
    assert last in compete("Layers with channels last", work, entrants, ratios, with_torch.reference(work))


@problems(TRANSPOSED)
def test_transposed(name, text, threads, compete):
    work = Work(name, text, transposed=True)
    entrants = {"npconv": partial(ours.layer, work, threads), **all_peers(work, threads)}
    assert "npconv" in compete("Transposed layers", work, entrants, BESIDE_ALL, with_torch.reference(work))


@problems(OTHER_RANKS)
def test_other_ranks(name, text, threads, compete):
    work = Work(name, text)
    entrants = {
        "npconv": partial(ours.layer, work, threads),
        "npconv, strict": partial(ours.layer, work, threads, precision="strict"),
        **all_peers(work, threads),
    }
    ratios = [("× fastest of all", "npconv", ALL), ("strict × fastest of all", "npconv, strict", ALL)]
    assert "npconv" in compete("Layers of signals and volumes", work, entrants, ratios, with_torch.reference(work))


@pytest.mark.parametrize("kind", ["layer", "function"])
def test_textbook(kind, threads, compete):
    work = Work(f"{kind}, 3×3, 4 × 3→2@5", TEXTBOOK)
    entrants = {"npconv": partial(getattr(ours, kind), work, threads), **all_peers(work, threads)}
    ratios = [("× onnxruntime", "npconv", ["onnxruntime"]), *BESIDE_TORCH]
    assert "npconv" in compete("The textbook's example", work, entrants, ratios, with_torch.reference(work))


@problems(LAYERS)
def test_threads(name, text, threads, compete):
    if threads == 1:
        pytest.skip("it takes two threads to compare them with one")
    work = Work(name, text)
    alone = ours.layer(work, 1)
    race([alone], 2)
    if min(alone.times) < MILLISECOND:
        pytest.skip("less than a millisecond on one thread")
    alone.times.clear()
    many, single = f"npconv, {threads} threads", "npconv, 1 thread"
    entrants = {many: partial(ours.layer, work, threads), single: lambda: alone}
    ratios = [("× 1 thread", many, [single])]
    assert many in compete(
        "Threads, for layers of a millisecond or more", work, entrants, ratios, with_torch.reference(work)
    )

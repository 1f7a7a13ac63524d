"""ncnn as a contestant: a net, in float32, with the pools of memory that its own benchmark uses.

Without the pools it gets its working memory anew on each call, and takes two to three times as long.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from peers.networks import Chain, alone
from peers.race import Contestant, LeftOut
from peers.work import Work

NOT_FLOAT32 = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_int8_inference")
PACKS = (16, 8, 4, 1)


def layer(work: Work, threads: int, packed: bool = False) -> Contestant:
    """A net of one layer."""
    return network(alone(work), threads, packed)


def network(chain: Chain, threads: int, packed: bool = False) -> Contestant:
    """A net. Packed, input and result have channels in blocks, as ncnn has them between layers; others do not."""
    try:
        import ncnn
    except ImportError:
        raise LeftOut("ncnn is not installed") from None
    batch = chain.works[0].case.batch
    if batch > 1 and not hasattr(ncnn.Mat, "batch"):
        raise LeftOut("this version of ncnn has no batches")
    pools = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
    net = _net(ncnn, chain, threads, pools)
    x = (ncnn.Mat(chain.input, 0) if batch > 1 else ncnn.Mat(chain.input[0])).clone()
    as_it_is = int(packed)

    def call() -> Any:
        extractor = net.create_extractor()
        extractor.input("x", x)
        return extractor.extract("y", as_it_is)[1]

    if packed:
        widest = call().elempack
        x = _repacked(
            ncnn, x, next(pack for pack in PACKS if pack <= widest and chain.works[0].case.channels % pack == 0)
        )

    def read(result: Any) -> np.ndarray:
        plain = _repacked(ncnn, result, 1)
        images = [plain.batch(number) for number in range(batch)] if batch > 1 else [plain]
        return np.stack([np.array(image) for image in images])

    def close() -> None:
        net.clear()
        for pool in pools:  # which are kept until here, for they must outlive what is in them
            pool.clear()

    return Contestant(threads, call, read, close)


def _net(ncnn: Any, chain: Chain, threads: int, pools: tuple[Any, Any]) -> Any:
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_packing_layout = True
    net.opt.use_vulkan_compute = False
    for option in NOT_FLOAT32:
        setattr(net.opt, option, False)
    net.opt.blob_allocator, net.opt.workspace_allocator = pools
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.bin")
        path.write_bytes(weights(chain))
        if net.load_param_mem(description(chain)) or net.load_model(str(path)):
            raise LeftOut("ncnn cannot load it")
    return net


def _repacked(ncnn: Any, mat: Any, pack: int) -> Any:
    result = ncnn.Mat()
    ncnn.convert_packing(mat, result, pack)
    return result


def description(chain: Chain) -> str:
    """The net in ncnn's own words, which number a layer's parameters: https://github.com/Tencent/ncnn/wiki/operators."""
    number = len(chain.works)
    blobs = ["x", *(f"x{n}" for n in range(1, number)), "y"]
    lines = [f"7767517\n{number + 1} {number + 1}\nInput in 0 1 x\n"]
    for n, work in enumerate(chain.works):
        lines.append(f"{_kind(work)} layer{n} 1 1 {blobs[n]} {blobs[n + 1]} {_parameters(work)}\n")
    return "".join(lines)


def _kind(work: Work) -> str:
    kind = "Deconvolution" if work.transposed else "Convolution"
    return kind + "DepthWise" * (work.case.groups > 1) + {1: "1D", 2: "", 3: "3D"}[work.rank]


def _parameters(work: Work) -> str:
    case = work.case
    numbers = {0: case.filters, 5: 0, 6: work.weight.size} | ({7: case.groups} if case.groups > 1 else {})
    first = {"w": 0, "h": 10, "d": 20}
    before, after = {"w": 4, "h": 14, "d": 24}, {"w": 15, "h": 16, "d": 17}
    for axis, k, d, s, p in zip("dhw"[-work.rank :], case.kernel, case.dilation, case.stride, work.pads, strict=True):
        at = first[axis]
        numbers |= {at + 1: k, at + 2: d, at + 3: s, before[axis]: p, after[axis]: p}
    return " ".join(f"{number}={value}" for number, value in sorted(numbers.items()))


def weights(chain: Chain) -> bytes:
    """The weights as in ncnn's files: a zero, which means float32, and the numbers, the filters first in any case."""
    return b"".join(map(_weights, chain.works))


def _weights(work: Work) -> bytes:
    weight, groups = work.weight, work.case.groups
    if work.transposed:
        channels, filters, *kernel = weight.shape
        weight = weight.reshape(groups, channels // groups, filters, *kernel).swapaxes(1, 2)
    return np.int32(0).tobytes() + np.ascontiguousarray(weight).tobytes()

"""onnxruntime as a contestant: a model of a node for each layer, whose weight it packs when the model is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from peers.networks import Chain, alone
from peers.race import Contestant, LeftOut
from peers.work import Work

OPSET, IR = 17, 8  # of 2022: any runtime of today knows them


def layer(work: Work, threads: int) -> Contestant:
    """A session of one node."""
    return network(alone(work), threads)


def network(chain: Chain, threads: int) -> Contestant:
    """A session with input and result bound, so that a call is the computation and little else."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise LeftOut(f"{error.name} is not installed") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    content = model(onnx, chain).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    x, y = chain.input, np.empty(chain.result_shape, chain.dtype)
    bound = session.io_binding()
    bound.bind_ortvalue_input("x0", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    bound.bind_ortvalue_output("y", onnxruntime.OrtValue.ortvalue_from_numpy(y))
    run = session.run_with_iobinding
    return Contestant(threads, lambda: run(bound), lambda _: bound.copy_outputs_to_cpu()[0])


def model(onnx: Any, chain: Chain) -> Any:
    """The works as a model."""
    helper, values = onnx.helper, [f"x{number}" for number in range(len(chain.works))] + ["y"]
    nodes = []
    for number, work in enumerate(chain.works):
        case = work.case
        nodes.append(
            helper.make_node(
                "ConvTranspose" if work.transposed else "Conv", [values[number], f"w{number}"], [values[number + 1]],
                kernel_shape=case.kernel, strides=case.stride, pads=work.pads * 2, dilations=case.dilation,
                group=case.groups,
            )
        )  # fmt: skip
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(chain.dtype))
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info(values[0], kind, chain.input.shape)],
        [helper.make_tensor_value_info("y", kind, chain.result_shape)],
        [onnx.numpy_helper.from_array(work.weight, f"w{number}") for number, work in enumerate(chain.works)],
    )
    return helper.make_model(graph, ir_version=IR, opset_imports=[helper.make_opsetid("", OPSET)])

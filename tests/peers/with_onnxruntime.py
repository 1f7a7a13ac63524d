"""onnxruntime as a contestant: a model of one node, whose weight it packs when the model is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from peers.race import Contestant, LeftOut
from peers.work import Work

OPSET, IR = 17, 8  # of 2022: any runtime of today knows them


def layer(work: Work, threads: int) -> Contestant:
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
    content = model(onnx, work).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    x, y = work.input, np.empty(work.result_shape, work.dtype)
    bound = session.io_binding()
    bound.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    bound.bind_ortvalue_output("y", onnxruntime.OrtValue.ortvalue_from_numpy(y))
    run = session.run_with_iobinding
    return Contestant(threads, lambda: run(bound), lambda _: bound.copy_outputs_to_cpu()[0])


def model(onnx: Any, work: Work) -> Any:
    """The work as a model."""
    case, helper = work.case, onnx.helper
    node = helper.make_node(
        "ConvTranspose" if work.transposed else "Conv", ["x", "w"], ["y"], kernel_shape=case.kernel,
        strides=case.stride, pads=work.pads * 2, dilations=case.dilation, group=case.groups,
    )  # fmt: skip
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(work.dtype))
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", kind, work.input.shape)],
        [helper.make_tensor_value_info("y", kind, work.result_shape)],
        [onnx.numpy_helper.from_array(work.weight, "w")],
    )
    return helper.make_model(graph, ir_version=IR, opset_imports=[helper.make_opsetid("", OPSET)])

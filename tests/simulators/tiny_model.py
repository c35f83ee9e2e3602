"""The smallest model worth asking about: every number rises with the mean of the item's values."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tiny_model(
    shape: tuple[str | int, ...] = ("n", 1, 16, 16),
    *,
    outputs: int = 2,
    gain: float = 4.0,
    bias: float = -2.0,
    element_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Logit k of an item = gain x (k + 1) x mean + bias; ``pixels`` go in, ``logits`` come out."""
    gains = (gain * np.arange(1, outputs + 1)).reshape(1, -1).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
            helper.make_node(
                "ReduceMean", ["real"], ["mean"], axes=list(range(1, len(shape))), keepdims=0
            ),
            helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
            helper.make_node("Gemm", ["column", "gains", "bias"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("pixels", element_type, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (shape[0], outputs))],
        [
            numpy_helper.from_array(np.array([1], np.int64), "last"),
            numpy_helper.from_array(gains, "gains"),
            numpy_helper.from_array(np.full(outputs, bias, np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

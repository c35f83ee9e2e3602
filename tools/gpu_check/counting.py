"""The fewest operations and bytes that a model needs: what a roofline is drawn from.

Counted from the graph: a product and a sum are two operations, and only convolutions and products
of matrices count. Bytes are those that must move when everything between the layers stays on the
chip: weights once, the input and the output once. No engine needs fewer, so that a share of this
roofline says how near an engine comes to what no engine can beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx
from onnx import shape_inference

_BYTES = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.FLOAT16: 2, onnx.TensorProto.INT8: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Of one run."""

    operations: int
    least_bytes: int

    def least_seconds(self, *, operations_per_s: float, bytes_per_s: float) -> float:
        """The larger of the two times: no engine is faster."""
        return max(self.operations / operations_per_s, self.least_bytes / bytes_per_s)


def count(model: bytes, batch: int) -> Work:
    """Count what a model with a free batch, or one of this size, needs for a batch.

    Raises:
        ValueError: A shape of it cannot be inferred.
    """
    loaded = onnx.load_from_string(model)
    first = loaded.graph.input[0].type.tensor_type.shape.dim[0]
    first.ClearField("dim_param")
    first.dim_value = batch
    graph = shape_inference.infer_shapes(loaded, strict_mode=True, data_prop=True).graph
    shapes = {each.name: _shape(each) for each in (*graph.value_info, *graph.input, *graph.output)}
    weights = {each.name: tuple(each.dims) for each in graph.initializer}
    operations = 0
    for node in graph.node:
        if node.op_type in {"Conv", "Gemm", "MatMul"}:
            operations += _operations(node, shapes, weights)
    moved = sum(prod(each.dims) * _BYTES.get(each.data_type, 4) for each in graph.initializer)
    moved += 4 * prod(_shape(graph.input[0])) + 4 * batch
    return Work(operations=operations, least_bytes=moved)


def _operations(
    node: onnx.NodeProto,
    shapes: dict[str, tuple[int, ...]],
    weights: dict[str, tuple[int, ...]],
) -> int:
    made = shapes.get(node.output[0])
    weight = weights.get(node.input[1])
    if made is None or weight is None:
        raise ValueError(f"nothing is known of the shapes of {node.name}")
    # A convolution's weight is (out, in of its group, ...): each output is a sum of the rest.
    if node.op_type == "Conv":
        return 2 * prod(made) * prod(weight[1:])
    return 2 * prod(made) * prod(weight) // made[-1]


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    sizes = tuple(each.dim_value for each in value.type.tensor_type.shape.dim)
    if not all(sizes):
        raise ValueError(f"the shape of {value.name} is not known")
    return sizes

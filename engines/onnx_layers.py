"""Makes the tensors between a model's layers visible: outputs of a copy of the model, in memory.

For diagnosis only: no device runs such a copy in place of the model. The model is one that
``onnx_checks`` has admitted, so that its graph is bounded and free of cycles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

from engines.errors import ModelFileError

_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16})


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerTensor:
    """A tensor of floats that a layer gives."""

    name: str
    operator: str
    """Of the node that gives it, such as Conv."""


def inner_tensors(model: bytes) -> tuple[InnerTensor, ...]:
    """Returns the tensors that depend on the input, in the order in which they are computed.

    Those of other types than FLOAT and FLOAT16, or of a shape that cannot be inferred, are left
    out; the model's own outputs are there.

    Raises:
        ModelFileError: It is no ONNX file.
    """
    graph = _inferred(model).graph
    known = {value.name for value in _values(graph)}
    weights = {tensor.name for tensor in graph.initializer}
    reached = {value.name for value in graph.input} - weights
    found: list[InnerTensor] = []
    # ONNX lists nodes in an order in which they can be computed.
    for node in graph.node:
        if reached.isdisjoint(node.input):
            continue
        reached.update(node.output)
        found.extend(
            InnerTensor(name=name, operator=node.op_type) for name in node.output if name in known
        )
    return tuple(found)


def with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    """Returns a copy of the model that also gives these tensors.

    Args:
        model: An ONNX file.
        names: Of ``inner_tensors``; those that are outputs already stay as they are.

    Raises:
        ModelFileError: It is no ONNX file, or has no such tensor.
    """
    copy = _inferred(model)
    there = {value.name for value in copy.graph.output}
    values = {value.name: value for value in _values(copy.graph)}
    for name in names:
        if name not in values:
            raise ModelFileError(f"the model has no tensor of floats named {name!r}")
        if name not in there:
            copy.graph.output.append(values[name])
    serialised: bytes = copy.SerializeToString()
    return serialised


def _inferred(model: bytes) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    except (DecodeError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise ModelFileError(f"not an ONNX file that can be looked into: {error}") from error


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    for value in (*graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type in _FLOATS and tensor.HasField("shape"):
            yield value

"""In which numbers a model computes: rewritten in its graph, for the networks are strongly typed.

Only this module of ours knows ONNX graphs here; it is imported when an engine is built, so that a
worker that runs a stored one need not hold the library.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx.defs
import onnx.shape_inference
from onnx import NodeProto, TensorProto, helper, numpy_helper

from engines.contract import Precision
from engines.errors import EngineBuildError
from engines.quantised import is_quantised

_KEPT_IN_FP32 = frozenset(
    {
        # Sums over many numbers leave the range of FP16 (65504), exponentials too.
        *("CumSum", "Exp", "Log", "LogSoftmax", "Pow", "Softmax", "Softplus"),
        *("GlobalAveragePool", "GlobalLpPool", "LpPool"),
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd"),
        *("ReduceSum", "ReduceSumSquare"),
        # Variances are small differences of large numbers.
        *("GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization"),
        *("LpNormalization", "MeanVarianceNormalization"),
        # Their result has the type of an argument that is not a number of the image.
        *("CastLike", "ConstantOfShape", "EyeLike", "Range"),
    }
)
_TAKES_ANY_NUMBER = frozenset({"Cast", "Shape", "Size"})
_SHAPE_ONLY = frozenset({"Shape", "Size"})
"""What they return is known before any pixel is."""

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def with_precision(model: bytes, precision: Precision) -> bytes:
    """Returns the model so that it computes in ``precision``; inputs and outputs stay FP32.

    A model with Q/DQ nodes is returned as it is: casts between them would keep the layers from
    running in INT8, and its maker has chosen the other layers' numbers.

    Args:
        model: An ONNX file that ``engines.onnx_checks`` has passed.
        precision: FP16: layers whose sums could overflow, and all that computes sizes, stay FP32.

    Raises:
        EngineBuildError: A weight is too large for FP16, or the types of the graph are unknown.
    """
    if precision is Precision.FP32 or is_quantised(model):
        return model
    proto = onnx.load_model_from_string(model)
    _Halving(proto).rewrite()
    content: bytes = proto.SerializeToString()
    return content


class _Halving:
    """One pass over the nodes in order; a cast stands where the two types meet."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._opset = model.opset_import[0].version
        _constants_to_weights(self._graph)
        self._weights = {tensor.name: tensor for tensor in self._graph.initializer}
        self._types = _types_of(model)
        """As the model was."""
        self._now = dict(self._types)
        """As it is being made."""
        self._moving = {value.name for value in self._graph.input}
        """What depends on pixels."""
        self._nodes: list[NodeProto] = []
        self._cast: dict[tuple[str, int], str] = {}
        self._taken = set(self._types)

    def rewrite(self) -> None:
        """Changes the graph."""
        for node in list(self._graph.node):
            self._take(node)
        self._give_back_outputs()
        used = {name for node in self._nodes for name in node.input}
        used |= {value.name for value in self._graph.output}
        weights = [tensor for name, tensor in self._weights.items() if name in used]
        del self._graph.node[:], self._graph.initializer[:], self._graph.value_info[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(weights)

    def _take(self, node: NodeProto) -> None:
        depends = not self._moving.isdisjoint(node.input)
        if depends and node.op_type not in _SHAPE_ONLY:
            self._moving.update(node.output)
        schema = onnx.defs.get_schema(node.op_type, self._opset)
        # Sizes are computed from shapes and constants: above 2048 FP16 skips numbers.
        can_halve = depends and node.op_type not in _KEPT_IN_FP32 | _TAKES_ANY_NUMBER
        halved = _half_kinds(schema) if can_halve else frozenset()
        bound = set()
        for place, name in enumerate(node.input):
            if self._types.get(name) != _FLOAT or node.op_type in _TAKES_ANY_NUMBER:
                continue
            kind = schema.inputs[min(place, len(schema.inputs) - 1)].type_str
            bound.add(kind)
            node.input[place] = self._as(name, _HALF if kind in halved else _FLOAT)
        self._nodes.append(node)
        for place, name in enumerate(node.output):
            kind = schema.outputs[min(place, len(schema.outputs) - 1)].type_str
            if self._types.get(name) == _FLOAT and kind in halved & bound:
                self._now[name] = _HALF

    def _as(self, name: str, wanted: int) -> str:
        if self._now[name] == wanted:
            return name
        if (name, wanted) not in self._cast:
            other = self._fresh(f"{name}/{'fp16' if wanted == _HALF else 'fp32'}")
            self._cast[name, wanted] = other
            if name in self._weights:
                self._weights[other] = _halved(self._weights[name], other)
            else:
                cast = helper.make_node("Cast", [name], [other], name=other, to=wanted)
                self._nodes.append(cast)
        return self._cast[name, wanted]

    def _give_back_outputs(self) -> None:
        for value in self._graph.output:
            if self._now[value.name] == self._types[value.name]:
                continue
            inner = self._fresh(f"{value.name}/fp16")
            for node in self._nodes:
                for names in (node.input, node.output):
                    for place, name in enumerate(names):
                        if name == value.name:
                            names[place] = inner
            cast = helper.make_node("Cast", [inner], [value.name], name=inner, to=_FLOAT)
            self._nodes.append(cast)

    def _fresh(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _types_of(model: onnx.ModelProto) -> dict[str, int]:
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError as error:
        raise EngineBuildError(
            f"the types of model.onnx are not known ({error}), so that it cannot be rewritten to "
            "FP16; choose precision fp32"
        ) from error
    types = {tensor.name: int(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    for name in _made_by_nodes(graph):
        if not types.get(name):
            raise EngineBuildError(
                f"the type of tensor {name[:80]!a} of model.onnx is not known, so that it "
                "cannot be rewritten to FP16; choose precision fp32"
            )
    return types


def _made_by_nodes(graph: onnx.GraphProto) -> Iterator[str]:
    return (name for node in graph.node for name in node.output if name)


def _half_kinds(schema: onnx.defs.OpSchema) -> frozenset[str]:
    """The operator's type variables that may stand for FP16."""
    return frozenset(
        constraint.type_param_str
        for constraint in schema.type_constraints
        if "tensor(float16)" in constraint.allowed_type_strs
    )


def _constants_to_weights(graph: onnx.GraphProto) -> None:
    """Constant nodes become initializers: both are then rewritten in one way."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "Constant":
            graph.initializer.append(_constant(node))
        else:
            graph.node.append(node)


def _constant(node: NodeProto) -> TensorProto:
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        return tensor
    dtype = np.float32 if attribute.name.startswith("value_float") else np.int64
    return numpy_helper.from_array(np.array(value, dtype=dtype), node.output[0])


def _halved(weight: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(weight)
    with np.errstate(over="ignore"):
        halved = values.astype(np.float16)
    if np.any(np.isinf(halved) & np.isfinite(values)):
        raise EngineBuildError(
            f"weight {weight.name[:80]!a} of model.onnx holds a number above 65504, the "
            "largest of FP16; choose precision fp32"
        )
    return numpy_helper.from_array(halved, name)

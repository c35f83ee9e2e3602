"""Model files that no device may run, and why each is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from engines.onnx_graph import MAX_NODES
from simulators.hostile_package import HostilePackage, with_model

_FLOAT = TensorProto.FLOAT
_MEAN = helper.make_node("ReduceMean", ["y"], ["logits"], axes=[1, 2, 3], keepdims=0)
_GIGA = 1 << 40


def _weight(name: str, values: Any, dtype: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def _network(nodes: Sequence[NodeProto], weights: Sequence[TensorProto] = ()) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("slices", _FLOAT, ("n", 1, 8, 8))],
        [helper.make_tensor_value_info("logits", _FLOAT, ("n",))],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _sound() -> ModelProto:
    """As the good package's: mean of the slice, less a half, times eight."""
    return _network(
        [
            helper.make_node("ReduceMean", ["slices"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["mean", "half"], ["centred"]),
            helper.make_node("Mul", ["centred", "eight"], ["logits"]),
        ],
        [_weight("half", 0.5), _weight("eight", 8.0)],
    )


def _spoilt(change: Callable[[ModelProto], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        model = _sound()
        change(model)
        with_model(model.SerializeToString())(folder)

    return spoil


def _made(
    nodes: Sequence[NodeProto], weights: Sequence[TensorProto] = ()
) -> Callable[[Path], object]:
    return with_model(_network(nodes, weights).SerializeToString())


def _bad(name: str, spoil: Callable[[Path], object], reason: str) -> HostilePackage:
    return HostilePackage(name=name, spoil=spoil, error="ModelFileError", reason=reason)


def _with_weight(tensor: TensorProto) -> Callable[[ModelProto], object]:
    """Let the first weight be another."""
    tensor.name = "half"
    return lambda model: model.graph.initializer[0].CopyFrom(tensor)


def _bits(kind: int, bits: int) -> TensorProto:
    """Two numbers of 16 bits, one sound."""
    return TensorProto(data_type=kind, dims=[2], int32_data=[0x3C00, bits])


def _declared(kind: int, dims: Sequence[int], raw: bytes = b"") -> TensorProto:
    return TensorProto(data_type=kind, dims=dims, raw_data=raw)


def _external(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def _nested(depth: int) -> bytes:
    """Graphs in attributes of nodes of graphs, made by hand: each layer is three lengths."""
    inner = b""
    for _ in range(depth):
        for tag in (0x32, 0x2A, 0x0A):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            inner = bytes([tag]) + _length(len(inner)) + inner
    return b"\x3a" + _length(len(inner)) + inner


def _length(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _graph_of_nothings(count: int) -> bytes:
    nodes = b"\x0a\x00" * count
    return b"\x08\x08\x3a" + _length(len(nodes)) + nodes


def _function(model: ModelProto) -> None:
    model.functions.append(
        helper.make_function(
            "ai.onnx",
            "Sneaky",
            ["x"],
            ["y"],
            [helper.make_node("Identity", ["x"], ["y"])],
            [helper.make_opsetid("", 17)],
        )
    )


def _say_shape(name: str, kind: int, shape: tuple[int | str, ...], model: ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info(name, kind, shape))


def _sequence(model: ModelProto) -> None:
    value = helper.make_tensor_sequence_value_info("logits", _FLOAT, ("n",))
    model.graph.output[0].CopyFrom(value)


def _sparse(model: ModelProto) -> None:
    tensor = helper.make_sparse_tensor(
        _weight("sparse", [np.nan]), _weight("at", [0], np.int64), [1 << 40]
    )
    model.graph.sparse_initializer.append(tensor)


def _swap_nodes(model: ModelProto) -> None:
    nodes = [model.graph.node[index] for index in (1, 0, 2)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _second_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", _FLOAT, ("n",)))


def _widen(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 16


def _shadow(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("half", _FLOAT, ()))


def _chain(count: int) -> list[NodeProto]:
    names = ["slices", *(f"v{index}" for index in range(count - 2)), "y"]
    nodes = [
        helper.make_node("Relu", [names[index]], [names[index + 1]]) for index in range(count - 1)
    ]
    return [*nodes, _MEAN]


def _grown(operator: str, shape: Any, **attributes: Any) -> Callable[[Path], object]:
    """One operator that makes a giant of a slice."""
    inputs = ["slices", "", "size"] if operator == "Resize" else ["slices", "size"]
    dtype = np.float32 if operator == "Resize" else np.int64
    return _made(
        [helper.make_node(operator, inputs, ["y"], **attributes), _MEAN],
        [_weight("size", shape, dtype)],
    )


def _giant_of_nothing(*before: NodeProto, size: Any) -> Callable[[Path], object]:
    nodes = [
        *before,
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["slices", "sum"], ["y"]),
        _MEAN,
    ]
    return _made(nodes, [] if size is None else [size])


def _size_of_pixels() -> Callable[[Path], object]:
    total = helper.make_node("ReduceSum", ["slices"], ["total"], keepdims=0)
    cast = helper.make_node("Cast", ["total"], ["whole"], to=TensorProto.INT64)
    size = helper.make_node("Reshape", ["whole", "one"], ["size"])
    return _giant_of_nothing(total, cast, size, size=_weight("one", [1], np.int64))


def _size_that_nobody_infers() -> Callable[[Path], object]:
    power = helper.make_node("Exp", ["thirty"], ["many"])
    cast = helper.make_node("Cast", ["many"], ["size"], to=TensorProto.INT64)
    return _giant_of_nothing(power, cast, size=_weight("thirty", [30.0]))


def _subgraph(model: ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", GraphProto(name="inner")))


def _nan_attribute(model: ModelProto) -> None:
    model.graph.node[1].attribute.append(helper.make_attribute("alpha", [float("nan")]))


def _constant(**value: Any) -> Callable[[Path], object]:
    return _made(
        [
            helper.make_node("Constant", [], ["bias"], **value),
            helper.make_node("Add", ["slices", "bias"], ["y"]),
            _MEAN,
        ]
    )


def _external_constant() -> Callable[[Path], object]:
    tensor = _weight("hidden", [0.5])
    _external(tensor)
    return _constant(value=tensor)


def _operator(name: str, *inputs: str) -> Callable[[Path], object]:
    return _made([helper.make_node(name, list(inputs or ["slices"]), ["y"]), _MEAN])


def _sequence_inside() -> Callable[[Path], object]:
    return _made(
        [
            helper.make_node("SequenceConstruct", ["slices"], ["list"]),
            helper.make_node("SequenceAt", ["list", "zero"], ["y"]),
            _MEAN,
        ],
        [_weight("zero", 0, np.int64)],
    )


def _rename(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new if name == old else name
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = new if value.name == old else value.name


_FILES = (
    _bad("empty model", with_model(b""), "nodes"),
    _bad("model of noise", with_model(b"\xff" * 4096), "not an ONNX file"),
    _bad("cut model", with_model(_sound().SerializeToString()[:-9]), "not an ONNX file"),
    _bad("million empty nodes", with_model(_graph_of_nothings(1_000_000)), "more than 500000"),
    _bad("nested protobuf bomb", with_model(_nested(5_000)), "not an ONNX file"),
    _bad(
        "endless doc string",
        _spoilt(lambda model: setattr(model, "doc_string", "x" * 1_000_000)),
        "text of more than",
    ),
    _bad(
        "endless metadata",
        _spoilt(lambda model: model.metadata_props.add(key="k", value="x" * 1_000_000)),
        "text of more than",
    ),
    _bad(
        "long tensor name",
        _spoilt(lambda model: _rename(model, "mean", "m" * 5_000)),
        "name of 5000 characters",
    ),
    _bad("opset of the past", _spoilt(lambda m: setattr(m.opset_import[0], "version", 9)), "opset"),
    _bad(
        "opset of the future",
        _spoilt(lambda model: setattr(model.opset_import[0], "version", 99)),
        "opset 99",
    ),
    _bad(
        "two opsets",
        _spoilt(lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 13))),
        "two opsets",
    ),
    _bad(
        "custom domain",
        _spoilt(lambda m: m.opset_import.append(helper.make_opsetid("com.example", 1))),
        "com.example",
    ),
    _bad(
        "custom operator",
        _spoilt(lambda model: setattr(model.graph.node[1], "domain", "com.example")),
        "com.example",
    ),
    _bad("unknown operator", _operator("Telephone"), "ONNX checker"),
    _bad(
        "operator that writes on the screen",
        _operator("Tele\x1b[2J\nOK checksums"),
        "No Op registered for Tele [2J OK checksums",
    ),
    _bad("local function", _spoilt(_function), "local functions"),
    _bad("training data", _spoilt(lambda model: model.training_info.add()), "training data"),
)

_GRAPHS = (
    _bad("no nodes", _made([]), "0 nodes"),
    _bad("too many nodes", _made(_chain(MAX_NODES + 1)), "nodes, not 1 to"),
    _bad(
        "cycle",
        _made(
            [
                helper.make_node("Add", ["slices", "b"], ["a"]),
                helper.make_node("Relu", ["a"], ["b"]),
                helper.make_node("Relu", ["b"], ["y"]),
                _MEAN,
            ]
        ),
        "has a cycle",
    ),
    _bad("node that reads itself", _operator("Add", "slices", "y"), "has a cycle"),
    _bad("nodes out of order", _spoilt(_swap_nodes), "nodes out of order"),
    _bad("value from nowhere", _operator("Relu", "nowhere"), "'nowhere' before anything"),
    _bad(
        "output from nowhere",
        _made([helper.make_node("Relu", ["slices"], ["y"])]),
        "nothing in model.onnx makes its output",
    ),
    _bad(
        "value made twice",
        _made([helper.make_node("Relu", ["slices"], ["y"])] * 2 + [_MEAN]),
        "two tensors named 'y'",
    ),
    _bad(
        "weight twice",
        _spoilt(lambda model: model.graph.initializer.append(_weight("half", 0.1))),
        "two tensors named 'half'",
    ),
    _bad(
        "output twice",
        _spoilt(lambda model: model.graph.output.append(model.graph.output[0])),
        "two tensors named 'logits'",
    ),
    _bad("weight that is an input", _spoilt(_shadow), "a weight that is also an input"),
    _bad("graph within a node", _spoilt(_subgraph), "a graph within 'ReduceMean'"),
    _bad("loop", _operator("Loop"), "its work depends on the data"),
    _bad("data-dependent size", _operator("NonZero"), "its work depends on the data"),
    _bad("random numbers", _operator("RandomNormalLike"), "the same number"),
    _bad(
        "dropout in training",
        _made(
            [helper.make_node("Dropout", ["slices", "ratio", "yes"], ["y"]), _MEAN],
            [_weight("ratio", 0.5), _weight("yes", 1, np.bool_)],
        ),
        "Dropout as in training",
    ),
    _bad(
        "answer known beforehand",
        _made([helper.make_node("Identity", ["fixed"], ["logits"])], [_weight("fixed", [1.0])]),
        "does not depend on the input",
    ),
    _bad(
        "answer from the shape alone",
        _made(
            [
                helper.make_node("Shape", ["slices"], ["shape"]),
                helper.make_node("Gather", ["shape", "first"], ["items"]),
                helper.make_node("ConstantOfShape", ["items"], ["logits"]),
            ],
            [_weight("first", [0], np.int64)],
        ),
        "does not depend on the input",
    ),
    _bad(
        "giant that nothing uses",
        _spoilt(lambda m: m.graph.initializer.append(_weight("idle", np.zeros(1_000_000)))),
        "that nothing uses",
    ),
)

_TENSORS = (
    _bad(
        "weights elsewhere",
        _spoilt(lambda model: _external(model.graph.initializer[0])),
        "in another file",
    ),
    _bad("constant elsewhere", _external_constant(), "in another file"),
    _bad("gigantic weights", _spoilt(_with_weight(_declared(_FLOAT, [_GIGA]))), "another number"),
    _bad(
        "weights of overflowing size",
        _spoilt(_with_weight(_declared(_FLOAT, [1 << 32, 1 << 32, 1 << 32], b"1234"))),
        "another number",
    ),
    _bad("negative size", _spoilt(_with_weight(_declared(_FLOAT, [-4], b""))), "impossible"),
    _bad("lying size", _spoilt(_with_weight(_declared(_FLOAT, [3], b"12345678"))), "another numb"),
    _bad(
        "values in two places",
        _spoilt(
            _with_weight(
                TensorProto(data_type=_FLOAT, dims=[1], raw_data=b"1234", float_data=[1.0])
            )
        ),
        "another number",
    ),
    _bad("NaN weight", _spoilt(_with_weight(_weight("w", [1, np.nan]))), "NaN or infinity"),
    _bad("infinite weight", _spoilt(_with_weight(_weight("w", [1, np.inf]))), "NaN or infinity"),
    _bad(
        "NaN weight of half precision",
        _spoilt(_with_weight(_bits(TensorProto.FLOAT16, 0x7E00))),
        "NaN or infinity",
    ),
    _bad(
        "NaN weight of brain precision",
        _spoilt(_with_weight(_bits(TensorProto.BFLOAT16, 0x7FC0))),
        "NaN or infinity",
    ),
    _bad(
        "NaN weight of double precision",
        _spoilt(_with_weight(_weight("w", [1, np.nan], np.float64))),
        "NaN or infinity",
    ),
    _bad("NaN constant", _constant(value=_weight("c", [np.nan])), "NaN or infinity"),
    _bad("NaN attribute", _spoilt(_nan_attribute), "NaN or infinity"),
    _bad("sparse weights", _spoilt(_sparse), "sparse tensors"),
    _bad(
        "text weights",
        _spoilt(
            _with_weight(
                TensorProto(data_type=TensorProto.STRING, dims=[1], string_data=[b"x" * 99])
            )
        ),
        "not of plain numbers",
    ),
    _bad("text constant", _constant(value_string="x"), "text as a constant"),
    _bad(
        "numbers below a byte",
        _spoilt(_with_weight(_declared(TensorProto.FLOAT8E4M3FN, [1], b"1"))),
        "not of plain numbers",
    ),
)

_SHAPES = (
    _bad("other input name", _spoilt(lambda m: _rename(m, "slices", "voxels")), "has the inputs"),
    _bad("other output name", _spoilt(lambda m: _rename(m, "logits", "score")), "has the outputs"),
    _bad("second input", _spoilt(_second_input), "has the inputs"),
    _bad("sequence for an output", _spoilt(_sequence), "no tensor but sequence_type"),
    _bad("sequence inside", _sequence_inside(), "a sequence, or no plain tensor"),
    _bad(
        "input of another type",
        _spoilt(
            lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.DOUBLE)
        ),
        "ONNX type 11",
    ),
    _bad("input of another size", _spoilt(_widen), "has the inputs"),
    _bad(
        "lie about a shape inside",
        _spoilt(partial(_say_shape, "mean", _FLOAT, ("n", 77))),
        "ONNX checker",
    ),
    _bad(
        "lie about the batch inside",
        _spoilt(partial(_say_shape, "mean", _FLOAT, (1,))),
        "says that 'mean' has shape (1,)",
    ),
    _bad(
        "lie about the output",
        _made([helper.make_node("ReduceMean", ["slices"], ["logits"], axes=[1, 2], keepdims=0)]),
        "ONNX checker",
    ),
    _bad("giant constant", _giant_of_nothing(size=_weight("size", [_GIGA], np.int64)), "MiB, but"),
    _bad("giant by Expand", _grown("Expand", [1, 1 << 28, 8, 8]), "MiB, but"),
    _bad("giant by Tile", _grown("Tile", [1, 1 << 28, 1, 1]), "MiB, but"),
    _bad("giant by Pad", _grown("Pad", [0, 0, 0, 0, 0, 0, 1 << 20, 1 << 20]), "MiB, but"),
    _bad("giant by Resize", _grown("Resize", [1, 1, 9999, 9999], mode="nearest"), "MiB, but"),
    _bad("size made of pixels", _size_of_pixels(), "a size that depends on the pixels"),
    HostilePackage(
        name="giant of a size that nobody infers",
        spoil=_size_that_nobody_infers(),
        error="EngineLoadError or EngineRunError",  # ONNX Runtime 1.23 tries it while it loads
        reason="the back end",
    ),
)

HOSTILE_MODELS = (*_FILES, *_GRAPHS, *_TENSORS, *_SHAPES)

"""What honest models hold passes; hostile ones are the corpus of ``test_hostile_packages.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.errors import ModelFileError
from engines.loading import load_package
from engines.onnx_checks import check_model
from engines.onnx_tensors import check_tensor
from engines.protobuf_bounds import check_bounds


def check(builder: Any, model: onnx.ModelProto) -> None:
    builder.model = model.SerializeToString()
    check_model(load_package(builder.write()))


def network(
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto] | None = None,
    *,
    opset: int = 17,
    shapes: tuple[onnx.ValueInfoProto, ...] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("slabs", TensorProto.FLOAT, ("n", 2, 8, 8))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("n",))],
        weights or [],
        value_info=list(shapes),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def mean_of(name: str) -> onnx.NodeProto:
    return helper.make_node("ReduceMean", [name], ["logits"], axes=[1, 2, 3], keepdims=0)


def weight(name: str, values: Any, dtype: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def test_a_quantised_model_passes(builder: Any) -> None:
    kernel = np.ones((4, 2, 3, 3))
    model = network(
        [
            helper.make_node("QuantizeLinear", ["slabs", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
            helper.make_node("DequantizeLinear", ["kernel", "scale", "zero"], ["w"]),
            helper.make_node("Conv", ["x", "w"], ["y"]),
            mean_of("y"),
        ],
        [
            weight("scale", 0.02),
            weight("zero", 3, np.int8),
            weight("kernel", kernel, np.int8),
        ],
    )
    check(builder, model)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize("raw", [True, False])
def test_weights_of_other_precision_pass(builder: Any, kind: int, raw: bool) -> None:
    values = np.ones(4, dtype=np.float32)
    tensor = helper.make_tensor("kernel", kind, [4, 1], values.tolist())
    if raw and kind == TensorProto.BFLOAT16:
        tensor.ClearField("int32_data")
        tensor.raw_data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    elif raw:
        dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float64
        tensor = numpy_helper.from_array(values.astype(dtype).reshape(4, 1), "kernel")
    model = network(
        [
            helper.make_node("Cast", ["kernel"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["wide"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["slabs", "sum"], ["y"]),
            mean_of("y"),
        ],
        [tensor],
    )
    check(builder, model)


def test_a_network_that_resizes_pads_and_reshapes_by_its_own_shape_passes(builder: Any) -> None:
    model = network(
        [
            helper.make_node("Resize", ["slabs", "", "scales"], ["big"], mode="nearest"),
            helper.make_node("Pad", ["big", "pads"], ["padded"]),
            helper.make_node("Clip", ["padded", "zero", "no_limit"], ["clipped"]),
            helper.make_node("Shape", ["clipped"], ["shape"]),
            helper.make_node("Gather", ["shape", "first"], ["items"]),
            helper.make_node("Concat", ["items", "rest"], ["flat_shape"], axis=0),
            helper.make_node("Reshape", ["clipped", "flat_shape"], ["flat"]),
            helper.make_node("ReduceMean", ["flat"], ["logits"], axes=[1], keepdims=0),
        ],
        [
            weight("scales", [1, 1, 2, 2]),
            weight("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64),
            weight("zero", 0),
            weight("no_limit", np.inf),
            weight("first", [0], np.int64),
            weight("rest", [-1], np.int64),
        ],
    )
    check(builder, model)


def test_shapes_that_the_exporter_wrote_rightly_pass(builder: Any) -> None:
    relu = helper.make_tensor_value_info("relu", TensorProto.FLOAT, ("n", 2, 8, 8))
    check(
        builder,
        network([helper.make_node("Relu", ["slabs"], ["relu"]), mean_of("relu")], shapes=(relu,)),
    )


def test_an_output_that_does_not_follow_the_items_is_refused(builder: Any) -> None:
    model = network(
        [
            helper.make_node("ReduceMean", ["slabs"], ["mean"], keepdims=0),
            helper.make_node("Reshape", ["mean", "one"], ["logits"]),
        ],
        [weight("one", [1], np.int64)],
    )
    with pytest.raises(ModelFileError, match=r"has shape \(1,\) for 32 items"):
        check(builder, model)


def test_a_tensor_larger_than_the_declared_memory_is_refused(builder: Any) -> None:
    tile = helper.make_node("Tile", ["slabs", "times"], ["y"])
    model = network([tile, mean_of("y")], [weight("times", [1, 1, 200, 200], np.int64)])
    builder.manifest = builder.manifest.replace(
        "[selection]", "[requires]\nmemory_mib = 624\n\n[selection]"
    )
    with pytest.raises(ModelFileError, match=r"'y' in model\.onnx takes 625 MiB"):
        check(builder, model)
    builder.manifest = builder.manifest.replace("memory_mib = 624", "memory_mib = 625")
    check(builder, model)


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE]
)
def test_weights_that_are_not_finite_are_refused_in_every_type(kind: int, fill: float) -> None:
    sound, spoilt = np.ones(3), np.array([1, fill, 1])
    check_tensor(helper.make_tensor("w", kind, [3], sound.tolist()))
    with pytest.raises(ModelFileError, match="NaN or infinity"):
        check_tensor(helper.make_tensor("w", kind, [3], spoilt.tolist()))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_a_single_infinity_is_a_bound_and_a_single_nan_is_not(kind: int) -> None:
    check_tensor(helper.make_tensor("w", kind, [], [np.inf]))
    with pytest.raises(ModelFileError, match="NaN or infinity"):
        check_tensor(helper.make_tensor("w", kind, [], [np.nan]))


def test_an_empty_tensor_is_a_tensor() -> None:
    check_tensor(weight("roi", []))


def test_fields_are_counted_at_every_depth_and_weights_are_stepped_over() -> None:
    model = network([mean_of("slabs")], [weight("w", np.zeros(100_000))])
    content, kind = model.SerializeToString(), onnx.ModelProto.DESCRIPTOR
    check_bounds(content, kind, max_fields=100, max_text_bytes=100)
    with pytest.raises(ModelFileError, match="more than 20 fields"):
        check_bounds(content, kind, max_fields=20, max_text_bytes=100)
    with pytest.raises(ModelFileError, match="text of more than 5 bytes"):
        check_bounds(content, kind, max_fields=100, max_text_bytes=5)


@pytest.mark.parametrize(
    "content", [b"\xff" * 40, b"\x3a\xff\xff\xff\xff\xff\x7f", b"\x3a", b"\x0b"]
)
def test_what_is_no_protobuf_is_left_to_the_parser(content: bytes) -> None:
    check_bounds(content, onnx.ModelProto.DESCRIPTOR, max_fields=100, max_text_bytes=100)

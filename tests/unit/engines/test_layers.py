"""The first tensor from which two engines part is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, Engine, EngineOptions, Precision
from engines.errors import ModelFileError
from engines.layers import LayerReport, Side, compare_layers, find_culprit
from engines.loading import load_package
from engines.onnx_layers import inner_tensors, with_outputs
from engines.shipped import shipped_packages

FLOAT = TensorProto.FLOAT
GIVEN = np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype(np.float32)


def opened(file: VerifiedFile) -> Engine:
    return open_engine(Backend.ONNXRUNTIME, file, EngineOptions(check_values=False))


def network(**weights: float) -> bytes:
    """Four layers in two branches; ``weights`` scale one layer's weights each, by its name."""
    random = np.random.default_rng(7)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = random.normal(size=shape) * weights.get(name, 1.0) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), f"{name}.weight")

    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "stem.weight"], ["stem"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["stem"], ["stem.relu"]),
            helper.make_node("Conv", ["stem.relu", "left.weight"], ["left"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["stem.relu", "right.weight"], ["right"], pads=[1, 1, 1, 1]),
            helper.make_node("Add", ["left", "right"], ["joined"]),
            helper.make_node("ReduceMean", ["joined"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Gemm", ["mean", "head.weight"], ["y"]),
        ],
        "branches",
        [helper.make_tensor_value_info("x", FLOAT, ("n", 3, 8, 8))],
        [helper.make_tensor_value_info("y", FLOAT, ("n", 1))],
        [
            weight("stem", 8, 3, 3, 3),
            weight("left", 8, 8, 3, 3),
            weight("right", 8, 8, 3, 3),
            weight("head", 8, 1),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def compared(candidate: bytes, *, limit: float = 1e-3, most_tensors: int = 64) -> LayerReport:
    return compare_layers(
        Side(model=candidate, open=opened),
        Side(model=network(), open=opened),
        {"x": GIVEN},
        limit=limit,
        most_tensors=most_tensors,
    )


def test_two_equal_engines_part_nowhere() -> None:
    report = compared(network())
    assert report.culprit is None
    assert [layer.tensor for layer in report.layers] == [
        "stem",
        "stem.relu",
        "left",
        "right",
        "joined",
        "mean",
        "y",
    ]
    assert all(layer.relative < 1e-5 and layer.cosine > 0.9999 for layer in report.layers)
    assert report.uncompared == ()


@pytest.mark.parametrize(
    ("layer", "sound"),
    [("stem", set()), ("left", {"stem", "right"}), ("right", {"stem", "left"})],
)
@pytest.mark.parametrize("most_tensors", [1, 3, 64])
def test_a_broken_layer_is_the_culprit(layer: str, sound: set[str], most_tensors: int) -> None:
    report = compared(network(**{layer: 1.05}), most_tensors=most_tensors)
    assert report.culprit is not None
    assert (report.culprit.tensor, report.culprit.operator) == (layer, "Conv")
    assert report.culprit.relative == pytest.approx(0.05, rel=1e-3)
    off = {each.tensor for each in report.layers if each.parts}
    assert off >= {layer, "joined", "y"}
    assert off.isdisjoint(sound)


def test_the_last_layer_is_named_by_the_models_output() -> None:
    report = compared(network(head=-1.0))
    assert report.culprit is not None
    assert (report.culprit.tensor, report.culprit.operator) == ("y", "Gemm")
    assert report.culprit.cosine == pytest.approx(-1.0)


def test_what_is_below_the_limit_is_shown_and_no_culprit() -> None:
    report = compared(network(left=1.005), limit=0.1)
    assert report.culprit is None
    assert max(layer.relative for layer in report.layers) == pytest.approx(0.005, rel=1e-2)


def test_a_layer_that_gives_nan_is_the_culprit() -> None:
    report = compared(network(right=float("nan")))
    assert report.culprit is not None
    assert report.culprit.tensor == "right"
    assert report.culprit.max_absolute == float("inf")


def test_a_layer_in_half_precision_is_compared_as_it_is() -> None:
    model = onnx.load_model_from_string(network())
    for tensor in model.graph.initializer:
        halves = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(halves, tensor.name))
    nodes = list(model.graph.node)
    nodes[0].input[0] = "x16"
    nodes[-1].output[0] = "y16"
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.FLOAT16),
            *nodes,
            helper.make_node("Cast", ["y16"], ["y"], to=FLOAT),
        ]
    )
    candidate = model.SerializeToString()
    report = compared(candidate, limit=3e-2)
    assert report.culprit is None
    assert 1e-5 < max(layer.relative for layer in report.layers) < 1e-2
    assert {layer.tensor for layer in report.layers} >= {"stem", "left", "right", "joined", "y"}
    assert compared(candidate, limit=1e-5).culprit is not None


def test_a_tensor_that_only_one_has_is_listed_and_not_compared() -> None:
    model = onnx.load_model_from_string(network())
    model.graph.node[1].output[0] = model.graph.node[2].input[0] = "renamed"
    model.graph.node[3].input[0] = "renamed"
    report = compared(model.SerializeToString())
    assert report.uncompared == ("stem.relu",)
    assert report.culprit is None


def test_a_tensor_of_another_shape_is_listed_and_not_compared() -> None:
    model = onnx.load_model_from_string(network())
    model.graph.node[5].attribute[1].i = 1
    model.graph.node[5].output[0] = "mean.kept"
    model.graph.node.insert(6, helper.make_node("Flatten", ["mean.kept"], ["mean.flat"], axis=1))
    model.graph.node.insert(7, helper.make_node("Unsqueeze", ["mean.flat", "first"], ["mean"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    model.graph.node[8].input[0] = "mean.flat"
    report = compared(model.SerializeToString())
    assert report.uncompared == ("mean",)
    assert report.culprit is None


def test_the_model_itself_is_left_as_it_was() -> None:
    model = network()
    with_outputs(model, ["stem", "joined"])
    assert [each.name for each in onnx.load_model_from_string(model).graph.output] == ["y"]


def test_what_does_not_depend_on_the_input_is_no_layer() -> None:
    model = onnx.load_model_from_string(network())
    model.graph.node.insert(0, helper.make_node("Neg", ["left.weight"], ["negated"]))
    names = [tensor.name for tensor in inner_tensors(model.SerializeToString())]
    assert "negated" not in names
    assert names[0] == "stem"


def test_other_types_than_floats_are_no_layers() -> None:
    model = onnx.load_model_from_string(network())
    model.graph.node.append(helper.make_node("Shape", ["joined"], ["sizes"]))
    assert "sizes" not in [tensor.name for tensor in inner_tensors(model.SerializeToString())]


def test_a_tensor_that_is_not_there_cannot_be_made_an_output() -> None:
    with pytest.raises(ModelFileError, match="no tensor of floats named 'nowhere'"):
        with_outputs(network(), ["nowhere"])


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        inner_tensors(b"\xff\xff\xff")


@pytest.mark.parametrize("batch", ["n", 1, 3, 8])
def test_a_package_is_compared_on_its_golden_inputs_in_the_models_batch(
    builder: Any, make_model: Callable[..., onnx.ModelProto], batch: str | int
) -> None:
    model = make_model(input_shape=(batch, 2, 8, 8))
    if isinstance(batch, int):
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = batch
        builder.manifest = builder.manifest.replace(
            "shape = [-1, 2, 8, 8]", f"shape = [{batch}, 2, 8, 8]"
        ).replace("shape = [-1]", f"shape = [{batch}]")
    builder.model = model.SerializeToString()
    report = find_culprit(load_package(builder.write()), opened, opened)
    assert [layer.tensor for layer in report.layers] == ["mean", "centred", "logits"]
    assert report.culprit is None


@pytest.mark.parametrize("name", list(shipped_packages()))
def test_the_shipped_models_can_be_looked_into(name: str) -> None:
    package = load_package(shipped_packages()[name])
    threads = EngineOptions(intra_op_threads=2, check_values=False)
    report = find_culprit(
        package,
        lambda file: open_engine(Backend.ONNXRUNTIME, file, threads),
        opened,
        precision=Precision.FP32,
    )
    assert report.culprit is None
    assert len(report.layers) > 20

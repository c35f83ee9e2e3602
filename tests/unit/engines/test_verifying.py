"""A package as it arrives: everything wrong with its model file is found before it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper

import engines.onnx_graph
from engines.contract import Backend, EngineOptions
from engines.errors import GoldenFileError, ModelFileError
from engines.verifying import verify_package


def verify(builder: Any, model: onnx.ModelProto | bytes) -> None:
    builder.model = model if isinstance(model, bytes) else model.SerializeToString()
    verify_package(builder.write(), Backend.ONNXRUNTIME, EngineOptions())


def test_a_good_package_passes_with_its_parity(builder: Any) -> None:
    report = verify_package(builder.write(), Backend.ONNXRUNTIME, EngineOptions())
    assert report.holds
    assert report.flips == 0


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"not a model"])
def test_bytes_that_are_no_model_are_refused(builder: Any, content: bytes) -> None:
    with pytest.raises(ModelFileError):
        verify(builder, content)


def test_weights_in_another_file_are_refused(builder: Any, make_model: Any) -> None:
    model = make_model()
    tensor = model.graph.initializer[0]
    tensor.raw_data = np.float32(0.5).tobytes()
    tensor.ClearField("float_data")
    external_data_helper.set_external_data(tensor, "../../outside", 0, 4)
    tensor.ClearField("raw_data")
    with pytest.raises(ModelFileError, match="in another file"):
        verify(builder, model)


def test_a_constant_in_another_file_is_refused(builder: Any, make_model: Any) -> None:
    hidden = helper.make_tensor("hidden", TensorProto.FLOAT, [], [0.5])
    model = make_model([helper.make_node("Constant", [], ["logits"], value=hidden)])
    constant = model.graph.node[0].attribute[0].t
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(ModelFileError, match="in another file"):
        verify(builder, model)


@pytest.mark.parametrize("opset", [9, 12, 21])
def test_an_opset_that_not_every_back_end_reads_is_refused(
    builder: Any, make_model: Any, opset: int
) -> None:
    with pytest.raises(ModelFileError, match="13 to 20"):
        verify(builder, make_model(opset=opset))


def test_operators_of_another_domain_are_refused(builder: Any, make_model: Any) -> None:
    model = make_model()
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelFileError, match=r"com\.example"):
        verify(builder, model)
    model = make_model()
    model.graph.node[1].domain = "com.example"
    with pytest.raises(ModelFileError, match=r"com\.example"):
        verify(builder, model)


def test_a_local_function_is_refused(builder: Any, make_model: Any) -> None:
    model = make_model()
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
    with pytest.raises(ModelFileError, match="local functions"):
        verify(builder, model)


@pytest.mark.parametrize(
    ("operator", "words"),
    [("RandomNormalLike", "the same number"), ("Loop", "depends on the data")],
)
def test_work_that_is_not_the_same_each_time_is_refused(
    builder: Any, make_model: Any, operator: str, words: str
) -> None:
    with pytest.raises(ModelFileError, match=words):
        verify(builder, make_model([helper.make_node(operator, ["slabs"], ["logits"])]))


def test_a_graph_hidden_in_an_ordinary_node_is_refused(builder: Any, make_model: Any) -> None:
    model = make_model()
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("body", inner))
    with pytest.raises(ModelFileError, match="a graph within 'ReduceMean'"):
        verify(builder, model)


def test_a_graph_without_end_is_refused(
    builder: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.onnx_graph, "MAX_NODES", 2)
    with pytest.raises(ModelFileError, match="3 nodes, not 1 to 2"):
        verify(builder, make_model())


def test_what_the_onnx_checker_refuses_is_refused(builder: Any, make_model: Any) -> None:
    nodes = [helper.make_node("Softmax", ["slabs"], ["logits"], surprise=1)]
    with pytest.raises(ModelFileError, match="ONNX checker"):
        verify(builder, make_model(nodes))


def test_a_value_that_nothing_makes_is_refused(builder: Any, make_model: Any) -> None:
    with pytest.raises(ModelFileError, match="reads 'nowhere' before anything makes it"):
        verify(builder, make_model([helper.make_node("Relu", ["nowhere"], ["logits"])]))


def test_shapes_that_cannot_be_are_refused(builder: Any, make_model: Any) -> None:
    # Rows of 8 by 8 multiplied with a scalar matrix: no shape follows.
    with pytest.raises(ModelFileError, match="ONNX checker"):
        verify(builder, make_model([helper.make_node("MatMul", ["slabs", "half"], ["logits"])]))


@pytest.mark.parametrize(
    "model_arguments",
    [{"output": "scores"}, {"input_shape": ("n", 3, 8, 8)}, {"input_shape": (4, 2, 8, 8)}],
    ids=str,
)
def test_tensors_that_package_toml_does_not_name_are_refused(
    builder: Any, make_model: Any, model_arguments: dict[str, Any]
) -> None:
    with pytest.raises(ModelFileError, match=r"package\.toml says"):
        verify(builder, make_model(**model_arguments))


@pytest.mark.parametrize("element_type", [TensorProto.DOUBLE, TensorProto.STRING, 999])
def test_tensors_of_another_type_are_refused(
    builder: Any, make_model: Any, element_type: int
) -> None:
    model = make_model()
    model.graph.input[0].type.tensor_type.elem_type = element_type
    with pytest.raises(ModelFileError, match=r"package\.toml says"):
        verify(builder, model)


@pytest.mark.parametrize("kept", [slice(0, 3), slice(3, 6)], ids=["negative", "positive"])
def test_golden_tensors_that_could_not_show_a_flip_are_refused(builder: Any, kept: slice) -> None:
    builder.golden_inputs = builder.golden_inputs[kept]
    builder.golden_outputs = builder.golden_outputs[kept]
    with pytest.raises(GoldenFileError, match="one side of the operating point"):
        verify_package(builder.write(), Backend.ONNXRUNTIME, EngineOptions())

"""Q/DQ nodes are of the kind that every engine takes, and a head stays in FP32."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.onnx_checks import read_boundary
from engines.package import InputRule
from tools.quantise.errors import UnquantisableError
from tools.quantise.methods import Method
from tools.quantise.network import Quantised, batches_of, quantise_model, rounding_deviation

FLOAT = TensorProto.FLOAT
ITEMS = np.random.default_rng(3).normal(size=(12, 3, 8, 8)).astype(np.float32)


def rule_of(batch: int = -1) -> InputRule:
    return InputRule(name="x", dtype="float32", shape=(batch, 3, 8, 8))


def network(batch: str | int = "n", operator: str = "Conv") -> bytes:
    """Two layers with a bias each, joined around by a sum, and a head."""
    random = np.random.default_rng(7)

    def tensor(name: str, *shape: int) -> onnx.TensorProto:
        values = random.normal(size=shape) / math.sqrt(math.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    def layer(name: str, given: str) -> onnx.NodeProto:
        if operator == "Conv":
            return helper.make_node(
                "Conv", [given, f"{name}.w", f"{name}.b"], [name], name=name, pads=[1, 1, 1, 1]
            )
        return helper.make_node("PRelu", [given, f"{name}.b"], [name], name=name)

    second = 8 if operator == "Conv" else 3
    graph = helper.make_graph(
        [
            layer("stem", "x"),
            helper.make_node("Relu", ["stem"], ["relu"], name="relu"),
            layer("body", "relu"),
            helper.make_node("Add", ["body", "relu"], ["joined"], name="joined"),
            helper.make_node(
                "ReduceMean", ["joined"], ["mean"], name="mean", axes=[2, 3], keepdims=0
            ),
            helper.make_node("Gemm", ["mean", "head.w"], ["y"], name="head"),
        ],
        "two",
        [helper.make_tensor_value_info("x", FLOAT, (batch, 3, 8, 8))],
        [helper.make_tensor_value_info("y", FLOAT, (batch, 1))],
        [
            *((tensor("stem.w", 8, 3, 3, 3), tensor("body.w", 8, 8, 3, 3)) * (operator == "Conv")),
            tensor("stem.b", *((8,) if operator == "Conv" else (3, 1, 1))),
            tensor("body.b", *((8,) if operator == "Conv" else (3, 1, 1))),
            tensor("head.w", second, 1),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture(scope="module")
def quantised() -> Quantised:
    return quantise_model(network(), rule_of(), ITEMS, Method.MINMAX)


def outputs(model: bytes, items: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given: NDArray[np.float32] = session.run(None, {"x": items})[0]
    return given


def test_it_is_a_model_that_a_package_may_hold_with_the_same_tensors(quantised: Quantised) -> None:
    assert read_boundary(quantised.model) == read_boundary(network())


def test_it_computes_nearly_what_the_model_did(quantised: Quantised) -> None:
    before, after = outputs(network(), ITEMS), outputs(quantised.model, ITEMS)
    assert 0 < np.abs(after - before).max() < 0.05 * np.abs(before).max()


def test_weights_have_eight_bits_for_each_channel_and_biases_stay_whole(
    quantised: Quantised,
) -> None:
    graph = onnx.load_model_from_string(quantised.model).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    by_type = [(array.dtype, array.shape) for array in arrays.values() if array.dtype == np.int8]
    assert (np.dtype(np.int8), (8, 3, 3, 3)) in by_type
    assert (np.dtype(np.int8), (8, 8, 3, 3)) in by_type
    assert not any(array.dtype == np.int32 for array in arrays.values())
    assert arrays["stem.b"].dtype == np.float32
    scales = [
        arrays[node.input[1]].shape
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays
    ]
    assert scales == [(8,), (8,)]


@pytest.mark.parametrize("method", list(Method))
def test_everything_is_symmetric_around_zero(method: Method) -> None:
    made = quantise_model(network(), rule_of(), ITEMS, method)
    graph = onnx.load_model_from_string(made.model).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    zeros = [
        arrays[node.input[2]]
        for node in graph.node
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}
    ]
    assert len(zeros) >= 6
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)


def test_what_comes_after_the_last_layer_stays_in_fp32(quantised: Quantised) -> None:
    assert (quantised.layers, quantised.kept) == (2, ("head", "joined", "mean"))
    nodes = onnx.load_model_from_string(quantised.model).graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    (head,) = (node for node in nodes if node.name == "head")
    assert makers[head.input[0]] == "ReduceMean"


def test_a_layer_may_be_kept_in_fp32() -> None:
    made = quantise_model(network(), rule_of(), ITEMS, Method.MINMAX, keep=("stem",))
    assert (made.layers, made.kept) == (1, ("head", "joined", "mean", "stem"))
    arrays = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_model_from_string(made.model).graph.initializer
    }
    assert arrays["stem.w"].dtype == np.float32


@pytest.mark.parametrize("batch", [1, 5, 12, 16])
def test_a_model_of_a_fixed_batch_is_quantised(batch: int) -> None:
    made = quantise_model(network(batch), rule_of(batch), ITEMS, Method.PERCENTILE)
    assert made.layers == 2


def test_the_last_batch_is_filled_up_with_its_last_item() -> None:
    batches = list(batches_of(rule_of(5), ITEMS))
    assert [len(batch) for batch in batches] == [5, 5, 5]
    np.testing.assert_array_equal(batches[2], ITEMS[[10, 11, 11, 11, 11]])
    assert [len(batch) for batch in batches_of(rule_of(), ITEMS)] == [1] * 12


def test_engines_that_run_it_are_a_rounding_apart_and_not_more(quantised: Quantised) -> None:
    largest = np.abs(outputs(quantised.model, ITEMS)).max()
    assert 0 <= rounding_deviation(quantised.model, rule_of(), ITEMS) < 0.05 * largest


def test_a_model_with_such_nodes_is_not_quantised_again(quantised: Quantised) -> None:
    with pytest.raises(UnquantisableError, match="already"):
        quantise_model(quantised.model, rule_of(), ITEMS, Method.MINMAX)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(UnquantisableError, match="no convolution or matrix product"):
        quantise_model(network(operator="PRelu"), rule_of(), ITEMS, Method.MINMAX)


def test_keeping_every_layer_leaves_nothing_to_quantise() -> None:
    with pytest.raises(UnquantisableError, match="no convolution or matrix product"):
        quantise_model(network(), rule_of(), ITEMS, Method.MINMAX, keep=("stem", "body"))


def test_a_node_that_is_not_there_cannot_be_kept() -> None:
    with pytest.raises(UnquantisableError, match=r"no node 'nowhere'.*body, head"):
        quantise_model(network(), rule_of(), ITEMS, Method.MINMAX, keep=("nowhere",))


def test_nothing_is_printed_where_a_report_goes(capfd: pytest.CaptureFixture[str]) -> None:
    quantise_model(network(), rule_of(), ITEMS, Method.PERCENTILE)
    assert capfd.readouterr().out == ""

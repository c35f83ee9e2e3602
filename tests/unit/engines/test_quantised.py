from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper
from simulators.processor_time import at_most

from engines.quantised import QUANTISING, is_quantised

_ROOM_BYTES = 1 << 20


def model_of(*nodes: NodeProto, name: str = "x", weights: bytes = b"") -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "QuantizeLinear",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))],
        [numpy_helper.from_array(np.frombuffer(weights, np.int8), "weights")],
        doc_string="DequantizeLinear",
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


RELU = helper.make_node("Relu", ["x"], ["y"])


@pytest.mark.parametrize("operator", sorted(QUANTISING))
@pytest.mark.parametrize("before", [0, 1, 300])
def test_one_node_among_any_number_is_found(operator: str, before: int) -> None:
    nodes = [RELU] * before + [helper.make_node(operator, ["x", "s", "z"], ["y"])]
    assert is_quantised(model_of(*nodes, RELU, weights=b"\x0a" * 5000))


@pytest.mark.parametrize(
    "make",
    [
        lambda name: model_of(RELU, weights=name.encode("ascii")),
        lambda name: model_of(helper.make_node("Relu", [name], ["y"], name=name), name=name),
        lambda name: model_of(helper.make_node("Relu", ["x"], ["y"], doc_string=name)),
        lambda name: model_of(helper.make_node(f"My{name}", ["x"], ["y"])),
        # A whole model of this kind, as a constant.
        lambda name: model_of(RELU, weights=model_of(helper.make_node(name, ["x"], ["y"]))),
    ],
    ids=["weights", "names", "text", "other operator", "model as weights"],
)
def test_the_word_elsewhere_is_no_node(make: Callable[[str], bytes]) -> None:
    for name in QUANTISING:
        content = make(name)
        assert name.encode("ascii") in content
        assert not is_quantised(content)


def test_weights_are_stepped_over() -> None:
    content = model_of(RELU, weights=bytes(200 << 20))
    tracemalloc.start()
    try:
        with at_most(2.0):
            assert not is_quantised(content)
        assert tracemalloc.get_traced_memory()[1] < _ROOM_BYTES
    finally:
        tracemalloc.stop()


WHOLE = model_of(helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"]), weights=bytes(99))


@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.integers(0, len(WHOLE)).map(lambda length: WHOLE[:length]),
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)).map(
            lambda change: WHOLE[: change[0]] + bytes([change[1]]) + WHOLE[change[0] + 1 :]
        ),
    )
)
def test_what_is_malformed_is_read_to_some_end(content: bytes) -> None:
    assert is_quantised(content) in {True, False}


def test_it_says_what_onnx_reads() -> None:
    proto = onnx.load_model_from_string(WHOLE)
    assert any(node.op_type in QUANTISING for node in proto.graph.node)
    assert is_quantised(WHOLE)


def test_it_needs_no_onnx() -> None:
    code = "import sys, engines.quantised; print('onnx' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "False"

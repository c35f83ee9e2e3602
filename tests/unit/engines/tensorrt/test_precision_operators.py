"""The operators of the networks of the field, each alone.

In FP16 they answer nearly the same, and the real TensorRT-RTX builds both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx.checker
import pytest
from numpy.typing import NDArray
from onnx import NodeProto
from simulators.small_models import node, small_model

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions, Precision
from engines.tensorrt.building import BuildRequest, build_plan
from engines.tensorrt.library import TensorRtLibrary
from engines.tensorrt.precision import with_precision

SHAPE = (1, 4, 8, 8)


def some(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).random(shape, dtype=np.float32) + np.float32(0.1)


def whole(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def number(value: float) -> NDArray[np.float32]:
    return np.array(value, dtype=np.float32)


@dataclass(frozen=True)
class Case:
    """A small network."""

    name: str
    nodes: Sequence[NodeProto]
    weights: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    output: tuple[int, ...] = SHAPE

    def model(self) -> bytes:
        return small_model(
            self.nodes, shape=SHAPE, output_shape=self.output, weights=dict(self.weights)
        )


def plain(operator: str, output: tuple[int, ...] = SHAPE, **attributes: Any) -> Case:
    """An operator of one input."""
    return Case(operator, [node(operator, ["x"], ["y"], **attributes)], output=output)


def of(
    operator: str,
    weights: Mapping[str, NDArray[Any]],
    output: tuple[int, ...] = SHAPE,
    **attributes: Any,
) -> Case:
    """An operator of the input and some weights, in their order."""
    return Case(operator, [node(operator, ["x", *weights], ["y"], **attributes)], weights, output)


NORM = {"s": some(4), "b": some(4)}
CASES = (
    *(plain(each) for each in ("Dropout", "Elu", "Erf", "HardSigmoid", "HardSwish", "LeakyRelu")),
    *(plain(each) for each in ("Sigmoid", "Sqrt", "Tanh", "ThresholdedRelu")),
    plain("AveragePool", (1, 4, 4, 4), kernel_shape=[2, 2], strides=[2, 2]),
    plain("DepthToSpace", (1, 1, 16, 16), blocksize=2),
    plain("GlobalAveragePool", (1, 4, 1, 1)),
    plain("LRN", size=3),
    plain("MaxPool", (1, 4, 4, 4), kernel_shape=[2, 2], strides=[2, 2]),
    plain("ReduceMax", (1, 4, 1, 1), axes=[2, 3]),
    plain("ReduceMean", (1, 4, 1, 1), axes=[2, 3]),
    plain("Softmax", axis=1),
    plain("Transpose", (1, 8, 8, 4), perm=[0, 2, 3, 1]),
    of("BatchNormalization", {**NORM, "m": some(4), "v": some(4)}),
    of("Clip", {"low": number(0), "high": number(6)}),
    of("Conv", {"w": some(4, 4, 3, 3), "b": some(4)}, pads=[1] * 4),
    of("ConvTranspose", {"w": some(4, 4, 2, 2)}, (1, 4, 16, 16), strides=[2, 2]),
    of("CumSum", {"axis": np.array(1)}),
    of("Einsum", {"w": some(4, 4)}, equation="nchw,dc->ndhw"),
    of("Gather", {"which": whole(0, 2)}, (1, 2, 8, 8), axis=1),
    of("GridSample", {"grid": some(1, 8, 8, 2)}),
    of("InstanceNormalization", NORM),
    of("LayerNormalization", {"s": some(8), "b": some(8)}, axis=-1),
    of("MatMul", {"w": some(8, 8)}),
    of("Max", {"z": number(0.5)}),
    of("PRelu", {"s": some(4, 1, 1)}),
    of("Pad", {"by": whole(0, 0, 1, 1, 0, 0, 1, 1), "with": number(0)}, (1, 4, 10, 10)),
    of("Pow", {"e": number(2)}),
    of("Slice", {"from": whole(0), "to": whole(2), "axes": whole(1)}, (1, 2, 8, 8)),
    Case("Concat", [node("Relu", ["x"], ["a"]), node("Concat", ["x", "a"], ["y"], axis=1)],
         output=(1, 8, 8, 8)),
    Case("Gemm", [node("Flatten", ["x"], ["a"]), node("Gemm", ["a", "w", "b"], ["y"])],
         {"w": some(256, 3), "b": some(3)}, (1, 3)),
    Case("Expand", [node("Relu", ["x"], ["a"]), node("Expand", ["a", "to"], ["y"])],
         {"to": whole(2, 4, 8, 8)}, (2, 4, 8, 8)),
    Case("Resize to sizes", [node("Resize", ["x", "", "", "to"], ["y"], mode="linear")],
         {"to": whole(1, 4, 16, 16)}, (1, 4, 16, 16)),
    Case("Resize by scales", [node("Resize", ["x", "", "by"], ["y"], mode="linear")],
         {"by": np.array([1, 1, 2, 2], dtype=np.float32)}, (1, 4, 16, 16)),
    Case("Split", [node("Split", ["x"], ["a", "b"], axis=1), node("Add", ["a", "b"], ["y"])],
         output=(1, 2, 8, 8)),
    Case("Sum", [node("Relu", ["x"], ["a"]), node("Sum", ["x", "a", "x"], ["y"])]),
    Case("TopK", [node("TopK", ["x", "k"], ["y", "places"])], {"k": whole(2)}, (1, 4, 8, 2)),
    Case("Where", [node("Greater", ["x", "z"], ["c"]), node("Where", ["c", "x", "z"], ["y"])],
         {"z": number(0.5)}),
    Case("ConstantOfShape",
         [node("Shape", ["x"], ["sizes"]), node("ConstantOfShape", ["sizes"], ["zeros"]),
          node("Add", ["x", "zeros"], ["y"])]),
    Case("LSTM",
         [node("Reshape", ["x", "to"], ["a"]),
          node("LSTM", ["a", "w", "r"], ["b"], hidden_size=4), node("Relu", ["b"], ["y"])],
         {"to": whole(8, 1, 32), "w": some(1, 16, 32), "r": some(1, 16, 4)}, (8, 1, 1, 4)),
    Case("group normalisation",
         [node("Reshape", ["x", "groups"], ["a"]),
          node("InstanceNormalization", ["a", "s", "b"], ["c"]),
          node("Shape", ["x"], ["sizes"]), node("Reshape", ["c", "sizes"], ["y"])],
         {"groups": whole(0, 2, -1), "s": some(2), "b": some(2)}),
)  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def model(request: pytest.FixtureRequest) -> bytes:
    case: Case = request.param
    return case.model()


def answer(model: bytes, folder: Path) -> NDArray[Any]:
    """Of the reference."""
    digest = hashlib.sha256(model).hexdigest()
    path = folder / f"{digest}.onnx"
    path.write_bytes(model)
    file = VerifiedFile(path=path, sha256=digest)
    with open_engine(Backend.ONNXRUNTIME, file, EngineOptions()) as engine:
        return engine.run({"x": some(*SHAPE)})["y"]


def test_an_operator_in_fp16_answers_nearly_the_same(model: bytes, tmp_path: Path) -> None:
    rewritten = with_precision(model, Precision.FP16)
    onnx.checker.check_model(rewritten, full_check=True)
    found = answer(rewritten, tmp_path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, answer(model, tmp_path), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("precision", Precision, ids=lambda each: each.value)
def test_an_operator_becomes_a_plan(
    rtx: TensorRtLibrary, model: bytes, precision: Precision
) -> None:
    assert build_plan(rtx, model, BuildRequest(precision=precision)).plan

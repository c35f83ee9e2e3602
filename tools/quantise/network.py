"""Puts Q/DQ nodes into a model, by ONNX Runtime's static quantisation.

What comes after the last convolutions stays in FP32: it costs nothing, and an output in 255 steps
would be far coarser than the layers before it are.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

# Before the library: it silences what the library would tell its maker.
import engines.onnxruntime_engine  # noqa: F401
from engines.package import InputRule
from engines.steps import FREE
from tools.quantise.errors import UnquantisableError
from tools.quantise.methods import Method

import onnxruntime  # type: ignore[import-untyped]  # isort: skip  # it ships no types
from onnxruntime.quantization import (  # type: ignore[import-untyped]  # isort: skip
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import (  # type: ignore[import-untyped]  # isort: skip
    quant_pre_process,
)

Float32 = NDArray[np.float32]

_QUANTISING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_LAYERS = frozenset({"Conv", "ConvTranspose", "MatMul"})
"""After the last of which all stays in FP32. Not Gemm: a head is one."""

_OPTIONS = {
    # What TensorRT's strongly typed networks take; asymmetric ones and INT32 biases they refuse.
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
}


_METHODS = {
    Method.MINMAX: CalibrationMethod.MinMax,
    Method.PERCENTILE: CalibrationMethod.Percentile,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """A model with Q/DQ nodes."""

    model: bytes
    layers: int
    """Convolutions and matrix products with eight-bit weights."""
    kept: tuple[str, ...]
    """Nodes that stay in FP32."""


def quantise_model(
    model: bytes, rule: InputRule, items: Float32, method: Method, keep: Sequence[str] = ()
) -> Quantised:
    """Returns the model with Q/DQ nodes.

    Args:
        model: An ONNX file that ``engines.onnx_checks`` has passed.
        rule: Of the model's input.
        items: To calibrate with, (items, ...).
        method: How ranges are taken from them.
        keep: Names of further nodes that stay in FP32.

    Raises:
        UnquantisableError: It has Q/DQ nodes already, nothing to quantise, or no such node.
    """
    parsed = onnx.load_model_from_string(model)
    if any(node.op_type in _QUANTISING for node in parsed.graph.node):
        raise UnquantisableError("the model has Q/DQ nodes already; take the package it came from")
    with tempfile.TemporaryDirectory(prefix="edge-triage-quantise-") as folder, _told_on_stderr():
        prepared, done = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        # Folds batch normalisation and constants; shapes are known without guessing at symbols.
        quant_pre_process(parsed, str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(str(prepared)).graph
        kept = _kept(graph, keep)
        if not any(node.op_type in _LAYERS and node.name not in kept for node in graph.node):
            raise UnquantisableError(
                "the model has no convolution or matrix product that could be quantised"
            )
        quantize_static(
            str(prepared),
            str(done),
            _Reader(rule, items),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=_METHODS[method],
            nodes_to_exclude=list(kept),
            extra_options=_OPTIONS,
        )
        return _finished(onnx.load(str(done)), kept)


def rounding_deviation(model: bytes, rule: InputRule, items: Float32) -> float:
    """How far two ways of computing the same Q/DQ model are apart.

    One engine multiplies bytes, another the numbers that they stand for: where a sum lies between
    two steps, they take different ones. No engine is nearer to another than that.

    Returns:
        Largest absolute difference of an output between ONNX Runtime's INT8 layers and the same
        graph node by node.
    """
    levels = onnxruntime.GraphOptimizationLevel
    joined, plain = (
        _outputs(model, rule, items, each)
        for each in (levels.ORT_ENABLE_ALL, levels.ORT_DISABLE_ALL)
    )
    return max(float(np.abs(a - b).max()) for a, b in zip(joined, plain, strict=True))


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # it ships no types
    def __init__(self, rule: InputRule, items: Float32) -> None:
        self._name = rule.name
        self._batches = batches_of(rule, items)

    def get_next(self) -> dict[str, Float32] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def batches_of(rule: InputRule, items: Float32) -> Iterator[Float32]:
    """The items in batches of one size, which the library wants; the last is filled up."""
    size = 1 if rule.shape[0] == FREE else rule.shape[0]
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        yield np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])


def _outputs(
    model: bytes, rule: InputRule, items: Float32, level: onnxruntime.GraphOptimizationLevel
) -> list[Float32]:
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = level
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model, sess_options=settings, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    return [
        array
        for batch in batches_of(rule, items)
        for array in session.run(None, {rule.name: batch})
    ]


def _kept(graph: onnx.GraphProto, asked: Sequence[str]) -> tuple[str, ...]:
    names = {node.name for node in graph.node}
    if unknown := sorted(set(asked) - names):
        raise UnquantisableError(
            f"the model has no node {unknown[0]!r} once constants are folded; it has "
            f"{', '.join(sorted(names)[:40])}"
        )
    kept = set(asked)
    feeding: set[str] = set()
    # Nodes stand in an order in which they can be computed: whoever takes a tensor comes later.
    for node in reversed(graph.node):
        if node.op_type in _LAYERS or not feeding.isdisjoint(node.output):
            feeding.update(node.input)
        else:
            kept.add(node.name)
    return tuple(sorted(kept))


def _finished(model: onnx.ModelProto, kept: tuple[str, ...]) -> Quantised:
    # The library lists every domain that it knows; nodes are of the standard one.
    standard = [opset for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    _check_symmetric(model.graph)
    layers = [
        node for node in model.graph.node if node.op_type in _LAYERS and node.name not in kept
    ]
    content: bytes = model.SerializeToString()
    return Quantised(model=content, layers=len(layers), kept=kept)


def _check_symmetric(graph: onnx.GraphProto) -> None:
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in _QUANTISING:
            continue
        zero = numpy_helper.to_array(weights[node.input[2]])
        if zero.dtype != np.int8 or zero.any():
            raise UnquantisableError(
                f"node {node.name!r} is quantised as {zero.dtype} around {zero.max()}; engines on "
                "GPUs take INT8 around 0 only: keep it in FP32 with --keep"
            )


@contextlib.contextmanager
def _told_on_stderr() -> Iterator[None]:
    # The library prints how far it is; standard output is the report's.
    with contextlib.redirect_stdout(sys.stderr):
        yield

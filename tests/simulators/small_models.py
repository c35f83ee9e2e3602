"""Models of a few nodes, those that we ship, and models made INT8: for what builds engines."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from engines.checksums import MAX_FILE_BYTES
from engines.loading import load_package
from engines.package import ModelPackage
from engines.shipped import shipped_packages


@dataclass(frozen=True)
class Shipped:
    """A package that we ship."""

    folder: Path
    manifest: ModelPackage
    model: bytes


def open_shipped(name: str) -> Shipped:
    """Read one by its folder's name."""
    package = load_package(shipped_packages()[name])
    return Shipped(
        folder=package.folder,
        manifest=package.manifest,
        model=package.model.read(MAX_FILE_BYTES),
    )


class _Noise:
    """Calibration inputs, as ONNX Runtime reads them."""

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        random = np.random.default_rng(7)
        self._left: Iterator[dict[str, NDArray[np.float32]]] = iter(
            [{name: random.random(shape, dtype=np.float32)} for _ in range(2)]
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._left, None)


def quantise(
    model: bytes,
    shape: Sequence[int],
    *,
    is_symmetric: bool = True,
    per_channel: bool = True,
    quantises_bias: bool = False,
) -> bytes:
    """Put Q/DQ nodes around the layers; by default in the form that TensorRT takes.

    It is calibrated with noise, so that what the model then says means nothing.
    """
    from onnxruntime import quantization  # type: ignore[import-untyped]  # noqa: PLC0415 - slow

    proto = onnx.load_model_from_string(model)
    name = proto.graph.input[0].name
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        source.write_bytes(model)
        quantization.quantize_static(
            str(source),
            str(target),
            _Noise(name, [4 if size < 0 else size for size in shape]),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=per_channel,
            extra_options={
                "ActivationSymmetric": is_symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": quantises_bias,
            },
        )
        made = onnx.load(str(target))
    # ONNX Runtime writes down every set of operators that it knows; a package may name one.
    standard = [opset for opset in made.opset_import if opset.domain in {"", "ai.onnx"}]
    del made.opset_import[:]
    made.opset_import.extend(standard)
    content: bytes = made.SerializeToString()
    return content


def small_model(
    nodes: Sequence[NodeProto],
    *,
    shape: Sequence[int | str] = (1, 1, 4, 4),
    output_shape: Sequence[int | str] | None = None,
    weights: dict[str, NDArray[Any]] | None = None,
    opset: int = 17,
    element_type: int = TensorProto.FLOAT,
) -> bytes:
    """Return a model that makes ``y`` of ``x``."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", element_type, shape)],
        [helper.make_tensor_value_info("y", element_type, output_shape or shape)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    """Return a node named after what it does and makes."""
    return helper.make_node(
        operator, inputs, outputs, name=f"{operator}_{outputs[0]}", **attributes
    )

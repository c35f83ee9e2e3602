"""Is ``model.onnx`` a model that a device may be asked to run? The only importer of ``onnx``.

Beside ONNX's own checker: everything lies in this one file, every operator is a standard one of an
opset that all our back ends read, the graph is bounded, and it does the same finite work for the
same input (no loops, no random numbers). Run when a package is verified or installed; CHECKSUMS
carries the answer from there to each load, so that the worker need not hold the library.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.checker
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

from engines.checksums import MAX_FILE_BYTES
from engines.errors import ModelFileError
from engines.loading import LoadedPackage
from engines.package import TensorRule

OPSETS = range(13, 21)
"""13 is the oldest with today's semantics of axes; 20 the newest that TensorRT 10.3 reads."""

MAX_NODES = 20_000

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

REFUSED_OPERATORS = {
    "If": "its work depends on the data",
    "Loop": "its work depends on the data",
    "Scan": "its work depends on the data",
    "SequenceMap": "its work depends on the data",
    "Bernoulli": "the same input must give the same number",
    "Multinomial": "the same input must give the same number",
    "RandomNormal": "the same input must give the same number",
    "RandomNormalLike": "the same input must give the same number",
    "RandomUniform": "the same input must give the same number",
    "RandomUniformLike": "the same input must give the same number",
}


def check_model(package: LoadedPackage) -> None:
    """Checks the package's model file, and that its tensors are those of ``package.toml``.

    Raises:
        PackageIntegrityError: The file changed after the package was checked.
        ModelFileError: It is not a model that this device may run; the text says why.
    """
    content = package.model.read(MAX_FILE_BYTES)
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise ModelFileError("model.onnx is not an ONNX file") from error
    _check_opset(model)
    _check_nodes(model)
    _check_tensors_inside(model)
    _check_boundary(model, package.manifest.input, package.manifest.output.tensor)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ModelFileError(f"model.onnx does not pass the ONNX checker: {error}") from error


def _check_opset(model: onnx.ModelProto) -> None:
    for opset in model.opset_import:
        if opset.domain not in STANDARD_DOMAINS:
            raise ModelFileError(
                f"model.onnx uses operators of {opset.domain!r}; only standard ones are allowed"
            )
        if opset.version not in OPSETS:
            raise ModelFileError(
                f"model.onnx uses opset {opset.version}; export it with {OPSETS[0]} to {OPSETS[-1]}"
            )
    if model.functions or model.training_info:
        raise ModelFileError(
            "model.onnx holds local functions or training data; export it inlined, for inference"
        )


def _check_nodes(model: onnx.ModelProto) -> None:
    if len(model.graph.node) > MAX_NODES:
        raise ModelFileError(f"model.onnx has more than {MAX_NODES} nodes")
    for node in model.graph.node:
        if node.domain not in STANDARD_DOMAINS:
            raise ModelFileError(f"model.onnx uses {node.op_type!r} of {node.domain!r}")
        if node.op_type in REFUSED_OPERATORS:
            raise ModelFileError(
                f"model.onnx uses {node.op_type}: {REFUSED_OPERATORS[node.op_type]}"
            )
        # Only the refused operators have subgraphs; one elsewhere would escape these checks.
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ModelFileError(f"model.onnx has a graph within {node.op_type!r}")


def _check_tensors_inside(model: onnx.ModelProto) -> None:
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            raise ModelFileError(
                "model.onnx keeps tensors in another file; save it with everything inside"
            )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _check_boundary(model: onnx.ModelProto, wanted: TensorRule, promised: TensorRule) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for side, found, rule in (
        ("input", inputs, wanted),
        ("output", list(model.graph.output), promised),
    ):
        if [_rule_of(value) for value in found] != [(rule.name, rule.dtype, rule.shape)]:
            shown = ", ".join(str(_rule_of(value)) for value in found[:4])
            raise ModelFileError(
                f"model.onnx has the {side} [{shown}], but package.toml says "
                f"{(rule.name, rule.dtype, rule.shape)}"
            )


def _rule_of(value: onnx.ValueInfoProto) -> tuple[str, str, tuple[int, ...]]:
    tensor = value.type.tensor_type
    element_type = tensor.elem_type
    dtype = "float32" if element_type == onnx.TensorProto.FLOAT else f"ONNX type {element_type}"
    shape = tuple(
        dimension.dim_value if dimension.HasField("dim_value") else -1
        for dimension in tensor.shape.dim
    )
    return value.name, dtype, shape

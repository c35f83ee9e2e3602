"""Is ``model.onnx`` a model that a device may be asked to run?

Beside ONNX's own checker: everything lies in this one file and is what it says, every operator is a
standard one of an opset that all our back ends read, the graph is bounded, and it does the same
finite work for every input of one shape (no loops, no random numbers, no sizes made of pixels). Run
when a package is verified or installed; CHECKSUMS carries the answer from there to each load, so
that the worker need not hold the library. Only this module and its parts (``onnx_graph``,
``onnx_tensors``, ``onnx_shapes``) import ``onnx``.

The order matters: what is native code and recurses comes last, on a graph that is known to be
bounded and free of cycles.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx.checker
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

from engines.checksums import MAX_FILE_BYTES
from engines.errors import ModelFileError
from engines.loading import LoadedPackage
from engines.onnx_graph import STANDARD_DOMAINS, check_graph
from engines.onnx_shapes import check_shapes
from engines.onnx_tensors import check_tensors
from engines.package import ModelPackage
from engines.protobuf_bounds import check_bounds

OPSETS = range(13, 21)
"""13 is the oldest with today's semantics of axes; 20 the newest that TensorRT 10.3 reads."""

MAX_FIELDS = 500_000
"""MAX_NODES with all their names and attributes; the largest networks of the field have a tenth."""
MAX_TEXT_BYTES = 64 * 1024
"""Exporters write whole stack traces into doc strings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryTensor:
    """An input or output as the ONNX file declares it."""

    name: str
    dtype: str
    """As in ``package.toml``, or in words what a package cannot have."""
    shape: tuple[int, ...]
    """-1: free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """What goes into a model and what comes out, in the order of the ONNX file."""

    inputs: tuple[BoundaryTensor, ...]
    outputs: tuple[BoundaryTensor, ...]


def check_model(package: LoadedPackage) -> None:
    """Checks the package's model file, and that its tensors are those of ``package.toml``.

    Raises:
        PackageIntegrityError: The file changed after the package was checked.
        ModelFileError: It is not a model that this device may run; the text says why.
    """
    content = package.model.read(MAX_FILE_BYTES)
    model, boundary = _bounded_model(content)
    _check_boundary(boundary, package.manifest)
    _check_with_onnx(content)
    check_shapes(model, package.manifest)


def read_boundary(content: bytes) -> Boundary:
    """Checks an ONNX file that has no package yet, and says what goes in and comes out.

    Raises:
        ModelFileError: It is not a model that a device may run; the text says why.
    """
    _, boundary = _bounded_model(content)
    _check_with_onnx(content)
    return boundary


def _bounded_model(content: bytes) -> tuple[onnx.ModelProto, Boundary]:
    check_bounds(
        content,
        onnx.ModelProto.DESCRIPTOR,
        max_fields=MAX_FIELDS,
        max_text_bytes=MAX_TEXT_BYTES,
    )
    try:
        model = onnx.load_model_from_string(content)
        _check_opset(model)
        check_tensors(model.graph)
        check_graph(model.graph)
        return model, Boundary(
            inputs=tuple(_tensor_of(value) for value in model.graph.input),
            outputs=tuple(_tensor_of(value) for value in model.graph.output),
        )
    except UnicodeDecodeError as error:
        raise ModelFileError("model.onnx holds text that is not UTF-8") from error
    except (DecodeError, ValueError) as error:
        raise ModelFileError("model.onnx is not an ONNX file") from error


def _check_with_onnx(content: bytes) -> None:
    try:
        onnx.checker.check_model(content, full_check=True)
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
    if len(model.opset_import) > 1:
        raise ModelFileError("model.onnx imports two opsets; export it with one")
    if model.functions or model.training_info:
        raise ModelFileError(
            "model.onnx holds local functions or training data; export it inlined, for inference"
        )


def _check_boundary(boundary: Boundary, package: ModelPackage) -> None:
    for side, found, rules in (
        ("inputs", boundary.inputs, (package.input,)),
        ("outputs", boundary.outputs, package.outputs),
    ):
        has = [(tensor.name, tensor.dtype, tensor.shape) for tensor in found]
        wanted = [(rule.name, rule.dtype, rule.shape) for rule in rules]
        if has != wanted:
            shown = ", ".join(str(tensor) for tensor in has[:4])
            raise ModelFileError(
                f"model.onnx has the {side} [{shown}], but package.toml says {wanted}"
            )


def _tensor_of(value: onnx.ValueInfoProto) -> BoundaryTensor:
    if value.type.WhichOneof("value") != "tensor_type":
        dtype = f"no tensor but {value.type.WhichOneof('value')}"
        return BoundaryTensor(name=value.name, dtype=dtype, shape=())
    tensor = value.type.tensor_type
    element_type = tensor.elem_type
    dtype = "float32" if element_type == onnx.TensorProto.FLOAT else f"ONNX type {element_type}"
    # A size of -1 would pass for a free one, and 0 holds nothing.
    shape = tuple(
        max(dimension.dim_value, 0) if dimension.HasField("dim_value") else -1
        for dimension in tensor.shape.dim
    )
    return BoundaryTensor(name=value.name, dtype=dtype, shape=shape)

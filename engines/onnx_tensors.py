"""Are the tensors inside ``model.onnx`` what they say, and numbers? Nothing is taken on trust.

A tensor's dimensions are compared with the bytes that are there before any memory is taken. Weights
must be finite: NaN spreads through a network, and so does infinity. A single infinity alone is
allowed, as the bound of a ``Clip`` or the value of a mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from engines.errors import ModelFileError

MAX_AXES = 8

_CHUNK_ELEMENTS = 4 * 1024**2
_FIELDS = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


@dataclass(frozen=True, slots=True)
class _Kind:
    """An element type: how large in ``raw_data``, where else, and how floats are read."""

    bytes: int
    field: str
    floats: str | None = None


_KINDS: Mapping[int, _Kind] = {
    TensorProto.FLOAT: _Kind(4, "float_data", "<f4"),
    TensorProto.DOUBLE: _Kind(8, "double_data", "<f8"),
    TensorProto.FLOAT16: _Kind(2, "int32_data", "<f2"),
    TensorProto.BFLOAT16: _Kind(2, "int32_data", "<u2"),
    TensorProto.INT8: _Kind(1, "int32_data"),
    TensorProto.UINT8: _Kind(1, "int32_data"),
    TensorProto.INT16: _Kind(2, "int32_data"),
    TensorProto.UINT16: _Kind(2, "int32_data"),
    TensorProto.INT32: _Kind(4, "int32_data"),
    TensorProto.BOOL: _Kind(1, "int32_data"),
    TensorProto.INT64: _Kind(8, "int64_data"),
    TensorProto.UINT32: _Kind(4, "uint64_data"),
    TensorProto.UINT64: _Kind(8, "uint64_data"),
}
ELEMENT_TYPES = frozenset(_KINDS)
"""Numbers and booleans; no text, no complex numbers, nothing below a byte."""


def check_tensors(graph: onnx.GraphProto) -> None:
    """Checks every tensor and number that the graph holds.

    Raises:
        ModelFileError: One is elsewhere, of another size than it says, or not finite.
    """
    if graph.sparse_initializer:
        raise ModelFileError("model.onnx holds sparse tensors; save them dense")
    for tensor in graph.initializer:
        check_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            _check_attribute(attribute, node.op_type)


def _check_attribute(attribute: onnx.AttributeProto, operator: str) -> None:
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        raise ModelFileError(f"model.onnx holds a sparse tensor in {operator!r}; save it dense")
    if attribute.HasField("t"):
        check_tensor(attribute.t)
    for tensor in attribute.tensors:
        check_tensor(tensor)
    numbers = [attribute.f, *attribute.floats]
    if any(map(math.isnan, numbers)) or any(map(math.isinf, attribute.floats)):
        raise ModelFileError(f"model.onnx holds NaN or infinity in {operator!r}")


def check_tensor(tensor: TensorProto) -> None:
    """Checks one tensor.

    Raises:
        ModelFileError: As ``check_tensors``.
    """
    name = ascii(tensor.name[:80])
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise ModelFileError(
            "model.onnx keeps tensors in another file; save it with everything inside"
        )
    kind = _KINDS.get(tensor.data_type)
    if kind is None or tensor.HasField("segment"):
        raise ModelFileError(f"tensor {name} of model.onnx is not of plain numbers")
    if len(tensor.dims) > MAX_AXES or any(size < 0 for size in tensor.dims):
        raise ModelFileError(f"tensor {name} of model.onnx has impossible dimensions")
    elements = math.prod(tensor.dims)
    filled = {field: len(getattr(tensor, field)) for field in _FIELDS if getattr(tensor, field)}
    if tensor.HasField("raw_data"):
        fits = not filled and len(tensor.raw_data) == elements * kind.bytes
    else:
        fits = filled == ({kind.field: elements} if elements else {})
    if not fits:
        raise ModelFileError(
            f"tensor {name} of model.onnx holds another number of values than its "
            f"dimensions {tuple(tensor.dims)} say"
        )
    if kind.floats is not None and not _is_sound(tensor, kind):
        raise ModelFileError(f"tensor {name} of model.onnx holds NaN or infinity")


def _is_sound(tensor: TensorProto, kind: _Kind) -> bool:
    is_single = math.prod(tensor.dims) == 1
    return all(
        np.isfinite(values).all() or (is_single and not np.isnan(values).any())
        for values in _chunks(tensor, kind)
    )


def _chunks(tensor: TensorProto, kind: _Kind) -> Iterator[NDArray[np.floating[Any]]]:
    if tensor.HasField("raw_data"):
        flat = np.frombuffer(tensor.raw_data, dtype=kind.floats)
    elif kind.field == "int32_data":  # the bits of two bytes each
        bits = np.array(tensor.int32_data, dtype=np.int32).astype(np.uint16)
        flat = bits.view(np.dtype(kind.floats))
    else:
        flat = np.array(getattr(tensor, kind.field), dtype=kind.floats)
    for start in range(0, flat.size, _CHUNK_ELEMENTS):
        values = flat[start : start + _CHUNK_ELEMENTS]
        if tensor.data_type == TensorProto.BFLOAT16:  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        yield values

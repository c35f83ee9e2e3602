"""Which shapes follow from the largest input: do they agree with what is promised, and do they fit?

``package.toml`` bounds the input; ONNX's inference follows it through the graph. What the file
itself says of shapes between its nodes is compared with that and not believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import onnx
import onnx.shape_inference

from engines.batching import MOST_ITEMS
from engines.errors import ModelFileError
from engines.onnx_tensors import ELEMENT_TYPES
from engines.package import InputRule, ModelPackage
from engines.steps import FREE

_MIB = 1024**2
_ELEMENT_BYTES: Mapping[int, int] = {
    onnx.TensorProto.DOUBLE: 8,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.UINT64: 8,
}
_OTHER_BYTES = 4
"""Shorter types are counted as engines widen them."""

Shape = tuple[int, ...]


def check_shapes(model: onnx.ModelProto, package: ModelPackage) -> None:
    """Infers every shape from the largest input, and compares.

    Args:
        model: Checked by ``onnx_graph`` and ``onnx_tensors``; it is changed.
        package: What it must be.

    Raises:
        ModelFileError: Shapes contradict each other or the package, or a tensor is too large.
    """
    declared = list(model.graph.value_info)
    largest = _largest_input(package.input)
    _ask_anew(model.graph, largest)
    try:
        inferred = onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"no shapes can be inferred for model.onnx: {error}") from error
    found = {value.name: value.type for value in _values(inferred.graph)}
    _check_types(found)
    _check_declared(declared, found)
    _check_outputs(package, found, largest[0])
    _check_sizes(found, package.requires.memory_mib)


def _largest_input(rule: InputRule) -> Shape:
    """Items are batched; other free sizes stay open, and what rests on them is not bounded here."""
    items = 1 if rule.layout.is_volume else MOST_ITEMS
    first = items if rule.shape[0] == FREE else rule.shape[0]
    return (first, *rule.shape[1:])


def _ask_anew(graph: onnx.GraphProto, largest: Shape) -> None:
    del graph.value_info[:]
    for dimension, size in zip(graph.input[0].type.tensor_type.shape.dim, largest, strict=True):
        if size != FREE:
            dimension.dim_value = size
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def _values(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    return (*graph.input, *graph.value_info, *graph.output)


def _check_types(found: Mapping[str, onnx.TypeProto]) -> None:
    for name, kind in found.items():
        if (
            kind.WhichOneof("value") != "tensor_type"
            or kind.tensor_type.elem_type not in ELEMENT_TYPES
        ):
            raise ModelFileError(
                f"{name[:80]!a} in model.onnx is text, a sequence, or no plain tensor"
            )


def _check_declared(
    declared: Iterable[onnx.ValueInfoProto], found: Mapping[str, onnx.TypeProto]
) -> None:
    for value in declared:
        name = ascii(value.name[:80])
        if value.type.WhichOneof("value") != "tensor_type":
            raise ModelFileError(f"{name} in model.onnx is text, a sequence, or no plain tensor")
        said, kind = value.type.tensor_type, found.get(value.name)
        if kind is None:
            continue
        is_same_type = said.elem_type in (0, kind.tensor_type.elem_type)
        if not is_same_type or not _agree(_shape(value.type), _shape(kind)):
            raise ModelFileError(
                f"model.onnx says that {name} has shape {_shape(value.type)}, but it is "
                f"{_shape(kind)} of its type; infer the shapes again"
            )


def _check_outputs(package: ModelPackage, found: Mapping[str, onnx.TypeProto], items: int) -> None:
    for rule in package.outputs:
        promised = (items, *rule.shape[1:])
        shape = _shape(found[rule.name])
        if not _agree(promised, shape):
            raise ModelFileError(
                f"output {rule.name!r} of model.onnx has shape {shape} for {items} items, "
                f"but package.toml says {promised}"
            )


def _check_sizes(found: Mapping[str, onnx.TypeProto], memory_mib: int) -> None:
    for name, kind in found.items():
        shape = _shape(kind)
        if shape is None or FREE in shape:
            continue
        item_bytes = _ELEMENT_BYTES.get(kind.tensor_type.elem_type, _OTHER_BYTES)
        needed_mib = math.prod(shape) * item_bytes // _MIB
        if needed_mib > memory_mib:
            raise ModelFileError(
                f"{name[:80]!a} in model.onnx takes {needed_mib} MiB, but requires.memory_mib "
                f"of package.toml is {memory_mib}"
            )


def _shape(kind: onnx.TypeProto) -> Shape | None:
    """FREE where a size is open; None where not even the axes are known."""
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dimension.dim_value if dimension.HasField("dim_value") else FREE
        for dimension in tensor.shape.dim
    )


def _agree(first: Shape | None, second: Shape | None) -> bool:
    if first is None or second is None:
        return True
    return len(first) == len(second) and all(
        FREE in pair or pair[0] == pair[1] for pair in zip(first, second, strict=True)
    )

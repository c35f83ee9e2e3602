"""Whether a model has Q/DQ nodes, read from its bytes: a worker need not hold ``onnx`` to know.

Only what leads to the names of operators is read, and weights are stepped over, so that a model of
hundreds of megabytes takes milliseconds. What is malformed ends the search: to say so is the task
of ``onnx_checks``, which has seen the file before any engine does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from engines.protobuf_bounds import LENGTH, fields_of

QUANTISING = frozenset({"QuantizeLinear", "DequantizeLinear"})

_Span: TypeAlias = tuple[int, int]

# Numbers of fields: ONNX IR, onnx.proto (ModelProto.graph, GraphProto.node, NodeProto.op_type).
_GRAPH, _NODE, _OPERATOR = 7, 1, 4
_NAMES = frozenset(name.encode("ascii") for name in QUANTISING)


def is_quantised(model: bytes) -> bool:
    """Says whether a model has Q/DQ nodes: INT8 that was settled when its package was made.

    Args:
        model: An ONNX file that ``engines.onnx_checks`` has passed.
    """
    return any(
        model[start:end] in _NAMES
        for graph in _contents(model, (0, len(model)), _GRAPH)
        for node in _contents(model, graph, _NODE)
        for start, end in _contents(model, node, _OPERATOR)
    )


def _contents(content: bytes, message: _Span, number: int) -> Iterator[_Span]:
    """Yields where the contents of one field of a message lie."""
    for found, wire, start, end in fields_of(content, *message):
        if found == number and wire == LENGTH:
            yield start, end

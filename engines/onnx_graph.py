"""Is the graph of ``model.onnx`` sound: its nodes in order, its work bounded, its output an answer?

Everything here reads nodes one after the other; nothing recurses, so that no graph is too deep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import onnx

from engines.errors import ModelFileError

MAX_NODES = 20_000
MAX_NAME_CHARACTERS = 512
MAX_UNUSED_BYTES = 1024**2
"""Exporters leave counters behind; more is ballast, or a hiding place."""

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

_DATA = "its work depends on the data"
_CHANCE = "the same input must give the same number"
REFUSED_OPERATORS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), _DATA),
        **dict.fromkeys(("NonZero", "Compress", "Unique", "NonMaxSuppression"), _DATA),
        **dict.fromkeys(("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"), _CHANCE),
        **dict.fromkeys(("RandomUniform", "RandomUniformLike"), _CHANCE),
    }
)

# Which inputs of an operator say how large its output is: were they computed from pixels, an image
# could ask for all the memory there is.
_SIZE_INPUTS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "AffineGrid": (1,),
        "BlackmanWindow": (0,),
        "CenterCropPad": (1,),
        "Col2Im": (1, 2),
        "ConstantOfShape": (0,),
        "DFT": (1,),
        "Expand": (1,),
        "HammingWindow": (0,),
        "HannWindow": (0,),
        "MaxUnpool": (2,),
        "MelWeightMatrix": (0, 1, 2, 3, 4),
        "OneHot": (1,),
        "Pad": (1,),
        "Range": (0, 1, 2),
        "Reshape": (1,),
        "Resize": (1, 2, 3),
        "STFT": (1, 3),
        "Slice": (1, 2, 3, 4),
        "Split": (1,),
        "Tile": (1,),
        "TopK": (1,),
    }
)
_SHAPE_ONLY = frozenset({"Shape", "Size"})
"""What they return is known before any pixel is."""


def check_graph(graph: onnx.GraphProto) -> None:
    """Checks nodes, their order, and what depends on what.

    Raises:
        ModelFileError: The text says what is wrong.
    """
    if not 0 < len(graph.node) <= MAX_NODES:
        raise ModelFileError(f"model.onnx has {len(graph.node)} nodes, not 1 to {MAX_NODES}")
    for node in graph.node:
        _check_node(node)
    _check_order(graph)
    _check_dependence(graph)
    _check_use(graph)


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in STANDARD_DOMAINS:
        raise ModelFileError(f"model.onnx uses {node.op_type!r} of {node.domain!r}")
    if node.op_type in REFUSED_OPERATORS:
        raise ModelFileError(f"model.onnx uses {node.op_type}: {REFUSED_OPERATORS[node.op_type]}")
    for attribute in node.attribute:
        # Only the refused operators have subgraphs; one elsewhere would escape these checks.
        if attribute.HasField("g") or attribute.graphs:
            raise ModelFileError(f"model.onnx has a graph within {node.op_type!r}")
        if attribute.name == "training_mode" and attribute.i:
            raise ModelFileError(f"model.onnx has {node.op_type} in training mode: {_CHANCE}")
        if attribute.name in {"value_string", "value_strings"}:
            raise ModelFileError("model.onnx holds text as a constant; models work on numbers")
    # Dropout's third input is its training mode (ONNX operators, Dropout-13).
    if node.op_type == "Dropout" and any(node.input[2:]):
        raise ModelFileError(f"model.onnx uses Dropout as in training: {_CHANCE}")


def _check_order(graph: onnx.GraphProto) -> None:
    """Every value is made once, before it is read; a cycle cannot be so ordered."""
    known: set[str] = set()
    _add(known, (value.name for value in graph.input))
    _add(known, (tensor.name for tensor in graph.initializer))
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                raise ModelFileError(
                    f"{node.op_type} of model.onnx reads {_shown(name)} before anything makes it: "
                    "the graph has a cycle, a gap, or nodes out of order"
                )
        _add(known, (name for name in node.output if name))
    outputs: set[str] = set()
    _add(outputs, (value.name for value in graph.output))
    if missing := outputs - known:
        raise ModelFileError(f"nothing in model.onnx makes its output {_shown(min(missing))}")


def _add(known: set[str], names: Iterable[str]) -> None:
    for name in names:
        if not name or len(name) > MAX_NAME_CHARACTERS:
            raise ModelFileError(
                f"model.onnx has a tensor name of {len(name)} characters, not 1 to "
                f"{MAX_NAME_CHARACTERS}"
            )
        if name in known:
            raise ModelFileError(
                f"model.onnx has two tensors named {_shown(name)}, or a weight that is also an "
                "input; give each a name of its own"
            )
        known.add(name)


def _check_dependence(graph: onnx.GraphProto) -> None:
    moving = {value.name for value in graph.input}
    for node in graph.node:
        sizes = [
            node.input[place]
            for place in _SIZE_INPUTS.get(node.op_type, ())
            if place < len(node.input)
        ]
        if not moving.isdisjoint(sizes):
            raise ModelFileError(
                f"{node.op_type} of model.onnx has a size that depends on the pixels"
            )
        if node.op_type not in _SHAPE_ONLY and not moving.isdisjoint(node.input):
            moving.update(node.output)
    for value in graph.output:
        if value.name not in moving:
            raise ModelFileError(
                f"output {_shown(value.name)} of model.onnx does not depend on the input"
            )


def _check_use(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    idle = sum(tensor.ByteSize() for tensor in graph.initializer if tensor.name not in used)
    if idle > MAX_UNUSED_BYTES:
        raise ModelFileError(f"model.onnx holds {idle} bytes of tensors that nothing uses")


def _shown(name: str) -> str:
    return ascii(name[:80])

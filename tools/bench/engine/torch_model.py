"""A package's ONNX model as a PyTorch function: the operators that our shipped models use.

Only for the benchmark: PyTorch reads no ONNX itself. Whatever is not listed here is refused.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import numpy_helper

from tools.bench.engine.errors import PeerUnfitError

Attributes = Mapping[str, Any]


def torch_module(content: bytes) -> Any:
    """Return a ``torch.nn.Module`` that computes the model's outputs.

    Raises:
        PeerUnfitError: the model has an operator that is not translated.
    """
    torch = importlib.import_module("torch")
    model = onnx.load_from_string(content)
    missing = {node.op_type for node in model.graph.node} - {*_OPERATORS, "Constant"}
    if missing:
        raise PeerUnfitError(f"PyTorch: {', '.join(sorted(missing))} are not translated")
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    nodes = []
    for node in graph.node:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
        else:
            nodes.append((node.op_type, tuple(node.input), node.output[0], attributes))
    outputs = tuple(item.name for item in graph.output)
    places = {name: f"constant_{place}" for place, name in enumerate(constants)}

    class Translated(torch.nn.Module):  # type: ignore[misc,name-defined]  # torch has no type here
        def __init__(self) -> None:
            super().__init__()
            for name, value in constants.items():
                self.register_buffer(places[name], torch.tensor(value))

        def forward(self, given: Any) -> tuple[Any, ...]:
            values = {name: getattr(self, place) for name, place in places.items()}
            values[graph.input[0].name] = given
            for operator, inputs, output, attributes in nodes:
                arguments = [values[name] if name else None for name in inputs]
                values[output] = _OPERATORS[operator](torch, attributes, *arguments)
            return tuple(values[name] for name in outputs)

    return Translated().eval()


def _conv(torch: Any, told: Attributes, x: Any, w: Any, b: Any = None) -> Any:
    pads = list(told.get("pads", [0, 0, 0, 0]))
    half = len(pads) // 2
    if pads[:half] != pads[half:]:
        # Of the last dimension first, as torch wants it.
        both = [each for pair in zip(pads[:half], pads[half:], strict=True) for each in pair]
        x = torch.nn.functional.pad(x, [*both[2:], *both[:2]])
        pads = [0] * len(pads)
    return torch.nn.functional.conv2d(
        x,
        w,
        b,
        stride=list(told.get("strides", [1, 1])),
        padding=pads[:half],
        dilation=list(told.get("dilations", [1, 1])),
        groups=told.get("group", 1),
    )


def _gemm(torch: Any, told: Attributes, a: Any, b: Any, c: Any = None) -> Any:
    left = a.T if told.get("transA") else a
    right = b.T if told.get("transB") else b
    product = told.get("alpha", 1.0) * torch.matmul(left, right)
    return product if c is None else product + told.get("beta", 1.0) * c


def _axes(told: Attributes, axes: Any) -> list[int]:
    return list(told["axes"]) if axes is None else [int(axis) for axis in axes]


def _reduce(name: str) -> Callable[..., Any]:
    def reduce(torch: Any, told: Attributes, x: Any, axes: Any = None) -> Any:
        function = getattr(torch, name)
        return function(x, dim=_axes(told, axes), keepdim=bool(told.get("keepdims", 1)))

    return reduce


def _gather(torch: Any, told: Attributes, x: Any, places: Any) -> Any:
    axis = told.get("axis", 0)
    if places.ndim == 0:
        return x.select(axis, int(places))
    return torch.index_select(x, axis, places)


_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Conv": _conv,
    "Relu": lambda torch, _told, x: torch.relu(x),
    "Add": lambda _torch, _told, a, b: a + b,
    "Concat": lambda torch, told, *parts: torch.cat(parts, dim=told["axis"]),
    "ReduceMax": _reduce("amax"),
    "ReduceMean": _reduce("mean"),
    "Gemm": _gemm,
    "Gather": _gather,
}

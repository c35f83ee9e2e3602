"""An ONNX model as a PyTorch module: the peer that most people would reach for.

Covers the operators that the shipped models have, and refuses any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch  # type: ignore[import-not-found,unused-ignore]  # extra 'train', absent elsewhere
from onnx import numpy_helper

Values = dict[str, Any]
Operator = Callable[[Any, Mapping[str, Any]], Any]


class UnknownOperatorError(Exception):
    """The model has an operator that is not covered here."""


def as_torch(model: bytes) -> torch.nn.Module:
    """Read an ONNX model with one input and one output.

    Raises:
        UnknownOperatorError: An operator of it is not covered.
    """
    graph = onnx.load_from_string(model).graph
    steps = []
    for node in graph.node:
        if node.op_type != "Constant" and node.op_type not in _OPERATORS:
            raise UnknownOperatorError(f"{node.op_type} is not covered")
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        steps.append((node.op_type, tuple(node.input), node.output[0], attributes))
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    for kind, _, output, attributes in steps:
        if kind == "Constant":
            constants[output] = numpy_helper.to_array(attributes["value"])
    return _module(
        [step for step in steps if step[0] != "Constant"],
        constants,
        graph.input[0].name,
        graph.output[0].name,
    )


def _module(
    steps: list[tuple[str, tuple[str, ...], str, Mapping[str, Any]]],
    constants: Mapping[str, Any],
    given: str,
    wanted: str,
) -> torch.nn.Module:
    floats = {name: array for name, array in constants.items() if array.dtype.kind == "f"}
    # Indices are a part of the program, not of the weights.
    numbers = {name: int(array) for name, array in constants.items() if name not in floats}

    class Model(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]  # torch is Any
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList(
                torch.nn.Parameter(torch.from_numpy(array.copy()), requires_grad=False)
                for array in floats.values()
            )

        def forward(self, x: Any) -> Any:
            values: Values = {given: x, **numbers, **dict(zip(floats, self.weights, strict=True))}
            for kind, inputs, output, attributes in steps:
                values[output] = _OPERATORS[kind]([values[name] for name in inputs], attributes)
            return values[wanted]

    return Model().eval()


def _convolution(values: Any, attributes: Mapping[str, Any]) -> Any:
    top, left, bottom, right = attributes["pads"]
    if (top, left) != (bottom, right):
        raise UnknownOperatorError("a convolution is padded on one side only")
    functional: Any = torch.nn.functional
    return functional.conv2d(
        *values,
        stride=tuple(attributes["strides"]),
        padding=(top, left),
        dilation=tuple(attributes["dilations"]),
        groups=attributes["group"],
    )


def _product(values: Any, attributes: Mapping[str, Any]) -> Any:
    x, weights, bias = values
    if attributes.get("transB"):
        weights = weights.T
    return torch.addmm(bias, x, weights)


_OPERATORS: Mapping[str, Operator] = {
    "Add": lambda values, _: values[0] + values[1],
    "Concat": lambda values, attributes: torch.cat(values, dim=attributes["axis"]),
    "Conv": _convolution,
    "Gather": lambda values, attributes: values[0].select(attributes["axis"], values[1]),
    "Gemm": _product,
    "ReduceMax": lambda values, attributes: torch.amax(
        values[0], dim=tuple(attributes["axes"]), keepdim=bool(attributes["keepdims"])
    ),
    "ReduceMean": lambda values, attributes: torch.mean(
        values[0], dim=tuple(attributes["axes"]), keepdim=bool(attributes["keepdims"])
    ),
    "Relu": lambda values, _: torch.relu(values[0]),
}

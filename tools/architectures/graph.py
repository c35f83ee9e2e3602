"""Layers of a network, written down as ONNX nodes and their weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
"""Of opset 17: older readers than today's take it."""
BATCH_NORM_EPSILON = 1e-5


class Network:
    """A graph that grows layer by layer; each method returns the name of its layer's output."""

    def __init__(self, name: str, *, seed: int) -> None:
        self._name = name
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self.parameters = 0
        """What training would change; running statistics are none."""

    def convolution(
        self,
        source: str,
        channels: tuple[int, int],
        kernel: tuple[int, ...],
        *,
        stride: tuple[int, ...],
    ) -> str:
        """Without bias, padded by half the kernel, He's initialisation.

        Args:
            source: what goes in.
            channels: in and out.
            kernel: its size along each axis of space.
            stride: along each axis of space.
        """
        before, after = channels
        spread = math.sqrt(2 / (before * math.prod(kernel)))
        weights = self._drawn((after, before, *kernel), spread)
        half = [size // 2 for size in kernel]
        return self._node(
            "Conv",
            [source, self._trained(weights)],
            kernel_shape=list(kernel),
            strides=list(stride),
            pads=half + half,
        )

    def batch_norm(self, source: str, channels: int, *, variance: float = 1.0) -> str:
        """With scale 1, shift 0, and running statistics of mean 0 and ``variance``."""
        ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        names = [self._trained(ones), self._trained(zeros)]
        names += [self._weight(zeros), self._weight(np.full_like(ones, variance))]
        return self._node("BatchNormalization", [source, *names], epsilon=BATCH_NORM_EPSILON)

    def relu(self, source: str) -> str:
        """What is below 0 becomes 0."""
        return self._node("Relu", [source])

    def max_pool(self, source: str, dimensions: int) -> str:
        """3 wide, every second."""
        return self._pool("MaxPool", source, (3,) * dimensions, pad=1)

    def average_pool(self, source: str, dimensions: int) -> str:
        """2 wide, every second."""
        return self._pool("AveragePool", source, (2,) * dimensions, pad=0)

    def concatenate(self, sources: list[str]) -> str:
        """Channels one after the other."""
        return self._node("Concat", sources, axis=1)

    def add(self, left: str, right: str) -> str:
        """Element by element."""
        return self._node("Add", [left, right])

    def classifier(self, source: str, features: int, outputs: int, *, name: str) -> str:
        """Mean over space, then one linear layer whose output is called ``name``."""
        flat = self._node("Flatten", [self._node("GlobalAveragePool", [source])], axis=1)
        weights = self._trained(self._drawn((outputs, features), 1 / math.sqrt(features)))
        bias = self._trained(np.zeros(outputs, np.float32))
        self._nodes.append(helper.make_node("Gemm", [flat, weights, bias], [name], transB=1))
        return name

    def finish(
        self, source: tuple[str, tuple[int, ...]], result: tuple[str, int]
    ) -> onnx.ModelProto:
        """The model around the layers.

        Args:
            source: the input's name, and its shape without the free batch.
            result: the output's name and how many numbers an item gets.
        """
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info(source[0], TensorProto.FLOAT, ("batch", *source[1]))],
            [helper.make_tensor_value_info(result[0], TensorProto.FLOAT, ("batch", result[1]))],
            self._weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)

    def _pool(self, kind: str, source: str, kernel: tuple[int, ...], *, pad: int) -> str:
        return self._node(
            kind,
            [source],
            kernel_shape=list(kernel),
            strides=[2] * len(kernel),
            pads=[pad] * (2 * len(kernel)),
        )

    def _node(self, kind: str, sources: list[str], **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, sources, [output], **attributes))
        return output

    def _drawn(self, shape: tuple[int, ...], spread: float) -> NDArray[np.float32]:
        weights = self._rng.standard_normal(shape, np.float32)
        weights *= np.float32(spread)
        return weights

    def _trained(self, values: NDArray[np.float32]) -> str:
        self.parameters += values.size
        return self._weight(values)

    def _weight(self, values: NDArray[np.float32]) -> str:
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(values, name))
        return name

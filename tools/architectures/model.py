"""A network as it is written to a file."""

from __future__ import annotations

from dataclasses import dataclass

import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """An ONNX model, and how many numbers training would set in it."""

    model: onnx.ModelProto
    parameters: int

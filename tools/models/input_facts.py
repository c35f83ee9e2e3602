"""What an ONNX file says of its input and outputs, in the words of ``package.toml``. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from engines.onnx_checks import Boundary, BoundaryTensor
from engines.package import Layout
from engines.steps import FREE
from tools.models.errors import UnfitModelError

MOST_CHANNELS = 64
"""An axis longer than this is one of space."""
AXES_OF_PICTURES = 4
AXES_OF_VOLUMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFacts:
    """The model's input; sizes are ``FREE`` where the file leaves them open."""

    name: str
    shape: tuple[int, ...]
    layout: Layout
    channels: int
    slices: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFacts:
    """One of the model's outputs."""

    name: str
    shape: tuple[int, ...]
    elements: int
    """Numbers of an item along the last axis."""


def input_facts(boundary: Boundary) -> InputFacts:
    """Reads the layout off the shape.

    Raises:
        UnfitModelError: there are several inputs, or the one is no stack of pictures or volumes.
    """
    _check_types(boundary.inputs + boundary.outputs)
    if len(boundary.inputs) != 1:
        names = ", ".join(tensor.name for tensor in boundary.inputs)
        raise UnfitModelError(f"a model has one input, this one has {names or 'none'}")
    (tensor,) = boundary.inputs
    layout = _layout_of(tensor)
    sizes = dict(zip(layout.value, tensor.shape, strict=True))
    return InputFacts(
        name=tensor.name,
        shape=tensor.shape,
        layout=layout,
        channels=sizes["C"],
        slices=sizes.get("D", FREE),
        rows=sizes["H"],
        columns=sizes["W"],
    )


def output_facts(boundary: Boundary) -> tuple[OutputFacts, ...]:
    """Reads how many numbers each output has for an item.

    Raises:
        UnfitModelError: an output does not have the items along its first axis, or its last axis
            is free.
    """
    (source,) = boundary.inputs
    for tensor in boundary.outputs:
        if not tensor.shape or tensor.shape[0] != source.shape[0]:
            raise UnfitModelError(
                f"output {tensor.name!r} has shape {tensor.shape}; its first axis must be that of "
                f"the items, as long as the input's ({source.shape[0]})"
            )
        if len(tensor.shape) > 1 and tensor.shape[-1] == FREE:
            raise UnfitModelError(
                f"output {tensor.name!r}: export it with a fixed number of numbers for each item"
            )
    return tuple(
        OutputFacts(
            name=tensor.name,
            shape=tensor.shape,
            elements=tensor.shape[-1] if len(tensor.shape) > 1 else 1,
        )
        for tensor in boundary.outputs
    )


def _check_types(tensors: tuple[BoundaryTensor, ...]) -> None:
    for tensor in tensors:
        if tensor.dtype != "float32":
            raise UnfitModelError(
                f"tensor {tensor.name!r} is {tensor.dtype}; export the model with float32 at its "
                "boundary"
            )


def _layout_of(tensor: BoundaryTensor) -> Layout:
    """Channels stand where the axis is shorter: second, or last."""
    axes = len(tensor.shape)
    if axes not in (AXES_OF_PICTURES, AXES_OF_VOLUMES):
        raise UnfitModelError(
            f"input {tensor.name!r} has {axes} axes; a model takes {AXES_OF_PICTURES} (pictures) "
            f"or {AXES_OF_VOLUMES} (volumes)"
        )
    is_volume = axes == AXES_OF_VOLUMES
    second, last = tensor.shape[1], tensor.shape[-1]
    short = [size for size in (second, last) if 1 <= size <= MOST_CHANNELS]
    if short and min(short) == second:
        return Layout.NCDHW if is_volume else Layout.NCHW
    if short:
        return Layout.NDHWC if is_volume else Layout.NHWC
    raise UnfitModelError(
        f"input {tensor.name!r} of shape {tensor.shape} has no axis of at most {MOST_CHANNELS} "
        "channels; export it with a fixed number of channels, second or last"
    )

"""The preprocessing steps that a package may name: their parameters, and what may follow what.

A package's steps stand in three parts. Steps of an *image* see one image at a time, and run while
a study arrives. One step *collects* the images. What follows sees the *stack* of all of them, and
at the end makes *channels* of it. ``check_order`` and ``prepared_shape`` let a package be refused
before any image has come; the arithmetic is in ``engines.preprocessing``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, model_validator

from engines.fields import (
    LEAST_WIDTH,
    Bounds,
    ClosedModel,
    Millimetres,
    PercentRange,
    Pixels,
    Value,
)

FREE = -1
"""A size that the steps leave open."""

Method = Literal["area", "linear", "nearest"]
"""``area``: each new pixel is the mean of what it covers; ``linear``: between the centres of the
nearest pixels, nothing but the edge beyond the outermost ones; ``nearest``: the nearest centre."""


class Rescale(ClosedModel):
    """Stored values to HU, or what the rescale gives (PS3.3 C.11.1), each image with its own."""

    step: Literal["rescale"]
    padding: Value
    """What padding becomes: values equal to PixelPaddingValue (0028,0120), or from there to
    PixelPaddingRangeLimit (0028,0121)."""


class InvertMonochrome1(ClosedModel):
    """Images in which larger values are darker (MONOCHROME1) are turned over; padding stays."""

    step: Literal["invert_monochrome1"]


class CanonicalOrientation(ClosedModel):
    """Turn to how a radiologist expects it.

    Axial with the nose up and the patient's left on the right; coronal and sagittal with the head
    up. An image without orientation stays as it is.
    """

    step: Literal["canonical_orientation"]


class ResampleInPlane(ClosedModel):
    """Onto a grid of square pixels about the image's centre; needs PixelSpacing."""

    step: Literal["resample_in_plane"]
    rows: Pixels
    columns: Pixels
    pixel_mm: Millimetres
    method: Method = "area"
    fill: Value
    """Beyond the image."""


class Resize(ClosedModel):
    """Stretch to a size, whatever the spacing."""

    step: Literal["resize"]
    rows: Pixels
    columns: Pixels
    method: Method = "area"


class Letterbox(ClosedModel):
    """The largest picture of the same proportions that fits, in the middle, the rest filled.

    Proportions are those of the pixels times their spacing, where it is known.
    """

    step: Literal["letterbox"]
    rows: Pixels
    columns: Pixels
    method: Method = "area"
    fill: Value


class CropToForeground(ClosedModel):
    """Cut down to the box around everything above a value: the body, or the skull."""

    step: Literal["crop_to_foreground"]
    above: Value
    margin: Annotated[int, Field(ge=0, le=512)] = 0
    """Pixels (and slices) left on each side, as far as there are any."""


class CropOrPad(ClosedModel):
    """To a size about the middle: cut where there is too much, fill where there is too little."""

    step: Literal["crop_or_pad"]
    rows: Pixels
    columns: Pixels
    slices: Annotated[int, Field(ge=1, le=2048)] | None = None
    """Only for a stack; absent: all."""
    fill: Value


class PercentileNormalise(ClosedModel):
    """The lower percentile becomes 0, the upper 1, linear between; both over the picture or stack.

    Percentiles are those of linear interpolation between order statistics. A picture without
    contrast becomes 0.
    """

    step: Literal["percentile_normalise"]
    percentiles: PercentRange
    foreground_above: Value | None = None
    """Only values above it count for the percentiles; absent: all."""
    clip: bool = True


class ZscoreNormalise(ClosedModel):
    """Minus the mean, over the standard deviation; both over the picture or stack.

    A picture without contrast becomes 0.
    """

    step: Literal["zscore_normalise"]
    foreground_above: Value | None = None
    """Only values above it count for mean and deviation; absent: all."""


class ScaleRange(ClosedModel):
    """Linear: the first pair of values becomes the second."""

    step: Literal["scale_range"]
    source: Bounds
    target: Bounds
    clip: bool = True
    """Values beyond ``source`` become the ends of ``target``."""


class EachImage(ClosedModel):
    """Collect: images stand for themselves, in the order of position, or of instance number."""

    step: Literal["each_image"]
    max_images: Annotated[int, Field(ge=1, le=2048)] = 64


class StackSlices(ClosedModel):
    """Collect: slices along the normal, axial from inferior to superior."""

    step: Literal["stack_slices"]
    max_slices: Annotated[int, Field(ge=1, le=2048)] = 1024


class AverageSlabs(ClosedModel):
    """Collect: average slices along the normal into slabs of equal thickness, by overlap.

    A slice reaches half-way to its neighbours, the outermost as far outwards as inwards. Slabs
    that hold nothing are left out; those at both ends may be partly filled, so that nothing that
    was scanned is left out.
    """

    step: Literal["average_slabs"]
    thickness_mm: Millimetres
    origin: Literal["first_slice", "patient"] = "patient"
    """Where slabs begin: at the first slice's outer face, or at multiples of the thickness in the
    patient's coordinates. Only of the second kind is it known, while slices still arrive, which of
    them make a slab."""
    max_slabs: Annotated[int, Field(ge=1, le=512)] = 128


class ResampleStack(ClosedModel):
    """To a spacing, or to a number of slices, rows and columns over the same extent."""

    step: Literal["resample_stack"]
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] | None = None
    """Between slices, rows, columns; the stack keeps its middle."""
    shape: tuple[Annotated[int, Field(ge=1, le=2048)], Pixels, Pixels] | None = None
    method: Method = "linear"
    max_voxels: Annotated[int, Field(ge=1, le=512_000_000)] = 64_000_000
    """More are not analysed."""

    @model_validator(mode="after")
    def _one_of_two(self) -> ResampleStack:
        if (self.spacing_mm is None) == (self.shape is None):
            raise ValueError("resample_stack: give either 'spacing_mm' or 'shape'")
        return self


class Window(ClosedModel):
    """HU below ``low`` become 0, above ``high`` 1, linear between."""

    low: Value
    high: Value

    @model_validator(mode="after")
    def _low_below_high(self) -> Window:
        if self.high - self.low < LEAST_WIDTH:
            raise ValueError(f"window: 'high' must be above 'low', by {LEAST_WIDTH:g} or more")
        return self


class WindowChannels(ClosedModel):
    """One channel for each window."""

    step: Literal["window_channels"]
    windows: Annotated[tuple[Window, ...], Field(min_length=1, max_length=8)]


class RepeatChannels(ClosedModel):
    """The same channels again, for networks that were made for colour."""

    step: Literal["repeat_channels"]
    times: Annotated[int, Field(ge=2, le=16)]


class Standardise(ClosedModel):
    """Each channel minus its mean, over its deviation, as the network's first training had it."""

    step: Literal["standardise"]
    mean: Annotated[tuple[Value, ...], Field(min_length=1, max_length=64)]
    deviation: Annotated[
        tuple[Annotated[float, Field(ge=LEAST_WIDTH, le=1e6)], ...],
        Field(min_length=1, max_length=64),
    ]

    @model_validator(mode="after")
    def _as_many(self) -> Standardise:
        if len(self.mean) != len(self.deviation):
            raise ValueError("standardise: 'mean' and 'deviation' need one number a channel each")
        return self


class Neighbours(ClosedModel):
    """Each item's channels, preceded and followed by those of ``radius`` neighbours (2.5D).

    Channel order: all channels of item k-radius, ..., of item k, ..., of item k+radius; at the
    ends the outermost item repeats.
    """

    step: Literal["neighbours"]
    radius: Annotated[int, Field(ge=0, le=8)]


PreprocessStep = Annotated[
    Rescale
    | InvertMonochrome1
    | CanonicalOrientation
    | ResampleInPlane
    | Resize
    | Letterbox
    | CropToForeground
    | CropOrPad
    | PercentileNormalise
    | ZscoreNormalise
    | ScaleRange
    | EachImage
    | StackSlices
    | AverageSlabs
    | ResampleStack
    | WindowChannels
    | RepeatChannels
    | Standardise
    | Neighbours,
    Field(discriminator="step"),
]


class Part(str, Enum):
    """Where in the list a step may stand."""

    STORED = "stored"
    """First, and nowhere else."""
    IMAGE = "image"
    COLLECT = "collect"
    STACK = "stack"
    CHANNELS = "channels"


# A step of two parts belongs to the one in which it stands.
PARTS: Mapping[type[ClosedModel], tuple[Part, ...]] = MappingProxyType(
    {
        Rescale: (Part.STORED,),
        InvertMonochrome1: (Part.IMAGE,),
        CanonicalOrientation: (Part.IMAGE,),
        ResampleInPlane: (Part.IMAGE,),
        Resize: (Part.IMAGE,),
        Letterbox: (Part.IMAGE,),
        CropToForeground: (Part.IMAGE, Part.STACK),
        CropOrPad: (Part.IMAGE, Part.STACK),
        PercentileNormalise: (Part.IMAGE, Part.STACK),
        ZscoreNormalise: (Part.IMAGE, Part.STACK),
        ScaleRange: (Part.IMAGE, Part.STACK),
        EachImage: (Part.COLLECT,),
        StackSlices: (Part.COLLECT,),
        AverageSlabs: (Part.COLLECT,),
        ResampleStack: (Part.STACK,),
        WindowChannels: (Part.CHANNELS,),
        RepeatChannels: (Part.CHANNELS,),
        Standardise: (Part.CHANNELS,),
        Neighbours: (Part.CHANNELS,),
    }
)
_ORDER = tuple(Part)


def parts_of(steps: Sequence[PreprocessStep]) -> dict[Part, tuple[PreprocessStep, ...]]:
    """Divides the steps of a package into its parts.

    Raises:
        ValueError: They begin otherwise than with ``rescale``, do not collect exactly once, or a
            step stands where it has no meaning.
    """
    found: dict[Part, list[PreprocessStep]] = {part: [] for part in Part}
    reached = Part.STORED
    for place, step in enumerate(steps):
        reached = _part_of(step, reached, place)
        found[reached].append(step)
        if reached in (Part.STORED, Part.COLLECT):
            reached = _ORDER[_ORDER.index(reached) + 1]
    for part in (Part.STORED, Part.COLLECT):
        if len(found[part]) != 1:
            names = ", ".join(_names_of(part))
            raise ValueError(f"preprocess: there must be exactly one step of: {names}")
    _check_images(found[Part.IMAGE])
    return {part: tuple(items) for part, items in found.items()}


def _check_images(steps: Sequence[PreprocessStep]) -> None:
    has_changed = False
    for step in steps:
        # Later, rows and columns that a step has fixed would change places, and what a step has
        # filled would be turned over.
        if isinstance(step, (InvertMonochrome1, CanonicalOrientation)) and has_changed:
            raise ValueError(f"preprocess: {step.step} stands directly behind rescale")
        has_changed |= not isinstance(step, (InvertMonochrome1, CanonicalOrientation))
        if isinstance(step, CropOrPad) and step.slices is not None:
            raise ValueError("preprocess: 'slices' of crop_or_pad needs a stack; collect before it")


def _part_of(step: PreprocessStep, reached: Part, place: int) -> Part:
    later = [part for part in PARTS[type(step)] if _ORDER.index(part) >= _ORDER.index(reached)]
    if not later or (place == 0) != (later[0] is Part.STORED):
        raise ValueError(
            f"preprocess: {step.step!r} cannot stand at place {place + 1}; first comes rescale, "
            "then steps of single images, one that collects, steps of the stack, and channels"
        )
    return later[0]


def _names_of(part: Part) -> list[str]:
    return [
        kind.model_fields["step"].annotation.__args__[0]  # type: ignore[union-attr]  # a Literal
        for kind, parts in PARTS.items()
        if part in parts
    ]


def can_stream(steps: Sequence[PreprocessStep]) -> bool:
    """Whether an item of the model's input rests on a few neighbouring images only.

    Such a model may run while a study arrives.
    """
    parts = parts_of(steps)
    collect = parts[Part.COLLECT][0]
    is_fixed = not isinstance(collect, AverageSlabs) or collect.origin == "patient"
    return is_fixed and not isinstance(collect, StackSlices) and not parts[Part.STACK]


class PreparedShape(ClosedModel):
    """What the steps end in; ``FREE`` where they leave a size open."""

    channels: int
    slices: int
    """Or slabs, or images."""
    rows: int
    columns: int


def prepared_shape(steps: Sequence[PreprocessStep]) -> PreparedShape:
    """Follows the sizes through the steps.

    Raises:
        ValueError: The steps are out of order, or channels do not match.
    """
    slices = rows = columns = FREE
    channels = 1
    parts = parts_of(steps)
    for step in (*parts[Part.IMAGE], *parts[Part.STACK]):
        if isinstance(step, (ResampleInPlane, Resize, Letterbox, CropOrPad)):
            rows, columns = step.rows, step.columns
        if isinstance(step, CropOrPad) and step.slices is not None:
            slices = step.slices
        if isinstance(step, CropToForeground):
            slices = rows = columns = FREE
        if isinstance(step, ResampleStack):
            slices, rows, columns = step.shape or (FREE, FREE, FREE)
    for step in parts[Part.CHANNELS]:
        channels = _channels_after(step, channels)
    return PreparedShape(channels=channels, slices=slices, rows=rows, columns=columns)


def _channels_after(step: PreprocessStep, channels: int) -> int:
    if isinstance(step, WindowChannels):
        if channels != 1:
            raise ValueError("preprocess: window_channels needs a single channel before it")
        return len(step.windows)
    if isinstance(step, RepeatChannels):
        return channels * step.times
    if isinstance(step, Neighbours):
        return channels * (2 * step.radius + 1)
    if isinstance(step, Standardise) and len(step.mean) != channels:
        raise ValueError(
            f"preprocess: standardise has {len(step.mean)} numbers for {channels} channels"
        )
    return channels

"""The model package: ``package.toml`` as closed types (docs/model-package.md).

A package alone says which series a model is for, how stored pixels become tensors, how numbers
become coded findings, and what must be true of a study before the model may look at it. Unknown
keys are refused: a misspelt rule must never be a missing rule.
"""

from __future__ import annotations

import re
from enum import Enum
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("the first number must not be above the second")
    return interval


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error.msg})") from error
    return pattern


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,63}$")]
Version = Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}\.\d{1,6}$")]
Hu = Annotated[float, Field(ge=-32768, le=32767)]
Millimetres = Annotated[float, Field(gt=0, le=1000)]
MillimetreRange = Annotated[tuple[Millimetres, Millimetres], AfterValidator(_ordered)]
Years = Annotated[float, Field(ge=0, le=130)]
CodeString = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")]
"""A value of type CS (PS3.5 6.2)."""
Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)+$", max_length=64)]
DicomText = Annotated[str, Field(pattern=r"^[^\\\x00-\x1f\x7f]+$", max_length=64)]
"""Fits an LO attribute (PS3.5 6.2): one line, no backslash, at most 64 characters."""
Pattern = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_regular_expression)]


class ClosedModel(BaseModel):
    """Frozen, nothing outside the schema, and every number finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Code(ClosedModel):
    """A coded concept (PS3.3 8.8)."""

    value: Annotated[DicomText, Field(max_length=16)]
    scheme: Annotated[DicomText, Field(max_length=16)]
    meaning: DicomText


class SelectionRules(ClosedModel):
    """Which series are for this model; a series must pass every rule.

    Localizers, secondary captures, dose reports and presentation states are never candidates,
    whatever stands here.
    """

    modalities: Annotated[tuple[CodeString, ...], Field(min_length=1, max_length=16)]
    sop_class_uids: Annotated[tuple[Uid, ...], Field(min_length=1, max_length=32)]
    image_type_required: Annotated[tuple[CodeString, ...], Field(max_length=16)] = ()
    """Values that (0008,0008) must hold, all of them."""
    image_type_excluded: Annotated[tuple[CodeString, ...], Field(max_length=16)] = ()
    """Values that (0008,0008) must not hold, any of them."""
    body_parts: Annotated[tuple[CodeString, ...], Field(max_length=64)] = ()
    """Accepted (0018,0015) values, upper case; a series without the attribute passes."""
    min_images: Annotated[int, Field(ge=1, le=10_000)] = 1
    prefer: Annotated[
        tuple[Literal["thinnest", "soft_kernel", "most_images"], ...], Field(min_length=1)
    ] = ("soft_kernel", "most_images")
    """Which of several series is taken; a later word decides between those that an earlier left."""
    soft_kernels: Annotated[tuple[Pattern, ...], Field(max_length=32)] = ()
    """Regular expressions, matched without case against the convolution kernel."""


class GateRules(ClosedModel):
    """What must hold of the selected series; else the study is not analysed, with the reason."""

    slice_thickness_mm: MillimetreRange = (0.1, 10.0)
    slice_spacing_mm: MillimetreRange = (0.1, 10.0)
    pixel_spacing_mm: MillimetreRange = (0.1, 5.0)
    coverage_mm: MillimetreRange = (20.0, 1000.0)
    max_gantry_tilt_deg: Annotated[float, Field(ge=0, le=90)] = 1.0
    max_spacing_deviation: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Of any gap between neighbours from the median gap, as a fraction."""
    contrast: Literal["forbidden", "required", "any"] = "any"
    lossy: Literal["forbidden", "allowed"] = "forbidden"
    orientation: Literal["axial", "any"] = "axial"
    max_obliquity_deg: Annotated[float, Field(ge=0, le=90)] = 30.0
    age_years: Annotated[tuple[Years, Years], AfterValidator(_ordered)] | None = None
    """Lowest and highest age at the study; absent: any age, also an unknown one."""
    sexes: Annotated[tuple[Literal["F", "M", "O"], ...], Field(max_length=3)] = ()
    """Accepted (0010,0040) values; empty: any, also an unknown one."""


class ResampleInPlane(ClosedModel):
    """Area-average each slice onto a square-pixel grid centred on the image centre."""

    step: Literal["resample_in_plane"]
    rows: Annotated[int, Field(ge=8, le=1024)]
    columns: Annotated[int, Field(ge=8, le=1024)]
    pixel_mm: Millimetres
    outside_hu: Hu = -1000.0


class AverageSlabs(ClosedModel):
    """Average slices along the normal into slabs of equal thickness, weighted by overlap."""

    step: Literal["average_slabs"]
    thickness_mm: Millimetres
    max_slabs: Annotated[int, Field(ge=1, le=512)] = 128


class Window(ClosedModel):
    """HU below ``low`` become 0, above ``high`` 1, linear between."""

    low: Hu
    high: Hu

    @model_validator(mode="after")
    def _low_below_high(self) -> Window:
        if self.low >= self.high:
            raise ValueError("window: 'low' must be below 'high'")
        return self


class WindowChannels(ClosedModel):
    """One channel for each window."""

    step: Literal["window_channels"]
    windows: Annotated[tuple[Window, ...], Field(min_length=1, max_length=8)]


class NeighbourSlabs(ClosedModel):
    """Each slab's channels, preceded and followed by those of ``radius`` neighbours.

    Channel order: all windows of slab k-radius, ..., of slab k, ..., of slab k+radius; at the ends
    the outermost slab repeats.
    """

    step: Literal["neighbour_slabs"]
    radius: Annotated[int, Field(ge=0, le=4)]


PreprocessStep = Annotated[
    ResampleInPlane | AverageSlabs | WindowChannels | NeighbourSlabs,
    Field(discriminator="step"),
]


_STEP_ORDER = ("resample_in_plane", "average_slabs", "window_channels", "neighbour_slabs")


class TensorRule(ClosedModel):
    """Name and shape of one tensor; ``-1`` is a free dimension."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    dtype: Literal["float32"]
    shape: Annotated[
        tuple[Annotated[int, Field(ge=-1, le=4096)], ...], Field(min_length=1, max_length=6)
    ]

    @model_validator(mode="after")
    def _no_empty_dimension(self) -> TensorRule:
        if 0 in self.shape:
            raise ValueError("tensor: a dimension of 0 holds nothing; -1 is a free dimension")
        return self


class Calibration(ClosedModel):
    """Platt scaling: probability = sigmoid(slope * logit + intercept)."""

    slope: Annotated[float, Field(gt=0, le=100)]
    intercept: Annotated[float, Field(ge=-100, le=100)]


class OperatingPoint(ClosedModel):
    """Probability at or above which the finding is suspected, and how far it may be moved."""

    threshold: Annotated[float, Field(gt=0, lt=1)]
    allowed: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=0, lt=1)]]

    @model_validator(mode="after")
    def _inside_bounds(self) -> OperatingPoint:
        low, high = self.allowed
        if not low <= self.threshold <= high:
            raise ValueError("operating point: 'threshold' must lie within 'allowed'")
        return self


class Aggregation(ClosedModel):
    """How the logits of slabs become the study's: the mean of the ``top`` largest."""

    top: Annotated[int, Field(ge=1, le=64)] = 1


class FindingOutput(ClosedModel):
    """One model output and the coded finding that it stands for."""

    tensor: TensorRule
    finding: Code
    aggregation: Aggregation = Aggregation()
    calibration: Calibration
    operating_point: OperatingPoint


class Urgency(str, Enum):
    """Urgency class of a suspected finding, the most urgent first."""

    CRITICAL = "critical"
    URGENT = "urgent"
    ROUTINE = "routine"


class Parity(ClosedModel):
    """How closely an engine must reproduce the golden outputs."""

    absolute: Annotated[float, Field(gt=0, le=1)] = 1e-3
    relative: Annotated[float, Field(ge=0, le=1)] = 1e-3


class ModelPackage(ClosedModel):
    """``package.toml``."""

    name: Name
    version: Version
    title: Annotated[DicomText, Field(max_length=38)]
    """A short name of the finding, such as 'ICH': worklists and SeriesDescription (LO, at most 64
    characters) put 'AI TRIAGE - ' before and ' NOT SUSPECTED' behind it."""
    intended_use: Annotated[str, Field(min_length=1, max_length=1000)]
    disclaimer: Annotated[str, Field(min_length=1, max_length=300)]
    demonstration: bool
    """True when the model must not be used on patients; every screen and object says so."""
    urgency: Urgency
    procedure: Code
    """Procedure reported (TID 1500 row 4)."""
    selection: SelectionRules
    gate: GateRules
    preprocess: Annotated[tuple[PreprocessStep, ...], Field(min_length=1, max_length=16)]
    input: TensorRule
    output: FindingOutput
    parity: Parity = Parity()

    @model_validator(mode="after")
    def _preprocessing_is_in_order(self) -> ModelPackage:
        places = [_STEP_ORDER.index(step.step) for step in self.preprocess]
        if any(later <= earlier for earlier, later in pairwise(places)):
            raise ValueError(
                f"preprocessing steps stand at most once each, in the order {_STEP_ORDER}"
            )
        return self

    @model_validator(mode="after")
    def _preprocessing_fits_the_input(self) -> ModelPackage:
        promised = _prepared_shape(self.preprocess)
        wanted = self.input.shape
        fits = len(promised) == len(wanted) and all(
            -1 in pair or pair[0] == pair[1] for pair in zip(promised, wanted, strict=True)
        )
        if not fits:
            raise ValueError(
                f"preprocessing ends in tensors of shape {promised}, but 'input' takes {wanted}"
            )
        return self


def _prepared_shape(steps: tuple[PreprocessStep, ...]) -> tuple[int, int, int, int]:
    """Shape (slabs, channels, rows, columns) that the steps end in; -1 where they leave it open."""
    rows = columns = -1
    channels = 1
    for step in steps:
        if isinstance(step, ResampleInPlane):
            rows, columns = step.rows, step.columns
        elif isinstance(step, WindowChannels):
            channels *= len(step.windows)
        elif isinstance(step, NeighbourSlabs):
            channels *= 2 * step.radius + 1
    return -1, channels, rows, columns

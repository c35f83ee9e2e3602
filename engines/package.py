"""The model package: ``package.toml`` as closed types (docs/model-package.md).

A package alone says which series a model is for, how stored pixels become tensors, how numbers
become coded findings, and what must be true of a study before the model may look at it. Unknown
keys are refused: a misspelt rule must never be a missing rule.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from engines.fields import (
    ClosedModel,
    CodeString,
    DicomText,
    MillimetreRange,
    Name,
    Pattern,
    Uid,
    Version,
    YearRange,
)
from engines.steps import FREE, PreparedShape, PreprocessStep, prepared_shape

FORMAT = 1
"""Of ``package.toml``; a device refuses one that it does not know."""


class Code(ClosedModel):
    """A coded concept (PS3.3 8.8)."""

    value: Annotated[DicomText, Field(max_length=16)]
    scheme: Annotated[DicomText, Field(max_length=16)]
    meaning: DicomText


class Requirements(ClosedModel):
    """What a device must have before it takes the package."""

    runtime: Version = "0.1.0"
    """Lowest version of edge-triage."""
    accelerator: Literal["none", "gpu"] = "none"
    """``gpu``: without one the model is too slow to be of use."""
    memory_mib: Annotated[int, Field(ge=64, le=65_536)] = 1024
    """Of the machine, for the model alone."""


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
    view_positions: Annotated[tuple[CodeString, ...], Field(max_length=16)] = ()
    """Accepted (0018,5101) values; an image without the attribute passes. Empty: any."""
    for_processing: Literal["forbidden", "allowed"] = "forbidden"
    """Images of raw values: PresentationIntentType (0008,0068) or the SOP class says so."""
    min_images: Annotated[int, Field(ge=1, le=10_000)] = 1
    series: Literal["one", "all"] = "one"
    """How many of the series that pass are looked at. ``all`` is for images that stand for
    themselves: devices put each radiograph into a series of its own."""
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
    manufacturers: Annotated[tuple[Pattern, ...], Field(max_length=32)] = ()
    """Regular expressions, matched without case against (0008,0070); empty: any."""
    kernels: Annotated[tuple[Pattern, ...], Field(max_length=32)] = ()
    """The same for the convolution kernel (0018,1210)."""
    view_positions: Annotated[tuple[CodeString, ...], Field(max_length=16)] = ()
    """Accepted (0018,5101) values; an image without the attribute is refused. Empty: any."""
    age_years: YearRange | None = None
    """Lowest and highest age at the study; absent: any age, also an unknown one."""
    sexes: Annotated[tuple[Literal["F", "M", "O"], ...], Field(max_length=3)] = ()
    """Accepted (0010,0040) values; empty: any, also an unknown one."""


class TensorRule(ClosedModel):
    """Name and shape of one tensor; ``-1`` is a free dimension."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,64}$")]
    dtype: Literal["float32"]
    shape: Annotated[
        tuple[Annotated[int, Field(ge=-1, le=4096)], ...], Field(min_length=1, max_length=6)
    ]

    @model_validator(mode="after")
    def _no_empty_dimension(self) -> TensorRule:
        if 0 in self.shape:
            raise ValueError("tensor: a dimension of 0 holds nothing; -1 is a free dimension")
        return self


class Layout(str, Enum):
    """The axes of the model's input.

    N: items of the stack, each looked at for itself; C: channels; D: the stack as one volume; H, W:
    rows, columns.
    """

    NCHW = "NCHW"
    NHWC = "NHWC"
    NCDHW = "NCDHW"
    NDHWC = "NDHWC"

    @property
    def is_volume(self) -> bool:
        """The whole stack is one item."""
        return "D" in self.value


class InputRule(TensorRule):
    """The model's one input."""

    layout: Layout = Layout.NCHW

    @model_validator(mode="after")
    def _as_many_axes(self) -> InputRule:
        if len(self.shape) != len(self.layout.value):
            raise ValueError(f"input: layout {self.layout.value} has {len(self.layout.value)} axes")
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
    """How the logits of items become the study's: the mean of the ``top`` largest."""

    top: Annotated[int, Field(ge=1, le=64)] = 1


class Urgency(str, Enum):
    """Urgency class of a suspected finding, the most urgent first."""

    CRITICAL = "critical"
    URGENT = "urgent"
    ROUTINE = "routine"


class FindingRule(ClosedModel):
    """One coded finding, and which numbers of which output stand for it."""

    key: Name
    """By which the evaluation, a site's settings and telemetry name it; unique in the package."""
    code: Code
    urgency: Urgency
    tensor: Annotated[str, Field(min_length=1, max_length=64)]
    """Name of an output."""
    element: Annotated[int, Field(ge=0, le=4095)] | None = None
    """Which one along the output's last axis; absent: the output has one number for each item."""
    scale: Literal["logit", "probability", "softmax"] = "logit"
    """What the numbers are. ``softmax``: logits of classes of which one is true; the finding's
    logit is then the element's, less the logarithm of the summed exponentials of the others."""
    aggregation: Aggregation = Aggregation()
    calibration: Calibration
    operating_point: OperatingPoint


class Tolerance(ClosedModel):
    """How far a number may be from the golden one: ``absolute + relative * |golden|``."""

    absolute: Annotated[float, Field(gt=0, le=1)] = 1e-2
    relative: Annotated[float, Field(ge=0, le=1)] = 1e-2


class Parity(ClosedModel):
    """How closely an engine must reproduce the golden outputs."""

    absolute: Annotated[float, Field(gt=0, le=1)] = 1e-3
    relative: Annotated[float, Field(ge=0, le=1)] = 1e-3
    fp16: Tolerance = Tolerance()
    """Of an engine that a site lets compute in half precision, whose numbers have 11 bits."""


class ModelPackage(ClosedModel):
    """``package.toml``."""

    format: Literal[1]
    name: Name
    version: Version
    title: Annotated[DicomText, Field(max_length=38)]
    """What the model looks for in a few letters, such as 'ICH': worklists and SeriesDescription
    (LO, at most 64 characters) put 'AI TRIAGE - ' before and ' NOT SUSPECTED' behind it."""
    intended_use: Annotated[str, Field(min_length=1, max_length=1000)]
    disclaimer: Annotated[str, Field(min_length=1, max_length=300)]
    demonstration: bool
    """True when the model must not be used on patients; every screen and object says so."""
    procedure: Code
    """Procedure reported (TID 1500 row 4)."""
    requires: Requirements = Requirements()
    selection: SelectionRules
    gate: GateRules
    preprocess: Annotated[tuple[PreprocessStep, ...], Field(min_length=2, max_length=24)]
    input: InputRule
    outputs: Annotated[tuple[TensorRule, ...], Field(min_length=1, max_length=16)]
    """Every output of the model, in the order of the ONNX file."""
    findings: Annotated[tuple[FindingRule, ...], Field(min_length=1, max_length=32)]
    """The most important first."""
    parity: Parity = Parity()

    @property
    def urgency(self) -> Urgency:
        """Of the most urgent finding: how soon a study must be looked at by the model."""
        return min((finding.urgency for finding in self.findings), key=list(Urgency).index)

    def finding(self, key: str) -> FindingRule:
        """Returns the finding of that key.

        Raises:
            KeyError: There is none.
        """
        for finding in self.findings:
            if finding.key == key:
                return finding
        raise KeyError(key)

    @model_validator(mode="after")
    def _preprocessing_fits_the_input(self) -> ModelPackage:
        promised = _input_shape(prepared_shape(self.preprocess), self.input.layout)
        fits = all(
            FREE in pair or pair[0] == pair[1]
            for pair in zip(promised, self.input.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"preprocessing ends in tensors of shape {promised}, but 'input' takes "
                f"{self.input.shape}"
            )
        return self

    @model_validator(mode="after")
    def _findings_rest_on_outputs(self) -> ModelPackage:
        names = [output.name for output in self.outputs]
        if len(set(names)) < len(names) or self.input.name in names:
            raise ValueError("two tensors have the same name")
        keys = [finding.key for finding in self.findings]
        if len(set(keys)) < len(keys):
            raise ValueError("two findings have the same key")
        for finding in self.findings:
            if finding.tensor not in names:
                raise ValueError(f"finding {finding.key!r}: no output is named {finding.tensor!r}")
            _check_element(finding, self.outputs[names.index(finding.tensor)])
        if any(output.shape[0] != self.input.shape[0] for output in self.outputs):
            raise ValueError(
                "outputs: the first axis is that of the items, and as long as the input's"
            )
        return self

    @model_validator(mode="after")
    def _all_series_only_of_single_images(self) -> ModelPackage:
        collects_images = any(step.step == "each_image" for step in self.preprocess)
        if self.selection.series == "all" and not collects_images:
            raise ValueError("selection: series = 'all' needs the step each_image")
        return self


def _input_shape(prepared: PreparedShape, layout: Layout) -> tuple[int, ...]:
    sizes = {
        "N": 1 if layout.is_volume else prepared.slices,
        "C": prepared.channels,
        "D": prepared.slices,
        "H": prepared.rows,
        "W": prepared.columns,
    }
    return tuple(sizes[axis] for axis in layout.value)


def _check_element(finding: FindingRule, output: TensorRule) -> None:
    if finding.element is None:
        if finding.scale == "softmax":
            raise ValueError(f"finding {finding.key!r}: softmax needs 'element'")
        if any(size not in (FREE, 1) for size in output.shape[1:]):
            raise ValueError(
                f"finding {finding.key!r}: output {output.name!r} has several numbers for each "
                "item; say which one by 'element'"
            )
    elif output.shape[-1] <= finding.element:
        raise ValueError(
            f"finding {finding.key!r}: output {output.name!r} has no element {finding.element} "
            "along its last axis, whose size must be fixed"
        )

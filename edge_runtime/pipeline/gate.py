"""Whether the selected series is one that the model may look at.

Every check is a row of ``CHECKS``; the first that objects decides. A refusal names what was
measured and what is allowed, and never holds patient data: no age, no sex, no identifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import REASONS, ReasonCode
from edge_runtime.pipeline.decode import MAX_PIXEL_BYTES, pixel_layout
from edge_runtime.pipeline.errors import DecodeError
from edge_runtime.pipeline.geometry import StackGeometry, measure_stack
from edge_runtime.pipeline.selection import first_match
from engines.package import GateRules

# Images of these modalities are slices of a volume; others are projections without a stack.
CROSS_SECTIONAL_MODALITIES = frozenset({"CT", "MR", "PT", "NM"})
# Syntaxes that lose information whatever (0028,2110) says; the others tell by that attribute.
LOSSY_SYNTAXES = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless})
# A slice further aside than this from its neighbours was not reconstructed on the same grid.
MAX_LATERAL_JUMP_MM = 1.0
# Lengths come from decimal strings: 0.4999999 mm is 0.5 mm.
RELATIVE_TOLERANCE = 1e-4
AXIAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the series is not analysed."""

    reason: ReasonCode
    measured: str
    """What was found and what is allowed, without patient data."""

    @property
    def sentence(self) -> str:
        """The reason in plain words."""
        return REASONS[self.reason].sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    headers: Sequence[InstanceHeader]
    stack: StackGeometry | None
    is_cross_sectional: bool
    max_pixel_bytes: int


def check_series(
    headers: Sequence[InstanceHeader],
    rules: GateRules,
    *,
    max_pixel_bytes: int = MAX_PIXEL_BYTES,
) -> Refusal | None:
    """Check the selected series against the package's rules.

    Args:
        headers: of the selected series, at least one, in any order.
        rules: the model package's.
        max_pixel_bytes: bound on one decoded frame.

    Returns:
        None when the model may look at the series.
    """
    is_cross_sectional = headers[0].modality in CROSS_SECTIONAL_MODALITIES
    series = _Series(
        headers=headers,
        stack=measure_stack(headers) if is_cross_sectional else None,
        is_cross_sectional=is_cross_sectional,
        max_pixel_bytes=max_pixel_bytes,
    )
    for check in CHECKS:
        refusal = check(series, rules)
        if refusal is not None:
            return refusal
    return None


def _pixel_format(series: _Series, _: GateRules) -> Refusal | None:
    try:
        for header in series.headers:
            pixel_layout(header, max_bytes=series.max_pixel_bytes)
    except DecodeError as error:
        return Refusal(reason=error.reason, measured=str(error))
    return None


def _rescale(series: _Series, _: GateRules) -> Refusal | None:
    without = sum(
        header.modality == "CT"
        and (header.rescale_slope is None or header.rescale_intercept is None)
        for header in series.headers
    )
    return _refuse_if(without, ReasonCode.RESCALE_MISSING, f"{without} images without rescale")


def _geometry(series: _Series, _: GateRules) -> Refusal | None:
    missing = series.is_cross_sectional and series.stack is None
    return _refuse_if(missing, ReasonCode.GEOMETRY_MISSING, "geometry attributes missing")


def _stack_is_sound(series: _Series, rules: GateRules) -> Refusal | None:
    stack = series.stack
    if stack is None:
        return None
    limit = rules.max_spacing_deviation
    findings = (
        (not stack.is_parallel, ReasonCode.MIXED_ORIENTATION, "orientations differ"),
        (not stack.is_one_grid, ReasonCode.INCONSISTENT_IMAGES, "size or pixel spacing differ"),
        (
            stack.duplicate_positions > 0,
            ReasonCode.DUPLICATE_POSITIONS,
            f"{stack.duplicate_positions} images at a position already taken",
        ),
        (
            stack.max_gap_deviation > limit,
            ReasonCode.MISSING_SLICES,
            f"gaps differ by {stack.max_gap_deviation:.0%}, allowed: {limit:.0%}",
        ),
        (
            stack.lateral_jump_mm > MAX_LATERAL_JUMP_MM,
            ReasonCode.INCONSISTENT_IMAGES,
            f"an image lies {stack.lateral_jump_mm:.1f} mm aside",
        ),
    )
    return _first(findings)


def _tilt(series: _Series, rules: GateRules) -> Refusal | None:
    """Measured, or declared: a declared tilt that positions hide cannot be trusted either."""
    declared = max((abs(header.gantry_tilt_deg or 0.0) for header in series.headers), default=0.0)
    measured = 0.0 if series.stack is None else series.stack.tilt_deg
    tilt = max(declared, measured)
    return _refuse_if(
        series.is_cross_sectional and tilt > rules.max_gantry_tilt_deg,
        ReasonCode.GANTRY_TILT,
        f"tilt {tilt:.1f} degrees, at most {rules.max_gantry_tilt_deg:g} allowed",
    )


def _orientation(series: _Series, rules: GateRules) -> Refusal | None:
    if series.stack is None or rules.orientation == "any":
        return None
    plane = series.stack.plane
    findings = (
        (plane.axis != AXIAL, ReasonCode.ORIENTATION_NOT_COVERED, "images are not axial"),
        (
            plane.obliquity_deg > rules.max_obliquity_deg,
            ReasonCode.OBLIQUE,
            f"{plane.obliquity_deg:.1f} degrees, at most {rules.max_obliquity_deg:g} allowed",
        ),
    )
    return _first(findings)


def _thickness(series: _Series, rules: GateRules) -> Refusal | None:
    if not series.is_cross_sectional:
        return None
    found = [header.slice_thickness_mm for header in series.headers]
    known = [thickness for thickness in found if thickness is not None]
    if len(known) < len(found):
        count = len(found) - len(known)
        return Refusal(
            reason=ReasonCode.SLICE_THICKNESS_MISSING, measured=f"{count} images without thickness"
        )
    return _outside(known, rules.slice_thickness_mm, ReasonCode.SLICE_THICKNESS_OUT_OF_RANGE)


def _spacing(series: _Series, rules: GateRules) -> Refusal | None:
    if series.stack is None or series.stack.spacing_mm is None:
        return None
    return _outside(
        [series.stack.spacing_mm], rules.slice_spacing_mm, ReasonCode.SLICE_SPACING_OUT_OF_RANGE
    )


def _pixel_spacing(series: _Series, rules: GateRules) -> Refusal | None:
    found = [
        spacing
        for header in series.headers
        if header.pixel_spacing_mm is not None
        for spacing in header.pixel_spacing_mm
    ]
    return _outside(found, rules.pixel_spacing_mm, ReasonCode.PIXEL_SPACING_OUT_OF_RANGE)


def _coverage(series: _Series, rules: GateRules) -> Refusal | None:
    """From the first slice's outer face to the last one's."""
    stack = series.stack
    if stack is None:
        return None
    extent = stack.spacing_mm or series.headers[0].slice_thickness_mm or 0.0
    covered = stack.positions_mm[-1] - stack.positions_mm[0] + extent
    return _outside([covered], rules.coverage_mm, ReasonCode.COVERAGE_OUT_OF_RANGE)


def _contrast(series: _Series, rules: GateRules) -> Refusal | None:
    given = sum(header.contrast_bolus for header in series.headers)
    findings = (
        (
            rules.contrast == "forbidden" and given > 0,
            ReasonCode.CONTRAST_NOT_ALLOWED,
            f"{given} images with contrast",
        ),
        (
            rules.contrast == "required" and given == 0,
            ReasonCode.CONTRAST_REQUIRED,
            "no image with contrast",
        ),
    )
    return _first(findings)


def _lossy(series: _Series, rules: GateRules) -> Refusal | None:
    lossy = sum(
        header.lossy_image_compression or header.transfer_syntax_uid in LOSSY_SYNTAXES
        for header in series.headers
    )
    return _refuse_if(
        rules.lossy == "forbidden" and lossy > 0,
        ReasonCode.LOSSY_COMPRESSION,
        f"{lossy} images compressed with loss",
    )


def _view(series: _Series, rules: GateRules) -> Refusal | None:
    if not rules.view_positions:
        return None
    allowed = f"allowed: {', '.join(rules.view_positions)}"
    views = [(header.view_position or "").strip().upper() for header in series.headers]
    findings = (
        (not all(views), ReasonCode.VIEW_MISSING, allowed),
        (
            any(view not in rules.view_positions for view in views),
            ReasonCode.VIEW_NOT_COVERED,
            allowed,
        ),
    )
    return _first(findings)


def _manufacturer(series: _Series, rules: GateRules) -> Refusal | None:
    found = [header.manufacturer for header in series.headers]
    return _unless_matched(found, rules.manufacturers, ReasonCode.MANUFACTURER_NOT_COVERED)


def _kernel(series: _Series, rules: GateRules) -> Refusal | None:
    found = [header.convolution_kernel for header in series.headers]
    return _unless_matched(found, rules.kernels, ReasonCode.KERNEL_NOT_COVERED)


def _age(series: _Series, rules: GateRules) -> Refusal | None:
    if rules.age_years is None:
        return None
    low, high = rules.age_years
    allowed = f"allowed: {low:g} to {high:g} years"
    ages = [h.patient_age_years for h in series.headers if h.patient_age_years is not None]
    findings = (
        (not ages, ReasonCode.AGE_MISSING, allowed),
        (any(not low <= age <= high for age in ages), ReasonCode.AGE_OUT_OF_RANGE, allowed),
    )
    return _first(findings)


def _sex(series: _Series, rules: GateRules) -> Refusal | None:
    covered = all((header.patient_sex or "") in rules.sexes for header in series.headers)
    return _refuse_if(
        bool(rules.sexes) and not covered,
        ReasonCode.SEX_NOT_COVERED,
        f"allowed: {', '.join(rules.sexes)}",
    )


# The order in which a person would look: can it be read, is it a sound volume, is it the right one.
CHECKS: tuple[Callable[[_Series, GateRules], Refusal | None], ...] = (
    _pixel_format,
    _rescale,
    _geometry,
    _stack_is_sound,
    _tilt,
    _orientation,
    _thickness,
    _spacing,
    _pixel_spacing,
    _coverage,
    _contrast,
    _lossy,
    _view,
    _manufacturer,
    _kernel,
    _age,
    _sex,
)


def _first(findings: Sequence[tuple[bool, ReasonCode, str]]) -> Refusal | None:
    for refused, reason, measured in findings:
        if refused:
            return Refusal(reason=reason, measured=measured)
    return None


def _refuse_if(refused: float, reason: ReasonCode, measured: str) -> Refusal | None:
    return Refusal(reason=reason, measured=measured) if refused else None


def _unless_matched(
    found: Sequence[str | None], patterns: Sequence[str], reason: ReasonCode
) -> Refusal | None:
    """An attribute that is missing matches nothing; its value is not repeated: it is free text."""
    if not patterns:
        return None
    others = sum(first_match(text, patterns) is None for text in found)
    return _refuse_if(others, reason, f"{others} images match none of the package's patterns")


def _outside(
    values_mm: Sequence[float], allowed_mm: tuple[float, float], reason: ReasonCode
) -> Refusal | None:
    low, high = allowed_mm
    for value in values_mm:
        if not low * (1 - RELATIVE_TOLERANCE) <= value <= high * (1 + RELATIVE_TOLERANCE):
            return Refusal(
                reason=reason, measured=f"{value:.2f} mm, allowed: {low:g} to {high:g} mm"
            )
    return None

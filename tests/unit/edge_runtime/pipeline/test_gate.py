from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import JPEG2000, JPEGBaseline8Bit

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import REASONS, ReasonCode, ReasonKind
from edge_runtime.pipeline.gate import check_series
from engines.package import GateRules

MakeHeader = Callable[..., InstanceHeader]
MakeStack = Callable[..., list[InstanceHeader]]

CHILDREN = GateRules(age_years=(1.0, 5.0))


def reason_of(headers: list[InstanceHeader], rules: GateRules | None = None) -> ReasonCode | None:
    refusal = check_series(headers, rules or GateRules())
    if refusal is None:
        return None
    assert refusal.sentence == REASONS[refusal.reason].sentence
    assert refusal.measured
    return refusal.reason


def test_sound_series_passes(make_stack: MakeStack) -> None:
    assert reason_of(make_stack(30)) is None


def test_missing_slice_is_refused(make_stack: MakeStack) -> None:
    stack = make_stack(30)
    del stack[12]
    assert reason_of(stack) is ReasonCode.MISSING_SLICES


def test_duplicate_position_is_refused(make_stack: MakeStack) -> None:
    stack = make_stack(30)
    assert reason_of([*stack, stack[3]]) is ReasonCode.DUPLICATE_POSITIONS


def test_mixed_orientation_is_refused(make_stack: MakeStack) -> None:
    stack = make_stack(30)
    stack[9] = replace(stack[9], image_orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    assert reason_of(stack) is ReasonCode.MIXED_ORIENTATION


def test_sheared_stack_is_refused_as_tilt_whatever_the_header_says(make_stack: MakeStack) -> None:
    shear = 5.0 * math.tan(math.radians(10))
    sheared = make_stack(30, step_mm=(0.0, shear, 5.0), gantry_tilt_deg=0.0)
    assert reason_of(sheared) is ReasonCode.GANTRY_TILT
    assert reason_of(sheared, GateRules(max_gantry_tilt_deg=15)) is None


def test_declared_tilt_is_refused_although_positions_hide_it(make_stack: MakeStack) -> None:
    assert reason_of(make_stack(30, gantry_tilt_deg=-12.0)) is ReasonCode.GANTRY_TILT


def test_slice_aside_is_refused(make_stack: MakeStack) -> None:
    stack = make_stack(30)
    stack[9] = replace(stack[9], image_position_mm=(-100.0, -115.0, 45.0))
    assert reason_of(stack) is ReasonCode.INCONSISTENT_IMAGES


def test_anisotropic_pixels_pass_and_each_spacing_is_checked(make_stack: MakeStack) -> None:
    assert reason_of(make_stack(30, pixel_spacing_mm=(0.8, 0.4))) is None
    narrow = GateRules(pixel_spacing_mm=(0.1, 0.6))
    wrong = ReasonCode.PIXEL_SPACING_OUT_OF_RANGE
    assert reason_of(make_stack(30, pixel_spacing_mm=(0.8, 0.4)), narrow) is wrong
    assert reason_of(make_stack(30, pixel_spacing_mm=(0.4, 0.8)), narrow) is wrong


@pytest.mark.parametrize(
    ("changes", "rules", "reason"),
    [
        ({"number_of_frames": 30}, {}, ReasonCode.MULTIFRAME_NOT_SUPPORTED),
        ({"bits_allocated": 32}, {}, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"rows": 60_000, "columns": 60_000}, {}, ReasonCode.PIXELS_TOO_LARGE),
        ({"rescale_slope": None}, {}, ReasonCode.RESCALE_MISSING),
        ({"image_orientation": None}, {}, ReasonCode.GEOMETRY_MISSING),
        (
            {"image_orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)},
            {"max_gantry_tilt_deg": 90},
            ReasonCode.DUPLICATE_POSITIONS,
        ),
        ({"slice_thickness_mm": None}, {}, ReasonCode.SLICE_THICKNESS_MISSING),
        ({"slice_thickness_mm": 12.0}, {}, ReasonCode.SLICE_THICKNESS_OUT_OF_RANGE),
        ({}, {"slice_spacing_mm": (0.5, 3.0)}, ReasonCode.SLICE_SPACING_OUT_OF_RANGE),
        ({}, {"slice_spacing_mm": (0.5, 4.99999)}, None),
        ({}, {"coverage_mm": (200.0, 300.0)}, ReasonCode.COVERAGE_OUT_OF_RANGE),
        ({}, {"coverage_mm": (20.0, 100.0)}, ReasonCode.COVERAGE_OUT_OF_RANGE),
        ({"contrast_bolus": True}, {"contrast": "forbidden"}, ReasonCode.CONTRAST_NOT_ALLOWED),
        ({"contrast_bolus": True}, {"contrast": "required"}, None),
        ({}, {"contrast": "required"}, ReasonCode.CONTRAST_REQUIRED),
        ({"lossy_image_compression": True}, {}, ReasonCode.LOSSY_COMPRESSION),
        ({"lossy_image_compression": True}, {"lossy": "allowed"}, None),
        ({"transfer_syntax_uid": JPEGBaseline8Bit}, {}, ReasonCode.LOSSY_COMPRESSION),
        ({"transfer_syntax_uid": JPEG2000}, {}, None),
        ({"patient_sex": "M"}, {"sexes": ("F",)}, ReasonCode.SEX_NOT_COVERED),
        ({"patient_sex": None}, {"sexes": ("F",)}, ReasonCode.SEX_NOT_COVERED),
        ({"patient_sex": "F"}, {"sexes": ("F",)}, None),
        ({"view_position": None}, {"view_positions": ("AP", "PA")}, ReasonCode.VIEW_MISSING),
        ({"view_position": "LL"}, {"view_positions": ("AP",)}, ReasonCode.VIEW_NOT_COVERED),
        ({"view_position": "ap "}, {"view_positions": ("AP",)}, None),
        (
            {"manufacturer": "Unknown Inc."},
            {"manufacturers": ("^siemens", "^ge medical")},
            ReasonCode.MANUFACTURER_NOT_COVERED,
        ),
        ({"manufacturer": "SIEMENS"}, {"manufacturers": ("^siemens",)}, None),
        (
            {"manufacturer": None},
            {"manufacturers": ("^siemens",)},
            ReasonCode.MANUFACTURER_NOT_COVERED,
        ),
        ({"convolution_kernel": "H70h"}, {"kernels": ("^h[1-4]",)}, ReasonCode.KERNEL_NOT_COVERED),
        ({"convolution_kernel": "H31s"}, {"kernels": ("^h[1-4]",)}, None),
    ],
)
def test_each_rule_refuses_with_its_own_reason(
    make_stack: MakeStack,
    changes: dict[str, Any],
    rules: dict[str, Any],
    reason: ReasonCode | None,
) -> None:
    assert reason_of(make_stack(30, **changes), GateRules.model_validate(rules)) is reason


def test_a_manufacturer_that_is_refused_is_not_repeated(make_stack: MakeStack) -> None:
    rules = GateRules(manufacturers=("^siemens",))
    refusal = check_series(make_stack(3, manufacturer="Canary Imaging"), rules)
    assert refusal is not None
    assert "Canary" not in refusal.measured


def test_coronal_and_steep_series_are_not_axial(make_stack: MakeStack) -> None:
    coronal = make_stack(
        30, step_mm=(0.0, 5.0, 0.0), image_orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    )
    assert reason_of(coronal) is ReasonCode.ORIENTATION_NOT_COVERED
    assert reason_of(coronal, GateRules(orientation="any")) is None
    angle = math.radians(40)
    steep = make_stack(
        30,
        step_mm=(0.0, -5.0 * math.sin(angle), 5.0 * math.cos(angle)),
        image_orientation=(1.0, 0.0, 0.0, 0.0, math.cos(angle), math.sin(angle)),
    )
    assert reason_of(steep) is ReasonCode.OBLIQUE
    assert reason_of(steep, GateRules(max_obliquity_deg=45)) is None


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (None, ReasonCode.AGE_MISSING),
        (0.9, ReasonCode.AGE_OUT_OF_RANGE),
        (1.0, None),
        (5.0, None),
        (43.0, ReasonCode.AGE_OUT_OF_RANGE),
    ],
)
def test_age_is_checked_and_never_shown(
    make_stack: MakeStack, age: float | None, reason: ReasonCode | None
) -> None:
    refusal = check_series(make_stack(30, patient_age_years=age), CHILDREN)
    assert (refusal.reason if refusal else None) is reason
    assert refusal is None or refusal.measured == "allowed: 1 to 5 years"


def test_radiograph_needs_no_stack(make_header: MakeHeader) -> None:
    radiograph = make_header(
        modality="DX",
        image_position_mm=None,
        image_orientation=None,
        pixel_spacing_mm=None,
        slice_thickness_mm=None,
        rescale_slope=None,
    )
    assert reason_of([radiograph]) is None


def test_single_slice_covers_its_thickness_only(make_stack: MakeStack) -> None:
    assert reason_of(make_stack(1)) is ReasonCode.COVERAGE_OUT_OF_RANGE
    assert reason_of(make_stack(1), GateRules(coverage_mm=(4.0, 50.0))) is None


def test_real_head_series_passes_whole_and_is_refused_with_a_gap(
    real_data: Path, header_of: Callable[[Path], InstanceHeader]
) -> None:
    folder = next(real_data.glob("*dcm_qa_ct/In/Philips/S21570/S2010"))
    files = [header_of(path) for path in sorted(folder.iterdir())]
    headers = [header for header in files if header.has_pixel_data]
    assert reason_of(headers) is None
    ordered = sorted(headers, key=lambda header: (header.image_position_mm or (0, 0, 0))[2])
    del ordered[10]
    assert reason_of(ordered) is ReasonCode.MISSING_SLICES


def test_every_refusal_of_the_gate_means_not_analysed_and_in_scope() -> None:
    for reason in (ReasonCode.MISSING_SLICES, ReasonCode.GANTRY_TILT, ReasonCode.AGE_MISSING):
        assert REASONS[reason].kind is ReasonKind.NOT_ANALYSED
        assert REASONS[reason].in_scope

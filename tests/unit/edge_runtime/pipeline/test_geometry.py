"""Geometry of slices, made by hand and measured on a real scanner's series."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.instance import InstanceHeader
from edge_runtime.pipeline.geometry import measure_stack, plane_of, position_along_normal

MakeHeader = Callable[..., InstanceHeader]
MakeStack = Callable[..., list[InstanceHeader]]


@settings(derandomize=True, deadline=None)
@given(order=st.permutations(range(9)))
def test_slices_are_ordered_along_the_normal_however_they_arrived(
    make_stack: MakeStack, order: list[int]
) -> None:
    stack = make_stack(9)
    measured = measure_stack([stack[index] for index in order])
    assert measured is not None
    assert [order[index] for index in measured.order] == list(range(9))
    assert measured.positions_mm == pytest.approx([5.0 * index for index in range(9)])
    assert measured.spacing_mm == pytest.approx(5.0)
    assert measured.max_gap_deviation == pytest.approx(0.0, abs=1e-9)
    assert measured.duplicate_positions == 0
    assert measured.tilt_deg == pytest.approx(0.0, abs=1e-6)


def test_order_of_flipped_images_still_runs_to_the_head(make_stack: MakeStack) -> None:
    stack = make_stack(4, image_orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    measured = measure_stack(stack[::-1])
    assert measured is not None
    assert measured.plane.normal == (0.0, 0.0, 1.0)
    assert measured.order == (3, 2, 1, 0)


def test_affine_reaches_the_centre_of_every_corner_pixel(make_stack: MakeStack) -> None:
    tilt = math.radians(20)
    across = np.array([1.0, 0.0, 0.0])
    down = np.array([0.0, math.cos(tilt), math.sin(tilt)])
    stack = make_stack(
        5,
        step_mm=(0.0, -2.0 * math.sin(tilt), 2.0 * math.cos(tilt)),
        rows=300,
        columns=200,
        pixel_spacing_mm=(0.8, 0.4),
        image_orientation=(*across.tolist(), *down.tolist()),
    )
    measured = measure_stack(stack)
    assert measured is not None
    for index, header in enumerate(stack):
        assert header.image_position_mm is not None
        for row, column in ((0, 0), (299, 0), (0, 199), (299, 199)):
            # PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1.
            expected = np.array(header.image_position_mm) + across * 0.4 * column + down * 0.8 * row
            reached = measured.affine @ [column, row, index, 1]
            np.testing.assert_allclose(reached[:3], expected, atol=1e-9)


def test_missing_slice_shows_as_a_gap(make_stack: MakeStack) -> None:
    measured = measure_stack([header for index, header in enumerate(make_stack(12)) if index != 5])
    assert measured is not None
    assert measured.spacing_mm == pytest.approx(5.0)
    assert measured.max_gap_deviation == pytest.approx(1.0)


def test_duplicate_position_shows_and_leaves_the_spacing_alone(make_stack: MakeStack) -> None:
    stack = make_stack(6)
    measured = measure_stack([*stack, replace(stack[3], sop_instance_uid="1.2.1.99")])
    assert measured is not None
    assert measured.duplicate_positions == 1
    assert measured.spacing_mm == pytest.approx(5.0)
    assert measured.max_gap_deviation == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("degrees", [-15.0, 2.0, 25.0])
def test_tilt_is_the_shear_between_normal_and_stacking(
    make_stack: MakeStack, degrees: float
) -> None:
    sheared = make_stack(8, step_mm=(0.0, 5.0 * math.tan(math.radians(degrees)), 5.0))
    measured = measure_stack(sheared)
    assert measured is not None
    assert measured.tilt_deg == pytest.approx(abs(degrees), abs=1e-6)
    assert measured.lateral_jump_mm == pytest.approx(0.0, abs=1e-9)


def test_oblique_but_unsheared_series_has_no_tilt(make_stack: MakeStack) -> None:
    angle = math.radians(12)
    measured = measure_stack(
        make_stack(
            8,
            step_mm=(0.0, -5.0 * math.sin(angle), 5.0 * math.cos(angle)),
            image_orientation=(1.0, 0.0, 0.0, 0.0, math.cos(angle), math.sin(angle)),
        )
    )
    assert measured is not None
    assert measured.tilt_deg == pytest.approx(0.0, abs=1e-5)
    assert measured.plane.obliquity_deg == pytest.approx(12.0)
    assert measured.spacing_mm == pytest.approx(5.0)


def test_one_slice_aside_is_a_jump_and_no_tilt(make_stack: MakeStack) -> None:
    stack = make_stack(9)
    stack[4] = replace(stack[4], image_position_mm=(-112.0, -115.0, 20.0))
    measured = measure_stack(stack)
    assert measured is not None
    assert measured.lateral_jump_mm == pytest.approx(3.0)
    assert measured.tilt_deg == pytest.approx(0.0, abs=1e-6)


def test_single_slice_has_no_spacing(make_stack: MakeStack) -> None:
    measured = measure_stack(make_stack(1))
    assert measured is not None
    assert (measured.spacing_mm, measured.max_gap_deviation, measured.tilt_deg) == (None, 0, 0)


@pytest.mark.parametrize(
    ("change", "parallel", "one_grid"),
    [
        ({"image_orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)}, False, True),
        ({"image_orientation": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0001)}, True, True),
        ({"rows": 256}, True, False),
        ({"pixel_spacing_mm": (0.45, 0.46)}, True, False),
        ({"frame_of_reference_uid": "1.2.10"}, True, False),
    ],
)
def test_slices_unlike_the_first_are_seen(
    make_stack: MakeStack, change: dict[str, Any], *, parallel: bool, one_grid: bool
) -> None:
    stack = make_stack(5)
    stack[2] = replace(stack[2], **change)
    measured = measure_stack(stack)
    assert measured is not None
    assert (measured.is_parallel, measured.is_one_grid) == (parallel, one_grid)


@pytest.mark.parametrize(
    "change",
    [
        {"image_position_mm": None},
        {"image_position_mm": (0.0, 0.0, math.nan)},
        {"image_orientation": None},
        {"image_orientation": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)},
        {"image_orientation": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)},
        {"image_orientation": (math.inf, 0.0, 0.0, 0.0, 1.0, 0.0)},
        {"pixel_spacing_mm": None},
        {"pixel_spacing_mm": (0.0, 0.5)},
        {"rows": None},
    ],
)
def test_unusable_geometry_of_one_slice_is_no_geometry(
    make_stack: MakeStack, change: dict[str, Any]
) -> None:
    stack = make_stack(3)
    stack[1] = replace(stack[1], **change)
    assert measure_stack(stack) is None


def test_position_needs_orientation_and_place(make_header: MakeHeader) -> None:
    assert position_along_normal(make_header(image_position_mm=None)) is None
    assert position_along_normal(make_header(image_orientation=None)) is None
    assert position_along_normal(make_header(image_orientation=(1.0,) * 6)) is None
    assert position_along_normal(make_header(image_position_mm=(3.0, 4.0, 5.0))) == 5.0


def test_planes_name_their_dominant_axis() -> None:
    axes = {
        (0.0, 1.0, 0.0, 0.0, 0.0, -1.0): 0,
        (1.0, 0.0, 0.0, 0.0, 0.0, -1.0): 1,
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0): 2,
    }
    for orientation, axis in axes.items():
        plane = plane_of(orientation)
        assert plane is not None
        assert plane.axis == axis
        assert plane.obliquity_deg == 0.0


def test_real_series_of_the_wheel_is_a_sound_stack(
    wheel_file: Callable[[str], Path], header_of: Callable[[Path], InstanceHeader]
) -> None:
    folder = wheel_file("CT_small.dcm").parent / "dicomdirtests" / "98892001" / "CT5N"
    measured = measure_stack([header_of(path) for path in sorted(folder.iterdir())])
    assert measured is not None
    assert measured.spacing_mm == pytest.approx(2.5)
    assert measured.tilt_deg == pytest.approx(0.0, abs=1e-6)
    assert measured.max_gap_deviation < 1e-3


def test_real_head_series_is_sound_and_without_one_slice_is_not(
    real_data: Path, header_of: Callable[[Path], InstanceHeader]
) -> None:
    folder = next(real_data.glob("*dcm_qa_ct/In/Philips/S21570/S2010"))
    files = [header_of(path) for path in sorted(folder.iterdir())]
    headers = [header for header in files if header.has_pixel_data]
    whole = measure_stack(headers)
    assert whole is not None
    assert whole.spacing_mm == pytest.approx(5.0)
    assert whole.max_gap_deviation < 1e-3
    without = [header for index, header in enumerate(headers) if index != whole.order[13]]
    damaged = measure_stack(without)
    assert damaged is not None
    assert damaged.max_gap_deviation == pytest.approx(1.0)

"""What an instance's header tells the preprocessing steps; the steps have tests of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import REASONS, ReasonCode, ReasonKind
from edge_runtime.pipeline.errors import PreprocessError
from edge_runtime.pipeline.inference import Source, plan
from edge_runtime.pipeline.preprocess import REASON_OF_FAULT, prepare_image, stored_image
from engines.errors import ImageFault
from engines.package import ModelPackage
from engines.preprocessing.values import Turn
from engines.steps import (
    CanonicalOrientation,
    CropToForeground,
    EachImage,
    InvertMonochrome1,
    PreprocessStep,
    Rescale,
)

MakeHeader = Callable[..., InstanceHeader]
MakeStack = Callable[..., list[InstanceHeader]]

PIXELS = np.arange(6, dtype=np.uint16).reshape(2, 3)
PLAIN: tuple[PreprocessStep, ...] = (
    Rescale(step="rescale", padding=-1000),
    EachImage(step="each_image"),
)


def test_each_image_has_its_own_slope_and_intercept(make_header: MakeHeader) -> None:
    header = make_header(rows=2, columns=3, rescale_slope=2.0, rescale_intercept=-24.5)
    prepared = prepare_image(PIXELS, header, PLAIN)
    np.testing.assert_array_equal(prepared.values, PIXELS * np.float32(2.0) - np.float32(24.5))


def test_padding_is_known_whether_it_was_written_signed_or_unsigned(
    make_header: MakeHeader,
) -> None:
    pixels = np.array([[-2000, 5, 7]], dtype=np.int16)
    for padding in (-2000, -2000 & 0xFFFF):
        header = make_header(rows=1, columns=3, pixel_padding_value=padding, pixel_representation=1)
        assert prepare_image(pixels, header, PLAIN).values[0].tolist() == [-1000, -1019, -1017]


def test_a_radiograph_without_geometry_or_rescale_is_taken_as_it_is(
    make_header: MakeHeader,
) -> None:
    header = make_header(
        rows=2,
        columns=3,
        rescale_slope=None,
        rescale_intercept=None,
        image_orientation=None,
        image_position_mm=None,
        pixel_spacing_mm=None,
    )
    image = stored_image(PIXELS, header)
    assert (image.turn, image.position_mm, image.spacing_mm) == (None, None, None)
    np.testing.assert_array_equal(prepare_image(PIXELS, header, PLAIN).values, PIXELS)


def test_an_inverted_radiograph_is_turned_over_within_its_stored_bits(
    make_header: MakeHeader,
) -> None:
    header = make_header(
        rows=2,
        columns=3,
        bits_stored=12,
        rescale_slope=1.0,
        rescale_intercept=0.0,
        photometric_interpretation="MONOCHROME1",
    )
    steps = (PLAIN[0], InvertMonochrome1(step="invert_monochrome1"), PLAIN[1])
    np.testing.assert_array_equal(
        prepare_image(PIXELS, header, steps).values, 4095 - PIXELS.astype(np.float32)
    )


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        ((1, 0, 0, 0, 1, 0), Turn()),
        ((-1, 0, 0, 0, 1, 0), Turn(flip_columns=True)),
        ((1, 0, 0, 0, -1, 0), Turn(flip_rows=True)),
        ((0, 1, 0, 1, 0, 0), Turn(transpose=True)),
    ],
)
def test_the_header_says_how_an_image_is_turned(
    make_header: MakeHeader, orientation: tuple[float, ...], turn: Turn
) -> None:
    header = make_header(rows=2, columns=3, image_orientation=orientation)
    assert stored_image(PIXELS, header).turn == turn
    steps = (PLAIN[0], CanonicalOrientation(step="canonical_orientation"), PLAIN[1])
    shape = prepare_image(PIXELS, header, steps).values.shape
    assert shape == ((3, 2) if turn.transpose else (2, 3))


@pytest.mark.parametrize(
    ("changes", "steps", "reason"),
    [
        ({"rows": 3}, PLAIN, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"rescale_slope": 0.0}, PLAIN, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"rescale_slope": float("nan")}, PLAIN, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        (
            {},
            (PLAIN[0], CropToForeground(step="crop_to_foreground", above=1e5), PLAIN[1]),
            ReasonCode.NOTHING_VISIBLE,
        ),
    ],
)
def test_what_the_steps_cannot_use_is_a_reason(
    make_header: MakeHeader,
    changes: dict[str, Any],
    steps: tuple[PreprocessStep, ...],
    reason: ReasonCode,
) -> None:
    header = make_header(**{"rows": 2, "columns": 3} | changes)
    with pytest.raises(PreprocessError) as refusal:
        prepare_image(PIXELS, header, steps)
    assert refusal.value.reason is reason


def test_every_fault_of_images_has_a_reason_that_does_not_blame_the_device() -> None:
    assert set(REASON_OF_FAULT) == set(ImageFault)
    for reason in REASON_OF_FAULT.values():
        assert REASONS[reason].kind is ReasonKind.NOT_ANALYSED


def test_images_are_ordered_along_the_normal_and_without_position_by_number(
    make_stack: MakeStack, package: ModelPackage
) -> None:
    stack = make_stack(5)
    sources = [
        Source(instance_id=number, header=header) for number, header in enumerate(stack[::-1])
    ]
    assert [each.instance_id for each in plan(sources, package).sources] == [4, 3, 2, 1, 0]
    flat = [replace(header, image_position_mm=None) for header in make_stack(3)]
    numbered = [
        Source(instance_id=number, header=header)
        for number, header in sorted(enumerate(flat), reverse=True)
    ]
    found = [each.header.sop_instance_uid for each in plan(numbered, package).sources]
    assert found == sorted(found)


def test_a_range_of_padding_reaches_the_steps(make_header: MakeHeader) -> None:
    header = make_header(
        rows=1,
        columns=3,
        pixel_representation=1,
        pixel_padding_value=-2000,
        pixel_padding_range_limit=-1990,
    )
    pixels = np.array([[-2000, -1995, 7]], dtype=np.int16)
    assert prepare_image(pixels, header, PLAIN).values[0].tolist() == [-1000, -1000, -1017]


def test_a_range_that_leaves_nothing_of_the_image_has_a_reason(make_header: MakeHeader) -> None:
    header = make_header(
        rows=2,
        columns=3,
        bits_stored=12,
        pixel_representation=0,
        pixel_padding_value=0,
        pixel_padding_range_limit=4095,
    )
    with pytest.raises(PreprocessError) as caught:
        prepare_image(PIXELS, header, PLAIN)
    assert caught.value.reason is ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED

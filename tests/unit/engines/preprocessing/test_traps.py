"""Mistakes seen elsewhere on the way from slices to a volume: ours must not make them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.spatial.transform  # type: ignore[import-untyped]  # comes without types
from simulators.reference_images import centred_image, on_grid, sitk, steps_of

from engines.errors import ImageFault, UnfitImagesError
from engines.package import Layout
from engines.preprocessing.collecting import order_pictures
from engines.preprocessing.running import assemble, finish, prepare, stack_of
from engines.preprocessing.values import StoredImage, Turn

RESCALE = {"step": "rescale", "padding": -1000.0}
TURN = {"step": "canonical_orientation"}
SLABS = {"step": "average_slabs", "thickness_mm": 5.0}
SLICES = {"step": "stack_slices"}
IMAGES = {"step": "each_image"}


def stored(value: int, **fields: Any) -> StoredImage:
    known = {"pixels": np.full((8, 8), value, dtype=np.int16), "is_signed": True, **fields}
    return StoredImage(**known)


@pytest.mark.parametrize("oblique_deg", [0.0, 15.0])
@pytest.mark.parametrize("transpose", [False, True])
def test_row_and_column_spacing_are_never_exchanged(*, transpose: bool, oblique_deg: float) -> None:
    spacing = (0.4, 0.8)
    pixels = np.random.default_rng(1).integers(-1000, 2000, (40, 30)).astype(np.int16)
    plain = np.diag([1.0, 1.0, 1.0]) if not transpose else np.diag([1.0, 1.0, -1.0])[[1, 0, 2]]
    tilt = scipy.spatial.transform.Rotation.from_euler("xyz", [oblique_deg] * 3, degrees=True)
    image = centred_image(pixels[np.newaxis], (1.0, *spacing), tilt.as_matrix() @ plain)
    theirs = on_grid(sitk.DICOMOrient(image, "LPS"), (1, 24, 20), (1.0, 0.9, 0.9), "linear", -1000)
    grid = {"step": "resample_in_plane", "rows": 24, "columns": 20, "pixel_mm": 0.9, "fill": -1000}
    ours = prepare(
        StoredImage(
            pixels=pixels, is_signed=True, spacing_mm=spacing, turn=Turn(transpose=transpose)
        ),
        steps_of(RESCALE, TURN, {**grid, "method": "linear"}, IMAGES),
    )
    np.testing.assert_allclose(ours.values, theirs[0], atol=0.01)


def test_extent_of_anisotropic_pixels_is_that_of_their_own_spacing() -> None:
    image = stored(0, pixels=np.zeros((100, 50), dtype=np.int16), spacing_mm=(0.4, 0.8))
    grid = {"step": "resample_in_plane", "rows": 64, "columns": 64, "pixel_mm": 1.0, "fill": -1000}
    inside = prepare(image, steps_of(RESCALE, grid, IMAGES)).values > -500
    assert (inside.any(axis=1).sum(), inside.any(axis=0).sum()) == (40, 40)


def test_spacing_turns_with_the_image_before_it_makes_a_stack() -> None:
    steps = steps_of(
        RESCALE, TURN, SLICES, {"step": "resample_stack", "spacing_mm": [2.0, 0.5, 0.5]}
    )
    images = [
        stored(
            0,
            pixels=np.zeros((10, 20), dtype=np.int16),
            spacing_mm=(1.0, 0.5),
            turn=Turn(transpose=True),
            position_mm=z,
        )
        for z in (0.0, 2.0)
    ]
    stack = finish(stack_of([prepare(image, steps) for image in images], steps), steps)
    assert stack.values.shape == (2, 20, 20)


def test_slope_and_intercept_of_the_first_slice_are_not_taken_for_all() -> None:
    rescales = [(1.0, 0.0), (0.25, -3.5), (2.0, -1024.0)]
    steps = steps_of(RESCALE, SLICES)
    pictures = [
        prepare(stored(100, slope=slope, intercept=intercept, position_mm=float(z)), steps)
        for z, (slope, intercept) in enumerate(rescales)
    ]
    tensor = assemble(pictures, steps, Layout.NCHW)
    assert tensor[:, 0, 0, 0].tolist() == [100.0, 21.5, -824.0]


def test_missing_slice_makes_no_volume_in_silence() -> None:
    steps = steps_of(RESCALE, SLICES)
    pictures = [prepare(stored(0, position_mm=z), steps) for z in (0.0, 2.0, 4.0, 8.0, 10.0)]
    with pytest.raises(UnfitImagesError) as caught:
        assemble(pictures, steps, Layout.NCHW)
    assert caught.value.fault is ImageFault.INCONSISTENT


def test_missing_slice_moves_nothing_that_lies_beyond_it() -> None:
    steps = steps_of(RESCALE, SLABS)
    places = [2.5, 7.5, 12.5, 22.5, 27.5]
    pictures = [prepare(stored(int(10 * z), position_mm=z), steps) for z in places]
    slabs = assemble(pictures, steps, Layout.NCHW)[:, 0, 0, 0]
    assert slabs[[0, 1, 2, 4, 5]].tolist() == [25.0, 75.0, 125.0, 225.0, 275.0]
    assert slabs[3] == pytest.approx((125.0 + 225.0) / 2)


def test_tilted_slices_are_ordered_and_spaced_along_their_normal() -> None:
    tilt = np.deg2rad(20.0)
    normal = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
    # The table moves along z; the normal leans back.
    corners = [np.array([0.0, 0.0, 5.0 * index]) for index in (3, 0, 2, 1)]
    steps = steps_of(RESCALE, SLICES)
    pictures = [
        prepare(stored(index, position_mm=float(corner @ normal), spacing_mm=(0.5, 0.5)), steps)
        for index, corner in enumerate(corners)
    ]
    assert order_pictures(pictures) == (1, 3, 2, 0)
    stack = stack_of(pictures, steps)
    assert stack.spacing_mm is not None
    assert stack.spacing_mm[0] == pytest.approx(5.0 * np.cos(tilt))
    assert stack.values[:, 0, 0].tolist() == [1.0, 3.0, 2.0, 0.0]


def test_padding_is_replaced_before_anything_is_averaged() -> None:
    pixels = np.full((16, 16), 1064, dtype=np.int16)
    pixels[:, 8:] = -32768
    image = stored(0, pixels=pixels, intercept=-1024.0, padding=-32768, spacing_mm=(1.0, 1.0))
    grid = {"step": "resample_in_plane", "rows": 8, "columns": 9, "pixel_mm": 1.0, "fill": -1000}
    values = prepare(image, steps_of(RESCALE, grid, IMAGES)).values
    np.testing.assert_allclose(values[:, :4], 40.0, atol=1e-3)
    np.testing.assert_allclose(values[:, 4], -480.0, atol=1e-3)
    assert (values[:, 5:] == -1000.0).all()


def test_extreme_unsigned_values_stay_exact() -> None:
    pixels = np.full((64, 64), 65535, dtype=np.uint16)
    image = StoredImage(pixels=pixels, intercept=-32768.0, spacing_mm=(0.5, 0.5))
    grid = {"step": "resample_in_plane", "rows": 8, "columns": 8, "pixel_mm": 3.0, "fill": -1000}
    values = prepare(image, steps_of(RESCALE, grid, IMAGES)).values
    np.testing.assert_allclose(values, 32767.0, atol=0.05)

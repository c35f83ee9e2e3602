"""Turning, against SimpleITK's DICOMOrient."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.spatial.transform  # type: ignore[import-untyped]  # comes without types
from simulators.reference_images import centred_image, picture, sitk

from engines.preprocessing.orientation import canonical_orientation
from engines.preprocessing.values import Float64, Turn
from engines.steps import CanonicalOrientation

CANONICAL = CanonicalOrientation(step="canonical_orientation")
TURNS = [
    Turn(transpose=transpose, flip_rows=flip_rows, flip_columns=flip_columns)
    for transpose, flip_rows, flip_columns in product([False, True], repeat=3)
]
# Where columns and rows run in the canonical image, and SimpleITK's word for it.
PLANES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "LPS": ((1, 0, 0), (0, 1, 0)),
    "LIP": ((1, 0, 0), (0, 0, -1)),
    "PIL": ((0, 1, 0), (0, 0, -1)),
}


def directions(turn: Turn, plane: str, oblique_deg: float) -> Float64:
    """Of an image that this turn brings into the canonical orientation: columns, rows, normal."""
    across, down = (np.array(axis, dtype=np.float64) for axis in PLANES[plane])
    across = -across if turn.flip_columns else across
    down = -down if turn.flip_rows else down
    first, second = (down, across) if turn.transpose else (across, down)
    matrix = np.stack([first, second, np.cross(first, second)], axis=1)
    tilt = scipy.spatial.transform.Rotation.from_euler("xyz", [oblique_deg] * 3, degrees=True)
    turned: Float64 = tilt.as_matrix() @ matrix
    return turned


@pytest.mark.parametrize("oblique_deg", [0.0, 12.0])
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("turn", TURNS)
def test_pictures_are_turned_as_simpleitk_turns_them(
    turn: Turn, plane: str, oblique_deg: float
) -> None:
    values = np.arange(35.0).reshape(5, 7)
    image = centred_image(values[np.newaxis], (1.0, 0.4, 0.8), directions(turn, plane, oblique_deg))
    theirs = sitk.DICOMOrient(image, plane)
    ours = canonical_orientation(picture(values, turn=turn, spacing_mm=(0.4, 0.8)), CANONICAL)
    np.testing.assert_array_equal(ours.values, sitk.GetArrayFromImage(theirs)[0])
    assert ours.spacing_mm == pytest.approx(theirs.GetSpacing()[1::-1])


def test_padding_turns_with_the_values() -> None:
    padding = np.zeros((2, 3), dtype=np.bool_)
    padding[0, 2] = True
    turn = Turn(transpose=True, flip_rows=True)
    turned = canonical_orientation(picture(padding * 5.0, padding=padding, turn=turn), CANONICAL)
    assert turned.padding is not None
    assert (turned.values[turned.padding] == 5.0).all()
    assert turned.padding.sum() == 1


def test_image_without_orientation_stays_and_turning_twice_is_turning_once() -> None:
    plain = picture([[1.0, 2.0]])
    assert canonical_orientation(plain, CANONICAL) is plain
    once = canonical_orientation(picture([[1.0, 2.0]], turn=Turn(transpose=True)), CANONICAL)
    assert canonical_orientation(once, CANONICAL) is once


def test_no_pixel_is_copied() -> None:
    values = np.zeros((2, 3), dtype=np.float32)
    turned = canonical_orientation(picture(values, turn=Turn(flip_columns=True)), CANONICAL)
    assert np.shares_memory(turned.values, values)

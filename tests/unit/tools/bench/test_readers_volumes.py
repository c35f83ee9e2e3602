"""A volume is held against the truth, however a reader has turned it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tools.bench.readers.truth import Truth
from tools.bench.readers.volumes import LPS_OF_RAS, Verdict, Volume, judge

SLICES, ROWS, COLUMNS = 3, 4, 5


@pytest.fixture
def truth() -> Truth:
    rng = np.random.default_rng(1)
    return Truth(
        stored=rng.integers(0, 4096, (SLICES, ROWS, COLUMNS), dtype=np.uint16),
        slopes=np.array([1.0, 1.001, 1.002]),
        intercept=-1024.0,
        corners_mm=np.array([(-10.0, -20.0, 5.0 * k) for k in range(SLICES)]),
        axes_mm=np.array([(0.8, 0.0, 0.0), (0.0, 0.4, 0.0)]),
    )


@pytest.fixture
def volume(truth: Truth) -> Volume:
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = *truth.axes_mm, (0.0, 0.0, 5.0)
    affine[:3, 3] = truth.corners_mm[0]
    values = np.stack([truth.hounsfield(k) for k in range(SLICES)])
    return Volume(values=values.astype(np.float32), affine=affine)


def test_the_same_values_at_the_same_places_are_exact(truth: Truth, volume: Volume) -> None:
    found = judge(volume, truth)
    assert found.verdict is Verdict.EXACT
    assert (found.max_displacement_mm, found.wrong_share) == (0.0, 0.0)


def test_stored_values_with_slopes_of_their_own_are_exact(truth: Truth, volume: Volume) -> None:
    stored = replace(
        volume, values=truth.stored, slope=truth.slopes[:, None, None], intercept=truth.intercept
    )
    assert judge(stored, truth).verdict is Verdict.EXACT


def test_a_volume_that_is_turned_and_flipped_is_exact(truth: Truth, volume: Volume) -> None:
    affine = volume.affine[:, [1, 0, 2, 3]].copy()
    affine[:, 3] += affine[:, 2] * (SLICES - 1)
    affine[:, 2] *= -1
    values = volume.values.transpose(0, 2, 1)[::-1]
    turned = Volume(values=values, affine=affine)
    assert judge(turned, truth).verdict is Verdict.EXACT


def test_nifti_counts_the_other_way(truth: Truth, volume: Volume) -> None:
    ras = LPS_OF_RAS @ volume.affine
    assert judge(replace(volume, affine=ras), truth).verdict is not Verdict.EXACT
    assert judge(replace(volume, affine=LPS_OF_RAS @ ras), truth).verdict is Verdict.EXACT


def test_the_first_slope_for_all_slices_is_seen(truth: Truth, volume: Volume) -> None:
    found = judge(replace(volume, values=truth.stored, intercept=-1024.0), truth)
    assert found.verdict is Verdict.WRONG_VALUES
    assert found.max_error_hu is not None
    assert 0 < found.max_error_hu <= 4095 * 0.002
    assert found.wrong_share is not None
    assert 0.6 < found.wrong_share <= 0.667


def test_spacings_that_changed_places_are_seen(truth: Truth, volume: Volume) -> None:
    affine = volume.affine.copy()
    affine[:3, 0] *= 0.5
    affine[:3, 1] *= 2.0
    found = judge(replace(volume, affine=affine), truth)
    assert found.verdict is Verdict.WRONG_PLACES
    assert found.max_displacement_mm == pytest.approx(np.hypot(4 * 0.4, 3 * 0.4), abs=1e-3)


def test_even_gaps_over_an_uneven_stack_are_seen(truth: Truth, volume: Volume) -> None:
    corners = truth.corners_mm.copy()
    corners[1, 2] += 2.0
    found = judge(volume, replace(truth, corners_mm=corners))
    assert (found.verdict, found.max_displacement_mm) == (Verdict.WRONG_PLACES, 2.0)


def test_another_number_of_slices_is_another_shape(truth: Truth, volume: Volume) -> None:
    found = judge(replace(volume, values=volume.values[:-1]), truth)
    assert (found.verdict, found.shape) == (Verdict.OTHER_SHAPE, (SLICES - 1, ROWS, COLUMNS))


def test_a_truth_comes_back_from_its_file(truth: Truth, tmp_path: Path) -> None:
    truth.save(tmp_path / "truth.npz")
    back = Truth.load(tmp_path / "truth.npz")
    assert np.array_equal(back.stored, truth.stored)
    assert np.array_equal(back.corners_mm, truth.corners_mm)
    assert back.intercept == truth.intercept

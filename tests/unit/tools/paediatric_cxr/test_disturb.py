from __future__ import annotations

import numpy as np
import pytest

from tools.paediatric_cxr.disturb import COURSES, Disturbance, disturb
from tools.paediatric_cxr.quality import measure_quality
from tools.phantoms.chest import draw_chest
from tools.phantoms.chest_spec import draw_chest_spec

CHEST = np.rint(draw_chest(draw_chest_spec(1), rows=96, columns=112).density * 255).astype(np.uint8)
CASES = [(kind, strength) for kind in Disturbance for strength in COURSES[kind].strengths]


@pytest.mark.parametrize(("kind", "strength"), CASES)
def test_a_disturbed_picture_is_still_a_picture_of_the_same_size(
    kind: Disturbance, strength: float
) -> None:
    before = CHEST.copy()
    found = disturb(CHEST, kind, strength)

    assert found.shape == CHEST.shape
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(CHEST, before)


@pytest.mark.parametrize("kind", [kind for kind in Disturbance if kind is not Disturbance.JPEG])
def test_strength_nothing_changes_nothing(kind: Disturbance) -> None:
    assert 0 in COURSES[kind].strengths
    np.testing.assert_array_equal(disturb(CHEST, kind, 0), CHEST)


@pytest.mark.parametrize("kind", list(Disturbance))
def test_more_of_it_is_further_away(kind: Disturbance) -> None:
    strengths = [s for s in COURSES[kind].strengths if s >= 0]
    if kind is Disturbance.JPEG:
        strengths.reverse()
    distances = [
        float(np.abs(disturb(CHEST, kind, strength).astype(float) - CHEST).mean())
        for strength in (strengths[0], strengths[-1])
    ]

    assert distances[0] < distances[1]


def test_noise_is_decided_by_its_seed() -> None:
    one, again, other = (disturb(CHEST, Disturbance.NOISE, 5, seed=s) for s in (1, 1, 2))

    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_inverted_twice_is_the_picture() -> None:
    once = disturb(CHEST, Disturbance.INVERSION, 1)

    np.testing.assert_array_equal(once, 255 - CHEST)
    np.testing.assert_array_equal(disturb(once, Disturbance.INVERSION, 1), CHEST)


def test_quality_measures_what_it_says() -> None:
    plain = measure_quality(CHEST)

    assert measure_quality(disturb(CHEST, Disturbance.BLUR, 3)).sharpness < plain.sharpness
    assert measure_quality((CHEST // 2).astype(np.uint8)).contrast < plain.contrast
    assert measure_quality(disturb(CHEST, Disturbance.BRIGHTNESS, 25)).exposure > plain.exposure


def test_a_flat_picture_has_finite_quality() -> None:
    found = measure_quality(np.full((64, 64), 7, np.uint8))

    assert (found.sharpness, found.contrast, found.exposure) == (0.0, 0.0, 7.0)

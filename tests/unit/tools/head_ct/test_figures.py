from __future__ import annotations

import numpy as np
import pytest

from tools.head_ct.figures import (
    area_under_roc,
    bootstrap,
    expected_calibration_error,
    platt,
    proportion,
)


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I: 81 of 263.
    found = proportion(81, 263)

    assert (found.value, found.lower, found.upper) == pytest.approx(
        (0.3080, 0.2553, 0.3662), abs=1e-4
    )


@pytest.mark.parametrize("successes", [0, 20])
def test_a_proportion_at_the_edge_stays_within_zero_and_one(successes: int) -> None:
    found = proportion(successes, 20)

    assert 0 <= found.lower <= found.value <= found.upper <= 1
    assert found.lower < found.upper


@pytest.mark.parametrize(("successes", "cases"), [(0, 0), (3, 2), (-1, 2)])
def test_no_proportion_without_cases(successes: int, cases: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        proportion(successes, cases)


def test_the_area_counts_ordered_pairs_and_half_of_ties() -> None:
    scores = np.array([1.0, 2.0, 2.0, 3.0])
    positive = np.array([False, False, True, True])

    assert area_under_roc(scores, positive).value == pytest.approx(3.5 / 4)


def test_the_areas_interval_agrees_with_the_bootstrap() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(600) < 0.5
    scores = rng.normal(0, 1, 600) + positive
    found = area_under_roc(scores, positive)
    drawn = bootstrap(lambda s, p: area_under_roc(s, p).value, scores, positive, seed=2, rounds=300)

    assert found.lower == pytest.approx(drawn.lower, abs=0.01)
    assert found.upper == pytest.approx(drawn.upper, abs=0.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_complete_separation_has_an_interval_with_a_width(sign: int) -> None:
    positive = np.arange(60) < 30
    found = area_under_roc(sign * positive.astype(np.float64), positive)

    assert found.value == (1.0 if sign > 0 else 0.0)
    assert found.upper - found.lower == pytest.approx(0.1)


def test_an_area_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="both classes"):
        area_under_roc(np.array([1.0, 2.0]), np.array([True, True]))


def test_platt_finds_the_slope_and_intercept_that_made_the_outcomes() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, 20_000)
    positive = rng.random(20_000) < 1 / (1 + np.exp(-(0.7 * logits - 0.4)))
    slope, intercept = platt(logits, positive)

    assert slope == pytest.approx(0.7, abs=0.03)
    assert intercept == pytest.approx(-0.4, abs=0.05)


def test_platt_stays_finite_when_the_classes_are_separate() -> None:
    slope, intercept = platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]))

    assert 0 < slope < 10
    assert abs(intercept) < 1


def test_a_well_calibrated_score_has_little_calibration_error() -> None:
    rng = np.random.default_rng(1)
    chance = rng.random(20_000)
    positive = rng.random(20_000) < chance

    assert expected_calibration_error(chance, positive) < 0.02
    assert expected_calibration_error(1 - chance, positive) > 0.3

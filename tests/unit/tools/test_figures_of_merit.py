from __future__ import annotations

import numpy as np
import pytest

from tools.figures_of_merit import (
    area_under_roc,
    bootstrap,
    expected_calibration_error,
    platt,
    proportion,
    reliability,
    response,
    roc_band,
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


def test_the_roc_curve_gives_the_best_sensitivity_at_each_rate() -> None:
    scores = np.array([1.0, 3.0, 5.0, 2.0, 4.0, 6.0])
    positive = np.array([False, False, False, True, True, True])
    points = roc_band(scores, positive, seed=1, points=4, rounds=10)

    assert [point.x for point in points] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [point.y.value for point in points] == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_the_roc_band_holds_the_curve_and_agrees_with_the_area() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(600) < 0.5
    scores = rng.normal(0, 1, 600) + positive
    points = roc_band(scores, positive, seed=2, rounds=300)
    heights = [point.y.value for point in points]

    assert all(point.y.lower <= point.y.value <= point.y.upper for point in points)
    assert heights == sorted(heights)
    assert float(np.mean(heights)) == pytest.approx(
        area_under_roc(scores, positive).value, abs=0.01
    )


def test_a_roc_curve_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="both classes"):
        roc_band(np.array([1.0, 2.0]), np.array([True, True]), seed=1)


def test_reliability_leaves_empty_bins_out() -> None:
    points = reliability(np.array([0.02, 0.04, 0.95, 1.0]), np.array([False, False, True, False]))

    assert [point.x for point in points] == pytest.approx([0.03, 0.975])
    assert [(point.y.value, point.y.cases) for point in points] == [(0.0, 2), (0.5, 2)]


def test_a_response_has_bins_of_equally_many_cases() -> None:
    quantity = np.array([5.0, 1.0, 2.0, 8.0, 3.0, 9.0])
    points = response(quantity, quantity > 2, bins=3)

    assert [point.x for point in points] == [1.5, 4.0, 8.5]
    assert [point.y.value for point in points] == [0.0, 1.0, 1.0]
    assert [point.y.cases for point in points] == [2, 2, 2]

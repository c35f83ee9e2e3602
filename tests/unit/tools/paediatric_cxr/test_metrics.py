from __future__ import annotations

import numpy as np
import pytest

from tools.figures_of_merit import area_under_roc
from tools.paediatric_cxr.metrics import (
    PatientBootstrap,
    area,
    calibration_error,
    mean_of,
    reliability_bins,
    roc_points,
    share,
    tertiles,
)


def alone(count: int, rounds: int = 200) -> PatientBootstrap:
    return PatientBootstrap([str(number) for number in range(count)], seed=1, rounds=rounds)


def test_the_area_is_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(300) < 0.4
    scores = np.round(rng.normal(0, 1, 300) + positive, 1)

    found = area(scores, positive)(np.arange(300))

    assert found == pytest.approx(area_under_roc(scores, positive).value)


def test_intervals_agree_with_theory_when_every_patient_has_one_radiograph() -> None:
    rng = np.random.default_rng(2)
    positive = rng.random(600) < 0.5
    scores = rng.normal(0, 1, 600) + positive
    found = alone(600, rounds=500).interval(area(scores, positive))
    theory = area_under_roc(scores, positive)

    assert found.lower == pytest.approx(theory.lower, abs=0.01)
    assert found.upper == pytest.approx(theory.upper, abs=0.01)


def test_radiographs_of_one_patient_count_as_one_draw() -> None:
    claims = np.repeat(np.arange(40) % 2 == 0, 10)
    patients = [str(number // 10) for number in range(400)]
    by_patient = PatientBootstrap(patients, seed=1, rounds=300).interval(share(claims))
    by_radiograph = alone(400, rounds=300).interval(share(claims))

    assert by_patient.value == by_radiograph.value == 0.5
    assert by_patient.upper - by_patient.lower > 2 * (by_radiograph.upper - by_radiograph.lower)


def test_a_group_takes_its_own_radiographs_only() -> None:
    claims = np.arange(100) < 50
    found = alone(100).interval(share(claims), among=np.arange(100) < 50)

    assert (found.value, found.lower, found.upper, found.cases) == (1.0, 1.0, 1.0, 50)


def test_one_class_alone_has_no_area() -> None:
    with pytest.raises(ValueError, match="too few"):
        alone(10).interval(area(np.arange(10, dtype=np.float64), np.ones(10, np.bool_)))


def test_the_draws_hang_on_the_seed() -> None:
    values = np.arange(50, dtype=np.float64)

    assert alone(50).interval(mean_of(values)) == alone(50).interval(mean_of(values))


def test_the_roc_curve_rises_from_corner_to_corner() -> None:
    rng = np.random.default_rng(3)
    positive = rng.random(200) < 0.5
    scores = rng.normal(0, 1, 200) + 2 * positive
    points = roc_points(scores, positive, alone(200))
    heights = [interval.value for _, interval in points]

    assert heights == sorted(heights)
    assert points[-1][0] == heights[-1] == 1.0
    assert all(i.lower <= i.value <= i.upper for _, i in points)
    assert np.mean(heights) == pytest.approx(area(scores, positive)(np.arange(200)), abs=0.02)


def test_calibrated_chances_have_little_error_and_lie_on_the_diagonal() -> None:
    rng = np.random.default_rng(4)
    chances = rng.random(20_000)
    positive = rng.random(20_000) < chances
    places = np.arange(20_000)

    assert calibration_error(chances, positive)(places) < 0.02
    assert calibration_error(1 - chances, positive)(places) > 0.3
    for item in reliability_bins(chances, positive, alone(20_000, rounds=5)):
        assert item.observed.value == pytest.approx(item.predicted, abs=0.04)


def test_bins_hold_equally_many_and_all() -> None:
    chances = np.random.default_rng(5).random(1000) ** 6
    bins = reliability_bins(chances, chances > 0.1, alone(1000, rounds=5))

    assert [item.observed.cases for item in bins] == [100] * 10


def test_thirds_divide_everything() -> None:
    thirds = tertiles(np.random.default_rng(6).normal(size=300))

    assert [int(third.sum()) for third in thirds] == [100, 100, 100]
    assert np.sum(thirds, axis=0).tolist() == [1] * 300

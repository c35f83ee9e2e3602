from __future__ import annotations

import numpy as np
import pytest

from tools.paediatric_cxr.metrics import area
from tools.paediatric_cxr.quality import Quality
from tools.paediatric_cxr.shortcuts import (
    border_features,
    hide_border,
    hide_middle,
    logistic_scores,
    middle_features,
    nearly_equal,
    quality_features,
)

COUNT = 200


def pictures(seed: int, *, where: str) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Noise whose class is told by a bright spot in the border or in the middle."""
    rng = np.random.default_rng(seed)
    positive = rng.random(COUNT) < 0.5
    values = rng.random((COUNT, 112, 112)).astype(np.float32) * 0.5
    place = slice(0, 8) if where == "border" else slice(52, 60)
    values[(slice(None), place, place)] += 0.3 * positive[:, None, None].astype(np.float32)
    return values, positive


@pytest.mark.parametrize(
    ("where", "sees", "knows"),
    [
        ("border", border_features, True),
        ("border", middle_features, False),
        ("middle", border_features, False),
        ("middle", middle_features, True),
    ],
)
def test_a_regression_knows_only_what_it_sees(where: str, sees: object, knows: bool) -> None:
    assert callable(sees)
    taught, taught_positive = pictures(1, where=where)
    tested, positive = pictures(2, where=where)
    scores = logistic_scores(sees(taught), taught_positive, sees(tested))
    found = area(scores, positive)(np.arange(COUNT))

    assert found > 0.95 if knows else 0.35 < found < 0.65


def test_border_and_middle_share_no_pixel() -> None:
    values, _ = pictures(3, where="border")

    assert border_features(values).shape[1] + middle_features(values).shape[1] == 14 * 14


def test_what_is_hidden_says_nothing() -> None:
    values, _ = pictures(4, where="border")
    without_middle, without_border = hide_middle(values), hide_border(values)

    assert float(without_middle[0, 16:-16, 16:-16].std()) < 1e-6
    np.testing.assert_array_equal(without_middle[:, :16], values[:, :16])
    assert float(without_border[0, :16].std()) < 1e-6
    np.testing.assert_array_equal(without_border[:, 16:-16, 16:-16], values[:, 16:-16, 16:-16])


def test_quality_features_hold_measures_and_products() -> None:
    found = quality_features([Quality(sharpness=2, contrast=3, exposure=5)])

    assert found[0].tolist() == [2, 3, 5, 4, 6, 10, 9, 15, 25]


def test_a_copy_is_found_although_it_was_changed_a_little() -> None:
    rng = np.random.default_rng(5)
    known = np.kron(rng.random((20, 28, 28)), np.ones((1, 4, 4))).astype(np.float32)
    tested = np.kron(rng.random((20, 28, 28)), np.ones((1, 4, 4))).astype(np.float32)
    tested[3] = 0.8 * known[7] + 0.1 + rng.normal(0, 0.02, (112, 112)).astype(np.float32)

    assert np.flatnonzero(nearly_equal(tested, known)).tolist() == [3]

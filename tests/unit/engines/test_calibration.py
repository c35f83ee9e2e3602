from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.calibration import (
    aggregate_logits,
    calibrated_probability,
    decide,
    item_logits,
    suspected_items,
)
from engines.errors import EngineOutputError
from engines.package import (
    Aggregation,
    Calibration,
    Code,
    FindingRule,
    OperatingPoint,
    Urgency,
)

finite = st.floats(-1000, 1000, width=32)


def rule(
    *,
    threshold: float = 0.5,
    top: int = 1,
    slope: float = 1.0,
    intercept: float = 0.0,
    element: int | None = None,
    scale: str = "logit",
    tensor: str = "logits",
) -> FindingRule:
    return FindingRule.model_validate(
        {
            "key": "bleed",
            "code": Code(value="1386000", scheme="SCT", meaning="Intracranial haemorrhage"),
            "urgency": Urgency.CRITICAL,
            "tensor": tensor,
            "element": element,
            "scale": scale,
            "aggregation": Aggregation(top=top),
            "calibration": Calibration(slope=slope, intercept=intercept),
            "operating_point": OperatingPoint(threshold=threshold, allowed=(threshold, threshold)),
        }
    )


def numbers(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def outputs(*values: float) -> dict[str, NDArray[np.float32]]:
    return {"logits": np.array(values, dtype=np.float32)}


def classes(*rows: tuple[float, ...]) -> dict[str, NDArray[np.float32]]:
    return {"logits": np.array(rows, dtype=np.float32)}


@pytest.mark.parametrize(
    ("top", "expected"), [(1, 4.0), (2, 3.5), (4, 2.5), (64, 2.5)], ids=["1", "2", "all", "more"]
)
def test_a_study_has_the_mean_of_its_largest_logits(top: int, expected: float) -> None:
    assert aggregate_logits(numbers(1, 4, 2, 3), Aggregation(top=top)) == expected


def test_one_number_an_item_may_have_axes_of_length_one() -> None:
    values = np.arange(6, dtype=np.float32)
    flat = item_logits({"logits": values}, rule())
    np.testing.assert_array_equal(item_logits({"logits": values.reshape(6, 1, 1)}, rule()), flat)
    np.testing.assert_array_equal(flat, values)


@given(st.lists(finite, min_size=1, max_size=40), st.integers(1, 64))
def test_the_order_of_the_slabs_does_not_matter(values: list[float], top: int) -> None:
    shuffled = sorted(values)
    assert aggregate_logits(numbers(*values), Aggregation(top=top)) == aggregate_logits(
        numbers(*shuffled), Aggregation(top=top)
    )


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.inf], [-math.inf, 1.0]], ids=str)
def test_no_number_is_never_a_negative_result(bad: list[float]) -> None:
    with pytest.raises(EngineOutputError):
        decide(outputs(*bad), rule())
    with pytest.raises(EngineOutputError):
        suspected_items(outputs(*bad), rule())


def test_platt_scaling_is_the_sigmoid_of_a_line() -> None:
    calibration = Calibration(slope=2.0, intercept=-1.0)
    assert calibrated_probability(0.5, calibration) == 0.5
    assert calibrated_probability(1.5, calibration) == pytest.approx(1 / (1 + math.exp(-2)))


@pytest.mark.parametrize(("logit", "probability"), [(1e30, 1.0), (-1e30, 0.0)])
def test_extreme_logits_do_not_overflow(logit: float, probability: float) -> None:
    calibration = Calibration(slope=100.0, intercept=100.0)
    assert calibrated_probability(logit, calibration) == pytest.approx(probability)


@given(finite, finite)
def test_a_larger_logit_never_has_a_smaller_probability(first: float, second: float) -> None:
    calibration = Calibration(slope=0.7, intercept=0.3)
    low, high = sorted((first, second))
    assert calibrated_probability(low, calibration) <= calibrated_probability(high, calibration)


@pytest.mark.parametrize(("logit", "suspected"), [(0.0, True), (-0.001, False), (0.001, True)])
def test_a_probability_at_the_operating_point_is_suspected(logit: float, suspected: bool) -> None:
    decision = decide(outputs(logit), rule(threshold=0.5))
    assert decision.suspected is suspected
    assert decision.key == "bleed"
    assert decision.logit == pytest.approx(logit)


def test_a_site_may_move_the_operating_point() -> None:
    decision = decide(outputs(0.2), rule(threshold=0.5), threshold=0.6)
    assert (decision.threshold, decision.suspected) == (0.6, False)


def test_items_are_decided_each_for_itself() -> None:
    np.testing.assert_array_equal(
        suspected_items(outputs(-1, 1, 2, -2), rule()), [False, True, True, False]
    )


def test_each_finding_reads_its_own_output() -> None:
    both = outputs(1, 2) | {"masses": np.array([[5.0], [7.0]], dtype=np.float32)}
    np.testing.assert_array_equal(item_logits(both, rule(tensor="masses")), [5, 7])
    np.testing.assert_array_equal(item_logits(both, rule()), [1, 2])


def test_an_element_is_taken_along_the_last_axis_of_every_item() -> None:
    values = classes((1, 2, 3), (4, 5, 6))
    np.testing.assert_array_equal(item_logits(values, rule(element=1)), [2, 5])
    deep = {"logits": np.arange(12, dtype=np.float32).reshape(2, 2, 3)}
    np.testing.assert_array_equal(item_logits(deep, rule(element=2)), [2, 5, 8, 11])


def test_a_probability_becomes_the_logit_that_it_is_the_sigmoid_of() -> None:
    found = item_logits(outputs(0.5, 0.9), rule(scale="probability"))
    np.testing.assert_allclose(found, [0, math.log(9)], atol=1e-6)
    unchanged = rule(scale="probability", threshold=0.4)
    assert decide(outputs(0.25), unchanged).probability == pytest.approx(0.25)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_certain_probability_has_a_finite_logit(value: float) -> None:
    found = item_logits(outputs(value), rule(scale="probability"))
    assert np.isfinite(found).all()
    assert decide(outputs(value), rule(scale="probability")).probability == pytest.approx(
        value, abs=1e-8
    )


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_a_probability_outside_its_range_is_no_result(value: float) -> None:
    with pytest.raises(EngineOutputError, match="not between 0 and 1"):
        item_logits(outputs(value), rule(scale="probability"))


@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=6), st.data())
def test_softmax_has_the_probability_of_its_class(values: list[float], data: st.DataObject) -> None:
    element = data.draw(st.integers(0, len(values) - 1))
    exponentials = np.exp(np.array(values) - max(values))
    expected = exponentials[element] / exponentials.sum()
    found = decide(classes(tuple(values)), rule(scale="softmax", element=element))
    assert found.probability == pytest.approx(expected, abs=1e-9)


def test_softmax_of_extreme_logits_neither_overflows_nor_vanishes() -> None:
    found = item_logits(classes((1e30, -1e30), (0, 1e30)), rule(scale="softmax", element=0))
    assert np.isfinite(found).all()
    assert found[0] > 0 > found[1]


def test_softmax_of_a_single_class_says_nothing() -> None:
    with pytest.raises(EngineOutputError, match="one class"):
        item_logits(classes((1.0,)), rule(scale="softmax", element=0))

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
    suspected_elements,
)
from engines.errors import EngineOutputError
from engines.package import (
    Aggregation,
    Calibration,
    Code,
    FindingOutput,
    OperatingPoint,
    TensorRule,
)

finite = st.floats(-1000, 1000, width=32)


def output(
    *, threshold: float = 0.5, top: int = 1, slope: float = 1.0, intercept: float = 0.0
) -> FindingOutput:
    return FindingOutput(
        tensor=TensorRule(name="logits", dtype="float32", shape=(-1,)),
        finding=Code(value="1386000", scheme="SCT", meaning="Intracranial haemorrhage"),
        aggregation=Aggregation(top=top),
        calibration=Calibration(slope=slope, intercept=intercept),
        operating_point=OperatingPoint(threshold=threshold, allowed=(threshold, threshold)),
    )


def logits(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(
    ("top", "expected"), [(1, 4.0), (2, 3.5), (4, 2.5), (64, 2.5)], ids=["1", "2", "all", "more"]
)
def test_a_study_has_the_mean_of_its_largest_logits(top: int, expected: float) -> None:
    assert aggregate_logits(logits(1, 4, 2, 3), Aggregation(top=top)) == expected


def test_the_shape_of_the_logits_does_not_matter() -> None:
    values = np.arange(6, dtype=np.float32)
    rule = Aggregation(top=3)
    assert aggregate_logits(values.reshape(6, 1), rule) == aggregate_logits(values, rule)


@given(st.lists(finite, min_size=1, max_size=40), st.integers(1, 64))
def test_the_order_of_the_slabs_does_not_matter(values: list[float], top: int) -> None:
    shuffled = sorted(values)
    assert aggregate_logits(logits(*values), Aggregation(top=top)) == aggregate_logits(
        logits(*shuffled), Aggregation(top=top)
    )


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.inf], [-math.inf, 1.0]], ids=str)
def test_no_number_is_never_a_negative_result(bad: list[float]) -> None:
    with pytest.raises(EngineOutputError):
        decide(logits(*bad), output())
    if bad:
        with pytest.raises(EngineOutputError):
            suspected_elements(logits(*bad), output())


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
    decision = decide(logits(logit), output(threshold=0.5))
    assert decision.suspected is suspected
    assert decision.logit == pytest.approx(logit)


def test_elements_are_decided_each_for_itself_in_their_shape() -> None:
    values = logits(-1, 1, 2, -2).reshape(2, 2)
    np.testing.assert_array_equal(
        suspected_elements(values, output()), [[False, True], [True, False]]
    )

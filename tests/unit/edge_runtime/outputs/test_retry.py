from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.outputs.retry import RetryRule, decide_retry

RULE = RetryRule(first_delay_s=1.0, max_delay_s=300.0, max_attempts=600)


def delay_s(attempts: int, *, jitter: float, rule: RetryRule = RULE) -> float:
    decision = decide_retry(permanent=False, attempts=attempts, rule=rule, jitter=jitter)
    assert decision is not None
    return decision.delay_s


def test_the_delay_doubles_up_to_its_bound() -> None:
    spans = [2 * delay_s(attempts, jitter=0.0) for attempts in range(1, 12)]
    assert spans == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_permanent_error_is_a_dead_letter_at_once() -> None:
    assert decide_retry(permanent=True, attempts=1, rule=RULE, jitter=0.5) is None


def test_the_last_allowed_attempt_is_a_dead_letter() -> None:
    rule = RetryRule(first_delay_s=1.0, max_delay_s=300.0, max_attempts=3)
    decisions = [
        decide_retry(permanent=False, attempts=n, rule=rule, jitter=0.5) for n in (1, 2, 3, 4)
    ]
    assert [decision is None for decision in decisions] == [False, False, True, True]


@given(
    attempts=st.integers(1, 99_999),
    jitter=st.floats(0, 1, exclude_max=True),
    first=st.floats(0.05, 3_600),
    most=st.floats(3_600, 86_400),
)
def test_every_delay_lies_in_the_upper_half_of_its_span(
    attempts: int, jitter: float, first: float, most: float
) -> None:
    rule = RetryRule(first_delay_s=first, max_delay_s=most, max_attempts=100_000)
    assert first / 2 <= delay_s(attempts, jitter=jitter, rule=rule) <= most


def test_devices_with_different_jitter_do_not_come_back_together() -> None:
    assert len({delay_s(5, jitter=n / 10) for n in range(10)}) == 10


@pytest.mark.parametrize(("attempts", "jitter"), [(0, 0.5), (1, 1.0), (1, -0.1)])
def test_a_wrong_call_is_a_bug(attempts: int, jitter: float) -> None:
    with pytest.raises(ValueError, match="attempts"):
        decide_retry(permanent=False, attempts=attempts, rule=RULE, jitter=jitter)


@pytest.mark.parametrize(
    ("first_delay_s", "max_delay_s", "max_attempts"), [(0.0, 1.0, 1), (2.0, 1.0, 1), (1.0, 1.0, 0)]
)
def test_an_impossible_rule_cannot_be_made(
    first_delay_s: float, max_delay_s: float, max_attempts: int
) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetryRule(first_delay_s=first_delay_s, max_delay_s=max_delay_s, max_attempts=max_attempts)

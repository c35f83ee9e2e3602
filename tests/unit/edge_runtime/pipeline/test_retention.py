from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.model.holding import HoldCause, Holding
from edge_runtime.pipeline.retention import (
    Departure,
    RetentionRules,
    may_leave,
    overdue_causes,
    pressure_cause,
)

RULES = RetentionRules(keep_us=1_000, least_keep_us=100, free_bytes_target=0)

causes = st.lists(st.sampled_from(HoldCause), max_size=3).map(tuple)
holdings = st.builds(
    Holding,
    study_id=st.integers(1, 9),
    revision=st.just(1),
    since_us=st.none() | st.integers(0, 3_000),
    causes=causes,
)


def held(*held_by: HoldCause, since_us: int | None = 0) -> Holding:
    return Holding(study_id=1, revision=1, since_us=since_us, causes=held_by)


@pytest.mark.parametrize(
    ("age_us", "wanted_bytes", "answer"),
    [
        (0, 0, None),
        (999, 0, None),
        (1_000, 0, Departure.AGE),
        (99, 1, None),
        (100, 1, Departure.PRESSURE),
        (100, 0, None),
        (100, -5, None),
        (1_000, 1, Departure.AGE),
    ],
)
def test_a_decided_study_leaves_at_its_age_or_for_room(
    age_us: int, wanted_bytes: int, answer: Departure | None
) -> None:
    holding = held(since_us=50)
    assert may_leave(holding, RULES, age_clock_us=50 + age_us, wanted_bytes=wanted_bytes) is answer


@given(holding=holdings, now_us=st.integers(0, 10_000), wanted=st.integers(-10, 10**12))
def test_what_is_held_or_undecided_never_leaves(holding: Holding, now_us: int, wanted: int) -> None:
    answer = may_leave(holding, RULES, age_clock_us=now_us, wanted_bytes=wanted)
    if holding.causes or holding.since_us is None:
        assert answer is None
    elif answer is Departure.PRESSURE:
        assert wanted > 0


def test_the_cause_of_most_studies_is_named() -> None:
    dead, waiting = held(HoldCause.GIVEN_UP), held(HoldCause.UNDELIVERED, HoldCause.GIVEN_UP)
    assert pressure_cause([dead, waiting, waiting]) is HoldCause.UNDELIVERED
    assert pressure_cause([held(), held(), dead]) is HoldCause.TOO_YOUNG
    assert pressure_cause([]) is HoldCause.OTHER_FILES


def test_what_keeps_studies_beyond_their_time_is_named_but_for_promises() -> None:
    studies = [
        held(HoldCause.GIVEN_UP, HoldCause.PROMISED),
        held(HoldCause.UNDELIVERED, since_us=500),
        held(HoldCause.UNDECIDED, since_us=None),
        held(),
    ]
    assert overdue_causes(studies, RULES, age_clock_us=1_200) == {HoldCause.GIVEN_UP}

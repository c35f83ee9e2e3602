from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.scheduling import (
    BatchCost,
    BatchRule,
    Decision,
    RunNow,
    WaitingItem,
    WaitUntil,
    in_order,
    next_batch,
)

COST = BatchCost(fixed_us=1_000, item_us=100)
RULE = BatchRule(most_items=4, cost=COST, linger_us=5_000)
ROUTINE, URGENT, CRITICAL = 1, 2, 3
FAR_US = 10_000_000


def item(
    key: str, *, urgency: int = ROUTINE, since_us: int = 0, due_us: int = FAR_US
) -> WaitingItem:
    return WaitingItem(key=key, urgency=urgency, since_us=since_us, due_us=due_us)


def keys(decision: Decision) -> list[object]:
    assert isinstance(decision, RunNow)
    return [each.key for each in decision.items]


def test_where_nothing_waits_there_is_nothing_to_wait_for() -> None:
    assert next_batch([], RULE, 0) == WaitUntil(at_us=None)


def test_a_full_batch_runs_at_once() -> None:
    waiting = [item(name) for name in "abcd"]
    assert keys(next_batch(waiting, RULE, 0)) == ["a", "b", "c", "d"]


def test_a_batch_that_is_not_full_waits_for_more_and_not_longer_than_it_may() -> None:
    waiting = [item("a", since_us=100), item("b", since_us=300)]
    assert next_batch(waiting, RULE, 300) == WaitUntil(at_us=5_100)
    assert next_batch(waiting, RULE, 5_099) == WaitUntil(at_us=5_100)
    assert keys(next_batch(waiting, RULE, 5_100)) == ["a", "b"]


def test_nobody_is_made_late_by_waiting_for_more() -> None:
    waiting = [item("a", due_us=3_000)]
    # A full batch takes 1400 us, so it has to begin by 1600.
    assert next_batch(waiting, RULE, 0) == WaitUntil(at_us=1_600)
    assert keys(next_batch(waiting, RULE, 1_600)) == ["a"]


def test_without_lingering_what_is_there_runs_at_once() -> None:
    rule = BatchRule(most_items=4, cost=COST)
    assert keys(next_batch([item("a", since_us=7)], rule, 7)) == ["a"]


def test_the_more_urgent_study_comes_first_though_it_came_last() -> None:
    waiting = [
        item("routine", since_us=0),
        item("urgent", urgency=URGENT, since_us=1),
        item("critical", urgency=CRITICAL, since_us=2),
    ]
    rule = BatchRule(most_items=2, cost=COST)
    assert keys(next_batch(waiting, rule, 10)) == ["critical", "urgent"]


def test_slabs_of_two_studies_share_a_batch() -> None:
    waiting = [item("a1", due_us=FAR_US), item("a2", due_us=FAR_US)]
    waiting += [item("b1", urgency=CRITICAL), item("b2", urgency=CRITICAL)]
    assert keys(next_batch(waiting, RULE, 0)) == ["b1", "b2", "a1", "a2"]


def test_an_item_that_would_be_late_goes_before_one_that_is_more_urgent() -> None:
    rule = BatchRule(most_items=1, cost=COST)
    waiting = [item("critical", urgency=CRITICAL), item("routine", due_us=2_000)]
    assert keys(next_batch(waiting, rule, 0)) == ["routine"]


def test_an_item_that_can_wait_for_another_batch_lets_the_urgent_pass() -> None:
    rule = BatchRule(most_items=1, cost=COST)
    waiting = [item("routine", due_us=2_300), item("critical", urgency=CRITICAL)]
    assert keys(next_batch(waiting, rule, 0)) == ["critical"]


def test_among_equally_urgent_items_who_is_due_first_comes_first_then_who_came_first() -> None:
    waiting = [item("c"), item("b", since_us=-1), item("a", due_us=FAR_US - 1, since_us=5)]
    assert [each.key for each in in_order(waiting, RULE, 0)] == ["a", "b", "c"]


@pytest.mark.parametrize(("most", "linger"), [(0, 0), (-1, 0), (1, -1)])
def test_a_senseless_rule_is_refused(most: int, linger: int) -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        BatchRule(most_items=most, cost=COST, linger_us=linger)


ITEMS = st.lists(
    st.builds(
        WaitingItem,
        key=st.integers(),
        urgency=st.integers(1, 3),
        since_us=st.integers(0, 100_000),
        due_us=st.integers(0, 1_000_000),
    ),
    unique_by=lambda each: each.key,
    max_size=20,
)


@given(waiting=ITEMS, now_us=st.integers(100_000, 1_200_000), most=st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_a_batch_holds_waiting_items_once_each_and_asking_again_in_time_always_runs(
    waiting: Sequence[WaitingItem], now_us: int, most: int
) -> None:
    rule = BatchRule(most_items=most, cost=COST, linger_us=3_000)
    decision = next_batch(waiting, rule, now_us)
    if isinstance(decision, WaitUntil) and decision.at_us is not None:
        assert decision.at_us > now_us
        decision = next_batch(waiting, rule, decision.at_us)
    if not waiting:
        assert decision == WaitUntil(at_us=None)
        return
    assert isinstance(decision, RunNow)
    assert 1 <= len(decision.items) <= most
    assert len({each.key for each in decision.items}) == len(decision.items)
    assert set(decision.items) <= set(waiting)


def run_to_the_end(arrivals: Sequence[WaitingItem], rule: BatchRule) -> dict[object, int]:
    """Plays a device: returns when each item's outputs were there."""
    done: dict[object, int] = {}
    now_us = 0
    while len(done) < len(arrivals):
        waiting = [each for each in arrivals if each.since_us <= now_us and each.key not in done]
        decision = next_batch(waiting, rule, now_us)
        later = [each.since_us for each in arrivals if each.since_us > now_us]
        if isinstance(decision, WaitUntil):
            now_us = min([*later, *([] if decision.at_us is None else [decision.at_us])])
            continue
        now_us += rule.cost.of(len(decision.items))
        done.update((each.key, now_us) for each in decision.items)
    return done


def test_a_routine_study_does_not_starve_among_critical_ones_that_keep_coming() -> None:
    rule = BatchRule(most_items=4, cost=COST)
    # Four critical slabs each 1400 us: exactly as much as the device can run.
    critical = [
        WaitingItem(
            key=("critical", index),
            urgency=CRITICAL,
            since_us=1_400 * (index // 4),
            due_us=1_400 * (index // 4) + 20_000,
        )
        for index in range(400)
    ]
    routine = item("routine", due_us=50_000)
    done = run_to_the_end([*critical, routine], rule)
    assert done["routine"] <= routine.due_us
    assert all(done[each.key] <= each.due_us for each in critical)


def test_a_burst_of_critical_slabs_waits_for_no_more_than_the_batch_that_runs() -> None:
    rule = BatchRule(most_items=4, cost=COST)
    routine = [item(f"routine {index}", since_us=0) for index in range(400)]
    critical = [item(f"critical {index}", urgency=CRITICAL, since_us=10) for index in range(4)]
    done = run_to_the_end([*routine, *critical], rule)
    assert max(done[each.key] for each in critical) <= 2 * COST.of(4)

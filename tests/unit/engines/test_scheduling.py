from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.scheduling import BatchRule, ItemTime, WaitingItem, in_order, next_batch

FULL_US = 1_400
RULE = BatchRule(most_items=4, full_us=FULL_US)
ONE_US = 1_100
ONE = BatchRule(most_items=1, full_us=ONE_US)
ROUTINE, URGENT, CRITICAL = 1, 2, 3
FAR_US = 10_000_000


def item(
    key: str, *, urgency: int = ROUTINE, since_us: int = 0, due_us: int = FAR_US
) -> WaitingItem:
    return WaitingItem(key=key, urgency=urgency, since_us=since_us, due_us=due_us)


def keys(batch: Sequence[WaitingItem]) -> list[object]:
    return [each.key for each in batch]


def test_where_nothing_waits_nothing_runs() -> None:
    assert next_batch([], RULE, 0) == ()


def test_no_batch_holds_more_than_it_may() -> None:
    waiting = [item(name) for name in "abcdef"]
    assert keys(next_batch(waiting, RULE, 0)) == ["a", "b", "c", "d"]


def test_what_is_there_runs_at_once() -> None:
    assert keys(next_batch([item("a", since_us=7)], RULE, 7)) == ["a"]


def test_the_more_urgent_study_comes_first_though_it_came_last() -> None:
    waiting = [
        item("routine", since_us=0),
        item("urgent", urgency=URGENT, since_us=1),
        item("critical", urgency=CRITICAL, since_us=2),
    ]
    rule = BatchRule(most_items=2, full_us=1_200)
    assert keys(next_batch(waiting, rule, 10)) == ["critical", "urgent"]


def test_slabs_of_two_studies_share_a_batch() -> None:
    waiting = [item("a1", due_us=FAR_US), item("a2", due_us=FAR_US)]
    waiting += [item("b1", urgency=CRITICAL), item("b2", urgency=CRITICAL)]
    assert keys(next_batch(waiting, RULE, 0)) == ["b1", "b2", "a1", "a2"]


def test_an_item_that_would_be_late_goes_before_one_that_is_more_urgent() -> None:
    waiting = [item("critical", urgency=CRITICAL), item("routine", due_us=2_000)]
    assert keys(next_batch(waiting, ONE, 0)) == ["routine"]


def test_an_item_that_can_wait_for_another_batch_lets_the_urgent_pass() -> None:
    waiting = [item("routine", due_us=2_300), item("critical", urgency=CRITICAL)]
    assert keys(next_batch(waiting, ONE, 0)) == ["critical"]


def test_among_equally_urgent_items_who_is_due_first_comes_first_then_who_came_first() -> None:
    waiting = [item("c"), item("b", since_us=-1), item("a", due_us=FAR_US - 1, since_us=5)]
    assert [each.key for each in in_order(waiting, RULE, 0)] == ["a", "b", "c"]


@pytest.mark.parametrize("most", [0, -1])
def test_a_senseless_rule_is_refused(most: int) -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        BatchRule(most_items=most)


def test_the_time_of_an_item_follows_what_is_measured() -> None:
    time = ItemTime()
    assert time.of(4) == 0
    time = time.after(2, 1_000)
    assert time.of(4) == 2_000
    for _ in range(50):
        time = time.after(4, 400)
    assert time.of(4) == pytest.approx(400, rel=0.01)


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
def test_a_batch_holds_waiting_items_once_each(
    waiting: Sequence[WaitingItem], now_us: int, most: int
) -> None:
    batch = next_batch(waiting, BatchRule(most_items=most, full_us=FULL_US), now_us)
    assert len(batch) == min(most, len(waiting))
    assert len(set(keys(batch))) == len(batch)
    assert set(batch) <= set(waiting)


def run_to_the_end(arrivals: Sequence[WaitingItem], rule: BatchRule) -> dict[object, int]:
    """Plays a device: returns when each item's outputs were there."""
    done: dict[object, int] = {}
    now_us = 0
    while len(done) < len(arrivals):
        waiting = [each for each in arrivals if each.since_us <= now_us and each.key not in done]
        batch = next_batch(waiting, rule, now_us)
        if not batch:
            now_us = min(each.since_us for each in arrivals if each.since_us > now_us)
            continue
        now_us += 1_000 + 100 * len(batch)
        done.update((each.key, now_us) for each in batch)
    return done


def test_a_routine_study_does_not_starve_among_critical_ones_that_keep_coming() -> None:
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
    done = run_to_the_end([*critical, routine], RULE)
    assert done["routine"] <= routine.due_us
    assert all(done[each.key] <= each.due_us for each in critical)


def test_a_burst_of_critical_slabs_waits_for_no_more_than_the_batch_that_runs() -> None:
    routine = [item(f"routine {index}", since_us=0) for index in range(400)]
    critical = [item(f"critical {index}", urgency=CRITICAL, since_us=10) for index in range(4)]
    done = run_to_the_end([*routine, *critical], RULE)
    assert max(done[each.key] for each in critical) <= 2 * FULL_US

"""Kill it at any step: a plan is there whole or as before, and the next one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulators import killed_plans
from simulators.killed import kill_at_every_step
from simulators.killed_plans import NEW_KERNELS, NEW_TIMES, OLD_KERNELS, OLD_TIMES, prepare
from simulators.plan_bench import (
    KEY,
    NEW_PLAN,
    OLD_PLAN,
    OTHER_KEY,
    keep_proven,
    leftovers,
    quarantined,
    reasons,
)

from engines.plans.store import PlanStore, StoredPlan

_REASONS = {"its content was changed after it was sealed", "the library refused it"}


def state_of(found: StoredPlan | None) -> tuple[bytes | None, bool]:
    """Which plan is found, and whether it is proven; a proof is of that very plan."""
    if found is None:
        return None, False
    assert found.proof is None or found.proof.plan_sha256 == found.sha256
    return found.plan, found.proof is not None


def assert_what_is_found_was_kept(store: PlanStore) -> tuple[bytes | None, bool]:
    """As a process sees it that starts right after the kill."""
    state = state_of(store.find(KEY))
    assert state[0] in {OLD_PLAN, NEW_PLAN, None}
    assert state_of(store.find(OTHER_KEY)) in {(None, False), (NEW_PLAN, False)}
    assert store.timing_cache(KEY) in {b"", OLD_TIMES, NEW_TIMES}
    if state[0] is not None:
        of_it = {OLD_PLAN: OLD_KERNELS, NEW_PLAN: NEW_KERNELS}[state[0]]
        assert store.runtime_cache(KEY) in {b"", of_it}, "never those of another plan"
    # A kill makes nothing that looks as if somebody had changed it.
    assert set(reasons(store)) <= _REASONS
    assert len(quarantined(store)) <= 2
    return state


def assert_the_next_one_goes_on(store: PlanStore) -> None:
    for key in (KEY, OTHER_KEY):
        with store.building(key, on_wait=lambda: False):
            keep_proven(store, key, NEW_PLAN)
        assert state_of(store.find(key)) == (NEW_PLAN, True)
        assert store.runtime_cache(key) == b""
    assert leftovers(store) == []


@pytest.mark.parametrize("is_new", [False, True], ids=["with plans", "empty"])
def test_a_kill_at_any_step_leaves_what_can_be_trusted_and_gone_on_with(
    tmp_path: Path, *, is_new: bool
) -> None:
    template = tmp_path / "template"
    if not is_new:
        prepare(template)
    left = kill_at_every_step(killed_plans, template, tmp_path / "copies")
    assert len(left) > 80, "steps are counted"
    seen = []
    for folder in left:
        store = PlanStore(folder)
        seen.append(assert_what_is_found_was_kept(store))
        assert_the_next_one_goes_on(store)
    assert set(seen) == {
        (None, False) if is_new else (OLD_PLAN, True),
        (NEW_PLAN, False),
        (NEW_PLAN, True),
        (None, False),
    }
    assert seen[-1] == (None, False)

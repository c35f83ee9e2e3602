from __future__ import annotations

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.store.processes import Role
from edge_runtime.supervisor.reconcile import (
    Action,
    Observed,
    count_failure,
    decide,
    next_start_s,
)
from edge_runtime.supervisor.services import SERVICES, Service

SERVICE = Service(
    role=Role.WORKER,
    entry_point="a:b",
    first_restart_delay_s=1.0,
    max_restart_delay_s=8.0,
    healthy_after_s=20.0,
    start_limit_s=60.0,
    watchdog_s=30.0,
)
NEW = Observed()
STARTING = Observed(alive=True, started_s=100.0)
READY = Observed(alive=True, started_s=100.0, ready=True, last_sign_s=110.0)
ASKED = Observed(alive=True, started_s=100.0, ready=True, last_sign_s=110.0, terminated_s=120.0)
KILLED = Observed(alive=True, started_s=100.0, ready=True, last_sign_s=110.0, killed=True)
FAILED = Observed(failures=1, ended_s=100.0)
FAILED_OFTEN = Observed(failures=3, ended_s=100.0)


def _decide(seen: Observed, now_s: float, *, stopping: bool) -> Action:
    return decide(SERVICE, seen, now_s=now_s, stopping=stopping, stop_grace_s=10.0)


@pytest.mark.parametrize(
    ("seen", "now_s", "stopping", "action"),
    [
        (NEW, 0.0, False, Action.START),
        (NEW, 0.0, True, Action.NOTHING),
        (STARTING, 160.0, False, Action.NOTHING),
        (STARTING, 160.1, False, Action.KILL),
        (STARTING, 160.1, True, Action.TERMINATE),
        (READY, 140.0, False, Action.NOTHING),
        (READY, 140.1, False, Action.KILL),
        (READY, 115.0, True, Action.TERMINATE),
        (ASKED, 130.0, True, Action.NOTHING),
        (ASKED, 130.1, True, Action.KILL),
        (ASKED, 130.1, False, Action.KILL),
        (KILLED, 1e9, True, Action.NOTHING),
        (KILLED, 1e9, False, Action.NOTHING),
        (FAILED, 100.9, False, Action.NOTHING),
        (FAILED, 101.0, False, Action.START),
        (FAILED, 101.0, True, Action.NOTHING),
        (FAILED_OFTEN, 103.9, False, Action.NOTHING),
        (FAILED_OFTEN, 104.0, False, Action.START),
    ],
)
def test_what_is_done_follows_from_what_is_seen(
    seen: Observed, now_s: float, stopping: bool, action: Action
) -> None:
    assert _decide(seen, now_s, stopping=stopping) is action


@pytest.mark.parametrize(
    ("failures", "delay_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (100_000, 8.0)]
)
def test_the_back_off_doubles_up_to_its_bound(failures: int, delay_s: float) -> None:
    seen = Observed(failures=failures, ended_s=100.0)
    assert next_start_s(SERVICE, seen) == 100.0 + delay_s


def test_a_process_that_was_asked_to_end_may_start_at_once() -> None:
    assert next_start_s(SERVICE, Observed(failures=0, ended_s=100.0)) <= 100.0


@pytest.mark.parametrize(("lived_s", "failures"), [(0.0, 5), (19.9, 5), (20.0, 1), (1e6, 1)])
def test_a_long_life_forgets_earlier_failures(lived_s: float, failures: int) -> None:
    seen = Observed(alive=True, started_s=100.0, failures=4)
    assert count_failure(SERVICE, seen, 100.0 + lived_s) == failures


TIMES = st.floats(min_value=0, max_value=1e6)


@st.composite
def observations(draw: st.DrawFn) -> Observed:
    if draw(st.booleans()):
        return Observed(failures=draw(st.integers(0, 10**6)), ended_s=draw(st.none() | TIMES))
    return Observed(
        alive=True,
        started_s=draw(TIMES),
        ready=draw(st.booleans()),
        last_sign_s=draw(st.none() | TIMES),
        terminated_s=draw(st.none() | TIMES),
        killed=draw(st.booleans()),
        failures=draw(st.integers(0, 10**6)),
    )


@given(observations(), TIMES, st.booleans())
def test_only_what_is_dead_is_started_and_only_what_lives_is_ended(
    seen: Observed, now_s: float, stopping: bool
) -> None:
    action = _decide(seen, now_s, stopping=stopping)
    if action is Action.START:
        assert not seen.alive
        assert not stopping
    if action in {Action.TERMINATE, Action.KILL}:
        assert seen.alive
        assert not seen.killed
    if action is Action.TERMINATE:
        assert stopping
        assert seen.terminated_s is None


@given(observations(), TIMES)
def test_while_stopping_every_living_process_is_ended_in_the_end(
    seen: Observed, now_s: float
) -> None:
    if seen.alive and not seen.killed:
        asked_s = seen.terminated_s if seen.terminated_s is not None else now_s
        if seen.terminated_s is None:
            assert _decide(seen, now_s, stopping=True) is Action.TERMINATE
        asked = Observed(alive=True, started_s=seen.started_s, terminated_s=asked_s)
        assert _decide(asked, asked_s + 11.0, stopping=True) is Action.KILL


@given(observations(), TIMES)
def test_what_is_dead_is_started_again_within_the_longest_back_off(
    seen: Observed, now_s: float
) -> None:
    if not seen.alive:
        later_s = max(now_s, (seen.ended_s or 0.0) + SERVICE.max_restart_delay_s)
        assert _decide(seen, later_s, stopping=False) is Action.START


def test_the_table_holds_each_process_of_the_design_once() -> None:
    assert [service.role for service in SERVICES] == list(Role)
    for service in SERVICES:
        module, _, function = service.entry_point.partition(":")
        assert module == f"edge_runtime.app.{service.role.value}"
        assert importlib.util.find_spec(module) is not None
        assert function == "run"
        assert 0 < service.first_restart_delay_s <= service.max_restart_delay_s

from __future__ import annotations

import itertools
from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from edge_runtime.errors import IllegalTransitionError
from edge_runtime.model.analysis import (
    ANALYSIS_TRANSITIONS,
    DECIDED,
    OUTCOMES,
    UNDECIDED,
    AnalysisEvent,
    AnalysisState,
)
from edge_runtime.model.delivery import DELIVERY_TRANSITIONS, DeliveryEvent, DeliveryState
from edge_runtime.model.errand import ERRAND_TRANSITIONS, ErrandEvent, ErrandState
from edge_runtime.model.model_package import PACKAGE_TRANSITIONS, PackageEvent, PackageState
from edge_runtime.model.procedure_step import (
    PROCEDURE_STEP_TRANSITIONS,
    ProcedureStepEvent,
    ProcedureStepState,
)
from edge_runtime.model.study import STUDY_TRANSITIONS, StudyEvent, StudyState
from edge_runtime.model.transitions import next_state

Table = Mapping[tuple[Any, Any], Any]
TABLES: tuple[tuple[Table, type[Enum], type[Enum]], ...] = (
    (STUDY_TRANSITIONS, StudyState, StudyEvent),
    (ANALYSIS_TRANSITIONS, AnalysisState, AnalysisEvent),
    (DELIVERY_TRANSITIONS, DeliveryState, DeliveryEvent),
    (ERRAND_TRANSITIONS, ErrandState, ErrandEvent),
    (PROCEDURE_STEP_TRANSITIONS, ProcedureStepState, ProcedureStepEvent),
    (PACKAGE_TRANSITIONS, PackageState, PackageEvent),
)
PAIRS = [
    (table, state, event)
    for table, states, events in TABLES
    for state, event in itertools.product(states, events)
]


def _successors(table: Table, state: Enum) -> set[Enum]:
    return {target for (source, _), target in table.items() if source is state}


def _reachable(table: Table, start: Enum) -> set[Enum]:
    found: set[Enum] = set()
    waiting = {start}
    while waiting:
        found |= waiting
        waiting = {target for state in waiting for target in _successors(table, state)} - found
    return found


@pytest.mark.parametrize(
    ("table", "state", "event"), PAIRS, ids=[f"{state}-{event}" for _, state, event in PAIRS]
)
def test_a_pair_leads_where_its_table_says_and_nowhere_else(
    table: Table, state: Enum, event: Enum
) -> None:
    if (state, event) in table:
        assert next_state(table, state, event) is table[state, event]
    else:
        with pytest.raises(IllegalTransitionError, match=f"{event.name}.*{state.name}"):
            next_state(table, state, event)


@pytest.mark.parametrize(("table", "states", "events"), TABLES)
def test_every_state_is_reached_and_every_event_moves_something(
    table: Table, states: type[Enum], events: type[Enum]
) -> None:
    assert _reachable(table, next(iter(states))) == set(states)
    assert {event for _, event in table} == set(events)


@pytest.mark.parametrize("table", [table for table, _, _ in TABLES])
def test_a_table_cannot_be_changed(table: Any) -> None:
    with pytest.raises(TypeError):
        table[next(iter(table))] = None


def test_from_every_undecided_analysis_an_outcome_is_reached() -> None:
    for state in UNDECIDED:
        assert _reachable(ANALYSIS_TRANSITIONS, state) >= OUTCOMES


def test_a_decided_analysis_moves_only_to_superseded_and_that_is_its_end() -> None:
    for state in DECIDED:
        assert _successors(ANALYSIS_TRANSITIONS, state) == {AnalysisState.SUPERSEDED}
    assert _successors(ANALYSIS_TRANSITIONS, AnalysisState.SUPERSEDED) == set()


def test_an_outcome_is_decided_only_by_the_one_who_runs_the_analysis() -> None:
    sources = {source for (source, _), to in ANALYSIS_TRANSITIONS.items() if to in DECIDED}
    assert sources == {AnalysisState.RUNNING}


def test_a_delivery_ends_only_confirmed() -> None:
    ends = {state for state in DeliveryState if not _successors(DELIVERY_TRANSITIONS, state)}
    assert ends == {DeliveryState.CONFIRMED}


def test_a_procedure_step_that_has_ended_never_moves() -> None:
    for state in (ProcedureStepState.COMPLETED, ProcedureStepState.DISCONTINUED):
        assert _successors(PROCEDURE_STEP_TRANSITIONS, state) == set()


def test_a_model_package_is_used_only_after_it_was_verified_and_approved() -> None:
    for used in (PackageState.SHADOW, PackageState.ACTIVE):
        ways = {source for (source, _), target in PACKAGE_TRANSITIONS.items() if target is used}
        assert ways <= {PackageState.APPROVED, PackageState.SHADOW, PackageState.RETIRED}
    assert _successors(PACKAGE_TRANSITIONS, PackageState.REFUSED) == {PackageState.INSTALLED}


def test_no_model_package_is_stuck() -> None:
    for state in PackageState:
        assert PackageState.ACTIVE in _reachable(PACKAGE_TRANSITIONS, state)

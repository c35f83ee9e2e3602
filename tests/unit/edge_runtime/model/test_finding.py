from __future__ import annotations

import pytest
from simulators.scores import scored

from edge_runtime.model.analysis import ANALYSIS_TRANSITIONS, DECIDED, AnalysisEvent, AnalysisState
from edge_runtime.model.finding import TRIAGE_NOTICE, Broken, Refused, Result, Scored
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.model.transitions import next_state


def _scored(probability: float) -> Scored:
    return scored(probability, series_instance_uid="1.2")


@pytest.mark.parametrize(
    ("result", "event"),
    [
        (_scored(0.7), AnalysisEvent.FOUND),
        (_scored(0.5), AnalysisEvent.FOUND),
        (_scored(0.4999999), AnalysisEvent.NOT_FOUND),
        (Refused(reason=ReasonCode.GANTRY_TILT), AnalysisEvent.REFUSED),
        (Broken(reason=ReasonCode.ENGINE_FAILED), AnalysisEvent.BROKE),
    ],
)
def test_a_result_moves_a_running_analysis_to_an_outcome(
    result: Result, event: AnalysisEvent
) -> None:
    assert result.event is event
    assert next_state(ANALYSIS_TRANSITIONS, AnalysisState.RUNNING, result.event) in DECIDED


def test_the_notice_says_that_this_is_triage() -> None:
    assert TRIAGE_NOTICE == "For triage, not for diagnosis"

"""The states of an analysis: one study, one model, one revision."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class AnalysisState(str, Enum):
    """Where an analysis stands; the last five are the outcomes that a radiologist sees."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUSPECTED = "SUSPECTED"
    NOT_SUSPECTED = "NOT_SUSPECTED"
    NOT_ANALYSED = "NOT_ANALYSED"
    FAILED = "FAILED"
    SUPERSEDED = "SUPERSEDED"


class AnalysisEvent(str, Enum):
    """What moves an analysis."""

    CLAIMED = "CLAIMED"
    RELEASED = "RELEASED"
    """The worker stops and hands the work back."""
    LEASE_EXPIRED = "LEASE_EXPIRED"
    """The worker died: the work goes back to the queue."""
    FOUND = "FOUND"
    NOT_FOUND = "NOT_FOUND"
    REFUSED = "REFUSED"
    """Selection or the quality gate said no."""
    BROKE = "BROKE"
    REVISED = "REVISED"
    """A later revision of the study takes its place."""


UNDECIDED = frozenset({AnalysisState.QUEUED, AnalysisState.RUNNING})
OUTCOMES = frozenset(AnalysisState) - UNDECIDED
DECIDED = OUTCOMES - {AnalysisState.SUPERSEDED}

ANALYSIS_TRANSITIONS: Mapping[tuple[AnalysisState, AnalysisEvent], AnalysisState] = (
    MappingProxyType(
        {
            (AnalysisState.QUEUED, AnalysisEvent.CLAIMED): AnalysisState.RUNNING,
            (AnalysisState.RUNNING, AnalysisEvent.RELEASED): AnalysisState.QUEUED,
            (AnalysisState.RUNNING, AnalysisEvent.LEASE_EXPIRED): AnalysisState.QUEUED,
            (AnalysisState.RUNNING, AnalysisEvent.FOUND): AnalysisState.SUSPECTED,
            (AnalysisState.RUNNING, AnalysisEvent.NOT_FOUND): AnalysisState.NOT_SUSPECTED,
            (AnalysisState.RUNNING, AnalysisEvent.REFUSED): AnalysisState.NOT_ANALYSED,
            (AnalysisState.RUNNING, AnalysisEvent.BROKE): AnalysisState.FAILED,
            (AnalysisState.QUEUED, AnalysisEvent.REVISED): AnalysisState.SUPERSEDED,
            (AnalysisState.RUNNING, AnalysisEvent.REVISED): AnalysisState.SUPERSEDED,
            (AnalysisState.SUSPECTED, AnalysisEvent.REVISED): AnalysisState.SUPERSEDED,
            (AnalysisState.NOT_SUSPECTED, AnalysisEvent.REVISED): AnalysisState.SUPERSEDED,
            (AnalysisState.NOT_ANALYSED, AnalysisEvent.REVISED): AnalysisState.SUPERSEDED,
            (AnalysisState.FAILED, AnalysisEvent.REVISED): AnalysisState.SUPERSEDED,
        }
    )
)

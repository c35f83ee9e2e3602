"""The order of the way of a study through the worker, as two tables.

A stage takes a state, commits another, and never calls the next one: the database is the queue
(DESIGN.md section 2). The worker runs the first stage that has something to do and starts again at
the top, so the order is also the priority: deciding comes before preparing what still arrives, and
that before running a model on what may yet change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from edge_runtime.model.analysis import OUTCOMES, AnalysisState
from edge_runtime.model.delivery import DeliveryState
from edge_runtime.model.study import StudyState
from edge_runtime.pipeline.analysis import (
    Step,
    check_engine,
    check_procedure,
    check_quality,
    check_size,
    choose_series,
    decide_findings,
    run_model,
)
from edge_runtime.pipeline.stages import (
    Pipeline,
    analyse_next,
    complete_next,
    follow_arrivals,
    infer_next,
    prepare_next,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: what it takes, what it commits, and one unit of its work."""

    name: str
    takes: Enum
    commits: frozenset[Enum]
    run_once: Callable[[Pipeline], bool]
    """Does one unit of work; False when there was none."""


STAGES: tuple[Stage, ...] = (
    Stage(
        name="arrival",
        takes=StudyState.RECEIVING,
        commits=frozenset({StudyState.RECEIVING}),
        run_once=follow_arrivals,
    ),
    Stage(
        name="assembly",
        takes=StudyState.RECEIVING,
        commits=frozenset({StudyState.COMPLETE, AnalysisState.QUEUED, DeliveryState.PENDING}),
        run_once=complete_next,
    ),
    Stage(
        name="analysis",
        takes=AnalysisState.QUEUED,
        commits=frozenset({AnalysisState.RUNNING, *OUTCOMES, DeliveryState.PENDING}),
        run_once=lambda pipeline: analyse_next(pipeline, ANALYSIS),
    ),
    Stage(
        name="preparation",
        takes=StudyState.RECEIVING,
        commits=frozenset({StudyState.RECEIVING}),
        run_once=prepare_next,
    ),
    Stage(
        name="early inference",
        takes=StudyState.RECEIVING,
        commits=frozenset({StudyState.RECEIVING}),
        run_once=infer_next,
    ),
)

ANALYSIS: tuple[Step, ...] = (
    check_size,
    check_procedure,
    choose_series,
    check_quality,
    check_engine,
    run_model,
    decide_findings,
)


def run_stages(pipeline: Pipeline) -> bool:
    """Run one unit of the first stage that has any; False when nothing is to be done."""
    return any(stage.run_once(pipeline) for stage in STAGES)

"""A shadow model works like an active one, and nobody hears of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulators.released_package import write_release
from simulators.worker_bench import WorkerBench

from edge_runtime.config.settings import EngineSettings
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Mark
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.models import ActiveModel, open_models
from edge_runtime.pipeline.stages import complete_next, follow_arrivals
from edge_runtime.store.analyses import NO_MODEL
from edge_runtime.store.stamps import read_stamps
from edge_runtime.store.worklist import StudyDetail, count_outcomes, find_study, page_of_studies


@pytest.fixture
def models(tmp_path: Path) -> Iterator[tuple[ActiveModel, ...]]:
    active = write_release(tmp_path / "active", "1.0.0")
    shadow = write_release(tmp_path / "shadow", "1.1.0")
    with open_models([active], EngineSettings(), shadows=[shadow]) as opened:
        yield opened


MakeBench = Callable[[tuple[ActiveModel, ...]], WorkerBench]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    with contextlib.ExitStack() as stack:

        def make(models: tuple[ActiveModel, ...]) -> WorkerBench:
            made = WorkerBench(tmp_path, models)
            stack.callback(made.close)
            return made

        yield make


def detail_of(bench: WorkerBench) -> StudyDetail:
    found = find_study(bench.node_connection, "1.2.3")
    assert found is not None
    return found


def test_both_decide_and_only_the_active_one_is_told_of(
    make_bench: MakeBench, models: tuple[ActiveModel, ...]
) -> None:
    bench = make_bench(models)
    bench.store_study(10)
    bench.work()
    detail = detail_of(bench)
    (active,), (shadow,) = detail.study.current, detail.shadows
    assert (active.model_version, active.state) == ("1.0.0", AnalysisState.SUSPECTED)
    assert (shadow.model_version, shadow.state) == ("1.1.0", AnalysisState.SUSPECTED)
    assert len(active.deliveries) == 3
    assert shadow.deliveries == ()
    marks = [stamp.mark for stamp in read_stamps(bench.node_connection, detail.study.study_id)]
    assert marks.count(Mark.STARTED) == marks.count(Mark.DECIDED) == 1


def test_what_only_a_shadow_suspects_raises_nothing_and_stands_on_no_list(
    make_bench: MakeBench, models: tuple[ActiveModel, ...]
) -> None:
    bench = make_bench(models[1:])
    bench.store_study(10)
    bench.work()
    detail = detail_of(bench)
    (outcome,) = detail.study.current
    assert (outcome.model_name, outcome.reason) == (NO_MODEL, ReasonCode.NO_ACTIVE_MODEL)
    assert detail.shadows[0].state is AnalysisState.SUSPECTED
    assert detail.study.raised == 0
    counts = count_outcomes(bench.node_connection)
    assert (counts.suspected, counts.unacknowledged, counts.not_analysed) == (0, 0, 1)
    (line,) = page_of_studies(bench.node_connection, limit=10)
    assert [item.model_name for item in line.analyses] == [NO_MODEL]


def test_a_later_revision_supersedes_each_in_its_own_line(
    make_bench: MakeBench, models: tuple[ActiveModel, ...]
) -> None:
    bench = make_bench(models)
    bench.store_study(10)
    bench.work()
    bench.store(11)
    bench.work(after_s=120.0)
    detail = detail_of(bench)
    for analyses in (detail.study.analyses, detail.shadows):
        assert [(item.revision, item.state) for item in analyses] == [
            (2, AnalysisState.SUSPECTED),
            (1, AnalysisState.SUPERSEDED),
        ]


def test_a_shadow_that_is_gone_leaves_no_study_undecided(
    make_bench: MakeBench, models: tuple[ActiveModel, ...]
) -> None:
    bench = make_bench(models)
    bench.store_study(10)
    bench.clock.advance(1.0)
    follow_arrivals(bench.pipeline)
    assert complete_next(bench.pipeline)
    bench.models = models[:1]
    bench.start_worker()
    bench.work()
    (shadow,) = detail_of(bench).shadows
    assert shadow.reason is ReasonCode.NO_ACTIVE_MODEL
    assert detail_of(bench).study.current[0].state is AnalysisState.SUSPECTED

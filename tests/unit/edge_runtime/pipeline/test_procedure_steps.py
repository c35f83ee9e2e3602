"""What the scanner says of its procedure steps, as a completion rule and through the worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.model_package import write_model_package
from simulators.worker_bench import WorkerBench

from dicom_node.mpps import Noted, StepMessage, StepOperation, StepReference, StepStatus
from edge_runtime.config.settings import EngineSettings
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.model.study import CompletionReason, StudyState
from edge_runtime.pipeline.assembly import (
    AssemblyRules,
    AssemblyView,
    Complete,
    SeriesView,
    StepsView,
    Wait,
    decide,
    is_discontinued,
)
from edge_runtime.pipeline.models import ActiveModel, open_models
from edge_runtime.store.procedure_steps import SqliteProcedureSteps

RULES = AssemblyRules()
SECOND = 1_000_000
WHOLE = SeriesView(images=40, missing_by_count=0, is_gapless_stack=True)
RAGGED = SeriesView(images=40, missing_by_count=None, is_gapless_stack=False)


def steps(**changes: Any) -> StepsView:
    """One step that was completed at 5 s, and all its images are here."""
    done = StepsView(
        in_progress=0,
        completed=1,
        discontinued=0,
        completed_without_images=0,
        missing_images=0,
        missing_of_begun_series=0,
        changed_mono_us=5 * SECOND,
    )
    return replace(done, **changes)


DISCONTINUED = steps(completed=0, discontinued=1)


def view(said: StepsView | None, *series: SeriesView, **changes: Any) -> AssemblyView:
    """First image at 0 s, last at 10 s, one association still open."""
    still_open = AssemblyView(
        series=series or (RAGGED,),
        first_stored_mono_us=0,
        last_stored_mono_us=10 * SECOND,
        longest_pause_us=10_000,
        open_associations=1,
        are_all_released=False,
        last_closed_mono_us=None,
        steps=said,
    )
    return replace(still_open, **changes)


def completion(of: AssemblyView) -> tuple[CompletionReason, int]:
    """Which rule completes the study if nothing changes, and how long after the last image."""
    waiting = decide(of, of.last_stored_mono_us, RULES)
    assert isinstance(waiting, Wait)
    complete = decide(of, waiting.until_mono_us, RULES)
    assert complete == Complete(reason=waiting.expected)
    return waiting.expected, waiting.until_mono_us - of.last_stored_mono_us


def test_a_completed_step_whose_images_are_here_completes_at_once() -> None:
    assert completion(view(steps())) == (CompletionReason.MPPS, RULES.settle_us)


def test_a_step_that_is_completed_long_after_its_images_completes_at_that_moment() -> None:
    late = view(steps(changed_mono_us=17 * SECOND))
    assert completion(late) == (CompletionReason.MPPS, 7 * SECOND)
    assert decide(late, 17 * SECOND, RULES) == Complete(reason=CompletionReason.MPPS)


@pytest.mark.parametrize(
    "said",
    [
        steps(in_progress=1),
        steps(completed=0, in_progress=1),
        steps(missing_images=3),
        steps(completed=2, completed_without_images=1),
        steps(in_progress=1, completed=0, discontinued=1),
    ],
)
def test_what_is_not_whole_is_left_to_the_other_rules(said: StepsView) -> None:
    assert completion(view(said))[0] is CompletionReason.QUIET
    assert completion(view(said, WHOLE))[0] is CompletionReason.COUNTS


def test_a_discontinued_step_beside_a_completed_one_does_not_hold_it_up() -> None:
    said = steps(discontinued=1)
    assert completion(view(said))[0] is CompletionReason.MPPS
    assert not is_discontinued(view(said))


def test_images_that_are_known_to_be_on_their_way_hold_back_the_guessing_rules() -> None:
    said = steps(missing_images=4, missing_of_begun_series=4)
    closed = {"open_associations": 0, "are_all_released": True, "last_closed_mono_us": 10 * SECOND}
    assert completion(view(said, WHOLE)) == (CompletionReason.QUIET, RULES.quiet_open_us)
    assert completion(view(said, WHOLE, **closed)) == (CompletionReason.QUIET, RULES.quiet_open_us)


def test_a_series_that_may_never_be_sent_here_holds_back_nothing() -> None:
    said = steps(missing_images=400)
    assert completion(view(said, WHOLE)) == (CompletionReason.COUNTS, RULES.settle_us)


@pytest.mark.parametrize("series", [WHOLE, RAGGED])
def test_a_discontinued_study_is_closed_after_a_moment_of_silence(series: SeriesView) -> None:
    found = view(DISCONTINUED, series)
    assert completion(found) == (CompletionReason.MPPS, RULES.quiet_closed_us)
    assert is_discontinued(found)


def test_a_first_revision_is_discontinued_however_late_its_images_come() -> None:
    assert is_discontinued(view(DISCONTINUED, first_stored_mono_us=9 * SECOND))


def test_images_that_come_after_a_discontinued_study_was_closed_are_analysed() -> None:
    later = {"revision": 2, "first_stored_mono_us": 9 * SECOND}
    assert not is_discontinued(view(DISCONTINUED, **later))
    assert completion(view(DISCONTINUED, WHOLE, **later))[0] is CompletionReason.COUNTS


def test_a_later_revision_that_is_discontinued_while_it_arrives_is() -> None:
    said = replace(DISCONTINUED, changed_mono_us=9 * SECOND)
    assert is_discontinued(view(said, revision=2, first_stored_mono_us=8 * SECOND))


@settings(derandomize=True, deadline=None)
@given(
    said=st.builds(
        StepsView,
        in_progress=st.integers(0, 2),
        completed=st.integers(0, 2),
        discontinued=st.integers(0, 2),
        completed_without_images=st.integers(0, 1),
        missing_images=st.integers(0, 3),
        missing_of_begun_series=st.integers(0, 3),
        changed_mono_us=st.integers(0, 10_000 * SECOND),
    ),
    last_us=st.integers(0, 700 * SECOND),
    revision=st.integers(1, 3),
)
def test_whatever_the_scanner_says_every_study_completes_by_its_longest_wait(
    said: StepsView, last_us: int, revision: int
) -> None:
    state = view(said, WHOLE, last_stored_mono_us=last_us, revision=revision)
    outcome = decide(state, 0, RULES)
    if isinstance(outcome, Wait):
        assert 0 < outcome.until_mono_us <= RULES.longest_wait_us
        assert isinstance(decide(state, outcome.until_mono_us, RULES), Complete)


# ---------------------------------------------------------------- through the worker

STUDY = "1.2.3"
SLICES = 8


class Scanner:
    """Says things about its steps, on the database of a bench."""

    def __init__(self, bench: WorkerBench) -> None:
        self._book = SqliteProcedureSteps(
            bench.node_connection, bench.clock, relays=False, max_steps=10
        )

    def begin(self, uid: str = "1.40") -> None:
        self._note(StepOperation.CREATE, uid, StepStatus.IN_PROGRESS, ())

    def end(
        self, status: StepStatus, images: int, *, uid: str = "1.40", series: str = f"{STUDY}.1"
    ) -> None:
        references = tuple(
            StepReference(
                series_instance_uid=series,
                sop_instance_uid=f"{series}.{number}",
                is_image=True,
            )
            for number in range(1, images + 1)
        )
        self._note(StepOperation.SET, uid, status, references)

    def _note(
        self,
        operation: StepOperation,
        uid: str,
        status: StepStatus,
        references: tuple[StepReference, ...],
    ) -> None:
        message = StepMessage(
            operation=operation,
            sop_instance_uid=uid,
            status=status,
            study_instance_uids=(STUDY,),
            references=references,
            transfer_syntax_uid="1.2.840.10008.1.2",
            data_set=b"",
        )
        assert self._book.note(message) is Noted.NOTED


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ActiveModel, ...]]:
    package = write_model_package(tmp_path_factory.mktemp("package"))
    with open_models([package], EngineSettings()) as opened:
        yield opened


@pytest.fixture
def bench(tmp_path: Path, models: tuple[ActiveModel, ...]) -> Iterator[WorkerBench]:
    made = WorkerBench(tmp_path, models)
    yield made
    made.close()


@pytest.fixture
def scanner(bench: WorkerBench) -> Scanner:
    return Scanner(bench)


def _store(bench: WorkerBench, first: int, last: int) -> None:
    """Slices that promise no count; their association stays open."""
    for number in range(first, last + 1):
        bench.store(number, images=None)


def test_a_study_is_analysed_when_its_step_is_completed(
    bench: WorkerBench, scanner: Scanner
) -> None:
    scanner.begin()
    _store(bench, 1, SLICES)
    bench.work()
    assert bench.study().state is StudyState.RECEIVING
    scanner.end(StepStatus.COMPLETED, SLICES)
    bench.pipeline.arrivals.reconsider()
    bench.work(after_s=0.01)
    assert bench.study().completion_reason is CompletionReason.MPPS
    assert bench.analysis().state is AnalysisState.SUSPECTED


def test_a_step_may_be_completed_before_its_images_arrive(
    bench: WorkerBench, scanner: Scanner
) -> None:
    scanner.begin()
    scanner.end(StepStatus.COMPLETED, SLICES)
    _store(bench, 1, SLICES - 1)
    bench.work(after_s=5.0)
    assert bench.study().state is StudyState.RECEIVING
    _store(bench, SLICES, SLICES)
    bench.work()
    assert bench.study().completion_reason is CompletionReason.MPPS
    assert bench.analysis().state is AnalysisState.SUSPECTED


def test_a_step_may_come_after_everything_else(bench: WorkerBench, scanner: Scanner) -> None:
    bench.store_study(SLICES)
    bench.work()
    scanner.begin()
    scanner.end(StepStatus.DISCONTINUED, SLICES)
    bench.pipeline.arrivals.reconsider()
    bench.work(after_s=10.0)
    assert bench.study().revision == 1
    assert bench.analysis().state is AnalysisState.SUSPECTED


def test_a_restarted_worker_knows_what_the_scanner_said(
    bench: WorkerBench, scanner: Scanner
) -> None:
    scanner.begin()
    _store(bench, 1, SLICES)
    scanner.end(StepStatus.COMPLETED, SLICES)
    bench.start_worker(owner="w2")
    bench.work()
    assert bench.study().completion_reason is CompletionReason.MPPS


def test_a_discontinued_study_is_not_analysed_and_says_why(
    bench: WorkerBench, scanner: Scanner
) -> None:
    scanner.begin()
    bench.store_study(SLICES)
    scanner.end(StepStatus.DISCONTINUED, SLICES)
    bench.work(after_s=1.0)
    assert bench.study().state is StudyState.RECEIVING
    bench.work(after_s=1.5)
    assert bench.study().completion_reason is CompletionReason.MPPS
    assert bench.analysis().state is AnalysisState.NOT_ANALYSED
    assert bench.analysis().reason is ReasonCode.PROCEDURE_DISCONTINUED


def test_a_discontinued_study_that_no_model_is_for_says_that(
    bench: WorkerBench, scanner: Scanner
) -> None:
    scanner.begin()
    scanner.end(StepStatus.DISCONTINUED, 0)
    path = bench.store(1)
    assert path.is_file()
    bench.node_connection.execute(
        "UPDATE instance SET header = json_replace(header, '$.modality', 'MR')"
    )
    bench.work(after_s=3.0)
    assert bench.analysis().reason is ReasonCode.WRONG_MODALITY


def test_images_that_come_after_a_discontinued_study_was_closed_are_looked_at(
    bench: WorkerBench, scanner: Scanner
) -> None:
    scanner.begin()
    _store(bench, 1, 3)
    scanner.end(StepStatus.DISCONTINUED, 3)
    bench.work(after_s=3.0)
    assert bench.analysis().reason is ReasonCode.PROCEDURE_DISCONTINUED
    for number in range(4, SLICES + 1):
        bench.store(number, images=SLICES)
    bench.inbox.association_closed("a1", released=True)
    bench.pipeline.arrivals.reconsider()
    bench.work(after_s=5.0)
    assert bench.study().revision == 2
    assert bench.analysis(revision=2).state is AnalysisState.SUSPECTED


def test_a_repeated_examination_is_analysed_although_the_first_was_broken_off(
    bench: WorkerBench, scanner: Scanner
) -> None:
    scanner.begin("1.40")
    _store(bench, 1, 3)
    scanner.end(StepStatus.DISCONTINUED, 3, uid="1.40")
    scanner.begin("1.41")
    bench.work(after_s=3.0)
    assert bench.study().state is StudyState.RECEIVING
    _store(bench, 4, SLICES)
    scanner.end(StepStatus.COMPLETED, SLICES, uid="1.41")
    bench.pipeline.arrivals.reconsider()
    bench.work()
    assert bench.study().completion_reason is CompletionReason.MPPS
    assert bench.analysis().state is AnalysisState.SUSPECTED
    assert bench.study().revision == 1


def test_steps_are_not_counted_again_while_nothing_is_new(
    bench: WorkerBench, scanner: Scanner
) -> None:
    scanner.begin()
    _store(bench, 1, 3)
    bench.work()
    statements: list[str] = []
    bench.pipeline.connection.set_trace_callback(statements.append)
    bench.pipeline.arrivals.reconsider()
    bench.work()
    assert any("procedure_step_study" in statement for statement in statements)
    assert not any("LEFT JOIN instance" in statement for statement in statements)

"""The worker on a real database, real files and a real model; time moves when told to."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock
from simulators.model_package import write_model_package
from simulators.waiting import wait_until
from simulators.worker_bench import BRIGHT_HU, DARK_HU, LEASE_US, WorkerBench

from edge_runtime.clock import SystemClock
from edge_runtime.config.settings import EngineSettings
from edge_runtime.errors import SettingsError
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Instant, Mark
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.model.finding import Broken, Refused
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.model.study import CompletionReason, StudyState
from edge_runtime.pipeline.analysis import Work, check_size, run_steps
from edge_runtime.pipeline.flow import ANALYSIS, STAGES, run_stages
from edge_runtime.pipeline.models import ActiveModel, open_models
from edge_runtime.pipeline.packages import find_packages
from edge_runtime.pipeline.stages import next_due_us
from edge_runtime.pipeline.worker import run_pipeline
from edge_runtime.store.analyses import claim_analysis, return_expired_analyses
from edge_runtime.store.worklist import find_study
from engines.runner import HostRunner

SLICES = 8


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ActiveModel, ...]]:
    package = write_model_package(tmp_path_factory.mktemp("package"))
    with open_models([package], EngineSettings()) as opened:
        yield opened


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[[tuple[ActiveModel, ...]], WorkerBench]]:
    with contextlib.ExitStack() as stack:

        def make(models: tuple[ActiveModel, ...]) -> WorkerBench:
            made = WorkerBench(tmp_path, models)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def bench(
    make_bench: Callable[[tuple[ActiveModel, ...]], WorkerBench], models: tuple[ActiveModel, ...]
) -> WorkerBench:
    return make_bench(models)


def _channels(bench: WorkerBench, revision: int = 1) -> dict[Channel, DeliveryState]:
    analysis = bench.analysis(revision=revision)
    return {item.channel: item.state for item in analysis.deliveries}


@pytest.mark.parametrize(
    ("hu", "state"),
    [(BRIGHT_HU, AnalysisState.SUSPECTED), (DARK_HU, AnalysisState.NOT_SUSPECTED)],
)
def test_a_study_that_is_complete_by_its_counts_is_decided(
    bench: WorkerBench, hu: int, state: AnalysisState
) -> None:
    bench.store_study(SLICES, hu=hu)
    bench.work()
    study, analysis = bench.study(), bench.analysis()
    assert study.state is StudyState.COMPLETE
    assert study.completion_reason is CompletionReason.COUNTS
    assert study.raised == (3 if state is AnalysisState.SUSPECTED else 0)
    assert analysis.state is state
    assert analysis.probability == pytest.approx(0.982 if hu == BRIGHT_HU else 0.018, abs=0.001)
    assert analysis.engine is not None
    assert "onnxruntime" in analysis.engine
    assert _channels(bench) == dict.fromkeys(Channel, DeliveryState.PENDING)


def test_every_moment_of_the_way_is_stamped_in_order(bench: WorkerBench) -> None:
    bench.store_study(SLICES)
    bench.work()
    detail = find_study(bench.node_connection, "1.2.3")
    assert detail is not None
    at = {stamp.mark: stamp.at.mono_us for stamp in detail.stamps}
    way = [Mark.FIRST_STORED, Mark.LAST_STORED, Mark.COMPLETE, Mark.STARTED, Mark.DECIDED]
    assert sorted(way, key=lambda mark: at[mark]) == way


def test_a_study_whose_images_are_not_all_there_waits(bench: WorkerBench) -> None:
    bench.store_study(SLICES, promised=SLICES + 1)
    bench.work()
    assert bench.study().state is StudyState.RECEIVING
    assert bench.study().analyses == ()


def test_the_worker_knows_when_to_wake_for_a_rule_that_no_commit_announces(
    bench: WorkerBench,
) -> None:
    assert next_due_us(bench.pipeline) is None
    bench.store_study(SLICES)
    stored_us = bench.clock.now().mono_us
    bench.work(after_s=0.01)
    assert next_due_us(bench.pipeline) == stored_us + bench.rules.assembly.settle_us
    bench.work()
    assert bench.study().state is StudyState.COMPLETE
    bench.work()
    assert next_due_us(bench.pipeline) is None


def test_an_association_that_ends_completes_what_counts_and_geometry_do_not(
    bench: WorkerBench,
) -> None:
    bench.store_study(SLICES, promised=SLICES + 1)
    bench.inbox.association_closed("a1", released=False)
    bench.work(after_s=1.9)
    assert bench.study().state is StudyState.RECEIVING
    bench.pipeline.arrivals.reconsider()
    bench.work(after_s=0.2)
    assert bench.study().completion_reason is CompletionReason.ASSOCIATION


def test_images_without_a_pause_do_not_put_off_the_longest_wait(bench: WorkerBench) -> None:
    assembly = dataclasses.replace(bench.rules.assembly, longest_wait_us=1_000_000)
    bench.use_rules(dataclasses.replace(bench.rules, assembly=assembly))
    for number in range(1, 11):
        bench.store(number)
        bench.work(after_s=0.1)
    assert bench.study().state is StudyState.COMPLETE
    assert bench.study().completion_reason is CompletionReason.FORCED


def test_a_late_image_opens_a_revision_that_supersedes_the_first(bench: WorkerBench) -> None:
    bench.store_study(SLICES)
    bench.work()
    bench.store(SLICES + 1, images=SLICES + 1)
    bench.inbox.association_closed("a1", released=True)
    bench.work(after_s=5.0)
    study = bench.study()
    assert (study.revision, study.state, study.instances) == (2, StudyState.COMPLETE, SLICES + 1)
    assert bench.analysis(revision=1).state is AnalysisState.SUPERSEDED
    assert bench.analysis(revision=1).outcome is AnalysisState.SUSPECTED
    assert bench.analysis(revision=2).state is AnalysisState.SUSPECTED


def test_a_darker_revision_does_not_lower_the_priority(bench: WorkerBench) -> None:
    bench.store_study(SLICES)
    bench.work()
    bench.store(SLICES + 3, images=SLICES)  # a gap: the gate refuses the second revision
    bench.inbox.association_closed("a1", released=True)
    bench.work(after_s=5.0)
    assert bench.analysis(revision=2).reason is ReasonCode.MISSING_SLICES
    assert bench.study().raised == 3


def test_a_worker_that_starts_in_the_middle_goes_on_where_the_last_one_died(
    bench: WorkerBench,
) -> None:
    for number in range(1, 5):
        bench.store(number, images=SLICES)
    bench.work()
    bench.start_worker(owner="w2")
    for number in range(5, SLICES + 1):
        bench.store(number, images=SLICES)
    bench.work()
    assert bench.analysis().state is AnalysisState.SUSPECTED


def test_a_worker_that_starts_after_a_reboot_completes_what_was_receiving(
    bench: WorkerBench,
) -> None:
    bench.clock.advance(1_000_000)  # stamps far ahead of the clock of the next boot
    bench.store_study(SLICES, promised=SLICES + 1)
    bench.clock.reboot()
    bench.inbox.close_lost_associations()
    bench.start_worker(owner="w2")
    bench.work(after_s=3.0)
    assert bench.analysis().state is AnalysisState.SUSPECTED


def test_a_worker_that_died_while_it_ran_an_analysis_leaves_it_to_the_next(
    bench: WorkerBench,
) -> None:
    bench.store_study(SLICES)
    bench.clock.advance(1.0)
    _complete_and_claim(bench)
    bench.start_worker(owner="w2")
    bench.work()
    assert bench.analysis().state is AnalysisState.RUNNING
    bench.work(after_s=LEASE_US / 1e6)
    assert bench.analysis().state is AnalysisState.SUSPECTED


def _complete_and_claim(bench: WorkerBench) -> None:
    """Run the stages up to the claim, as a worker does that dies right after it."""
    while bench.study().state is StudyState.RECEIVING:
        assert run_stages(bench.pipeline)
    _claim(bench)


def _claim(bench: WorkerBench) -> None:
    claim = claim_analysis(
        bench.pipeline.connection, owner="dead", at=bench.clock.now(), lease_us=LEASE_US
    )
    assert claim is not None


def test_a_study_that_killed_the_worker_again_and_again_is_reported_as_failed(
    bench: WorkerBench,
) -> None:
    bench.store_study(SLICES)
    bench.clock.advance(1.0)
    _complete_and_claim(bench)
    for _ in range(bench.rules.max_attempts - 1):
        bench.clock.advance(LEASE_US / 1e6 + 1)
        assert return_expired_analyses(bench.pipeline.connection, bench.clock.now()) == 1
        _claim(bench)
    bench.work(after_s=LEASE_US / 1e6 + 1)
    assert bench.analysis().state is AnalysisState.FAILED
    assert bench.analysis().reason is ReasonCode.REPEATED_CRASH
    assert bench.analysis().reason_detail == "3 attempts before"


def test_a_lost_file_is_the_devices_fault(bench: WorkerBench) -> None:
    paths = bench.store_study(SLICES)
    paths[3].unlink()
    bench.work()
    assert bench.analysis().state is AnalysisState.FAILED
    assert bench.analysis().reason is ReasonCode.IMAGES_LOST


def test_pixels_that_cannot_be_decoded_are_the_images_fault(bench: WorkerBench) -> None:
    paths = bench.store_study(SLICES)
    with paths[3].open("r+b") as file:
        file.truncate(paths[3].stat().st_size - 10)
    bench.work()
    assert bench.analysis().state is AnalysisState.NOT_ANALYSED
    assert bench.analysis().reason is ReasonCode.UNDECODABLE_PIXELS


def test_one_bad_study_does_not_hold_up_another(bench: WorkerBench) -> None:
    for path in bench.store_study(SLICES):
        path.unlink()
    bench.store_study(SLICES, study="1.2.4")
    bench.work()
    assert bench.analysis("1.2.3").state is AnalysisState.FAILED
    assert bench.analysis("1.2.4").state is AnalysisState.SUSPECTED


def test_a_model_that_does_not_reproduce_its_golden_outputs_decides_nothing(
    make_bench: Callable[[tuple[ActiveModel, ...]], WorkerBench], tmp_path: Path
) -> None:
    package = write_model_package(tmp_path / "package", golden_error=0.5)
    with open_models([package], EngineSettings()) as models:
        bench = make_bench(models)
        assert models[0].engine is None
        bench.store_study(SLICES)
        bench.work()
    assert bench.analysis().state is AnalysisState.FAILED
    assert bench.analysis().reason is ReasonCode.ENGINE_FAILED


def test_an_engine_that_fails_while_it_runs_is_the_devices_fault(
    make_bench: Callable[[tuple[ActiveModel, ...]], WorkerBench], models: tuple[ActiveModel, ...]
) -> None:
    wrong = models[0].package.input.model_copy(update={"name": "no_input_of_the_model"})
    package = models[0].package.model_copy(update={"input": wrong})
    assert models[0].engine is not None
    runner = HostRunner(package, models[0].engine)
    bench = make_bench((dataclasses.replace(models[0], package=package, runner=runner),))
    bench.store_study(SLICES)
    bench.work()
    assert bench.analysis().state is AnalysisState.FAILED
    assert bench.analysis().reason is ReasonCode.ENGINE_FAILED


def test_without_a_model_a_study_is_not_analysed_and_says_so(
    make_bench: Callable[[tuple[ActiveModel, ...]], WorkerBench],
) -> None:
    bench = make_bench(())
    bench.store_study(SLICES)
    bench.work()
    assert bench.analysis().state is AnalysisState.NOT_ANALYSED
    assert bench.analysis().reason is ReasonCode.NO_ACTIVE_MODEL


def test_a_study_that_no_model_is_for_is_not_analysed_and_says_so(
    make_bench: Callable[[tuple[ActiveModel, ...]], WorkerBench], models: tuple[ActiveModel, ...]
) -> None:
    selection = models[0].package.selection.model_copy(update={"modalities": ("MR",)})
    package = models[0].package.model_copy(update={"selection": selection})
    bench = make_bench((dataclasses.replace(models[0], package=package),))
    bench.store_study(SLICES)
    bench.work()
    assert bench.analysis().reason is ReasonCode.WRONG_MODALITY


def test_every_model_looks_at_every_study(
    make_bench: Callable[[tuple[ActiveModel, ...]], WorkerBench],
    models: tuple[ActiveModel, ...],
    tmp_path: Path,
) -> None:
    package = write_model_package(tmp_path / "package", name="other")
    with open_models([package], EngineSettings()) as others:
        bench = make_bench((*models, *others))
        bench.store_study(SLICES)
        bench.work()
    outcomes = {item.model_name: item.state for item in bench.study().analyses}
    assert outcomes == {
        "bright": AnalysisState.SUSPECTED,
        "other": AnalysisState.SUSPECTED,
    }


def test_a_slice_that_was_prepared_on_arrival_is_not_decoded_again(bench: WorkerBench) -> None:
    for number in range(1, SLICES):
        bench.store(number, images=SLICES)
    assert bench.work(after_s=0.01) > SLICES - 1  # and the model ran early
    for path in bench.spool.iterdir():
        path.unlink()
    bench.store(SLICES, images=SLICES)
    bench.work()
    assert bench.analysis().state is AnalysisState.SUSPECTED
    assert bench.pipeline.prepared.held_bytes == 0


def test_deciding_a_study_comes_before_preparing_another(bench: WorkerBench) -> None:
    bench.store_study(SLICES)
    bench.clock.advance(1.0)
    bench.store_study(SLICES, study="1.2.4", promised=100)
    units = 0
    while bench.study().analyses == () or bench.analysis().state is not AnalysisState.SUSPECTED:
        assert run_stages(bench.pipeline)
        units += 1
    assert units == 2
    assert bench.pipeline.prepared.held_bytes == 0


def test_an_image_that_cannot_be_prepared_on_arrival_stops_nothing(bench: WorkerBench) -> None:
    lost = bench.store(1, images=SLICES)
    lost.unlink()
    lost.mkdir()
    assert bench.work(after_s=0.01) == 1
    bench.store(2, images=SLICES)
    assert bench.work(after_s=0.01) == 1


def test_a_study_that_takes_long_keeps_its_lease(bench: WorkerBench) -> None:
    bench.store_study(SLICES)
    returned = []

    def take_time() -> bool:
        bench.clock.advance(LEASE_US / 1e6 / 2)
        returned.append(return_expired_analyses(bench.node_connection, bench.clock.now()))
        return True

    bench.pipeline = dataclasses.replace(bench.pipeline, keep_going=take_time)
    bench.work()
    assert returned == [0] * SLICES
    assert bench.analysis().state is AnalysisState.SUSPECTED


def test_an_image_that_comes_during_the_analysis_supersedes_it(bench: WorkerBench) -> None:
    bench.store_study(SLICES)
    late = iter([SLICES + 1])

    def store_late() -> bool:
        for number in late:
            bench.store(number, images=SLICES + 1)
        return True

    bench.pipeline = dataclasses.replace(bench.pipeline, keep_going=store_late)
    bench.work()
    assert bench.analysis(revision=1).state is AnalysisState.SUPERSEDED
    assert bench.analysis(revision=1).outcome is None
    bench.inbox.association_closed("a1", released=True)
    bench.pipeline.arrivals.reconsider()
    bench.work(after_s=5.0)
    assert bench.analysis(revision=2).state is AnalysisState.SUSPECTED


def test_a_worker_that_stops_hands_a_long_analysis_back_as_if_it_had_not_been_tried(
    bench: WorkerBench,
) -> None:
    bench.store_study(SLICES)
    answers = iter([True, True, False])
    bench.pipeline = dataclasses.replace(bench.pipeline, keep_going=lambda: next(answers))
    bench.clock.advance(1.0)
    while bench.study().analyses == ():
        run_stages(bench.pipeline)
    run_stages(bench.pipeline)
    assert bench.analysis().state is AnalysisState.QUEUED
    bench.start_worker(owner="w2")
    bench.work()
    assert bench.analysis().state is AnalysisState.SUSPECTED


def test_an_analysis_that_has_all_it_needs_is_finished_even_on_stop(bench: WorkerBench) -> None:
    bench.store_study(SLICES)
    bench.work(after_s=0.01)
    bench.pipeline = dataclasses.replace(bench.pipeline, keep_going=lambda: False)
    bench.work()
    assert bench.analysis().state is AnalysisState.SUSPECTED


class _WatchedClock(HandClock):
    """Does something of the test's at a chosen reading."""

    def __init__(self) -> None:
        super().__init__()
        self.readings = 0
        self.do: Callable[[int], None] = lambda _reading: None

    def now(self) -> Instant:
        self.readings += 1
        self.do(self.readings)
        return super().now()


def test_an_association_that_ends_during_a_unit_of_work_is_noticed(bench: WorkerBench) -> None:
    bench.store_study(3, promised=100)
    watched = _WatchedClock()
    watched.instant = bench.clock.instant
    watched.advance(0.5)
    stop = threading.Event()
    ticks = []

    def close(reading: int) -> None:
        if reading == 2:  # a slice is still to be prepared in this round
            bench.inbox.association_closed("a1", released=False)
            watched.advance(5.0)

    def tick() -> None:
        ticks.append(bench.study().state)
        if StudyState.COMPLETE in ticks or len(ticks) == 50:
            stop.set()

    watched.do = close
    run_pipeline(dataclasses.replace(bench.pipeline, clock=watched), stop, tick)
    assert ticks[-1] is StudyState.COMPLETE


def test_the_worker_wakes_for_a_commit_of_another_process_and_ends_on_stop(
    bench: WorkerBench,
) -> None:
    pipeline = dataclasses.replace(bench.pipeline, clock=SystemClock())
    bench.inbox._clock = SystemClock()
    stop = threading.Event()
    ticks: list[int] = []
    worker = threading.Thread(target=run_pipeline, args=(pipeline, stop, lambda: ticks.append(1)))
    worker.start()
    try:
        bench.store_study(SLICES)
        wait_until(
            lambda: bench.study().analyses and bench.analysis().state is AnalysisState.SUSPECTED
        )
    finally:
        stop.set()
        worker.join(10.0)
    assert not worker.is_alive()
    assert ticks


def test_a_study_with_too_many_images_is_refused(bench: WorkerBench) -> None:
    bench.use_rules(dataclasses.replace(bench.rules, max_instances=SLICES - 1))
    bench.store_study(SLICES)
    bench.work()
    assert bench.analysis().reason is ReasonCode.STUDY_TOO_LARGE
    assert bench.analysis().reason_detail == f"{SLICES} images, at most {SLICES - 1} allowed"


def _work(models: tuple[ActiveModel, ...]) -> Work:
    def load(_instance: object) -> None:
        raise AssertionError

    return Work(
        model=models[0],
        instances=(),
        load=load,  # type: ignore[arg-type]  # never called
        max_instances=1,
        max_pixel_bytes=1,
    )


def test_steps_that_end_without_a_result_are_a_fault_and_never_a_negative(
    models: tuple[ActiveModel, ...],
) -> None:
    assert isinstance(run_steps(_work(models), [check_size]), Broken)
    assert isinstance(run_steps(_work(models), []), Broken)


def test_a_study_without_images_is_refused(models: tuple[ActiveModel, ...]) -> None:
    result = run_steps(_work(models), ANALYSIS)
    assert isinstance(result, Refused)
    assert result.reason is ReasonCode.NO_IMAGES


def test_every_state_is_taken_or_committed_by_a_stage_or_a_delivery() -> None:
    states: set[Enum] = {*StudyState, *AnalysisState, DeliveryState.PENDING}
    committed: set[Enum] = set().union(*(stage.commits for stage in STAGES))
    taken: set[Enum] = {stage.takes for stage in STAGES}
    assert taken | committed == states
    assert taken <= committed


def test_packages_are_found_by_their_folder(tmp_path: Path) -> None:
    write_model_package(tmp_path / "a")
    (package,) = find_packages([tmp_path / "a"])
    assert package.manifest.name == "bright"


def test_a_package_that_is_nowhere_is_named_with_the_ones_that_are_shipped(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"models\.packages: .*nowhere is neither a folder"):
        find_packages([tmp_path / "nowhere"])


def test_two_packages_of_one_name_are_refused(tmp_path: Path) -> None:
    write_model_package(tmp_path / "a")
    write_model_package(tmp_path / "b")
    with pytest.raises(SettingsError, match="same name"):
        find_packages([tmp_path / "a", tmp_path / "b"])

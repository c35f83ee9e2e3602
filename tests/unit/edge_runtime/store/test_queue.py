from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable

import pytest
from simulators.hand_clock import HandClock
from simulators.scores import scored

from dicom_node.instance import StoredInstance
from edge_runtime.errors import LeaseLostError
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Mark
from edge_runtime.model.delivery import Channel, DeliveryEvent, DeliveryState
from edge_runtime.model.finding import Broken, Refused, Result
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.model.study import CompletionReason
from edge_runtime.store.alarms import standing_alarms
from edge_runtime.store.analyses import (
    NO_MODEL,
    ClaimedAnalysis,
    PlannedAnalysis,
    claim_analysis,
    complete_study,
    extend_lease,
    finish_analysis,
    release_analysis,
    return_all_analyses,
    return_expired_analyses,
)
from edge_runtime.store.deliveries import (
    DeliveryJob,
    bury_delivery,
    claim_delivery,
    confirm_delivery,
    record_delivery,
    resend_dead_deliveries,
    retry_delivery,
    return_leases,
    unvouched_deliveries,
)
from edge_runtime.store.inbox import SqliteInbox
from edge_runtime.store.studies import receiving_studies
from edge_runtime.store.worklist import StudyDetail, find_study, list_studies

Make = Callable[..., StoredInstance]
LEASE_US = 10_000_000
MODEL = PlannedAnalysis(model_name="m", model_version="1.0.0", urgency=3)
SUSPECTED = scored(0.9)
NOT_SUSPECTED = scored(0.1)


class Bench:
    """A device's database, and the steps that its processes take in order."""

    def __init__(
        self, connection: sqlite3.Connection, inbox: SqliteInbox, clock: HandClock, stored: Make
    ) -> None:
        self.connection, self.inbox, self.clock, self.stored = connection, inbox, clock, stored
        inbox.association_opened("a1", "CT01", "192.0.2.1")

    def receive(self, study: str = "1.2.3") -> None:
        self.inbox.record(self.stored(study))

    def complete(
        self, *models: PlannedAnalysis, channels: tuple[Channel, ...] = (), seen: int | None = None
    ) -> bool:
        (study,) = receiving_studies(self.connection)
        return complete_study(
            self.connection,
            study.study_id,
            instances_seen=study.instances if seen is None else seen,
            reason=CompletionReason.COUNTS,
            models=models,
            channels=channels,
            at=self.clock.now(),
        )

    def claim(self, owner: str = "w1") -> ClaimedAnalysis:
        claim = claim_analysis(self.connection, owner=owner, at=self.clock.now(), lease_us=LEASE_US)
        assert claim is not None
        return claim

    def finish(
        self,
        claim: ClaimedAnalysis,
        result: Result,
        *,
        owner: str = "w1",
        channels: tuple[Channel, ...] = (Channel.STRUCTURED_REPORT, Channel.TELEMETRY),
    ) -> AnalysisState:
        return finish_analysis(
            self.connection,
            claim,
            result,
            owner=owner,
            engine="onnxruntime",
            channels=channels,
            at=self.clock.now(),
        )

    def decide(self, result: Result, study: str = "1.2.3") -> None:
        self.receive(study)
        assert self.complete(MODEL)
        self.finish(self.claim(), result)

    def deliver(self, channel: Channel = Channel.STRUCTURED_REPORT) -> DeliveryJob:
        job = claim_delivery(
            self.connection, channel, owner="c1", at=self.clock.now(), lease_us=LEASE_US
        )
        assert job is not None
        return job

    def detail(self, study: str = "1.2.3") -> StudyDetail:
        detail = find_study(self.connection, study)
        assert detail is not None
        return detail


@pytest.fixture
def bench(
    connection: sqlite3.Connection, inbox: SqliteInbox, clock: HandClock, stored: Make
) -> Bench:
    return Bench(connection, inbox, clock, stored)


def test_a_complete_study_waits_once_for_each_model(bench: Bench) -> None:
    other = PlannedAnalysis(model_name="n", model_version="2.0.0", urgency=1)
    bench.receive()
    assert bench.complete(MODEL, other)
    assert {a.model_name for a in bench.detail().study.current} == {"m", "n"}


def test_without_any_model_the_study_still_waits_for_an_outcome(bench: Bench) -> None:
    bench.receive()
    bench.complete()
    claim = bench.claim()
    assert claim.model_name == NO_MODEL
    bench.finish(claim, Refused(reason=ReasonCode.NO_ACTIVE_MODEL))
    assert bench.detail().study.current[0].reason is ReasonCode.NO_ACTIVE_MODEL


def test_completion_yields_to_an_image_that_came_in_between(bench: Bench) -> None:
    bench.receive()
    bench.receive()
    assert not bench.complete(MODEL, seen=1)
    assert bench.detail().study.analyses == ()


def test_only_one_worker_gets_an_analysis(bench: Bench) -> None:
    bench.receive()
    bench.complete(MODEL)
    bench.claim()
    at = bench.clock.now()
    assert claim_analysis(bench.connection, owner="w2", at=at, lease_us=LEASE_US) is None


def test_a_claim_carries_every_instance_of_its_revision(bench: Bench) -> None:
    bench.receive()
    bench.receive()
    bench.complete(MODEL)
    assert len(bench.claim().instances) == 2


def test_an_outcome_raises_the_study_and_fills_the_outbox_at_once(bench: Bench) -> None:
    bench.decide(SUSPECTED)
    study = bench.detail().study
    assert study.raised == 3
    assert study.current[0].state is AnalysisState.SUSPECTED
    assert {d.channel for d in study.current[0].deliveries} == {
        Channel.STRUCTURED_REPORT,
        Channel.TELEMETRY,
    }
    assert {d.state for d in study.current[0].deliveries} == {DeliveryState.PENDING}


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (NOT_SUSPECTED, AnalysisState.NOT_SUSPECTED),
        (Refused(reason=ReasonCode.MISSING_SLICES, detail="1"), AnalysisState.NOT_ANALYSED),
        (Broken(reason=ReasonCode.ENGINE_FAILED), AnalysisState.FAILED),
    ],
)
def test_no_other_outcome_raises_a_study(
    bench: Bench, result: Result, state: AnalysisState
) -> None:
    bench.decide(result)
    study = bench.detail().study
    assert (study.raised, study.current[0].state) == (0, state)


def test_probability_at_the_threshold_is_suspected() -> None:
    assert scored(0.5, series_instance_uid="1").suspected


def test_an_expired_lease_returns_the_study(bench: Bench) -> None:
    bench.receive()
    bench.complete(MODEL)
    claim = bench.claim()
    bench.clock.advance(LEASE_US / 1e6 + 1)
    assert return_expired_analyses(bench.connection, bench.clock.now()) == 1
    again = bench.claim("w2")
    assert (again.analysis_id, again.attempts) == (claim.analysis_id, 2)
    with pytest.raises(LeaseLostError):
        bench.finish(claim, SUSPECTED)
    assert bench.finish(again, SUSPECTED, owner="w2") is AnalysisState.SUSPECTED


def test_a_lease_that_lives_is_not_returned(bench: Bench) -> None:
    bench.receive()
    bench.complete(MODEL)
    claim = bench.claim()
    bench.clock.advance(6)
    extend_lease(
        bench.connection, claim.analysis_id, owner="w1", at=bench.clock.now(), lease_us=LEASE_US
    )
    bench.clock.advance(6)
    assert return_expired_analyses(bench.connection, bench.clock.now()) == 0


def test_a_wall_clock_set_back_neither_ends_nor_prolongs_a_lease(bench: Bench) -> None:
    bench.receive()
    bench.complete(MODEL)
    bench.claim()
    bench.clock.set_back(86_400)
    assert return_expired_analyses(bench.connection, bench.clock.now()) == 0
    bench.clock.advance(LEASE_US / 1e6 + 1)
    assert return_expired_analyses(bench.connection, bench.clock.now()) == 1


def test_a_reboot_returns_every_lease(bench: Bench) -> None:
    bench.receive()
    bench.complete(MODEL)
    bench.claim()
    bench.clock.reboot()
    assert return_expired_analyses(bench.connection, bench.clock.now()) == 1


def test_released_work_counts_as_never_tried(bench: Bench) -> None:
    bench.receive()
    bench.complete(MODEL)
    claim = bench.claim()
    release_analysis(bench.connection, claim.analysis_id, owner="w1")
    assert bench.claim("w2").attempts == 1


def test_a_worker_that_starts_takes_back_what_its_predecessor_held(bench: Bench) -> None:
    bench.receive()
    bench.complete(MODEL)
    bench.claim()
    assert return_all_analyses(bench.connection) == 1
    assert bench.claim("w2").attempts == 2


def test_work_that_a_late_image_withdrew_cannot_be_finished(bench: Bench) -> None:
    bench.receive()
    bench.complete(MODEL)
    claim = bench.claim()
    bench.receive()
    with pytest.raises(LeaseLostError):
        bench.finish(claim, SUSPECTED)
    with pytest.raises(LeaseLostError):
        extend_lease(
            bench.connection, claim.analysis_id, owner="w1", at=bench.clock.now(), lease_us=1
        )


def test_an_earlier_outcome_stands_until_the_next_revision_is_decided(bench: Bench) -> None:
    bench.decide(SUSPECTED)
    bench.receive()
    assert bench.detail().study.analyses[0].state is AnalysisState.SUSPECTED
    bench.complete(MODEL)
    bench.finish(bench.claim(), NOT_SUSPECTED)
    first, second = sorted(bench.detail().study.analyses, key=lambda a: a.revision)
    assert (first.state, first.outcome) == (AnalysisState.SUPERSEDED, AnalysisState.SUSPECTED)
    assert second.state is AnalysisState.NOT_SUSPECTED
    assert bench.detail().study.raised == 3  # nothing lowers a priority


def test_the_worklist_puts_raised_studies_first_then_the_longest_waiting(bench: Bench) -> None:
    for study, result in (("1.1", NOT_SUSPECTED), ("1.2", SUSPECTED), ("1.3", SUSPECTED)):
        bench.decide(result, study)
        bench.clock.advance(60)
    uids = [study.study_instance_uid for study in list_studies(bench.connection, limit=10)]
    assert uids == ["1.2", "1.3", "1.1"]


def test_urgent_work_goes_first_but_nothing_starves(bench: Bench) -> None:
    routine = PlannedAnalysis(model_name="routine", model_version="1.0.0", urgency=1)
    bench.receive("1.1")
    bench.complete(routine)
    bench.clock.advance(60)
    bench.receive("1.2")
    bench.complete(MODEL)
    bench.clock.advance(3_600)
    bench.receive("1.3")
    bench.complete(MODEL)
    assert [bench.claim().model_name for _ in range(3)] == ["m", "routine", "m"]


def test_a_delivery_is_stamped_when_sent_and_when_confirmed(bench: Bench) -> None:
    bench.decide(SUSPECTED)
    job = bench.deliver(Channel.TELEMETRY)
    record_delivery(
        bench.connection,
        job.delivery_id,
        (DeliveryEvent.ACCEPTED,),
        owner="c1",
        at=bench.clock.now(),
    )
    assert unvouched_deliveries(bench.connection, Channel.TELEMETRY) == (job.delivery_id,)
    bench.clock.advance(3)
    assert confirm_delivery(bench.connection, job.delivery_id, bench.clock.now())
    assert not confirm_delivery(bench.connection, job.delivery_id, bench.clock.now())
    marks = {s.mark: s.at.mono_us for s in bench.detail().stamps if s.subject == "telemetry:m"}
    assert marks[Mark.CONFIRMED] - marks[Mark.SENT] == 3_000_000


def test_a_postponed_delivery_is_not_due_before_its_time(bench: Bench) -> None:
    bench.decide(SUSPECTED)
    job = bench.deliver()
    at = bench.clock.now()
    due = dataclasses.replace(at, mono_us=at.mono_us + 5_000_000)
    retry_delivery(bench.connection, job.delivery_id, owner="c1", error_code="PEER", due=due)
    at = bench.clock.now()
    assert (
        claim_delivery(
            bench.connection, Channel.STRUCTURED_REPORT, owner="c1", at=at, lease_us=LEASE_US
        )
        is None
    )
    bench.clock.advance(6)
    assert bench.deliver().attempts == 2


def test_a_wall_clock_set_back_does_not_hold_up_a_delivery(bench: Bench) -> None:
    bench.decide(SUSPECTED)
    bench.clock.set_back(86_400)
    assert bench.deliver().attempts == 1


def test_a_reboot_makes_postponed_deliveries_due(bench: Bench) -> None:
    bench.decide(SUSPECTED)
    job = bench.deliver()
    at = bench.clock.now()
    due = dataclasses.replace(at, mono_us=at.mono_us + 3_600_000_000)
    retry_delivery(bench.connection, job.delivery_id, owner="c1", error_code="PEER", due=due)
    bench.clock.reboot()
    assert bench.deliver().attempts == 2


def test_a_dead_delivery_raises_an_alarm_until_it_is_sent_again(bench: Bench) -> None:
    bench.decide(SUSPECTED)
    job = bench.deliver()
    bury_delivery(
        bench.connection, job.delivery_id, owner="c1", error_code="NO", at=bench.clock.now()
    )
    assert len(standing_alarms(bench.connection)) == 1
    assert (
        resend_dead_deliveries(bench.connection, Channel.STRUCTURED_REPORT, bench.clock.now()) == 1
    )
    assert standing_alarms(bench.connection) == ()
    assert bench.deliver().attempts == 1


def test_a_second_courier_cannot_settle_what_the_first_one_holds(bench: Bench) -> None:
    bench.decide(SUSPECTED)
    job = bench.deliver()
    with pytest.raises(LeaseLostError):
        record_delivery(
            bench.connection,
            job.delivery_id,
            (DeliveryEvent.ACCEPTED,),
            owner="c2",
            at=bench.clock.now(),
        )
    assert return_leases(bench.connection) == 1
    assert bench.deliver().attempts == 2


def test_suspected_studies_are_delivered_first(bench: Bench) -> None:
    bench.decide(NOT_SUSPECTED, "1.1")
    bench.decide(SUSPECTED, "1.2")
    assert bench.deliver().study_instance_uid == "1.2"


def test_forwarding_starts_before_the_decision(bench: Bench) -> None:
    bench.receive()
    bench.complete(MODEL, channels=(Channel.FORWARD,))
    job = bench.deliver(Channel.FORWARD)
    assert job.analysis is None
    assert len(job.instances) == 1


def test_no_identity_is_in_the_text_form_of_a_job(bench: Bench) -> None:
    bench.decide(SUSPECTED)
    text = repr(bench.deliver()) + repr(bench.detail())
    assert "DOE" not in text
    assert "1.2.3" not in text

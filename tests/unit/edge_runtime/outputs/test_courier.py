"""The courier on a real outbox; the channel answers as a test wrote it down."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock
from simulators.scores import scored
from simulators.scripted_sink import ScriptedSink
from simulators.waiting import wait_until

from dicom_node.instance import InstanceHeader, StoredInstance, StudyIdentity
from edge_runtime.clock import SystemClock
from edge_runtime.errors import DeliveryError
from edge_runtime.model.clock import Mark
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.model.study import CompletionReason
from edge_runtime.outputs.contract import Receipt
from edge_runtime.outputs.courier import ChannelCourier, run_channels
from edge_runtime.outputs.retry import RetryRule
from edge_runtime.store.alarms import AlarmCode, standing_alarms
from edge_runtime.store.analyses import (
    PlannedAnalysis,
    claim_analysis,
    complete_study,
    finish_analysis,
)
from edge_runtime.store.database import connect
from edge_runtime.store.deliveries import claim_delivery, resend_dead_deliveries, return_leases
from edge_runtime.store.inbox import SqliteInbox
from edge_runtime.store.studies import receiving_studies
from edge_runtime.store.worklist import DeliveryView, find_study

REPORT = Channel.STRUCTURED_REPORT
RULE = RetryRule(first_delay_s=1.0, max_delay_s=4.0, max_attempts=5)
LEASE_US = 60_000_000
BUSY = DeliveryError("the peer is busy", code="BUSY")
REFUSED = DeliveryError("the peer refuses", code="REFUSED", permanent=True)


class Outbox:
    """A device's database with decided studies."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.clock = HandClock()
        self.connection = connect(database)
        self._inbox = SqliteInbox(self.connection, self.clock, reopens=lambda _header: True)

    def decide(self, study: str = "1.2.3", *channels: Channel, probability: float = 0.9) -> None:
        """Store, complete and decide a study whose result goes to ``channels``."""
        header = InstanceHeader(
            study_instance_uid=study,
            series_instance_uid=f"{study}.1",
            sop_instance_uid=f"{study}.1.1",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
        )
        self._inbox.record(
            StoredInstance(
                header=header,
                identity=StudyIdentity(),
                path=f"{study}.dcm",
                file_bytes=1,
                calling_ae_title="CT01",
                association_id="",
            )
        )
        at = self.clock.now()
        for progress in receiving_studies(self.connection):
            complete_study(
                self.connection,
                progress.study_id,
                instances_seen=1,
                reason=CompletionReason.QUIET,
                models=(PlannedAnalysis(model_name="m", model_version="1.0.0", urgency=3),),
                channels=(),
                at=at,
            )
        claim = claim_analysis(self.connection, owner="w", at=at, lease_us=LEASE_US)
        assert claim is not None
        result = scored(probability, series_instance_uid=f"{study}.1")
        finish_analysis(
            self.connection,
            claim,
            result,
            owner="w",
            engine="e",
            channels=channels or (REPORT,),
            at=at,
        )

    def courier(self, sink: ScriptedSink, *, owner: str = "c1") -> ChannelCourier:
        return ChannelCourier(
            sink,
            database=self.database,
            clock=self.clock,
            rule=RULE,
            lease_us=LEASE_US,
            owner=owner,
        )

    def deliver(self, sink: ScriptedSink, *, owner: str = "c1") -> int:
        """Let a courier deliver all that is due now; return how many attempts it made."""
        courier = self.courier(sink, owner=owner)
        with contextlib.closing(connect(self.database)) as connection:
            courier._connection = connection
            attempts = 0
            while courier.deliver_one():
                attempts += 1
            return attempts

    def delivery(self, study: str = "1.2.3") -> DeliveryView:
        detail = find_study(self.connection, study)
        assert detail is not None
        return detail.study.analyses[0].deliveries[0]

    def marks(self, study: str = "1.2.3") -> set[Mark]:
        detail = find_study(self.connection, study)
        assert detail is not None
        return {stamp.mark for stamp in detail.stamps if stamp.subject == f"{REPORT.value}:m"}


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "triage.db")
    yield made
    made.connection.close()


@pytest.mark.parametrize(
    ("receipt", "state", "marks"),
    [
        (Receipt.SENT, DeliveryState.SENT, {Mark.SENT}),
        (Receipt.CONFIRMED, DeliveryState.CONFIRMED, {Mark.SENT, Mark.CONFIRMED}),
    ],
)
def test_a_receipt_moves_the_delivery_and_stamps_it(
    outbox: Outbox, receipt: Receipt, state: DeliveryState, marks: set[Mark]
) -> None:
    outbox.decide()
    sink = ScriptedSink(receipt)
    assert outbox.deliver(sink) == 1
    assert (outbox.delivery().state, outbox.delivery().attempts) == (state, 1)
    assert outbox.marks() == marks
    assert outbox.deliver(sink) == 0
    assert len(sink.jobs) == 1


def test_a_failed_delivery_is_tried_again_after_its_back_off_and_not_before(outbox: Outbox) -> None:
    outbox.decide()
    sink = ScriptedSink(BUSY, BUSY, BUSY, Receipt.CONFIRMED)
    for longest_s in (1.0, 2.0, 4.0):
        assert outbox.deliver(sink) == 1
        assert outbox.delivery().state is DeliveryState.PENDING
        assert outbox.delivery().error_code == "BUSY"
        outbox.clock.advance(longest_s / 2 - 0.01)
        assert outbox.deliver(sink) == 0
        outbox.clock.advance(longest_s / 2 + 0.01)
    assert outbox.deliver(sink) == 1
    assert outbox.delivery().state is DeliveryState.CONFIRMED
    assert outbox.delivery().error_code is None
    assert [job.attempts for job in sink.jobs] == [1, 2, 3, 4]


def test_each_try_carries_the_same_job(outbox: Outbox) -> None:
    outbox.decide()
    sink = ScriptedSink(BUSY, Receipt.SENT)
    outbox.deliver(sink)
    outbox.clock.advance(10.0)
    outbox.deliver(sink)
    first, second = sink.jobs
    assert first.delivery_id == second.delivery_id
    assert first.analysis == second.analysis


def _dead_codes(outbox: Outbox) -> list[AlarmCode]:
    return [alarm.code for alarm in standing_alarms(outbox.connection)]


def test_a_delivery_that_fails_too_often_is_dead_and_an_alarm_stands(outbox: Outbox) -> None:
    outbox.decide()
    sink = ScriptedSink(BUSY)
    for _ in range(RULE.max_attempts):
        assert outbox.deliver(sink) == 1
        outbox.clock.advance(10.0)
    assert outbox.deliver(sink) == 0
    assert outbox.delivery().state is DeliveryState.DEAD
    assert outbox.delivery().error_code == "BUSY"
    assert _dead_codes(outbox) == [AlarmCode.DELIVERY_DEAD]


def test_a_permanent_refusal_is_dead_at_once(outbox: Outbox) -> None:
    outbox.decide()
    assert outbox.deliver(ScriptedSink(REFUSED)) == 1
    assert outbox.delivery().state is DeliveryState.DEAD
    assert outbox.delivery().error_code == "REFUSED"


def test_a_dead_delivery_that_is_sent_again_takes_its_alarm_with_it(outbox: Outbox) -> None:
    outbox.decide()
    outbox.deliver(ScriptedSink(REFUSED))
    resend_dead_deliveries(outbox.connection, REPORT, outbox.clock.now())
    outbox.deliver(ScriptedSink(Receipt.SENT))
    assert outbox.delivery().state is DeliveryState.SENT
    assert _dead_codes(outbox) == []


def test_an_error_that_nobody_foresaw_is_a_failed_try_and_stops_no_other_delivery(
    outbox: Outbox,
) -> None:
    outbox.decide("1.2.3")
    outbox.decide("1.2.4")
    sink = ScriptedSink(ValueError("CANARY"), Receipt.SENT)
    assert outbox.deliver(sink) == 2
    states = {outbox.delivery(study).state for study in ("1.2.3", "1.2.4")}
    assert states == {DeliveryState.PENDING, DeliveryState.SENT}
    outbox.clock.advance(10.0)
    assert outbox.deliver(sink) == 1
    assert {job.study_instance_uid for job in sink.jobs} == {"1.2.3", "1.2.4"}


def test_the_suspected_go_first(outbox: Outbox) -> None:
    outbox.decide("1.2.3", probability=0.1)
    outbox.clock.advance(1.0)
    outbox.decide("1.2.4", probability=0.9)
    sink = ScriptedSink(Receipt.SENT)
    outbox.deliver(sink)
    assert [job.study_instance_uid for job in sink.jobs] == ["1.2.4", "1.2.3"]


def test_a_channel_takes_only_its_own_jobs(outbox: Outbox) -> None:
    outbox.decide("1.2.3", Channel.TELEMETRY)
    assert outbox.deliver(ScriptedSink(Receipt.SENT, channel=REPORT)) == 0
    assert outbox.deliver(ScriptedSink(Receipt.SENT, channel=Channel.TELEMETRY)) == 1


def test_a_delivery_whose_courier_died_is_delivered_again(outbox: Outbox) -> None:
    outbox.decide()
    at = outbox.clock.now()
    claim_delivery(outbox.connection, REPORT, owner="dead", at=at, lease_us=LEASE_US)
    assert outbox.deliver(ScriptedSink(Receipt.SENT), owner="c2") == 0
    assert return_leases(outbox.connection) == 1
    assert outbox.deliver(ScriptedSink(Receipt.SENT), owner="c2") == 1


def test_a_lease_that_was_lost_meanwhile_changes_nothing(outbox: Outbox) -> None:
    outbox.decide()

    def take_over(_job: object) -> None:
        outbox.clock.advance(LEASE_US / 1e6 + 1)
        at = outbox.clock.now()
        claim_delivery(outbox.connection, REPORT, owner="other", at=at, lease_us=LEASE_US)

    for answer in (Receipt.CONFIRMED, REFUSED, BUSY):
        outbox.deliver(ScriptedSink(answer, during=take_over))
        assert outbox.delivery().state is DeliveryState.PENDING
        assert outbox.delivery().error_code is None
        return_leases(outbox.connection)


def _thread(courier: ChannelCourier, stop: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=courier.run, args=(stop,))
    thread.start()
    return thread


def test_stop_finishes_the_delivery_in_hand_and_takes_no_other(outbox: Outbox) -> None:
    outbox.decide("1.2.3")
    outbox.decide("1.2.4")
    stop = threading.Event()
    sink = ScriptedSink(Receipt.SENT, during=lambda _job: stop.set())
    thread = _thread(outbox.courier(sink), stop)
    thread.join(30.0)
    assert not thread.is_alive()
    assert len(sink.jobs) == 1
    states = [outbox.delivery(study).state for study in ("1.2.3", "1.2.4")]
    assert sorted(states) == [DeliveryState.PENDING, DeliveryState.SENT]


def test_a_courier_waits_for_work_and_takes_it_up_when_it_comes(outbox: Outbox) -> None:
    stop = threading.Event()
    sink = ScriptedSink(Receipt.SENT)
    thread = _thread(outbox.courier(sink), stop)
    try:
        outbox.decide()
        wait_until(lambda: outbox.delivery().state is DeliveryState.SENT)
    finally:
        stop.set()
        thread.join(30.0)
    assert not thread.is_alive()


def test_a_channel_whose_peer_does_not_answer_holds_up_no_other(outbox: Outbox) -> None:
    outbox.decide("1.2.3", REPORT, Channel.TELEMETRY)
    stop, answered = threading.Event(), threading.Event()
    stuck = ScriptedSink(Receipt.SENT, during=lambda _job: answered.wait(30.0))
    quick = ScriptedSink(Receipt.SENT, channel=Channel.TELEMETRY)
    couriers = {"report": outbox.courier(stuck), "telemetry": outbox.courier(quick)}
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if quick.jobs and stuck.jobs:
            stop.set()
            answered.set()

    run_channels(couriers, stop, tick)
    assert ticks
    assert (len(stuck.jobs), len(quick.jobs)) == (1, 1)
    assert outbox.delivery().state is DeliveryState.SENT


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_ends_all_so_that_the_process_is_started_again(
    outbox: Outbox, tmp_path: Path
) -> None:
    stop = threading.Event()
    broken = ChannelCourier(
        ScriptedSink(Receipt.SENT),
        database=tmp_path / "no-folder" / "triage.db",
        clock=SystemClock(),
        rule=RULE,
        lease_us=LEASE_US,
        owner="c1",
    )
    good = outbox.courier(ScriptedSink(Receipt.SENT, channel=Channel.TELEMETRY))
    run_channels({"broken": broken, "good": good}, stop, lambda: None)
    assert stop.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("courier-")]


def test_without_channels_the_courier_lives_and_beats(outbox: Outbox) -> None:
    stop = threading.Event()
    run_channels({}, stop, stop.set)
    assert outbox.connection.execute("SELECT count(*) FROM delivery").fetchone()[0] == 0

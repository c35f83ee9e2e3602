"""Procedure steps on their way upstream: order, repetition, an upstream that is down."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import encode
from simulators.hand_clock import HandClock
from simulators.listening_scanner import change, creation
from simulators.upstream_ris import UpstreamRis

from dicom_node.mpps import Noted, StepMessage, StepOperation, StepStatus
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from edge_runtime.model.errand import ErrandKind
from edge_runtime.outputs.errands import ErrandCourier
from edge_runtime.outputs.forgetting import Forgetting
from edge_runtime.outputs.mpps_relay import MppsRelay
from edge_runtime.outputs.retry import RetryRule
from edge_runtime.store.alarms import AlarmCode, standing_alarms
from edge_runtime.store.database import connect
from edge_runtime.store.errands import claim_errand, resend_dead_errands
from edge_runtime.store.procedure_steps import SqliteProcedureSteps

TIMEOUTS = RequestorTimeouts(connect_s=2.0, association_s=5.0, answer_s=5.0)


class Device:
    """What a node and a courier do, step by step, on one database."""

    def __init__(self, folder: Path, port: int) -> None:
        self.clock = HandClock()
        self.node = connect(folder / "triage.db")
        self.courier_connection = connect(folder / "triage.db")
        self.book = SqliteProcedureSteps(self.node, self.clock, relays=True, max_steps=100)
        self.relay = MppsRelay(
            PeerAddress(ae_title="RIS", host="127.0.0.1", port=port),
            calling_ae_title="NODE",
            timeouts=TIMEOUTS,
        )
        self.courier = ErrandCourier(
            self.relay,
            database=folder / "triage.db",
            clock=self.clock,
            rule=RetryRule(first_delay_s=1, max_delay_s=10, max_attempts=3),
            lease_us=60_000_000,
            owner="courier",
        )

    def close(self) -> None:
        self.node.close()
        self.courier_connection.close()

    def create(self, uid: str = "1.40") -> bytes:
        return self._note(StepOperation.CREATE, uid, creation(), StepStatus.IN_PROGRESS)

    def set(self, status: StepStatus | None, uid: str = "1.40") -> bytes:
        step = change(status.value if status else "IN PROGRESS", {"1.5": ["1.5.1"]})
        return self._note(StepOperation.SET, uid, step, status)

    def _note(
        self, operation: StepOperation, uid: str, step: Dataset, status: StepStatus | None
    ) -> bytes:
        data = encode(step, is_implicit_vr=False, is_little_endian=True)
        assert data is not None
        noted = self.book.note(
            StepMessage(
                operation=operation,
                sop_instance_uid=uid,
                status=status,
                study_instance_uids=("1.2.3",) if operation is StepOperation.CREATE else (),
                references=(),
                transfer_syntax_uid=ExplicitVRLittleEndian,
                data_set=data,
            )
        )
        assert noted is Noted.NOTED
        return data

    def run_errands(self) -> int:
        count = 0
        while self.courier.perform_one(self.courier_connection):
            count += 1
        return count

    def errands(self) -> list[tuple[str, str | None]]:
        rows: list[sqlite3.Row] = self.node.execute("SELECT * FROM errand ORDER BY id").fetchall()
        return [(row["state"], row["error_code"]) for row in rows]


@pytest.fixture
def ris() -> Iterator[UpstreamRis]:
    with UpstreamRis() as upstream:
        yield upstream


@pytest.fixture
def device(tmp_path: Path, ris: UpstreamRis) -> Iterator[Device]:
    made = Device(tmp_path, ris.port)
    yield made
    made.close()


def test_messages_arrive_in_order_and_byte_for_byte(device: Device, ris: UpstreamRis) -> None:
    sent = [device.create(), device.set(None), device.set(StepStatus.COMPLETED)]
    assert device.run_errands() == 3
    assert [item.operation for item in ris.messages] == ["N-CREATE", "N-SET", "N-SET"]
    assert [item.data_set for item in ris.messages] == sent
    assert {state for state, _ in device.errands()} == {"DONE"}


def test_an_upstream_that_is_down_gets_everything_in_order_when_it_is_back(
    device: Device, ris: UpstreamRis
) -> None:
    ris.go_deaf()
    device.create("1.40")
    device.create("1.41")
    device.set(StepStatus.COMPLETED, "1.40")
    device.run_errands()
    assert ris.messages == []
    ris.listen()
    device.clock.advance(2)
    device.run_errands()
    assert ris.taken == [("N-CREATE", "1.40"), ("N-CREATE", "1.41"), ("N-SET", "1.40")]


def test_an_upstream_that_is_overloaded_is_asked_again_before_the_next_message(
    device: Device, ris: UpstreamRis
) -> None:
    device.create()
    device.set(StepStatus.COMPLETED)
    ris.statuses = [0x0213]
    device.run_errands()
    assert len(ris.messages) == 1
    device.clock.advance(1)
    device.run_errands()
    assert ris.taken == [("N-CREATE", "1.40"), ("N-SET", "1.40")]


def test_a_courier_that_dies_after_sending_is_followed_by_one_that_goes_on(
    device: Device, ris: UpstreamRis
) -> None:
    device.create()
    device.set(StepStatus.COMPLETED)
    for _ in range(2):
        job = claim_errand(
            device.node,
            ErrandKind.MPPS_RELAY,
            owner="dead",
            at=device.clock.now(),
            lease_us=60_000_000,
        )
        assert job is not None
        device.relay.perform(device.node, job, device.clock.now())
        assert device.run_errands() == 0
        device.clock.advance(61)
        assert device.courier.perform_one(device.courier_connection)
    assert [item.status for item in ris.messages] == [0x0000, 0x0111, 0x0000, 0x0110]
    assert {state for state, _ in device.errands()} == {"DONE"}


def test_a_step_that_ended_upstream_before_our_first_try_is_an_error(
    device: Device, ris: UpstreamRis
) -> None:
    device.create()
    device.run_errands()
    ris.statuses = [0x0110]
    device.set(StepStatus.COMPLETED)
    device.run_errands()
    assert device.errands()[1] == ("PENDING", "REQUEST_REFUSED_RESOURCES")


def test_a_message_that_is_refused_for_good_holds_back_its_step_only(
    device: Device, ris: UpstreamRis
) -> None:
    ris.statuses = [0x0106]
    device.create("1.40")
    device.set(StepStatus.COMPLETED, "1.40")
    device.create("1.41")
    device.run_errands()
    assert ris.taken == [("N-CREATE", "1.41")]
    assert device.errands()[0] == ("DEAD", "REQUEST_REFUSED")
    (alarm,) = standing_alarms(device.node)
    assert alarm.code is AlarmCode.MPPS_RELAY_DEAD
    resend_dead_errands(device.node, ErrandKind.MPPS_RELAY, device.clock.now())
    device.run_errands()
    assert ris.taken[1:] == [("N-CREATE", "1.40"), ("N-SET", "1.40")]
    assert standing_alarms(device.node) == ()


def test_identities_leave_the_device_when_upstream_has_them(
    device: Device, ris: UpstreamRis
) -> None:
    device.create()
    device.run_errands()
    assert len(ris.messages) == 1
    kept = device.node.execute("SELECT count(*) FROM procedure_step_message").fetchone()[0]
    assert kept == 0


def test_steps_without_a_study_are_forgotten_in_time(device: Device, ris: UpstreamRis) -> None:
    device.create()
    device.run_errands()
    assert ris.taken
    forgetting = Forgetting(device.node, device.clock, steps_kept_us=3_600_000_000)
    for seconds, left in ((0, 1), (3_000, 1), (601, 0)):
        device.clock.advance(seconds)
        forgetting.tick()
        count = device.node.execute("SELECT count(*) FROM procedure_step").fetchone()[0]
        assert count == left

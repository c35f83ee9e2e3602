"""From a booked request to a report at a scanner that listens, with a real database and files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock
from simulators.listening_scanner import CT, ListeningScanner

from dicom_node.commitment import CommitmentRequest, FailureReason, Reference
from dicom_node.instance import InstanceHeader, StoredInstance, StudyIdentity
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from edge_runtime.model.errand import ErrandKind
from edge_runtime.outputs.commitment_report import CommitmentReporter, judge
from edge_runtime.outputs.errands import ErrandCourier
from edge_runtime.outputs.retry import RetryRule
from edge_runtime.store.alarms import AlarmCode, standing_alarms
from edge_runtime.store.commitments import HeldInstance, SqliteCommitments
from edge_runtime.store.database import connect
from edge_runtime.store.errands import claim_errand
from edge_runtime.store.inbox import SqliteInbox

HOLD_US = 3_600_000_000
PATIENCE_S = 30
TIMEOUTS = RequestorTimeouts(connect_s=2.0, association_s=5.0, answer_s=5.0)
MR = "1.2.840.10008.5.1.4.1.1.4"


class Device:
    """What a node and a courier do, step by step, on one database."""

    def __init__(self, folder: Path, port: int) -> None:
        self.clock = HandClock()
        self.database = folder / "triage.db"
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.node = connect(self.database)
        self.courier_connection = connect(self.database)
        self.inbox = SqliteInbox(self.node, self.clock, reopens=lambda _header: True)
        self.inbox.association_opened("a1", "SCANNER", "127.0.0.1")
        self.book = SqliteCommitments(
            self.node, self.clock, patience_us=PATIENCE_S * 1_000_000, max_open=100
        )
        self.reporter = CommitmentReporter(
            lambda ae, address: PeerAddress(ae_title=ae, host=address, port=port),
            calling_ae_title="NODE",
            spool_dir=self.spool,
            hold_us=HOLD_US,
            timeouts=TIMEOUTS,
        )
        self.courier = ErrandCourier(
            self.reporter,
            database=self.database,
            clock=self.clock,
            rule=RetryRule(first_delay_s=1, max_delay_s=10, max_attempts=3),
            lease_us=60_000_000,
            owner="courier",
        )

    def close(self) -> None:
        self.node.close()
        self.courier_connection.close()

    def store(self, sop: str, *, study: str = "1.2.3", sop_class: str = CT) -> Path:
        path = self.spool / f"{sop}.dcm"
        path.write_bytes(b"12345")
        header = InstanceHeader(
            study_instance_uid=study,
            series_instance_uid=f"{study}.1",
            sop_instance_uid=sop,
            sop_class_uid=sop_class,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
        )
        self.inbox.record(
            StoredInstance(
                header=header,
                identity=StudyIdentity(),
                path=path.name,
                file_bytes=5,
                calling_ae_title="SCANNER",
                association_id="a1",
            )
        )
        return path

    def ask(self, *sops: str, transaction: str = "1.9", address: str = "127.0.0.1") -> None:
        self.book.book(
            CommitmentRequest(
                transaction_uid=transaction,
                references=tuple(Reference(CT, sop) for sop in sops),
                ae_title="SCANNER",
                address=address,
            )
        )

    def run_errands(self) -> int:
        count = 0
        while self.courier.perform_one(self.courier_connection):
            count += 1
        return count

    def errand(self) -> sqlite3.Row:
        row: sqlite3.Row = self.node.execute("SELECT * FROM errand").fetchone()
        return row

    def owes_nothing(self) -> bool:
        return self.node.execute("SELECT 1 FROM errand").fetchone() is None


@pytest.fixture
def scanner() -> Iterator[ListeningScanner]:
    with ListeningScanner() as listening:
        yield listening


@pytest.fixture
def device(tmp_path: Path, scanner: ListeningScanner) -> Iterator[Device]:
    made = Device(tmp_path, scanner.port)
    yield made
    made.close()


def test_what_is_held_is_committed_and_held_for_a_while(
    device: Device, scanner: ListeningScanner
) -> None:
    device.store("1.5")
    device.store("1.6")
    device.ask("1.5", "1.6")
    assert device.run_errands() == 1
    (report,) = scanner.reports
    assert (report.event_type, report.transaction_uid) == (1, "1.9")
    assert report.committed == ((CT, "1.5"), (CT, "1.6"))
    assert device.owes_nothing()
    held = device.node.execute("SELECT held_until_wall_us FROM study").fetchone()[0]
    assert held == device.clock.now().wall_us + HOLD_US
    assert device.run_errands() == 0


def test_each_failure_has_its_reason(device: Device, scanner: ListeningScanner) -> None:
    device.store("1.5")
    device.store("1.6", sop_class=MR)
    device.store("1.7").unlink()
    device.store("1.8").write_bytes(b"1234")
    device.ask("1.5", "1.6", "1.7", "1.8", "1.9")
    device.clock.advance(PATIENCE_S)
    device.run_errands()
    (report,) = scanner.reports
    assert report.event_type == 2
    assert report.committed == ((CT, "1.5"),)
    assert {uid: reason for (_, uid), reason in report.failed} == {
        "1.6": FailureReason.CLASS_INSTANCE_CONFLICT,
        "1.7": FailureReason.PROCESSING_FAILURE,
        "1.8": FailureReason.PROCESSING_FAILURE,
        "1.9": FailureReason.NO_SUCH_OBJECT_INSTANCE,
    }


def test_only_studies_with_committed_instances_are_held(device: Device) -> None:
    device.store("1.5", study="1.2.3")
    device.store("1.6", study="1.2.4", sop_class=MR)
    device.store("1.7", study="1.2.5")
    device.ask("1.5", "1.6")
    device.run_errands()
    rows = device.node.execute("SELECT held_until_wall_us > 0 AS held FROM study ORDER BY id")
    assert [row["held"] for row in rows] == [1, 0, 0]


def test_an_image_that_is_still_on_its_way_is_waited_for(
    device: Device, scanner: ListeningScanner
) -> None:
    device.store("1.5")
    device.ask("1.5", "1.6")
    assert device.run_errands() == 1
    assert scanner.reports == []
    device.store("1.6")
    device.clock.advance(1)
    device.run_errands()
    assert scanner.reports[0].event_type == 1


def test_patience_ends_also_by_a_reboot(device: Device, scanner: ListeningScanner) -> None:
    device.ask("1.6")
    device.run_errands()
    device.clock.reboot()
    device.run_errands()
    assert scanner.reports[0].failed == (((CT, "1.6"), 0x0112),)


def test_a_scanner_that_is_off_gets_its_report_when_it_is_back(
    device: Device, scanner: ListeningScanner
) -> None:
    device.store("1.5")
    device.ask("1.5")
    scanner.go_deaf()
    device.run_errands()
    assert device.errand()["error_code"] == "PEER_UNREACHABLE"
    device.run_errands()
    assert device.errand()["attempts"] == 1
    scanner.listen()
    device.clock.advance(1)
    device.run_errands()
    assert scanner.reports[0].event_type == 1


def test_a_verdict_does_not_change_between_two_tries(
    device: Device, scanner: ListeningScanner
) -> None:
    path = device.store("1.5")
    device.ask("1.5")
    scanner.go_deaf()
    device.run_errands()
    path.unlink()
    scanner.listen()
    device.clock.advance(1)
    device.run_errands()
    assert scanner.reports[0].event_type == 1


def test_a_courier_that_dies_after_sending_is_followed_by_one_that_sends_the_same(
    device: Device, scanner: ListeningScanner
) -> None:
    device.store("1.5")
    device.ask("1.5")
    job = claim_errand(
        device.node,
        ErrandKind.COMMITMENT_REPORT,
        owner="dead",
        at=device.clock.now(),
        lease_us=60_000_000,
    )
    assert job is not None
    device.reporter.perform(device.node, job, device.clock.now())
    assert device.run_errands() == 0
    device.clock.advance(61)
    device.run_errands()
    first, second = scanner.reports
    assert first == second
    assert device.owes_nothing()


def test_a_scanner_that_never_answers_ends_in_an_alarm(
    device: Device, scanner: ListeningScanner
) -> None:
    device.ask("1.5")
    device.clock.advance(PATIENCE_S)
    scanner.go_deaf()
    for _ in range(3):
        device.run_errands()
        device.clock.advance(10)
    assert device.errand()["state"] == "DEAD"
    (alarm,) = standing_alarms(device.node)
    assert alarm.code is AlarmCode.COMMITMENT_DEAD


def test_a_scanner_that_refuses_the_report_for_good_is_not_asked_again(
    device: Device, scanner: ListeningScanner
) -> None:
    device.store("1.5")
    device.ask("1.5")
    scanner.statuses = [0x0110, 0x0112]
    device.run_errands()
    assert device.errand()["error_code"] == "REQUEST_REFUSED_RESOURCES"
    device.clock.advance(1)
    device.run_errands()
    assert (device.errand()["state"], device.errand()["error_code"]) == ("DEAD", "REQUEST_REFUSED")


def test_a_repeated_request_is_reported_again(device: Device, scanner: ListeningScanner) -> None:
    device.ask("1.5")
    device.clock.advance(PATIENCE_S)
    device.run_errands()
    device.store("1.5")
    device.ask("1.5")
    device.run_errands()
    assert [report.event_type for report in scanner.reports] == [2, 1]


def test_5000_instances_are_reported(device: Device, scanner: ListeningScanner) -> None:
    sops = [f"1.2.840.113619.2.55.3.{number}" for number in range(5_000)]
    for sop in sops[:3]:
        device.store(sop)
    device.ask(*sops)
    device.clock.advance(PATIENCE_S)
    device.run_errands()
    (report,) = scanner.reports
    assert (len(report.committed), len(report.failed)) == (3, 4_997)


def test_what_breaks_unexpectedly_is_tried_again_and_not_quoted(
    device: Device, scanner: ListeningScanner, capfd: pytest.CaptureFixture[str]
) -> None:
    device.store("1.5")
    device.ask("1.5")
    (wanted,) = device.node.execute("SELECT wanted FROM commitment").fetchone()
    device.node.execute("UPDATE commitment SET wanted = x'43414E415259'")
    device.run_errands()
    assert device.errand()["error_code"] == "ERRAND_FAILED"
    device.node.execute("UPDATE commitment SET wanted = ?", (wanted,))
    device.clock.advance(1)
    device.run_errands()
    assert len(scanner.reports) == 1
    written = "".join(capfd.readouterr())
    assert "errand.failed" in written
    for secret in ("CANARY", "SCANNER", "127.0.0.1", "1.9"):
        assert secret not in written


def test_one_fitting_whole_instance_among_several_is_enough() -> None:
    reference = Reference(CT, "1.5")
    held = [
        HeldInstance(study_id=n, sop_class_uid=sop_class, path=path, file_bytes=1)
        for n, (sop_class, path) in enumerate([(MR, "good"), (CT, "bad"), (CT, "good")])
    ]
    is_whole = {"good": True, "bad": False}
    assert judge([reference], {"1.5": held}, lambda item: is_whole[item.path]) == {}
    assert judge([reference], {"1.5": held[:2]}, lambda item: is_whole[item.path]) == {
        reference: FailureReason.PROCESSING_FAILURE
    }

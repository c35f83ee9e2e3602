from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock

from dicom_node.commitment import Booked, CommitmentRequest, FailureReason, Reference
from dicom_node.instance import StoredInstance
from edge_runtime.model.errand import ErrandKind, ErrandState
from edge_runtime.store.alarms import standing_alarms
from edge_runtime.store.commitments import (
    SqliteCommitments,
    forget_commitments,
    held_instances,
    read_commitment,
    record_verdict,
)
from edge_runtime.store.database import connect
from edge_runtime.store.errands import bury_errand, claim_errand, finish_errand
from edge_runtime.store.inbox import SqliteInbox

CT = "1.2.840.10008.5.1.4.1.1.2"
REFERENCES = tuple(Reference(CT, f"1.2.3.{number}") for number in range(1, 4))
DAY_US = 86_400_000_000
MakeInstance = Callable[..., StoredInstance]


def request(
    transaction: str = "1.9", references: tuple[Reference, ...] = REFERENCES, ae: str = "SCANNER"
) -> CommitmentRequest:
    return CommitmentRequest(
        transaction_uid=transaction, references=references, ae_title=ae, address="192.0.2.1"
    )


@pytest.fixture
def book(connection: sqlite3.Connection, clock: HandClock) -> SqliteCommitments:
    return SqliteCommitments(connection, clock, patience_us=30_000_000, max_open=3)


def _claimed(connection: sqlite3.Connection, clock: HandClock) -> int:
    job = claim_errand(
        connection, ErrandKind.COMMITMENT_REPORT, owner="c", at=clock.now(), lease_us=1
    )
    assert job is not None
    assert job.commitment_id is not None
    return job.commitment_id


def _finish(connection: sqlite3.Connection, clock: HandClock, *, dead: bool = False) -> None:
    job = claim_errand(
        connection, ErrandKind.COMMITMENT_REPORT, owner="c", at=clock.now(), lease_us=1
    )
    assert job is not None
    if dead:
        bury_errand(connection, job, owner="c", error_code="X", at=clock.now())
    else:
        finish_errand(connection, job, owner="c", at=clock.now())


def _states(connection: sqlite3.Connection) -> list[str]:
    return [row["state"] for row in connection.execute("SELECT state FROM errand ORDER BY id")]


def test_a_booked_request_is_there_for_another_process(
    book: SqliteCommitments, database: Path, clock: HandClock
) -> None:
    assert book.book(request()) is Booked.BOOKED
    other = connect(database)
    commitment = read_commitment(other, _claimed(other, clock))
    other.close()
    assert commitment.references == REFERENCES
    assert (commitment.ae_title, commitment.address) == ("SCANNER", "192.0.2.1")
    assert commitment.transaction_uid == "1.9"
    assert commitment.verdict is None
    assert commitment.patience_mono_us == clock.now().mono_us + 30_000_000


def test_a_request_that_is_repeated_before_its_report_is_owed_once(
    book: SqliteCommitments, connection: sqlite3.Connection
) -> None:
    book.book(request())
    assert book.book(request()) is Booked.REPEATED
    assert book.book(request(references=REFERENCES[::-1])) is Booked.REPEATED
    assert _states(connection) == ["PENDING"]


def test_an_open_transaction_is_not_changed_into_another(
    book: SqliteCommitments, connection: sqlite3.Connection, clock: HandClock
) -> None:
    book.book(request())
    assert book.book(request(references=REFERENCES[:1])) is Booked.CONFLICT
    assert read_commitment(connection, _claimed(connection, clock)).references == REFERENCES


def test_scanners_do_not_share_transactions(
    book: SqliteCommitments, connection: sqlite3.Connection
) -> None:
    book.book(request())
    assert book.book(request(references=REFERENCES[:1], ae="OTHER")) is Booked.BOOKED
    assert _states(connection) == ["PENDING", "PENDING"]


def test_a_request_is_forgotten_when_its_report_has_arrived(
    book: SqliteCommitments, connection: sqlite3.Connection, clock: HandClock
) -> None:
    book.book(request())
    _finish(connection, clock)
    assert _states(connection) == []
    assert connection.execute("SELECT count(*) FROM commitment").fetchone()[0] == 0
    assert book.book(request(references=REFERENCES[:1])) is Booked.BOOKED


@pytest.mark.parametrize("references", [REFERENCES, REFERENCES[:1]])
def test_a_request_that_is_repeated_after_it_was_given_up_is_judged_and_owed_anew(
    book: SqliteCommitments,
    connection: sqlite3.Connection,
    clock: HandClock,
    references: tuple[Reference, ...],
) -> None:
    book.book(request())
    commitment = read_commitment(connection, 1)
    record_verdict(connection, commitment, {}, studies=(), hold_until_wall_us=0)
    _finish(connection, clock, dead=True)
    expected = Booked.REPEATED if references == REFERENCES else Booked.BOOKED
    assert book.book(request(references=references)) is expected
    assert _states(connection) == ["PENDING"]
    assert standing_alarms(connection) == ()
    again = read_commitment(connection, _claimed(connection, clock))
    assert (again.verdict, again.references) == (None, references)


def test_a_report_that_was_given_up_makes_room_at_the_bound(
    book: SqliteCommitments, connection: sqlite3.Connection, clock: HandClock
) -> None:
    for number in range(3):
        book.book(request(f"1.{number}"))
    _finish(connection, clock, dead=True)
    assert book.book(request("1.77")) is Booked.BOOKED
    assert _states(connection) == ["PENDING"] * 3
    assert standing_alarms(connection) == ()


def test_more_reports_than_the_bound_are_not_owed(
    book: SqliteCommitments, connection: sqlite3.Connection, clock: HandClock
) -> None:
    for number in range(3):
        assert book.book(request(f"1.{number}")) is Booked.BOOKED
    assert book.book(request("1.77")) is Booked.NO_ROOM
    _finish(connection, clock)
    assert book.book(request("1.77")) is Booked.BOOKED


def test_a_verdict_is_kept_as_it_was_given(
    book: SqliteCommitments, connection: sqlite3.Connection
) -> None:
    book.book(request())
    verdict = {
        REFERENCES[0]: FailureReason.NO_SUCH_OBJECT_INSTANCE,
        REFERENCES[2]: FailureReason.CLASS_INSTANCE_CONFLICT,
    }
    record_verdict(
        connection, read_commitment(connection, 1), verdict, studies=(), hold_until_wall_us=0
    )
    assert read_commitment(connection, 1).verdict == verdict


def _held_until(connection: sqlite3.Connection) -> list[int]:
    rows = connection.execute("SELECT held_until_wall_us FROM study ORDER BY id")
    return [row[0] for row in rows]


def test_a_hold_is_set_on_the_studies_and_never_shortened(
    book: SqliteCommitments,
    connection: sqlite3.Connection,
    inbox: SqliteInbox,
    stored: MakeInstance,
) -> None:
    inbox.association_opened("a1", "CT01", "192.0.2.1")
    inbox.record(stored("1.2.3"))
    inbox.record(stored("1.2.4"))
    book.book(request())
    commitment = read_commitment(connection, 1)
    record_verdict(connection, commitment, {}, studies=(1,), hold_until_wall_us=50)
    record_verdict(connection, commitment, {}, studies=(1, 2), hold_until_wall_us=40)
    assert _held_until(connection) == [50, 40]


def test_a_study_that_has_begun_to_leave_is_neither_held_nor_promised(
    book: SqliteCommitments,
    connection: sqlite3.Connection,
    inbox: SqliteInbox,
    stored: MakeInstance,
) -> None:
    inbox.association_opened("a1", "CT01", "192.0.2.1")
    inbox.record(stored("1.2.3", sop="1.5"))
    book.book(request())
    commitment = read_commitment(connection, 1)
    connection.execute("INSERT INTO departing (study_id) VALUES (1)")
    assert held_instances(connection, ["1.5"]) == {}
    assert not record_verdict(connection, commitment, {}, studies=(1,), hold_until_wall_us=50)
    assert not record_verdict(connection, commitment, {}, studies=(7,), hold_until_wall_us=50)
    assert read_commitment(connection, 1).verdict is None
    assert _held_until(connection) == [0]


def test_what_is_held_is_found_by_instance(
    connection: sqlite3.Connection, inbox: SqliteInbox, stored: MakeInstance
) -> None:
    inbox.association_opened("a1", "CT01", "192.0.2.1")
    inbox.record(stored("1.2.3", sop="1.5", path="a.dcm"))
    inbox.record(stored("1.2.4", sop="1.5", path="b.dcm"))
    inbox.record(stored("1.2.4", sop="1.6", path="c.dcm"))
    held = held_instances(connection, ["1.5", "1.7", "1.5"])
    assert {uid: sorted(item.path for item in items) for uid, items in held.items()} == {
        "1.5": ["a.dcm", "b.dcm"]
    }
    assert {item.sop_class_uid for item in held["1.5"]} == {CT}
    assert {item.file_bytes for item in held["1.5"]} == {1_000}


def test_5000_instances_are_found_through_an_index(
    connection: sqlite3.Connection, inbox: SqliteInbox, stored: MakeInstance
) -> None:
    inbox.association_opened("a1", "CT01", "192.0.2.1")
    inbox.record(stored(sop="1.5.1"))
    plan = connection.execute(
        "EXPLAIN QUERY PLAN SELECT instance.path FROM json_each('[]') JOIN instance "
        "ON sop_instance_uid = json_each.value"
    ).fetchall()
    assert any("instance_sop" in row["detail"] for row in plan)
    assert len(held_instances(connection, [f"1.5.{n}" for n in range(5_000)])) == 1


def test_old_requests_that_were_given_up_are_forgotten(
    book: SqliteCommitments, connection: sqlite3.Connection, clock: HandClock
) -> None:
    book.book(request("1.2"))
    _finish(connection, clock, dead=True)
    book.book(request("1.3"))
    clock.advance(8 * 86_400)
    book.book(request("1.4"))
    at = clock.now()
    assert forget_commitments(connection, before_wall_us=at.wall_us - 7 * DAY_US, at=at) == 1
    assert _states(connection) == [ErrandState.PENDING.value] * 2
    assert standing_alarms(connection) == ()


def test_no_value_of_a_request_stands_in_its_repr(
    book: SqliteCommitments, connection: sqlite3.Connection
) -> None:
    book.book(request("1.2.77777"))
    shown = repr((request("1.2.77777"), read_commitment(connection, 1)))
    for secret in ("77777", "1.2.3.1", "SCANNER", "192.0.2.1"):
        assert secret not in shown

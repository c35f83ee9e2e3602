from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

import pytest
from simulators.hand_clock import HandClock
from simulators.waiting import wait_until

from dicom_node.inbox import ConflictNote, Held
from dicom_node.instance import StoredInstance
from edge_runtime.errors import StoreError
from edge_runtime.model.clock import Mark
from edge_runtime.model.study import CompletionReason, StudyState
from edge_runtime.store.alarms import AlarmCode, standing_alarms
from edge_runtime.store.analyses import (
    PlannedAnalysis,
    claim_analysis,
    complete_study,
)
from edge_runtime.store.inbox import SqliteInbox
from edge_runtime.store.studies import (
    associations_of,
    instances_after,
    instances_of_study,
    receiving_studies,
)
from edge_runtime.store.worklist import find_study, list_studies

Make = Callable[..., StoredInstance]
DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
MODEL = PlannedAnalysis(model_name="m", model_version="1.0.0", urgency=3)


def open_association(inbox: SqliteInbox) -> None:
    inbox.association_opened("a1", "CT01", "192.0.2.1")


def complete(connection: sqlite3.Connection, clock: HandClock, instances: int) -> None:
    (study,) = receiving_studies(connection)
    assert complete_study(
        connection,
        study.study_id,
        instances_seen=instances,
        reason=CompletionReason.COUNTS,
        models=[MODEL],
        channels=[],
        at=clock.now(),
    )


def test_a_recorded_instance_has_a_study_a_row_and_stamps(
    inbox: SqliteInbox, connection: sqlite3.Connection, clock: HandClock, stored: Make
) -> None:
    open_association(inbox)
    first, second = stored(), stored()
    assert inbox.record(first) is None
    clock.advance(2)
    assert inbox.record(second) is None
    detail = find_study(connection, "1.2.3")
    assert detail is not None
    assert detail.study.state is StudyState.RECEIVING
    assert detail.study.instances == 2
    assert detail.study.identity.patient_name == "DOE^JANE"
    marks = {stamp.mark: stamp.at for stamp in detail.stamps}
    assert marks[Mark.LAST_STORED].mono_us - marks[Mark.FIRST_STORED].mono_us == 2_000_000
    rows = instances_after(connection, 0, limit=10)
    assert [row.header for row in rows] == [first.header, second.header]


def test_the_same_bytes_again_change_nothing(
    inbox: SqliteInbox, connection: sqlite3.Connection, stored: Make
) -> None:
    open_association(inbox)
    first = stored(sop="1.2.3.9")
    inbox.record(first)
    assert inbox.record(stored(sop="1.2.3.9")) == Held(path=first.path)
    assert list_studies(connection, limit=5)[0].instances == 1
    assert standing_alarms(connection) == ()


def test_other_bytes_under_the_same_uid_are_quarantined_with_one_alarm(
    inbox: SqliteInbox, connection: sqlite3.Connection, stored: Make
) -> None:
    open_association(inbox)
    inbox.record(stored(sop="1.2.3.9", path="aa/first.dcm"))
    answers = []
    for _ in range(2):
        newcomer = stored(sop="1.2.3.9")
        held = inbox.record(newcomer)
        assert held == Held(path="aa/first.dcm")
        answers.append(inbox.record_conflict(newcomer, held, "digest"))
    assert answers == [ConflictNote.NOTED, ConflictNote.KNOWN]
    gone = inbox.record_conflict(stored(sop="1.2.3.9"), Held(path="aa/left.dcm"), "digest")
    assert gone is ConflictNote.ROW_GONE
    (alarm,) = standing_alarms(connection)
    assert alarm.code is AlarmCode.CONFLICTING_DUPLICATE
    assert connection.execute("SELECT count(*) FROM quarantine").fetchone()[0] == 1
    assert inbox.known_paths() == {"aa/first.dcm"}


def test_one_sop_instance_uid_in_two_studies_is_two_instances(
    inbox: SqliteInbox, connection: sqlite3.Connection, stored: Make
) -> None:
    open_association(inbox)
    assert inbox.record(stored("1.2.3", sop="9.9")) is None
    assert inbox.record(stored("1.2.4", sop="9.9")) is None
    assert len(list_studies(connection, limit=5)) == 2


def test_a_file_met_again_by_the_start_up_scan_is_stored_already(
    inbox: SqliteInbox, stored: Make
) -> None:
    open_association(inbox)
    inbox.record(stored(sop="9.9", path="aa/x.dcm"))
    assert inbox.record(stored(sop="9.9", path="aa/x.dcm")) is None


def test_a_late_image_opens_a_revision_and_withdraws_undecided_work(
    inbox: SqliteInbox, connection: sqlite3.Connection, clock: HandClock, stored: Make
) -> None:
    open_association(inbox)
    inbox.record(stored())
    complete(connection, clock, 1)
    claim = claim_analysis(connection, owner="w", at=clock.now(), lease_us=10)
    assert claim is not None
    inbox.record(stored())
    detail = find_study(connection, "1.2.3")
    assert detail is not None
    assert (detail.study.state, detail.study.revision) == (StudyState.RECEIVING, 2)
    assert [a.state.value for a in detail.study.analyses] == ["SUPERSEDED"]
    late = instances_after(connection, 1, limit=5)[0]
    assert late.revision == 2
    assert len(instances_of_study(connection, late.study_id, before_id=late.instance_id)) == 1


def test_a_late_object_that_is_no_image_opens_no_revision(
    inbox: SqliteInbox, connection: sqlite3.Connection, clock: HandClock, stored: Make
) -> None:
    open_association(inbox)
    inbox.record(stored())
    complete(connection, clock, 1)
    assert inbox.record(stored(sop_class=DOSE_REPORT)) is None
    (study,) = list_studies(connection, limit=5)
    assert (study.state, study.revision, study.instances) == (StudyState.COMPLETE, 1, 2)


def test_associations_of_a_node_that_died_are_lost(
    inbox: SqliteInbox, connection: sqlite3.Connection, clock: HandClock, stored: Make
) -> None:
    open_association(inbox)
    inbox.record(stored())
    study_id = receiving_studies(connection)[0].study_id
    boot = clock.now().boot_id
    assert associations_of(connection, study_id, boot_id=boot)[0].ended is None
    inbox.close_lost_associations()
    assert associations_of(connection, study_id, boot_id=boot)[0].ended == "lost"


def test_an_association_of_an_earlier_boot_counts_as_lost_long_ago(
    inbox: SqliteInbox, connection: sqlite3.Connection, clock: HandClock, stored: Make
) -> None:
    open_association(inbox)
    inbox.record(stored())
    study_id = receiving_studies(connection)[0].study_id
    clock.reboot()
    (seen,) = associations_of(connection, study_id, boot_id=clock.now().boot_id)
    assert (seen.ended, seen.ended_mono_us) == ("lost", 0)


def test_a_released_association_stays_released(
    inbox: SqliteInbox, connection: sqlite3.Connection, clock: HandClock, stored: Make
) -> None:
    open_association(inbox)
    inbox.record(stored())
    inbox.association_closed("a1", released=True)
    inbox.close_lost_associations()
    study_id = receiving_studies(connection)[0].study_id
    boot = clock.now().boot_id
    assert associations_of(connection, study_id, boot_id=boot)[0].ended == "released"


def test_a_row_without_its_file_raises_an_alarm_once(
    inbox: SqliteInbox, connection: sqlite3.Connection, stored: Make
) -> None:
    open_association(inbox)
    inbox.record(stored(path="aa/gone.dcm"))
    inbox.report_missing(frozenset({"aa/gone.dcm"}))
    inbox.report_missing(frozenset({"aa/gone.dcm"}))
    (alarm,) = standing_alarms(connection)
    assert alarm.code is AlarmCode.FILE_MISSING
    assert alarm.study_key is not None


def answers_to(
    inbox: SqliteInbox, instances: list[StoredInstance]
) -> dict[str, Held | Exception | None]:
    """Record all at once: the first one finds the others waiting. Returns path to answer."""
    answers: dict[str, Held | Exception | None] = {}

    def record(instance: StoredInstance) -> None:
        try:
            answers[instance.path] = inbox.record(instance)
        except sqlite3.IntegrityError as error:
            answers[instance.path] = error

    threads = [threading.Thread(target=record, args=(each,)) for each in instances]
    with inbox._lock:
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_until(lambda waiting=number: len(inbox._queue) == waiting)  # type: ignore[misc]  # lambda with a default
    for thread in threads:
        thread.join(30)
    return answers


def record_together(inbox: SqliteInbox, instances: list[StoredInstance]) -> list[Exception]:
    """Record all at once; none may be held. Returns what was raised."""
    answers = answers_to(inbox, instances).values()
    assert not any(isinstance(each, Held) for each in answers)
    return [each for each in answers if isinstance(each, Exception)]


def test_associations_that_record_at_the_same_time_share_a_transaction(
    inbox: SqliteInbox, connection: sqlite3.Connection, stored: Make
) -> None:
    open_association(inbox)
    instances = [stored() for _ in range(40)]
    begun: list[str] = []
    connection.set_trace_callback(lambda sql: begun.append(sql) if "BEGIN" in sql else None)
    assert record_together(inbox, instances) == []
    connection.set_trace_callback(None)
    assert inbox.known_paths() == {each.path for each in instances}
    assert len(begun) == 1


def test_one_instance_that_cannot_be_recorded_fails_alone(inbox: SqliteInbox, stored: Make) -> None:
    """The rows of a transaction stand or fall together; the next attempt is each one's own."""
    open_association(inbox)
    good, bad = stored(), stored(association_id="never opened")
    assert len(record_together(inbox, [good, bad])) == 1
    assert inbox.known_paths() == {good.path}


def test_duplicates_within_one_transaction_get_their_own_answers(
    inbox: SqliteInbox, connection: sqlite3.Connection, stored: Make
) -> None:
    open_association(inbox)
    before, twin = stored(sop="9.1"), stored(sop="9.2")
    inbox.record(before)
    late_twin, again, fresh = stored(sop="9.2"), stored(sop="9.1"), stored()
    same_file = stored(sop="9.1", path=before.path)
    answers = answers_to(inbox, [twin, late_twin, again, same_file, fresh])
    assert answers == {
        twin.path: None,
        late_twin.path: Held(path=twin.path),
        again.path: Held(path=before.path),
        same_file.path: None,
        fresh.path: None,
    }
    assert inbox.known_paths() == {before.path, twin.path, fresh.path}
    assert list_studies(connection, limit=5)[0].instances == 3


def test_studies_of_one_transaction_are_counted_and_stamped_apart(
    inbox: SqliteInbox, connection: sqlite3.Connection, stored: Make
) -> None:
    open_association(inbox)
    uids = ["1.2.3", "1.2.4", "1.2.3", "1.2.4", "1.2.3"]
    assert record_together(inbox, [stored(uid) for uid in uids]) == []
    for uid in set(uids):
        detail = find_study(connection, uid)
        assert detail is not None
        assert detail.study.instances == uids.count(uid)
        assert {each.mark for each in detail.stamps} == {Mark.FIRST_STORED, Mark.LAST_STORED}


def test_late_instances_of_one_transaction_open_one_revision(
    inbox: SqliteInbox, connection: sqlite3.Connection, clock: HandClock, stored: Make
) -> None:
    """What is no image stays with the revision that it finds."""
    open_association(inbox)
    first = stored()
    inbox.record(first)
    complete(connection, clock, 1)
    again = stored(sop=first.header.sop_instance_uid)
    late = [stored(sop_class=DOSE_REPORT), again, stored(), stored(sop_class=DOSE_REPORT), stored()]
    answers = answers_to(inbox, late)
    assert answers.pop(again.path) == Held(path=first.path)
    assert set(answers.values()) == {None}
    (study,) = list_studies(connection, limit=5)
    assert (study.state, study.revision, study.instances) == (StudyState.RECEIVING, 2, 5)
    rows = instances_after(connection, 1, limit=9)
    assert [row.revision for row in rows] == [1, 2, 2, 2]


def test_instance_whose_recorder_died_is_no_success(inbox: SqliteInbox, stored: Make) -> None:
    open_association(inbox)
    inbox._record_waiting = inbox._queue.clear  # type: ignore[method-assign]  # it dies
    with pytest.raises(StoreError, match="again"):
        inbox.record(stored())


def test_row_whose_file_is_gone_takes_the_next_one_and_its_alarm_clears(
    inbox: SqliteInbox, connection: sqlite3.Connection, stored: Make
) -> None:
    open_association(inbox)
    inbox.record(stored(sop="1.2.3.9", path="aa/gone.dcm"))
    inbox.report_missing(frozenset({"aa/gone.dcm"}))
    newcomer = stored(sop="1.2.3.9", path="bb/here.dcm")
    held = inbox.record(newcomer)
    assert held == Held(path="aa/gone.dcm")
    assert inbox.replace_file(newcomer, held)
    assert inbox.known_paths() == {"bb/here.dcm"}
    assert standing_alarms(connection) == ()
    assert not inbox.replace_file(newcomer, held)


def test_a_peers_holdings_are_what_it_sent(
    inbox: SqliteInbox, clock: HandClock, stored: Make
) -> None:
    open_association(inbox)
    assert inbox.held_bytes("CT01") == 0
    for _ in range(3):
        inbox.record(stored())
    assert inbox.held_bytes("CT01") == 3_000
    clock.advance(10)
    assert inbox.held_bytes("CT01") == 3_000
    assert inbox.held_bytes("MR01") == 0

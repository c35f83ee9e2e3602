from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest
from simulators.hand_clock import HandClock

from dicom_node.instance import StoredInstance
from dicom_node.mpps import Noted, StepMessage, StepOperation, StepReference, StepStatus
from edge_runtime.model.errand import ErrandKind
from edge_runtime.model.procedure_step import ProcedureStepState
from edge_runtime.store.alarms import standing_alarms
from edge_runtime.store.errands import ErrandJob, bury_errand, claim_errand, finish_errand
from edge_runtime.store.inbox import SqliteInbox
from edge_runtime.store.procedure_steps import (
    MissingImages,
    SqliteProcedureSteps,
    StepProgress,
    forget_old_steps,
    missing_images,
    read_step_message,
    steps_of_study,
)

STUDY = "1.2.3"
SERIES = f"{STUDY}.1"
MakeInstance = Callable[..., StoredInstance]


def creation(uid: str = "1.40", *studies: str, data_set: bytes = b"create") -> StepMessage:
    return StepMessage(
        operation=StepOperation.CREATE,
        sop_instance_uid=uid,
        status=StepStatus.IN_PROGRESS,
        study_instance_uids=studies or (STUDY,),
        references=(),
        transfer_syntax_uid="1.2.840.10008.1.2",
        data_set=data_set,
    )


def change(
    status: StepStatus | None,
    *references: StepReference,
    uid: str = "1.40",
    names: bool = True,
    data_set: bytes = b"set",
) -> StepMessage:
    return StepMessage(
        operation=StepOperation.SET,
        sop_instance_uid=uid,
        status=status,
        study_instance_uids=(),
        references=references if names else None,
        transfer_syntax_uid="1.2.840.10008.1.2",
        data_set=data_set,
    )


def image(sop: str, series: str = SERIES, *, is_image: bool = True) -> StepReference:
    return StepReference(series_instance_uid=series, sop_instance_uid=sop, is_image=is_image)


@pytest.fixture
def book(connection: sqlite3.Connection, clock: HandClock) -> SqliteProcedureSteps:
    return SqliteProcedureSteps(connection, clock, relays=False, max_steps=3)


@pytest.fixture
def relaying(connection: sqlite3.Connection, clock: HandClock) -> SqliteProcedureSteps:
    return SqliteProcedureSteps(connection, clock, relays=True, max_steps=3)


def _steps(
    connection: sqlite3.Connection, clock: HandClock, study: str = STUDY
) -> tuple[StepProgress, ...]:
    return steps_of_study(connection, study, boot_id=clock.now().boot_id)


def test_a_step_goes_from_progress_to_its_end(
    book: SqliteProcedureSteps, connection: sqlite3.Connection, clock: HandClock
) -> None:
    assert book.note(creation()) is Noted.NOTED
    (step,) = _steps(connection, clock)
    assert (step.state, step.images) == (ProcedureStepState.IN_PROGRESS, 0)
    clock.advance(5)
    assert book.note(change(StepStatus.COMPLETED, image("1.5"), image("1.6"))) is Noted.NOTED
    (step,) = _steps(connection, clock)
    assert (step.state, step.images, step.changes) == (ProcedureStepState.COMPLETED, 2, 1)
    assert step.changed_mono_us == clock.now().mono_us


def test_a_step_is_created_once(
    book: SqliteProcedureSteps, connection: sqlite3.Connection, clock: HandClock
) -> None:
    book.note(creation())
    assert book.note(creation("1.40", "9.9")) is Noted.DUPLICATE
    assert _steps(connection, clock, "9.9") == ()


def test_a_step_that_was_never_created_is_unknown(book: SqliteProcedureSteps) -> None:
    assert book.note(change(StepStatus.COMPLETED)) is Noted.UNKNOWN


@pytest.mark.parametrize("end", [StepStatus.COMPLETED, StepStatus.DISCONTINUED])
@pytest.mark.parametrize("again", [None, *StepStatus])
def test_a_step_that_has_ended_takes_no_change_of_any_kind(
    book: SqliteProcedureSteps,
    connection: sqlite3.Connection,
    clock: HandClock,
    end: StepStatus,
    again: StepStatus | None,
) -> None:
    book.note(creation())
    book.note(change(end, image("1.5")))
    before = _steps(connection, clock)
    assert book.note(change(again, image("1.6"))) is Noted.ENDED
    assert _steps(connection, clock) == before


def test_the_last_list_of_references_counts_and_silence_leaves_it(
    book: SqliteProcedureSteps, connection: sqlite3.Connection, clock: HandClock
) -> None:
    book.note(creation())
    book.note(change(None, image("1.5"), image("1.6"), image("1.7", is_image=False)))
    assert _steps(connection, clock)[0].images == 2
    book.note(change(StepStatus.IN_PROGRESS, names=False))
    assert _steps(connection, clock)[0].images == 2
    book.note(change(None, image("1.8"), image("1.8")))
    assert _steps(connection, clock)[0].images == 1
    book.note(change(None))
    assert _steps(connection, clock)[0].images == 0


def test_a_step_stands_in_each_of_its_studies(
    book: SqliteProcedureSteps, connection: sqlite3.Connection, clock: HandClock
) -> None:
    book.note(creation("1.40", "1.2.3", "1.2.4"))
    assert _steps(connection, clock, "1.2.3") == _steps(connection, clock, "1.2.4") != ()


def test_a_change_of_another_boot_was_long_ago(
    book: SqliteProcedureSteps, connection: sqlite3.Connection, clock: HandClock
) -> None:
    book.note(creation())
    clock.reboot()
    assert _steps(connection, clock)[0].changed_mono_us == 0


def test_missing_images_are_counted_by_what_is_here(
    book: SqliteProcedureSteps,
    connection: sqlite3.Connection,
    clock: HandClock,
    inbox: SqliteInbox,
    stored: MakeInstance,
) -> None:
    inbox.association_opened("a1", "CT01", "192.0.2.1")
    inbox.record(stored(sop="1.5"))
    book.note(creation())
    book.note(
        change(
            StepStatus.COMPLETED,
            image("1.5"),
            image("1.6"),
            image("1.7"),
            image("1.9", is_image=False),
            image("1.8", "1.2.3.2"),
        )
    )
    (step,) = _steps(connection, clock)
    assert missing_images(connection, 1, [step.step_id]) == MissingImages(all=3, of_begun_series=2)
    assert missing_images(connection, 1, []) == MissingImages(all=0, of_begun_series=0)


def test_an_image_that_two_steps_name_is_missing_once(
    book: SqliteProcedureSteps, connection: sqlite3.Connection, clock: HandClock
) -> None:
    for uid in ("1.40", "1.41"):
        book.note(creation(uid))
        book.note(change(StepStatus.COMPLETED, image("1.5"), uid=uid))
    steps = [item.step_id for item in _steps(connection, clock)]
    assert missing_images(connection, 1, steps).all == 1


# ---------------------------------------------------------------- passing on


def _claim(connection: sqlite3.Connection, clock: HandClock) -> ErrandJob:
    job = claim_errand(
        connection, ErrandKind.MPPS_RELAY, owner="c", at=clock.now(), lease_us=1_000_000
    )
    assert job is not None
    return job


def _data_sets(connection: sqlite3.Connection) -> list[bytes]:
    rows = connection.execute("SELECT data_set FROM procedure_step_message ORDER BY errand_id")
    return [row["data_set"] for row in rows]


def test_without_an_upstream_no_data_set_is_kept(
    book: SqliteProcedureSteps, connection: sqlite3.Connection
) -> None:
    book.note(creation())
    book.note(change(StepStatus.COMPLETED))
    assert _data_sets(connection) == []


def test_a_data_set_is_kept_until_upstream_has_it(
    relaying: SqliteProcedureSteps, connection: sqlite3.Connection, clock: HandClock
) -> None:
    relaying.note(creation())
    relaying.note(change(StepStatus.COMPLETED))
    job = _claim(connection, clock)
    message = read_step_message(connection, job.errand_id)
    assert (message.operation, message.data_set) == (StepOperation.CREATE, b"create")
    assert message.sop_instance_uid == "1.40"
    assert message.transfer_syntax_uid == "1.2.840.10008.1.2"
    finish_errand(connection, job, owner="c", at=clock.now())
    assert _data_sets(connection) == [b"set"]
    finish_errand(connection, _claim(connection, clock), owner="c", at=clock.now())
    assert _data_sets(connection) == []


def test_what_is_refused_is_not_passed_on(
    relaying: SqliteProcedureSteps, connection: sqlite3.Connection
) -> None:
    relaying.note(creation())
    relaying.note(creation())
    relaying.note(change(StepStatus.COMPLETED, uid="1.77"))
    relaying.note(change(StepStatus.DISCONTINUED))
    relaying.note(change(StepStatus.COMPLETED))
    assert _data_sets(connection) == [b"create", b"set"]


def test_a_change_is_passed_on_only_where_its_creation_was(
    book: SqliteProcedureSteps, relaying: SqliteProcedureSteps, connection: sqlite3.Connection
) -> None:
    book.note(creation())
    relaying.note(change(StepStatus.COMPLETED))
    assert _data_sets(connection) == []


# ---------------------------------------------------------------- bounds and forgetting


def _uids(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT sop_instance_uid FROM procedure_step ORDER BY id")
    return [row["sop_instance_uid"] for row in rows]


def test_at_the_bound_the_oldest_step_without_a_study_makes_room(
    book: SqliteProcedureSteps,
    connection: sqlite3.Connection,
    clock: HandClock,
    inbox: SqliteInbox,
    stored: MakeInstance,
) -> None:
    inbox.association_opened("a1", "CT01", "192.0.2.1")
    inbox.record(stored(STUDY))
    for number, study in enumerate((STUDY, "9.1", "9.2", "9.3")):
        clock.advance(1)
        assert book.note(creation(f"1.{number}", study)) is Noted.NOTED
    assert _uids(connection) == ["1.0", "1.2", "1.3"]


def test_at_the_bound_nothing_that_is_needed_makes_room(
    relaying: SqliteProcedureSteps, connection: sqlite3.Connection
) -> None:
    for number in range(3):
        relaying.note(creation(f"1.{number}", "9.9"))
    assert relaying.note(creation("1.77", "9.9")) is Noted.NO_ROOM
    assert len(_uids(connection)) == 3


def test_old_steps_are_forgotten_with_all_that_hangs_on_them(
    relaying: SqliteProcedureSteps, connection: sqlite3.Connection, clock: HandClock
) -> None:
    relaying.note(creation("1.1", "9.1"))
    finish_errand(connection, _claim(connection, clock), owner="c", at=clock.now())
    relaying.note(creation("1.2", "9.2"))
    bury_errand(connection, _claim(connection, clock), owner="c", error_code="X", at=clock.now())
    relaying.note(creation("1.3", "9.3"))
    clock.advance(100)
    assert forget_old_steps(connection, before_wall_us=clock.now().wall_us, at=clock.now()) == 2
    assert _uids(connection) == ["1.3"]
    assert standing_alarms(connection) == ()
    for table in ("procedure_step_study", "errand", "procedure_step_message"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 1


def test_no_value_of_a_step_stands_in_its_repr() -> None:
    message = change(StepStatus.COMPLETED, image("1.77777"), data_set=b"CANARY")
    for secret in ("77777", "CANARY", "1.40", SERIES):
        assert secret not in repr(message)

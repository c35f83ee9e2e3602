from __future__ import annotations

import itertools
import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from enum import Enum
from pathlib import Path

import pytest

from dicom_node.mpps import StepOperation
from edge_runtime.errors import SchemaTooNewError, StoreError
from edge_runtime.model.analysis import ANALYSIS_TRANSITIONS, DECIDED, UNDECIDED, AnalysisState
from edge_runtime.model.clock import Mark
from edge_runtime.model.delivery import DELIVERY_TRANSITIONS, Channel, DeliveryState
from edge_runtime.model.errand import ERRAND_TRANSITIONS, ErrandKind, ErrandState
from edge_runtime.model.procedure_step import PROCEDURE_STEP_TRANSITIONS, ProcedureStepState
from edge_runtime.model.study import STUDY_TRANSITIONS, CompletionReason, StudyState
from edge_runtime.store.database import connect, load_migrations, migrate, transaction


def pairs(states: type[Enum]) -> list[tuple[str, str]]:
    names = [state.value for state in states]
    return [pair for pair in itertools.product(names, names) if pair[0] != pair[1]]


def insert_study(connection: sqlite3.Connection, state: StudyState = StudyState.RECEIVING) -> int:
    reason = "counts" if state is StudyState.COMPLETE else None
    return int(
        connection.execute(
            "INSERT INTO study (study_key, study_instance_uid, identity, state, completion_reason,"
            " revision, received_wall_us) VALUES (hex(randomblob(4)), hex(randomblob(8)), '{}', ?,"
            " ?, 1, 0) RETURNING id",
            (state.value, reason),
        ).fetchone()[0]
    )


def insert_analysis(connection: sqlite3.Connection, state: AnalysisState) -> int:
    values = _columns_of(state)
    names = ", ".join(values)
    marks = ", ".join("?" for _ in values)
    return int(
        connection.execute(
            f"INSERT INTO analysis (study_id, revision, model_name, model_version, urgency,"
            f" queued_wall_us, {names}) VALUES (?, 1, hex(randomblob(8)), '1.0.0', 3, 0, {marks})"
            " RETURNING id",
            (insert_study(connection), *values.values()),
        ).fetchone()[0]
    )


def _columns_of(state: AnalysisState) -> dict[str, object]:
    """Fill the columns that the CHECKs demand of a row in ``state``."""
    values: dict[str, object] = {}
    values |= dict.fromkeys(
        (
            "outcome",
            "reason_code",
            "probability",
            "threshold",
            "decided_wall_us",
            "lease_owner",
            "lease_boot_id",
            "lease_until_mono_us",
        )
    )
    values["state"] = state.value
    if state is AnalysisState.RUNNING:
        values |= {"lease_owner": "w", "lease_boot_id": "b", "lease_until_mono_us": 1}
    if state in DECIDED:
        values |= {"outcome": state.value, "decided_wall_us": 1}
    if state in {AnalysisState.SUSPECTED, AnalysisState.NOT_SUSPECTED}:
        values |= {"probability": 0.5, "threshold": 0.5}
    if state in {AnalysisState.NOT_ANALYSED, AnalysisState.FAILED}:
        values |= {"reason_code": "no_images"}
    return values


def is_accepted(connection: sqlite3.Connection, sql: str, values: tuple[object, ...]) -> bool:
    try:
        connection.execute(sql, values)
    except sqlite3.IntegrityError:
        return False
    return True


@pytest.mark.parametrize(("old", "new"), pairs(AnalysisState))
def test_sql_moves_an_analysis_exactly_as_the_table_does(
    connection: sqlite3.Connection, old: str, new: str
) -> None:
    row = insert_analysis(connection, AnalysisState(old))
    # A superseded row keeps what it had decided; all else takes the columns of its new state.
    target: dict[str, object] = {"state": new}
    if new != "SUPERSEDED":
        target = _columns_of(AnalysisState(new))
    if new == "SUPERSEDED":
        target |= {"lease_owner": None, "lease_boot_id": None, "lease_until_mono_us": None}
    assignments = ", ".join(f"{name} = ?" for name in target)
    accepted = is_accepted(
        connection, f"UPDATE analysis SET {assignments} WHERE id = ?", (*target.values(), row)
    )
    known = {(a.value, b.value) for (a, _), b in ANALYSIS_TRANSITIONS.items()}
    assert accepted == ((old, new) in known)


@pytest.mark.parametrize(("old", "new"), pairs(DeliveryState))
def test_sql_moves_a_delivery_exactly_as_the_table_does(
    connection: sqlite3.Connection, old: str, new: str
) -> None:
    analysis = insert_analysis(connection, AnalysisState.SUSPECTED)
    row = connection.execute(
        "INSERT INTO delivery (analysis_id, channel, state, due_boot_id, due_mono_us, error_code)"
        " VALUES (?, 'forward', ?, 'b', 0, 'X') RETURNING id",
        (analysis, old),
    ).fetchone()[0]
    accepted = is_accepted(connection, "UPDATE delivery SET state = ? WHERE id = ?", (new, row))
    known = {(a.value, b.value) for (a, _), b in DELIVERY_TRANSITIONS.items()}
    assert accepted == ((old, new) in known)


@pytest.mark.parametrize(("old", "new"), pairs(StudyState))
@pytest.mark.parametrize("step", [0, 1])
def test_sql_moves_a_study_exactly_as_the_table_does(
    connection: sqlite3.Connection, old: str, new: str, step: int
) -> None:
    row = insert_study(connection, StudyState(old))
    reason = "counts" if new == "COMPLETE" else None
    accepted = is_accepted(
        connection,
        "UPDATE study SET state = ?, completion_reason = ?, revision = revision + ? WHERE id = ?",
        (new, reason, step, row),
    )
    known = {(a.value, b.value) for (a, _), b in STUDY_TRANSITIONS.items()}
    # Only a late image opens a revision, and it always does.
    assert accepted == ((old, new) in known and step == (new == "RECEIVING"))


@pytest.mark.parametrize(("old", "new"), pairs(ErrandState))
def test_sql_moves_an_errand_exactly_as_the_table_does(
    connection: sqlite3.Connection, old: str, new: str
) -> None:
    row = connection.execute(
        "INSERT INTO errand (kind, state, peer, step_id, due_boot_id, due_mono_us, error_code)"
        " VALUES ('mpps_relay', ?, 'p', ?, 'b', 0, 'X') RETURNING id",
        (old, insert_step(connection, ProcedureStepState.IN_PROGRESS)),
    ).fetchone()[0]
    accepted = is_accepted(connection, "UPDATE errand SET state = ? WHERE id = ?", (new, row))
    known = {(a.value, b.value) for (a, _), b in ERRAND_TRANSITIONS.items()}
    assert accepted == ((old, new) in known)


@pytest.mark.parametrize(("old", "new"), pairs(ProcedureStepState))
def test_sql_moves_a_procedure_step_exactly_as_the_table_does(
    connection: sqlite3.Connection, old: str, new: str
) -> None:
    row = insert_step(connection, ProcedureStepState(old))
    accepted = is_accepted(
        connection, "UPDATE procedure_step SET state = ? WHERE id = ?", (new, row)
    )
    known = {(a.value, b.value) for (a, _), b in PROCEDURE_STEP_TRANSITIONS.items()}
    assert accepted == ((old, new) in known)


def insert_step(connection: sqlite3.Connection, state: ProcedureStepState) -> int:
    return int(
        connection.execute(
            "INSERT INTO procedure_step (sop_instance_uid, state, relayed, created_wall_us,"
            " changed_wall_us, changed_mono_us, changed_boot_id)"
            " VALUES (hex(randomblob(8)), ?, 1, 0, 0, 0, 'b') RETURNING id",
            (state.value,),
        ).fetchone()[0]
    )


def test_undecided_and_decided_states_cover_all_but_superseded() -> None:
    assert UNDECIDED | DECIDED | {AnalysisState.SUPERSEDED} == set(AnalysisState)


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("study", "state", StudyState),
        ("study", "completion_reason", CompletionReason),
        ("analysis", "state", AnalysisState),
        ("delivery", "state", DeliveryState),
        ("delivery", "channel", Channel),
        ("errand", "state", ErrandState),
        ("errand", "kind", ErrandKind),
        ("procedure_step", "state", ProcedureStepState),
        ("procedure_step_message", "operation", StepOperation),
        ("stamp", "mark", Mark),
    ],
)
def test_every_word_of_an_enum_stands_in_its_check(
    connection: sqlite3.Connection, table: str, column: str, words: type[Enum]
) -> None:
    sql = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[
        "sql"
    ]
    assert f"{column}" in sql
    assert all(f"'{word.value}'" in sql for word in words)


def test_a_raised_priority_is_never_lowered(connection: sqlite3.Connection) -> None:
    row = insert_study(connection)
    assert is_accepted(connection, "UPDATE study SET raised = 3 WHERE id = ?", (row,))
    assert not is_accepted(connection, "UPDATE study SET raised = 2 WHERE id = ?", (row,))


def test_a_second_analysis_of_one_model_and_revision_is_refused(
    connection: sqlite3.Connection,
) -> None:
    study = insert_study(connection)
    sql = (
        "INSERT INTO analysis (study_id, revision, model_name, model_version, urgency, state,"
        " queued_wall_us) VALUES (?, 1, 'm', ?, 3, 'QUEUED', 0)"
    )
    assert is_accepted(connection, sql, (study, "1.0.0"))
    assert not is_accepted(connection, sql, (study, "1.0.1"))


def dump(connection: sqlite3.Connection) -> list[str]:
    return sorted(
        row["sql"] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql NOTNULL")
    )


def test_each_earlier_version_migrates_to_the_fresh_schema(
    tmp_path: Path, connection: sqlite3.Connection
) -> None:
    migrations = load_migrations()
    for version in range(len(migrations) + 1):
        old = sqlite3.connect(tmp_path / f"v{version}.db", isolation_level=None)
        old.row_factory = sqlite3.Row
        migrate(old, migrations[:version])
        migrate(old, migrations)
        assert dump(old) == dump(connection)
        assert old.execute("PRAGMA user_version").fetchone()[0] == len(migrations)
        old.close()


def test_a_database_of_a_later_release_is_refused_and_left_alone(database: Path) -> None:
    opened = connect(database)
    opened.execute("PRAGMA user_version = 999")
    opened.close()
    with pytest.raises(SchemaTooNewError, match="999"):
        connect(database)
    raw = sqlite3.connect(database)
    assert raw.execute("PRAGMA user_version").fetchone()[0] == 999
    raw.close()


def test_a_file_that_is_no_database_is_named(database: Path) -> None:
    database.write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(StoreError, match="cannot open the database"):
        connect(database)


def test_every_commit_is_durable_and_foreign_keys_hold(connection: sqlite3.Connection) -> None:
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert not is_accepted(
        connection, "INSERT INTO alarm (code, study_id, raised_wall_us) VALUES ('X', 77, 0)", ()
    )


def test_an_error_inside_a_transaction_leaves_nothing(connection: sqlite3.Connection) -> None:
    def half_a_change() -> None:
        with transaction(connection):
            insert_study(connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_a_change()
    assert connection.execute("SELECT count(*) FROM study").fetchone()[0] == 0


def test_a_commit_that_fails_leaves_nothing_and_blocks_nobody(
    connection: sqlite3.Connection,
) -> None:
    def orphaned() -> None:
        with transaction(connection):
            connection.execute("PRAGMA defer_foreign_keys = ON")  # SQLite looks at COMMIT only
            insert_analysis(connection, AnalysisState.QUEUED)
            connection.execute("DELETE FROM study")

    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        orphaned()
    assert not connection.in_transaction
    with transaction(connection):
        insert_study(connection)
    assert connection.execute("SELECT count(*) FROM study").fetchone()[0] == 1


def test_a_transaction_that_sqlite_gave_up_itself_tells_why(connection: sqlite3.Connection) -> None:
    def given_up() -> None:
        with transaction(connection):
            insert_study(connection)
            connection.execute("INSERT OR ROLLBACK INTO study SELECT * FROM study")

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        given_up()
    assert connection.execute("SELECT count(*) FROM study").fetchone()[0] == 0


def test_a_new_database_that_another_process_writes_is_waited_for(tmp_path: Path) -> None:
    """SQLite's own busy handler does not wait for the switch to WAL: two starts would collide."""
    path = tmp_path / "triage.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(connect, path)
        done, _ = wait([opening], timeout=0.2)
        assert not done
        other.execute("COMMIT")
        opening.result(timeout=10).close()
    other.close()

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.model_package import PACKAGE_TRANSITIONS, PackageState
from edge_runtime.store.database import connect, load_migrations, migrate, transaction
from edge_runtime.store.model_packages import (
    Approval,
    AuditHead,
    add_approval,
    advance_audit_head,
    insert_package,
    list_packages,
    packages_in_use,
    read_audit_head,
)

DIGEST = "ab" * 32
STATES = [state.value for state in PackageState]
Refuses = Callable[..., bool]


@pytest.fixture
def refuses(connection: sqlite3.Connection) -> Refuses:
    def run(sql: str, *values: object) -> bool:
        try:
            connection.execute(sql, values)
        except sqlite3.IntegrityError:
            return True
        return False

    return run


def insert(
    connection: sqlite3.Connection, state: str, *, name: str = "m", demonstration: bool = True
) -> int:
    """Insert a package in any state, past the rules of how it gets there."""
    connection.execute("DROP TRIGGER IF EXISTS model_package_begins")
    row = connection.execute(
        "INSERT INTO model_package (digest, name, version, demonstration, state, refusal, "
        "installed_wall_us, moved_wall_us, moved_by) VALUES (lower(hex(randomblob(32))), ?, "
        "hex(randomblob(4)), ?, ?, ?, 1, 1, 'x') RETURNING id",
        (name, int(demonstration), state, "why" if state == "REFUSED" else ""),
    ).fetchone()
    return int(row["id"])


@pytest.mark.parametrize(
    ("old", "new"), [pair for pair in itertools.product(STATES, STATES) if pair[0] != pair[1]]
)
def test_sql_moves_a_package_exactly_as_the_table_does(
    connection: sqlite3.Connection, refuses: Refuses, old: str, new: str
) -> None:
    row = insert(connection, old)
    refused = refuses(
        "UPDATE model_package SET state = ?, refusal = ? WHERE id = ?",
        new,
        "why" if new == "REFUSED" else "",
        row,
    )
    known = {(a.value, b.value) for (a, _), b in PACKAGE_TRANSITIONS.items()}
    assert refused == ((old, new) not in known)


def test_a_package_begins_as_installed(refuses: Refuses) -> None:
    sql = (
        "INSERT INTO model_package (digest, name, version, demonstration, state, "
        "installed_wall_us, moved_wall_us, moved_by) VALUES (?, 'm', '1.0.0', 1, ?, 1, 1, 'x')"
    )
    assert refuses(sql, DIGEST, "ACTIVE")
    assert refuses(sql, "short", "INSTALLED")
    assert not refuses(sql, DIGEST, "INSTALLED")
    assert refuses(sql, "cd" * 32, "INSTALLED"), "the same name and version"


@pytest.mark.parametrize("state", ["ACTIVE", "SHADOW"])
def test_one_package_of_a_name_is_active_and_one_a_shadow(
    connection: sqlite3.Connection, refuses: Refuses, state: str
) -> None:
    insert(connection, state)
    second = insert(connection, "APPROVED")
    other = insert(connection, "APPROVED", name="n")
    sql = "UPDATE model_package SET state = ? WHERE id = ?"
    assert refuses(sql, state, second)
    assert not refuses(sql, state, other)


def test_one_package_of_a_name_is_the_fallback_and_it_is_on_disk(
    connection: sqlite3.Connection, refuses: Refuses
) -> None:
    first, second = insert(connection, "RETIRED"), insert(connection, "RETIRED")
    active = insert(connection, "ACTIVE")
    sql = "UPDATE model_package SET is_fallback = 1 WHERE id = ?"
    assert refuses(sql, active)
    assert not refuses(sql, first)
    assert refuses(sql, second)
    assert refuses("UPDATE model_package SET is_removed = 1 WHERE id = ?", first)
    assert refuses("UPDATE model_package SET is_removed = 1 WHERE id = ?", active)


def test_what_is_no_demonstration_is_not_used_without_an_approval(
    connection: sqlite3.Connection, refuses: Refuses
) -> None:
    row = insert(connection, "VERIFIED", demonstration=False)
    sql = "UPDATE model_package SET state = 'APPROVED' WHERE id = ?"
    assert refuses(sql, row)
    digest = connection.execute("SELECT digest FROM model_package").fetchone()["digest"]
    approval = Approval(person="A", person_key="a", note="", account="x", wall_us=1)
    add_approval(connection, digest, approval)
    assert not refuses(sql, row)


def test_a_person_approves_a_package_once(connection: sqlite3.Connection) -> None:
    insert(connection, "VERIFIED")
    digest = connection.execute("SELECT digest FROM model_package").fetchone()["digest"]
    approval = Approval(person="A", person_key="a", note="", account="x", wall_us=1)
    add_approval(connection, digest, approval)
    with pytest.raises(sqlite3.IntegrityError):
        add_approval(connection, digest, approval)


@pytest.mark.parametrize("column", ["digest", "name", "version", "demonstration"])
def test_what_a_package_is_never_changes(
    connection: sqlite3.Connection, refuses: Refuses, column: str
) -> None:
    insert(connection, "ACTIVE")
    value = 0 if column == "demonstration" else "cd" * 32
    assert refuses(f"UPDATE model_package SET {column} = ?", value)


def test_the_head_of_the_chain_neither_skips_nor_goes_back(connection: sqlite3.Connection) -> None:
    assert read_audit_head(connection) is None
    first = AuditHead(seq=1, hash="0" * 64)
    advance_audit_head(connection, first)
    assert read_audit_head(connection) == first
    for seq in (1, 3):
        with pytest.raises(sqlite3.IntegrityError):
            advance_audit_head(connection, AuditHead(seq=seq, hash="1" * 64))
    advance_audit_head(connection, AuditHead(seq=2, hash="1" * 64))


def test_what_is_installed_is_not_in_use(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        insert_package(
            connection,
            digest=DIGEST,
            name="m",
            version="1.0.0",
            demonstration=True,
            by="x",
            wall_us=1,
        )
    assert packages_in_use(connection) == ()
    (package,) = list_packages(connection)
    assert (package.state, package.approvals) == (PackageState.INSTALLED, ())


# ---------------------------------------------------------------- shadow analyses


def insert_analysis(connection: sqlite3.Connection, *, is_shadow: bool, urgency: int = 0) -> int:
    connection.execute(
        "INSERT OR IGNORE INTO study (id, study_key, study_instance_uid, identity, state, "
        "revision, received_wall_us) VALUES (1, 's', '1.2', '{}', 'RECEIVING', 1, 1)"
    )
    row = connection.execute(
        "INSERT INTO analysis (study_id, revision, model_name, model_version, urgency, state, "
        "queued_wall_us, is_shadow) VALUES (1, 1, 'm', '1.0.0', ?, 'QUEUED', 1, ?) RETURNING id",
        (urgency, is_shadow),
    ).fetchone()
    return int(row["id"])


def test_a_model_and_its_shadow_look_at_the_same_revision(connection: sqlite3.Connection) -> None:
    insert_analysis(connection, is_shadow=False, urgency=3)
    insert_analysis(connection, is_shadow=True)
    with pytest.raises(sqlite3.IntegrityError):
        insert_analysis(connection, is_shadow=True)


def test_a_shadow_has_no_urgency_and_no_delivery(
    connection: sqlite3.Connection, refuses: Refuses
) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert_analysis(connection, is_shadow=True, urgency=1)
    sql = (
        "INSERT INTO delivery (analysis_id, channel, state, due_boot_id, due_mono_us) "
        "VALUES (?, 'forward', 'PENDING', 'b', 0)"
    )
    assert refuses(sql, insert_analysis(connection, is_shadow=True))
    assert not refuses(sql, insert_analysis(connection, is_shadow=False))


def test_analyses_of_an_earlier_release_keep_their_numbers_and_deliveries(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old = sqlite3.connect(path, isolation_level=None)
    old.row_factory = sqlite3.Row
    old.execute("PRAGMA foreign_keys = ON")
    migrate(old, load_migrations()[:5])
    old.execute(
        "INSERT INTO study (id, study_key, study_instance_uid, identity, state, revision, "
        "received_wall_us) VALUES (1, 's', '1.2', '{}', 'RECEIVING', 1, 1)"
    )
    for revision in (1, 2, 3):
        old.execute(
            "INSERT INTO analysis (study_id, revision, model_name, model_version, urgency, state, "
            "queued_wall_us) VALUES (1, ?, 'm', '1.0.0', 3, 'QUEUED', 1)",
            (revision,),
        )
    old.execute(
        "INSERT INTO delivery (analysis_id, channel, state, due_boot_id, due_mono_us) "
        "VALUES (2, 'forward', 'PENDING', 'b', 0)"
    )
    old.execute("DELETE FROM analysis WHERE id = 3")  # retention has taken it
    old.close()
    connection = connect(path)
    rows = connection.execute("SELECT id, revision, state, is_shadow FROM analysis ORDER BY id")
    assert [tuple(row) for row in rows] == [
        (1, 1, AnalysisState.QUEUED.value, 0),
        (2, 2, AnalysisState.QUEUED.value, 0),
    ]
    assert connection.execute("SELECT analysis_id FROM delivery").fetchone()[0] == 2
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("DELETE FROM analysis WHERE id = 2")
    number = connection.execute(
        "INSERT INTO analysis (study_id, revision, model_name, model_version, urgency, state, "
        "queued_wall_us) VALUES (1, 3, 'm', '1.0.0', 3, 'QUEUED', 1) RETURNING id"
    ).fetchone()["id"]
    assert number == 4, "no number comes again"
    connection.close()

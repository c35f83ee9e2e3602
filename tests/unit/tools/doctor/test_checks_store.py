from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.clock import SystemClock
from edge_runtime.store.alarms import AlarmCode, raise_alarm
from edge_runtime.store.database import connect, load_migrations, transaction
from telemetry.ledger import Ledger, LedgerRecord
from tools.doctor.checks_store import (
    ALARMS,
    check_alarms,
    check_database,
    check_deliveries,
    check_ledger,
)
from tools.doctor.findings import Context, Status

MakeContext = Callable[..., Context]

DEAD_DELIVERY = """
INSERT INTO study (study_key, study_instance_uid, identity, state, revision, received_wall_us)
VALUES ('s1', '1.2.3', '{}', 'RECEIVING', 1, 1);
INSERT INTO analysis (study_id, revision, model_name, model_version, urgency, state, queued_wall_us)
VALUES (1, 1, 'm', '1', 3, 'QUEUED', 1);
INSERT INTO delivery (analysis_id, channel, state, due_boot_id, due_mono_us, error_code)
VALUES (1, 'structured_report', 'DEAD', 'b', 1, 'peer_unreachable');
"""


@pytest.fixture
def database(state_dir: Path) -> Path:
    path = state_dir / "triage.db"
    connect(path).close()
    return path


def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(
    make_context: MakeContext, state_dir: Path
) -> None:
    for check in (check_database, check_alarms, check_deliveries, check_ledger):
        assert check(make_context()).status is Status.OK
    assert list(state_dir.iterdir()) == []


def test_a_whole_database_is_fine(make_context: MakeContext, database: Path) -> None:
    assert database.exists()
    for check in (check_database, check_alarms, check_deliveries):
        assert check(make_context()).status is Status.OK


def test_a_database_of_a_later_release_fails_and_is_left_alone(
    make_context: MakeContext, database: Path
) -> None:
    later = len(load_migrations()) + 7
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA user_version = {later}")
    found = check_database(make_context())
    assert found.status is Status.FAILED
    assert str(later) in found.found
    assert "later" in (found.remedy or "")


def test_a_file_that_is_no_database_fails(make_context: MakeContext, state_dir: Path) -> None:
    (state_dir / "triage.db").write_bytes(b"no database " * 1_000)
    found = check_database(make_context())
    assert found.status is Status.FAILED
    assert "triage.db" in (found.remedy or "")
    for check in (check_alarms, check_deliveries):
        assert check(make_context()).status is Status.WARNING


def test_a_damaged_database_fails(make_context: MakeContext, database: Path) -> None:
    page = 4096
    content = bytearray(database.read_bytes())
    for start in range(page, len(content), page):
        content[start + 8 : start + 200] = b"\xa5" * 192
    database.write_bytes(content)
    found = check_database(make_context())
    assert found.status is Status.FAILED
    assert "damaged" in found.found
    assert "spool" in (found.remedy or "")


def test_standing_alarms_are_counted_by_code(make_context: MakeContext, database: Path) -> None:
    with contextlib.closing(connect(database)) as connection, transaction(connection):
        at = SystemClock().now()
        raise_alarm(connection, AlarmCode.FILE_MISSING, at, subject="canary-1")
        raise_alarm(connection, AlarmCode.FILE_MISSING, at, subject="canary-2")
    found = check_alarms(make_context())
    assert found.status is Status.WARNING
    assert "2 × FILE_MISSING" in found.found
    assert found.remedy
    assert "canary" not in f"{found}"


def test_every_alarm_is_explained() -> None:
    assert set(ALARMS) == set(AlarmCode)


def test_dead_deliveries_are_counted(make_context: MakeContext, database: Path) -> None:
    with contextlib.closing(connect(database)) as connection:
        connection.executescript(DEAD_DELIVERY)
    found = check_deliveries(make_context())
    assert found.status is Status.WARNING
    assert found.found.startswith("1 ")
    assert found.remedy


def _write_ledger(state_dir: Path) -> Path:
    with Ledger(state_dir / "ledger") as ledger:
        ledger.append([LedgerRecord(topic="t", payload=b'{"a":1}')] * 3, 1)
        return ledger.path


def test_a_whole_ledger_is_fine(make_context: MakeContext, state_dir: Path) -> None:
    _write_ledger(state_dir)
    found = check_ledger(make_context())
    assert found.status is Status.OK
    assert found.found.startswith("3 entries")


def test_a_ledger_that_was_changed_fails_and_its_line_is_named(
    make_context: MakeContext, state_dir: Path
) -> None:
    path = _write_ledger(state_dir)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    found = check_ledger(make_context())
    assert found.status is Status.FAILED
    assert "line 2" in found.found
    assert "privacy officer" in (found.remedy or "")

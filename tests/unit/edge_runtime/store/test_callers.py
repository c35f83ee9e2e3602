from __future__ import annotations

import itertools
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock
from structlog.testing import capture_logs

from dicom_node.admission import Call, Reason, RefusalReason
from dicom_node.errors import HandshakeFault
from edge_runtime.store.callers import (
    MAX_CALLERS,
    MAX_CALLERS_PER_ADDRESS,
    CallerNotes,
    list_callers,
)
from edge_runtime.store.database import connect

_CALL = Call(calling_ae_title="CT1", called_ae_title="NODE", address="192.0.2.1")
_UNKNOWN = RefusalReason.CALLING_AE_TITLE


@pytest.fixture
def notes(connection: sqlite3.Connection, clock: HandClock) -> CallerNotes:
    return CallerNotes(connection, clock)


def test_a_refused_caller_is_durable_with_all_that_is_known_of_it(
    notes: CallerNotes, connection: sqlite3.Connection, database: Path, clock: HandClock
) -> None:
    encrypted = replace(_CALL, is_encrypted=True, certificate_sha256="ab" * 32)
    notes.note(encrypted, RefusalReason.CERTIFICATE)
    notes.write()
    connection.close()
    with closing(connect(database)) as other:
        (view,) = list_callers(other)
    assert view.call == encrypted
    assert view.reason is RefusalReason.CERTIFICATE
    assert view.first_seen_wall_us == view.last_seen_wall_us == clock.now().wall_us
    assert view.calls == 1


def test_calls_of_one_caller_are_counted_in_one_row(
    notes: CallerNotes, connection: sqlite3.Connection, clock: HandClock
) -> None:
    first = clock.now().wall_us
    for _ in range(3):
        notes.note(_CALL, _UNKNOWN)
        notes.note(_CALL, _UNKNOWN)
        notes.write()
        clock.advance(2)
    (view,) = list_callers(connection)
    assert view.calls == 6
    assert (view.first_seen_wall_us, view.last_seen_wall_us) == (first, first + 4_000_000)


def test_a_caller_costs_at_most_one_write_a_second(
    notes: CallerNotes, connection: sqlite3.Connection, clock: HandClock
) -> None:
    writes: list[str] = []
    connection.set_trace_callback(
        lambda statement: writes.append(statement) if statement.startswith("INSERT") else None
    )
    for _ in range(100):
        notes.note(_CALL, _UNKNOWN)
        notes.write()
        clock.advance(0.1)
    connection.set_trace_callback(None)
    assert len(writes) == 10


def test_nothing_is_written_while_nobody_calls(
    notes: CallerNotes, connection: sqlite3.Connection, clock: HandClock
) -> None:
    before = connection.total_changes
    for _ in range(5):
        notes.write()
        clock.advance(2)
    assert connection.total_changes == before


def test_each_reason_and_each_way_to_call_has_its_own_row(
    notes: CallerNotes, connection: sqlite3.Connection
) -> None:
    variants: list[tuple[Call, Reason]] = [
        (_CALL, _UNKNOWN),
        (_CALL, RefusalReason.ADDRESS),
        (replace(_CALL, is_encrypted=True), _UNKNOWN),
        (replace(_CALL, called_ae_title="X"), RefusalReason.CALLED_AE_TITLE),
        (Call(calling_ae_title="", called_ae_title="", address="fd00::1"), HandshakeFault.NO_TLS),
    ]
    for call, reason in variants:
        notes.note(call, reason)
    notes.write()
    assert {(view.call, view.reason) for view in list_callers(connection)} == set(variants)


def test_the_oldest_caller_goes_when_the_table_is_full(
    notes: CallerNotes, connection: sqlite3.Connection, clock: HandClock
) -> None:
    for number in range(MAX_CALLERS + 10):
        notes.note(replace(_CALL, address=f"10.0.{number // 250}.{number % 250}"), _UNKNOWN)
        notes.write()
        clock.advance(2)
    addresses = [view.call.address for view in list_callers(connection)]
    assert len(addresses) == MAX_CALLERS
    assert addresses[-1] == "10.0.0.10"


def test_a_flood_from_one_address_does_not_push_out_the_others(
    notes: CallerNotes, connection: sqlite3.Connection, clock: HandClock
) -> None:
    notes.note(_CALL, _UNKNOWN)
    notes.write()
    titles = itertools.count()
    for _ in range(20):
        clock.advance(2)
        for _ in range(300):
            notes.note(
                replace(_CALL, address="192.0.2.66", calling_ae_title=f"X{next(titles)}"), _UNKNOWN
            )
        notes.note(replace(_CALL, address="192.0.2.7"), _UNKNOWN)
        notes.write()
    addresses = [view.call.address for view in list_callers(connection)]
    assert addresses.count("192.0.2.66") == MAX_CALLERS_PER_ADDRESS
    assert {"192.0.2.1", "192.0.2.7"} < set(addresses)


def test_addresses_are_kept_as_the_settings_take_them(
    notes: CallerNotes, connection: sqlite3.Connection
) -> None:
    notes.note(replace(_CALL, address="::ffff:192.0.2.9"), _UNKNOWN)
    notes.write()
    (view,) = list_callers(connection)
    assert view.call.address == "192.0.2.9"
    with pytest.raises(ValueError, match="nowhere"):
        notes.note(replace(_CALL, address="nowhere"), _UNKNOWN)


def test_a_database_that_cannot_be_written_is_logged_without_the_caller(
    notes: CallerNotes, connection: sqlite3.Connection
) -> None:
    connection.execute("PRAGMA query_only = ON")
    notes.note(replace(_CALL, calling_ae_title="CANARY"), _UNKNOWN)
    with capture_logs() as logs:
        notes.write()
    assert [each["event"] for each in logs] == ["node.callers_not_recorded"]
    assert "CANARY" not in repr(logs)


def test_calls_may_be_noted_from_many_threads(
    notes: CallerNotes, connection: sqlite3.Connection, clock: HandClock
) -> None:
    def call_often() -> None:
        for _ in range(200):
            notes.note(_CALL, _UNKNOWN)

    threads = [threading.Thread(target=call_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        notes.write()
        clock.advance(2)
    clock.advance(2)
    notes.write()
    (view,) = list_callers(connection)
    assert view.calls == 800


def test_every_reason_stands_in_the_check_of_its_column(connection: sqlite3.Connection) -> None:
    (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'caller'").fetchone()
    for reason in (*RefusalReason, *HandshakeFault):
        assert f"'{reason.name}'" in sql
    assert not set(RefusalReason.__members__) & set(HandshakeFault.__members__)


def test_no_text_of_a_view_shows_who_called(
    notes: CallerNotes, connection: sqlite3.Connection
) -> None:
    notes.note(replace(_CALL, calling_ae_title="CANARY"), _UNKNOWN)
    notes.write()
    assert "CANARY" not in repr(list_callers(connection))

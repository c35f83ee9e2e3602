"""What retention reads before it decides: the clock of ages, and all studies with what keeps them.

Each write is a short transaction of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from edge_runtime.model.clock import Instant
from edge_runtime.model.holding import HoldCause, Holding, passed_us
from edge_runtime.store.alarms import AlarmCode, clear_alarm, raise_alarm
from edge_runtime.store.database import transaction

_HOLDINGS = (
    "SELECT study.id AS study_id, study.revision AS revision, "
    "CASE WHEN settled.revision = study.revision THEN since_us END AS since_us, "
    "study.state = 'RECEIVING' AS receiving, "
    "EXISTS (SELECT 1 FROM analysis WHERE study_id = study.id "
    "  AND state IN ('QUEUED', 'RUNNING')) AS undecided, "
    "EXISTS (SELECT 1 FROM analysis JOIN delivery ON analysis_id = analysis.id "
    "  WHERE study_id = study.id AND delivery.state = 'PENDING') AS undelivered, "
    "EXISTS (SELECT 1 FROM analysis JOIN delivery ON analysis_id = analysis.id "
    "  WHERE study_id = study.id AND delivery.state = 'DEAD' "
    "  AND delivery.id NOT IN (SELECT delivery_id FROM released)) AS given_up, "
    "held_until_wall_us > ? AS promised "
    "FROM study LEFT JOIN settled ON settled.study_id = study.id "
    "WHERE study.id NOT IN (SELECT study_id FROM departing)"
)
_CAUSES = (
    HoldCause.RECEIVING,
    HoldCause.UNDECIDED,
    HoldCause.UNDELIVERED,
    HoldCause.GIVEN_UP,
    HoldCause.PROMISED,
)
_SETTLE = (
    "INSERT INTO settled (study_id, revision, since_us) SELECT id, revision, ? FROM study "
    "WHERE state = 'COMPLETE' "
    "AND NOT EXISTS (SELECT 1 FROM settled WHERE study_id = study.id "
    "  AND settled.revision = study.revision) "
    "AND NOT EXISTS (SELECT 1 FROM analysis WHERE study_id = study.id "
    "  AND state IN ('QUEUED', 'RUNNING')) "
    "ON CONFLICT (study_id) DO UPDATE "
    "SET revision = excluded.revision, since_us = excluded.since_us"
)


def advance_age_clock(connection: sqlite3.Connection, now: Instant) -> int:
    """Let the clock of ages go on, and note on it which studies are decided since the last call.

    Right after a restart, until the time service answers, it stands still and nothing is noted.

    Returns:
        The clock, in microseconds.
    """
    with transaction(connection):
        row = connection.execute("SELECT * FROM age_clock").fetchone()
        age_us = 0
        if row is not None:
            age_us = int(row["age_us"])
            more_us = passed_us(_instant(row), now)
            if more_us is None:
                return age_us
            age_us += more_us
        connection.execute(
            "INSERT OR REPLACE INTO age_clock VALUES (1, ?, ?, ?, ?, ?)",
            (age_us, now.wall_us, now.mono_us, now.boot_id, int(now.clock_synced)),
        )
        connection.execute(_SETTLE, (age_us,))
    return age_us


def _instant(row: sqlite3.Row) -> Instant:
    return Instant(
        wall_us=row["wall_us"],
        mono_us=row["mono_us"],
        boot_id=row["boot_id"],
        clock_synced=bool(row["clock_synced"]),
    )


def last_sweep_wall_us(connection: sqlite3.Connection) -> int | None:
    """Return when retention last worked; None: never yet."""
    row = connection.execute("SELECT wall_us FROM age_clock").fetchone()
    return int(row["wall_us"]) if row else None


def read_holdings(connection: sqlite3.Connection, now: Instant) -> tuple[Holding, ...]:
    """Return every study that is not leaving already, the first decided first."""
    rows = connection.execute(
        f"{_HOLDINGS} ORDER BY since_us IS NULL, since_us, study.id", (now.wall_us,)
    )
    return tuple(_holding(row) for row in rows)


def read_holding(connection: sqlite3.Connection, study_id: int, now: Instant) -> Holding | None:
    """Return one study, unless it has left or is leaving."""
    row = connection.execute(f"{_HOLDINGS} AND study.id = ?", (now.wall_us, study_id)).fetchone()
    return _holding(row) if row else None


def _holding(row: sqlite3.Row) -> Holding:
    return Holding(
        study_id=row["study_id"],
        revision=row["revision"],
        since_us=row["since_us"],
        causes=tuple(cause for cause in _CAUSES if row[cause.value]),
    )


def show_causes(
    connection: sqlite3.Connection, code: AlarmCode, causes: Collection[HoldCause], now: Instant
) -> None:
    """Let an alarm stand for each of these causes, and for no other."""
    wanted = {cause.value for cause in causes}
    rows = connection.execute(
        "SELECT subject FROM alarm WHERE code = ? AND cleared_wall_us IS NULL", (code.value,)
    )
    standing = {row["subject"] for row in rows}
    if standing == wanted:
        return
    with transaction(connection):
        for subject in standing - wanted:
            clear_alarm(connection, code, subject, now)
        for subject in wanted - standing:
            raise_alarm(connection, code, now, subject=subject)

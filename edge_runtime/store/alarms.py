"""Alarms stand until what caused them is gone or a person clears them; each stands once."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum

from edge_runtime.model.clock import Instant


class AlarmCode(str, Enum):
    """What may be wrong on a device; stable, sent as telemetry."""

    COMMITMENT_DEAD = "COMMITMENT_DEAD"
    CONFLICTING_DUPLICATE = "CONFLICTING_DUPLICATE"
    DELIVERY_DEAD = "DELIVERY_DEAD"
    DISK_PRESSURE = "DISK_PRESSURE"
    ENGINE_FALLBACK = "ENGINE_FALLBACK"
    ENGINE_MISSING = "ENGINE_MISSING"
    FILE_MISSING = "FILE_MISSING"
    MODEL_REFUSED = "MODEL_REFUSED"
    MPPS_RELAY_DEAD = "MPPS_RELAY_DEAD"
    RETENTION_OVERDUE = "RETENTION_OVERDUE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One standing alarm; ``study_key`` is opaque."""

    code: AlarmCode
    study_key: str | None
    subject: str
    raised_wall_us: int


def raise_alarm(
    connection: sqlite3.Connection,
    code: AlarmCode,
    at: Instant,
    *,
    study_id: int | None = None,
    subject: str = "",
) -> None:
    """Raise an alarm unless it stands already. Runs in the caller's transaction."""
    connection.execute(
        "INSERT INTO alarm (code, study_id, subject, raised_wall_us) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        (code.value, study_id, subject, at.wall_us),
    )


def clear_alarm(connection: sqlite3.Connection, code: AlarmCode, subject: str, at: Instant) -> None:
    """Clear a standing alarm. Runs in the caller's transaction."""
    connection.execute(
        "UPDATE alarm SET cleared_wall_us = ? "
        "WHERE code = ? AND subject = ? AND cleared_wall_us IS NULL",
        (at.wall_us, code.value, subject),
    )


def standing_alarms(connection: sqlite3.Connection) -> tuple[Alarm, ...]:
    """Return the alarms that stand, the newest first."""
    rows = connection.execute(
        "SELECT code, study_key, subject, raised_wall_us FROM alarm "
        "LEFT JOIN study ON study.id = study_id WHERE cleared_wall_us IS NULL "
        "ORDER BY raised_wall_us DESC"
    )
    return tuple(
        Alarm(
            code=AlarmCode(row["code"]),
            study_key=row["study_key"],
            subject=row["subject"],
            raised_wall_us=row["raised_wall_us"],
        )
        for row in rows
    )

"""Reads and writes the clock of a study."""

from __future__ import annotations

import sqlite3

from edge_runtime.model.clock import Instant, Mark, Stamp

_COLUMNS = "study_id, revision, mark, subject, wall_us, mono_us, boot_id, clock_synced"


def stamp(
    connection: sqlite3.Connection,
    study_id: int,
    revision: int,
    mark: Mark,
    at: Instant,
    *,
    subject: str = "",
) -> None:
    """Stamp a mark once; a second stamp changes nothing. Runs in the caller's transaction."""
    connection.execute(
        f"INSERT INTO stamp ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        _values(study_id, revision, mark, at, subject),
    )


def move_stamp(
    connection: sqlite3.Connection, study_id: int, revision: int, mark: Mark, at: Instant
) -> None:
    """Stamp a mark that moves on, such as the last instance stored."""
    moved = connection.execute(
        "UPDATE stamp SET wall_us = ?, mono_us = ?, boot_id = ?, clock_synced = ? "
        "WHERE study_id = ? AND revision = ? AND mark = ? AND subject = ''",
        (
            at.wall_us,
            at.mono_us,
            at.boot_id,
            int(at.clock_synced),
            study_id,
            revision,
            mark.value,
        ),
    )
    if not moved.rowcount:
        stamp(connection, study_id, revision, mark, at)


def read_stamps(connection: sqlite3.Connection, study_id: int) -> tuple[Stamp, ...]:
    """Return every stamp of a study, the oldest revision first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM stamp WHERE study_id = ? ORDER BY revision, wall_us, mark",
        (study_id,),
    )
    return tuple(
        Stamp(
            revision=row["revision"],
            mark=Mark(row["mark"]),
            subject=row["subject"],
            at=Instant(
                wall_us=row["wall_us"],
                mono_us=row["mono_us"],
                boot_id=row["boot_id"],
                clock_synced=bool(row["clock_synced"]),
            ),
        )
        for row in rows
    )


def _values(
    study_id: int, revision: int, mark: Mark, at: Instant, subject: str
) -> tuple[int, int, str, str, int, int, str, int]:
    return (
        study_id,
        revision,
        mark.value,
        subject,
        at.wall_us,
        at.mono_us,
        at.boot_id,
        int(at.clock_synced),
    )

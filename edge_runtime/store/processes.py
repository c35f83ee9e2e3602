"""Which processes of the device live, and how much memory each takes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum

from edge_runtime.model.clock import Instant
from edge_runtime.store.database import transaction


class Role(str, Enum):
    """The four processes of DESIGN.md section 4."""

    NODE = "node"
    WORKER = "worker"
    COURIER = "courier"
    WEB = "web"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessView:
    """One process as it last reported."""

    role: Role
    pid: int
    started_wall_us: int
    beat_wall_us: int
    rss_bytes: int
    peak_rss_bytes: int


def record_beat(
    connection: sqlite3.Connection,
    role: Role,
    *,
    pid: int,
    started_wall_us: int,
    rss_bytes: int,
    peak_rss_bytes: int,
    at: Instant,
) -> None:
    """Report that a process lives."""
    with transaction(connection):
        connection.execute(
            "INSERT INTO process VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (role) DO UPDATE SET "
            "pid = excluded.pid, started_wall_us = excluded.started_wall_us, "
            "beat_wall_us = excluded.beat_wall_us, rss_bytes = excluded.rss_bytes, "
            "peak_rss_bytes = excluded.peak_rss_bytes",
            (role.value, pid, started_wall_us, at.wall_us, rss_bytes, peak_rss_bytes),
        )


def list_processes(connection: sqlite3.Connection) -> tuple[ProcessView, ...]:
    """Return every process that ever reported, in the order of the way of a study."""
    rows = {row["role"]: row for row in connection.execute("SELECT * FROM process")}
    return tuple(
        ProcessView(
            role=role,
            pid=row["pid"],
            started_wall_us=row["started_wall_us"],
            beat_wall_us=row["beat_wall_us"],
            rss_bytes=row["rss_bytes"],
            peak_rss_bytes=row["peak_rss_bytes"],
        )
        for role in Role
        if (row := rows.get(role.value)) is not None
    )

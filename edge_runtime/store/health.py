"""How the device is: what waits, what failed, what its disk and its processes say."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.model.clock import Instant
from edge_runtime.store.processes import ProcessView, list_processes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHealth:
    """One look at the device."""

    waiting: int
    """Analyses that are not decided."""
    oldest_waiting_s: int
    dead_deliveries: int
    disk_free_percent: int
    processes: tuple[ProcessView, ...]


def read_health(connection: sqlite3.Connection, state_dir: Path, at: Instant) -> DeviceHealth:
    """Look at the device."""
    waiting, oldest = connection.execute(
        "SELECT count(*), min(queued_wall_us) FROM analysis WHERE state IN ('QUEUED', 'RUNNING')"
    ).fetchone()
    dead = connection.execute("SELECT count(*) FROM delivery WHERE state = 'DEAD'").fetchone()[0]
    disk = shutil.disk_usage(state_dir)
    return DeviceHealth(
        waiting=waiting,
        oldest_waiting_s=0 if oldest is None else max(0, (at.wall_us - oldest) // 1_000_000),
        dead_deliveries=dead,
        disk_free_percent=disk.free * 100 // disk.total,
        processes=list_processes(connection),
    )

"""The device's own identity: opaque, made once, kept for ever."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass

from edge_runtime.store.database import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """``device_id`` may leave the site; ``uid_root_token`` makes our UIDs and never does."""

    device_id: str
    uid_root_token: str
    boots: int


def read_device(connection: sqlite3.Connection) -> DeviceIdentity:
    """Return the device's identity, made at the first call."""
    with transaction(connection):
        connection.execute(
            "INSERT INTO device (id, device_id, uid_root_token) VALUES (1, ?, ?) "
            "ON CONFLICT DO NOTHING",
            (f"d{secrets.token_hex(8)}", secrets.token_hex(16)),
        )
        row = connection.execute("SELECT * FROM device").fetchone()
    return DeviceIdentity(
        device_id=row["device_id"], uid_root_token=row["uid_root_token"], boots=row["boots"]
    )


def count_boot(connection: sqlite3.Connection) -> None:
    """Count one start of the device."""
    with transaction(connection):
        connection.execute("UPDATE device SET boots = boots + 1")

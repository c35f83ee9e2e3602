"""What the device left on disk, read without changing it: who runs, and the database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.config.settings import Settings
from edge_runtime.file_locks import LockKind, takes_lock
from edge_runtime.process import database_path
from edge_runtime.store.processes import ProcessView, Role, list_processes

_BUSY_S = 2.0


@contextlib.contextmanager
def read_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database for reading only: no migration, no write, no lock that a writer minds.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    address = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=_BUSY_S)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def is_visible(path: Path) -> bool:
    """True where ``path`` exists and this user may know it; ``Path.exists`` raises otherwise."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def running_processes(settings: Settings) -> dict[Role, ProcessView]:
    """Return our processes that live: each holds its lock, and the pid in its row exists.

    The row alone proves nothing: the pid may belong to another program by now.
    """
    locked = locked_roles(settings)
    if not locked:
        return {}
    try:
        with read_database(database_path(settings)) as connection:
            rows = list_processes(connection)
    except sqlite3.Error:
        return {}
    return {
        row.role: row for row in rows if row.role in locked and Path(f"/proc/{row.pid}").exists()
    }


def locked_roles(settings: Settings) -> frozenset[Role]:
    """Return the roles that a process has taken, be it that it has only begun to start."""
    folder = settings.device.state_dir
    return frozenset(role for role in Role if _is_locked(folder / f"{role.value}.lock"))


def _is_locked(path: Path) -> bool:
    """Ask for a shared lock and give it back at once; flock(2) has no way to only look."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not takes_lock(handle, LockKind.SHARED)
    finally:
        os.close(handle)

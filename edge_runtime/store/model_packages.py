"""The model packages of this device: their states, their approvals, and which the worker runs.

Rows are written by ``governance`` only, together with the head of the audit chain: what stands here
stands there too. Everything that writes runs in the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from edge_runtime.model.model_package import PACKAGE_TRANSITIONS, PackageEvent, PackageState
from edge_runtime.model.transitions import next_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One person's approval of one package."""

    person: str
    person_key: str
    """The name in the form in which names are compared."""
    note: str
    account: str
    """The account of the operating system that recorded it."""
    wall_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPackage:
    """One package as the device knows it."""

    digest: str
    name: str
    version: str
    demonstration: bool
    state: PackageState
    refusal: str
    """Why the verification failed; empty in every other state."""
    is_fallback: bool
    """A rollback returns to it."""
    is_removed: bool
    """Its files are gone."""
    installed_wall_us: int
    moved_wall_us: int
    moved_by: str
    """Who caused its last change of state."""
    approvals: tuple[Approval, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedPackage:
    """A package that the worker runs."""

    digest: str
    name: str
    is_shadow: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The last entry of the audit chain whose effect stands in the database."""

    seq: int
    hash: str


def list_packages(connection: sqlite3.Connection) -> tuple[StoredPackage, ...]:
    """Return every package that was ever installed, by name, the oldest first."""
    approvals: dict[int, list[Approval]] = {}
    for row in connection.execute("SELECT * FROM model_approval ORDER BY wall_us, person_key"):
        approval = Approval(
            person=row["person"],
            person_key=row["person_key"],
            note=row["note"],
            account=row["account"],
            wall_us=row["wall_us"],
        )
        approvals.setdefault(row["package_id"], []).append(approval)
    return tuple(
        StoredPackage(
            digest=row["digest"],
            name=row["name"],
            version=row["version"],
            demonstration=bool(row["demonstration"]),
            state=PackageState(row["state"]),
            refusal=row["refusal"],
            is_fallback=bool(row["is_fallback"]),
            is_removed=bool(row["is_removed"]),
            installed_wall_us=row["installed_wall_us"],
            moved_wall_us=row["moved_wall_us"],
            moved_by=row["moved_by"],
            approvals=tuple(approvals.get(row["id"], ())),
        )
        for row in connection.execute("SELECT * FROM model_package ORDER BY name, id")
    )


def packages_in_use(connection: sqlite3.Connection) -> tuple[UsedPackage, ...]:
    """Return what the worker runs, by name, an active package before its shadow."""
    return tuple(
        UsedPackage(
            digest=row["digest"],
            name=row["name"],
            is_shadow=row["state"] == PackageState.SHADOW.value,
        )
        for row in connection.execute(
            "SELECT digest, name, state FROM model_package WHERE state IN ('ACTIVE', 'SHADOW') "
            "ORDER BY name, state"
        )
    )


def packages_on_disk(connection: sqlite3.Connection) -> tuple[tuple[str, str, str], ...]:
    """Return digest, name and version of every package whose files are here."""
    return tuple(
        (row["digest"], row["name"], row["version"])
        for row in connection.execute(
            "SELECT digest, name, version FROM model_package WHERE is_removed = 0 ORDER BY id"
        )
    )


def insert_package(
    connection: sqlite3.Connection,
    *,
    digest: str,
    name: str,
    version: str,
    demonstration: bool,
    by: str,
    wall_us: int,
) -> None:
    """Add a package that is on disk; one that was retired or refused begins anew."""
    if _find(connection, digest) is not None:
        move_package(
            connection, digest, PackageEvent.INSTALLED_AGAIN, by=by, wall_us=wall_us, refusal=""
        )
        connection.execute(
            "DELETE FROM model_approval WHERE package_id = "
            "(SELECT id FROM model_package WHERE digest = ?)",
            (digest,),
        )
        return
    connection.execute(
        "INSERT INTO model_package (digest, name, version, demonstration, state, "
        "installed_wall_us, moved_wall_us, moved_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            digest,
            name,
            version,
            int(demonstration),
            PackageState.INSTALLED.value,
            wall_us,
            wall_us,
            by,
        ),
    )


def move_package(
    connection: sqlite3.Connection,
    digest: str,
    event: PackageEvent,
    *,
    by: str,
    wall_us: int,
    refusal: str = "",
    is_removed: bool = False,
) -> None:
    """Move a package as its table says.

    ``is_removed``: its files are to go. Only what was superseded is a fallback.

    Raises:
        IllegalTransitionError: the table has no such move; nothing is changed.
    """
    row = _find(connection, digest)
    state = next_state(PACKAGE_TRANSITIONS, PackageState(row["state"] if row else ""), event)
    connection.execute(
        "UPDATE model_package SET state = ?, refusal = ?, is_fallback = ?, is_removed = ?, "
        "moved_wall_us = ?, moved_by = ? WHERE digest = ?",
        (
            state.value,
            refusal,
            int(event is PackageEvent.SUPERSEDED),
            int(is_removed),
            wall_us,
            by,
            digest,
        ),
    )


def remove_package(connection: sqlite3.Connection, digest: str) -> None:
    """Note that the files of a retired package go; nothing returns to it."""
    connection.execute(
        "UPDATE model_package SET is_fallback = 0, is_removed = 1 WHERE digest = ?", (digest,)
    )


def add_approval(connection: sqlite3.Connection, digest: str, approval: Approval) -> None:
    """Record one person's approval."""
    connection.execute(
        "INSERT INTO model_approval (package_id, person_key, person, note, account, wall_us) "
        "SELECT id, ?, ?, ?, ?, ? FROM model_package WHERE digest = ?",
        (
            approval.person_key,
            approval.person,
            approval.note,
            approval.account,
            approval.wall_us,
            digest,
        ),
    )


def read_audit_head(connection: sqlite3.Connection) -> AuditHead | None:
    """Return the last entry of the audit chain whose effect stands here; None before the first."""
    row = connection.execute("SELECT seq, hash FROM audit_head").fetchone()
    return None if row is None else AuditHead(seq=row["seq"], hash=row["hash"])


def advance_audit_head(connection: sqlite3.Connection, head: AuditHead) -> None:
    """Note that the effect of an entry stands here now."""
    connection.execute(
        "INSERT INTO audit_head (id, seq, hash) VALUES (1, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
        (head.seq, head.hash),
    )


def _find(connection: sqlite3.Connection, digest: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(
        "SELECT state FROM model_package WHERE digest = ?", (digest,)
    ).fetchone()
    return row

"""What an entry of the audit chain does to the database: once, in the chain's order.

The same function serves an action right after its entry was written, and the next start after a
crash in between: there is no other way by which a package changes its state.
"""

from __future__ import annotations

import sqlite3

from edge_runtime.governance.records import (
    Activated,
    Approved,
    AuditRecord,
    Installed,
    Refused,
    Released,
    Retired,
    RolledBack,
    Shadowed,
    Verified,
)
from edge_runtime.model.model_package import PackageEvent
from edge_runtime.store.model_packages import (
    Approval,
    add_approval,
    insert_package,
    move_package,
    remove_package,
)

_SIMPLE_MOVES = {
    Verified: PackageEvent.PASSED,
    Released: PackageEvent.APPROVED,
    Shadowed: PackageEvent.SHADOWED,
}


def apply_record(
    connection: sqlite3.Connection, record: AuditRecord, *, by: str, wall_us: int
) -> None:
    """Bring a record's effect about. Runs in the caller's transaction.

    Raises:
        IllegalTransitionError, ValueError: the database is not the one that the entry was made for.
    """
    if isinstance(record, Installed):
        insert_package(
            connection,
            digest=record.digest,
            name=record.name,
            version=record.version,
            demonstration=record.demonstration,
            by=by,
            wall_us=wall_us,
        )
    elif isinstance(record, Verified | Released | Shadowed):
        event = _SIMPLE_MOVES[type(record)]
        move_package(connection, record.digest, event, by=by, wall_us=wall_us)
    elif isinstance(record, Refused):
        move_package(
            connection,
            record.digest,
            PackageEvent.FAILED,
            by=by,
            wall_us=wall_us,
            refusal=record.reason,
            is_removed=True,
        )
    elif isinstance(record, Approved):
        _approve(connection, record, by=by, wall_us=wall_us)
    elif isinstance(record, Activated):
        _activate(connection, record, by=by, wall_us=wall_us)
    elif isinstance(record, RolledBack):
        _roll_back(connection, record, by=by, wall_us=wall_us)
    elif isinstance(record, Retired):
        move_package(
            connection,
            record.digest,
            PackageEvent.RETIRED,
            by=by,
            wall_us=wall_us,
            is_removed=record.is_removed,
        )


def _approve(connection: sqlite3.Connection, record: Approved, *, by: str, wall_us: int) -> None:
    add_approval(
        connection,
        record.digest,
        Approval(
            person=record.person,
            person_key=record.person_key,
            note=record.note,
            account=by,
            wall_us=wall_us,
        ),
    )
    if record.is_last:
        move_package(connection, record.digest, PackageEvent.APPROVED, by=by, wall_us=wall_us)


def _activate(connection: sqlite3.Connection, record: Activated, *, by: str, wall_us: int) -> None:
    for digest in record.removed:
        remove_package(connection, digest)
    if record.superseded is not None:
        move_package(connection, record.superseded, PackageEvent.SUPERSEDED, by=by, wall_us=wall_us)
    move_package(connection, record.digest, PackageEvent.ACTIVATED, by=by, wall_us=wall_us)


def _roll_back(
    connection: sqlite3.Connection, record: RolledBack, *, by: str, wall_us: int
) -> None:
    if record.withdrawn is not None:
        move_package(connection, record.withdrawn, PackageEvent.ROLLED_BACK, by=by, wall_us=wall_us)
    move_package(connection, record.digest, PackageEvent.RESTORED, by=by, wall_us=wall_us)

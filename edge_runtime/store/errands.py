"""What the courier owes peers beside the deliveries: claimed with a lease, done, or given up.

Messages about one procedure step keep their order: a later one is not claimed before the earlier
ones are done.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from edge_runtime.errors import LeaseLostError
from edge_runtime.model.clock import Instant
from edge_runtime.model.errand import ERRAND_TRANSITIONS, ErrandEvent, ErrandKind, ErrandState
from edge_runtime.model.transitions import next_state
from edge_runtime.store.alarms import AlarmCode, clear_alarm, raise_alarm
from edge_runtime.store.database import transaction

ERRAND_ALARMS: Mapping[ErrandKind, AlarmCode] = MappingProxyType(
    {
        ErrandKind.COMMITMENT_REPORT: AlarmCode.COMMITMENT_DEAD,
        ErrandKind.MPPS_RELAY: AlarmCode.MPPS_RELAY_DEAD,
    }
)

_CLAIMABLE = (
    "FROM errand WHERE state = 'PENDING' AND kind = ? AND (due_boot_id <> ? OR due_mono_us <= ?) "
    "AND (lease_owner IS NULL OR lease_boot_id <> ? OR lease_until_mono_us < ?) "
    "AND NOT EXISTS (SELECT 1 FROM errand AS earlier WHERE earlier.step_id = errand.step_id "
    "AND earlier.id < errand.id AND earlier.state <> 'DONE')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrandJob:
    """One claimed errand; what it is about stands in the rows that it points to."""

    errand_id: int
    kind: ErrandKind
    peer: str = field(repr=False)
    """Errands of one peer are postponed together when it does not answer."""
    attempts: int
    commitment_id: int | None
    step_id: int | None


def open_errand(
    connection: sqlite3.Connection,
    kind: ErrandKind,
    *,
    peer: str,
    at: Instant,
    commitment_id: int | None = None,
    step_id: int | None = None,
) -> int:
    """Owe a peer something. Runs in the transaction of what causes it; returns the errand's id."""
    row = connection.execute(
        "INSERT INTO errand (kind, state, peer, commitment_id, step_id, due_boot_id, due_mono_us) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            kind.value,
            ErrandState.PENDING.value,
            peer,
            commitment_id,
            step_id,
            at.boot_id,
            at.mono_us,
        ),
    ).fetchone()
    return int(row["id"])


def claim_errand(
    connection: sqlite3.Connection, kind: ErrandKind, *, owner: str, at: Instant, lease_us: int
) -> ErrandJob | None:
    """Claim the errand that has been due for longest, or return None."""
    values = (kind.value, at.boot_id, at.mono_us, at.boot_id, at.mono_us)
    # Look before taking the write lock: the courier asks often and there is seldom anything.
    if not connection.execute(f"SELECT 1 {_CLAIMABLE} LIMIT 1", values).fetchone():
        return None
    with transaction(connection):
        rows = connection.execute(
            "UPDATE errand SET lease_owner = ?, lease_boot_id = ?, lease_until_mono_us = ?, "
            f"attempts = attempts + 1 WHERE id = (SELECT id {_CLAIMABLE} "
            "ORDER BY due_mono_us, id LIMIT 1) RETURNING *",
            (owner, at.boot_id, at.mono_us + lease_us, *values),
        ).fetchall()
    if not rows:
        return None
    row = rows[0]
    return ErrandJob(
        errand_id=row["id"],
        kind=kind,
        peer=row["peer"],
        attempts=row["attempts"],
        commitment_id=row["commitment_id"],
        step_id=row["step_id"],
    )


def finish_errand(
    connection: sqlite3.Connection, job: ErrandJob, *, owner: str, at: Instant
) -> None:
    """Record that the peer has it, and drop what only sending it again would need.

    Raises:
        LeaseLostError: someone else holds it now.
    """
    with transaction(connection):
        _move(connection, job, ErrandEvent.ACCEPTED, owner, error_code=None)
        connection.execute(
            "DELETE FROM procedure_step_message WHERE errand_id = ?", (job.errand_id,)
        )
        connection.execute("DELETE FROM commitment WHERE id = ?", (job.commitment_id,))
        clear_alarm(connection, ERRAND_ALARMS[job.kind], str(job.errand_id), at)


def bury_errand(
    connection: sqlite3.Connection, job: ErrandJob, *, owner: str, error_code: str, at: Instant
) -> None:
    """Give up on an errand, and raise an alarm.

    Raises:
        LeaseLostError: someone else holds it now.
    """
    with transaction(connection):
        _move(connection, job, ErrandEvent.GAVE_UP, owner, error_code=error_code)
        raise_alarm(connection, ERRAND_ALARMS[job.kind], at, subject=str(job.errand_id))


def _move(
    connection: sqlite3.Connection,
    job: ErrandJob,
    event: ErrandEvent,
    owner: str,
    *,
    error_code: str | None,
) -> None:
    row = connection.execute(
        "SELECT state FROM errand WHERE id = ? AND lease_owner = ?", (job.errand_id, owner)
    ).fetchone()
    if row is None:
        raise LeaseLostError("the errand belongs to another owner now")
    state = next_state(ERRAND_TRANSITIONS, ErrandState(row["state"]), event)
    connection.execute(
        "UPDATE errand SET state = ?, error_code = ?, lease_owner = NULL, lease_boot_id = NULL, "
        "lease_until_mono_us = NULL WHERE id = ?",
        (state.value, error_code, job.errand_id),
    )


def retry_errand(
    connection: sqlite3.Connection, job: ErrandJob, *, owner: str, error_code: str, due: Instant
) -> None:
    """Give a claimed errand back, due again later."""
    _give_back(connection, job, owner, error_code, due, attempts=job.attempts)


def hold_errand(
    connection: sqlite3.Connection, job: ErrandJob, *, owner: str, due: Instant
) -> None:
    """Give a claimed errand back whose time has not come, as if it had never been tried."""
    _give_back(connection, job, owner, None, due, attempts=job.attempts - 1)


def _give_back(
    connection: sqlite3.Connection,
    job: ErrandJob,
    owner: str,
    error_code: str | None,
    due: Instant,
    *,
    attempts: int,
) -> None:
    with transaction(connection):
        connection.execute(
            "UPDATE errand SET lease_owner = NULL, lease_boot_id = NULL, "
            "lease_until_mono_us = NULL, error_code = ?, due_boot_id = ?, due_mono_us = ?, "
            "attempts = ? WHERE id = ? AND lease_owner = ? AND state = 'PENDING'",
            (error_code, due.boot_id, due.mono_us, attempts, job.errand_id, owner),
        )


def postpone_peer(connection: sqlite3.Connection, job: ErrandJob, due: Instant) -> None:
    """Let all that the same peer is owed wait too: it does not answer, and others do."""
    with transaction(connection):
        connection.execute(
            "UPDATE errand SET due_boot_id = ?, due_mono_us = ? WHERE state = 'PENDING' "
            "AND kind = ? AND peer = ? AND lease_owner IS NULL "
            "AND (due_boot_id <> ? OR due_mono_us < ?)",
            (due.boot_id, due.mono_us, job.kind.value, job.peer, due.boot_id, due.mono_us),
        )


def ask_again(connection: sqlite3.Connection, errand_id: int, at: Instant) -> None:
    """Owe a dead errand once more. Runs in the caller's transaction."""
    row = connection.execute("SELECT kind, state FROM errand WHERE id = ?", (errand_id,)).fetchone()
    state = next_state(ERRAND_TRANSITIONS, ErrandState(row["state"]), ErrandEvent.ASKED_AGAIN)
    connection.execute(
        "UPDATE errand SET state = ?, attempts = 0, due_boot_id = ?, due_mono_us = ? WHERE id = ?",
        (state.value, at.boot_id, at.mono_us, errand_id),
    )
    clear_alarm(connection, ERRAND_ALARMS[ErrandKind(row["kind"])], str(errand_id), at)


def resend_dead_errands(connection: sqlite3.Connection, kind: ErrandKind, at: Instant) -> int:
    """Owe every dead errand of a kind once more; return how many."""
    with transaction(connection):
        rows = connection.execute(
            "SELECT id FROM errand WHERE state = 'DEAD' AND kind = ?", (kind.value,)
        ).fetchall()
        for row in rows:
            ask_again(connection, row["id"], at)
    return len(rows)


def return_errand_leases(connection: sqlite3.Connection) -> int:
    """Free every leased errand; only for the courier that holds the courier's lock."""
    with transaction(connection):
        return connection.execute(
            "UPDATE errand SET lease_owner = NULL, lease_boot_id = NULL, "
            "lease_until_mono_us = NULL WHERE lease_owner IS NOT NULL"
        ).rowcount


def clear_errand_alarms(connection: sqlite3.Connection, step_id: int, at: Instant) -> None:
    """Clear the alarms of a step that is forgotten. Runs in the caller's transaction."""
    rows = connection.execute(
        "SELECT id FROM errand WHERE step_id = ? AND state = 'DEAD'", (step_id,)
    ).fetchall()
    for row in rows:
        clear_alarm(connection, AlarmCode.MPPS_RELAY_DEAD, str(row["id"]), at)

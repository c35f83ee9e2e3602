"""The outbox: deliveries are claimed with a lease, sent, confirmed, tried again or given up."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from dicom_node.instance import InstanceHeader, StudyIdentity
from edge_runtime.errors import LeaseLostError
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Instant, Mark, Stamp
from edge_runtime.model.delivery import (
    DELIVERY_TRANSITIONS,
    Channel,
    DeliveryEvent,
    DeliveryState,
)
from edge_runtime.model.finding import FindingScore
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.model.transitions import next_state
from edge_runtime.store.alarms import AlarmCode, clear_alarm, raise_alarm
from edge_runtime.store.codec import decode_header, decode_identity
from edge_runtime.store.database import transaction
from edge_runtime.store.findings import read_findings
from edge_runtime.store.stamps import read_stamps, stamp

_DUE = "(due_boot_id <> ? OR due_mono_us <= ?)"
"""On the monotonic clock: a wall clock that is set back must not hold up a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedAnalysis:
    """What an analysis decided, as every output tells it."""

    analysis_id: int
    revision: int
    model_name: str
    model_version: str
    outcome: AnalysisState
    reason: ReasonCode | None
    reason_detail: str
    probability: float | None
    """Of the finding that speaks for all."""
    threshold: float | None
    findings: tuple[FindingScore, ...]
    """Of a scored analysis, in the package's order."""
    series_instance_uid: str | None = field(repr=False)
    engine: str | None
    decided_wall_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyInstance:
    """One stored instance of a study; ``path`` is relative to the spool folder."""

    instance_id: int
    revision: int
    header: InstanceHeader = field(repr=False)
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryJob:
    """All that a sink needs to deliver one analysis over one channel."""

    delivery_id: int
    channel: Channel
    attempts: int
    study_id: int
    study_key: str
    study_instance_uid: str = field(repr=False)
    identity: StudyIdentity
    analysis: DecidedAnalysis | None
    """None where the channel does not wait for a decision (forward)."""
    revision: int
    instances: tuple[StudyInstance, ...] = field(repr=False)
    stamps: tuple[Stamp, ...] = field(repr=False)


def open_delivery(
    connection: sqlite3.Connection, analysis_id: int, channel: Channel, at: Instant
) -> None:
    """Put a delivery into the outbox. Runs in the transaction of the state that causes it."""
    connection.execute(
        "INSERT INTO delivery (analysis_id, channel, state, due_boot_id, due_mono_us) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (analysis_id, channel.value, DeliveryState.PENDING.value, at.boot_id, at.mono_us),
    )


def claim_delivery(
    connection: sqlite3.Connection,
    channel: Channel,
    *,
    owner: str,
    at: Instant,
    lease_us: int,
) -> DeliveryJob | None:
    """Claim the most urgent due delivery of a channel, or return None."""
    if not _is_any_due(connection, channel, at):
        return None
    with transaction(connection):
        row = connection.execute(
            "UPDATE delivery SET lease_owner = ?, lease_boot_id = ?, lease_until_mono_us = ?, "
            "attempts = attempts + 1 WHERE id = ("
            "  SELECT delivery.id FROM delivery JOIN analysis ON analysis.id = analysis_id"
            f"  WHERE delivery.state = 'PENDING' AND channel = ? AND {_DUE}"
            "  AND (delivery.lease_owner IS NULL OR delivery.lease_boot_id <> ?"
            "       OR delivery.lease_until_mono_us < ?)"
            "  ORDER BY (analysis.outcome = 'SUSPECTED') DESC, urgency DESC, due_mono_us,"
            "  delivery.id LIMIT 1) RETURNING id, analysis_id, attempts",
            (
                owner,
                at.boot_id,
                at.mono_us + lease_us,
                channel.value,
                at.boot_id,
                at.mono_us,
                at.boot_id,
                at.mono_us,
            ),
        ).fetchall()
        if not row:
            return None
        return _read_job(connection, row[0]["id"], row[0]["analysis_id"], channel)


def _is_any_due(connection: sqlite3.Connection, channel: Channel, at: Instant) -> bool:
    """Look before taking the write lock: the courier asks often and there is seldom anything."""
    return bool(
        connection.execute(
            f"SELECT 1 FROM delivery WHERE state = 'PENDING' AND channel = ? AND {_DUE} LIMIT 1",
            (channel.value, at.boot_id, at.mono_us),
        ).fetchone()
    )


def record_delivery(
    connection: sqlite3.Connection,
    delivery_id: int,
    events: tuple[DeliveryEvent, ...],
    *,
    owner: str,
    at: Instant,
) -> None:
    """Move a claimed delivery by ``events`` and stamp what they reach.

    Raises:
        LeaseLostError: someone else holds it now.
    """
    with transaction(connection):
        row = connection.execute(
            "SELECT * FROM delivery WHERE id = ? AND lease_owner = ?", (delivery_id, owner)
        ).fetchone()
        if row is None:
            raise LeaseLostError("the delivery belongs to another owner now")
        _move(connection, row, events, at, error_code=None)
        clear_alarm(connection, AlarmCode.DELIVERY_DEAD, str(delivery_id), at)


def delivery_state(connection: sqlite3.Connection, delivery_id: int) -> DeliveryState | None:
    """Return where a delivery stands; None when there is no such delivery."""
    row = connection.execute("SELECT state FROM delivery WHERE id = ?", (delivery_id,)).fetchone()
    return DeliveryState(row["state"]) if row else None


def confirm_delivery(connection: sqlite3.Connection, delivery_id: int, at: Instant) -> bool:
    """Mark a sent delivery confirmed; False when it is not in SENT (any more)."""
    with transaction(connection):
        row = connection.execute(
            "SELECT * FROM delivery WHERE id = ? AND state = 'SENT'", (delivery_id,)
        ).fetchone()
        if row is None:
            return False
        _move(connection, row, (DeliveryEvent.VOUCHED,), at, error_code=None)
        return True


def retry_delivery(
    connection: sqlite3.Connection,
    delivery_id: int,
    *,
    owner: str,
    error_code: str,
    due: Instant,
) -> None:
    """Give a claimed delivery back, due again later."""
    with transaction(connection):
        connection.execute(
            "UPDATE delivery SET lease_owner = NULL, lease_boot_id = NULL, "
            "lease_until_mono_us = NULL, error_code = ?, due_boot_id = ?, due_mono_us = ? "
            "WHERE id = ? AND lease_owner = ? AND state = 'PENDING'",
            (error_code, due.boot_id, due.mono_us, delivery_id, owner),
        )


def bury_delivery(
    connection: sqlite3.Connection, delivery_id: int, *, owner: str, error_code: str, at: Instant
) -> None:
    """Give up on a claimed delivery, and raise an alarm."""
    with transaction(connection):
        row = connection.execute(
            "SELECT * FROM delivery WHERE id = ? AND lease_owner = ?", (delivery_id, owner)
        ).fetchone()
        if row is None:
            raise LeaseLostError("the delivery belongs to another owner now")
        _give_up(connection, row, at, error_code=error_code)


def abandon_delivery(
    connection: sqlite3.Connection, delivery_id: int, *, error_code: str, at: Instant
) -> None:
    """Give up on a delivery that was sent and can no longer arrive, and raise an alarm."""
    with transaction(connection):
        row = connection.execute(
            "SELECT * FROM delivery WHERE id = ? AND state = 'SENT'", (delivery_id,)
        ).fetchone()
        if row is not None:
            _give_up(connection, row, at, error_code=error_code)


def _give_up(
    connection: sqlite3.Connection, row: sqlite3.Row, at: Instant, *, error_code: str
) -> None:
    _move(connection, row, (DeliveryEvent.GAVE_UP,), at, error_code=error_code)
    study_id = connection.execute(
        "SELECT study_id FROM analysis WHERE id = ?", (row["analysis_id"],)
    ).fetchone()["study_id"]
    raise_alarm(connection, AlarmCode.DELIVERY_DEAD, at, study_id=study_id, subject=str(row["id"]))


def resend_dead_deliveries(connection: sqlite3.Connection, channel: Channel, at: Instant) -> int:
    """Put every dead delivery of a channel back into the outbox; return how many."""
    with transaction(connection):
        rows = connection.execute(
            "SELECT * FROM delivery WHERE state = 'DEAD' AND channel = ?", (channel.value,)
        ).fetchall()
        for row in rows:
            _move(connection, row, (DeliveryEvent.RESENT,), at, error_code=row["error_code"])
            connection.execute(
                "UPDATE delivery SET attempts = 0, due_boot_id = ?, due_mono_us = ? WHERE id = ?",
                (at.boot_id, at.mono_us, row["id"]),
            )
            clear_alarm(connection, AlarmCode.DELIVERY_DEAD, str(row["id"]), at)
        return len(rows)


def return_leases(connection: sqlite3.Connection) -> int:
    """Free every leased delivery; only for the courier that holds the courier's lock."""
    with transaction(connection):
        return connection.execute(
            "UPDATE delivery SET lease_owner = NULL, lease_boot_id = NULL, "
            "lease_until_mono_us = NULL WHERE lease_owner IS NOT NULL"
        ).rowcount


def unvouched_deliveries(connection: sqlite3.Connection, channel: Channel) -> tuple[int, ...]:
    """Return the deliveries of a channel that were sent and wait for a confirmation."""
    rows = connection.execute(
        "SELECT id FROM delivery WHERE state = 'SENT' AND channel = ?", (channel.value,)
    )
    return tuple(row["id"] for row in rows)


def _move(
    connection: sqlite3.Connection,
    row: sqlite3.Row,
    events: tuple[DeliveryEvent, ...],
    at: Instant,
    *,
    error_code: str | None,
) -> None:
    state = DeliveryState(row["state"])
    study_id, revision = connection.execute(
        "SELECT study_id, revision FROM analysis WHERE id = ?", (row["analysis_id"],)
    ).fetchone()
    for event in events:
        state = next_state(DELIVERY_TRANSITIONS, state, event)
        connection.execute(
            "UPDATE delivery SET state = ?, error_code = ?, lease_owner = NULL, "
            "lease_boot_id = NULL, lease_until_mono_us = NULL WHERE id = ?",
            (state.value, error_code, row["id"]),
        )
        mark = _MARKS.get(state)
        if mark is not None:
            stamp(connection, study_id, revision, mark, at, subject=_subject(connection, row))


_MARKS = {DeliveryState.SENT: Mark.SENT, DeliveryState.CONFIRMED: Mark.CONFIRMED}


def _subject(connection: sqlite3.Connection, row: sqlite3.Row) -> str:
    model = connection.execute(
        "SELECT model_name FROM analysis WHERE id = ?", (row["analysis_id"],)
    ).fetchone()["model_name"]
    return f"{row['channel']}:{model}"


def _read_job(
    connection: sqlite3.Connection, delivery_id: int, analysis_id: int, channel: Channel
) -> DeliveryJob:
    analysis = connection.execute("SELECT * FROM analysis WHERE id = ?", (analysis_id,)).fetchone()
    study = connection.execute(
        "SELECT * FROM study WHERE id = ?", (analysis["study_id"],)
    ).fetchone()
    attempts = connection.execute(
        "SELECT attempts FROM delivery WHERE id = ?", (delivery_id,)
    ).fetchone()["attempts"]
    return DeliveryJob(
        delivery_id=delivery_id,
        channel=channel,
        attempts=attempts,
        study_id=study["id"],
        study_key=study["study_key"],
        study_instance_uid=study["study_instance_uid"],
        identity=decode_identity(study["identity"]),
        analysis=_decided(connection, analysis),
        revision=analysis["revision"],
        instances=read_instances(connection, study["id"], up_to_revision=analysis["revision"]),
        stamps=read_stamps(connection, study["id"]),
    )


def read_instances(
    connection: sqlite3.Connection, study_id: int, *, up_to_revision: int
) -> tuple[StudyInstance, ...]:
    """Return the instances that a revision of a study is made of, in order of arrival."""
    rows = connection.execute(
        "SELECT id, revision, header, path FROM instance WHERE study_id = ? AND revision <= ? "
        "ORDER BY id",
        (study_id, up_to_revision),
    )
    return tuple(
        StudyInstance(
            instance_id=row["id"],
            revision=row["revision"],
            header=decode_header(row["header"]),
            path=row["path"],
        )
        for row in rows
    )


def _decided(connection: sqlite3.Connection, row: sqlite3.Row) -> DecidedAnalysis | None:
    if row["outcome"] is None:
        return None
    return DecidedAnalysis(
        analysis_id=row["id"],
        revision=row["revision"],
        model_name=row["model_name"],
        model_version=row["model_version"],
        outcome=AnalysisState(row["outcome"]),
        reason=ReasonCode(row["reason_code"]) if row["reason_code"] else None,
        reason_detail=row["reason_detail"],
        probability=row["probability"],
        threshold=row["threshold"],
        findings=read_findings(connection, [row["id"]]).get(row["id"], ()),
        series_instance_uid=row["series_instance_uid"],
        engine=row["engine"],
        decided_wall_us=row["decided_wall_us"],
    )

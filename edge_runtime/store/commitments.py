"""Requests for storage commitment, and what is held of what they name.

Implements ``dicom_node.commitment.CommitmentBook``. A request is judged once, when its report is
first due; the verdict is kept, so that a report which goes out twice says the same. A request whose
report has arrived is forgotten: its transaction is over.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dicom_node.commitment import Booked, CommitmentRequest, FailureReason, Reference
from edge_runtime.clock import Clock
from edge_runtime.model.clock import Instant
from edge_runtime.model.errand import ErrandKind, ErrandState
from edge_runtime.store.alarms import AlarmCode, clear_alarm
from edge_runtime.store.database import transaction
from edge_runtime.store.errands import ask_again, open_errand


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """One booked request."""

    commitment_id: int
    ae_title: str = field(repr=False)
    address: str = field(repr=False)
    transaction_uid: str = field(repr=False)
    references: tuple[Reference, ...] = field(repr=False)
    verdict: Mapping[Reference, FailureReason] | None = field(repr=False)
    """What is not committed, and why; None: not judged yet."""
    patience_boot_id: str
    patience_mono_us: int
    """Until then an instance that is not here may still come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldInstance:
    """One row of the index; ``path`` is relative to the spool folder."""

    study_id: int
    sop_class_uid: str
    path: str
    file_bytes: int


class SqliteCommitments:
    """Books requests; one connection and one lock for all associations."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Clock, *, patience_us: int, max_open: int
    ) -> None:
        """``max_open`` bounds how many requests are kept at a time."""
        self._connection = connection
        self._clock = clock
        self._patience_us = patience_us
        self._max_open = max_open
        self._lock = threading.Lock()

    def book(self, request: CommitmentRequest) -> Booked:
        """Make a durable row for a request."""
        wanted = _encode_references(request.references)
        at = self._clock.now()
        with self._lock, transaction(self._connection):
            known = self._connection.execute(
                "SELECT commitment.id, wanted, errand.id AS errand_id, state FROM commitment "
                "JOIN errand ON commitment_id = commitment.id "
                "WHERE ae_title = ? AND transaction_uid = ?",
                (request.ae_title, request.transaction_uid),
            ).fetchone()
            if known is not None:
                return self._book_again(known, request, wanted, at)
            if not self._has_room(at):
                return Booked.NO_ROOM
            self._insert(request, wanted, at)
        return Booked.BOOKED

    def _book_again(
        self, known: sqlite3.Row, request: CommitmentRequest, wanted: bytes, at: Instant
    ) -> Booked:
        """A request whose report was given up is judged anew, whatever it names now."""
        is_same = set(_decode_references(known["wanted"])) == set(request.references)
        if known["state"] == ErrandState.PENDING.value:
            return Booked.REPEATED if is_same else Booked.CONFLICT
        self._connection.execute(
            "UPDATE commitment SET wanted = ?, address = ?, verdict = NULL, booked_wall_us = ?, "
            "patience_boot_id = ?, patience_mono_us = ? WHERE id = ?",
            (wanted, request.address, at.wall_us, *self._patience(at), known["id"]),
        )
        ask_again(self._connection, known["errand_id"], at)
        return Booked.REPEATED if is_same else Booked.BOOKED

    def _has_room(self, at: Instant) -> bool:
        """Whether one more request fits, after the oldest that was given up has gone if need be."""
        count = self._connection.execute("SELECT count(*) FROM commitment").fetchone()[0]
        if count < self._max_open:
            return True
        row = self._connection.execute(
            "SELECT commitment_id, id FROM errand WHERE state = 'DEAD' "
            "AND commitment_id IS NOT NULL ORDER BY commitment_id LIMIT 1"
        ).fetchone()
        if row is not None:
            _forget(self._connection, row["commitment_id"], row["id"], at)
        return row is not None

    def _insert(self, request: CommitmentRequest, wanted: bytes, at: Instant) -> None:
        row = self._connection.execute(
            "INSERT INTO commitment (ae_title, transaction_uid, address, wanted, booked_wall_us, "
            "patience_boot_id, patience_mono_us) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
            (
                request.ae_title,
                request.transaction_uid,
                request.address,
                wanted,
                at.wall_us,
                *self._patience(at),
            ),
        ).fetchone()
        open_errand(
            self._connection,
            ErrandKind.COMMITMENT_REPORT,
            peer=request.ae_title,
            at=at,
            commitment_id=row["id"],
        )

    def _patience(self, at: Instant) -> tuple[str, int]:
        return at.boot_id, at.mono_us + self._patience_us


def read_commitment(connection: sqlite3.Connection, commitment_id: int) -> Commitment:
    """Return a booked request."""
    row = connection.execute("SELECT * FROM commitment WHERE id = ?", (commitment_id,)).fetchone()
    references = _decode_references(row["wanted"])
    return Commitment(
        commitment_id=commitment_id,
        ae_title=row["ae_title"],
        address=row["address"],
        transaction_uid=row["transaction_uid"],
        references=references,
        verdict=None if row["verdict"] is None else _decode_verdict(row["verdict"], references),
        patience_boot_id=row["patience_boot_id"],
        patience_mono_us=row["patience_mono_us"],
    )


def held_instances(
    connection: sqlite3.Connection, sop_instance_uids: Iterable[str]
) -> Mapping[str, Sequence[HeldInstance]]:
    """Return what is held of each instance; one UID may stand in several studies.

    What has begun to leave the device is not held.
    """
    rows = connection.execute(
        "SELECT sop_instance_uid, study_id, instance.path, file_bytes, "
        "json_extract(header, '$.sop_class_uid') AS sop_class_uid "
        "FROM json_each(?) JOIN instance ON sop_instance_uid = json_each.value "
        "WHERE study_id NOT IN (SELECT study_id FROM departing)",
        (json.dumps(list(dict.fromkeys(sop_instance_uids))),),
    )
    held: dict[str, list[HeldInstance]] = {}
    for row in rows:
        held.setdefault(row["sop_instance_uid"], []).append(
            HeldInstance(
                study_id=row["study_id"],
                sop_class_uid=row["sop_class_uid"],
                path=row["path"],
                file_bytes=row["file_bytes"],
            )
        )
    return held


def record_verdict(
    connection: sqlite3.Connection,
    commitment: Commitment,
    verdict: Mapping[Reference, FailureReason],
    *,
    studies: Iterable[int],
    hold_until_wall_us: int,
) -> bool:
    """Keep what the report will say, and keep ``studies`` from retention until a time.

    Returns:
        False, and nothing is kept, if one of them began to leave since it was looked at.
    """
    places = {reference: place for place, reference in enumerate(commitment.references)}
    encoded = [[places[reference], int(reason)] for reference, reason in verdict.items()]
    promised = list(studies)
    with transaction(connection):
        if not _are_staying(connection, promised):
            return False
        connection.execute(
            "UPDATE commitment SET verdict = ? WHERE id = ?",
            (zlib.compress(json.dumps(encoded).encode()), commitment.commitment_id),
        )
        connection.executemany(
            "UPDATE study SET held_until_wall_us = max(held_until_wall_us, ?) WHERE id = ?",
            [(hold_until_wall_us, study_id) for study_id in promised],
        )
    return True


def _are_staying(connection: sqlite3.Connection, studies: Sequence[int]) -> bool:
    found = connection.execute(
        "SELECT count(*) FROM study WHERE id IN (SELECT value FROM json_each(?)) "
        "AND id NOT IN (SELECT study_id FROM departing)",
        (json.dumps(studies),),
    ).fetchone()
    return bool(found[0] == len(studies))


def forget_commitments(connection: sqlite3.Connection, *, before_wall_us: int, at: Instant) -> int:
    """Forget old requests whose report was given up; return how many."""
    with transaction(connection):
        rows = connection.execute(
            "SELECT commitment_id, errand.id FROM errand "
            "JOIN commitment ON commitment.id = commitment_id "
            "WHERE booked_wall_us < ? AND state = 'DEAD'",
            (before_wall_us,),
        ).fetchall()
        for row in rows:
            _forget(connection, row["commitment_id"], row["id"], at)
    return len(rows)


def _forget(
    connection: sqlite3.Connection, commitment_id: int, errand_id: int, at: Instant
) -> None:
    clear_alarm(connection, AlarmCode.COMMITMENT_DEAD, str(errand_id), at)
    connection.execute("DELETE FROM commitment WHERE id = ?", (commitment_id,))


def _encode_references(references: Iterable[Reference]) -> bytes:
    """One line for each: thousands of UIDs differ in a few digits."""
    lines = (f"{item.sop_class_uid} {item.sop_instance_uid}" for item in references)
    return zlib.compress("\n".join(lines).encode("ascii"))


def _decode_references(data: bytes) -> tuple[Reference, ...]:
    lines = zlib.decompress(data).decode("ascii").splitlines()
    return tuple(Reference(*line.split(" ")) for line in lines)


def _decode_verdict(
    data: bytes, references: Sequence[Reference]
) -> Mapping[Reference, FailureReason]:
    return {
        references[place]: FailureReason(reason)
        for place, reason in json.loads(zlib.decompress(data))
    }

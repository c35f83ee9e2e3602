"""The index of received instances: what makes a C-STORE Success true.

Implements ``dicom_node.inbox.Inbox``. Called from one thread for each association; one connection
and one lock serve them all, since SQLite has a single writer anyway.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator

import structlog

from dicom_node.inbox import RecordResult
from dicom_node.instance import InstanceHeader, StoredInstance
from edge_runtime.clock import Clock
from edge_runtime.model.clock import Instant, Mark
from edge_runtime.model.study import STUDY_TRANSITIONS, StudyEvent, StudyState
from edge_runtime.model.transitions import next_state
from edge_runtime.store.alarms import AlarmCode, raise_alarm
from edge_runtime.store.analyses import supersede_undecided
from edge_runtime.store.codec import encode_header, encode_identity
from edge_runtime.store.database import transaction
from edge_runtime.store.stamps import move_stamp, stamp

_log = structlog.get_logger()


class SqliteInbox:
    """Rows for associations and instances; a late image opens a new revision of its study."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        clock: Clock,
        *,
        reopens: Callable[[InstanceHeader], bool],
    ) -> None:
        """``reopens`` says whether an instance is an image that makes a complete study receive."""
        self._connection = connection
        self._clock = clock
        self._reopens = reopens
        self._lock = threading.Lock()

    def association_opened(self, association_id: str, calling_ae_title: str, address: str) -> None:
        """Note an association that is about to record its first instance."""
        at = self._clock.now()
        with self._writing():
            self._connection.execute(
                "INSERT INTO association (id, calling_ae_title, address, opened_wall_us, "
                "opened_mono_us, boot_id) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (association_id, calling_ae_title, address, at.wall_us, at.mono_us, at.boot_id),
            )

    def association_closed(self, association_id: str, *, released: bool) -> None:
        """Note the end of an association."""
        at = self._clock.now()
        with self._writing():
            self._end_associations("released" if released else "aborted", at, association_id)

    def close_lost_associations(self) -> None:
        """At start: associations that were open when the last node died are lost."""
        at = self._clock.now()
        with self._writing():
            self._end_associations("lost", at, None)

    def record(self, instance: StoredInstance) -> RecordResult:
        """Make a durable row for an instance whose file is durable."""
        at = self._clock.now()
        with self._writing():
            study = self._study_of(instance, at)
            known = self._connection.execute(
                "SELECT id, data_set_digest, path FROM instance WHERE study_id = ? "
                "AND series_instance_uid = ? AND sop_instance_uid = ?",
                (
                    study["id"],
                    instance.header.series_instance_uid,
                    instance.header.sop_instance_uid,
                ),
            ).fetchone()
            if known is None:
                self._insert(instance, study, at)
                return RecordResult.STORED
            if known["path"] == instance.path:
                return RecordResult.STORED  # the start-up scan met a file whose row was committed
            if known["data_set_digest"] == instance.data_set_digest:
                return RecordResult.DUPLICATE
            self._quarantine(instance, known["id"], study["id"], at)
            return RecordResult.CONFLICT

    def known_paths(self) -> frozenset[str]:
        """Return every path that a row points to, for the start-up scan."""
        with self._lock:
            rows = self._connection.execute("SELECT path FROM instance")
            return frozenset(row["path"] for row in rows)

    def report_missing(self, paths: frozenset[str]) -> None:
        """Raise an alarm for each study with a row whose file is gone."""
        at = self._clock.now()
        with self._writing():
            for path in sorted(paths):
                row = self._connection.execute(
                    "SELECT study_id FROM instance WHERE path = ?", (path,)
                ).fetchone()
                if row is not None:
                    raise_alarm(
                        self._connection,
                        AlarmCode.FILE_MISSING,
                        at,
                        study_id=row["study_id"],
                        subject=path,
                    )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, transaction(self._connection):
            yield

    def _end_associations(self, ended: str, at: Instant, association_id: str | None) -> None:
        self._connection.execute(
            "UPDATE association SET ended = ?, ended_wall_us = ?, ended_mono_us = ? "
            "WHERE ended IS NULL AND (? IS NULL OR id = ?)",
            (ended, at.wall_us, at.mono_us, association_id, association_id),
        )

    def _study_of(self, instance: StoredInstance, at: Instant) -> sqlite3.Row:
        uid = instance.header.study_instance_uid
        self._connection.execute(
            "INSERT INTO study (study_key, study_instance_uid, identity, state, revision, "
            "received_wall_us) VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT DO NOTHING",
            (
                f"s{secrets.token_hex(6)}",
                uid,
                encode_identity(instance.identity),
                StudyState.RECEIVING.value,
                at.wall_us,
            ),
        )
        row: sqlite3.Row = self._connection.execute(
            "SELECT * FROM study WHERE study_instance_uid = ?", (uid,)
        ).fetchone()
        return row

    def _insert(self, instance: StoredInstance, study: sqlite3.Row, at: Instant) -> None:
        study_id, revision = study["id"], study["revision"]
        receiving = study["state"] == StudyState.RECEIVING.value
        if not receiving and self._reopens(instance.header):
            revision = self._reopen(study)
            receiving = True
        self._connection.execute(
            "INSERT INTO instance (study_id, revision, series_instance_uid, sop_instance_uid, "
            "header, path, file_bytes, data_set_digest, association_id, stored_wall_us, "
            "stored_mono_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                study_id,
                revision,
                instance.header.series_instance_uid,
                instance.header.sop_instance_uid,
                encode_header(instance.header),
                instance.path,
                instance.file_bytes,
                instance.data_set_digest,
                instance.association_id or None,
                at.wall_us,
                at.mono_us,
            ),
        )
        self._connection.execute(
            "UPDATE study SET instances = instances + 1 WHERE id = ?", (study_id,)
        )
        if receiving:
            stamp(self._connection, study_id, revision, Mark.FIRST_STORED, at)
            move_stamp(self._connection, study_id, revision, Mark.LAST_STORED, at)

    def _reopen(self, study: sqlite3.Row) -> int:
        state = next_state(STUDY_TRANSITIONS, StudyState(study["state"]), StudyEvent.LATE_IMAGE)
        revision = int(study["revision"]) + 1
        self._connection.execute(
            "UPDATE study SET state = ?, completion_reason = NULL, revision = ? WHERE id = ?",
            (state.value, revision, study["id"]),
        )
        supersede_undecided(self._connection, study["id"])
        _log.info("study.reopened", study_key=study["study_key"], revision=revision)
        return revision

    def _quarantine(
        self, instance: StoredInstance, instance_id: int, study_id: int, at: Instant
    ) -> None:
        self._connection.execute(
            "INSERT INTO quarantine (instance_id, path, data_set_digest, association_id, "
            "stored_wall_us) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                instance_id,
                instance.path,
                instance.data_set_digest,
                instance.association_id or None,
                at.wall_us,
            ),
        )
        raise_alarm(
            self._connection,
            AlarmCode.CONFLICTING_DUPLICATE,
            at,
            study_id=study_id,
            subject=str(instance_id),
        )

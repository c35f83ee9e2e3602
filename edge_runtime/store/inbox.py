"""The index of received instances: what makes a C-STORE Success true.

Implements ``dicom_node.inbox.Inbox``. Called from one thread for each association; one connection
and one lock serve them all, since SQLite has a single writer anyway. Whoever gets the lock commits
for all that wait, so that associations which store at the same time share one transaction.

A row is derived from its file, which is durable before the row is written: the commit of a row need
not wait for the disk, since after a power failure the start-up scan makes again what was lost
(decision record 0011). Whatever no file tells is committed with a sync.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import structlog

from dicom_node.inbox import ConflictNote, Held
from dicom_node.instance import InstanceHeader, StoredInstance
from edge_runtime.clock import Clock
from edge_runtime.errors import StoreError
from edge_runtime.model.clock import Instant, Mark
from edge_runtime.model.study import STUDY_TRANSITIONS, StudyEvent, StudyState
from edge_runtime.model.transitions import next_state
from edge_runtime.store.alarms import AlarmCode, clear_alarm, raise_alarm
from edge_runtime.store.analyses import supersede_undecided
from edge_runtime.store.codec import encode_header, encode_identity
from edge_runtime.store.database import transaction
from edge_runtime.store.retention import starting_revision
from edge_runtime.store.stamps import move_stamp, stamp

_log = structlog.get_logger()


# After a crash of the process the row is there in any case; after one of the machine it may not be.
_UNSYNCED, _SYNCED = "PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL"
_INSERT = (
    "INSERT INTO instance (study_id, revision, series_instance_uid, sop_instance_uid, "
    "header, path, file_bytes, association_id, stored_wall_us, stored_mono_us) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
# A peer's holdings shrink only by retention, which needs no quick answer.
_HOLDINGS_AGE_US = 5_000_000


@dataclass(slots=True)
class _Ticket:
    """One instance that waits to be recorded, and what became of it."""

    instance: StoredInstance
    header: str
    """As its row holds it, made before anybody waits."""
    is_done: bool = False
    held: Held | None = None
    """What stood there before; it counts once the ticket is done."""
    error: Exception | None = None

    def fail(self, error: Exception) -> None:
        self.error = error
        self.is_done = True


class _Holdings:
    """Bytes in the spool by peer: summed up now and then, counted on in between."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._bytes: dict[str, int] = {}
        self._until_us: dict[str, int] = {}

    def of(self, calling_ae_title: str, now_us: int) -> int:
        if now_us >= self._until_us.get(calling_ae_title, 0):
            self._bytes[calling_ae_title] = self._sum(calling_ae_title)
            self._until_us[calling_ae_title] = now_us + _HOLDINGS_AGE_US
        return self._bytes[calling_ae_title]

    def add(self, instance: StoredInstance) -> None:
        if instance.calling_ae_title in self._bytes:
            self._bytes[instance.calling_ae_title] += instance.file_bytes

    def _sum(self, calling_ae_title: str) -> int:
        row = self._connection.execute(
            "SELECT coalesce(sum(file_bytes), 0) FROM instance "
            "JOIN association ON association.id = association_id WHERE calling_ae_title = ?",
            (calling_ae_title,),
        ).fetchone()
        return int(row[0])


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
        self._queue_lock = threading.Lock()
        self._queue: list[_Ticket] = []
        self._holdings = _Holdings(connection)
        connection.execute(_UNSYNCED)

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

    def record(self, instance: StoredInstance) -> Held | None:
        """Make a durable row for an instance whose file is durable; see ``Inbox.record``."""
        ticket = _Ticket(instance, encode_header(instance.header))
        with self._queue_lock:
            self._queue.append(ticket)
        with self._lock:
            if not ticket.is_done:
                self._record_waiting()
        if ticket.error is not None:
            raise ticket.error
        if not ticket.is_done:
            # Whoever had taken it died on the way; silence would read as Success.
            raise StoreError("the instance was not recorded; the sender must send it again")
        return ticket.held

    def _record_waiting(self) -> None:
        """Record all that wait in one transaction; if that fails, each in its own."""
        with self._queue_lock:
            waiting, self._queue = self._queue, []
        try:
            self._record_together(waiting)
        except Exception as error:  # noqa: BLE001 - the error is raised in each waiting thread
            if len(waiting) == 1:
                waiting[0].fail(error)
                return
            for ticket in waiting:
                self._record_alone(ticket)

    def _record_alone(self, ticket: _Ticket) -> None:
        try:
            self._record_together([ticket])
        except Exception as error:  # noqa: BLE001 - the error is raised in the waiting thread
            ticket.fail(error)

    def _record_together(self, tickets: list[_Ticket]) -> None:
        at = self._clock.now()
        studies: dict[str, list[_Ticket]] = {}
        for ticket in tickets:
            studies.setdefault(ticket.instance.header.study_instance_uid, []).append(ticket)
        with transaction(self._connection):
            for uid, arrived in studies.items():
                self._record_study(uid, arrived, at)
        for ticket in tickets:
            ticket.is_done = True
            if ticket.held is None:
                self._holdings.add(ticket.instance)

    def _record_study(self, uid: str, tickets: list[_Ticket], at: Instant) -> None:
        """Record instances of one study: all at once, as soon as it receives."""
        for index, ticket in enumerate(tickets):
            study = self._find_study(uid)
            is_new = study is None
            if study is None:
                study = self._make_study(ticket.instance, at)
            if study["state"] == StudyState.RECEIVING.value:
                self._receive(study["id"], study["revision"], tickets[index:], at, is_new=is_new)
                return
            self._record_late(study, ticket, at)

    def _receive(
        self, study_id: int, revision: int, tickets: list[_Ticket], at: Instant, *, is_new: bool
    ) -> None:
        """Insert rows of a study that receives; ``is_new``: its revision has just begun."""
        if not self._insert(study_id, revision, tickets, at):
            return
        if is_new:
            stamp(self._connection, study_id, revision, Mark.FIRST_STORED, at)
        move_stamp(self._connection, study_id, revision, Mark.LAST_STORED, at)

    def _record_late(self, study: sqlite3.Row, ticket: _Ticket, at: Instant) -> None:
        """Record an instance of a complete study; an image that is not held yet reopens it."""
        header = ticket.instance.header
        if self._reopens(header) and self._path_of(ticket.instance, study["id"]) is None:
            self._receive(study["id"], self._reopen(study), [ticket], at, is_new=True)
        else:
            self._insert(study["id"], study["revision"], [ticket], at)

    def _insert(self, study_id: int, revision: int, tickets: list[_Ticket], at: Instant) -> int:
        """Insert the rows that do not stand there yet, count them and tell the tickets."""
        inserted = self._connection.executemany(
            _INSERT, [_row(ticket, study_id, revision, at) for ticket in tickets]
        ).rowcount
        if inserted:
            self._connection.execute(
                "UPDATE study SET instances = instances + ? WHERE id = ?", (inserted, study_id)
            )
        is_one_known = inserted < len(tickets)
        for ticket in tickets:
            ticket.held = self._held(ticket.instance, study_id) if is_one_known else None
        return inserted

    def _held(self, instance: StoredInstance, study_id: int) -> Held | None:
        """Return the file that the row of an instance points to, unless it is its own."""
        path = self._path_of(instance, study_id)
        if path is None:
            raise sqlite3.IntegrityError("two instances have one file")
        # The start-up scan may meet a file whose row was committed.
        return None if path == instance.path else Held(path=path)

    def _path_of(self, instance: StoredInstance, study_id: int) -> str | None:
        row = self._connection.execute(
            "SELECT path FROM instance WHERE study_id = ? AND series_instance_uid = ? "
            "AND sop_instance_uid = ?",
            (study_id, instance.header.series_instance_uid, instance.header.sop_instance_uid),
        ).fetchone()
        return row["path"] if row else None

    def record_conflict(self, instance: StoredInstance, held: Held, digest: str) -> ConflictNote:
        """Note a conflicting duplicate, and raise an alarm; see ``Inbox.record_conflict``."""
        at = self._clock.now()
        with self._writing():
            known = self._connection.execute(
                "SELECT id, study_id FROM instance WHERE path = ?", (held.path,)
            ).fetchone()
            if known is None:
                return ConflictNote.ROW_GONE
            self._quarantine(instance, known["id"], known["study_id"], digest, at)
            row = self._connection.execute(
                "SELECT path FROM quarantine WHERE instance_id = ? AND data_set_digest = ?",
                (known["id"], digest),
            ).fetchone()
            return ConflictNote.NOTED if row["path"] == instance.path else ConflictNote.KNOWN

    def replace_file(self, instance: StoredInstance, held: Held) -> bool:
        """Let a row whose file is gone point to another; see ``Inbox.replace_file``."""
        at = self._clock.now()
        with self._writing():
            found = self._connection.execute(
                "UPDATE instance SET path = ?, file_bytes = ?, header = ? WHERE path = ?",
                (instance.path, instance.file_bytes, encode_header(instance.header), held.path),
            )
            clear_alarm(self._connection, AlarmCode.FILE_MISSING, held.path, at)
            return found.rowcount > 0

    def held_bytes(self, calling_ae_title: str) -> int:
        """Return the bytes in the spool that came from a peer; see ``Inbox.held_bytes``."""
        now_us = self._clock.now().mono_us
        with self._lock:
            return self._holdings.of(calling_ae_title, now_us)

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
        with self._lock:
            self._connection.execute(_SYNCED)
            try:
                with transaction(self._connection):
                    yield
            finally:
                self._connection.execute(_UNSYNCED)

    def _end_associations(self, ended: str, at: Instant, association_id: str | None) -> None:
        self._connection.execute(
            "UPDATE association SET ended = ?, ended_wall_us = ?, ended_mono_us = ? "
            "WHERE ended IS NULL AND (? IS NULL OR id = ?)",
            (ended, at.wall_us, at.mono_us, association_id, association_id),
        )

    def _make_study(self, instance: StoredInstance, at: Instant) -> sqlite3.Row:
        uid = instance.header.study_instance_uid
        self._connection.execute(
            "INSERT INTO study (study_key, study_instance_uid, identity, state, revision, "
            "received_wall_us) VALUES (?, ?, ?, ?, ?, ?)",
            (
                f"s{secrets.token_hex(6)}",
                uid,
                encode_identity(instance.identity),
                StudyState.RECEIVING.value,
                starting_revision(self._connection, uid),
                at.wall_us,
            ),
        )
        return cast("sqlite3.Row", self._find_study(uid))

    def _find_study(self, uid: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(
            "SELECT id, study_key, state, revision FROM study WHERE study_instance_uid = ?", (uid,)
        ).fetchone()
        return row

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
        self,
        instance: StoredInstance,
        instance_id: int,
        study_id: int,
        digest: str,
        at: Instant,
    ) -> None:
        self._connection.execute(
            "INSERT INTO quarantine (instance_id, path, data_set_digest, association_id, "
            "stored_wall_us) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                instance_id,
                instance.path,
                digest,
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


def _row(ticket: _Ticket, study_id: int, revision: int, at: Instant) -> tuple[object, ...]:
    """Values in the order of ``_INSERT``."""
    instance = ticket.instance
    return (
        study_id,
        revision,
        instance.header.series_instance_uid,
        instance.header.sop_instance_uid,
        ticket.header,
        instance.path,
        instance.file_bytes,
        instance.association_id or None,
        at.wall_us,
        at.mono_us,
    )

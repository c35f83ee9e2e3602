"""The telemetry outbox: what is to be sent, durable before anything is sent.

A SQLite file of its own (WAL, synchronous=FULL), so that telemetry never locks the device's
state. Invariants: a row leaves only when its delivery was confirmed, or as a counted drop; an
event key is in the table at most once; a message's bytes and name never change, so a receiver can
discard repetitions by (device, epoch, seq). One process writes, any of its threads.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from telemetry.durable import WriterLock
from telemetry.errors import EventKeyError, OutboxError, OutboxNewerError
from telemetry.events import QueuedEvent
from telemetry.guard import Channel, EgressGuard, EventClass, MessageId, SealedMessage, Stream
from telemetry.ledger import LedgerHead

DEFAULT_CAP_BYTES = 64 * 1024 * 1024
MIN_CAP_BYTES = 64 * 1024
EVENT_KEY_PATTERN = r"[a-z0-9][a-z0-9_-]{0,63}"
ROW_OVERHEAD_BYTES = 120
"""What a row costs beside its payload: columns, two index entries, its share of the page."""

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE counters (
            only INTEGER PRIMARY KEY CHECK (only = 1),
            epoch INTEGER NOT NULL,
            next_seq INTEGER NOT NULL,
            ledger_seq INTEGER,
            ledger_hash TEXT
        ) STRICT
        """,
        "INSERT INTO counters VALUES (1, 0, 1, NULL, NULL)",
        """
        CREATE TABLE messages (
            row_id INTEGER PRIMARY KEY AUTOINCREMENT,
            event_key TEXT NOT NULL UNIQUE,
            event_class INTEGER NOT NULL CHECK (event_class IN (1, 2, 3)),
            channel TEXT NOT NULL CHECK (channel IN ('event', 'tele', 'birth', 'state')),
            payload BLOB NOT NULL,
            size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
            ledger_seq INTEGER
        ) STRICT
        """,
        "CREATE INDEX messages_unsent ON messages (event_class) WHERE ledger_seq IS NULL",
        """
        CREATE TABLE drops (
            event_class INTEGER PRIMARY KEY CHECK (event_class IN (1, 2, 3)),
            dropped INTEGER NOT NULL CHECK (dropped > 0)
        ) STRICT
        """,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxItem:
    """An event and the caller's opaque name for it; the name never leaves the device."""

    event_key: str
    event: QueuedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A message that waits for its confirmation."""

    row_id: int
    event_key: str
    event_class: EventClass
    channel: Channel
    payload: bytes
    ledger_seq: int | None
    """Where the egress ledger has it; None before it was first sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutReport:
    """What became of a batch."""

    accepted: int
    already_there: int
    dropped_keys: tuple[str, ...]
    """Given up to keep the bound: rows of earlier batches, or of this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxStatistics:
    """How full the outbox is, and what it has given up since it was made."""

    waiting: int
    waiting_bytes: int
    dropped: Mapping[EventClass, int]


class Outbox:
    """Takes events, hands out the oldest messages, forgets the confirmed ones."""

    def __init__(
        self, path: Path, *, guard: EgressGuard, cap_bytes: int = DEFAULT_CAP_BYTES
    ) -> None:
        """Open or make the database; each opening begins an epoch.

        Raises:
            AlreadyOpenError: Another process writes this outbox.
            OutboxNewerError: A newer version of this software wrote it.
            OutboxError: The file is no database, or the disk refused.
            ValueError: The cap is below 64 KiB.
        """
        if cap_bytes < MIN_CAP_BYTES:
            raise ValueError(f"cap_bytes must be at least {MIN_CAP_BYTES}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._guard = guard
        self._cap_bytes = cap_bytes
        self._mutex = threading.Lock()
        self._lock = WriterLock(path.with_name(f"{path.name}.lock"))
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            with _device_failures():
                self._prepare()
            with self._transaction() as db:
                db.execute("UPDATE counters SET epoch = epoch + 1, next_seq = 1")
                self._epoch = int(db.execute("SELECT epoch FROM counters").fetchone()[0])
                total = db.execute("SELECT COALESCE(SUM(size_bytes), 0) FROM messages")
                self._bytes = int(total.fetchone()[0])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and give the lock back."""
        self._db.close()
        self._lock.release()

    @property
    def epoch(self) -> int:
        """How often this outbox was opened: the device's boot counter, as receivers see it."""
        return self._epoch

    def put(self, items: Sequence[OutboxItem]) -> PutReport:
        """Make a batch durable with one commit: all of it, or nothing.

        A key that is there already is left alone, so a caller that died before it noted the
        result puts the same batch again.

        Raises:
            EgressRefusedError: The guard refused an event; the batch was not stored.
            EventKeyError: A key is not of the opaque form.
            OutboxError: The disk refused.
        """
        accepted = 0
        dropped: tuple[str, ...] = ()
        with self._transaction() as db:
            size = self._bytes
            for item in items:
                if not re.fullmatch(EVENT_KEY_PATTERN, item.event_key):
                    raise EventKeyError(f"event_key must match {EVENT_KEY_PATTERN}.")
                if _has(db, item.event_key):
                    continue
                size += self._insert(db, item)
                accepted += 1
            if size > self._cap_bytes:
                freed, dropped = _drop(db, size - self._cap_bytes)
                size -= freed
        self._bytes = size
        return PutReport(
            accepted=accepted,
            already_there=len(items) - accepted,
            dropped_keys=dropped,
        )

    def oldest(self, limit: int) -> tuple[OutboxRow, ...]:
        """Return the ``limit`` oldest messages, sent before or not."""
        with self._mutex, _device_failures():
            found = self._db.execute(
                "SELECT row_id, event_key, event_class, channel, payload, ledger_seq"
                " FROM messages ORDER BY row_id LIMIT ?",
                (limit,),
            ).fetchall()
        return tuple(
            OutboxRow(
                row_id=row_id,
                event_key=event_key,
                event_class=EventClass(event_class),
                channel=Channel(channel),
                payload=payload,
                ledger_seq=ledger_seq,
            )
            for row_id, event_key, event_class, channel, payload, ledger_seq in found
        )

    def mark_ledgered(self, ledger_seqs: Mapping[int, int], head: LedgerHead) -> None:
        """Note where the ledger has which rows (row_id → ledger seq), and how far it goes."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE messages SET ledger_seq = ? WHERE row_id = ?",
                [(seq, row_id) for row_id, seq in ledger_seqs.items()],
            )
            db.execute("UPDATE counters SET ledger_seq = ?, ledger_hash = ?", (head.seq, head.hash))

    def ledger_head(self) -> LedgerHead | None:
        """Return the ledger's head as last noted here: the anchor for ``ledger.verify``."""
        with self._mutex, _device_failures():
            seq, digest = self._db.execute(
                "SELECT ledger_seq, ledger_hash FROM counters"
            ).fetchone()
        return None if seq is None else LedgerHead(seq=seq, hash=digest)

    def delete(self, row_ids: Collection[int]) -> None:
        """Forget messages whose delivery was confirmed."""
        size = 0
        with self._transaction() as db:
            for row_id in row_ids:
                gone = db.execute(
                    "DELETE FROM messages WHERE row_id = ? RETURNING size_bytes", (row_id,)
                ).fetchall()
                size += sum(row[0] for row in gone)
            size = self._bytes - size
        self._bytes = size

    def statistics(self) -> OutboxStatistics:
        """Count what waits and what was given up."""
        with self._mutex, _device_failures():
            waiting = self._db.execute("SELECT COUNT(*) FROM messages").fetchone()[0]
            drops = self._db.execute("SELECT event_class, dropped FROM drops").fetchall()
            return OutboxStatistics(
                waiting=waiting,
                waiting_bytes=self._bytes,
                dropped={EventClass(event_class): dropped for event_class, dropped in drops},
            )

    def _insert(self, db: sqlite3.Connection, item: OutboxItem) -> int:
        seq = int(db.execute("SELECT next_seq FROM counters").fetchone()[0])
        message_id = MessageId(epoch=self._epoch, stream=Stream.QUEUED, seq=seq)
        message = self._guard.encode(item.event, message_id)
        size = len(message.payload) + 2 * len(item.event_key) + ROW_OVERHEAD_BYTES
        db.execute("UPDATE counters SET next_seq = next_seq + 1")
        db.execute(
            "INSERT INTO messages (event_key, event_class, channel, payload, size_bytes)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                item.event_key,
                int(message.event_class),
                message.channel.value,
                message.payload,
                size,
            ),
        )
        return size

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(_MIGRATIONS):
            raise OutboxNewerError(
                f"the telemetry outbox has schema {version}, this software knows "
                f"{len(_MIGRATIONS)}: install the newer software again, or move the file away."
            )
        for number in range(version + 1, len(_MIGRATIONS) + 1):
            with self._transaction() as db:
                for statement in _MIGRATIONS[number - 1]:
                    db.execute(statement)
                # PRAGMA takes no parameters; the number is our own.
                db.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, _device_failures():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def row_message(guard: EgressGuard, row: OutboxRow) -> SealedMessage:
    """Return a row as the guard sealed it."""
    return SealedMessage(
        topic=guard.topic(row.channel),
        payload=row.payload,
        event_class=row.event_class,
        channel=row.channel,
    )


def _has(db: sqlite3.Connection, event_key: str) -> bool:
    found = db.execute("SELECT 1 FROM messages WHERE event_key = ?", (event_key,)).fetchone()
    return found is not None


def _drop(db: sqlite3.Connection, excess_bytes: int) -> tuple[int, tuple[str, ...]]:
    """Give up the lowest class first, and of it the oldest; return bytes freed and their keys.

    A row that was sent already stays: its confirmation may be under way.
    """
    freed = 0
    victims: list[tuple[int, str, int]] = []
    for row_id, event_key, event_class, size in db.execute(
        "SELECT row_id, event_key, event_class, size_bytes FROM messages"
        " WHERE ledger_seq IS NULL ORDER BY event_class, row_id"
    ):
        if freed >= excess_bytes:
            break
        victims.append((row_id, event_key, event_class))
        freed += size
    for row_id, _, event_class in victims:
        db.execute("DELETE FROM messages WHERE row_id = ?", (row_id,))
        db.execute(
            "INSERT INTO drops VALUES (?, 1)"
            " ON CONFLICT (event_class) DO UPDATE SET dropped = dropped + 1",
            (event_class,),
        )
    return freed, tuple(event_key for _, event_key, _ in victims)


@contextmanager
def _device_failures() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OutboxError(
            "the telemetry outbox cannot be read or written: free disk space or mend the disk; "
            "if the file is damaged, move it away and a new one is made."
        ) from error

"""Who called the node without being admitted: what the learning mode remembers.

A call is noted in memory by the thread of its connection, and written by the node's own loop:
nothing that goes wrong here reaches a caller, and no caller can make us write more often than once
a second. Memory and table are bounded; a flood from one address cannot push out what came from
others.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from dataclasses import dataclass, field, replace

import structlog

from dicom_node.admission import Call, Reason, RefusalReason, plain_address
from dicom_node.errors import HandshakeFault
from edge_runtime.clock import Clock
from edge_runtime.store.database import transaction

_log = structlog.get_logger()

MAX_CALLERS = 256
MAX_CALLERS_PER_ADDRESS = 32
_WRITE_INTERVAL_US = 1_000_000

_IDENTITY = "calling_ae_title, called_ae_title, address, encrypted, certificate_sha256, reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerView:
    """One caller, and how often it was refused for one reason."""

    call: Call = field(repr=False)
    """Without AE titles where no TLS connection came about."""
    reason: Reason
    first_seen_wall_us: int
    last_seen_wall_us: int
    calls: int


class CallerNotes:
    """Notes refused calls; ``note`` from any thread, the rest from one."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        """``connection`` is for this alone."""
        self._connection = connection
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: Counter[tuple[Call, Reason]] = Counter()
        self._due_mono_us = 0

    def note(self, call: Call, reason: Reason) -> None:
        """Remember a call until the next ``write``; beyond the bounds it is forgotten.

        Raises:
            ValueError: The caller's address is none.
        """
        who = replace(call, address=plain_address(call.address)), reason
        with self._lock:
            if who in self._waiting or self._has_room(who[0].address):
                self._waiting[who] += 1

    def _has_room(self, address: str) -> bool:
        neighbours = sum(call.address == address for call, _ in self._waiting)
        return len(self._waiting) < MAX_CALLERS and neighbours < MAX_CALLERS_PER_ADDRESS

    def write(self) -> None:
        """Make durable what was noted, if it is time to."""
        if self._clock.now().mono_us >= self._due_mono_us:
            self.flush()

    def flush(self) -> None:
        """Make durable what was noted."""
        with self._lock:
            waiting, self._waiting = self._waiting, Counter()
        if not waiting:
            return
        at = self._clock.now()
        self._due_mono_us = at.mono_us + _WRITE_INTERVAL_US
        try:
            with transaction(self._connection):
                for (call, reason), calls in waiting.items():
                    _count(self._connection, call, reason, calls, at.wall_us)
                _forget_oldest(self._connection)
        except sqlite3.Error as error:
            # A full disk stops what must be written; the node goes on without these notes.
            _log.warning("node.callers_not_recorded", error=type(error).__name__)


def _count(
    connection: sqlite3.Connection, call: Call, reason: Reason, calls: int, wall_us: int
) -> None:
    connection.execute(
        f"INSERT INTO caller ({_IDENTITY}, first_seen_wall_us, last_seen_wall_us, calls) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "last_seen_wall_us = excluded.last_seen_wall_us, calls = calls + excluded.calls",
        (
            call.calling_ae_title,
            call.called_ae_title,
            call.address,
            int(call.is_encrypted),
            call.certificate_sha256 or "",
            reason.name,
            wall_us,
            wall_us,
            calls,
        ),
    )


def _forget_oldest(connection: sqlite3.Connection) -> None:
    connection.execute(
        "DELETE FROM caller WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER "
        "(PARTITION BY address ORDER BY last_seen_wall_us DESC, id DESC) AS place FROM caller) "
        "WHERE place > ?)",
        (MAX_CALLERS_PER_ADDRESS,),
    )
    connection.execute(
        "DELETE FROM caller WHERE id IN "
        "(SELECT id FROM caller ORDER BY last_seen_wall_us DESC, id DESC LIMIT -1 OFFSET ?)",
        (MAX_CALLERS,),
    )


def list_callers(connection: sqlite3.Connection) -> tuple[CallerView, ...]:
    """Return the callers that were refused, the latest first."""
    rows = connection.execute("SELECT * FROM caller ORDER BY last_seen_wall_us DESC, id DESC")
    return tuple(
        CallerView(
            call=Call(
                calling_ae_title=row["calling_ae_title"],
                called_ae_title=row["called_ae_title"],
                address=row["address"],
                is_encrypted=bool(row["encrypted"]),
                certificate_sha256=row["certificate_sha256"] or None,
            ),
            reason=_reason(row["reason"]),
            first_seen_wall_us=row["first_seen_wall_us"],
            last_seen_wall_us=row["last_seen_wall_us"],
            calls=row["calls"],
        )
        for row in rows
    )


def _reason(name: str) -> Reason:
    return RefusalReason[name] if name in RefusalReason.__members__ else HandshakeFault[name]

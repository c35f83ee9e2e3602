"""The audit chain: who did what, in entries that cannot be changed without a trace.

One JSON object a line, canonical: sorted keys, no spaces, ASCII. ``hash`` is the SHA-256 of the
line's object without its ``hash``; ``previous`` is the hash of the entry before, 64 zeros in the
first. The database keeps the last entry's number and hash, so that a cut tail is noticed.

Invariants:

* An entry is on disk before anything of what it says happens, and what it says happens in one
  transaction with the new head. What a crash left between the two is done at the next opening.
* One writer at a time, from the entry to its effect; the kernel drops the lock of a dead one.
* The file only grows, but for a line that a crash tore off: that is moved into a file beside.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import structlog

from edge_runtime.clock import Clock
from edge_runtime.errors import IllegalTransitionError
from edge_runtime.file_locks import LockKind, takes_lock
from edge_runtime.governance.chain import (
    CHAIN_NAME,
    GENESIS,
    AuditEntry,
    encode_entry,
    read_chain,
    seal,
)
from edge_runtime.governance.errors import (
    AuditDamagedError,
    AuditWriteError,
    ModelStoreBusyError,
)
from edge_runtime.governance.records import AuditRecord, Continued
from edge_runtime.governance.replay import apply_record
from edge_runtime.store.database import transaction
from edge_runtime.store.model_packages import AuditHead, advance_audit_head, read_audit_head
from telemetry.durable import sync_folder, write_durably

_log = structlog.get_logger()
_LOOK_S = 0.05
_DAMAGED = (
    "run `edge-triage audit verify`, keep the file as evidence, and move it away; "
    "the chain goes on then from what the database remembers"
)


class AuditChain:
    """The one writer, while the ``with`` block lasts."""

    def __init__(
        self, folder: Path, connection: sqlite3.Connection, clock: Clock, *, patience_s: float
    ) -> None:
        """``patience_s``: how long another writer is waited for."""
        self._folder = folder
        self._path = folder / CHAIN_NAME
        self._connection = connection
        self._clock = clock
        self._patience_s = patience_s
        self._stack = contextlib.ExitStack()
        self._file = -1
        self._head: AuditHead | None = None

    def __enter__(self) -> AuditChain:
        """Become the writer, and finish what a crash left undone.

        Raises:
            ModelStoreBusyError: another writer does not come to an end.
            AuditDamagedError: the chain was changed, cut or lost.
            AuditWriteError: the disk refuses.
        """
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let others write."""
        self._stack.close()

    def record(self, record: AuditRecord, *, actor: str) -> AuditEntry:
        """Write an entry, then bring its effect about.

        Raises:
            AuditWriteError: the disk refuses; nothing has happened.
        """
        at = self._clock.now()
        entry = seal(
            record,
            seq=self._head.seq + 1 if self._head else 1,
            wall_us=at.wall_us,
            clock_synced=at.clock_synced,
            actor=actor,
            previous=self._head.hash if self._head else GENESIS,
        )
        self._append(encode_entry(entry))
        self._apply(entry)
        _log.info("audit.recorded", seq=entry.seq, action=record.action)
        return entry

    def _open(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._file = os.open(
                self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640
            )
            self._stack.callback(os.close, self._file)
            sync_folder(self._folder)
            self._repair_tail()
        except OSError as error:
            raise AuditWriteError(
                f"the audit chain in {self._folder} cannot be opened ({error.strerror}): run this "
                "as the user that runs the device, and see that the disk has room"
            ) from error
        self._catch_up()

    def _lock(self) -> None:
        handle = os.open(self._folder / "audit.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._stack.callback(os.close, handle)
        ends_s = time.monotonic() + self._patience_s
        while not takes_lock(handle, LockKind.EXCLUSIVE):
            if time.monotonic() > ends_s:
                raise ModelStoreBusyError(
                    "another command or the device itself works on the model packages: "
                    "try again when it is done"
                )
            time.sleep(_LOOK_S)

    def _repair_tail(self) -> None:
        """Set aside what a crash left of a line; nothing of what it says has happened."""
        content = self._path.read_bytes()
        whole, _, tail = content.rpartition(b"\n")
        if tail:
            kept = len(content) - len(tail)
            number = 1
            while (aside := self._folder / f"audit.torn-{kept}-{number}").exists():
                number += 1
            write_durably(aside, tail)
            os.ftruncate(self._file, kept)
            _log.warning("audit.tail_repaired", entries=whole.count(b"\n"), torn_bytes=len(tail))
        # Also what an earlier writer had not synced when it died.
        os.fsync(self._file)

    def _catch_up(self) -> None:
        done = read_audit_head(self._connection)
        chain = read_chain(self._path, at_least=done)
        if not chain.entries and done is not None:
            self._head = done
            self.record(Continued(), actor="device")
            return
        if not chain.is_intact:
            raise AuditDamagedError(f"the audit chain is damaged: {_DAMAGED}")
        self._apply_all([item for item in chain.entries if done is None or item.seq > done.seq])
        self._head = read_audit_head(self._connection)

    def _apply_all(self, entries: Sequence[AuditEntry]) -> None:
        for entry in entries:
            try:
                self._apply(entry)
            except (IllegalTransitionError, ValueError, sqlite3.IntegrityError) as error:
                raise AuditDamagedError(
                    f"entry {entry.seq} of the audit chain is not about this database: keep "
                    f"{self._folder} as evidence, move it away, and install the models again"
                ) from error
            _log.warning("audit.caught_up", seq=entry.seq, action=entry.record.action)

    def _apply(self, entry: AuditEntry) -> None:
        head = AuditHead(seq=entry.seq, hash=entry.hash)
        with transaction(self._connection):
            apply_record(self._connection, entry.record, by=entry.actor, wall_us=entry.wall_us)
            advance_audit_head(self._connection, head)
        self._head = head

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):  # else the next opening sets the rest aside
                os.ftruncate(self._file, size)
            raise AuditWriteError(
                f"the audit chain cannot be written ({error.strerror}), so nothing was done: "
                "free disk space or mend the disk"
            ) from error

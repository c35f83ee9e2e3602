"""The shell of retention: a thread of the node that lets studies go, and finishes what a kill left.

It runs in the node because that process owns the spool; a store never waits for it longer than for
one batch of rows.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import structlog

from dicom_node.durable import sync_directory
from dicom_node.spool import Spool
from edge_runtime.clock import Clock
from edge_runtime.model.clock import Instant
from edge_runtime.model.holding import Holding
from edge_runtime.pipeline.retention import (
    Departure,
    RetentionRules,
    may_leave,
    overdue_causes,
    pressure_cause,
)
from edge_runtime.store.alarms import AlarmCode
from edge_runtime.store.database import connect
from edge_runtime.store.device import read_device
from edge_runtime.store.holdings import advance_age_clock, read_holdings, show_causes
from edge_runtime.store.retention import (
    begin_departure,
    end_departure,
    forget_files,
    pending_departures,
    pending_files,
    prune_rows,
    take_files,
    take_strays,
)

_log = structlog.get_logger()

_BATCH = 250
"""Instances whose rows go in one transaction: the write lock is held for some milliseconds."""
_LOOK_S = 1.0
"""How often the free space is looked at: a fast scanner fills gigabytes in seconds."""
_SWEEP_US = 60_000_000
_RELIEF_US = 5_000_000
"""The pause between sweeps under pressure that nothing relieves."""
_RETRY_S = 10.0
_BUSY_TIMEOUT_MS = 5_000
_BLOCK_BYTES = 512
"""Of st_blocks, whatever the file system's own size is (stat(2))."""
_QUARANTINE = "quarantine"


def resume_departures(connection: sqlite3.Connection, spool: Spool) -> int:
    """Finish what an earlier run began; run it before the start-up scan of the spool.

    Returns:
        How many studies left.
    """
    while paths := pending_files(connection, limit=_BATCH):
        _delete_files(spool, paths)
        forget_files(connection, paths)
    left = pending_departures(connection)
    for study_id in left:
        _finish_departure(connection, spool, study_id)
    if left:
        _log.info("retention.resumed", studies=len(left))
    return len(left)


def _finish_departure(connection: sqlite3.Connection, spool: Spool, study_id: int) -> int:
    """Remove files and rows of a leaving study; return the bytes that its files took."""
    freed = 0
    while paths := take_files(connection, study_id, limit=_BATCH):
        freed += _delete_files(spool, paths)
        forget_files(connection, paths)
    end_departure(connection, study_id)
    return freed


def _delete_files(spool: Spool, paths: Iterable[str]) -> int:
    """Delete files that need not exist, durably; return the bytes that they took."""
    freed = 0
    folders: set[Path] = set()
    for path in paths:
        file = spool.absolute(path)
        with contextlib.suppress(FileNotFoundError):
            freed += file.stat().st_blocks * _BLOCK_BYTES
        spool.remove(path)
        folders.add(file.parent)
    for folder in sorted(folders):
        sync_directory(folder)
    return freed


def _quarantined(spool: Spool) -> Iterator[str]:
    with os.scandir(spool.root / _QUARANTINE) as entries:
        for entry in entries:
            path = f"{_QUARANTINE}/{entry.name}"
            with contextlib.suppress(ValueError):  # whoever put it there, it is none of ours
                spool.absolute(path)
                yield path


class Sweeper:
    """One look at all studies at a time; belongs to the thread that owns the connection."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        spool: Spool,
        clock: Clock,
        rules: RetentionRules,
        *,
        keep_going: Callable[[], bool] = lambda: True,
    ) -> None:
        """``keep_going`` is asked before each study."""
        self._connection = connection
        self._spool = spool
        self._clock = clock
        self._rules = rules
        self._keep_going = keep_going
        self.says_short = False
        """The last sweep could not make all the room that is wanted, and an alarm says so."""
        # What SQLite frees it would otherwise leave in the file until it is written over.
        connection.execute("PRAGMA secure_delete = ON")
        read_device(connection)

    def wanted_bytes(self) -> int:
        """Return the room that is missing on the disk; 0 or less when there is enough."""
        return self._rules.free_bytes_target - self._spool.free_bytes()

    def sweep(self) -> int:
        """Let go whatever may go now; return how many studies left."""
        now = self._clock.now()
        age_clock_us = advance_age_clock(self._connection, now)
        left, freed = 0, 0
        wanted = self.wanted_bytes()
        holdings = read_holdings(self._connection, now)
        for holding in holdings:
            reason = may_leave(
                holding, self._rules, age_clock_us=age_clock_us, wanted_bytes=wanted - freed
            )
            if reason is None or not self._keep_going():
                continue
            if begin_departure(self._connection, holding, now):
                freed += self._depart(holding, reason)
                left += 1
        self._remove_strays(age_clock_us)
        prune_rows(self._connection, before_wall_us=now.wall_us - self._rules.keep_us)
        if self._keep_going():  # a sweep that was cut short knows nothing of what is left
            self._show_alarms(now, age_clock_us, still_wanted=wanted - freed)
        return left

    def _depart(self, holding: Holding, reason: Departure) -> int:
        freed = _finish_departure(self._connection, self._spool, holding.study_id)
        _log.info("retention.study_left", reason=reason.value, freed_bytes=freed)
        return freed

    def _remove_strays(self, age_clock_us: int) -> None:
        paths = take_strays(
            self._connection,
            _quarantined(self._spool),
            age_us=age_clock_us,
            keep_us=self._rules.keep_us,
        )
        if paths:
            _delete_files(self._spool, paths)
            forget_files(self._connection, paths)

    def _show_alarms(self, now: Instant, age_clock_us: int, *, still_wanted: int) -> None:
        holdings = read_holdings(self._connection, now)
        pressure = (
            () if min(still_wanted, self.wanted_bytes()) <= 0 else (pressure_cause(holdings),)
        )
        overdue = overdue_causes(holdings, self._rules, age_clock_us=age_clock_us)
        show_causes(self._connection, AlarmCode.DISK_PRESSURE, pressure, now)
        self.says_short = bool(pressure)
        show_causes(self._connection, AlarmCode.RETENTION_OVERDUE, overdue, now)


class RetentionThread:
    """``with RetentionThread(...)``: retention works inside the block, on its own connection."""

    def __init__(self, database: Path, spool: Spool, clock: Clock, rules: RetentionRules) -> None:
        self._database = database
        self._spool = spool
        self._clock = clock
        self._rules = rules
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node-retention")

    def __enter__(self) -> RetentionThread:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End after the study in hand."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._work_until_it_fails()

    def _work_until_it_fails(self) -> None:
        try:
            with contextlib.closing(connect(self._database)) as connection:
                connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
                self._work(connection)
        except Exception:  # noqa: BLE001 - a thread's boundary: stores go on, retention tries again
            _log.exception("retention.failed")
            self._stop.wait(_RETRY_S)

    def _work(self, connection: sqlite3.Connection) -> None:
        sweeper = Sweeper(
            connection,
            self._spool,
            self._clock,
            self._rules,
            keep_going=lambda: not self._stop.is_set(),
        )
        resume_departures(connection, self._spool)  # what an error broke off
        sweep_us = relief_us = 0
        while not self._stop.is_set():
            now_us = self._clock.now().mono_us
            is_short = sweeper.wanted_bytes() > 0
            has_changed = is_short != sweeper.says_short
            if now_us >= sweep_us or has_changed or (is_short and now_us >= relief_us):
                sweeper.sweep()
                sweep_us, relief_us = now_us + _SWEEP_US, now_us + _RELIEF_US
            self._stop.wait(_LOOK_S)

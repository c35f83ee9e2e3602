"""Watches the database and tells every open page what changed.

One task reads for all readers. Invariants: what a page shows is what one reading said; a page that
cannot keep up is dropped and starts again from a whole snapshot, so none ever misses a change.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import structlog

from edge_runtime.errors import StoreError
from edge_runtime.model.clock import Instant
from edge_runtime.store.worklist import data_version
from edge_runtime.web.context import WebContext
from edge_runtime.web.database_thread import DatabaseThread
from edge_runtime.web.lines import Line, Look, Shown
from edge_runtime.web.marks import mark_shown
from edge_runtime.web.reading import Reading, read_page
from edge_runtime.web.rendering import Renderer

_log = structlog.get_logger()

POLL_S = 0.025  # a change is on its way within 50 ms of its commit
BEAT_S = 3.0  # pages call themselves out of date after 8 s without a word
_REST_FACTOR = 4  # reading takes at most a fifth of a core, however fast commits come
_COUNTING_S = 1.0  # a growing number of images is worth one message a second
_RETRY_S = 1.0
_QUEUE_FRAMES = 64
MAX_READERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One reading with its fragments; ``event_id`` names it."""

    event_id: str
    reading: Reading
    rows: tuple[str, ...] = field(repr=False)
    summary: str = field(repr=False)
    fresh_mono_us: int
    """When the database was last known to say the same."""


class Subscriber:
    """One open page; frames wait in a bounded queue."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE_FRAMES)
        self._dropped = False

    def put(self, frame: bytes) -> None:
        """Add a frame; a reader that is too slow is dropped."""
        if self._frames.full():
            self.drop()
        elif not self._dropped:
            self._frames.put_nowait(frame)

    def drop(self) -> None:
        """End the stream, without what still waits."""
        self._dropped = True
        while not self._frames.empty():
            self._frames.get_nowait()
        self._frames.put_nowait(None)

    async def next_frame(self) -> bytes | None:
        """Wait for the next frame; None ends the stream."""
        return await self._frames.get()


class Feed:
    """Holds the newest snapshot of the first page and tells subscribers what changes."""

    def __init__(
        self,
        context: WebContext,
        renderer: Renderer,
        *,
        reader: DatabaseThread,
        writer: DatabaseThread,
    ) -> None:
        self._context = context
        self._renderer = renderer
        self._reader = reader
        self._writer = writer
        self._run_id = secrets.token_hex(4)
        self._count = 0
        self._snapshot: Snapshot | None = None
        self._version: int | None = None
        self._subscribers: set[Subscriber] = set()
        self._closed = False
        self._shown: asyncio.Queue[tuple[tuple[Shown, ...], Instant]] = asyncio.Queue()
        self._noted: set[Shown] = set()
        self._counted_mono_us = 0

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        if self._snapshot is None:
            raise RuntimeError("the feed has not been started")
        return self._snapshot

    @property
    def is_full(self) -> bool:
        """Say whether another page would be one too many."""
        return self._closed or len(self._subscribers) >= MAX_READERS

    def age_us(self) -> int:
        """Return how long ago the database was last known to say what the pages show."""
        return self._context.clock.now().mono_us - self.snapshot.fresh_mono_us

    @contextlib.contextmanager
    def subscribe(self, last_event_id: str) -> Iterator[Subscriber]:
        """Open a stream: it starts with a snapshot unless the page has the newest one."""
        subscriber = Subscriber()
        if last_event_id != self.snapshot.event_id:
            subscriber.put(encode_frame("snapshot", self._whole(), self.snapshot.event_id))
        subscriber.put(self._beat())
        self._subscribers.add(subscriber)
        self.note_shown(self.snapshot.reading.lines)
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)

    def close(self) -> None:
        """End every stream and accept no more; the pages say that they are not live."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.drop()

    def note_shown(self, lines: tuple[Line, ...]) -> None:
        """Note that a browser was sent these lines: their outcomes are seen from now on."""
        shown = {shown for line in lines for shown in line.unseen} - self._noted
        if shown:
            self._noted |= shown
            self._shown.put_nowait((tuple(shown), self._context.clock.now()))

    async def start(self) -> None:
        """Take the first snapshot; nothing is served before.

        Raises:
            StoreError: the database cannot be read.
        """
        try:
            await self._read()
        except sqlite3.Error as error:
            raise StoreError(
                f"the page cannot read the device's database: {error}. Check its disk"
            ) from error

    async def watch(self) -> None:
        """Read when the database changed, and at every beat; runs until cancelled."""
        clock = self._context.clock
        beat_us = clock.now().mono_us
        while True:
            # Processor time: waiting for a busy machine's core is no reason to rest as well.
            started = time.process_time()
            try:
                due = clock.now().mono_us - beat_us >= BEAT_S * 1e6
                if due or await self._reader.run(data_version) != self._version:
                    await self._read()
                if due:
                    beat_us = clock.now().mono_us
                    self._broadcast(self._beat())
                self._snapshot = replace(self.snapshot, fresh_mono_us=clock.now().mono_us)
            except Exception:  # noqa: BLE001 - a boundary: the pages stay, and say that they are old
                _log.exception("web.reading_failed")
                self._broadcast(self._beat())
                await asyncio.sleep(_RETRY_S)
            spent = time.process_time() - started
            await asyncio.sleep(max(POLL_S, spent * _REST_FACTOR))

    async def mark(self) -> None:
        """Stamp what was shown, behind the flags and never before them; runs until cancelled."""
        while True:
            shown, at = await self._shown.get()
            try:
                await self._writer.run(lambda db: mark_shown(db, shown, at))  # noqa: B023 - awaited
            except sqlite3.Error:
                _log.exception("web.marking_failed")
                self._shown.put_nowait((shown, at))
                await asyncio.sleep(_RETRY_S)
            else:
                self._noted.difference_update(shown)

    async def _read(self) -> None:
        now = self._context.clock.now()
        previous = self._snapshot
        version, reading, rows, summary = await self._reader.run(
            lambda db: self._read_and_render(db, previous, now)
        )
        self._version = version
        if previous is not None and (reading, summary) == (previous.reading, previous.summary):
            return
        self._count += 1
        self._snapshot = Snapshot(
            event_id=f"{self._run_id}-{self._count}",
            reading=reading,
            rows=rows,
            summary=summary,
            fresh_mono_us=now.mono_us,
        )
        if previous is not None:
            frame = encode_frame("change", self._change(previous), self._snapshot.event_id)
            self._broadcast(frame)
            if self._subscribers:
                self.note_shown(reading.lines)

    def _read_and_render(
        self, connection: sqlite3.Connection, previous: Snapshot | None, now: Instant
    ) -> tuple[int, Reading, tuple[str, ...], str]:
        """Runs on the reader's thread; lines that did not change keep their fragments."""
        version = data_version(connection)  # before the reading: a later commit is seen again
        reading = read_page(connection, self._context.models, page=1, now_wall_us=now.wall_us)
        if previous is not None:
            reading = self._without_counting(reading, previous.reading, now)
        known = {}
        if previous is not None:
            known = dict(zip(previous.reading.lines, previous.rows, strict=True))
        rows = tuple(known.get(line) or self._renderer.row(line) for line in reading.lines)
        return version, reading, rows, self._renderer.summary(reading.summary)

    def _without_counting(self, reading: Reading, previous: Reading, now: Instant) -> Reading:
        """Keep the old number of images of a receiving study until it is time for a new one."""
        if now.mono_us - self._counted_mono_us >= _COUNTING_S * 1e6:
            self._counted_mono_us = now.mono_us
            return reading
        old = {line.key: line for line in previous.lines}
        return replace(
            reading, lines=tuple(_hold_count(line, old.get(line.key)) for line in reading.lines)
        )

    def _whole(self) -> dict[str, object]:
        lines = self.snapshot.reading.lines
        return {
            "order": [line.key for line in lines],
            "rows": dict(zip((line.key for line in lines), self.snapshot.rows, strict=True)),
            "summary": self.snapshot.summary,
        }

    def _change(self, previous: Snapshot) -> dict[str, object]:
        """Say what is new since ``previous``; the order is always whole, so that none is lost."""
        old = set(previous.reading.lines)
        pairs = zip(self.snapshot.reading.lines, self.snapshot.rows, strict=True)
        return {
            "order": [line.key for line in self.snapshot.reading.lines],
            "rows": {line.key: row for line, row in pairs if line not in old},
            "summary": self.snapshot.summary,
        }

    def _beat(self) -> bytes:
        now_ms = self._context.clock.now().wall_us // 1000
        return encode_frame("beat", {"now_ms": now_ms, "behind_ms": self.age_us() // 1000}, None)

    def _broadcast(self, frame: bytes) -> None:
        for subscriber in self._subscribers:
            subscriber.put(frame)


def _hold_count(line: Line, old: Line | None) -> Line:
    if old is None or line.lead is not Look.RECEIVING:
        return line
    held = replace(line, instances=old.instances)
    return old if held == old else line


def encode_frame(event: str, data: dict[str, object], event_id: str | None) -> bytes:
    """Encode a server-sent event (HTML standard, 9.2.6); JSON has no line breaks of its own."""
    identity = f"id: {event_id}\n" if event_id else ""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return f"{identity}event: {event}\ndata: {text}\n\n".encode()

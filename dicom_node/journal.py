"""A journal in front of the files: one synced write makes a small instance durable.

The content of an instance is appended to a segment, a file that was written once from end to end
and is used again and again, so that the write changes no metadata and one sync suffices. The file
itself is then written through the page cache, without a sync. Before a segment is used again, one
sync of the whole file system makes its files durable. After a crash, ``replay`` writes the files of
all records again; everybody else sees files only.

Invariants:

* A record is void only after its file is durable: a segment gets its next generation after a sync
  that began when nobody was writing a file of that segment any more.
* Nobody waits for a segment: while none is ready, an instance takes the way of large ones.
* What the journal holds is young: a segment is synced at the latest ``MAX_AGE_S`` after its first
  record, and at a stop.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

import structlog

from dicom_node.durable import sync_directory
from dicom_node.journal_format import (
    PAGE_BYTES,
    Record,
    encode_record_header,
    encode_segment_header,
    new_generation,
    record_bytes,
    records_of,
)

_log = structlog.get_logger()

SEGMENTS = 4
MAX_AGE_S = 5.0
_SUFFIX = ".journal"
_PIECE_BYTES = 1 << 20
_RETRY_S = 5.0


class _State(Enum):
    READY = "ready"
    """Its generation is new and durable; it holds nothing."""
    FILLING = "filling"
    SEALED = "sealed"
    """It takes no more; its files are not durable yet."""


@dataclass(slots=True, eq=False)
class _Segment:
    descriptor: int
    generation: bytes = b""
    state: _State = _State.SEALED
    end: int = PAGE_BYTES
    writers: int = 0
    """Threads that write a record, or its file."""
    since_s: float = 0.0
    """Of the first record, on the monotonic clock."""
    is_doubtful: bool = False
    """No sync makes its files durable any more: they have to be written again."""


@dataclass(slots=True)
class Place:
    """Room for one record. As a context manager: inside it, the record and its file are written."""

    _journal: Journal
    _segment: _Segment
    _offset: int

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._journal.leave(self._segment)

    def write(self, record: memoryview, content_bytes: int, path: str) -> None:
        """Make a record durable.

        Args:
            record: Whole pages, page-aligned: one for the header, then the bytes of the file.
            content_bytes: The size of the file.
            path: Where the file will stand, relative to the spool folder.

        Raises:
            OSError: The disk failed.
        """
        content = record[PAGE_BYTES : PAGE_BYTES + content_bytes]
        header = encode_record_header(self._segment.generation, path, content)
        record[: len(header)] = header
        _put(self._segment.descriptor, record, self._offset)

    def doubt(self) -> None:
        """Let the file be written again before the record is void."""
        self._segment.is_doubtful = True

    def void(self) -> None:
        """Let a written record be no record.

        Raises:
            OSError: The disk failed; the record may come back at the next start.
        """
        _put(self._segment.descriptor, _blank_page(), self._offset)


class Journal:
    """The segments in one folder; ``start`` and ``stop`` bound the life of its one thread."""

    def __init__(
        self,
        folder: Path,
        *,
        total_bytes: int,
        flags: int,
        restore: Callable[[Record], None],
        has_room: Callable[[int], bool],
    ) -> None:
        """Write the files of all records that an earlier run left, and void the records.

        Args:
            folder: Of the segments, in the file system of the spool; it exists, durably.
            total_bytes: Of all segments together; 0: there is no journal from now on.
            flags: O_DIRECT where the file system has it, else 0.
            restore: Writes a file durably, whatever stands there.
            has_room: Whether so many bytes more fit the file system, reserve included.

        Raises:
            OSError: The disk failed; no record was lost.
        """
        self._folder = folder
        self._segment_bytes = total_bytes // SEGMENTS // PAGE_BYTES * PAGE_BYTES
        self._flags = flags
        self._restore = restore
        self._has_room = has_room
        self._changed = threading.Condition()
        self._segments: list[_Segment] = []
        self._filling: _Segment | None = None
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._folder_descriptor = -1
        self._replay()

    # ------------------------------------------------------------------ the way of an instance

    @property
    def is_ready(self) -> bool:
        """The next small file goes through the journal."""
        with self._changed:
            return any(each.state is not _State.SEALED for each in self._segments)

    def reserve(self, content_bytes: int) -> Place | None:
        """Room for a file of that size; None while no segment is ready."""
        size = record_bytes(content_bytes)
        with self._changed:
            segment = self._filling
            if segment is None or segment.end + size > self._segment_bytes:
                segment = self._turn_over(size)
                if segment is None:
                    return None
            offset = segment.end
            segment.end += size
            segment.writers += 1
        return Place(self, segment, offset)

    def _turn_over(self, size: int) -> _Segment | None:
        """Seal the segment that is filled, and begin another."""
        ready = next((each for each in self._segments if each.state is _State.READY), None)
        if ready is None or self._is_stopping or PAGE_BYTES + size > self._segment_bytes:
            return None
        self._seal()
        ready.state = _State.FILLING
        ready.since_s = time.monotonic()
        self._filling = ready
        self._changed.notify_all()
        return ready

    def _seal(self) -> None:
        if self._filling is not None:
            self._filling.state = _State.SEALED
            self._filling = None

    def leave(self, segment: _Segment) -> None:
        """The record and its file are written, or given up."""
        with self._changed:
            segment.writers -= 1
            if not segment.writers and segment.state is _State.SEALED:
                self._changed.notify_all()

    # ------------------------------------------------------------------ the thread

    def start(self) -> None:
        """Prepare the segments and keep them going, in a thread."""
        if not self._segment_bytes:
            return
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="node-journal")
        self._thread.start()

    def stop(self) -> None:
        """Make all files durable, and end the thread; nobody may be storing any more."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        thread.join()
        self._close()

    def _close(self) -> None:
        with self._changed:
            # A thread that was given up may still write to its segment: the next start replays it.
            idle = [each for each in self._segments if not each.writers]
            self._segments = []
            self._filling = None
        for segment in idle:
            os.close(segment.descriptor)
        if self._folder_descriptor >= 0:
            os.close(self._folder_descriptor)
            self._folder_descriptor = -1

    def _run(self) -> None:
        try:
            self._prepare()
        except OSError as error:
            # The segments that were made before are in use: somebody has to sync their files.
            _log.warning("node.journal_off", error=type(error).__name__, errno=error.errno)
        while sealed := self._wait_for_sealed():
            if not self._settle(sealed):
                if self._is_stopping:
                    return  # the next start replays what is left
                with self._changed:
                    self._changed.wait_for(lambda: self._is_stopping, _RETRY_S)

    def _prepare(self) -> None:
        """Make the segments, from end to end; what is there already is used again."""
        self._folder_descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        paths = [self._folder / f"{number}{_SUFFIX}" for number in range(SEGMENTS)]
        missing = [path for path in paths if not self._is_prepared(path)]
        if missing and not self._has_room(len(missing) * self._segment_bytes):
            _log.warning("node.journal_off", error="NoRoom", errno=0)
            return
        for path in paths:
            if path in missing:
                self._write_through(path)
            self._add(path)
        _log.info("node.journal_ready", segments=len(self._segments))

    def _is_prepared(self, path: Path) -> bool:
        return path.exists() and path.stat().st_size == self._segment_bytes

    def _write_through(self, path: Path) -> None:
        """Give a segment all its blocks, so that no later write changes metadata."""
        path.unlink(missing_ok=True)
        blank = memoryview(mmap.mmap(-1, _PIECE_BYTES))
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | self._flags, 0o600)
        try:
            for offset in range(0, self._segment_bytes, _PIECE_BYTES):
                _put(descriptor, blank[: self._segment_bytes - offset], offset)
                if self._is_stopping:
                    break
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._folder)

    def _add(self, path: Path) -> None:
        if self._is_stopping:
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_DSYNC | self._flags)
        segment = _Segment(descriptor)
        with self._changed:
            self._segments.append(segment)  # from here on ``_close`` closes it
        self._renew(segment)

    def _wait_for_sealed(self) -> list[_Segment]:
        """Wait until segments are sealed and nobody writes their files; none: it is the end."""
        with self._changed:
            while True:
                if self._is_stopping or self._age_s() >= MAX_AGE_S:
                    self._seal()
                sealed = [each for each in self._segments if each.state is _State.SEALED]
                if any(not each.writers for each in sealed):
                    return [each for each in sealed if not each.writers]
                if self._is_stopping and not sealed:
                    return []
                self._changed.wait(self._patience_s())

    def _age_s(self) -> float:
        return 0.0 if self._filling is None else time.monotonic() - self._filling.since_s

    def _patience_s(self) -> float | None:
        return None if self._filling is None else max(0.0, MAX_AGE_S - self._age_s())

    def _settle(self, segments: Sequence[_Segment]) -> bool:
        """Make the files of sealed segments durable, and let the segments be used again.

        Returns:
            False if the disk failed; all records stay.
        """
        try:
            self._sync_files(segments)
            for segment in segments:
                self._renew(segment)
        except OSError as error:
            _log.error("node.journal_stuck", error=type(error).__name__, errno=error.errno)
            return False
        return True

    def _sync_files(self, segments: Sequence[_Segment]) -> None:
        try:
            sync_file_system(self._folder_descriptor)
        except OSError:
            # Linux forgets pages that it could not write, and tells of it once: only the records
            # know them now, also those of segments that are still filled or written.
            _log.error("node.journal_rewrites_files", segments=len(segments))
            with self._changed:
                for segment in self._segments:
                    segment.is_doubtful |= segment.state is not _State.READY
        for segment in segments:
            if segment.is_doubtful:
                self._restore_all(segment.descriptor)

    def _renew(self, segment: _Segment) -> None:
        """Void all records, durably; the segment is then ready."""
        generation = new_generation()
        page = _blank_page()
        header = encode_segment_header(generation)
        page[: len(header)] = header
        _put(segment.descriptor, page, 0)
        with self._changed:
            segment.generation = generation
            segment.end = PAGE_BYTES
            segment.is_doubtful = False
            segment.state = _State.READY

    # ------------------------------------------------------------------ after a crash

    def _replay(self) -> None:
        restored = 0
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                restored += self._restore_all(descriptor)
                os.pwrite(descriptor, bytes(PAGE_BYTES), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if not self._is_wanted(path):
                path.unlink()
        if restored:
            _log.info("node.journal_replayed", files=restored)

    def _is_wanted(self, path: Path) -> bool:
        return bool(self._segment_bytes) and self._is_prepared(path)

    def _restore_all(self, descriptor: int) -> int:
        # Read, not mapped: a page that the disk cannot read would end the process.
        segment = memoryview(mmap.mmap(-1, max(os.fstat(descriptor).st_size, PAGE_BYTES)))
        done = 0
        while count := os.preadv(descriptor, [segment[done:]], done):
            done += count
        restored = 0
        for record in records_of(segment[:done]):
            self._restore(record)
            restored += 1
        return restored


def sync_file_system(descriptor: int) -> None:
    """Make everything durable that was written to a file system before this call: syncfs(2).

    Since Linux 5.8 it tells of data that could not be written; the descriptor must have been open
    when that happened.

    Raises:
        OSError: Something could not be written.
    """
    if _LIBC.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


_LIBC = ctypes.CDLL(None, use_errno=True)


def _blank_page() -> memoryview:
    return memoryview(mmap.mmap(-1, PAGE_BYTES))


def _put(descriptor: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)

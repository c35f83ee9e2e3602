"""The folder of received files.

Invariants:

* A file that stands in one of the 256 shard folders has its whole content, which is synced or in
  the journal. A crash can leave less of the second kind; whoever makes a ``Spool`` after it finds
  them whole.
* Names are random: nothing that a peer sends becomes a part of a path.
* ``incoming/`` holds unfinished files only, and is on the same file system as the shards.
* ``journal/`` holds what makes small files durable before they are synced.
* ``quarantine/`` holds files that contradict an instance that is already held, or that no longer
  can be read; nothing here deletes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType

from dicom_node.durable import SharedSync, durable_rename, sync_directory, sync_file
from dicom_node.errors import DeviceError, SpoolFullError
from dicom_node.file_meta import read_file_meta
from dicom_node.incoming import BUFFER_BYTES, BufferPool, IncomingFile, device_error, direct_flag
from dicom_node.journal import Journal, Place
from dicom_node.journal_format import Record

_INCOMING, _QUARANTINE, _JOURNAL = "incoming", "quarantine", "journal"
_SHARDS = tuple(f"{number:02x}" for number in range(256))
_PATH = re.compile(r"(?:[0-9a-f]{2}|quarantine)/[0-9a-f]{30}\.dcm", re.ASCII)
_SUFFIX = ".dcm"
_NAME_CHARACTERS = 30 + len(_SUFFIX)
_READ_BYTES = 1 << 20
# So many files in a row go into one shard: associations that store at the same time share the
# sync of its folder.
_FILES_PER_TURN = 512
# A larger file costs more to write twice than its two syncs.
_JOURNAL_MOST_BYTES = 256 * 1024
DIGEST_BYTES = 32
# What one look at the file system's free space is good for.
_SPARE_SHARE, _MOST_ALLOWANCE_BYTES, _ALLOWANCE_S = 8, 64 << 20, 0.1


class Spool:
    """Opaque, durable files under one folder."""

    def __init__(self, root: Path, *, min_free_bytes: int = 0, journal_bytes: int = 0) -> None:
        """Make the folders if they do not exist, and write what a crash left in the journal.

        Args:
            root: The spool folder.
            min_free_bytes: Reserve of the file system; below it nothing is accepted.
            journal_bytes: Size of the journal; 0: each file is synced by itself.

        Raises:
            SpoolFullError: There is no room for what the journal holds.
            SpoolFailedError: The folder cannot be made, or the journal cannot be read.
        """
        self.root = root
        self._prefix = f"{root}{os.sep}"
        self._allowance = 0
        self._allowed_until_s = 0.0
        self._min_free_bytes = min_free_bytes
        self._buffers = BufferPool()
        self._turn_lock = threading.Lock()
        self._files_left = 0
        self._shard = secrets.randbelow(len(_SHARDS))
        try:
            for name in (_INCOMING, _QUARANTINE, _JOURNAL, *_SHARDS):
                (root / name).mkdir(parents=True, exist_ok=True)
            sync_directory(root)
            self._direct_flag = direct_flag(root / _INCOMING)
            self._journal = Journal(
                root / _JOURNAL,
                total_bytes=journal_bytes,
                flags=self._direct_flag,
                restore=self._restore,
                has_room=self._has_room,
            )
        except OSError as error:
            raise device_error(error) from error

    def __enter__(self) -> Spool:
        """Start the journal; without it, each file is synced by itself."""
        self._journal.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Make all files durable and stop the journal; nobody may be storing any more."""
        self._journal.stop()

    def _restore(self, record: Record) -> None:
        """Write a file of the journal again, durably.

        In its place, whatever stands there: on a full disk there is room for no second one, and who
        reads it meanwhile sees the same bytes. Cut short by a crash, it is done again.
        """
        path = self.absolute(record.path)
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:  # noqa: PTH123  a path would be cut to nothing first
            stream.write(record.content)
            stream.truncate()
            stream.flush()
            os.fsync(descriptor)
        sync_directory(path.parent)

    @property
    def writes_directly(self) -> bool:
        """Files go to the disk past the page cache."""
        return self._direct_flag != 0

    @property
    def has_journal(self) -> bool:
        """The next small file goes through the journal."""
        return self._journal.is_ready

    def check_room(self) -> None:
        """Raise ``SpoolFullError`` if less than the reserve is free."""
        spare = self.free_bytes() - self._min_free_bytes
        if spare < 0:
            self._allowance = 0
            raise SpoolFullError("the spool's disk has reached its reserve; free space")
        # Others write to the disk too, so only a part is taken for granted, and only for a while.
        self._allowance = min(spare // _SPARE_SHARE, _MOST_ALLOWANCE_BYTES)
        self._allowed_until_s = time.monotonic() + _ALLOWANCE_S

    def _take_allowance(self) -> None:
        """Ask the file system now and then, not for each instance."""
        if self._allowance < BUFFER_BYTES or time.monotonic() > self._allowed_until_s:
            self.check_room()
        self._allowance -= BUFFER_BYTES

    def _has_room(self, size: int) -> bool:
        try:
            return self.free_bytes() - self._min_free_bytes >= size
        except DeviceError:
            return False

    def free_bytes(self) -> int:
        """Bytes that may still be written to the spool's file system."""
        try:
            found = os.statvfs(self.root)
        except OSError as error:
            raise device_error(error) from error
        return found.f_bavail * found.f_frsize

    def begin(self, header: bytes, *, max_bytes: int) -> IncomingFile:
        """Open a new file in ``incoming/``.

        Args:
            header: Preamble and file meta information.
            max_bytes: Bound of the data set that follows.

        Raises:
            SpoolFullError: There is no room left above the reserve.
            SpoolFailedError: The disk failed.
        """
        self._take_allowance()
        return IncomingFile(
            f"{self._prefix}{_INCOMING}/{secrets.token_hex(16)}{_SUFFIX}",
            header,
            max_bytes=max_bytes,
            buffers=self._buffers,
            flags=self._direct_flag,
            check_room=self.check_room,
        )

    def keep(self, incoming: IncomingFile) -> str:
        """Make a received file durable, under a name of the spool.

        Returns:
            The path relative to the spool folder.

        Raises:
            SpoolFullError: There is no room for it.
            SpoolFailedError: The disk failed.
        """
        if incoming.is_in_memory and incoming.file_bytes <= _JOURNAL_MOST_BYTES:
            place = self._journal.reserve(incoming.file_bytes)
            if place is not None:
                with place:
                    return self._keep_by_journal(incoming, place)
        incoming.sync()
        return self._publish(incoming)

    def _keep_by_journal(self, incoming: IncomingFile, place: Place) -> str:
        """Write the record, synced, then the file, not synced."""
        try:
            shard, _ = self._take_turn()
            path = f"{shard}/{incoming.path[-_NAME_CHARACTERS:]}"
            place.write(incoming.as_record(), incoming.file_bytes, path)
        except OSError as error:
            raise device_error(error) from error
        try:
            incoming.write_cached(self._prefix + path)
        except DeviceError:
            self._withdraw(place, path)
            raise
        return path

    def _withdraw(self, place: Place, path: str) -> None:
        """Leave nothing of a file that could not be written, or let the journal make it whole."""
        try:
            self.remove(path)
        except OSError:
            place.doubt()
            return
        # What is refused now shall not come back at the next start.
        with contextlib.suppress(OSError):
            place.void()

    def _publish(self, incoming: IncomingFile) -> str:
        """Give a synced file its durable name."""
        try:
            shard, sync = self._take_turn()
            path = f"{shard}/{incoming.path[-_NAME_CHARACTERS:]}"
            os.rename(incoming.path, self._prefix + path)  # noqa: PTH104  as in ``incoming``
            sync.sync()
        except OSError as error:
            raise device_error(error) from error
        return path

    def _take_turn(self) -> tuple[str, SharedSync]:
        """The shard for the next file."""
        with self._turn_lock:
            if not self._files_left:
                self._shard = (self._shard + 1) % len(_SHARDS)
                self._sync = SharedSync(self.root / _SHARDS[self._shard])
                self._files_left = _FILES_PER_TURN
            self._files_left -= 1
            return _SHARDS[self._shard], self._sync

    def quarantine(self, path: str) -> str:
        """Move a file out of the shards, durably; its name stays, so it can be found again.

        Returns:
            The new path relative to the spool folder.
        """
        source = self.absolute(path)
        target = f"{_QUARANTINE}/{source.name}"
        try:
            sync_file(source)  # the journal knows it by its name of before
            durable_rename(source, self.absolute(target))
        except OSError as error:
            raise device_error(error) from error
        return target

    def remove(self, path: str) -> None:
        """Delete a file of the spool; it need not exist."""
        self.absolute(path).unlink(missing_ok=True)

    def absolute(self, path: str) -> Path:
        """The full path of a spool path.

        Raises:
            ValueError: ``path`` was not made by this class.
        """
        if _PATH.fullmatch(path) is None:
            raise ValueError("not a path of the spool")
        return self.root / path

    def iter_files(self) -> Iterator[str]:
        """All published files, in no order; quarantine is left out."""
        for shard in _SHARDS:
            with os.scandir(self.root / shard) as entries:
                for entry in entries:
                    path = f"{shard}/{entry.name}"
                    if _PATH.fullmatch(path) is not None:
                        yield path

    def orphans(self, known: Collection[str]) -> Iterator[str]:
        """Published files that are not among the paths in ``known`` (a set, for speed)."""
        return (path for path in self.iter_files() if path not in known)

    def clear_incoming(self) -> int:
        """Remove what an earlier run left unfinished; only when nothing is receiving.

        Returns:
            The number of files removed.
        """
        removed = 0
        for path in (self.root / _INCOMING).iterdir():
            path.unlink(missing_ok=True)
            removed += 1
        return removed

    def have_same_data_set(self, one: str, other: str) -> bool:
        """Whether two files hold the same bytes after their file meta information.

        Raises:
            FileNotFoundError: ``one`` or ``other`` is gone.
        """
        with self.absolute(one).open("rb") as first, self.absolute(other).open("rb") as second:
            for stream in (first, second):
                stream.seek(read_file_meta(stream.fileno()).data_set_offset)
            while piece := first.read(_READ_BYTES):
                if piece != second.read(_READ_BYTES):
                    return False
            return not second.read(1)

    def data_set_digest(self, path: str) -> str:
        """BLAKE2b-256 of a file's data set, in hex."""
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        with self.absolute(path).open("rb") as stream:
            stream.seek(read_file_meta(stream.fileno()).data_set_offset)
            while piece := stream.read(_READ_BYTES):
                digest.update(piece)
        return digest.hexdigest()

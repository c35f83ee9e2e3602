"""The folder of received files.

Invariants:

* A file stands in one of the 256 shard folders only with its whole, synced content.
* Names are random: nothing that a peer sends becomes a part of a path.
* ``incoming/`` holds unfinished files only, and is on the same file system as the shards.
* ``quarantine/`` holds files that contradict an instance that is already held, or that no longer
  can be read; nothing here deletes them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from dicom_node.durable import durable_rename, sync_directory
from dicom_node.errors import (
    DeviceError,
    InstanceTooLargeError,
    SpoolFailedError,
    SpoolFullError,
)

_INCOMING, _QUARANTINE = "incoming", "quarantine"
_SHARDS = tuple(f"{number:02x}" for number in range(256))
_PATH = re.compile(r"(?:[0-9a-f]{2}|quarantine)/[0-9a-f]{30}\.dcm", re.ASCII)
_SUFFIX = ".dcm"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
# One write call for many PDVs; a scanner's typical PDV is 16 to 128 KiB.
_BUFFER_BYTES = 1 << 20
# The free space is looked at again each time that this much of one instance has arrived.
_CHECK_EVERY_BYTES = 64 << 20
DIGEST_BYTES = 32


def new_digest() -> hashlib.blake2b:
    """The digest of a data set (``StoredInstance.data_set_digest``)."""
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def _device_error(error: OSError) -> DeviceError:
    """What a failed write means; the system's text is left out, it may hold a path."""
    if error.errno in _NO_ROOM:
        return SpoolFullError("the spool's disk is full; free space or shorten the retention")
    name = errno.errorcode.get(error.errno or 0, "unknown")
    return SpoolFailedError(f"the spool's disk failed ({name}); see the system's log")


class IncomingFile:
    """A file that is being received; use it from one thread at a time."""

    def __init__(self, spool: Spool, path: Path, header: bytes, max_bytes: int) -> None:
        self._spool = spool
        self.path = path
        self._max_bytes = max_bytes
        self._digest = new_digest()
        self._next_check = _CHECK_EVERY_BYTES
        self.data_set_bytes = 0
        self.file_bytes = len(header)
        try:
            self._stream: BinaryIO = path.open("xb", buffering=_BUFFER_BYTES)
            self._stream.write(header)
        except OSError as error:
            raise _device_error(error) from error

    def write(self, data: bytes) -> None:
        """Append a piece of the data set.

        Raises:
            InstanceTooLargeError: The instance exceeds the bound.
            SpoolFullError: There is no room left above the reserve.
            SpoolFailedError: The disk failed.
        """
        self.data_set_bytes += len(data)
        self.file_bytes += len(data)
        if self.data_set_bytes > self._max_bytes:
            raise InstanceTooLargeError("larger than max_instance_bytes; raise it if this is real")
        if self.data_set_bytes >= self._next_check:
            self._next_check += _CHECK_EVERY_BYTES
            self._spool.check_room()
        self._digest.update(data)
        try:
            self._stream.write(data)
        except OSError as error:
            raise _device_error(error) from error

    @property
    def data_set_digest(self) -> str:
        """BLAKE2b-256 of what was written so far, in hex."""
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Make the content durable and close the file; see ``write`` for what it raises."""
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
        except OSError as error:
            raise _device_error(error) from error

    def discard(self) -> None:
        """Remove the file, whatever state it is in; a second call does nothing."""
        self.path.unlink(missing_ok=True)
        # Closing writes the buffer, which fails on a full disk; the descriptor is freed anyway.
        with contextlib.suppress(OSError):
            self._stream.close()


class Spool:
    """Opaque, durable files under one folder."""

    def __init__(self, root: Path, *, min_free_bytes: int = 0) -> None:
        """Make the folders if they do not exist.

        Args:
            root: The spool folder.
            min_free_bytes: Reserve of the file system; below it nothing is accepted.

        Raises:
            SpoolFailedError: The folder cannot be made.
        """
        self.root = root
        self._min_free_bytes = min_free_bytes
        try:
            for name in (_INCOMING, _QUARANTINE, *_SHARDS):
                (root / name).mkdir(parents=True, exist_ok=True)
            sync_directory(root)
        except OSError as error:
            raise _device_error(error) from error

    def check_room(self) -> None:
        """Raise ``SpoolFullError`` if less than the reserve is free."""
        if self.free_bytes() < self._min_free_bytes:
            raise SpoolFullError("the spool's disk has reached its reserve; free space")

    def free_bytes(self) -> int:
        """Bytes that may still be written to the spool's file system."""
        found = os.statvfs(self.root)
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
        self.check_room()
        path = self.root / _INCOMING / f"{secrets.token_hex(16)}{_SUFFIX}"
        return IncomingFile(self, path, header, max_bytes)

    def publish(self, incoming: IncomingFile) -> str:
        """Give a synced file its durable name.

        Returns:
            The path relative to the spool folder.

        Raises:
            SpoolFullError: There is no room for the name.
            SpoolFailedError: The disk failed.
        """
        token = incoming.path.stem
        path = f"{token[:2]}/{token[2:]}{_SUFFIX}"
        try:
            durable_rename(incoming.path, self.root / path)
        except OSError as error:
            raise _device_error(error) from error
        return path

    def quarantine(self, path: str) -> str:
        """Move a file out of the shards, durably; its name stays, so it can be found again.

        Returns:
            The new path relative to the spool folder.
        """
        source = self.absolute(path)
        target = f"{_QUARANTINE}/{source.name}"
        try:
            durable_rename(source, self.absolute(target))
        except OSError as error:
            raise _device_error(error) from error
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

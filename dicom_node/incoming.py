"""One file while it is being received: a page-aligned buffer in front of a descriptor.

Before the buffer, in the same memory, stands a free page: with it, a file that fits the buffer is a
record of the journal without a copy.

Where the file system can, the buffer goes to the disk without a copy in the page cache (O_DIRECT):
what is received once and read once, by another process, would only push better things out of it.
Memory does not grow with the file, and an instance that fits the buffer is not touched on the disk
before it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

from dicom_node.errors import DeviceError, InstanceTooLargeError, SpoolFailedError, SpoolFullError
from dicom_node.journal_format import PAGE_BYTES, record_bytes

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
BUFFER_BYTES = 1 << 20
# Holds a CT slice of 512 × 512 with its header; 32 associations need 32 MiB.
_HEAD_BYTES = 64 * 1024
# The room is looked at again each time that this much of one instance has arrived.
_CHECK_EVERY_BYTES = 64 << 20


def device_error(error: OSError) -> DeviceError:
    """What a failed write means; the system's text is left out, it may hold a path."""
    if error.errno in _NO_ROOM:
        return SpoolFullError("the spool's disk is full; free space or shorten the retention")
    name = errno.errorcode.get(error.errno or 0, "unknown")
    return SpoolFailedError(f"the spool's disk failed ({name}); see the system's log")


class BufferPool:
    """Page-aligned buffers that are used again: a fresh page costs more than a copy into it."""

    _KEPT = 4

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def borrow(self) -> mmap.mmap:
        """Return a buffer; what it holds is what its last user left."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return mmap.mmap(-1, PAGE_BYTES + BUFFER_BYTES)

    def give_back(self, buffer: mmap.mmap) -> None:
        """Take a buffer back; nobody may have a view of it any more."""
        with self._lock:
            if len(self._free) < self._KEPT:
                self._free.append(buffer)
                return
        with contextlib.suppress(BufferError):  # a traceback may still show a piece of it
            buffer.close()


def direct_flag(folder: Path) -> int:
    """O_DIRECT if the file system of ``folder`` takes it, else 0.

    Raises:
        OSError: The folder cannot be written.
    """
    probe = folder / "direct-io.probe"
    buffer = mmap.mmap(-1, PAGE_BYTES)
    try:
        descriptor = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return 0
        raise
    try:
        os.pwrite(descriptor, buffer, 0)
    except OSError as error:
        # A full disk says nothing about direct writes, and must not keep the node from starting.
        if error.errno == errno.EINVAL:
            return 0
        if error.errno not in _NO_ROOM:
            raise
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)
        buffer.close()
    return os.O_DIRECT


class IncomingFile:
    """A file that is being received; use it from one thread at a time, and ``discard`` it last."""

    def __init__(
        self,
        path: str,
        header: bytes,
        *,
        max_bytes: int,
        buffers: BufferPool,
        flags: int,
        check_room: Callable[[], None],
    ) -> None:
        """Begin with ``header``: preamble and file meta information."""
        self.path = path
        self.data_set_offset = len(header)
        self._limit = len(header) + max_bytes
        self._flags = flags
        self._check_room = check_room
        self._next_check = _CHECK_EVERY_BYTES
        self._buffers = buffers
        self._buffer: mmap.mmap | None = buffers.borrow()
        self._view = memoryview(self._buffer)[PAGE_BYTES:]
        self._view[: len(header)] = header
        self._filled = len(header)
        self._written = 0
        self._descriptor = -1
        self._is_on_disk = False
        self._head = b""

    @property
    def file_bytes(self) -> int:
        """What has arrived so far, with the header."""
        return self._written + self._filled

    @property
    def data_set_bytes(self) -> int:
        """What has arrived so far of the data set."""
        return self.file_bytes - self.data_set_offset

    def space(self) -> memoryview:
        """Room for the next bytes, at least one; tell ``advance`` how many were written into it.

        Raises:
            SpoolFullError: There is no room left above the reserve.
            SpoolFailedError: The disk failed.
        """
        if self._filled == BUFFER_BYTES:
            self._flush()
        return self._view[self._filled :]

    def advance(self, count: int) -> None:
        """Count what was written into ``space``.

        Raises:
            InstanceTooLargeError: The instance exceeds the bound.
        """
        self._filled += count
        if self._written + self._filled > self._limit:
            raise InstanceTooLargeError("larger than max_instance_bytes; raise it if this is real")

    def write(self, data: bytes | memoryview) -> None:
        """Append a piece of the data set; see ``space`` and ``advance`` for what it raises."""
        done, size = 0, len(data)
        while done < size:
            space = self.space()
            count = min(size - done, len(space))
            space[:count] = data[done : done + count]
            self.advance(count)
            done += count

    def _flush(self) -> None:
        """Write the whole buffer, which ends on a block."""
        if self._written >= self._next_check:
            self._next_check += _CHECK_EVERY_BYTES
            self._check_room()
        try:
            self._open()
            self._put(BUFFER_BYTES)
        except OSError as error:
            raise device_error(error) from error
        if not self._written:
            self._head = bytes(self._view[:_HEAD_BYTES])
        self._written += BUFFER_BYTES
        self._filled = 0

    def _open(self) -> None:
        if self._descriptor < 0:
            self._is_on_disk = True
            self._descriptor = os.open(
                self.path,
                os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | self._flags,
                0o600,
            )

    def _put(self, size: int) -> None:
        done = 0
        while done < size:
            done += os.pwrite(self._descriptor, self._view[done:size], self._written + done)

    def read_at(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes of the file from ``offset`` on, wherever they are now."""
        if not self._written:
            return bytes(self._view[offset : min(offset + length, self._filled)])
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        if offset >= self._written:
            begin = offset - self._written
            return bytes(self._view[begin : min(begin + length, self._filled)])
        return self._read_back(offset, length)

    def _read_back(self, offset: int, length: int) -> bytes:
        """Read what is on the disk already, and the rest from the buffer."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.pread(descriptor, min(length, self._written - offset), offset)
        finally:
            os.close(descriptor)
        return found + bytes(self._view[: min(length - len(found), self._filled)])

    @property
    def is_in_memory(self) -> bool:
        """All of it is in the buffer; there is no file yet."""
        return not self._is_on_disk

    def as_record(self) -> memoryview:
        """A free page, the whole content, and zeros up to a whole page; while it is in memory."""
        self._pad()
        return memoryview(cast("mmap.mmap", self._buffer))[: record_bytes(self._filled)]

    def write_cached(self, path: str) -> None:
        """Write the content to another file, not synced; while it is in memory.

        Raises:
            SpoolFullError: There is no room for it.
            SpoolFailedError: The disk failed.
        """
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                done = 0
                while done < self._filled:
                    done += os.write(descriptor, self._view[done : self._filled])
            finally:
                os.close(descriptor)
        except OSError as error:
            raise device_error(error) from error

    def sync(self) -> None:
        """Make the content durable and close the file.

        Raises:
            SpoolFullError: There is no room for it.
            SpoolFailedError: The disk failed.
        """
        size = self.file_bytes
        try:
            self._open()
            self._put_rest()
            if self._flags and size % PAGE_BYTES:
                os.ftruncate(self._descriptor, size)
            os.fdatasync(self._descriptor)
            self._close()
        except OSError as error:
            raise device_error(error) from error

    def _put_rest(self) -> None:
        """Write what the buffer holds; a direct write ends on a block, filled up with zeros."""
        self._put(self._pad() if self._flags else self._filled)

    def _pad(self) -> int:
        """Fill up the last page with zeros; where it ends. O_DIRECT wants whole blocks."""
        padded = -(-self._filled // PAGE_BYTES) * PAGE_BYTES
        self._view[self._filled : padded] = bytes(padded - self._filled)
        return padded

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def release(self) -> None:
        """Let go of the buffer; the file stays. A second call does nothing."""
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._view.release()
            self._buffers.give_back(buffer)

    def discard(self) -> None:
        """Remove the file, whatever state it is in; a second call does nothing.

        Never raises: what a broken disk does not let go of is cleared by the start-up scan.
        """
        if self._is_on_disk:
            with contextlib.suppress(OSError):
                os.unlink(self.path)  # noqa: PTH108  path objects cost more than the call here
        with contextlib.suppress(OSError):
            self._close()
        self.release()

"""Write, then publish; and one writer at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from telemetry.errors import AlreadyOpenError


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, content: bytes) -> None:
    """Write a whole file so that after a power cut it is there complete, or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(path)
    sync_folder(path.parent)


class WriterLock:
    """Holds an advisory lock on a file of its own; the kernel drops it when the process dies."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            AlreadyOpenError: Another process, or this one, holds it.
        """
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise AlreadyOpenError(
                f"{path.name} is locked: another courier writes here. Stop it first."
            ) from error

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._handle)

"""The ways by which this package makes a name durable."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path


def sync_directory(folder: Path) -> None:
    """Make the names in ``folder`` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def durable_rename(source: Path, target: Path) -> None:
    """Rename a file whose content is already synced, and make the new name durable.

    The old name's folder is not synced: after a crash the file may also stand under its old name,
    and whoever owns that folder cleans it.
    """
    source.replace(target)
    sync_directory(target.parent)


@dataclass(slots=True)
class _Round:
    """One fsync, and all who wait for it."""

    is_done: bool = False
    error: OSError | None = None


class SharedSync:
    """One folder whose fsync many threads share.

    A caller is released by the first fsync that began after it asked: what it renamed before is
    then durable. While one thread syncs, all others that come wait for the next round together.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = -1
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._changed = threading.Condition()
        self._next = _Round()
        self._is_running = False

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def sync(self) -> None:
        """Return once every name that was in the folder before this call is durable.

        Raises:
            OSError: The disk failed; whether the names are durable is unknown.
        """
        with self._changed:
            mine = self._next
            self._changed.wait_for(lambda: mine.is_done or not self._is_running)
            leads = not mine.is_done
            if leads:
                self._is_running = True
                self._next = _Round()
        if leads:
            self._run(mine)
        if mine.error is not None:
            raise mine.error

    def _run(self, mine: _Round) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            mine.error = error
        with self._changed:
            mine.is_done = True
            self._is_running = False
            self._changed.notify_all()

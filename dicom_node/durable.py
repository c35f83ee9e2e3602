"""The one way by which this package makes a name durable."""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(folder: Path) -> None:
    """Make the names in ``folder`` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def durable_rename(source: Path, target: Path) -> None:
    """Rename a file whose content is already synced, and make the new name durable.

    The old name's folder is not synced: after a crash the file may also stand under its old name,
    and whoever owns that folder cleans it.
    """
    source.replace(target)
    sync_directory(target.parent)

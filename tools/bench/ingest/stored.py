"""What a receiver holds, counted after every run: fast must not mean lossy."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from edge_runtime.store.database import connect


class Stored(Protocol):
    """The objects that a receiver holds."""

    def count(self) -> int:
        """Return how many objects there are, each whole."""

    def clear(self) -> None:
        """Make room where that is possible while the receiver runs."""


class FolderOfFiles:
    """A receiver that writes each object to a file of its own and keeps no index."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def count(self) -> int:
        """Count files; names with a dot in front are unfinished ones, empty ones of runs before."""
        return sum(
            not path.name.startswith(".") and path.stat().st_size > 0
            for path in self._folder.iterdir()
        )

    def clear(self) -> None:
        """Empty the files: they were never synced, and would be written back in the next run.

        They are not deleted: ext4 without a journal steps over each inode that was freed in the
        last half minute, so that every receiver would pay for what was deleted after the others.
        """
        for path in self._folder.iterdir():
            os.truncate(path, 0)


class SpoolAndIndex:
    """Our node: a row for each instance, and a file of the right length for each row."""

    def __init__(self, database: Path, spool: Path) -> None:
        self._connection = connect(database)
        self._spool = spool
        self._last_id = 0
        self._counted = 0

    def count(self) -> int:
        """Count the rows whose file is there in full."""
        rows = self._connection.execute(
            "SELECT id, path, file_bytes FROM instance WHERE id > ? ORDER BY id", (self._last_id,)
        ).fetchall()
        for row in rows:
            self._last_id = row["id"]
            with contextlib.suppress(FileNotFoundError):
                found = (self._spool / row["path"]).stat().st_size
                self._counted += found == row["file_bytes"]
        return self._counted

    def clear(self) -> None:
        """Keep everything, as a device does."""


class OrthancStatistics:
    """Orthanc: what its REST interface says."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    def count(self) -> int:
        """Ask for the number of instances."""
        count = self._get("/statistics")["CountInstances"]
        return int(str(count))

    def is_up(self) -> bool:
        """Say whether it answers."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return "Version" in self._get("/system")
        return False

    def clear(self) -> None:
        """Keep everything: deleting goes through its index."""

    def _get(self, path: str) -> dict[str, object]:
        with contextlib.closing(
            http.client.HTTPConnection(self._host, self._port, 30)
        ) as connection:
            connection.request("GET", path)
            answer: dict[str, object] = json.loads(connection.getresponse().read())
            return answer


def takes_direct_writes(folder: Path) -> bool:
    """Say whether files there can be written past the page cache; some file systems cannot."""
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        try:
            os.close(os.open(probe.name, os.O_WRONLY | os.O_DIRECT))
        except OSError:
            return False
    return True


def free_bytes(folder: Path) -> int:
    """Return what the disk of a folder has left."""
    return shutil.disk_usage(folder).free

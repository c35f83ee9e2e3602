"""A reader in a process of its own, from the side that gives orders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.children import Child
from tools.bench.ingest import process_tree
from tools.bench.readers.errors import ReaderFailedError
from tools.bench.readers.names import Job, ReaderName

_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One folder read once."""

    wall_s: float
    cpu_s: float
    cpu_since_start_s: float
    """Of the reader's process, with imports and all that it read before."""
    peak_rss_bytes: int
    """Of the largest process of the reader; what it has imported is in it."""
    error: str
    said: str


class ReaderProcess:
    """A warm reader; it ends with the ``with`` block."""

    def __init__(self, name: ReaderName, job: Job, folder: Path) -> None:
        """Start it.

        Args:
            name: who reads.
            job: into what.
            folder: for its log.
        """
        self.name, self.job = name, job
        log = folder / f"{job.value}-{name.value}.log"
        self._child = Child(
            ["-m", "tools.bench.readers.child", name.value, job.value, str(log)],
            log,
            _LIMIT_S,
            self._failure,
        )

    def __enter__(self) -> ReaderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()

    def wait_ready(self) -> None:
        """Wait until everything is imported.

        Raises:
            ReaderFailedError: it ended instead.
        """
        self._child.receive()

    def read(self, folder: Path, *, keep: bool = False) -> Timed:
        """Let it read a folder, and watch its memory.

        Args:
            folder: with the files of one series.
            keep: for ``describe``.

        Raises:
            ReaderFailedError: it ended, or takes too long.
        """
        process_tree.reset_peak(self._child.pid)
        self._child.send({"read": str(folder), "keep": keep})
        answer, peak = self._child.receive_watched()
        return Timed(peak_rss_bytes=peak, **answer)

    def describe(self, truth: Path) -> dict[str, Any]:
        """What it made of the folder that it kept; of a volume, held against the truth.

        Raises:
            ReaderFailedError: it ended, or takes too long.
        """
        self._child.send({"truth": str(truth)})
        found: dict[str, Any] = self._child.receive()
        return found

    def _failure(self, what: str, last: str) -> ReaderFailedError:
        return ReaderFailedError(
            f"the reader {self.name.value} {what}; it last said: {last}. Repair or remove what is "
            "installed for it, or measure without --peers"
        )

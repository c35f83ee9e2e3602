"""A reader in a process of its own, from the side that gives orders."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.ingest import process_tree
from tools.bench.readers.errors import ReaderFailedError
from tools.bench.readers.names import Job, ReaderName

_LIMIT_S = 600.0
_LOOK_S = 0.02
_STOP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One folder read once."""

    wall_s: float
    cpu_s: float
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
        self._log = folder / f"{job.value}-{name.value}.log"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.bench.readers.child", name, job, str(self._log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # As the device's own processes; peers bring threads of their own where they want any.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def __enter__(self) -> ReaderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def wait_ready(self) -> None:
        """Wait until everything is imported.

        Raises:
            ReaderFailedError: it ended instead.
        """
        self._receive()

    def read(self, folder: Path, *, keep: bool = False) -> Timed:
        """Let it read a folder, and watch its memory.

        Args:
            folder: with the files of one series.
            keep: for ``describe``.

        Raises:
            ReaderFailedError: it ended, or takes too long.
        """
        process_tree.reset_peak(self._process.pid)
        self._send({"read": str(folder), "keep": keep})
        answer, peak = self._receive()
        return Timed(peak_rss_bytes=peak, **answer)

    def describe(self, truth: Path) -> dict[str, Any]:
        """What it made of the folder that it kept; of a volume, held against the truth.

        Raises:
            ReaderFailedError: it ended, or takes too long.
        """
        self._send({"truth": str(truth)})
        return self._receive()[0]

    def _send(self, order: dict[str, object]) -> None:
        if self._process.stdin is None:
            raise self._failed("was never asked")
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failed("has ended") from error

    def _receive(self) -> tuple[dict[str, Any], int]:
        """The answer, and the peak of the tree; children are seen while they live."""
        answers = self._process.stdout
        if answers is None:
            raise self._failed("cannot answer")
        peak, deadline_s = 0, time.monotonic() + _LIMIT_S
        while not select.select([answers], [], [], _LOOK_S)[0]:
            peak = max(peak, process_tree.peak_rss_bytes(self._process.pid))
            if time.monotonic() > deadline_s:
                raise self._failed(f"takes longer than {_LIMIT_S:.0f} s")
        peak = max(peak, process_tree.peak_rss_bytes(self._process.pid))
        line = answers.readline()
        if not line:
            raise self._failed("has ended")
        return json.loads(line), peak

    def _failed(self, what: str) -> ReaderFailedError:
        said = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
        last = next(iter(said.strip().splitlines()[-1:]), "")
        return ReaderFailedError(
            f"the reader {self.name.value} {what}; it last said: {last}. Repair or remove what is "
            "installed for it, or measure without --peers"
        )

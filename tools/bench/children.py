"""A process that does what it is told in lines of JSON: both ends of the conversation."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from tools.bench.ingest import process_tree

_LOOK_S = 0.02
_STOP_S = 10.0

Failure = Callable[[str, str], Exception]
"""What is wrong, and what the child last said, to the error that is raised."""


class Child:
    """The side that gives orders."""

    def __init__(self, arguments: Sequence[str], log: Path, limit_s: float, fail: Failure) -> None:
        """Start it.

        Args:
            arguments: of this Python.
            log: where it prints what is no answer.
            limit_s: for one answer.
            fail: makes the error.
        """
        self._log, self._limit_s, self._fail = log, limit_s, fail
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # As the device's own processes; peers bring threads of their own where they want any.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    @property
    def pid(self) -> int:
        """Whose memory is looked at."""
        return self._process.pid

    def close(self) -> None:
        """Let it end, or end it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def send(self, order: dict[str, object]) -> None:
        """Tell it what to do."""
        if self._process.stdin is None:
            raise self.failed("was never asked")
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self.failed("has ended") from error

    def receive(self) -> Any:
        """Wait for the next answer."""
        if self._process.stdout is None:
            raise self.failed("cannot answer")
        if not select.select([self._process.stdout], [], [], self._limit_s)[0]:
            raise self._late()
        return self._answer()

    def receive_watched(self) -> tuple[Any, int]:
        """The answer, and the peak of the tree in bytes; children are seen while they live."""
        if self._process.stdout is None:
            raise self.failed("cannot answer")
        peak, deadline_s = 0, time.monotonic() + self._limit_s
        while not select.select([self._process.stdout], [], [], _LOOK_S)[0]:
            peak = max(peak, process_tree.peak_rss_bytes(self.pid))
            if time.monotonic() > deadline_s:
                raise self._late()
        peak = max(peak, process_tree.peak_rss_bytes(self.pid))
        return self._answer(), peak

    def failed(self, what: str) -> Exception:
        """Make the error, with the last line that the child has printed."""
        said = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
        return self._fail(what, next(iter(said.strip().splitlines()[-1:]), "nothing"))

    def _answer(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout is not None else b""
        if not line:
            raise self.failed("has ended")
        return json.loads(line)

    def _late(self) -> Exception:
        return self.failed(f"takes longer than {self._limit_s:.0f} s")


@contextlib.contextmanager
def own_output(log: Path) -> Iterator[TextIO]:
    """In the child: keep standard output for answers, let all else that prints print to the log."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        with log.open("ab", buffering=0) as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
        yield answers


def answer(answers: TextIO, value: object) -> None:
    """In the child: give one answer."""
    answers.write(json.dumps(value) + "\n")
    answers.flush()

"""A runner in a process of its own, from the side that gives orders."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path

from tools.bench.engine.answers import Layer, Ready, Timed
from tools.bench.engine.errors import RunnerFailedError
from tools.bench.engine.job import Job
from tools.bench.engine.names import RunnerName
from tools.bench.ingest import process_tree

_LIMIT_S = 1200.0
"""Building a plan on a small board takes minutes."""
_STOP_S = 10.0


class RunnerProcess:
    """One model, loaded by one runner; it ends with the ``with`` block."""

    def __init__(self, name: RunnerName, job: Job, folder: Path) -> None:
        """Start it; ``folder`` is for its log."""
        self.name = name
        self._log = folder / f"{name.value}.log"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.bench.engine.child", name.value, job.text(), self._log],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def __enter__(self) -> RunnerProcess:
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

    def wait_ready(self) -> Ready | str:
        """Wait until the model is loaded; say why where it does not run here.

        Raises:
            RunnerFailedError: it ended instead.
        """
        answer = self._receive()
        if not isinstance(answer, dict):
            raise self._failed("does not say what it is")
        refused = answer.get("refused")
        return Ready(**answer) if refused is None else str(refused)

    def time(self, batch: int, *, seconds: float, least: int) -> Timed:
        """Let it run a batch of so many items for so long, and so often at least.

        Raises:
            RunnerFailedError: it ended, or takes too long.
        """
        answer = self._ask({"batch": batch, "seconds": seconds, "least": least})
        if not isinstance(answer, dict) or "refused" in answer:
            raise self._failed("broke down")
        return Timed(**{**answer, "latencies_us": tuple(answer["latencies_us"])})

    def layers(self, batch: int) -> tuple[Layer, ...]:
        """Return where its time goes; empty where it cannot tell.

        Raises:
            RunnerFailedError: it ended, or takes too long.
        """
        answer = self._ask({"batch": batch})
        if answer is not None and not isinstance(answer, list):
            raise self._failed("broke down")
        return tuple(Layer(**layer) for layer in answer or ())

    @property
    def peak_rss_bytes(self) -> int:
        """The most that it ever held, all libraries included."""
        return process_tree.peak_rss_bytes(self._process.pid)

    def _ask(self, order: dict[str, object]) -> object:
        if self._process.stdin is None:
            raise self._failed("was never asked")
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failed("has ended") from error
        return self._receive()

    def _receive(self) -> object:
        answers = self._process.stdout
        if answers is None:
            raise self._failed("cannot answer")
        if not select.select([answers], [], [], _LIMIT_S)[0]:
            raise self._failed(f"takes longer than {_LIMIT_S:.0f} s")
        line = answers.readline()
        if not line:
            raise self._failed("has ended")
        answer: object = json.loads(line)
        return answer

    def _failed(self, what: str) -> RunnerFailedError:
        said = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
        last = next(iter(said.strip().splitlines()[-1:]), "nothing")
        return RunnerFailedError(
            f"the runner {self.name.value} {what}; it last said: {last}. Mend what is installed "
            "for it, or measure without it (--engine, --peers)"
        )

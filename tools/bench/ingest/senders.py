"""The senders: our own process that costs next to nothing, and dcmtk's storescu."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tools.bench.ingest.association import CALLING_AE_TITLE
from tools.bench.ingest.errors import SenderFailedError
from tools.bench.ingest.loads import LOADS, write_file
from tools.bench.ingest.names import LoadName
from tools.bench.ingest.orders import Answer, Order, decode_answer, encode
from tools.bench.ingest.receivers import DCMTK_ENVIRONMENT

_LIMIT_S = 300
_SAID_CHARACTERS = 300


class Sender(Protocol):
    """Carries out orders."""

    def send(self, order: Order) -> Answer:
        """Send what the order says and wait for the last answer."""


class Blast:
    """Our own sender's process; a context manager."""

    def __enter__(self) -> Blast:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tools.bench.ingest.blast import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it: its input ends; in the middle of an order it is killed."""
        if error is not None:
            self._process.kill()
        self._process.communicate()

    def send(self, order: Order) -> Answer:
        """Hand an order over.

        Raises:
            SenderFailedError: the process died.
        """
        told, answers = self._process.stdin, self._process.stdout
        if told is None or answers is None:
            raise SenderFailedError("the sender was not started")
        with contextlib.suppress(BrokenPipeError):
            told.write(encode(order) + "\n")
            told.flush()
        line = answers.readline()
        if not line:
            raise SenderFailedError("the sender's process died; see standard error")
        return decode_answer(line)


class Storescu:
    """dcmtk's storescu, a process for each association; it invents new UIDs for each object.

    Its times count from the start of the processes, and hold their start and the association.
    """

    def __init__(self, program: str, folder: Path) -> None:
        """``folder`` is for the one file of each load that is sent many times."""
        self._program = program
        self._folder = folder

    def send(self, order: Order) -> Answer:
        """Run the processes."""
        path = self._file(order.load)
        size = path.stat().st_size
        cpu_s, started_s = _children_cpu_s(), time.perf_counter()
        with contextlib.ExitStack() as stack:
            processes = [
                stack.enter_context(self._start(order, path, len(share)))
                for share in order.shares()
            ]
            stack.callback(_kill_all, processes)
            outcomes = [_words_of(process) for process in processes]
        wall_s = time.perf_counter() - started_s
        failed = [
            f"storescu ended with {process.returncode}: {words[-_SAID_CHARACTERS:].strip()}"
            for process, words in zip(processes, outcomes, strict=True)
            if process.returncode
        ]
        # It stops at the first object that is not answered with 0000 or a warning.
        sent = 0 if failed else order.instances
        return Answer(
            sent=sent,
            data_set_bytes=sent * size,
            wall_s=wall_s,
            cpu_s=_children_cpu_s() - cpu_s,
            statuses={"0000": sent} if sent else {},
            error="; ".join(failed),
        )

    def _start(self, order: Order, path: Path, count: int) -> subprocess.Popen[str]:
        address = order.address
        return subprocess.Popen(
            [
                *(self._program, "-xe", "-R", "+IS", "1000000", "+IR", "1000000"),
                *("-aet", CALLING_AE_TITLE, "-aec", address.ae_title),
                *(address.host, str(address.port)),
                *([str(path)] * count),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **DCMTK_ENVIRONMENT},
            text=True,
            start_new_session=True,
        )

    def _file(self, name: LoadName) -> Path:
        path = self._folder / f"{name.value}.dcm"
        if not path.exists():
            write_file(LOADS[name], path)
        return path


def _words_of(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a process, which is killed when it takes too long."""
    try:
        return process.communicate(timeout=_LIMIT_S)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def _kill_all(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()


def _children_cpu_s() -> float:
    """Of the children that have ended; while a load is sent, these are senders only."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

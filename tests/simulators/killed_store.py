"""Kills whoever works on the store of model packages, as the kernel does, at each step in turn.

``python -m simulators.killed_store TEMPLATE RELEASE COPIES``: every try gets a copy of the device's
state, and a process of its own, forked from here to spare the imports. A step is an SQL statement,
or what changes a file or a folder; a write is also torn in the middle.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from simulators.store_bench import StoreBench

PERSON = "Ada Byron"
_DEADLINE_S = 280
_STEPS = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"})


def prepare(folder: Path) -> StoreBench:
    """A device whose active version replaced another one."""
    bench = StoreBench(folder)
    bench.open_store(approvals=1)
    for version in ("1.0.0", "1.1.0"):
        bench.store.install(bench.release(version))
        bench.store.approve(f"bright@{version}", person=PERSON, note="")
        bench.store.activate(f"bright@{version}")
    return bench


def work(bench: StoreBench, release: Path) -> None:
    """All that is done to a package, to be killed in."""
    bench.store.install(release)
    bench.store.approve("bright@1.2.0", person=PERSON, note="")
    bench.store.activate("bright@1.2.0")
    bench.store.rollback("bright")
    bench.store.retire("bright")


def kill_at_every_step(template: Path, release: Path, copies: Path) -> list[Path]:
    """Run this module; return the states that the kills left, in the order of the steps."""
    done = subprocess.run(
        [sys.executable, "-m", "simulators.killed_store", template, release, copies],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(copies.iterdir(), key=lambda folder: int(folder.name))


class _Death:
    """Counts steps down, and then kills this process."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at
        self._fsync, self._write = os.fsync, os.write

    def arm(self, bench: StoreBench) -> None:
        sys.addaudithook(self._on_event)
        bench.connection.set_trace_callback(self._on_statement)
        os.fsync = self._on_fsync  # type: ignore[assignment]  # this process does nothing else
        os.write = self._on_write  # type: ignore[assignment]  # nor with this

    def _step(self) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        creates = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if event in _STEPS or creates:
            self._step()

    def _on_statement(self, statement: str) -> None:
        if not statement.startswith(("SELECT", "PRAGMA")):  # which change nothing
            self._step()

    def _on_fsync(self, handle: int) -> None:
        self._step()
        self._fsync(handle)

    def _on_write(self, handle: int, data: memoryview) -> int:
        self._step()
        if self._left == 1:
            self._write(handle, data[: len(data) // 2])
        self._step()
        return self._write(handle, data)


def _run(template: Path, release: Path, copies: Path) -> None:
    copies.mkdir()
    number = 0
    status = -1
    while status != 0:
        number += 1
        folder = copies / str(number)
        shutil.copytree(template, folder)
        child = os.fork()
        if child == 0:
            bench = StoreBench(folder)
            bench.open_store(approvals=1)
            _Death(number).arm(bench)
            work(bench, release)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status not in {0, signal.SIGKILL}:
            sys.exit(f"step {number} ended with {status}")


if __name__ == "__main__":
    _run(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))

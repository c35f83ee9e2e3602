"""Kills whoever works on a folder, as the kernel does, at each step in turn.

A module with such work calls ``die_at_every_step`` as its main, ``python -m MODULE TEMPLATE
COPIES``; tests run it with ``kill_at_every_step``. Every try gets a copy of the folder, and a
process of its own, forked from one that has the imports. A step is whatever changes a file or a
folder, takes a lock or waits for the disk, and an SQL statement that may change something; a write
is also torn in the middle.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_DEADLINE_S = 280
_STEPS = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock"})


class Death:
    """Counts steps down, and then kills this process."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at
        self._fsync, self._write = os.fsync, os.write

    def arm(self, *connections: sqlite3.Connection) -> None:
        """Count from now on, also what is asked of these databases."""
        sys.addaudithook(self._on_event)
        for connection in connections:
            connection.set_trace_callback(self._on_statement)
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
        if not statement.startswith("SELECT"):  # which changes nothing
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


Work = Callable[[Path, Death], None]
"""Done in a folder; it arms its death when what shall be killed begins."""


def kill_at_every_step(
    module: ModuleType, template: Path, copies: Path, *arguments: Path
) -> list[Path]:
    """Run a module; return the states that the kills left, in the order of the steps."""
    done = subprocess.run(
        [sys.executable, "-m", module.__name__, template, copies, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(copies.iterdir(), key=lambda folder: int(folder.name))


def die_at_every_step(work: Work) -> None:
    """Do it over and over, one step further each time, until it is done before it is killed."""
    template, copies = Path(sys.argv[1]), Path(sys.argv[2])
    copies.mkdir()
    number = 0
    status = -1
    while status != 0:
        number += 1
        folder = copies / str(number)
        if template.is_dir():
            shutil.copytree(template, folder)
        child = os.fork()
        if child == 0:
            work(folder, Death(number))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status not in {0, signal.SIGKILL}:
            sys.exit(f"step {number} ended with {status}")

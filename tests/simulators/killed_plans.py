"""Kills whoever works on the store of plans, as the kernel does, at each step in turn.

``python -m simulators.killed_plans TEMPLATE COPIES``: every try gets a copy of the store, and a
process of its own, forked from here to spare the imports. A step is whatever changes a file or a
folder, or waits for the disk; a write is also torn in the middle.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import structlog

from engines.plans.store import PlanStore
from simulators.plan_bench import (
    KEY,
    NEW_PLAN,
    OLD_PLAN,
    OTHER_KEY,
    change_byte,
    keep_proven,
    plan_path,
    proof_of,
)

OLD_TIMES, NEW_TIMES = b"older times", b"newer times"
_DEADLINE_S = 250
_STEPS = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock"})


def prepare(folder: Path) -> PlanStore:
    """A store with one sound plan and one that somebody changed."""
    store = PlanStore(folder)
    keep_proven(store, KEY, OLD_PLAN)
    store.keep_timing_cache(KEY, OLD_TIMES)
    keep_proven(store, OTHER_KEY, OLD_PLAN)
    change_byte(plan_path(store, OTHER_KEY), -1)
    return store


def work(store: PlanStore) -> None:
    """All that is done to plans, to be killed in."""
    with store.building(KEY):
        stored = store.keep(KEY, NEW_PLAN)
    store.attach_proof(KEY, proof_of(stored))
    store.keep_timing_cache(KEY, NEW_TIMES)
    store.find(OTHER_KEY)
    store.quarantine(KEY, "the library refused it")
    with store.building(OTHER_KEY) as found:
        assert found is None
        store.keep(OTHER_KEY, NEW_PLAN)
    store.remove(OTHER_KEY.digest())


def kill_at_every_step(template: Path, copies: Path) -> list[Path]:
    """Run this module; return the states that the kills left, in the order of the steps."""
    done = subprocess.run(
        [sys.executable, "-m", "simulators.killed_plans", template, copies],
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

    def arm(self) -> None:
        sys.addaudithook(self._on_event)
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

    def _on_fsync(self, handle: int) -> None:
        self._step()
        self._fsync(handle)

    def _on_write(self, handle: int, data: memoryview) -> int:
        self._step()
        if self._left == 1:
            self._write(handle, data[: len(data) // 2])
        self._step()
        return self._write(handle, data)


def _run(template: Path, copies: Path) -> None:
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
            _Death(number).arm()
            work(PlanStore(folder))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status not in {0, signal.SIGKILL}:
            sys.exit(f"step {number} ended with {status}")


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    _run(Path(sys.argv[1]), Path(sys.argv[2]))

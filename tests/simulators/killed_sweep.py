"""Kills a sweep of retention, as the kernel does, before each statement and each deletion in turn.

``python -m simulators.killed_sweep TEMPLATE COPIES``: every try gets a copy of the device's state,
and a process of its own, forked from here to spare the imports.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from edge_runtime.pipeline import sweeping
from simulators.retention_bench import KEEP_S, RetentionBench

_DEADLINE_S = 200
_FEW = 2
"""Instances in a batch, so that a small study takes several."""


def kill_at_every_step(template: Path, copies: Path) -> list[Path]:
    """Run this module; return the states that the kills left, in the order of the steps."""
    done = subprocess.run(
        [sys.executable, "-m", "simulators.killed_sweep", str(template), str(copies)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sorted(copies.iterdir(), key=lambda folder: int(folder.name))


def _sweep(folder: Path, kill_at: int) -> None:
    """Sweep in this process, and die at a step."""
    bench = RetentionBench(folder)
    bench.clock.advance(KEEP_S + 1)
    left = kill_at

    def step() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_event(event: str, _arguments: tuple[object, ...]) -> None:
        if event == "os.remove":
            step()

    sys.addaudithook(on_event)
    bench.connection.set_trace_callback(lambda _statement: step())
    bench.sweeper.sweep()


def _run(template: Path, copies: Path) -> None:
    sweeping._BATCH = _FEW
    number = 0
    status = -1
    while status != 0:
        number += 1
        folder = copies / str(number)
        shutil.copytree(template, folder)
        child = os.fork()
        if child == 0:
            _sweep(folder, number)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status not in {0, signal.SIGKILL}:
            sys.exit(f"step {number} ended with {status}")


if __name__ == "__main__":
    _run(Path(sys.argv[1]), Path(sys.argv[2]))

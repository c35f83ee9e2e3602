"""A process that wants a plan: ``python -m simulators.plan_builder FOLDER [BUILT]``.

It says on standard output where it stands, one word a line: ``waiting`` while another one builds,
``building`` when it is its turn, ``found`` or ``kept`` at its end. It builds until it gets a line
on standard input, and adds a line to the file BUILT for each build.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import structlog

from engines.plans.store import PlanStore
from simulators.plan_bench import KEY, NEW_PLAN

_DEADLINE_S = 60


class Builder:
    """One such process, seen from a test; it is killed when the block ends before it does."""

    def __init__(self, folder: Path, built: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "simulators.plan_builder", folder, built],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Builder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate(timeout=_DEADLINE_S)

    def says(self) -> str:
        """Wait for the next word; empty at the end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let it end its build."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Kill it as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait(_DEADLINE_S)


def _run(folder: Path, built: Path) -> None:
    store = PlanStore(folder)
    said: list[str] = []

    def on_wait() -> bool:
        if not said:
            said.append(_say("waiting"))
        return True

    with store.building(KEY, on_wait=on_wait) as found:
        if found is None:
            _say("building")
            sys.stdin.readline()
            with built.open("a", encoding="ascii") as stream:
                stream.write("built\n")
            store.keep(KEY, NEW_PLAN)
        else:
            assert found.plan == NEW_PLAN
    # Said when the lock is given back: what a test sees then is what stays.
    _say("found" if found else "kept")


def _say(word: str) -> str:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()
    return word


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    _run(Path(sys.argv[1]), Path(sys.argv[2]))

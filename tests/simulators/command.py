"""Runs the installed ``edge-triage`` command as people do, and knows all that it has started."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from simulators.waiting import wait_until

PROGRAM = Path(sys.executable).with_name("edge-triage")
_SAYS_S = 120.0


@dataclass(slots=True, kw_only=True)
class RunningCommand:
    """A command in a process group of its own, as a shell starts it."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    """The lines of standard error so far."""

    def wait_until_it_says(self, words: str) -> None:
        """Wait for a line with these words."""
        wait_until(lambda: any(words in line for line in self.said), _SAYS_S)

    def descendants(self) -> list[psutil.Process]:
        """Return the processes that it has started, and those that they have."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextlib.contextmanager
def running_command(*arguments: str | Path) -> Iterator[RunningCommand]:
    """Start ``edge-triage`` with these arguments; at the end of the block nothing of it is left."""
    process = subprocess.Popen(
        [PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    command = RunningCommand(process=process)
    reader = threading.Thread(target=_read, args=(command,), name="command-reader")
    reader.start()
    try:
        yield command
    finally:
        _kill_all(process)
        process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()


def _kill_all(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for descendant in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                descendant.kill()
    process.kill()


def _read(command: RunningCommand) -> None:
    assert command.process.stderr is not None
    for line in command.process.stderr:
        command.said.append(line)

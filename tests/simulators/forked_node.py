"""A process ``node``, forked by one that has imported everything: see ``simulators.node_forks``."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from simulators.node_forks import NUMBER, Word

_TESTS = Path(__file__).parent.parent
_IMPORTS_S = 60.0
_ENDS_S = 30.0


class ForkedNode:
    """A process that waits until it may begin; a failed test leaves it to the one that forks."""

    def __init__(self, log: BinaryIO) -> None:
        self._exit_code: int | None = None
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(_forks(), [b"."], [log.fileno(), theirs.fileno()])
        self._line.settimeout(_IMPORTS_S)
        self.pid = self._receive()

    def begin(self, config: Path, environment: dict[str, str]) -> None:
        """Let it run."""
        word = Word(config=str(config), folder=str(Path.cwd()), environment=environment)
        self._line.send(json.dumps(asdict(word)).encode())

    def fileno(self) -> int:
        """What can be read once it has ended."""
        return self._line.fileno()

    def poll(self) -> int | None:
        """Its exit code, or less than 0 for a signal; None while it runs."""
        try:
            return self.wait(0.0)
        except (BlockingIOError, TimeoutError):
            return None

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; its exit code.

        Raises:
            TimeoutError: It runs still.
        """
        if self._exit_code is None:
            self._line.settimeout(timeout_s)
            self._exit_code = self._receive()
            self._line.close()
        return self._exit_code

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it, unless it is known to have ended."""
        if self._exit_code is None:
            os.kill(self.pid, number)

    def _receive(self) -> int:
        content = self._line.recv(NUMBER.size)
        assert content, "the process that forks nodes has ended"
        (number,) = NUMBER.unpack(content)
        return int(number)


@functools.cache
def _forks() -> socket.socket:
    """Start the one that forks; a process of tests has one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    paths = (str(_TESTS), os.environ.get("PYTHONPATH", ""))
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "simulators.node_forks", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait(_ENDS_S)

    atexit.register(end)
    return ours

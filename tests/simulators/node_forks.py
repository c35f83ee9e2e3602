"""Forks nodes: it has imported all that a node imports, which is most of the time of a start.

``python -m simulators.node_forks DESCRIPTOR``. Each request on that socket brings two descriptors:
the log, and a line to whoever asked. A child waits on its line until it is told what to be, so that
it can be traced from its first step on. On the line come its process id and, once it has ended, its
exit code; it is reaped when the line is closed, so that its number is nobody else's before.

From its word on a child runs the main of the device's processes. What it has open, holds in memory
and does at a signal is what a node has that was started, which
tests/integration/test_forked_nodes.py compares.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
from dataclasses import dataclass

from edge_runtime import process
from edge_runtime.store.processes import Role

ENTRY_POINT = "edge_runtime.app.node:run"
NUMBER = struct.Struct("i")
"""A process id, or an exit code as ``subprocess`` has it."""
_MAX_WORD_BYTES = 1 << 20
_LOG_AND_LINE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What lets a child begin."""

    config: str
    folder: str
    """To work in."""
    environment: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    pid: int
    line: socket.socket


class _Forks:
    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._running: dict[int, _Child] = {}
        """By descriptor of the process (pidfd_open(2)), which can be read once it has ended."""
        self._ended: dict[int, _Child] = {}
        """By descriptor of the line, which can be read once it is closed."""

    def serve(self) -> Word | None:
        """Fork as asked until nobody can ask any more; returns, in each child, its word."""
        while True:
            for descriptor in self._wait():
                if descriptor in self._running:
                    self._tell(descriptor)
                elif descriptor in self._ended:
                    self._reap(descriptor)
                else:
                    _, given, _, _ = socket.recv_fds(self._requests, 1, _LOG_AND_LINE)
                    if not given:
                        self._kill_all()
                        return None
                    log, line = given
                    word = self._fork(log, socket.socket(fileno=line))
                    if word is not None:
                        return word

    def _wait(self) -> list[int]:
        poll = select.poll()
        for descriptor in (self._requests.fileno(), *self._running, *self._ended):
            poll.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, _ in poll.poll()]

    def _fork(self, log: int, line: socket.socket) -> Word | None:
        pid = os.fork()
        if pid == 0:
            self._forget()
            return _begin(log, line)
        os.close(log)
        self._running[os.pidfd_open(pid)] = _Child(pid=pid, line=line)
        line.send(NUMBER.pack(pid))
        return None

    def _tell(self, descriptor: int) -> None:
        child = self._running.pop(descriptor)
        os.close(descriptor)
        end = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert end is not None
        code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        self._ended[child.line.fileno()] = child
        with contextlib.suppress(BrokenPipeError):  # a test has failed, and nobody listens
            child.line.send(NUMBER.pack(code))

    def _reap(self, descriptor: int) -> None:
        child = self._ended.pop(descriptor)
        os.waitpid(child.pid, 0)
        child.line.close()

    def _kill_all(self) -> None:
        for child in self._running.values():
            os.kill(child.pid, signal.SIGKILL)

    def _forget(self) -> None:
        """Close what a node does not have."""
        self._requests.close()
        for descriptor in self._running:
            os.close(descriptor)
        for child in (*self._running.values(), *self._ended.values()):
            child.line.close()


def _begin(log: int, line: socket.socket) -> Word:
    """Become what a new process would be, once the word is there."""
    for standard in (sys.stdout, sys.stderr):
        os.dup2(log, standard.fileno())
    os.close(log)
    with line:
        content = line.recv(_MAX_WORD_BYTES)
    if not content:
        sys.exit("whoever asked for this node has gone")
    word = Word(**json.loads(content))
    os.chdir(word.folder)
    os.environ.clear()
    os.environ.update(word.environment)
    return word


def _main(descriptor: int) -> int:
    # As a new process does it: what a node has no use for is not imported.
    process._load(ENTRY_POINT, leave_out=process._LEFT_OUT[Role.NODE])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent acts
    assert threading.active_count() == 1, "a fork would lose the threads of an import"
    with socket.socket(fileno=descriptor) as requests:
        word = _Forks(requests).serve()
    if word is None:
        return 0
    return process.main([Role.NODE.value, ENTRY_POINT, word.config])


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1])))

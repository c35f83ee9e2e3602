"""Starts the processes of the table, watches them, restarts them with back-off, stops them."""

from __future__ import annotations

import dataclasses
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

import structlog

from edge_runtime.store.processes import Role
from edge_runtime.supervisor.notify import SUPERVISOR_VARIABLE, Message, Notice, NotifySocket
from edge_runtime.supervisor.reconcile import Action, Observed, count_failure, decide
from edge_runtime.supervisor.services import Service

_log = structlog.get_logger()
_TICK_S = 0.05


class Supervisor:
    """Makes the table true until told to stop."""

    def __init__(self, services: tuple[Service, ...], config: Path, *, stop_grace_s: float) -> None:
        """``config`` is the settings file that every process reads for itself."""
        self._services = services
        self._config = config
        self._stop_grace_s = stop_grace_s
        self._children: dict[Role, subprocess.Popen[bytes]] = {}
        self._seen: dict[Role, Observed] = {service.role: Observed() for service in services}

    def run(self, stop: threading.Event) -> int:
        """Supervise until ``stop``, then stop every process; 0 when none had to be killed."""
        killed = 0
        with NotifySocket() as notices:
            try:
                while not (stop.is_set() and not self._children):
                    self._observe(notices)
                    killed += self._act(notices.address, stopping=stop.is_set())
                    select.select([notices], [], [], _TICK_S)
            finally:
                for child in self._children.values():
                    child.kill()
                    child.wait()
        return 1 if killed else 0

    def _observe(self, notices: NotifySocket) -> None:
        now_s = time.monotonic()
        for message in notices.receive():
            self._hear(message, now_s)
        for service in self._services:
            child = self._children.get(service.role)
            if child is not None and child.poll() is not None:
                self._bury(service, child.returncode, now_s)

    def _hear(self, message: Message, now_s: float) -> None:
        for role, child in self._children.items():
            if child.pid == message.pid and message.notice is not Notice.STOPPING:
                seen = self._seen[role]
                if message.notice is Notice.STARTING:
                    if not seen.ready:
                        self._seen[role] = dataclasses.replace(seen, started_s=now_s)
                    continue
                if not seen.ready:
                    _log.info("process.ready", role=role.value, pid=child.pid)
                self._seen[role] = dataclasses.replace(seen, ready=True, last_sign_s=now_s)

    def _bury(self, service: Service, code: int, now_s: float) -> None:
        seen = self._seen[service.role]
        asked = seen.terminated_s is not None
        failures = 0 if asked else count_failure(service, seen, now_s)
        log = _log.info if asked else _log.warning
        log("process.ended", role=service.role.value, exit_code=code, failures=failures)
        self._seen[service.role] = Observed(failures=failures, ended_s=now_s)
        del self._children[service.role]

    def _act(self, notify_address: str, *, stopping: bool) -> int:
        killed = 0
        for service in self._services:
            now_s = time.monotonic()
            seen = self._seen[service.role]
            action = decide(
                service, seen, now_s=now_s, stopping=stopping, stop_grace_s=self._stop_grace_s
            )
            if action is Action.START:
                self._start(service, notify_address, now_s)
            elif action is Action.TERMINATE:
                self._children[service.role].terminate()
                self._seen[service.role] = dataclasses.replace(seen, terminated_s=now_s)
            elif action is Action.KILL:
                _log.error("process.killed", role=service.role.value, stopping=stopping)
                self._children[service.role].kill()
                self._seen[service.role] = dataclasses.replace(seen, killed=True)
                killed += stopping
        return killed

    def _start(self, service: Service, notify_address: str, now_s: float) -> None:
        failures = self._seen[service.role].failures
        try:
            child = self._spawn(service, notify_address)
        except OSError as error:  # no memory, no descriptors: later there may be
            _log.error("process.not_started", role=service.role.value, error=error.errno)
            self._seen[service.role] = Observed(failures=failures + 1, ended_s=now_s)
            return
        self._children[service.role] = child
        self._seen[service.role] = Observed(alive=True, started_s=now_s, failures=failures)
        _log.info("process.started", role=service.role.value, pid=child.pid)

    def _spawn(self, service: Service, notify_address: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "edge_runtime.process",
                service.role.value,
                service.entry_point,
                str(self._config),
            ],
            env={
                **os.environ,
                "NOTIFY_SOCKET": notify_address,
                SUPERVISOR_VARIABLE: str(os.getpid()),
            },
            stdin=subprocess.DEVNULL,
        )

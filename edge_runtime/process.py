"""The main of every process of the device: settings, logs, signals, signs of life, exit code.

``python -m edge_runtime.process ROLE MODULE:FUNCTION CONFIG``. The first SIGTERM only sets
``stop``: take no new work, finish or release the current lease, flush, exit 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import cast

import structlog

from dicom_node.errors import DeviceError
from dicom_node.quiet import silence_dicom_libraries
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.config.loading import load_settings
from edge_runtime.config.settings import LoggingSettings, Settings
from edge_runtime.errors import AlreadyRunningError, EdgeTriageError, StoreError
from edge_runtime.file_locks import LockKind, give_back_lock, takes_lock
from edge_runtime.logs import configure_logs
from edge_runtime.model.clock import Instant
from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role, record_beat
from edge_runtime.supervisor.notify import SUPERVISOR_VARIABLE, Notice, Notifier
from engines.errors import ModelEngineError
from telemetry.errors import TelemetryError

_log = structlog.get_logger()
_PR_SET_PDEATHSIG = 1
_LOOKERS_WAITED_FOR_S = 5.0
_LOOK_AGAIN_S = (0.001, 0.01)


class Pulse:
    """Signs of life: to the supervisor by sd_notify, to people by a row in the database.

    Called from the loop that does the work, so that a hung loop falls silent. Belongs to one
    thread.
    """

    def __init__(
        self, role: Role, database: Path, clock: Clock, notifier: Notifier, *, interval_s: float
    ) -> None:
        self._role = role
        self._database = database
        self._clock = clock
        self._notifier = notifier
        self.interval_s = interval_s
        self._interval_us = int(interval_s * 1_000_000)
        self._connection: sqlite3.Connection | None = None
        self._started_wall_us = clock.now().wall_us
        self._due_mono_us = 0
        self._is_ready = False

    def starting(self) -> None:
        """Say that the process makes progress with what it does before it is ready.

        Whoever was ready once is only asked whether it lives: it does this again later.
        """
        if self._is_ready:
            self.beat()
            return
        at = self._clock.now()
        if at.mono_us >= self._due_mono_us:
            self._due_mono_us = at.mono_us + self._interval_us
            self._notifier.send(Notice.STARTING)

    def ready(self) -> None:
        """Say that the process does its work now."""
        self._is_ready = True
        self._due_mono_us = 0
        self._notifier.send(Notice.READY)
        self.beat()

    def beat(self) -> None:
        """Say that the process lives, if it is time to."""
        at = self._clock.now()
        if at.mono_us < self._due_mono_us:
            return
        self._due_mono_us = at.mono_us + self._interval_us
        self._notifier.send(Notice.ALIVE)
        try:
            self._record(at)
        except (StoreError, sqlite3.Error) as error:
            # A full disk stops what must be written, not what can still be read or refused.
            _log.warning("process.beat_not_recorded", error=type(error).__name__)

    def for_another_thread(self) -> Pulse:
        """Return a pulse of the same process for another thread, which closes it."""
        other = Pulse(
            self._role,
            self._database,
            self._clock,
            self._notifier,
            interval_s=self.interval_s,
        )
        other._started_wall_us = self._started_wall_us
        other._is_ready = self._is_ready
        return other

    def close(self) -> None:
        """Close what it wrote to; a pulse that lives as long as its process need not be."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _record(self, at: Instant) -> None:
        if self._connection is None:
            self._connection = connect(self._database)
        memory = read_memory()
        record_beat(
            self._connection,
            self._role,
            pid=os.getpid(),
            started_wall_us=self._started_wall_us,
            rss_bytes=memory.resident_bytes,
            peak_rss_bytes=memory.peak_bytes,
            at=at,
        )


class RoleLock:
    """One process of a role for each state folder; the kernel frees it at any death."""

    def __init__(self, state_dir: Path, role: str) -> None:
        self._path = state_dir / f"{role}.lock"
        self._handle = -1

    def __enter__(self) -> RoleLock:
        """Take the lock.

        Raises:
            AlreadyRunningError: another process has it.
        """
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline_s = time.monotonic() + _LOOKERS_WAITED_FOR_S
        while not takes_lock(self._handle, LockKind.EXCLUSIVE):
            if not takes_lock(self._handle, LockKind.SHARED) or time.monotonic() > deadline_s:
                os.close(self._handle)
                raise AlreadyRunningError(
                    f"{self._path.stem} runs already with the state in {self._path.parent}: "
                    "stop it, or set another device.state_dir"
                )
            # Only somebody who looks has it (tools/doctor/own_device.py), for microseconds.
            give_back_lock(self._handle)
            time.sleep(random.uniform(*_LOOK_AGAIN_S))  # noqa: S311 - spreads, guards nothing
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        os.close(self._handle)


_EXPLAINED = (EdgeTriageError, DeviceError, ModelEngineError, TelemetryError)
"""Errors at a start whose text is the remedy; none of them quotes a study."""

Entry = Callable[[Settings, threading.Event, Pulse], int]


def database_path(settings: Settings) -> Path:
    """Return where the device's database lies."""
    return settings.device.state_dir / "triage.db"


def spool_path(settings: Settings) -> Path:
    """Return where received files lie."""
    return settings.device.state_dir / "spool"


def models_path(settings: Settings) -> Path:
    """Return where the model packages lie."""
    return settings.device.state_dir / "models"


def engines_path(settings: Settings) -> Path:
    """Return where the engines lie that this device built, and the key that seals them."""
    return settings.device.state_dir / "engines"


def audit_path(settings: Settings) -> Path:
    """Return where the audit chain lies."""
    return settings.device.state_dir / "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What this process holds in memory now, and the most that it ever held."""

    resident_bytes: int
    peak_bytes: int


def read_memory() -> Memory:
    """Ask the kernel (proc_pid_status(5)); getrusage would count the parent's peak as ours."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines()
    )
    return Memory(
        resident_bytes=int(fields["VmRSS"].split()[0]) * 1024,
        peak_bytes=int(fields["VmHWM"].split()[0]) * 1024,
    )


# pydicom and structlog import what they find: codecs, array libraries, a downloader, a painter of
# tracebacks. 45 MB and a third of the start, for processes that look at no pixel. A module that is
# None here cannot be imported (importlib's documentation).
_OF_NO_USE_WITHOUT_PIXELS = (
    *("numpy", "gdcm", "PIL", "pylibjpeg", "openjpeg", "rle", "jpeg_ls"),
    *("requests", "tqdm", "rich"),
)
_LEFT_OUT: Mapping[Role, tuple[str, ...]] = {
    Role.NODE: _OF_NO_USE_WITHOUT_PIXELS,
    Role.WEB: _OF_NO_USE_WITHOUT_PIXELS,
}


# mallopt(3): by default glibc gives each of up to 8 threads a core a heap of its own, and none
# gives back what the others could use. With two threads for each association that is 30 MB.
_M_ARENA_MAX, _ARENAS = -8, 2


def main(arguments: list[str]) -> int:
    """Run one process until SIGTERM; 0 well, 1 it failed and should be started again."""
    role, entry_point, config = Role(arguments[0]), arguments[1], Path(arguments[2])
    if not _die_with_supervisor(os.environ):
        return 1
    if role is Role.NODE:
        with contextlib.suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    # Before numpy is loaded: more threads would take the node's cores and gain nothing here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent acts
    notifier = Notifier()
    silence_dicom_libraries()
    configure_logs(LoggingSettings(), process=role.value)  # until the file says how
    try:
        settings = load_settings(config)
        configure_logs(settings.logging, process=role.value)
        settings.device.state_dir.mkdir(parents=True, exist_ok=True)
        pulse = Pulse(
            role,
            database_path(settings),
            SystemClock(),
            notifier,
            interval_s=settings.device.heartbeat_s,
        )
        # Loading takes seconds and holds nothing: until it is done, SIGTERM ends us at once.
        entry = _load(entry_point, leave_out=_LEFT_OUT.get(role, ()))
        stop = _stop_on_sigterm()
        with RoleLock(settings.device.state_dir, role.value):
            code = entry(settings, stop, pulse)
    except _EXPLAINED as error:
        _log.error("process.refused", error=type(error).__name__, remedy=str(error))
        return 1
    except (OSError, sqlite3.Error) as error:
        # The system's own text may hold a path of a study; its name for the fault does not.
        number = getattr(error, "errno", None)
        _log.error(
            "process.refused",
            error=type(error).__name__,
            fault=errno.errorcode.get(number, "unknown") if number else "database",
            remedy="a file or the database cannot be used: give the state folder room and its "
            "rights, or see the system's log for the disk",
            exc_info=True,  # where; the log leaves the system's text out
        )
        return 1
    except Exception:  # noqa: BLE001 - a process's main is a boundary: log, exit, be started again
        _log.exception("process.failed")
        return 1
    notifier.send(Notice.STOPPING)
    return code


def _load(entry_point: str, *, leave_out: tuple[str, ...]) -> Entry:
    for name in leave_out:
        sys.modules.setdefault(name, cast("ModuleType", None))
    module, _, function = entry_point.partition(":")
    entry: Entry = getattr(importlib.import_module(module), function)
    return entry


def _stop_on_sigterm() -> threading.Event:
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    return stop


def _die_with_supervisor(environment: Mapping[str, str]) -> bool:
    """Tell the kernel to end us with our supervisor (prctl(2)); False when it is gone already."""
    supervisor = environment.get(SUPERVISOR_VARIABLE)
    if supervisor is None:
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return supervisor == str(os.getppid())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

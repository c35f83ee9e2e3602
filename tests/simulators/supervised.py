"""Processes of every character, for the supervisor to keep; and a supervisor to be killed.

Each notes its start in ``starts`` in the state folder: one line, its role and process id.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from edge_runtime.app.signs import SignsMeanwhile
from edge_runtime.clock import SystemClock
from edge_runtime.config.settings import LoggingSettings, Settings
from edge_runtime.logs import configure_logs
from edge_runtime.process import Pulse
from edge_runtime.store.processes import Role
from edge_runtime.supervisor.services import Service
from edge_runtime.supervisor.supervise import Supervisor

_STEP_S = 0.05
_FOR_EVER_S = 3600.0


def run_well(settings: Settings, stop: threading.Event, pulse: Pulse) -> int:
    _note(settings, "well")
    pulse.ready()
    while not stop.wait(_STEP_S):
        pulse.beat()
    _note(settings, "stopped")
    return 0


def run_crashing(settings: Settings, _stop: threading.Event, pulse: Pulse) -> int:
    _note(settings, "crashing")
    pulse.ready()
    os._exit(3)


def run_raising(settings: Settings, _stop: threading.Event, _pulse: Pulse) -> int:
    _note(settings, "raising")
    raise RuntimeError("CANARY^NAME 19991231")


def run_hung(settings: Settings, _stop: threading.Event, pulse: Pulse) -> int:
    """Say once that it lives, and nothing more."""
    _note(settings, "hung")
    pulse.ready()
    threading.Event().wait()
    return 0


def run_never_ready(settings: Settings, stop: threading.Event, _pulse: Pulse) -> int:
    _note(settings, "starting")
    stop.wait()
    return 0


def run_slow_to_start(settings: Settings, stop: threading.Event, pulse: Pulse) -> int:
    """Take long to be ready, and say so meanwhile."""
    _note(settings, "slow")
    while not stop.wait(_STEP_S):
        pulse.starting()
    _note(settings, "stopped")
    return 0


def run_silent_before_ready(settings: Settings, stop: threading.Event, pulse: Pulse) -> int:
    """Take long to be ready, within one call that says nothing."""
    _note(settings, "silent")
    with SignsMeanwhile(pulse, SystemClock(), stop, limit_s=_FOR_EVER_S):
        stop.wait()
    _note(settings, "stopped")
    return 0


def run_hung_before_ready(settings: Settings, stop: threading.Event, pulse: Pulse) -> int:
    """Do the same, and for longer than may be."""
    _note(settings, "hung")
    with SignsMeanwhile(pulse, SystemClock(), stop, limit_s=_STEP_S):
        stop.wait()
    return 0


def run_deaf(settings: Settings, _stop: threading.Event, pulse: Pulse) -> int:
    """Live, beat, and never heed SIGTERM."""
    _note(settings, "deaf")
    pulse.ready()
    while True:
        threading.Event().wait(_STEP_S)
        pulse.beat()


def starts(state_dir: Path) -> list[tuple[str, int]]:
    """Return what was noted: words and process ids, in order."""
    try:
        lines = (state_dir / "starts").read_text("ascii").splitlines()
    except FileNotFoundError:
        return []
    return [(word, int(pid)) for word, pid in (line.split() for line in lines)]


def _note(settings: Settings, word: str) -> None:
    path = settings.device.state_dir / "starts"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, f"{word} {os.getpid()}\n".encode())
    os.close(handle)


def service(role: Role, entry: str, *, watchdog_s: float = 30.0) -> Service:
    """Return a row of the table that runs ``entry`` of this module, with short back-off."""
    return Service(
        role=role,
        entry_point=f"simulators.supervised:{entry}",
        first_restart_delay_s=0.05,
        max_restart_delay_s=0.2,
        watchdog_s=watchdog_s,
    )


def main(arguments: list[str]) -> int:
    """Supervise until SIGTERM: CONFIG, GRACE_S, then one entry for each role."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    configure_logs(LoggingSettings(), process="supervisor")
    services = tuple(service(role, entry) for role, entry in zip(Role, arguments[2:], strict=False))
    return Supervisor(services, Path(arguments[0]), stop_grace_s=float(arguments[1])).run(stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A real supervisor and real processes; see ``simulators.supervised`` for their characters."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from simulators import supervised
from simulators.waiting import wait_until

from edge_runtime.store.processes import Role
from edge_runtime.supervisor.notify import SUPERVISOR_VARIABLE
from edge_runtime.supervisor.services import Service
from edge_runtime.supervisor.supervise import Supervisor

_CRASHING = "simulators.supervised:run_crashing"
TESTS = Path(__file__).resolve().parents[3]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def config(tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    file = tmp_path / "edge-triage.toml"
    file.write_text(
        f'[device]\nstate_dir = "{state_dir}"\nheartbeat_s = 0.2\n[logging]\nformat = "json"\n',
        encoding="utf-8",
    )
    return file


class Running:
    """A supervisor in a thread of the test."""

    def __init__(self, services: tuple[Service, ...], config: Path, grace_s: float) -> None:
        self._supervisor = Supervisor(services, config, stop_grace_s=grace_s)
        self._stop = threading.Event()
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.code = self._supervisor.run(self._stop)

    def stop(self) -> int:
        self._stop.set()
        self._thread.join(60.0)
        assert self.code is not None
        return self.code


@pytest.fixture
def supervise(config: Path) -> Iterator[Callable[..., Running]]:
    with contextlib.ExitStack() as stack:

        def start(*services: Service, grace_s: float = 20.0) -> Running:
            running = Running(services, config, grace_s)
            stack.callback(running.stop)
            return running

        yield start


def _pids(state_dir: Path, word: str) -> list[int]:
    return [pid for found, pid in supervised.starts(state_dir) if found == word]


def _have_ended(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_every_process_of_the_table_runs_and_stops_when_asked(
    supervise: Callable[..., Running], state_dir: Path
) -> None:
    running = supervise(
        supervised.service(Role.NODE, "run_well"), supervised.service(Role.WEB, "run_well")
    )
    wait_until(lambda: len(_pids(state_dir, "well")) == 2)
    assert running.stop() == 0
    assert len(_pids(state_dir, "well")) == 2
    assert sorted(_pids(state_dir, "stopped")) == sorted(_pids(state_dir, "well"))
    assert _have_ended(_pids(state_dir, "well"))


@pytest.mark.parametrize(
    ("entry", "word"), [("run_crashing", "crashing"), ("run_raising", "raising")]
)
def test_a_process_that_ends_is_started_again_and_harms_no_other(
    supervise: Callable[..., Running], state_dir: Path, entry: str, word: str
) -> None:
    running = supervise(
        supervised.service(Role.NODE, entry), supervised.service(Role.WEB, "run_well")
    )
    wait_until(lambda: len(_pids(state_dir, word)) >= 3)
    wait_until(lambda: _pids(state_dir, "well"))
    assert running.stop() == 0
    assert len(set(_pids(state_dir, word))) >= 3
    assert len(_pids(state_dir, "well")) == 1


def test_a_hung_process_is_killed_and_started_again(
    supervise: Callable[..., Running], state_dir: Path
) -> None:
    supervise(supervised.service(Role.NODE, "run_hung", watchdog_s=0.5), grace_s=0.5)
    wait_until(lambda: len(_pids(state_dir, "hung")) >= 2)
    assert _have_ended(_pids(state_dir, "hung")[:1])


def test_a_process_that_never_gets_ready_is_killed_and_started_again(
    supervise: Callable[..., Running], state_dir: Path
) -> None:
    service = Service(
        role=Role.NODE,
        entry_point="simulators.supervised:run_never_ready",
        first_restart_delay_s=0.05,
        start_limit_s=4.0,
    )
    supervise(service)
    wait_until(lambda: len(_pids(state_dir, "starting")) >= 2)


def _slow(role: Role, entry: str) -> Service:
    return Service(
        role=role,
        entry_point=f"simulators.supervised:{entry}",
        first_restart_delay_s=0.05,
        start_limit_s=6.0,
    )


def test_a_process_that_makes_progress_may_take_longer_to_be_ready(
    supervise: Callable[..., Running], state_dir: Path
) -> None:
    """Another one, silent, is killed meanwhile."""
    supervise(_slow(Role.NODE, "run_slow_to_start"), _slow(Role.WEB, "run_never_ready"))
    wait_until(lambda: len(_pids(state_dir, "starting")) >= 3)
    assert len(_pids(state_dir, "slow")) == 1


def test_what_is_silent_before_it_is_ready_may_take_longer_but_not_for_ever(
    supervise: Callable[..., Running], state_dir: Path
) -> None:
    """One waits within a call; another does so for longer than its limit, and is killed."""
    running = supervise(
        _slow(Role.NODE, "run_silent_before_ready"), _slow(Role.WEB, "run_hung_before_ready")
    )
    wait_until(lambda: len(_pids(state_dir, "hung")) >= 3)
    assert _have_ended(_pids(state_dir, "hung")[:2])
    assert len(_pids(state_dir, "silent")) == 1
    assert running.stop() == 0
    assert _pids(state_dir, "stopped") == _pids(state_dir, "silent")


def test_a_living_process_that_beats_is_not_taken_for_hung(
    supervise: Callable[..., Running], state_dir: Path
) -> None:
    running = supervise(
        supervised.service(Role.NODE, "run_well", watchdog_s=5.0),
        supervised.service(Role.WEB, "run_hung", watchdog_s=5.0),
        grace_s=2.0,
    )
    wait_until(lambda: len(_pids(state_dir, "hung")) >= 2)
    running.stop()
    assert len(_pids(state_dir, "well")) == 1


def test_a_process_that_does_not_heed_sigterm_is_killed_after_the_grace(
    supervise: Callable[..., Running], state_dir: Path
) -> None:
    running = supervise(
        supervised.service(Role.NODE, "run_deaf"),
        supervised.service(Role.WEB, "run_well"),
        grace_s=1.0,
    )
    wait_until(lambda: _pids(state_dir, "deaf") and _pids(state_dir, "well"))
    assert running.stop() == 1
    assert _have_ended(_pids(state_dir, "deaf"))
    assert len(_pids(state_dir, "stopped")) == 1


def test_a_process_that_cannot_be_started_is_tried_again(
    supervise: Callable[..., Running], state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nonexistent/python")
        running = supervise(supervised.service(Role.NODE, "run_well"))
        wait_until(lambda: running._supervisor._seen[Role.NODE].failures >= 2)
    wait_until(lambda: _pids(state_dir, "well"))
    assert running.stop() == 0


@contextlib.contextmanager
def _own_process(config: Path, grace_s: float, *entries: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "simulators.supervised", str(config), str(grace_s), *entries]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_sigterm_stops_everything_within_the_grace_and_exits_0(
    config: Path, state_dir: Path
) -> None:
    with _own_process(config, 20.0, "run_well", "run_well") as process:
        wait_until(lambda: len(_pids(state_dir, "well")) == 2)
        process.send_signal(signal.SIGTERM)
        _, logs = process.communicate(timeout=30)
    assert process.returncode == 0
    assert _have_ended(_pids(state_dir, "well"))
    assert len(_pids(state_dir, "stopped")) == 2
    assert b"process.ready" in logs


def test_a_killed_supervisor_takes_its_processes_with_it(config: Path, state_dir: Path) -> None:
    with _own_process(config, 20.0, "run_well", "run_deaf") as process:
        wait_until(lambda: _pids(state_dir, "well") and _pids(state_dir, "deaf"))
        process.kill()
        process.wait()
    wait_until(lambda: _have_ended(_pids(state_dir, "well") + _pids(state_dir, "deaf")))
    assert _pids(state_dir, "stopped") == []


def test_a_process_whose_supervisor_is_gone_before_it_looks_does_no_work(
    config: Path, state_dir: Path
) -> None:
    command = [sys.executable, "-m", "edge_runtime.process", "node", _CRASHING, str(config)]
    gone = {**os.environ, SUPERVISOR_VARIABLE: "1"}
    assert subprocess.run(command, env=gone, check=False, timeout=60).returncode == 1
    assert supervised.starts(state_dir) == []
    ours = {**os.environ, SUPERVISOR_VARIABLE: str(os.getpid())}
    assert subprocess.run(command, env=ours, check=False, timeout=60).returncode == 3
    assert len(_pids(state_dir, "crashing")) == 1

"""The main of a process, in processes of its own; see ``simulators.supervised``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from simulators import supervised
from simulators.hand_clock import HandClock
from simulators.waiting import wait_until

from edge_runtime.errors import AlreadyRunningError
from edge_runtime.file_locks import LockKind, takes_lock
from edge_runtime.process import Pulse, RoleLock, read_memory
from edge_runtime.store.database import connect
from edge_runtime.store.processes import Role, list_processes
from edge_runtime.supervisor.notify import Notice, Notifier, NotifySocket

TESTS = Path(__file__).resolve().parents[2]
_BLOAT_BYTES = 200_000_000


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def config(tmp_path: Path, state_dir: Path) -> Path:
    file = tmp_path / "edge-triage.toml"
    file.write_text(
        f'[device]\nstate_dir = "{state_dir}"\nheartbeat_s = 0.2\n[logging]\nformat = "json"\n',
        encoding="utf-8",
    )
    return file


@contextlib.contextmanager
def _process(config: Path, entry: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "edge_runtime.process", "node", entry, str(config)]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(TESTS), **environment},
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _end(process: subprocess.Popen[bytes]) -> tuple[int, list[dict[str, Any]]]:
    _, logs = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in logs.splitlines()]


def test_the_first_sigterm_stops_the_work_and_the_process_exits_0(
    config: Path, state_dir: Path
) -> None:
    heard: list[Notice] = []
    with (
        NotifySocket() as notices,
        _process(
            config, "simulators.supervised:run_well", NOTIFY_SOCKET=notices.address
        ) as process,
    ):

        def listen() -> bool:
            heard.extend(message.notice for message in notices.receive())
            return heard.count(Notice.ALIVE) >= 3

        wait_until(listen)
        process.send_signal(signal.SIGINT)  # Ctrl-C is for the supervisor
        process.send_signal(signal.SIGTERM)
        code, _ = _end(process)
        listen()
    assert code == 0
    assert heard[0] is Notice.READY
    assert heard[-1] is Notice.STOPPING
    assert [word for word, _ in supervised.starts(state_dir)] == ["well", "stopped"]


def test_an_error_of_the_work_is_logged_without_its_text_and_exits_1(config: Path) -> None:
    with _process(config, "simulators.supervised:run_raising") as process:
        code, lines = _end(process)
    assert code == 1
    assert [(line["event"], line["error"]) for line in lines] == [
        ("process.failed", "RuntimeError")
    ]
    assert "CANARY" not in json.dumps(lines)


def test_a_bad_settings_file_is_named_and_exits_1(config: Path) -> None:
    config.write_text("[node]\nprt = 1\n", encoding="utf-8")
    with _process(config, "simulators.supervised:run_well") as process:
        code, (line,) = _end(process)
    assert code == 1
    assert (line["event"], line["error"]) == ("process.refused", "SettingsError")
    assert line["remedy"] == "node.prt: unknown key; did you mean 'port'?"


def test_a_second_process_of_a_role_is_refused_and_told_why(config: Path, state_dir: Path) -> None:
    state_dir.mkdir()
    with (
        RoleLock(state_dir, "node"),
        _process(config, "simulators.supervised:run_well") as process,
    ):
        code, (line,) = _end(process)
    assert code == 1
    assert line["error"] == "AlreadyRunningError"
    assert "stop it" in line["remedy"]
    assert supervised.starts(state_dir) == []


def test_a_lock_is_free_after_its_holder(tmp_path: Path) -> None:
    with RoleLock(tmp_path, "node"), pytest.raises(AlreadyRunningError), RoleLock(tmp_path, "node"):
        pass
    with RoleLock(tmp_path, "node"), RoleLock(tmp_path, "web"):
        pass


def test_who_only_looks_at_a_lock_keeps_no_process_from_starting(tmp_path: Path) -> None:
    def start() -> None:
        with RoleLock(tmp_path, "node"):
            pass

    look = os.open(tmp_path / "node.lock", os.O_RDWR | os.O_CREAT)
    assert takes_lock(look, LockKind.SHARED)
    with ThreadPoolExecutor(max_workers=1) as pool:
        started = pool.submit(start)
        assert not wait([started], timeout=0.05).done
        os.close(look)
        started.result(timeout=60)


def test_a_lock_is_free_after_its_holder_was_killed(config: Path, state_dir: Path) -> None:
    with _process(config, "simulators.supervised:run_well") as process:
        wait_until(lambda: supervised.starts(state_dir))
        process.kill()
        process.wait()
    with RoleLock(state_dir, "node"):
        pass


def test_memory_is_that_of_this_process_and_not_of_its_parent() -> None:
    bloat = bytearray(os.urandom(1) * _BLOAT_BYTES)
    assert read_memory().resident_bytes > _BLOAT_BYTES
    code = "from edge_runtime.process import read_memory\nprint(read_memory().peak_bytes)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert 0 < int(done.stdout) < len(bloat)


def test_peak_memory_stays_when_memory_is_given_back() -> None:
    bloat = bytearray(os.urandom(1) * _BLOAT_BYTES)
    high = read_memory().resident_bytes
    del bloat
    memory = read_memory()
    assert memory.peak_bytes >= high
    assert memory.resident_bytes < high


class _Heard:
    """A pulse, and what the supervisor and the page know of it."""

    def __init__(self, folder: Path, notices: NotifySocket) -> None:
        self.clock = HandClock()
        self.database = folder / "triage.db"
        self.notices = notices
        self.pulse = Pulse(
            Role.NODE,
            self.database,
            self.clock,
            Notifier({"NOTIFY_SOCKET": notices.address}),
            interval_s=2.0,
        )

    def heard(self) -> list[Notice]:
        return [message.notice for message in self.notices.receive()]


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[_Heard]:
    with NotifySocket() as notices:
        made = _Heard(tmp_path, notices)
        yield made
        if made.pulse._connection is not None:
            made.pulse._connection.close()


def test_a_pulse_beats_no_more_often_than_its_interval(heard: _Heard) -> None:
    heard.pulse.ready()
    assert heard.heard() == [Notice.READY, Notice.ALIVE]
    for _ in range(19):
        heard.clock.advance(0.1)
        heard.pulse.beat()
    assert heard.heard() == []
    heard.clock.advance(0.1)
    heard.pulse.beat()
    assert heard.heard() == [Notice.ALIVE]


def test_what_takes_long_before_a_process_is_ready_asks_for_time(heard: _Heard) -> None:
    heard.pulse.starting()
    heard.pulse.starting()
    assert heard.heard() == [Notice.STARTING]


def test_what_takes_long_once_a_process_was_ready_is_a_sign_of_life(heard: _Heard) -> None:
    """A watchdog minds silence, and an engine may be built for a package that came later."""
    heard.pulse.ready()
    heard.heard()
    heard.clock.advance(2.0)
    heard.pulse.starting()
    assert heard.heard() == [Notice.ALIVE]


def test_a_pulse_is_recorded_for_people(heard: _Heard) -> None:
    started_us = heard.clock.now().wall_us
    heard.pulse.ready()
    heard.clock.advance(2.0)
    heard.pulse.beat()
    with contextlib.closing(connect(heard.database)) as connection:
        (row,) = list_processes(connection)
    assert (row.role, row.pid) == (Role.NODE, os.getpid())
    assert row.started_wall_us == started_us
    assert row.beat_wall_us == heard.clock.now().wall_us
    assert 0 < row.rss_bytes <= row.peak_rss_bytes


def test_a_pulse_that_cannot_be_recorded_still_reaches_the_supervisor(heard: _Heard) -> None:
    heard.database.mkdir()
    heard.pulse.ready()
    assert heard.heard() == [Notice.READY, Notice.ALIVE]


def test_node_loads_nothing_that_looks_at_pixels(tmp_path: Path) -> None:
    """What the node's entry point imports decides its memory; a new import shows here."""
    script = (
        "import sys\n"
        "from edge_runtime.process import _LEFT_OUT, _load\n"
        "from edge_runtime.store.processes import Role\n"
        "_load('edge_runtime.app.node:run', leave_out=_LEFT_OUT[Role.NODE])\n"
        "print(*sorted(name for name, module in sys.modules.items() if module is not None))\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.split()
    assert "pynetdicom" in loaded
    heavy = {"numpy", "gdcm", "PIL", "onnx", "onnxruntime", "highdicom", "starlette", "h11", "paho"}
    assert not heavy.intersection(loaded)

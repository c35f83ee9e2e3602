"""The worker writes down what runs each model, before it looks at a study."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from simulators.released_package import write_release
from simulators.waiting import wait_until

from edge_runtime.app import worker
from edge_runtime.clock import SystemClock
from edge_runtime.config.loading import parse_settings
from edge_runtime.config.settings import EngineBackend, Settings
from edge_runtime.process import Pulse, database_path, engines_path
from edge_runtime.store.alarms import AlarmCode, standing_alarms
from edge_runtime.store.database import connect
from edge_runtime.store.engine_names import parse_engine_name
from edge_runtime.store.engines import EngineObstacle, engines_in_use
from edge_runtime.store.processes import Role
from edge_runtime.supervisor.notify import Notifier
from engines.errors import EngineUnavailableError

MakeSettings = Callable[[Mapping[str, object]], Settings]
LIMIT_S = 60.0


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    write_release(tmp_path / "bright", "1.0.0")

    def make(engine: Mapping[str, object]) -> Settings:
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        tables = {
            "device": {"state_dir": str(state)},
            "models": {"packages": [str(tmp_path / "bright")]},
            "engine": engine,
        }
        return parse_settings(tables, {})

    return make


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(connect(database_path(settings))) as connection:
        yield connection


def run_worker(settings: Settings, stop: threading.Event) -> int:
    pulse = Pulse(Role.WORKER, database_path(settings), SystemClock(), Notifier(), interval_s=1.0)
    return worker.run(settings, stop, pulse)


def test_a_fallback_is_written_down_with_its_reason_and_stands_as_an_alarm(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings({"preference": ["tensorrt", "onnxruntime"], "fallback": True})
    stop = threading.Event()
    thread = threading.Thread(target=run_worker, args=(settings, stop), name="worker")
    thread.start()
    try:
        with connected(settings) as connection:
            wait_until(lambda: bool(engines_in_use(connection)), LIMIT_S)
            (found,) = engines_in_use(connection)
            alarms = [(alarm.code, alarm.subject) for alarm in standing_alarms(connection)]
    finally:
        stop.set()
        thread.join(LIMIT_S)
    name = parse_engine_name(found.engine)
    assert name is not None
    assert (name.backend, name.in_place_of) == (
        EngineBackend.ONNXRUNTIME,
        (EngineBackend.TENSORRT,),
    )
    (passed_over,) = found.passed_over
    assert passed_over.obstacle is EngineObstacle.NOT_AVAILABLE
    assert passed_over.detail
    assert alarms == [(AlarmCode.ENGINE_FALLBACK, "bright")]
    assert not thread.is_alive()


def test_a_worker_without_the_engine_that_alone_may_run_refuses_and_says_why(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings({"preference": ["tensorrt", "onnxruntime"]})
    with pytest.raises(EngineUnavailableError, match="may not run in its place"):
        run_worker(settings, threading.Event())
    with connected(settings) as connection:
        (found,) = engines_in_use(connection)
        assert (found.model_key, found.engine) == ("bright", "")
        assert "engine.fallback" in found.refusal
        assert [alarm.code for alarm in standing_alarms(connection)] == [AlarmCode.ENGINE_MISSING]


def test_what_is_built_lies_with_the_state_of_the_device(make_settings: MakeSettings) -> None:
    settings = make_settings({})
    assert engines_path(settings) == settings.device.state_dir / "engines"

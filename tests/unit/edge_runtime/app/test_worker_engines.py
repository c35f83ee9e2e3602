"""The worker writes down what runs each model, before it looks at a study."""

from __future__ import annotations

import contextlib
import importlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

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
from edge_runtime.supervisor.notify import Notice, Notifier, NotifySocket
from engines.errors import EngineUnavailableError

LIMIT_S = 60.0


class MakeSettings(Protocol):
    def __call__(self, engine: Mapping[str, object], packages: Sequence[str] = (), /) -> Settings:
        """Return settings; without packages of the one that is there."""
        ...


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    write_release(tmp_path / "bright", "1.0.0")

    def make(engine: Mapping[str, object], packages: Sequence[str] = (), /) -> Settings:
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        tables = {
            "device": {"state_dir": str(state)},
            "models": {"packages": list(packages) or [str(tmp_path / "bright")]},
            "engine": engine,
        }
        return parse_settings(tables, {})

    return make


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(connect(database_path(settings))) as connection:
        yield connection


def run_worker(settings: Settings, stop: threading.Event, notifier: Notifier | None = None) -> int:
    pulse = Pulse(
        Role.WORKER,
        database_path(settings),
        SystemClock(),
        notifier or Notifier({}),
        interval_s=0.1,
    )
    with contextlib.closing(pulse):
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


class LongCall:
    """Keeps whoever makes a session, as a library does that builds an engine and says nothing."""

    def __init__(self, during: Callable[[], None]) -> None:
        self._during = during
        self.calls = 0

    def put_in_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library = importlib.import_module("onnxruntime")
        session = library.InferenceSession

        def make(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            self._during()
            return session(*arguments, **options)

        monkeypatch.setattr(library, "InferenceSession", make)


def test_a_worker_that_opens_an_engine_silently_goes_on_giving_signs(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, stop = make_settings({}), threading.Event()
    found: list[Notice] = []

    def have_come() -> bool:
        found.extend(message.notice for message in notices.receive())
        return len(found) >= 3

    def wait_for_signs() -> None:
        list(notices.receive())  # what came before
        wait_until(have_come)
        stop.set()

    call = LongCall(wait_for_signs)
    call.put_in_place(monkeypatch)
    with NotifySocket() as notices:
        assert run_worker(settings, stop, Notifier({"NOTIFY_SOCKET": notices.address})) == 0
    assert call.calls == 1
    assert set(found) == {Notice.STARTING}


def test_a_worker_that_is_told_to_stop_opens_no_further_engine(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_release(tmp_path / "dark", "1.0.0", name="dark")
    packages = [str(tmp_path / "bright"), str(tmp_path / "dark")]
    settings, stop = make_settings({}, packages), threading.Event()
    call = LongCall(stop.set)
    call.put_in_place(monkeypatch)
    assert run_worker(settings, stop) == 0
    assert call.calls == 1

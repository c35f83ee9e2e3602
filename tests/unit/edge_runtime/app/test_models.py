"""The store as the device's processes use it: at their start, and while it changes under them."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock
from simulators.released_package import believe, write_release

from edge_runtime.app.models import (
    Changes,
    FollowedManifests,
    KnownManifests,
    active_manifests,
    hold_configured,
    open_store,
)
from edge_runtime.app.verification import verifier, verify_apart
from edge_runtime.config.loading import parse_settings
from edge_runtime.config.settings import EngineSettings, Settings
from edge_runtime.governance.chain import CHAIN_NAME
from edge_runtime.model.model_package import PackageState
from edge_runtime.pipeline.errors import StopRequestedError
from edge_runtime.process import audit_path, database_path, models_path
from edge_runtime.store.alarms import AlarmCode, standing_alarms
from edge_runtime.store.database import connect
from edge_runtime.store.model_packages import list_packages, packages_in_use
from engines.errors import PackageError

MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    def make(*packages: Path, **values: object) -> Settings:
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        tables = {
            "device": {"state_dir": str(state)},
            "models": {"packages": [str(path) for path in packages], **values},
        }
        return parse_settings(tables, {})

    return make


@pytest.fixture
def connection(make_settings: MakeSettings) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(connect(database_path(make_settings()))) as opened:
        yield opened


@pytest.fixture
def start(connection: sqlite3.Connection) -> Callable[[Settings], None]:
    """Start the worker's side, without the seconds that a verification takes."""

    def run(settings: Settings) -> None:
        hold_configured(settings, connection, HandClock(), believe)

    return run


Start = Callable[[Settings], None]


def names_in_use(connection: sqlite3.Connection) -> list[str]:
    return [item.name for item in packages_in_use(connection)]


def alarms(connection: sqlite3.Connection) -> list[tuple[AlarmCode, str]]:
    return [(alarm.code, alarm.subject) for alarm in standing_alarms(connection)]


# ---------------------------------------------------------------- at the start


def test_what_the_settings_name_is_in_use_and_its_manifest_is_known(
    start: Start, make_settings: MakeSettings, connection: sqlite3.Connection, tmp_path: Path
) -> None:
    write_release(tmp_path / "a", "1.0.0")
    write_release(tmp_path / "b", "2.0.0", name="darker")
    settings = make_settings(tmp_path / "a", tmp_path / "b")
    start(settings)
    found = active_manifests(connection, models_path(settings))
    assert {name: item.version for name, item in found.items()} == {
        "bright": "1.0.0",
        "darker": "2.0.0",
    }
    known = KnownManifests(connection, models_path(settings))
    assert set(known) == {("bright", "1.0.0"), ("darker", "2.0.0")}
    assert known["darker", "2.0.0"].name == "darker"


def test_a_package_that_cannot_be_read_stands_as_an_alarm_until_it_can(
    start: Start, make_settings: MakeSettings, connection: sqlite3.Connection, tmp_path: Path
) -> None:
    write_release(tmp_path / "good", "1.0.0")
    start(make_settings(tmp_path / "good"))
    settings = make_settings(tmp_path / "late")
    start(settings)
    assert alarms(connection) == [(AlarmCode.MODEL_REFUSED, "late")]
    assert names_in_use(connection) == ["bright"], "what cannot be read may be the same model"
    write_release(tmp_path / "late", "3.0.0", name="late")
    start(settings)
    assert alarms(connection) == []
    assert names_in_use(connection) == ["late"]


def test_two_packages_of_one_name_leave_the_first_in_use(
    start: Start, make_settings: MakeSettings, connection: sqlite3.Connection, tmp_path: Path
) -> None:
    write_release(tmp_path / "a", "1.0.0")
    write_release(tmp_path / "b", "1.1.0")
    for _ in range(2):
        start(make_settings(tmp_path / "a", tmp_path / "b"))
        (used,) = list_packages(connection)
        assert (used.version, used.state) == ("1.0.0", PackageState.ACTIVE)
        assert alarms(connection) == [(AlarmCode.MODEL_REFUSED, "b")]


def test_with_a_damaged_chain_the_device_goes_on_with_what_it_has(
    start: Start, make_settings: MakeSettings, connection: sqlite3.Connection, tmp_path: Path
) -> None:
    write_release(tmp_path / "a", "1.0.0")
    settings = make_settings(tmp_path / "a")
    start(settings)
    with (audit_path(settings) / CHAIN_NAME).open("ab") as file:
        file.write(b"{}\n")
    start(settings)
    assert names_in_use(connection) == ["bright"]
    assert alarms(connection) == [(AlarmCode.MODEL_REFUSED, "a")]


# ---------------------------------------------------------------- while it changes


def test_a_change_by_another_process_is_noticed_once(
    start: Start, make_settings: MakeSettings, connection: sqlite3.Connection, tmp_path: Path
) -> None:
    write_release(tmp_path / "a", "1.0.0")
    settings = make_settings(tmp_path / "a")
    with contextlib.closing(connect(database_path(settings))) as other:
        changes = Changes(other, packages_in_use)
        followed = FollowedManifests(other, models_path(settings), lambda item: item.version)
        assert not changes.have_come()
        start(settings)
        assert changes.have_come()
        assert not changes.have_come()
        assert dict(followed) == {}
        followed.refresh()
        assert dict(followed) == {"bright": "1.0.0"}
        assert (len(followed), followed["bright"]) == (1, "1.0.0")
        connection.execute("UPDATE device SET boots = boots + 1")
        assert not changes.have_come(), "another commit is no change of models"


def test_a_manifest_that_was_changed_on_disk_is_not_believed(
    start: Start, make_settings: MakeSettings, connection: sqlite3.Connection, tmp_path: Path
) -> None:
    write_release(tmp_path / "a", "1.0.0")
    settings = make_settings(tmp_path / "a")
    start(settings)
    (used,) = packages_in_use(connection)
    manifest = models_path(settings) / used.digest / "package.toml"
    manifest.write_text(manifest.read_text().replace("BRIGHT", "OTHER"))
    assert active_manifests(connection, models_path(settings)) == {}


# ---------------------------------------------------------------- verification


def test_a_package_is_proven_in_a_process_of_its_own_and_signs_of_life_go_on(
    tmp_path: Path,
) -> None:
    write_release(tmp_path / "a")
    ticks: list[int] = []
    proof = verifier(EngineSettings(), lambda: ticks.append(1))(tmp_path / "a")
    assert proof.backend == "onnxruntime"
    assert proof.largest_deviation < 1e-4
    assert ticks


def test_what_the_checks_say_comes_back_as_the_same_kind_of_error(tmp_path: Path) -> None:
    write_release(tmp_path / "a")
    (tmp_path / "a" / "model.onnx").write_bytes(b"x")
    with pytest.raises(PackageError, match=r"model\.onnx"):
        verifier(EngineSettings())(tmp_path / "a")


def test_a_verification_that_is_killed_refuses_the_package_and_nobody_else_dies(
    tmp_path: Path,
) -> None:
    write_release(tmp_path / "a")

    def kill_child() -> None:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
        for child in children.split():  # not a helper of multiprocessing that another test started
            if "edge_runtime.pipeline.confined" in Path(f"/proc/{child}/cmdline").read_text():
                os.kill(int(child), signal.SIGSEGV)

    with pytest.raises(PackageError, match="crashed"):
        verify_apart(tmp_path / "a", settings=EngineSettings(), on_tick=kill_child)


def test_when_the_caller_stops_the_verification_stops_too(tmp_path: Path) -> None:
    write_release(tmp_path / "a")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_apart(tmp_path / "a", settings=EngineSettings(), on_tick=stop)


def test_the_store_of_the_settings_asks_for_what_they_say(
    make_settings: MakeSettings, connection: sqlite3.Connection
) -> None:
    settings = make_settings(approvals_required=2, shadow_first=True)
    store = open_store(settings, connection, HandClock(), actor="user tests", verify=believe)
    assert (store.rules.approvals_required, store.rules.shadow_first) == (2, True)


def test_a_worker_that_is_told_to_stop_leaves_the_verification_to_the_next_start(
    make_settings: MakeSettings, connection: sqlite3.Connection, tmp_path: Path
) -> None:
    write_release(tmp_path / "a", "1.0.0")
    settings = make_settings(tmp_path / "a")

    def stop() -> None:
        raise StopRequestedError("the worker stops")

    with pytest.raises(StopRequestedError):
        hold_configured(settings, connection, HandClock(), verifier(settings.engine, stop))
    (package,) = list_packages(connection)
    assert package.state is PackageState.INSTALLED
    assert alarms(connection) == []
    hold_configured(settings, connection, HandClock(), verifier(settings.engine))
    assert names_in_use(connection) == ["bright"]

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from simulators.hand_clock import HandClock
from simulators.plan_bench import KEY, NEW_PLAN

from edge_runtime.config.settings import EngineBackend
from edge_runtime.process import database_path, engines_path
from edge_runtime.store.database import connect
from edge_runtime.store.engines import (
    EngineInUse,
    EngineObstacle,
    PassedOverEngine,
    record_engines,
)
from engines.plans.store import PlanStore
from tools.doctor.checks_engines import check_engines
from tools.doctor.findings import Context, Status

MakeContext = Callable[..., Context]

CPU = "onnxruntime 1.31.0 CPUExecutionProvider"
WELL = EngineInUse(model_key="head", engine=CPU, refusal="", passed_over=())
FALLEN_BACK = replace(
    WELL,
    engine=f"{CPU}, in place of tensorrt",
    passed_over=(
        PassedOverEngine(
            backend=EngineBackend.TENSORRT,
            obstacle=EngineObstacle.NOT_AVAILABLE,
            detail="no libcuda.so.1",
        ),
    ),
)
WITHOUT = replace(WELL, model_key="chest", engine="", refusal="2 decisions differ")


@pytest.fixture
def context(make_context: MakeContext) -> Context:
    return make_context()


@pytest.fixture
def connection(context: Context) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(connect(database_path(context.settings))) as opened:
        yield opened


def test_before_the_first_start_there_is_nothing_to_say(context: Context) -> None:
    found = check_engines(context)
    assert found.status is Status.OK
    assert "first start" in found.found


def test_before_a_worker_has_started_nothing_is_chosen(
    context: Context, connection: sqlite3.Connection
) -> None:
    del connection
    assert check_engines(context).status is Status.OK


def test_what_runs_is_named(context: Context, connection: sqlite3.Connection) -> None:
    record_engines(connection, [WELL], HandClock().now())
    found = check_engines(context)
    assert (found.status, found.found) == (Status.OK, f"head runs on {CPU}")


def test_a_fallback_is_a_warning_with_its_reason_and_its_remedy(
    context: Context, connection: sqlite3.Connection
) -> None:
    record_engines(connection, [FALLEN_BACK], HandClock().now())
    found = check_engines(context)
    assert found.status is Status.WARNING
    assert "in place of tensorrt (tensorrt: no libcuda.so.1)" in found.found
    assert "take tensorrt out of engine.preference" in (found.remedy or "")


def test_a_device_that_does_not_prepare_the_images_is_a_warning(
    context: Context, connection: sqlite3.Connection
) -> None:
    slower = replace(WELL, preparation_obstacle="there is no compiler here: install nvcc")
    record_engines(connection, [slower], HandClock().now())
    found = check_engines(context)
    assert found.status is Status.WARNING
    assert "install nvcc" in found.found


def test_a_model_that_nothing_runs_fails(context: Context, connection: sqlite3.Connection) -> None:
    record_engines(connection, [FALLEN_BACK, WITHOUT], HandClock().now())
    found = check_engines(context)
    assert found.status is Status.FAILED
    assert "nothing runs chest" in found.found
    assert "2 decisions differ" in found.found


def test_plans_in_quarantine_are_counted_with_the_latest_reason(
    context: Context, connection: sqlite3.Connection
) -> None:
    record_engines(connection, [WELL], HandClock().now())
    plans = PlanStore(engines_path(context.settings))
    for reason in ("no seal of this device", "the library refuses it:\n\x1b[2Jbad magic"):
        plans.keep(KEY, NEW_PLAN)
        plans.quarantine(KEY, reason)
    before = sorted(plans.folder.rglob("*"))
    found = check_engines(context)
    assert found.status is Status.WARNING
    assert found.found == (
        "2 plans lie in quarantine, the latest because: the library refuses it: [2Jbad magic"
    )
    assert str(plans.folder / "quarantine") in (found.remedy or "")
    assert sorted(plans.folder.rglob("*")) == before
    shutil.rmtree(plans.folder / "quarantine")
    assert check_engines(context).status is Status.OK


def test_a_plan_in_quarantine_is_told_beside_what_does_not_run(
    context: Context, connection: sqlite3.Connection
) -> None:
    record_engines(connection, [WITHOUT], HandClock().now())
    plans = PlanStore(engines_path(context.settings))
    plans.keep(KEY, NEW_PLAN)
    plans.quarantine(KEY, "bad magic")
    for note in plans.folder.glob("quarantine/*.reason.json"):
        note.unlink()
    found = check_engines(context)
    assert found.status is Status.FAILED
    assert "nothing runs chest" in found.found
    assert "1 plan lies in quarantine, the latest because: not written down" in found.found


def test_plans_that_others_may_change_are_not_looked_at(context: Context) -> None:
    folder = engines_path(context.settings)
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    found = check_engines(context)
    assert found.status is Status.WARNING
    assert "chmod go-w" in (found.remedy or "")


def test_a_database_that_cannot_be_read_is_left_to_its_own_check(context: Context) -> None:
    database_path(context.settings).write_bytes(b"no database at all" * 100)
    assert check_engines(context).status is Status.WARNING

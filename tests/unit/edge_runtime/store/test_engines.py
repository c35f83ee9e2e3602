from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest
from simulators.hand_clock import HandClock

from edge_runtime.config.settings import EngineBackend, EngineCudaLibrary, EnginePrecision
from edge_runtime.store.alarms import AlarmCode, standing_alarms
from edge_runtime.store.engine_names import EngineName, parse_engine_name
from edge_runtime.store.engines import (
    EngineInUse,
    EngineObstacle,
    PassedOverEngine,
    engines_in_use,
    record_engines,
)
from engines.choosing import Obstacle
from engines.contract import Backend, CudaLibrary, Precision

CPU = EngineName(
    backend=EngineBackend.ONNXRUNTIME, version="1.31.0", provider="CPUExecutionProvider"
)
WELL = EngineInUse(model_key="head", engine=CPU.text, refusal="", passed_over=())
FALLEN_BACK = replace(
    WELL,
    passed_over=tuple(
        PassedOverEngine(backend=backend, obstacle=obstacle, detail=f"no {backend.value}")
        for backend, obstacle in (
            (EngineBackend.TENSORRT, EngineObstacle.NOT_REPRODUCED),
            (EngineBackend.ONNXRUNTIME_CUDA, EngineObstacle.NOT_AVAILABLE),
        )
    ),
)
WITHOUT = replace(WELL, engine="", refusal="2 decisions differ")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (EngineBackend, Backend),
        (EnginePrecision, Precision),
        (EngineCudaLibrary, CudaLibrary),
        (EngineObstacle, Obstacle),
    ],
)
def test_settings_and_rows_use_the_words_of_the_engines(
    ours: type[EngineBackend], theirs: type[Backend]
) -> None:
    """They have enums of their own: a process that looks at no pixel has no numpy."""
    assert [member.value for member in ours] == [member.value for member in theirs]


@pytest.mark.parametrize(
    "engine", [WELL, FALLEN_BACK, WITHOUT, replace(WELL, preparation_obstacle="no compiler")]
)
def test_what_was_written_is_read_again(
    connection: sqlite3.Connection, clock: HandClock, engine: EngineInUse
) -> None:
    shadow = replace(engine, model_key="head (shadow)")
    record_engines(connection, [shadow, engine], clock.now())
    assert engines_in_use(connection) == (engine, shadow)


def alarms(connection: sqlite3.Connection) -> list[tuple[AlarmCode, str]]:
    return [(alarm.code, alarm.subject) for alarm in standing_alarms(connection)]


def test_a_fallback_stands_as_an_alarm_until_the_preferred_engine_runs(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    record_engines(connection, [FALLEN_BACK], clock.now())
    record_engines(connection, [FALLEN_BACK], clock.now())
    assert alarms(connection) == [(AlarmCode.ENGINE_FALLBACK, "head")]
    record_engines(connection, [WELL], clock.now())
    assert alarms(connection) == []


def test_a_model_without_an_engine_is_another_alarm(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    record_engines(connection, [FALLEN_BACK], clock.now())
    record_engines(connection, [replace(WITHOUT, passed_over=FALLEN_BACK.passed_over)], clock.now())
    assert alarms(connection) == [(AlarmCode.ENGINE_MISSING, "head")]


def test_a_model_that_is_no_longer_in_use_leaves_neither_row_nor_alarm(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    record_engines(connection, [FALLEN_BACK, replace(WITHOUT, model_key="chest")], clock.now())
    record_engines(connection, [], clock.now())
    assert engines_in_use(connection) == ()
    assert alarms(connection) == []


@pytest.mark.parametrize(
    "name",
    [
        CPU,
        replace(CPU, in_place_of=(EngineBackend.TENSORRT,)),
        EngineName(
            backend=EngineBackend.TENSORRT_RTX,
            version="1.7.1.116",
            provider="NVIDIA H200 fp16",
            in_place_of=(EngineBackend.TENSORRT, EngineBackend.ONNXRUNTIME_CUDA),
        ),
        EngineName(
            backend=EngineBackend.TENSORRT,
            version="11.4.0.106",
            provider="NVIDIA H200 int8 (Q/DQ)",
            in_place_of=(EngineBackend.TENSORRT_RTX,),
        ),
    ],
)
def test_the_name_of_an_engine_tells_what_it_replaces_and_is_read_again(name: EngineName) -> None:
    assert parse_engine_name(name.text) == name


@pytest.mark.parametrize(
    "text",
    ["", "onnxruntime", "onnxruntime 1.31.0", "abacus 1 beads", f"{CPU.text}, in place of x"],
)
def test_a_name_that_another_release_wrote_is_not_guessed_at(text: str) -> None:
    assert parse_engine_name(text) is None


def test_what_people_read_is_one_line() -> None:
    fallback = replace(CPU, in_place_of=(EngineBackend.TENSORRT, EngineBackend.ONNXRUNTIME_CUDA))
    assert fallback.text == (
        "onnxruntime 1.31.0 CPUExecutionProvider, in place of tensorrt, onnxruntime-cuda"
    )

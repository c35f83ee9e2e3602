"""Which engine runs each model: written by the worker, read by everyone who tells people.

An engine that the site prefers and that does not run stands as an alarm until it runs again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from edge_runtime.config.settings import EngineBackend
from edge_runtime.model.clock import Instant
from edge_runtime.store.alarms import AlarmCode, clear_alarm, raise_alarm
from edge_runtime.store.database import transaction


class EngineObstacle(str, Enum):
    """Why an engine did not run; the words of ``engines.choosing.Obstacle``."""

    NOT_AVAILABLE = "not_available"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_REPRODUCED = "not_reproduced"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOverEngine:
    """An engine that the site prefers to the one that runs."""

    backend: EngineBackend
    obstacle: EngineObstacle
    detail: str
    """What went wrong and what to do, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInUse:
    """What runs one model."""

    model_key: str
    engine: str
    """As ``engine_names`` writes it; empty where none runs."""
    refusal: str
    """Why none runs; empty where one does."""
    passed_over: tuple[PassedOverEngine, ...]
    preparation_obstacle: str = ""
    """Why the processor prepares images that the engine could take from a device."""


def record_engines(
    connection: sqlite3.Connection, engines: Iterable[EngineInUse], at: Instant
) -> None:
    """Write down what runs now, in place of all that was written before."""
    with transaction(connection):
        gone = {row["model_key"] for row in connection.execute("SELECT * FROM engine_in_use")}
        connection.execute("DELETE FROM engine_in_use")
        for each in engines:
            _insert(connection, each, at)
            _tell(connection, each, at)
            gone.discard(each.model_key)
        for model_key in gone:
            for code in (AlarmCode.ENGINE_FALLBACK, AlarmCode.ENGINE_MISSING):
                clear_alarm(connection, code, model_key, at)


def _insert(connection: sqlite3.Connection, each: EngineInUse, at: Instant) -> None:
    connection.execute(
        "INSERT INTO engine_in_use VALUES (?, ?, ?, ?, ?)",
        (each.model_key, each.engine, each.refusal, at.wall_us, each.preparation_obstacle),
    )
    connection.executemany(
        "INSERT INTO engine_passed_over VALUES (?, ?, ?, ?, ?)",
        [
            (each.model_key, place, item.backend.value, item.obstacle.value, item.detail)
            for place, item in enumerate(each.passed_over)
        ],
    )


def _tell(connection: sqlite3.Connection, each: EngineInUse, at: Instant) -> None:
    for code, stands in (
        (AlarmCode.ENGINE_MISSING, not each.engine),
        (AlarmCode.ENGINE_FALLBACK, bool(each.engine and each.passed_over)),
    ):
        if stands:
            raise_alarm(connection, code, at, subject=each.model_key)
        else:
            clear_alarm(connection, code, each.model_key, at)


def engines_in_use(connection: sqlite3.Connection) -> tuple[EngineInUse, ...]:
    """Return what runs each model, by the model's key."""
    passed_over: dict[str, list[PassedOverEngine]] = {}
    for row in connection.execute("SELECT * FROM engine_passed_over ORDER BY model_key, place"):
        passed_over.setdefault(row["model_key"], []).append(
            PassedOverEngine(
                backend=EngineBackend(row["backend"]),
                obstacle=EngineObstacle(row["obstacle"]),
                detail=row["detail"],
            )
        )
    return tuple(
        EngineInUse(
            model_key=row["model_key"],
            engine=row["engine"],
            refusal=row["refusal"],
            passed_over=tuple(passed_over.get(row["model_key"], ())),
            preparation_obstacle=row["preparation_obstacle"],
        )
        for row in connection.execute("SELECT * FROM engine_in_use ORDER BY model_key")
    )

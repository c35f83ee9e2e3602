"""One event of each type, and the policy that lets it pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.closed import HOUR_US
from telemetry.events import (
    AnalysisEvent,
    Architecture,
    BirthEvent,
    EngineBackend,
    HealthEvent,
    Outcome,
    Presence,
    ProcessMemory,
    ProcessRole,
    StateEvent,
    TelemetryEvent,
)
from telemetry.guard import EgressGuard, MessageId, Stream
from telemetry.ledger import Ledger
from telemetry.outbox import Outbox
from telemetry.policy import EgressPolicy, ModelRef, Version

HOUR = 490_000 * HOUR_US
MODEL = ModelRef(name="head_ct_hyperdense", version=Version(major=1, minor=2, patch=3))


@pytest.fixture
def guard() -> EgressGuard:
    return EgressGuard(
        EgressPolicy(
            device_id="d41d8cd98f00",
            reason_codes=frozenset({"OUT_OF_SCOPE", "MISSING_SLICES"}),
            models=frozenset({MODEL}),
        )
    )


@pytest.fixture
def message_id() -> MessageId:
    return MessageId(epoch=3, stream=Stream.QUEUED, seq=17)


@pytest.fixture
def analysis() -> AnalysisEvent:
    return AnalysisEvent(
        hour_wall_us=HOUR,
        clock_synced=True,
        outcome=Outcome.NOT_ANALYSED,
        reason="MISSING_SLICES",
        model=MODEL,
        revision=2,
        instances=40,
        score=0.07,
        backend=EngineBackend.ONNXRUNTIME_CPU,
        receive_ms=4_000,
        wait_ms=120,
        analyse_ms=310,
        time_to_notification_ms=None,
    )


@pytest.fixture
def health() -> HealthEvent:
    return HealthEvent(
        hour_wall_us=HOUR,
        clock_synced=False,
        uptime_s=86_400,
        disk_free_percent=61,
        queue_depth=2,
        oldest_waiting_s=5,
        dead_deliveries=0,
        dropped_messages=0,
        memory=(ProcessMemory(role=ProcessRole.NODE, rss_mb=60),) * 2,
    )


@pytest.fixture
def birth() -> BirthEvent:
    return BirthEvent(
        hour_wall_us=HOUR,
        clock_synced=True,
        boot_counter=3,
        software=Version(major=0, minor=1, patch=0),
        python=Version(major=3, minor=11, patch=2),
        architecture=Architecture.X86_64,
        backends=(EngineBackend.ONNXRUNTIME_CPU,),
        in_place_of=(EngineBackend.TENSORRT,),
        models=(MODEL,),
    )


@pytest.fixture
def every_event(
    analysis: AnalysisEvent, health: HealthEvent, birth: BirthEvent
) -> tuple[TelemetryEvent, ...]:
    state = StateEvent(hour_wall_us=HOUR, presence=Presence.OFFLINE)
    return (analysis, health, birth, state)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger") as opened:
        yield opened


@pytest.fixture
def outbox(tmp_path: Path, guard: EgressGuard) -> Iterator[Outbox]:
    with Outbox(tmp_path / "telemetry" / "outbox.db", guard=guard) as opened:
        yield opened

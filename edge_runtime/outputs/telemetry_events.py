"""Translates what the device knows into the closed types of ``telemetry``. Pure."""

from __future__ import annotations

import platform
from collections.abc import Iterable

from edge_runtime.config import settings
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Instant, Mark, Stamp, interval_us
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.store.deliveries import DecidedAnalysis, DeliveryJob
from edge_runtime.store.engine_names import EngineName, parse_engine_name
from edge_runtime.store.engines import EngineInUse
from edge_runtime.store.health import DeviceHealth
from telemetry.events import (
    AnalysisEvent,
    Architecture,
    BirthEvent,
    EngineBackend,
    HealthEvent,
    Outcome,
    ProcessMemory,
    ProcessRole,
    truncate_to_hour,
)
from telemetry.policy import EgressPolicy, ModelRef, Version

_OUTCOMES = {
    AnalysisState.SUSPECTED: Outcome.SUSPECTED,
    AnalysisState.NOT_SUSPECTED: Outcome.NOT_SUSPECTED,
    AnalysisState.NOT_ANALYSED: Outcome.NOT_ANALYSED,
    AnalysisState.FAILED: Outcome.FAILED,
}
_BACKENDS = {
    settings.EngineBackend.ONNXRUNTIME: EngineBackend.ONNXRUNTIME_CPU,
    settings.EngineBackend.ONNXRUNTIME_CUDA: EngineBackend.ONNXRUNTIME_CUDA,
    settings.EngineBackend.ONNXRUNTIME_TENSORRT: EngineBackend.ONNXRUNTIME_TENSORRT,
    settings.EngineBackend.TENSORRT: EngineBackend.TENSORRT,
    settings.EngineBackend.TENSORRT_RTX: EngineBackend.TENSORRT_RTX,
}
_ARCHITECTURES = {"x86_64": Architecture.X86_64, "aarch64": Architecture.AARCH64}
_MAX_MS = 7 * 86_400_000
_MAX_COUNT = 1_000_000
_MEGABYTE = 1_000_000


def model_ref(name: str, version: str) -> ModelRef:
    """Name a model as telemetry does."""
    return ModelRef(name=name, version=Version.parse(version))


def reason_word(reason: ReasonCode) -> str:
    """Write a reason code as telemetry does: upper case."""
    return reason.name


def egress_policy(device_id: str, models: Iterable[ModelRef]) -> EgressPolicy:
    """Register the words that may leave: our reason codes, and the active models' names."""
    return EgressPolicy(
        device_id=device_id,
        reason_codes=frozenset(reason_word(reason) for reason in ReasonCode),
        models=frozenset(models),
    )


def analysis_event(job: DeliveryJob, analysis: DecidedAnalysis) -> AnalysisEvent:
    """Tell one analysis without its study."""
    marks = _marks(job.stamps, analysis)
    engine = parse_engine_name(analysis.engine or "")
    return AnalysisEvent(
        hour_wall_us=truncate_to_hour(analysis.decided_wall_us),
        clock_synced=all(stamp.clock_synced for stamp in marks.values()),
        outcome=_OUTCOMES[analysis.outcome],
        reason=reason_word(analysis.reason) if analysis.reason else None,
        model=model_ref(analysis.model_name, analysis.model_version),
        revision=min(analysis.revision, 999),
        instances=min(len(job.instances), _MAX_COUNT),
        score=None if analysis.probability is None else round(analysis.probability, 2),
        backend=_BACKENDS[engine.backend] if engine else None,
        receive_ms=_between(marks, Mark.FIRST_STORED, Mark.LAST_STORED),
        wait_ms=_between(marks, Mark.COMPLETE, Mark.STARTED),
        analyse_ms=_between(marks, Mark.STARTED, Mark.DECIDED),
        # The page shows an outcome with the commit that decides it, to whoever is looking.
        time_to_notification_ms=_between(marks, Mark.LAST_STORED, Mark.DECIDED),
    )


def health_event(health: DeviceHealth, *, uptime_s: int, dropped: int, at: Instant) -> HealthEvent:
    """Tell how the device is."""
    return HealthEvent(
        hour_wall_us=truncate_to_hour(at.wall_us),
        clock_synced=at.clock_synced,
        uptime_s=max(0, uptime_s),
        disk_free_percent=health.disk_free_percent,
        queue_depth=min(health.waiting, _MAX_COUNT),
        oldest_waiting_s=max(0, health.oldest_waiting_s),
        dead_deliveries=min(health.dead_deliveries, _MAX_COUNT),
        dropped_messages=min(dropped, _MAX_COUNT),
        memory=tuple(
            ProcessMemory(
                role=ProcessRole(process.role.value), rss_mb=process.rss_bytes // _MEGABYTE
            )
            for process in health.processes
        ),
    )


def birth_event(
    *,
    boots: int,
    software: str,
    models: tuple[ModelRef, ...],
    engines: Iterable[EngineInUse],
    at: Instant,
) -> BirthEvent:
    """Describe the device; ``engines`` are those of its models."""
    names = tuple(parse_engine_name(each.engine) for each in engines)
    return BirthEvent(
        hour_wall_us=truncate_to_hour(at.wall_us),
        clock_synced=at.clock_synced,
        boot_counter=min(boots, 1_000_000_000),
        software=Version.parse(software),
        python=Version.parse(platform.python_version()),
        architecture=_ARCHITECTURES.get(platform.machine(), Architecture.OTHER),
        backends=tuple(dict.fromkeys(_BACKENDS[name.backend] for name in names if name)),
        in_place_of=_in_place_of(names),
        models=models,
    )


def _in_place_of(names: Iterable[EngineName | None]) -> tuple[EngineBackend, ...]:
    others = (other for name in names if name for other in name.in_place_of)
    return tuple(dict.fromkeys(_BACKENDS[other] for other in others))


def _marks(stamps: tuple[Stamp, ...], analysis: DecidedAnalysis) -> dict[Mark, Instant]:
    return {
        stamp.mark: stamp.at
        for stamp in stamps
        if stamp.revision == analysis.revision and stamp.subject in {"", analysis.model_name}
    }


def _between(marks: dict[Mark, Instant], start: Mark, end: Mark) -> int | None:
    if start not in marks or end not in marks:
        return None
    return min(max(interval_us(marks[start], marks[end]) // 1_000, 0), _MAX_MS)

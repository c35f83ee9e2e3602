"""The closed event types: everything that this device ever tells the world outside the site.

No identifier of a patient, study or instance, no free text, no date finer than the hour. A field
is an enum, a bounded number, or a word that the egress policy registers; ``telemetry/guard.py``
refuses all else, and the JSON Schemas in ``telemetry/schemas`` are generated from these types.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from telemetry.closed import HOUR_US, Hour, Length, ReasonCode, Rounded, Whole
from telemetry.policy import ModelRef, Version

DAY_MS = 86_400_000

Milliseconds = Annotated[int, Whole(minimum=0, maximum=7 * DAY_MS)]
Seconds = Annotated[int, Whole(minimum=0, maximum=315_360_000)]
Count = Annotated[int, Whole(minimum=0, maximum=1_000_000)]
Revision = Annotated[int, Whole(minimum=1, maximum=999)]
Percent = Annotated[int, Whole(minimum=0, maximum=100)]
Megabytes = Annotated[int, Whole(minimum=0, maximum=1_048_576)]
BootCounter = Annotated[int, Whole(minimum=0, maximum=1_000_000_000)]
Score = Annotated[float, Rounded(minimum=0.0, maximum=1.0, decimals=2)]
Reason = Annotated[str, ReasonCode()]
WallHour = Annotated[int, Hour()]


class Outcome(str, Enum):
    """The five outcomes of an analysis."""

    SUSPECTED = "suspected"
    NOT_SUSPECTED = "not_suspected"
    NOT_ANALYSED = "not_analysed"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class EngineBackend(str, Enum):
    """What ran the model."""

    ONNXRUNTIME_CPU = "onnxruntime_cpu"
    ONNXRUNTIME_CUDA = "onnxruntime_cuda"
    ONNXRUNTIME_TENSORRT = "onnxruntime_tensorrt"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"


class Architecture(str, Enum):
    """The device's processor."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"
    OTHER = "other"


class ProcessRole(str, Enum):
    """The processes of a device."""

    NODE = "node"
    WORKER = "worker"
    COURIER = "courier"
    WEB = "web"


class Presence(str, Enum):
    """Whether the device is there."""

    ONLINE = "online"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisEvent:
    """One analysis ended: one (study, model, revision), told without the study.

    Durations are None where the study's clock has no such stamps.
    """

    hour_wall_us: WallHour
    clock_synced: bool
    outcome: Outcome
    reason: Reason | None
    model: ModelRef
    revision: Revision
    instances: Count
    score: Score | None
    backend: EngineBackend | None
    """The birth event says which others the site prefers to it."""
    receive_ms: Milliseconds | None
    """First to last instance stored."""
    wait_ms: Milliseconds | None
    """Complete to started."""
    analyse_ms: Milliseconds | None
    """Started to decided."""
    time_to_notification_ms: Milliseconds | None
    """Last instance stored to flag visible in the worklist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BirthEvent:
    """What this device is; sent on every connection, and when other models or engines run."""

    hour_wall_us: WallHour
    clock_synced: bool
    boot_counter: BootCounter
    software: Version
    python: Version
    architecture: Architecture
    backends: Annotated[tuple[EngineBackend, ...], Length(maximum=len(EngineBackend))]
    """What runs the models."""
    in_place_of: Annotated[tuple[EngineBackend, ...], Length(maximum=len(EngineBackend))]
    """Engines that the site prefers and that could not run: a fallback is never silent."""
    models: Annotated[tuple[ModelRef, ...], Length(maximum=16)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Resident memory of one process."""

    role: ProcessRole
    rss_mb: Megabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthEvent:
    """How this device is."""

    hour_wall_us: WallHour
    clock_synced: bool
    uptime_s: Seconds
    disk_free_percent: Percent
    queue_depth: Count
    oldest_waiting_s: Seconds
    dead_deliveries: Count
    dropped_messages: Count
    """Outbox rows given up for space since the outbox was made."""
    memory: Annotated[tuple[ProcessMemory, ...], Length(maximum=32)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateEvent:
    """Whether the device is there: retained, and the last will."""

    hour_wall_us: WallHour
    presence: Presence


QueuedEvent = AnalysisEvent | HealthEvent
"""What goes through the outbox."""

DirectEvent = BirthEvent | StateEvent
"""What belongs to one connection and is made afresh on the next."""

TelemetryEvent = QueuedEvent | DirectEvent


def truncate_to_hour(wall_us: int) -> int:
    """Return the full hour that ``wall_us`` (wall microseconds, UTC) lies in."""
    return wall_us - wall_us % HOUR_US

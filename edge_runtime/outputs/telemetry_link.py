"""Everything between the courier and the broker: guard, ledger, outbox, publisher, health."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from edge_runtime.clock import Clock
from edge_runtime.outputs.telemetry_events import (
    birth_event,
    egress_policy,
    health_event,
    model_ref,
)
from edge_runtime.outputs.telemetry_sink import TelemetryDeliveries, TelemetrySink
from edge_runtime.store.analyses import NO_MODEL, NO_MODEL_VERSION
from edge_runtime.store.database import connect
from edge_runtime.store.device import DeviceIdentity
from edge_runtime.store.engines import EngineInUse
from edge_runtime.store.health import read_health
from engines.package import ModelPackage
from telemetry.guard import EgressGuard
from telemetry.ledger import Ledger
from telemetry.outbox import Outbox, OutboxItem
from telemetry.publisher import Publisher
from telemetry.settings import MqttSettings


class TelemetryLink:
    """A context manager: entered, the device is announced and its events flow."""

    def __init__(
        self,
        settings: MqttSettings,
        *,
        state_dir: Path,
        database: Path,
        clock: Clock,
        device: DeviceIdentity,
        software: str,
        models: Sequence[ModelPackage],
        known: Sequence[ModelPackage],
        engines: Sequence[EngineInUse],
        cap_bytes: int,
        health_interval_s: float,
    ) -> None:
        """``models`` are active, ``engines`` run them; ``known`` are all that an event may name."""
        self._state_dir = state_dir
        self._database = database
        self._clock = clock
        self._stack = contextlib.ExitStack()
        self._started_mono_us = clock.now().mono_us
        self._health_interval_us = int(health_interval_s * 1_000_000)
        self._health_due_us = self._started_mono_us
        self._health_count = 0
        active = tuple(model_ref(model.name, model.version) for model in models)
        nameable = tuple(model_ref(model.name, model.version) for model in known)
        guard = EgressGuard(
            egress_policy(device.device_id, (*nameable, model_ref(NO_MODEL, NO_MODEL_VERSION)))
        )
        self._outbox = self._stack.enter_context(
            Outbox(state_dir / "telemetry" / "outbox.db", guard=guard, cap_bytes=cap_bytes)
        )
        deliveries = TelemetryDeliveries(database, clock)
        self._publisher = Publisher(
            settings=settings,
            guard=guard,
            outbox=self._outbox,
            ledger=self._stack.enter_context(Ledger(state_dir / "ledger")),
            birth=lambda: birth_event(
                boots=device.boots,
                software=software,
                models=active,
                engines=engines,
                at=clock.now(),
            ),
            on_confirmed=deliveries.confirm,
        )
        self.sink = TelemetrySink(self._outbox, deliveries, wake=self._publisher.wake)

    def __enter__(self) -> TelemetryLink:
        """Connect in the background."""
        self._connection: sqlite3.Connection = self._stack.enter_context(
            contextlib.closing(connect(self._database))
        )
        self._stack.enter_context(self._publisher)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send what can still be sent, then close."""
        self._stack.close()

    def tick(self) -> None:
        """Report the device's health when it is time to."""
        at = self._clock.now()
        if at.mono_us < self._health_due_us:
            return
        self._health_due_us = at.mono_us + self._health_interval_us
        self._health_count += 1
        event = health_event(
            read_health(self._connection, self._state_dir, at),
            uptime_s=(at.mono_us - self._started_mono_us) // 1_000_000,
            dropped=sum(self._outbox.statistics().dropped.values()),
            at=at,
        )
        key = f"health-{self._outbox.epoch}-{self._health_count}"
        self._outbox.put([OutboxItem(event_key=key, event=event)])
        self._publisher.wake()

"""Telemetry as a channel: the outbox of ``telemetry`` is the next hop, the broker vouches.

The event is put under the delivery's own key, so that a crash between the two databases puts it
once; the broker's acknowledgement confirms the delivery before the message is forgotten.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from edge_runtime.clock import Clock
from edge_runtime.errors import BugError, DeliveryError
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.outputs.contract import Receipt
from edge_runtime.outputs.telemetry_events import analysis_event
from edge_runtime.store.database import connect
from edge_runtime.store.deliveries import (
    DeliveryJob,
    abandon_delivery,
    confirm_delivery,
    delivery_state,
)
from telemetry.errors import ConfirmLaterError, DeviceError, EgressRefusedError
from telemetry.outbox import Outbox, OutboxItem

_KEY = "delivery-"
_DROPPED = "DROPPED_FOR_SPACE"


class TelemetrySink:
    """Puts one event for each decided analysis into the telemetry outbox."""

    channel = Channel.TELEMETRY

    def __init__(
        self, outbox: Outbox, deliveries: TelemetryDeliveries, *, wake: Callable[[], None]
    ) -> None:
        """``wake`` tells the publisher that there is something new."""
        self._outbox = outbox
        self._deliveries = deliveries
        self._wake = wake

    def deliver(self, job: DeliveryJob) -> Receipt:
        """Make the event durable in the outbox.

        Raises:
            DeliveryError: the disk refused, or the egress guard did.
            BugError: the job has no decided analysis.
        """
        if job.analysis is None:
            raise BugError("a telemetry event needs a decided analysis")
        item = OutboxItem(
            event_key=f"{_KEY}{job.delivery_id}", event=analysis_event(job, job.analysis)
        )
        try:
            report = self._outbox.put([item])
        except EgressRefusedError as error:
            raise DeliveryError(str(error), code="EGRESS_REFUSED", permanent=True) from error
        except DeviceError as error:
            raise DeliveryError(str(error), code="OUTBOX_FAILED") from error
        if item.event_key in report.dropped_keys:
            raise DeliveryError("the telemetry outbox is full", code=_DROPPED)
        self._deliveries.abandon(report.dropped_keys)
        self._wake()
        return Receipt.SENT

    def rest(self) -> None:
        """Nothing is held: the publisher owns the connection to the broker."""


class TelemetryDeliveries:
    """Notes what became of sent deliveries; each thread that calls has its own connection."""

    def __init__(self, database: Path, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._local = threading.local()

    def confirm(self, event_keys: tuple[str, ...]) -> None:
        """Confirm what the broker acknowledged.

        Raises:
            ConfirmLaterError: the courier has not noted yet that it sent one of them.
        """
        for delivery_id in _delivery_ids(event_keys):
            if not confirm_delivery(self._connection, delivery_id, self._clock.now()):
                self._check_settled(delivery_id)

    def abandon(self, event_keys: tuple[str, ...]) -> None:
        """Give up what the outbox dropped for space."""
        for delivery_id in _delivery_ids(event_keys):
            abandon_delivery(
                self._connection, delivery_id, error_code=_DROPPED, at=self._clock.now()
            )

    def _check_settled(self, delivery_id: int) -> None:
        if delivery_state(self._connection, delivery_id) is DeliveryState.PENDING:
            raise ConfirmLaterError("acknowledged before it was noted as sent")

    @property
    def _connection(self) -> sqlite3.Connection:
        opened: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if opened is None:
            opened = self._local.connection = connect(self._database)
        return opened


def _delivery_ids(event_keys: tuple[str, ...]) -> tuple[int, ...]:
    """Health events have keys of another form; nothing waits for them."""
    return tuple(int(key.removeprefix(_KEY)) for key in event_keys if key.startswith(_KEY))

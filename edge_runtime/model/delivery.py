"""The states of a delivery: one analysis, one channel."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Channel(str, Enum):
    """Where a result goes (DESIGN.md section 2; STANDARDS.md section 3)."""

    STRUCTURED_REPORT = "structured_report"
    FORWARD = "forward"
    TELEMETRY = "telemetry"


class DeliveryState(str, Enum):
    """How far a delivery got."""

    PENDING = "PENDING"
    SENT = "SENT"
    """The next hop has the bytes: a peer's Success, or the telemetry outbox."""
    CONFIRMED = "CONFIRMED"
    """The receiver vouches for them."""
    DEAD = "DEAD"
    """Given up; an alarm stands until someone sends it again."""


class DeliveryEvent(str, Enum):
    """What moves a delivery."""

    ACCEPTED = "ACCEPTED"
    VOUCHED = "VOUCHED"
    UNVOUCHED = "UNVOUCHED"
    """The confirmation will not come: send again."""
    GAVE_UP = "GAVE_UP"
    RESENT = "RESENT"
    """A person asked for another try."""


DELIVERY_TRANSITIONS: Mapping[tuple[DeliveryState, DeliveryEvent], DeliveryState] = (
    MappingProxyType(
        {
            (DeliveryState.PENDING, DeliveryEvent.ACCEPTED): DeliveryState.SENT,
            (DeliveryState.SENT, DeliveryEvent.VOUCHED): DeliveryState.CONFIRMED,
            (DeliveryState.SENT, DeliveryEvent.UNVOUCHED): DeliveryState.PENDING,
            (DeliveryState.PENDING, DeliveryEvent.GAVE_UP): DeliveryState.DEAD,
            (DeliveryState.SENT, DeliveryEvent.GAVE_UP): DeliveryState.DEAD,
            (DeliveryState.DEAD, DeliveryEvent.RESENT): DeliveryState.PENDING,
        }
    )
)

"""The egress guard: the only way from an event to bytes that leave the site.

Invariants: nothing is encoded that is not exactly one of the closed types; the topic and the
envelope are built here too, from the policy and from counters; a refusal never names a value.
Hashing an identifier is not de-identification, so no field takes a hash either: a message is
named by the device's own counters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Annotated

from telemetry.closed import JsonValue, Record, Whole, record_of
from telemetry.errors import EgressRefusedError
from telemetry.events import (
    AnalysisEvent,
    BirthEvent,
    HealthEvent,
    StateEvent,
    TelemetryEvent,
)
from telemetry.policy import EgressPolicy

DAY_S = 86_400
TIME_FIELD = "hour_wall_us"
"""The field of every event that the envelope carries as ``time``."""


class EventClass(IntEnum):
    """What is given up first when the outbox is full: the lowest."""

    TELEMETRY = 1
    UPDATE = 2
    EVENT = 3


class Channel(str, Enum):
    """The last level of an upward topic."""

    EVENT = "event"
    TELEMETRY = "tele"
    BIRTH = "birth"
    STATE = "state"


class Stream(str, Enum):
    """Which counter a message is numbered by."""

    QUEUED = "q"
    """Through the outbox: without gaps, but for counted drops."""
    DIRECT = "d"
    """Of one connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageId:
    """A message's name, unique within its device; a receiver discards what it has seen."""

    epoch: Annotated[int, Whole(minimum=1, maximum=1_000_000_000)]
    """Counts the starts of the process that owns the outbox."""
    stream: Stream
    seq: Annotated[int, Whole(minimum=1, maximum=2**53 - 1)]

    def __str__(self) -> str:
        return f"{self.epoch}-{self.stream.value}{self.seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventKind:
    """How one event type travels."""

    type_name: str
    """CloudEvents ``type``; the schema's file has the same name."""
    event_class: EventClass
    channel: Channel
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedMessage:
    """Bytes that passed the guard, and where they go. Only the guard makes these."""

    topic: str
    payload: bytes
    event_class: EventClass
    channel: Channel


EVENT_KINDS: Mapping[type, EventKind] = MappingProxyType(
    {
        cls: EventKind(
            type_name=f"edge-triage.{name}.v1",
            event_class=event_class,
            channel=channel,
            record=record_of(cls),
        )
        for cls, name, event_class, channel in (
            (AnalysisEvent, "analysis", EventClass.EVENT, Channel.EVENT),
            (HealthEvent, "health", EventClass.TELEMETRY, Channel.TELEMETRY),
            (BirthEvent, "birth", EventClass.TELEMETRY, Channel.BIRTH),
            (StateEvent, "state", EventClass.TELEMETRY, Channel.STATE),
        )
    }
)

MESSAGE_EXPIRY_S: Mapping[EventClass, int] = MappingProxyType(
    {EventClass.EVENT: 30 * DAY_S, EventClass.UPDATE: 30 * DAY_S, EventClass.TELEMETRY: 2 * DAY_S}
)
"""How long a broker keeps a message for a subscriber that is away, counted from publishing.

Not how long the outbox keeps it: a device's clock may jump, and nothing may be lost by that.
"""

_MESSAGE_ID = record_of(MessageId)


class EgressGuard:
    """Encodes closed events as structured CloudEvents 1.0 JSON."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy

    @property
    def device_id(self) -> str:
        """The opaque device id."""
        return self._policy.device_id

    def topic(self, channel: Channel) -> str:
        """Return ``f/v1/{device}/up/{channel}``."""
        return f"f/v1/{self._policy.device_id}/up/{channel.value}"

    def encode(self, event: TelemetryEvent, message_id: MessageId) -> SealedMessage:
        """Check an event and turn it into the bytes that leave.

        Raises:
            EgressRefusedError: Not one of the closed types, a field out of its bounds, a word
                that the policy does not register, or too many bytes.
        """
        kind = EVENT_KINDS.get(type(event))
        if kind is None:
            raise EgressRefusedError("event", "must be exactly one of the closed event types")
        _MESSAGE_ID.check(message_id, "message_id", self._policy)
        data = kind.record.check(event, kind.type_name, self._policy)
        # The record has just checked this field: a plain int at a full hour.
        hour_us = data.pop(TIME_FIELD)
        envelope: dict[str, JsonValue] = {
            "specversion": "1.0",
            "id": str(message_id),
            "source": self._policy.device_id,
            "type": kind.type_name,
            "time": _hour_text(hour_us),
            "datacontenttype": "application/json",
            "data": data,
        }
        payload = json.dumps(envelope, allow_nan=False, separators=(",", ":")).encode("ascii")
        if len(payload) > self._policy.max_payload_bytes:
            raise EgressRefusedError(
                "payload", f"must have at most {self._policy.max_payload_bytes} bytes"
            )
        return SealedMessage(
            topic=self.topic(kind.channel),
            payload=payload,
            event_class=kind.event_class,
            channel=kind.channel,
        )


def _hour_text(hour_us: JsonValue) -> str:
    if not isinstance(hour_us, int):
        raise EgressRefusedError(TIME_FIELD, "must be there in every event type")
    moment = datetime.fromtimestamp(hour_us // 1_000_000, tz=timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:00:00Z")

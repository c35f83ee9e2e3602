"""What is under way to the broker, and when to try again: pure bookkeeping, no clock, no socket.

A window of at most N messages. A message occupies a place from being sent until it is settled,
also while it waits for another try: so a message that the broker refuses for ever costs one place,
and a broker that refuses everything stops the flow by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from telemetry.outbox import OutboxRow

NO_MATCHING_SUBSCRIBERS = 0x10
FIRST_ERROR_CODE = 0x80
"""MQTT 5, 2.4: reason codes from here on are failures."""


class Verdict(Enum):
    """What a PUBACK's reason code means for the message."""

    DELIVERED = "delivered"
    NOBODY_LISTENS = "nobody_listens"
    REFUSED = "refused"


def judge(reason_code: int, *, require_subscriber: bool) -> Verdict:
    """Map a PUBACK reason code (MQTT 5, 3.4.2.1) to what to do."""
    if reason_code >= FIRST_ERROR_CODE:
        return Verdict.REFUSED
    if reason_code == NO_MATCHING_SUBSCRIBERS and require_subscriber:
        return Verdict.NOBODY_LISTENS
    return Verdict.DELIVERED


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """Doubling delays with equal jitter: half fixed, half drawn, so that a fleet spreads out."""

    minimum_s: float
    maximum_s: float

    def delay_s(self, attempt: int, draw: float) -> float:
        """Return the delay after ``attempt`` failures (1..); ``draw`` is uniform in [0, 1)."""
        # The exponent is bounded: 2.0**1024 overflows after a long outage.
        ceiling = min(self.maximum_s, self.minimum_s * 2.0 ** min(attempt - 1, 32))
        return ceiling / 2 + draw * ceiling / 2


@dataclass(slots=True)
class _Place:
    row: OutboxRow
    sent_s: float
    attempts: int = 1
    retry_s: float | None = None
    delivered: bool = False


class Flight:
    """The window of one connection. Times are monotonic seconds, handed in."""

    def __init__(self, *, window: int, back_off: BackOff) -> None:
        self._window = window
        self._back_off = back_off
        self._places: dict[int, _Place] = {}
        self._rows: dict[int, int] = {}

    @property
    def window(self) -> int:
        """The most messages that may be under way."""
        return self._window

    def admit(self, oldest: tuple[OutboxRow, ...], now_s: float) -> tuple[OutboxRow, ...]:
        """Choose what to send now: new rows for free places, and those due for another try."""
        free = self._window - len(self._places)
        chosen: list[OutboxRow] = []
        for row in oldest:
            place = self._places.get(row.row_id)
            if place is None and free > 0:
                free -= 1
                chosen.append(row)
            elif place is not None and place.retry_s is not None and place.retry_s <= now_s:
                chosen.append(row)
        return tuple(chosen)

    def sent(self, packet_id: int, row: OutboxRow, now_s: float) -> None:
        """Note that a row went out under a packet id."""
        self._rows[packet_id] = row.row_id
        place = self._places.get(row.row_id)
        attempts = place.attempts + 1 if place else 1
        self._places[row.row_id] = _Place(row=row, sent_s=now_s, attempts=attempts)

    def acknowledged(self, packet_id: int, verdict: Verdict, *, now_s: float, draw: float) -> None:
        """Take a PUBACK for a packet that ``sent`` noted."""
        place = self._places[self._rows.pop(packet_id)]
        if verdict is Verdict.DELIVERED:
            place.delivered = True
        else:
            place.retry_s = now_s + self._back_off.delay_s(place.attempts, draw)

    def delivered(self) -> tuple[OutboxRow, ...]:
        """Return the rows whose delivery is still to be confirmed to the device, oldest first."""
        return tuple(place.row for place in self._places.values() if place.delivered)

    def settle(self, rows: tuple[OutboxRow, ...]) -> None:
        """Free the places of rows that left the outbox."""
        for row in rows:
            del self._places[row.row_id]

    def is_under_way(self) -> bool:
        """True when the broker owes an acknowledgement, or we owe the device a confirmation."""
        return bool(self._rows) or bool(self.delivered())

    def is_overdue(self, now_s: float, limit_s: float) -> bool:
        """True when the broker owes an acknowledgement for longer than ``limit_s``."""
        return any(now_s - self._places[row_id].sent_s > limit_s for row_id in self._rows.values())

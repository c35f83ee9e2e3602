"""The clock of a study: which moments are stamped, and with what (DESIGN.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Mark(str, Enum):
    """A moment in the way of a study."""

    FIRST_STORED = "first_stored"
    LAST_STORED = "last_stored"
    COMPLETE = "complete"
    STARTED = "started"
    DECIDED = "decided"
    SENT = "sent"
    CONFIRMED = "confirmed"
    FIRST_SEEN = "first_seen"
    ACKNOWLEDGED = "acknowledged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """One reading of both clocks.

    The wall clock may be set back; CLOCK_BOOTTIME never runs back while ``boot_id`` is the same,
    and every process of the device reads the same one.
    """

    wall_us: int
    mono_us: int
    boot_id: str
    clock_synced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """A mark with its instant; ``subject`` is a model for analyses, a channel for deliveries."""

    revision: int
    mark: Mark
    subject: str
    at: Instant


def interval_us(start: Instant, end: Instant) -> int:
    """Return microseconds from ``start`` to ``end``: monotonic if both share a boot, else wall."""
    if start.boot_id == end.boot_id:
        return end.mono_us - start.mono_us
    return end.wall_us - start.wall_us

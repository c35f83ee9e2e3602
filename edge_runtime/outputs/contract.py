"""What the courier knows of a channel: a sink that delivers one job at a time.

Invariant: a sink may be called again with the same job after any failure or crash. Every object
that it sends carries the UID of the first try, so that the peer keeps one (DESIGN.md section 3.6).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo
from enum import Enum
from typing import Protocol

from edge_runtime.model.delivery import Channel
from edge_runtime.store.deliveries import DeliveryJob


class Receipt(str, Enum):
    """How much the peer has promised when a delivery returns."""

    SENT = "SENT"
    """The next hop has the bytes; the receiver has yet to vouch for them."""
    CONFIRMED = "CONFIRMED"
    """The receiver vouches for them: nothing more will come."""


class Sink(Protocol):
    """One channel. What keeps a connection closes it when its ``with`` block ends."""

    @property
    def channel(self) -> Channel:
        """Name the channel whose jobs this sink takes."""
        ...

    def deliver(self, job: DeliveryJob) -> Receipt:
        """Deliver one job; delivering it twice leaves one object at the peer.

        Raises:
            DeliveryError: nothing, or not all, arrived; ``permanent`` says that trying again
                without a change on either side is useless.
        """
        ...

    def rest(self) -> None:
        """Let go of what a peer holds for us: nothing has been due for a while."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingDevice:
    """Who speaks in every object that the device makes (PS3.3 C.7.5.2: none may be empty)."""

    token: str
    """Opaque and stable: the identity of this box, from which its UIDs are derived."""
    name: str
    manufacturer: str
    model_name: str
    serial_number: str
    software_version: str
    timezone: tzinfo
    """Local time of the site: the zone of every date and time that the scanner writes too."""

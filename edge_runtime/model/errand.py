"""The states of an errand: one message that the courier owes a peer, beside the deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class ErrandKind(str, Enum):
    """What is owed."""

    COMMITMENT_REPORT = "commitment_report"
    """The answer to a request for storage commitment (PS3.4 J.3.3)."""
    MPPS_RELAY = "mpps_relay"
    """A message about a procedure step, for the information system upstream."""


class ErrandState(str, Enum):
    """How far an errand got."""

    PENDING = "PENDING"
    DONE = "DONE"
    """The peer answered with Success."""
    DEAD = "DEAD"
    """Given up; an alarm stands until someone sends it again."""


class ErrandEvent(str, Enum):
    """What moves an errand."""

    ACCEPTED = "ACCEPTED"
    GAVE_UP = "GAVE_UP"
    ASKED_AGAIN = "ASKED_AGAIN"
    """By a person, or by a peer that repeats its request."""


ERRAND_TRANSITIONS: Mapping[tuple[ErrandState, ErrandEvent], ErrandState] = MappingProxyType(
    {
        (ErrandState.PENDING, ErrandEvent.ACCEPTED): ErrandState.DONE,
        (ErrandState.PENDING, ErrandEvent.GAVE_UP): ErrandState.DEAD,
        (ErrandState.DEAD, ErrandEvent.ASKED_AGAIN): ErrandState.PENDING,
    }
)

"""Who leaves the device, and why; pure.

Invariants: a study that something keeps here is never chosen; under disk pressure the first decided
goes first, and no more than makes the room that is wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from edge_runtime.model.holding import HoldCause, Holding


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRules:
    """How long studies stay, and how much room the disk shall have."""

    keep_us: int
    """A decided study leaves at this age."""
    least_keep_us: int
    """Under disk pressure it leaves at this age at the earliest."""
    free_bytes_target: int
    """Disk pressure begins below; above the node's reserve, so that retention acts before A700."""


class Departure(str, Enum):
    """Why a study leaves."""

    AGE = "age"
    PRESSURE = "pressure"


def may_leave(
    holding: Holding, rules: RetentionRules, *, age_clock_us: int, wanted_bytes: int
) -> Departure | None:
    """Say why a study leaves now, if it does; ``wanted_bytes`` is the room that is missing."""
    if holding.since_us is None or holding.causes:
        return None
    age_us = age_clock_us - holding.since_us
    if age_us >= rules.keep_us:
        return Departure.AGE
    if wanted_bytes > 0 and age_us >= rules.least_keep_us:
        return Departure.PRESSURE
    return None


def pressure_cause(holdings: Sequence[Holding]) -> HoldCause:
    """Say what keeps most of the studies that are left when no more room can be made."""
    causes = Counter(
        holding.causes[0] if holding.causes else HoldCause.TOO_YOUNG for holding in holdings
    )
    return causes.most_common(1)[0][0] if causes else HoldCause.OTHER_FILES


def overdue_causes(
    holdings: Sequence[Holding], rules: RetentionRules, *, age_clock_us: int
) -> frozenset[HoldCause]:
    """Say what keeps studies beyond their time, apart from promises that the settings make."""
    return frozenset(
        cause
        for holding in holdings
        if holding.since_us is not None and age_clock_us - holding.since_us >= rules.keep_us
        for cause in holding.causes
    ) - {HoldCause.PROMISED}

"""The figures of a benchmark: stages of a study's way, and what many studies have in common; pure.

Percentiles are by nearest rank: every one is a value that was measured, none is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from edge_runtime.model.clock import Mark, Stamp
from edge_runtime.model.delivery import Channel

MEDIAN_PERCENT = 50
TAIL_PERCENT = 95


class Stage(str, Enum):
    """A part of a study's way; all but the first begin when every image is stored."""

    RECEIVE = "receive"
    TIME_TO_NOTIFICATION = "time_to_notification"
    COMPLETION = "completion"
    AFTER_COMPLETION = "after_completion"
    WAIT = "wait"
    ANALYSE = "analyse"
    PAGE = "page"
    REPORT_SENT = "report_sent"
    TELEMETRY_CONFIRMED = "telemetry_confirmed"

    @property
    def words(self) -> str:
        """From where to where."""
        return _WORDS[self]


_WORDS = {
    Stage.RECEIVE: "first image stored → last image stored",
    Stage.TIME_TO_NOTIFICATION: "last image stored → flag on the page",
    Stage.COMPLETION: "last image stored → complete",
    Stage.AFTER_COMPLETION: "complete → flag on the page",
    Stage.WAIT: "complete → analysis started",
    Stage.ANALYSE: "analysis started → decided",
    Stage.PAGE: "decided → flag on the page",
    Stage.REPORT_SENT: "decided → report at the PACS",
    Stage.TELEMETRY_CONFIRMED: "decided → telemetry confirmed by the broker",
}


class _Point(str, Enum):
    FIRST = "first"
    LAST = "last"
    COMPLETE = "complete"
    STARTED = "started"
    DECIDED = "decided"
    FLAG = "flag"
    REPORT = "report"
    TELEMETRY = "telemetry"


_ENDS = {
    Stage.RECEIVE: (_Point.FIRST, _Point.LAST),
    Stage.TIME_TO_NOTIFICATION: (_Point.LAST, _Point.FLAG),
    Stage.COMPLETION: (_Point.LAST, _Point.COMPLETE),
    Stage.AFTER_COMPLETION: (_Point.COMPLETE, _Point.FLAG),
    Stage.WAIT: (_Point.COMPLETE, _Point.STARTED),
    Stage.ANALYSE: (_Point.STARTED, _Point.DECIDED),
    Stage.PAGE: (_Point.DECIDED, _Point.FLAG),
    Stage.REPORT_SENT: (_Point.DECIDED, _Point.REPORT),
    Stage.TELEMETRY_CONFIRMED: (_Point.DECIDED, _Point.TELEMETRY),
}

_POINTS: Mapping[tuple[Mark, str], _Point] = {
    (Mark.FIRST_STORED, ""): _Point.FIRST,
    (Mark.LAST_STORED, ""): _Point.LAST,
    (Mark.COMPLETE, ""): _Point.COMPLETE,
    (Mark.STARTED, ""): _Point.STARTED,
    (Mark.DECIDED, ""): _Point.DECIDED,
    (Mark.SENT, Channel.STRUCTURED_REPORT.value): _Point.REPORT,
    (Mark.CONFIRMED, Channel.TELEMETRY.value): _Point.TELEMETRY,
}
"""By mark and channel."""


def stages_of(stamps: Iterable[Stamp], revision: int, flagged_mono_us: int) -> dict[Stage, int]:
    """Return how long each stage of a study took.

    Args:
        stamps: the study's clock.
        revision: the one to look at.
        flagged_mono_us: CLOCK_BOOTTIME when the flag arrived at the page's reader.

    Returns:
        Microseconds of the stages whose both ends are known.
    """
    at = {_Point.FLAG: flagged_mono_us}
    for stamp in stamps:
        channel, separator, _model = stamp.subject.partition(":")
        point = _POINTS.get((stamp.mark, channel if separator else ""))
        if point is not None and stamp.revision == revision:
            at[point] = stamp.at.mono_us
    return {
        stage: at[end] - at[start]
        for stage, (start, end) in _ENDS.items()
        if start in at and end in at
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What many measurements of one thing have in common, in its own unit."""

    count: int
    median: float
    p95: float
    lowest: float
    highest: float


def spread_of(values: Sequence[float]) -> Spread:
    """Sum up at least one measurement."""
    return Spread(
        count=len(values),
        median=nearest_rank(values, MEDIAN_PERCENT),
        p95=nearest_rank(values, TAIL_PERCENT),
        lowest=min(values),
        highest=max(values),
    )


def nearest_rank(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least ``percent`` of the values do not exceed."""
    return sorted(values)[max(math.ceil(percent / 100 * len(values)) - 1, 0)]

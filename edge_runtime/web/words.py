"""Plain English for states, marks, times and names; pure, and complete for every enum."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import datetime, timezone, tzinfo
from types import MappingProxyType

from edge_runtime.model.clock import Mark
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.model.holding import HoldCause
from edge_runtime.model.model_package import PackageState
from edge_runtime.model.procedure_step import ProcedureStepState
from edge_runtime.model.study import CompletionReason
from edge_runtime.store.alarms import Alarm, AlarmCode
from edge_runtime.store.engines import EngineObstacle
from edge_runtime.store.procedure_steps import StepProgress
from edge_runtime.store.processes import Role
from edge_runtime.store.worklist import DeliveryView

_SECOND_US = 1_000_000
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400
_FINE_BELOW_S = 10.0  # below, a reader cares for tenths
_FINEST_BELOW_S = 1.0  # and here for hundredths
_TEXT_LIMIT = 96  # PN and LO end at 64 characters (PS3.5 6.2); a peer may send more
_DATE_DIGITS = 8

MARK_WORDS: Mapping[Mark, str] = MappingProxyType(
    {
        Mark.FIRST_STORED: "First image stored",
        Mark.LAST_STORED: "Last image stored",
        Mark.COMPLETE: "Study complete",
        Mark.STARTED: "Analysis started",
        Mark.DECIDED: "Outcome decided",
        Mark.SENT: "Sent",
        Mark.CONFIRMED: "Confirmed",
        Mark.FIRST_SEEN: "First shown on a page",
        Mark.ACKNOWLEDGED: "Acknowledged by a reader",
    }
)

COMPLETION_WORDS: Mapping[CompletionReason, str] = MappingProxyType(
    {
        CompletionReason.MPPS: "the scanner reported the end of the procedure",
        CompletionReason.COUNTS: "all announced images arrived",
        CompletionReason.GEOMETRY: "the slices leave no gap and no more are expected",
        CompletionReason.ASSOCIATION: "the scanner closed the connection and stayed quiet",
        CompletionReason.QUIET: "no further image came for the quiet time",
        CompletionReason.FORCED: "the longest wait was over",
    }
)

PACKAGE_WORDS: Mapping[PackageState, str] = MappingProxyType(
    {
        PackageState.INSTALLED: "Installed, not verified",
        PackageState.VERIFIED: "Waits for approval",
        PackageState.REFUSED: "Refused: it did not pass its verification",
        PackageState.APPROVED: "Approved, waits to be activated",
        PackageState.SHADOW: "Tried out as a shadow: nobody is told what it finds",
        PackageState.ACTIVE: "In use",
        PackageState.RETIRED: "No longer used",
    }
)

STEP_WORDS: Mapping[ProcedureStepState, str] = MappingProxyType(
    {
        ProcedureStepState.IN_PROGRESS: "in progress",
        ProcedureStepState.COMPLETED: "completed",
        ProcedureStepState.DISCONTINUED: "broken off",
    }
)

CHANNEL_WORDS: Mapping[Channel, str] = MappingProxyType(
    {
        Channel.STRUCTURED_REPORT: "Structured report to the PACS",
        Channel.FORWARD: "Images to the PACS",
        Channel.TELEMETRY: "De-identified telemetry",
    }
)

ALARM_WORDS: Mapping[AlarmCode, str] = MappingProxyType(
    {
        AlarmCode.COMMITMENT_DEAD: (
            "A scanner could not be told which of its images are stored here, and was given up."
        ),
        AlarmCode.CONFLICTING_DUPLICATE: (
            "An image arrived a second time with other content. Both are kept; the first counts."
        ),
        AlarmCode.DELIVERY_DEAD: "A result could not be delivered and was given up.",
        AlarmCode.DISK_PRESSURE: "The disk is almost full, and no study may leave to make room.",
        AlarmCode.ENGINE_FALLBACK: (
            "A model runs on another engine than the one preferred here, because that one cannot "
            "run. Its findings are the same; they may come later."
        ),
        AlarmCode.ENGINE_MISSING: "No engine runs a model here: its analyses fail, or wait.",
        AlarmCode.FILE_MISSING: "A stored image is missing on the device's disk.",
        AlarmCode.MODEL_REFUSED: "A model was refused at start, so nothing is analysed with it.",
        AlarmCode.MPPS_RELAY_DEAD: (
            "A procedure step could not be passed on to the system upstream and was given up."
        ),
        AlarmCode.RETENTION_OVERDUE: "Studies stay here longer than they should.",
    }
)

OBSTACLE_WORDS: Mapping[EngineObstacle, str] = MappingProxyType(
    {
        EngineObstacle.NOT_AVAILABLE: "Not available here",
        EngineObstacle.OUT_OF_MEMORY: "Too little memory",
        EngineObstacle.NOT_REPRODUCED: "Does not give the reference's findings",
        EngineObstacle.FAILED: "Does not load",
    }
)

HOLD_WORDS: Mapping[HoldCause, str] = MappingProxyType(
    {
        HoldCause.RECEIVING: "They are not complete yet.",
        HoldCause.UNDECIDED: "They wait for their analysis.",
        HoldCause.UNDELIVERED: "Their results wait to be delivered.",
        HoldCause.GIVEN_UP: "Their results were given up on the way and can be sent again.",
        HoldCause.PROMISED: "A scanner was told that they are kept.",
        HoldCause.TOO_YOUNG: "They were decided only just now.",
        HoldCause.OTHER_FILES: "Something other than studies fills the disk.",
    }
)
_HELD_ALARMS = frozenset({AlarmCode.DISK_PRESSURE, AlarmCode.RETENTION_OVERDUE})

ROLE_WORDS: Mapping[Role, str] = MappingProxyType(
    {
        Role.NODE: "Receiving images",
        Role.WORKER: "Analysis",
        Role.COURIER: "Delivery of results",
        Role.WEB: "This page",
    }
)

SILENT_WORDS: Mapping[Role, str] = MappingProxyType(
    {
        Role.NODE: (
            "The part that receives images does not answer: new studies may be missing here."
        ),
        Role.WORKER: "The part that analyses does not answer: studies are waiting, not negative.",
        Role.COURIER: (
            "The part that delivers results does not answer: flags show on this page only."
        ),
        Role.WEB: "The part that serves this page does not report.",
    }
)


_SENT_WORDS: Mapping[Channel, str] = MappingProxyType(
    {
        # C-STORE has no further confirmation to wait for (docs/decisions/0008).
        Channel.STRUCTURED_REPORT: "Accepted by the PACS",
        Channel.FORWARD: "Accepted by the PACS",
        Channel.TELEMETRY: "Sent, not confirmed yet",
    }
)


def alarm_words(alarm: Alarm) -> str:
    """Say what is wrong, and why studies stay where that is the matter."""
    words = ALARM_WORDS[alarm.code]
    if alarm.code in _HELD_ALARMS:
        return f"{words} {HOLD_WORDS[HoldCause(alarm.subject)]}"
    return words


def step_words(step: StepProgress) -> str:
    """Say what the scanner says of one procedure step."""
    images = "1 image" if step.images == 1 else f"{step.images} images"
    return f"{STEP_WORDS[step.state]}, {images} named" if step.images else STEP_WORDS[step.state]


def delivery_words(delivery: DeliveryView) -> str:
    """Say how far a delivery got."""
    tries = "1 attempt" if delivery.attempts == 1 else f"{delivery.attempts} attempts"
    problem = f" (last problem: {delivery.error_code})" if delivery.error_code else ""
    if delivery.state is DeliveryState.CONFIRMED:
        return "Delivered and confirmed"
    if delivery.state is DeliveryState.SENT:
        return _SENT_WORDS[delivery.channel]
    if delivery.state is DeliveryState.DEAD:
        return f"Given up after {tries}{problem}"
    if delivery.attempts == 0:
        return "Waiting to be sent"
    return f"Not delivered yet, {tries}{problem}"


def duration_words(duration_us: int) -> str:
    """Say a duration (µs) as a reader would; negative ones come from a clock that was set back."""
    if duration_us < 0:
        return "unknown (clock was set)"
    seconds = duration_us / _SECOND_US
    if seconds < _FINE_BELOW_S:
        return f"{seconds:.2f} s" if seconds < _FINEST_BELOW_S else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02d} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02d} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def offset_words(offset_us: int) -> str:
    """Say how far a moment lies from the last image, to the millisecond."""
    if offset_us == 0:
        return "0 s"
    size = abs(offset_us)
    fine = size < _MINUTE_S * _SECOND_US
    text = f"{size / _SECOND_US:.3f} s" if fine else duration_words(size)
    return f"{text} before" if offset_us < 0 else f"+ {text}"


def clock_words(wall_us: int, zone: tzinfo | None = None) -> str:
    """Return the time of day in ``zone``, or where the device stands."""
    return _local(wall_us, zone).strftime("%H:%M:%S")


def date_words(wall_us: int, zone: tzinfo | None = None) -> str:
    """Return the date in ``zone``, or where the device stands, as ISO 8601."""
    return _local(wall_us, zone).strftime("%Y-%m-%d")


def iso_words(wall_us: int) -> str:
    """Return the moment as ISO 8601 in UTC, for machines."""
    return datetime.fromtimestamp(wall_us / _SECOND_US, tz=timezone.utc).isoformat(
        timespec="milliseconds"
    )


def _local(wall_us: int, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(wall_us / _SECOND_US, tz=timezone.utc).astimezone(zone)


def clean_text(text: str) -> str:
    """Drop control characters and clip: what a peer sends must fit into one cell."""
    kept = "".join(c for c in text if unicodedata.category(c) != "Cc").strip()
    return kept if len(kept) <= _TEXT_LIMIT else kept[: _TEXT_LIMIT - 1] + "…"


def person_words(name: str) -> str:
    """Turn a DICOM person name (PS3.5 6.2.1.1) into 'FAMILY, Given Middle', as lists show it.

    Ideographic and phonetic groups follow in brackets.
    """
    groups = [_person_group(group) for group in name.split("=")]
    shown = [group for group in groups if group]
    if not shown:
        return ""
    extra = f" ({', '.join(shown[1:])})" if len(shown) > 1 else ""
    return clean_text(shown[0] + extra)


def _person_group(group: str) -> str:
    parts = [part.strip() for part in group.split("^")]
    rest = " ".join(part for part in parts[1:3] if part)
    return ", ".join(part for part in (parts[0], rest) if part)


def date_of_birth_words(value: str) -> str:
    """Turn a DICOM date (PS3.5 6.2, DA) into ISO 8601; anything else stays as it is."""
    if len(value) == _DATE_DIGITS and value.isdecimal():
        return f"{value[:4]}-{value[4:6]}-{value[6:]}"
    return clean_text(value)

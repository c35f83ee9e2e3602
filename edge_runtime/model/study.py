"""The states of a study, and why one counts as complete."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class StudyState(str, Enum):
    """Whether images of the study are still expected."""

    RECEIVING = "RECEIVING"
    COMPLETE = "COMPLETE"


class StudyEvent(str, Enum):
    """What moves a study."""

    COMPLETED = "COMPLETED"
    LATE_IMAGE = "LATE_IMAGE"
    """A new revision begins: the revision number grows by one."""


STUDY_TRANSITIONS: Mapping[tuple[StudyState, StudyEvent], StudyState] = MappingProxyType(
    {
        (StudyState.RECEIVING, StudyEvent.COMPLETED): StudyState.COMPLETE,
        (StudyState.COMPLETE, StudyEvent.LATE_IMAGE): StudyState.RECEIVING,
    }
)


class CompletionReason(str, Enum):
    """Which rule declared the study complete, the most certain first."""

    MPPS = "mpps"
    COUNTS = "counts"
    GEOMETRY = "geometry"
    ASSOCIATION = "association"
    QUIET = "quiet"
    FORCED = "forced"

"""The states of a procedure step, as the scanner reports them (PS3.4 F.7)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class ProcedureStepState(str, Enum):
    """How far the scanner is."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


class ProcedureStepEvent(str, Enum):
    """What an N-SET says."""

    MODIFIED = "MODIFIED"
    """Other attributes than the state; an ended step takes none."""
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


PROCEDURE_STEP_TRANSITIONS: Mapping[
    tuple[ProcedureStepState, ProcedureStepEvent], ProcedureStepState
] = MappingProxyType(
    {
        (
            ProcedureStepState.IN_PROGRESS,
            ProcedureStepEvent.MODIFIED,
        ): ProcedureStepState.IN_PROGRESS,
        (
            ProcedureStepState.IN_PROGRESS,
            ProcedureStepEvent.COMPLETED,
        ): ProcedureStepState.COMPLETED,
        (
            ProcedureStepState.IN_PROGRESS,
            ProcedureStepEvent.DISCONTINUED,
        ): ProcedureStepState.DISCONTINUED,
    }
)

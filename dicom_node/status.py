"""The C-STORE statuses that the node answers with (PS3.4 B.2.3, PS3.7 9.1.1.1.9)."""

from __future__ import annotations

from enum import IntEnum


class StoreStatus(IntEnum):
    """SUCCESS and COERCED mean stored; every other value makes the sender keep the instance."""

    SUCCESS = 0x0000
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORISED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    COERCED = 0xB000
    CANNOT_UNDERSTAND = 0xC000


# PS3.7 Annex C: 0xBxxx and these are warnings, the instance was stored nevertheless.
_WARNINGS = range(0xB000, 0xC000)
_GENERAL_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})


def is_stored(status: int) -> bool:
    """Whether a peer that answers ``status`` has kept the instance."""
    return status == StoreStatus.SUCCESS or status in _WARNINGS or status in _GENERAL_WARNINGS

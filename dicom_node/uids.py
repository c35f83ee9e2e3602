"""What counts as a UID that may be stored, compared and used as a key."""

from __future__ import annotations

import re

_UID = re.compile(r"\d+(?:\.\d+)*", re.ASCII)
# PS3.5 9.1: at most 64 characters.
_MAX_CHARACTERS = 64


def is_valid_uid(value: str) -> bool:
    """Whether ``value`` has the shape of a UID (PS3.5 9.1).

    Components with leading zeros are let through although PS3.5 forbids them: real scanners send
    them, and refusing an image over a zero helps nobody. Nothing else can pass, so a valid UID
    has no separator, dot-dot or control character in it.
    """
    return len(value) <= _MAX_CHARACTERS and _UID.fullmatch(value) is not None

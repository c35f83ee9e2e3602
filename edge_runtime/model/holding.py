"""What the device holds, what keeps it here, and how old it certainly is.

The age of a study is counted on a clock of its own, which goes on only by time that has certainly
passed: a wall clock that is set, forward by years or back, makes no study older or younger.

* While the machine runs, the monotonic clock says how much time passed.
* Across a restart the wall clocks of before and after are believed if both were synchronised and
  they are no more than ``MAX_OFF_US`` apart; otherwise only the time since the restart counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edge_runtime.model.clock import Instant

_DAY_US = 86_400_000_000
MAX_OFF_US = 31 * _DAY_US
"""A device that was off for longer is rarer than a clock that is wrong by years."""
SYNC_PATIENCE_US = 900_000_000
"""After a restart the time service gets this long to synchronise the clock."""


class HoldCause(str, Enum):
    """Why a study stays, or why no room can be made."""

    RECEIVING = "receiving"
    UNDECIDED = "undecided"
    UNDELIVERED = "undelivered"
    GIVEN_UP = "given_up"
    """A delivery is dead: an operator can still send it again."""
    PROMISED = "promised"
    """A peer was told by storage commitment that we hold it."""
    TOO_YOUNG = "too_young"
    OTHER_FILES = "other_files"
    """We hold no study: something else fills the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One study as retention sees it."""

    study_id: int
    revision: int
    since_us: int | None
    """When it was met complete and decided, on the clock of ages; None: it is not yet so."""
    causes: tuple[HoldCause, ...]
    """What keeps it here, whatever its age."""


def passed_us(before: Instant, now: Instant) -> int | None:
    """Return the microseconds that have certainly passed; None: ask again in a while."""
    if before.boot_id == now.boot_id:
        return max(0, now.mono_us - before.mono_us)
    if not now.clock_synced and now.mono_us < SYNC_PATIENCE_US:
        return None
    gap_us = now.wall_us - before.wall_us
    if before.clock_synced and now.clock_synced and now.mono_us < gap_us <= MAX_OFF_US:
        return gap_us
    return now.mono_us

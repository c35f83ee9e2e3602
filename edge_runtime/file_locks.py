"""Locks on files that the kernel frees at any death of their holder (flock(2))."""

from __future__ import annotations

import fcntl
from enum import Enum


class LockKind(Enum):
    """Who else may hold a lock at the same time."""

    SHARED = fcntl.LOCK_SH
    """All that ask for no more than this one."""
    EXCLUSIVE = fcntl.LOCK_EX
    """Nobody."""


def takes_lock(handle: int, kind: LockKind) -> bool:
    """Take the lock of an open file, or change the one that ``handle`` has; never waits.

    Returns:
        False where another open file has one that does not go with it. A lock that ``handle`` had
        may be lost then: flock(2) gives it up before it asks for the other kind.
    """
    try:
        fcntl.flock(handle, kind.value | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def give_back_lock(handle: int) -> None:
    """Give back what ``handle`` has; closing every copy of it does the same."""
    fcntl.flock(handle, fcntl.LOCK_UN)

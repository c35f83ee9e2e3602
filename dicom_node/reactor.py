"""Where pynetdicom's association thread waits: until there is something to do, or for a while.

Stock pynetdicom looks a thousand times a second. Its loop passes a checkpoint each time; this is
one that holds the thread while nothing has happened, so that an idle association costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

# Timers are looked at so often; everything else wakes a thread.
_LONGEST_IDLE_S = 5.0
_LOOKS_IN_A_TIMEOUT = 4


def idle_wait_s(idle_timeout_s: float | None) -> float:
    """How long an idle association's threads may sleep and still see a timeout pass in time."""
    if idle_timeout_s is None:
        return _LONGEST_IDLE_S
    return min(_LONGEST_IDLE_S, idle_timeout_s / _LOOKS_IN_A_TIMEOUT)


class Activity:
    """Takes the place of the ``threading.Event`` that pynetdicom calls its reactor checkpoint."""

    def __init__(self, has_work: Callable[[], bool], *, idle_s: float) -> None:
        """``has_work`` says whether a message waits that the thread has not taken."""
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._has_work = has_work
        self._is_open = True
        self._is_notified = False

    def notify(self) -> None:
        """Something happened; from any thread."""
        with self._changed:
            self._is_notified = True
            self._changed.notify_all()

    def set(self) -> None:
        """Let the thread go on after ``clear``."""
        with self._changed:
            self._is_open = True
            self._is_notified = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Hold the thread when it comes by: another one uses its association."""
        with self._changed:
            self._is_open = False

    def wait(self) -> None:
        """Stand here until there is something to do; called by pynetdicom's thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_notified or self._has_work(), self._idle_s)
            self._is_notified = False
            self._changed.wait_for(lambda: self._is_open)

"""Forgets old requests and steps: identifiers are kept no longer than they are of use."""

from __future__ import annotations

import sqlite3

from edge_runtime.clock import Clock
from edge_runtime.store.commitments import forget_commitments
from edge_runtime.store.procedure_steps import forget_old_steps

_INTERVAL_US = 600_000_000
_REQUESTS_KEPT_US = 7 * 86_400_000_000
"""After a week nobody waits for a report that could not be sent."""


class Forgetting:
    """Looks every ten minutes; belongs to one thread."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, *, steps_kept_us: int) -> None:
        """``steps_kept_us``: for steps whose study is not here."""
        self._connection = connection
        self._clock = clock
        self._steps_kept_us = steps_kept_us
        self._due_mono_us = 0

    def tick(self) -> None:
        """Forget what is old, if it is time to look."""
        at = self._clock.now()
        if at.mono_us < self._due_mono_us:
            return
        self._due_mono_us = at.mono_us + _INTERVAL_US
        forget_commitments(self._connection, before_wall_us=at.wall_us - _REQUESTS_KEPT_US, at=at)
        forget_old_steps(self._connection, before_wall_us=at.wall_us - self._steps_kept_us, at=at)

"""Waiting for a condition with a deadline, where nothing offers an event to wait on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LOOK_S = 0.01


def wait_until(condition: Callable[[], object], deadline_s: float = 30.0) -> None:
    """Return once ``condition`` holds; fail when it does not within ``deadline_s``."""
    ends_s = time.monotonic() + deadline_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < ends_s, f"not within {deadline_s} s: {condition}"
        pause.wait(_LOOK_S)

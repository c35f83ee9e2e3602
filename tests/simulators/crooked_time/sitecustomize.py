"""Moves the wall clock of every Python process that is started with this folder on PYTHONPATH.

``CROOKED_TIME`` names a file with the seconds to add; it may change at any time, as a clock does
that a person or a time server sets. Monotonic clocks go on. (faketime would do the same to any
program, but its preloaded library breaks the sleeps of Python 3.11.)
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_NS = 1_000_000_000
_offset = Path(os.environ["CROOKED_TIME"])
_true_time_ns = time.time_ns


def _time_ns() -> int:
    return _true_time_ns() + int(_offset.read_text("ascii") or 0) * _NS


def _time() -> float:
    return _time_ns() / _NS


time.time_ns = _time_ns
time.time = _time

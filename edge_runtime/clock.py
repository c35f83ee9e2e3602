"""Reads the machine's clocks and whether the wall clock is disciplined."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Protocol

from edge_runtime.model.clock import Instant

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 256  # struct timex has 208 bytes on 64-bit Linux; the kernel never writes more


class Clock(Protocol):
    """Where the shell takes the time from; tests drive their own."""

    def now(self) -> Instant:
        """Read both clocks."""
        ...


class SystemClock:
    """The machine's clocks; asks for the synchronisation state at most once a second."""

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        self._synced = False
        self._synced_until_us = 0

    def now(self) -> Instant:
        """Read both clocks."""
        mono_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        if mono_us >= self._synced_until_us:
            self._synced = is_clock_synced()
            self._synced_until_us = mono_us + 1_000_000
        return Instant(
            wall_us=time.time_ns() // 1000,
            mono_us=mono_us,
            boot_id=self._boot_id,
            clock_synced=self._synced,
        )


def is_clock_synced() -> bool:
    """Ask the kernel whether an NTP or PTP daemon keeps the wall clock (adjtimex(2))."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    return bool(0 <= state < _TIME_ERROR)

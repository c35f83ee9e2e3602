from __future__ import annotations

import ctypes
import time
from pathlib import Path

from edge_runtime.clock import SystemClock, is_clock_synced


def test_the_monotonic_clock_never_runs_back() -> None:
    clock = SystemClock()
    readings = [clock.now().mono_us for _ in range(2_000)]
    assert readings == sorted(readings)


def test_the_monotonic_clock_counts_time_in_suspend_and_is_shared_by_all_processes() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    now = SystemClock().now().mono_us
    assert before <= now <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def test_the_wall_clock_counts_from_the_epoch() -> None:
    before = time.time_ns() // 1000
    assert before <= SystemClock().now().wall_us <= time.time_ns() // 1000


def test_an_instant_names_the_boot_that_its_monotonic_time_belongs_to() -> None:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    assert SystemClock().now().boot_id == boot_id


def test_synchronised_is_what_adjtimex_says() -> None:
    buffer = ctypes.create_string_buffer(512)
    answer = ctypes.CDLL(None).adjtimex(buffer)
    assert is_clock_synced() is (answer in range(5))
    assert SystemClock().now().clock_synced is is_clock_synced()

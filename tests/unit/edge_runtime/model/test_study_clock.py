from __future__ import annotations

from simulators.hand_clock import HandClock

from edge_runtime.model.clock import interval_us


def test_an_interval_within_a_boot_is_monotonic_even_when_the_wall_clock_is_set_back() -> None:
    clock = HandClock()
    start = clock.now()
    clock.advance(3.5)
    clock.set_back(3_600)
    assert interval_us(start, clock.now()) == 3_500_000


def test_an_interval_over_a_reboot_is_taken_from_the_wall_clock() -> None:
    clock = HandClock()
    start = clock.now()
    clock.reboot()
    assert interval_us(start, clock.now()) == 60_000_000

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_runtime.model.clock import Instant
from edge_runtime.model.holding import MAX_OFF_US, SYNC_PATIENCE_US, passed_us

DAY_US = 86_400_000_000
YEAR_US = 365 * DAY_US
BEFORE = Instant(wall_us=50 * YEAR_US, mono_us=9 * DAY_US, boot_id="b1", clock_synced=True)
HOUR_US = 3_600_000_000


def rebooted(*, off_us: int, up_us: int, synced: bool = True) -> Instant:
    return Instant(
        wall_us=BEFORE.wall_us + off_us + up_us, mono_us=up_us, boot_id="b2", clock_synced=synced
    )


@pytest.mark.parametrize("wall_jump_us", [0, 5 * YEAR_US, -5 * YEAR_US])
@pytest.mark.parametrize("synced", [True, False])
def test_while_the_machine_runs_the_wall_clock_means_nothing(
    wall_jump_us: int, synced: bool
) -> None:
    now = Instant(
        wall_us=BEFORE.wall_us + HOUR_US + wall_jump_us,
        mono_us=BEFORE.mono_us + HOUR_US,
        boot_id="b1",
        clock_synced=synced,
    )
    assert passed_us(BEFORE, now) == HOUR_US


def test_across_a_restart_two_synchronised_clocks_are_believed() -> None:
    assert passed_us(BEFORE, rebooted(off_us=3 * DAY_US, up_us=HOUR_US)) == 3 * DAY_US + HOUR_US


@pytest.mark.parametrize("off_us", [-YEAR_US, -HOUR_US, MAX_OFF_US, 5 * YEAR_US])
def test_across_a_restart_an_unlikely_gap_counts_only_the_time_since(off_us: int) -> None:
    assert passed_us(BEFORE, rebooted(off_us=off_us, up_us=HOUR_US)) == HOUR_US


def test_across_a_restart_a_clock_that_was_not_synchronised_is_not_believed() -> None:
    now = rebooted(off_us=3 * DAY_US, up_us=HOUR_US)
    assert passed_us(replace(BEFORE, clock_synced=False), now) == HOUR_US
    assert passed_us(BEFORE, replace(now, clock_synced=False)) == HOUR_US


def test_right_after_a_restart_the_time_service_is_waited_for() -> None:
    early = rebooted(off_us=DAY_US, up_us=SYNC_PATIENCE_US - 1, synced=False)
    assert passed_us(BEFORE, early) is None
    late = rebooted(off_us=DAY_US, up_us=SYNC_PATIENCE_US, synced=False)
    assert passed_us(BEFORE, late) == SYNC_PATIENCE_US


def test_a_monotonic_clock_that_runs_back_takes_nothing_away() -> None:
    assert passed_us(BEFORE, replace(BEFORE, mono_us=0)) == 0

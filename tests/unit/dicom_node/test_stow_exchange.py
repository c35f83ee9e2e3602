from __future__ import annotations

from dicom_node.stow_exchange import RateFloor


def test_a_sender_that_drips_is_found_after_the_window() -> None:
    floor = RateFloor(1_000, 20.0)
    assert all(floor.holds(1.0, 1) for _ in range(19))
    assert not floor.holds(1.0, 1)


def test_a_short_pause_of_a_quick_sender_does_no_harm() -> None:
    floor = RateFloor(1_000, 20.0)
    for _ in range(20):
        assert floor.holds(0.1, 100_000)
        assert floor.holds(15.0, 1)


def test_each_window_counts_for_itself() -> None:
    """A gigabyte at the start buys no right to drip for hours."""
    floor = RateFloor(1_000, 20.0)
    assert floor.holds(20.0, 1 << 30)
    assert not floor.holds(20.0, 1)


def test_the_time_that_our_disk_takes_is_not_the_senders() -> None:
    """Only waiting counts: reads that return at once prove nothing about the sender."""
    floor = RateFloor(1_000, 20.0)
    assert all(floor.holds(0.0, 1) for _ in range(10_000))

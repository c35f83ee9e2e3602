"""A model with its preprocessing in front."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from engines.runner import ItemRun, batches_of


@dataclass(frozen=True, slots=True)
class Named:
    """A picture of a series."""

    series: int
    nbytes: int = 0


def run_of(series: int, places: range) -> ItemRun[Named]:
    return ItemRun(pictures={0: Named(series)}, items=(), places=places)


def items_in(batch: list[ItemRun[Named]]) -> list[tuple[int, int]]:
    return [(run.pictures[0].series, place) for run in batch for place in run.places]


RANGES = st.builds(range, st.integers(0, 5), st.integers(6, 40))


@given(ranges=st.lists(RANGES, max_size=5), size=st.integers(1, 33))
def test_batches_hold_every_item_once_in_order_and_all_but_the_last_are_full(
    ranges: list[range], size: int
) -> None:
    runs = [run_of(series, places) for series, places in enumerate(ranges)]
    batches = [items_in(batch) for batch in batches_of(runs, size)]
    assert [item for batch in batches for item in batch] == items_in(runs)
    assert all(len(batch) == size for batch in batches[:-1])
    assert not batches or 1 <= len(batches[-1]) <= size


def test_no_runs_are_no_batches() -> None:
    assert list(batches_of([], 4)) == []
    assert list(batches_of([run_of(0, range(3, 3))], 4)) == []

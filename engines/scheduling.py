"""Which waiting items a model runs next: the urgent ones first, as many as a batch holds.

* Only items that wait are chosen, each once, and never more than a batch holds.
* An item that would be late if it waited for one more batch comes before all that would not.
  So nothing starves: who waits long enough is next, whatever arrives meanwhile.
* Among the others the more urgent comes first, then who is due first.
* What is there runs at once. A model that has nothing else to do gains nothing by waiting for a
  fuller batch, and would only leave more to do when a study ends; while it is busy, batches fill by
  themselves.

Where the device cannot keep up everything is late, and the order is by due time alone: no order has
a smaller greatest lateness. Urgency then still counts, by the bound that it was given.

Pure: the time is an argument, in microseconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

_WEIGHT = 0.2
"""Of the latest batch, in what is expected of the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingItem:
    """One row of a batch that has not been run: a slab, a slice or a radiograph of some study."""

    key: Hashable
    """By which the caller knows it; no two items have the same."""
    urgency: int
    """The larger, the more urgent."""
    since_us: int
    """When it began to wait."""
    due_us: int
    """When its outputs shall be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRule:
    """How batches are formed for one model."""

    most_items: int
    """Of one batch."""
    full_us: int = 0
    """How long a full one takes."""

    def __post_init__(self) -> None:
        if self.most_items < 1:
            raise ValueError("a batch holds at least 1 item")


@dataclass(frozen=True, slots=True)
class ItemTime:
    """How long a model takes for an item, as measured while it runs."""

    us: float = 0.0
    """0 before the first batch."""

    def after(self, items: int, took_us: int) -> ItemTime:
        """Return what is expected once a batch of so many items took so long."""
        each = took_us / items
        return ItemTime(each if self.us == 0.0 else self.us + _WEIGHT * (each - self.us))

    def of(self, items: int) -> int:
        """Return how long so many items will take, rather too long: a batch costs something too."""
        return round(self.us * items)


def next_batch(
    waiting: Sequence[WaitingItem], rule: BatchRule, now_us: int
) -> tuple[WaitingItem, ...]:
    """Say what to run now, in which order.

    Args:
        waiting: In any order; of one model.
        rule: The model's.
        now_us: The time.
    """
    return tuple(in_order(waiting, rule, now_us)[: rule.most_items])


def in_order(waiting: Sequence[WaitingItem], rule: BatchRule, now_us: int) -> list[WaitingItem]:
    """Return all items in the order in which they are run."""
    after_next_us = now_us + 2 * rule.full_us

    def place(item: WaitingItem) -> tuple[int, int, int, int]:
        if item.due_us < after_next_us:
            return (0, item.due_us, -item.urgency, item.since_us)
        return (1, -item.urgency, item.due_us, item.since_us)

    return sorted(waiting, key=place)

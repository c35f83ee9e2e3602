"""Which waiting items a model runs next: full batches where there is time, urgent ones first.

* Only items that wait are chosen, each once, and never more than a batch holds.
* An item that would be late if it waited for one more batch comes before all that would not.
  So nothing starves: who waits long enough is next, whatever arrives meanwhile.
* Among the others the more urgent comes first, then who is due first.
* A batch that is not full waits for more only as long as it makes nobody late.

Where the device cannot keep up everything is late, and the order is by due time alone: no order has
a smaller greatest lateness. Urgency then still counts, by the bound that it was given.

Pure: the time is an argument, in microseconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias


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
class BatchCost:
    """How long a batch takes, as measured while the engine warmed up."""

    fixed_us: int
    item_us: int

    def of(self, count: int) -> int:
        """Return the time for a batch of ``count`` items."""
        return self.fixed_us + self.item_us * count


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRule:
    """How batches are formed for one model.

    Attributes:
        most_items: Of one batch; that is then full.
        cost: Of a batch.
        linger_us: How long a batch that is not full may wait for more. It is 0 where no study
            arrives: nothing could fill it.
    """

    most_items: int
    cost: BatchCost
    linger_us: int = 0

    def __post_init__(self) -> None:
        if self.most_items < 1 or self.linger_us < 0:
            raise ValueError("a batch holds at least 1 item, and waits 0 us or longer")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNow:
    """Run these, in this order."""

    items: tuple[WaitingItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitUntil:
    """Ask again when an item has come, or at this time."""

    at_us: int | None
    """None: nothing waits."""


Decision: TypeAlias = RunNow | WaitUntil


def next_batch(waiting: Sequence[WaitingItem], rule: BatchRule, now_us: int) -> Decision:
    """Say what to run now, or how long to wait for more.

    Args:
        waiting: In any order; of one model.
        rule: The model's.
        now_us: The time.
    """
    if not waiting:
        return WaitUntil(at_us=None)
    chosen = in_order(waiting, rule, now_us)[: rule.most_items]
    if len(chosen) == rule.most_items:
        return RunNow(items=tuple(chosen))
    # Fewer than fill a batch: `chosen` is all that waits.
    latest_us = min(
        min(item.since_us for item in chosen) + rule.linger_us,
        min(item.due_us for item in chosen) - rule.cost.of(rule.most_items),
    )
    if now_us >= latest_us:
        return RunNow(items=tuple(chosen))
    return WaitUntil(at_us=latest_us)


def in_order(waiting: Sequence[WaitingItem], rule: BatchRule, now_us: int) -> list[WaitingItem]:
    """Return all items in the order in which they are run."""
    after_next_us = now_us + 2 * rule.cost.of(rule.most_items)

    def place(item: WaitingItem) -> tuple[int, int, int, int]:
        if item.due_us < after_next_us:
            return (0, item.due_us, -item.urgency, item.since_us)
        return (1, -item.urgency, item.due_us, item.since_us)

    return sorted(waiting, key=place)

"""One way to look up a transition, shared by all tables of states."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from edge_runtime.errors import IllegalTransitionError

StateT = TypeVar("StateT", bound=Enum)
EventT = TypeVar("EventT", bound=Enum)


def next_state(
    table: Mapping[tuple[StateT, EventT], StateT], state: StateT, event: EventT
) -> StateT:
    """Return the state that ``event`` leads to.

    Raises:
        IllegalTransitionError: the table has no such pair; this is a bug of ours.
    """
    try:
        return table[state, event]
    except KeyError:
        raise IllegalTransitionError(f"{event.name} is not possible in {state.name}") from None

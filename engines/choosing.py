"""Which engine runs a model: the first of an order of preference that can.

Pure. What cannot run is passed over only where the site allows it, and the choice names every
engine that was passed over and why, so that no other engine ever runs silently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from engines.contract import Backend
from engines.errors import (
    DeviceUnavailableError,
    EngineError,
    EngineMemoryError,
    EngineUnavailableError,
    NoEngineError,
    ParityError,
)

OpenedT = TypeVar("OpenedT")


class Obstacle(str, Enum):
    """Why an engine did not run a model."""

    NOT_AVAILABLE = "not_available"
    """No library, no driver, no GPU."""
    OUT_OF_MEMORY = "out_of_memory"
    NOT_REPRODUCED = "not_reproduced"
    """It does not give the reference's findings."""
    FAILED = "failed"
    """It does not build or load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """What a site wants.

    Attributes:
        order: The best engine first; at least one, each once.
        may_fall_back: Whether a later engine may run where an earlier one cannot.
    """

    order: tuple[Backend, ...]
    may_fall_back: bool = False

    def __post_init__(self) -> None:
        if not self.order or len(set(self.order)) < len(self.order):
            raise ValueError("an order of preference names at least one engine, and each once")

    @property
    def allowed(self) -> tuple[Backend, ...]:
        """The engines that may run."""
        return self.order if self.may_fall_back else self.order[:1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """An engine that was wanted more than the one that runs."""

    backend: Backend
    obstacle: Obstacle
    detail: str
    """What went wrong and what to do about it, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Generic[OpenedT]):
    """What runs, and what was passed over for it."""

    backend: Backend
    opened: OpenedT
    passed_over: tuple[PassedOver, ...]


def choose(preference: Preference, attempt: Callable[[Backend], OpenedT]) -> Choice[OpenedT]:
    """Tries the engines that may run, in order, until one does.

    Args:
        preference: The site's.
        attempt: Makes an engine ready. An ``EngineError`` passes it over; any other error is
            nothing that another engine would mend, and goes to the caller.

    Raises:
        EngineUnavailableError: None that may run is available on this machine.
        NoEngineError: Several may run, and none does.
        EngineError: The only one that may run does not; of the same kind as its own.
    """
    passed_over: list[PassedOver] = []
    for backend in preference.allowed:
        try:
            opened = attempt(backend)
        except EngineError as error:
            if len(preference.order) == 1:
                raise
            passed_over.append(
                PassedOver(backend=backend, obstacle=obstacle_of(error), detail=str(error))
            )
            last = error
            continue
        return Choice(backend=backend, opened=opened, passed_over=tuple(passed_over))
    raise _none_runs(preference, passed_over, last) from last


def obstacle_of(error: EngineError) -> Obstacle:
    """Says of which kind the reason is."""
    if isinstance(error, EngineMemoryError):
        return Obstacle.OUT_OF_MEMORY
    if isinstance(error, EngineUnavailableError | DeviceUnavailableError):
        return Obstacle.NOT_AVAILABLE
    if isinstance(error, ParityError):
        return Obstacle.NOT_REPRODUCED
    return Obstacle.FAILED


def _none_runs(
    preference: Preference, passed_over: list[PassedOver], last: EngineError
) -> EngineError:
    reasons = "; ".join(f"{each.backend.value}: {each.detail}" for each in passed_over)
    text = f"none of the engines that may run does: {reasons}"
    if not preference.may_fall_back:
        others = ", ".join(backend.value for backend in preference.order[1:])
        return type(last)(
            f"{reasons}; {others} may not run in its place: engine.fallback = true would allow it"
        )
    if all(each.obstacle is Obstacle.NOT_AVAILABLE for each in passed_over):
        return EngineUnavailableError(text)
    return NoEngineError(text)

"""Decides, from the table and from what is seen, what to do with each process. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edge_runtime.supervisor.services import Service


class Action(str, Enum):
    """What the supervisor shall do with one process now."""

    NOTHING = "nothing"
    START = "start"
    TERMINATE = "terminate"
    KILL = "kill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is known of one process. Times are seconds on one monotonic clock."""

    alive: bool = False
    started_s: float | None = None
    ready: bool = False
    last_sign_s: float | None = None
    """Last READY=1 or WATCHDOG=1."""
    terminated_s: float | None = None
    """When SIGTERM was sent to the living process."""
    killed: bool = False
    """SIGKILL was sent to the living process; it ends when the kernel lets it."""
    failures: int = 0
    """Ends in a row that nobody asked for."""
    ended_s: float | None = None


def decide(
    service: Service, seen: Observed, *, now_s: float, stopping: bool, stop_grace_s: float
) -> Action:
    """Return the action that makes reality match the table."""
    if not seen.alive:
        due = not stopping and now_s >= next_start_s(service, seen)
        return Action.START if due else Action.NOTHING
    if seen.killed:
        return Action.NOTHING
    if seen.terminated_s is not None:
        overdue = now_s - seen.terminated_s > stop_grace_s
        return Action.KILL if overdue else Action.NOTHING
    if stopping:
        return Action.TERMINATE
    return Action.KILL if is_hung(service, seen, now_s) else Action.NOTHING


def next_start_s(service: Service, seen: Observed) -> float:
    """Return when a process that is not alive may start: at once, or after its back-off."""
    if seen.ended_s is None or seen.failures == 0:
        return 0.0
    delay = service.first_restart_delay_s * 2.0 ** min(seen.failures - 1, 30)
    return seen.ended_s + min(delay, service.max_restart_delay_s)


def is_hung(service: Service, seen: Observed, now_s: float) -> bool:
    """Say whether a living process has been silent for too long."""
    if seen.started_s is None:
        return False
    if not seen.ready:
        return now_s - seen.started_s > service.start_limit_s
    return seen.last_sign_s is not None and now_s - seen.last_sign_s > service.watchdog_s


def count_failure(service: Service, seen: Observed, now_s: float) -> int:
    """Return the failures in a row after an end at ``now_s`` that nobody asked for."""
    lived_s = now_s - (seen.started_s if seen.started_s is not None else now_s)
    return 1 if lived_s >= service.healthy_after_s else seen.failures + 1

"""When a delivery is tried again: exponential back-off with jitter, as a pure rule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """How patient a channel is."""

    first_delay_s: float
    """Longest delay after the first failure; doubles with each further one."""
    max_delay_s: float
    max_attempts: int

    def __post_init__(self) -> None:
        if not 0 < self.first_delay_s <= self.max_delay_s:
            raise ValueError("first_delay_s must be above 0 and at most max_delay_s")
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecision:
    """Try again after ``delay_s`` seconds."""

    delay_s: float


def decide_retry(
    *, permanent: bool, attempts: int, rule: RetryRule, jitter: float
) -> RetryDecision | None:
    """Say when to try again after ``attempts`` failures; None gives up (dead letter).

    ``jitter`` in [0, 1) spreads the delay over the upper half of its span, so that a fleet does
    not come back to a peer at once, and nothing comes back at once to a peer that just failed.

    Raises:
        ValueError: ``attempts`` is below 1 or ``jitter`` outside [0, 1): a bug of the caller.
    """
    if attempts < 1 or not 0 <= jitter < 1:
        raise ValueError("attempts counts from 1 and jitter lies in [0, 1)")
    if permanent or attempts >= rule.max_attempts:
        return None
    span_s = rule.first_delay_s
    for _ in range(attempts - 1):
        span_s = min(span_s * 2, rule.max_delay_s)
        if span_s == rule.max_delay_s:
            break
    return RetryDecision(delay_s=span_s * (1 + jitter) / 2)

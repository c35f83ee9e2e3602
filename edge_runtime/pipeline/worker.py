"""The worker's loop: run the stages while there is work, else wait for a commit of another."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

from edge_runtime.pipeline.flow import run_stages
from edge_runtime.pipeline.stages import Pipeline, next_due_us
from edge_runtime.store.worklist import data_version

_POLL_S = 0.01
"""How often a waiting worker looks for a commit; one look costs microseconds."""
_RULES_S = 0.05
"""How often it looks at leases when nothing was committed: they run out without a commit."""

_SHORTEST_S = 0.001
"""A pause even when a rule is due that another process's commit has to let through first."""


def run_pipeline(pipeline: Pipeline, stop: threading.Event, on_tick: Callable[[], None]) -> None:
    """Work until ``stop``; an analysis in hand is finished, or handed back if it would take long.

    ``on_tick`` is called between units of work and between the slices of one, so that a hung unit
    is noticed and a long one is not taken for hung.
    """

    def keep_going() -> bool:
        on_tick()
        return not stop.is_set()

    pipeline = dataclasses.replace(pipeline, keep_going=keep_going)
    seen = data_version(pipeline.connection)
    while not stop.is_set():
        on_tick()
        # Also what was committed during the last unit of work, such as an association's end.
        version = data_version(pipeline.connection)
        if version != seen:
            seen = version
            pipeline.arrivals.reconsider()
        if not run_stages(pipeline):
            _wait_for_commit(pipeline, stop, seen)


def _wait_for_commit(pipeline: Pipeline, stop: threading.Event, seen: int) -> None:
    """Wait until another process commits, a completion rule may fire, or a lease may have ended."""
    due_us = next_due_us(pipeline)
    left_s = _RULES_S
    if due_us is not None:
        left_s = min((due_us - pipeline.clock.now().mono_us) / 1e6, _RULES_S)
    left_s = max(left_s, _SHORTEST_S)
    while left_s > 0 and not stop.is_set():
        if data_version(pipeline.connection) != seen:
            return
        stop.wait(min(left_s, _POLL_S))
        left_s -= _POLL_S

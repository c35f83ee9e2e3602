"""Delivers outbox rows: one thread for each channel, so that a dead peer holds up no other.

Invariants: a row leaves PENDING only after the sink returned a receipt; a crash in between delivers
the same bytes with the same UIDs again, and the peer keeps one.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from edge_runtime.clock import Clock
from edge_runtime.errors import DeliveryError, LeaseLostError
from edge_runtime.model.delivery import DeliveryEvent
from edge_runtime.outputs.contract import Receipt, Sink
from edge_runtime.outputs.retry import RetryRule, decide_retry
from edge_runtime.store.database import connect
from edge_runtime.store.deliveries import (
    DeliveryJob,
    bury_delivery,
    claim_delivery,
    record_delivery,
    retry_delivery,
)

_log = structlog.get_logger()

_POLL_S = 0.02
"""How long a committed delivery waits at most; looking costs about 20 microseconds."""
_REST_POLLS = 500
"""After ten idle seconds a sink lets its association go; reports come in bursts."""
_UNEXPECTED = "SINK_FAILED"

_RECEIPTS = {
    Receipt.SENT: (DeliveryEvent.ACCEPTED,),
    Receipt.CONFIRMED: (DeliveryEvent.ACCEPTED, DeliveryEvent.VOUCHED),
}


class ChannelCourier:
    """Serves one channel until told to stop."""

    def __init__(
        self,
        sink: Sink,
        *,
        database: Path,
        clock: Clock,
        rule: RetryRule,
        lease_us: int,
        owner: str,
    ) -> None:
        """``owner`` names this courier in leases."""
        self._sink = sink
        self._database = database
        self._clock = clock
        self._rule = rule
        self._lease_us = lease_us
        self._owner = owner

    def run(self, stop: threading.Event) -> None:
        """Deliver what is due, then wait for more; finishes the delivery in hand on ``stop``."""
        self._connection = connect(self._database)
        idle_polls = 0
        try:
            while not stop.is_set():
                idle_polls = 0 if self.deliver_one() else idle_polls + 1
                if idle_polls == _REST_POLLS:
                    self._sink.rest()
                if idle_polls:
                    stop.wait(_POLL_S)
        finally:
            self._connection.close()

    def deliver_one(self) -> bool:
        """Deliver one due job; False when there was none."""
        job = claim_delivery(
            self._connection,
            self._sink.channel,
            owner=self._owner,
            at=self._clock.now(),
            lease_us=self._lease_us,
        )
        if job is None:
            return False
        try:
            self._settle(job, self._deliver(job))
        except LeaseLostError:
            _log.warning("delivery.lease_lost", study_key=job.study_key, channel=job.channel.value)
        return True

    def _deliver(self, job: DeliveryJob) -> Receipt | DeliveryError:
        try:
            return self._sink.deliver(job)
        except DeliveryError as error:
            return error
        except Exception:  # noqa: BLE001 - the boundary: one bad study must not stop a channel
            _log.exception("delivery.failed", study_key=job.study_key, channel=job.channel.value)
            return DeliveryError("the sink failed", code=_UNEXPECTED)

    def _settle(self, job: DeliveryJob, answer: Receipt | DeliveryError) -> None:
        at = self._clock.now()
        if isinstance(answer, Receipt):
            record_delivery(
                self._connection, job.delivery_id, _RECEIPTS[answer], owner=self._owner, at=at
            )
            self._report("delivery.done", job, answer.value)
            return
        decision = decide_retry(
            permanent=answer.permanent,
            attempts=job.attempts,
            rule=self._rule,
            jitter=random.random(),  # noqa: S311 - spreads load, guards nothing
        )
        if decision is None:
            bury_delivery(
                self._connection,
                job.delivery_id,
                owner=self._owner,
                error_code=answer.code,
                at=at,
            )
            self._report("delivery.dead", job, answer.code)
            return
        retry_delivery(
            self._connection,
            job.delivery_id,
            owner=self._owner,
            error_code=answer.code,
            due=dataclasses.replace(at, mono_us=at.mono_us + int(decision.delay_s * 1_000_000)),
        )
        self._report("delivery.postponed", job, answer.code)

    def _report(self, event: str, job: DeliveryJob, code: str) -> None:
        _log.info(
            event,
            study_key=job.study_key,
            channel=job.channel.value,
            revision=job.revision,
            attempts=job.attempts,
            code=code,
        )


class Courier(Protocol):
    """What runs in a thread of its own."""

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop``."""
        ...


def run_channels(
    couriers: Mapping[str, Courier], stop: threading.Event, on_tick: Callable[[], None]
) -> None:
    """Run every courier in a thread of its own until ``stop``; a thread that dies ends them all.

    ``on_tick`` is called from this thread, several times a second while all is well.
    """
    threads = [
        threading.Thread(target=courier.run, args=(stop,), name=f"courier-{name}")
        for name, courier in couriers.items()
    ]
    for thread in threads:
        thread.start()
    try:
        while not stop.wait(0.1) and all(thread.is_alive() for thread in threads):
            on_tick()
    finally:
        stop.set()
        for thread in threads:
            thread.join()

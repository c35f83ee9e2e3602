"""Does what the courier owes peers beside the deliveries: one thread for each kind.

Invariants: an errand leaves PENDING only after the peer answered; a crash in between sends the same
again, which both services allow. A peer that does not answer holds up its own errands only.
"""

from __future__ import annotations

import dataclasses
import random
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from edge_runtime.clock import Clock
from edge_runtime.errors import DeliveryError, LeaseLostError
from edge_runtime.model.clock import Instant
from edge_runtime.model.errand import ErrandKind
from edge_runtime.outputs.retry import RetryRule, decide_retry
from edge_runtime.outputs.transport import DeliveryCode
from edge_runtime.store.database import connect
from edge_runtime.store.errands import (
    ErrandJob,
    bury_errand,
    claim_errand,
    finish_errand,
    hold_errand,
    postpone_peer,
    retry_errand,
)

_log = structlog.get_logger()

_POLL_S = 0.1
"""Nobody waits for these as a radiologist does for a report."""
_UNEXPECTED = "ERRAND_FAILED"
# Finding that out again for each errand of the peer would take the time of the others'.
_UNANSWERED = frozenset({DeliveryCode.PEER_UNREACHABLE.value, DeliveryCode.TLS_FAILED.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYet:
    """The time of an errand has not come; look again after ``delay_s`` seconds."""

    delay_s: float


class Performer(Protocol):
    """Does the errands of one kind; doing one twice must be harmless."""

    @property
    def kind(self) -> ErrandKind:
        """Name the kind of errands that this one does."""
        ...

    def perform(self, connection: sqlite3.Connection, job: ErrandJob, at: Instant) -> NotYet | None:
        """Do one errand; None when the peer has it.

        Raises:
            DeliveryError: the peer does not have it; ``permanent`` says that trying again without
                a change on either side is useless.
        """
        ...


class ErrandCourier:
    """Serves one kind of errands until told to stop."""

    def __init__(
        self,
        performer: Performer,
        *,
        database: Path,
        clock: Clock,
        rule: RetryRule,
        lease_us: int,
        owner: str,
    ) -> None:
        """``owner`` names this courier in leases."""
        self._performer = performer
        self._database = database
        self._clock = clock
        self._rule = rule
        self._lease_us = lease_us
        self._owner = owner

    def run(self, stop: threading.Event) -> None:
        """Do what is due, then wait for more; finishes the errand in hand on ``stop``."""
        connection = connect(self._database)
        try:
            while not stop.is_set():
                if not self.perform_one(connection):
                    stop.wait(_POLL_S)
        finally:
            connection.close()

    def perform_one(self, connection: sqlite3.Connection) -> bool:
        """Do one due errand; False when there was none."""
        job = claim_errand(
            connection,
            self._performer.kind,
            owner=self._owner,
            at=self._clock.now(),
            lease_us=self._lease_us,
        )
        if job is None:
            return False
        try:
            self._settle(connection, job, self._perform(connection, job))
        except LeaseLostError:
            _log.warning("errand.lease_lost", kind=job.kind.value, errand=job.errand_id)
        return True

    def _perform(
        self, connection: sqlite3.Connection, job: ErrandJob
    ) -> NotYet | DeliveryError | None:
        try:
            return self._performer.perform(connection, job, self._clock.now())
        except DeliveryError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the boundary: one bad errand must not stop the others
            # The text of a foreign error may hold values, so only its type is logged.
            _log.error("errand.failed", kind=job.kind.value, error=type(error).__name__)
            return DeliveryError("the errand failed", code=_UNEXPECTED)

    def _settle(
        self,
        connection: sqlite3.Connection,
        job: ErrandJob,
        answer: NotYet | DeliveryError | None,
    ) -> None:
        at = self._clock.now()
        if answer is None:
            finish_errand(connection, job, owner=self._owner, at=at)
            self._report("errand.done", job, "")
        elif isinstance(answer, NotYet):
            hold_errand(connection, job, owner=self._owner, due=_later(at, answer.delay_s))
        else:
            self._settle_failure(connection, job, answer, at)

    def _settle_failure(
        self, connection: sqlite3.Connection, job: ErrandJob, error: DeliveryError, at: Instant
    ) -> None:
        decision = decide_retry(
            permanent=error.permanent,
            attempts=job.attempts,
            rule=self._rule,
            jitter=random.random(),  # noqa: S311 - spreads load, guards nothing
        )
        if decision is None:
            bury_errand(connection, job, owner=self._owner, error_code=error.code, at=at)
            self._report("errand.dead", job, error.code)
            return
        due = _later(at, decision.delay_s)
        retry_errand(connection, job, owner=self._owner, error_code=error.code, due=due)
        if error.code in _UNANSWERED:
            postpone_peer(connection, job, due)
        self._report("errand.postponed", job, error.code)

    def _report(self, event: str, job: ErrandJob, code: str) -> None:
        _log.info(
            event,
            kind=job.kind.value,
            errand=job.errand_id,
            attempts=job.attempts,
            code=code,
        )


def _later(at: Instant, delay_s: float) -> Instant:
    return dataclasses.replace(at, mono_us=at.mono_us + int(delay_s * 1_000_000))

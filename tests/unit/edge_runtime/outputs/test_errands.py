"""The courier of errands with a performer whose answers a test writes down."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock
from simulators.waiting import wait_until

from edge_runtime.errors import DeliveryError
from edge_runtime.model.clock import Instant
from edge_runtime.model.errand import ErrandKind
from edge_runtime.outputs.errands import ErrandCourier, NotYet
from edge_runtime.outputs.retry import RetryRule
from edge_runtime.store.database import connect
from edge_runtime.store.errands import ErrandJob, claim_errand, open_errand

LEASE_US = 10_000_000


class ScriptedPerformer:
    """Implements ``outputs.errands.Performer``."""

    kind = ErrandKind.COMMITMENT_REPORT

    def __init__(self, *answers: NotYet | DeliveryError | None) -> None:
        """The answers in order, the last one for ever; errors are raised."""
        self._answers = list(answers)
        self.jobs: list[ErrandJob] = []
        self.during: Callable[[], object] = lambda: None

    def perform(self, connection: sqlite3.Connection, job: ErrandJob, at: Instant) -> NotYet | None:
        del connection, at
        self.jobs.append(job)
        self.during()
        answer = self._answers[min(len(self.jobs), len(self._answers)) - 1]
        if isinstance(answer, DeliveryError):
            raise answer
        return answer


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "triage.db")) as opened:
        yield opened


def _courier(performer: ScriptedPerformer, folder: Path, clock: HandClock) -> ErrandCourier:
    return ErrandCourier(
        performer,
        database=folder / "triage.db",
        clock=clock,
        rule=RetryRule(first_delay_s=1, max_delay_s=4, max_attempts=3),
        lease_us=LEASE_US,
        owner="c1",
    )


def _owe(connection: sqlite3.Connection, clock: HandClock, peer: str = "A") -> int:
    row = connection.execute(
        "INSERT INTO commitment (ae_title, transaction_uid, address, wanted, booked_wall_us,"
        " patience_boot_id, patience_mono_us)"
        " VALUES (?, hex(randomblob(8)), '', x'00', 0, 'b', 0) RETURNING id",
        (peer,),
    ).fetchone()
    return open_errand(
        connection,
        ErrandKind.COMMITMENT_REPORT,
        peer=peer,
        at=clock.now(),
        commitment_id=row["id"],
    )


def _state(connection: sqlite3.Connection) -> tuple[object, ...]:
    return tuple(connection.execute("SELECT state, attempts, error_code FROM errand").fetchone())


def test_an_errand_that_must_wait_costs_no_attempt(
    connection: sqlite3.Connection, clock: HandClock, tmp_path: Path
) -> None:
    performer = ScriptedPerformer(NotYet(delay_s=2.0), None)
    courier = _courier(performer, tmp_path, clock)
    _owe(connection, clock)
    assert courier.perform_one(connection)
    assert _state(connection) == ("PENDING", 0, None)
    clock.advance(1.9)
    assert not courier.perform_one(connection)
    clock.advance(0.1)
    assert courier.perform_one(connection)
    assert connection.execute("SELECT count(*) FROM errand").fetchone()[0] == 0


def test_a_failure_is_tried_again_until_the_rule_gives_up(
    connection: sqlite3.Connection, clock: HandClock, tmp_path: Path
) -> None:
    performer = ScriptedPerformer(DeliveryError("no", code="X"))
    courier = _courier(performer, tmp_path, clock)
    _owe(connection, clock)
    for attempts, state in ((1, "PENDING"), (2, "PENDING"), (3, "DEAD")):
        clock.advance(4)
        assert courier.perform_one(connection)
        assert _state(connection) == (state, attempts, "X")
    clock.advance(100)
    assert not courier.perform_one(connection)


@pytest.mark.parametrize("answer", [None, DeliveryError("no", code="X", permanent=True)])
def test_what_became_of_an_errand_that_another_took_over_is_not_recorded(
    connection: sqlite3.Connection,
    clock: HandClock,
    tmp_path: Path,
    answer: DeliveryError | None,
) -> None:
    performer = ScriptedPerformer(answer)

    def lose_the_lease() -> None:
        clock.advance(11)
        other = claim_errand(
            connection, performer.kind, owner="c2", at=clock.now(), lease_us=LEASE_US
        )
        assert other is not None

    performer.during = lose_the_lease
    _owe(connection, clock)
    assert _courier(performer, tmp_path, clock).perform_one(connection)
    assert _state(connection) == ("PENDING", 2, None)


@pytest.mark.parametrize(("code", "asked"), [("PEER_UNREACHABLE", 2), ("REQUEST_REFUSED", 4)])
def test_a_peer_that_does_not_answer_is_asked_once_for_all_that_it_is_owed(
    connection: sqlite3.Connection, clock: HandClock, tmp_path: Path, code: str, asked: int
) -> None:
    performer = ScriptedPerformer(DeliveryError("no", code=code))
    courier = _courier(performer, tmp_path, clock)
    for peer in ("DEAF", "DEAF", "DEAF", "OTHER"):
        _owe(connection, clock, peer)
    while courier.perform_one(connection):
        pass
    assert len(performer.jobs) == asked


def test_the_thread_works_until_it_is_told_to_stop(
    connection: sqlite3.Connection, clock: HandClock, tmp_path: Path
) -> None:
    performer = ScriptedPerformer(None)
    stop = threading.Event()
    thread = threading.Thread(
        target=_courier(performer, tmp_path, clock).run, args=(stop,), name="courier"
    )
    thread.start()
    _owe(connection, clock)
    wait_until(lambda: performer.jobs)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()

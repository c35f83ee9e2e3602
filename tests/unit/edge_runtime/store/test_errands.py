from __future__ import annotations

import dataclasses
import sqlite3

import pytest
from simulators.hand_clock import HandClock

from edge_runtime.errors import LeaseLostError
from edge_runtime.model.errand import ErrandKind, ErrandState
from edge_runtime.store.alarms import AlarmCode, standing_alarms
from edge_runtime.store.errands import (
    ErrandJob,
    bury_errand,
    claim_errand,
    finish_errand,
    hold_errand,
    open_errand,
    postpone_peer,
    resend_dead_errands,
    retry_errand,
    return_errand_leases,
)

LEASE_US = 10_000_000
RELAY, REPORT = ErrandKind.MPPS_RELAY, ErrandKind.COMMITMENT_REPORT


def _step(connection: sqlite3.Connection) -> int:
    return int(
        connection.execute(
            "INSERT INTO procedure_step (sop_instance_uid, state, relayed, created_wall_us,"
            " changed_wall_us, changed_mono_us, changed_boot_id)"
            " VALUES (hex(randomblob(8)), 'IN_PROGRESS', 1, 0, 0, 0, 'b') RETURNING id"
        ).fetchone()[0]
    )


def _commitment(connection: sqlite3.Connection) -> int:
    return int(
        connection.execute(
            "INSERT INTO commitment (ae_title, transaction_uid, address, wanted, booked_wall_us,"
            " patience_boot_id, patience_mono_us)"
            " VALUES ('A', hex(randomblob(8)), '', x'00', 0, 'b', 0) RETURNING id"
        ).fetchone()[0]
    )


def _owe(connection: sqlite3.Connection, clock: HandClock, step_id: int) -> int:
    return open_errand(connection, RELAY, peer="upstream", at=clock.now(), step_id=step_id)


def _owe_report(connection: sqlite3.Connection, clock: HandClock, peer: str = "A") -> int:
    return open_errand(
        connection, REPORT, peer=peer, at=clock.now(), commitment_id=_commitment(connection)
    )


def _claim(
    connection: sqlite3.Connection, clock: HandClock, kind: ErrandKind = RELAY, owner: str = "c1"
) -> ErrandJob | None:
    return claim_errand(connection, kind, owner=owner, at=clock.now(), lease_us=LEASE_US)


def _claimed(
    connection: sqlite3.Connection, clock: HandClock, kind: ErrandKind = RELAY
) -> ErrandJob:
    job = _claim(connection, clock, kind)
    assert job is not None
    return job


def _state(connection: sqlite3.Connection, errand_id: int) -> ErrandState:
    row = connection.execute("SELECT state FROM errand WHERE id = ?", (errand_id,)).fetchone()
    return ErrandState(row["state"])


def test_an_errand_is_claimed_by_its_kind_and_once(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    errand_id = _owe(connection, clock, _step(connection))
    assert _claim(connection, clock, REPORT) is None
    assert _claimed(connection, clock).errand_id == errand_id
    assert _claim(connection, clock) is None


def test_an_expired_lease_gives_the_errand_to_another(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    _owe(connection, clock, _step(connection))
    lost = _claimed(connection, clock)
    clock.advance(11)
    taken = _claim(connection, clock, owner="c2")
    assert taken is not None
    assert taken.attempts == 2
    with pytest.raises(LeaseLostError):
        finish_errand(connection, lost, owner="c1", at=clock.now())
    finish_errand(connection, taken, owner="c2", at=clock.now())
    assert _state(connection, taken.errand_id) is ErrandState.DONE


@pytest.mark.parametrize("reboots", [False, True])
def test_a_restarted_courier_takes_up_what_the_last_one_held(
    connection: sqlite3.Connection, clock: HandClock, *, reboots: bool
) -> None:
    _owe(connection, clock, _step(connection))
    _claimed(connection, clock)
    if reboots:
        clock.reboot()
    else:
        assert return_errand_leases(connection) == 1
    assert _claimed(connection, clock).attempts == 2


def test_messages_of_a_step_keep_their_order_and_steps_do_not_wait_for_each_other(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    one, two = _step(connection), _step(connection)
    first, second, other = (_owe(connection, clock, step) for step in (one, one, two))
    job = _claimed(connection, clock)
    assert job.errand_id == first
    assert _claimed(connection, clock).errand_id == other
    assert _claim(connection, clock) is None
    finish_errand(connection, job, owner="c1", at=clock.now())
    assert _claimed(connection, clock).errand_id == second


def test_a_message_waits_behind_one_that_is_postponed_or_dead(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    step = _step(connection)
    first, _second = _owe(connection, clock, step), _owe(connection, clock, step)
    later = dataclasses.replace(clock.now(), mono_us=clock.now().mono_us + 1_000_000)
    job = _claimed(connection, clock)
    retry_errand(connection, job, owner="c1", error_code="X", due=later)
    assert _claim(connection, clock) is None
    clock.advance(1)
    job = _claimed(connection, clock)
    assert (job.errand_id, job.attempts) == (first, 2)
    bury_errand(connection, job, owner="c1", error_code="X", at=clock.now())
    assert _claim(connection, clock) is None
    resend_dead_errands(connection, RELAY, clock.now())
    assert _claimed(connection, clock).errand_id == first


def test_an_errand_whose_time_has_not_come_was_never_tried(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    _owe_report(connection, clock)
    due = dataclasses.replace(clock.now(), mono_us=clock.now().mono_us + 1_000_000)
    hold_errand(connection, _claimed(connection, clock, REPORT), owner="c1", due=due)
    assert _claim(connection, clock, REPORT) is None
    clock.advance(1)
    assert _claimed(connection, clock, REPORT).attempts == 1


def test_a_dead_errand_raises_an_alarm_that_a_second_try_clears(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    errand_id = _owe_report(connection, clock)
    bury_errand(
        connection,
        _claimed(connection, clock, REPORT),
        owner="c1",
        error_code="PEER_UNREACHABLE",
        at=clock.now(),
    )
    (alarm,) = standing_alarms(connection)
    assert (alarm.code, alarm.subject) == (AlarmCode.COMMITMENT_DEAD, str(errand_id))
    assert resend_dead_errands(connection, RELAY, clock.now()) == 0
    assert resend_dead_errands(connection, REPORT, clock.now()) == 1
    assert standing_alarms(connection) == ()
    assert _claimed(connection, clock, REPORT).attempts == 1


def test_a_peer_that_does_not_answer_is_postponed_with_all_that_it_is_owed(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    _owe_report(connection, clock, "DEAF")
    deaf = _claimed(connection, clock, REPORT)
    _owe_report(connection, clock, "DEAF")
    fine = _owe_report(connection, clock, "FINE")
    due = dataclasses.replace(clock.now(), mono_us=clock.now().mono_us + 5_000_000)
    retry_errand(connection, deaf, owner="c1", error_code="X", due=due)
    postpone_peer(connection, deaf, due)
    assert _claimed(connection, clock, REPORT).errand_id == fine
    assert _claim(connection, clock, REPORT) is None
    clock.advance(5)
    assert _claimed(connection, clock, REPORT).errand_id == deaf.errand_id


def test_looking_for_work_that_must_wait_takes_no_write_lock(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    step = _step(connection)
    _owe(connection, clock, step)
    _owe(connection, clock, step)
    _claimed(connection, clock)
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    assert _claim(connection, clock) is None
    assert not any("BEGIN" in statement for statement in statements)

"""The steps by which a study leaves, one at a time, on a real database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.hand_clock import HandClock
from simulators.retention_bench import RetentionBench, count_rows

from edge_runtime.model.delivery import Channel
from edge_runtime.model.holding import HoldCause, Holding
from edge_runtime.store.alarms import AlarmCode, clear_alarm, raise_alarm, standing_alarms
from edge_runtime.store.database import connect, transaction
from edge_runtime.store.deliveries import resend_dead_deliveries
from edge_runtime.store.device import read_device
from edge_runtime.store.holdings import last_sweep_wall_us, read_holdings, show_causes
from edge_runtime.store.retention import (
    MAX_TOMBSTONES,
    begin_departure,
    end_departure,
    pending_departures,
    pending_files,
    prune_rows,
    release_dead_deliveries,
    starting_revision,
    take_files,
)
from edge_runtime.store.studies import last_instance_id


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RetentionBench]:
    made = RetentionBench(tmp_path)
    yield made
    made.close()


def only(bench: RetentionBench) -> Holding:
    (holding,) = read_holdings(bench.connection, bench.clock.now())
    return holding


def depart(bench: RetentionBench) -> None:
    holding = only(bench)
    assert begin_departure(bench.connection, holding, bench.clock.now())
    while take_files(bench.connection, holding.study_id, limit=10):
        pass
    end_departure(bench.connection, holding.study_id)


def test_nothing_of_a_study_is_left_but_a_keyed_hash(bench: RetentionBench) -> None:
    bench.decided("1.2.3", images=3, channels=(Channel.TELEMETRY,))
    bench.set_deliveries("SENT")
    view = bench.view("1.2.3")
    assert view is not None
    with transaction(bench.connection):
        raise_alarm(
            bench.connection, AlarmCode.FILE_MISSING, bench.clock.now(), study_id=view.study_id
        )
    depart(bench)
    for table in ("study", "instance", "analysis", "delivery", "stamp", "alarm", "settled"):
        assert bench.rows(table) == 0, table
    assert bench.rows("departing") == 0
    assert len(pending_files(bench.connection, limit=10)) == 3
    assert bench.rows("departed") == 1
    dump = "\n".join(bench.connection.iterdump())
    assert "1.2.3" not in dump
    assert "Canary" not in dump


def test_a_study_that_comes_back_starts_with_the_next_revision(bench: RetentionBench) -> None:
    assert starting_revision(bench.connection, "1.2.3") == 1
    bench.decided("1.2.3")
    depart(bench)
    assert starting_revision(bench.connection, "1.2.3") == 2
    assert starting_revision(bench.connection, "1.2.4") == 1


def test_a_device_without_an_identity_has_let_nothing_go(connection: sqlite3.Connection) -> None:
    assert starting_revision(connection, "1.2.3") == 1


def test_the_hash_of_another_device_is_another(bench: RetentionBench, tmp_path: Path) -> None:
    bench.decided("1.2.3")
    depart(bench)
    row = bench.connection.execute("SELECT * FROM departed").fetchone()
    with contextlib.closing(connect(tmp_path / "other.db")) as other:
        read_device(other)
        other.execute("INSERT INTO departed VALUES (?, ?, ?)", tuple(row))
        assert starting_revision(other, "1.2.3") == 1


def test_the_oldest_hashes_go_first(bench: RetentionBench) -> None:
    bench.connection.execute(
        "INSERT INTO departed (id, study_hash, revision) VALUES (?, randomblob(16), 1)",
        (MAX_TOMBSTONES,),
    )
    bench.connection.execute("INSERT INTO departed VALUES (1, randomblob(16), 1)")
    bench.decided("1.2.3")
    depart(bench)
    assert bench.rows("departed") == 2
    assert bench.connection.execute("SELECT min(id) FROM departed").fetchone()[0] == MAX_TOMBSTONES


def test_a_study_that_changed_since_it_was_chosen_stays(bench: RetentionBench) -> None:
    bench.decided("1.2.3")
    holding = only(bench)
    bench.store("1.2.3")  # a late image
    assert not begin_departure(bench.connection, holding, bench.clock.now())
    assert pending_departures(bench.connection) == ()


def test_a_late_image_of_a_study_that_is_leaving_opens_one_of_its_own(
    bench: RetentionBench,
) -> None:
    bench.decided("1.2.3", images=2)
    holding = only(bench)
    assert begin_departure(bench.connection, holding, bench.clock.now())
    bench.store("1.2.3", number=1)
    view = bench.view("1.2.3")
    assert view is not None
    assert view.study_id != holding.study_id
    assert view.instances == 1
    while take_files(bench.connection, holding.study_id, limit=1):
        pass
    end_departure(bench.connection, holding.study_id)
    assert bench.view("1.2.3") == view
    assert bench.rows("instance") == 1


def test_a_conflict_noted_while_the_study_leaves_goes_with_it(bench: RetentionBench) -> None:
    bench.decided("1.2.3")
    holding = only(bench)
    quarantined = bench.store("1.2.3", number=1, hu=7)
    assert begin_departure(bench.connection, holding, bench.clock.now())
    assert quarantined in take_files(bench.connection, holding.study_id, limit=10)
    assert bench.rows("quarantine") == 0


def test_numbers_of_rows_never_come_again(bench: RetentionBench) -> None:
    bench.decided("1.2.3", channels=(Channel.TELEMETRY,))
    bench.set_deliveries("SENT")
    last = last_instance_id(bench.connection)
    tables = ("study", "analysis", "delivery")
    ids = {table: max_id(bench.connection, table) for table in tables}
    depart(bench)
    bench.decided("1.2.4", channels=(Channel.TELEMETRY,))
    assert last_instance_id(bench.connection) > last
    assert all(max_id(bench.connection, table) > ids[table] for table in tables)


def max_id(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0])


def test_a_dead_delivery_that_was_let_go_keeps_its_study_no_longer(bench: RetentionBench) -> None:
    bench.decided("1.2.3", channels=(Channel.TELEMETRY,))
    bench.set_deliveries("DEAD")
    now = bench.clock.now()
    with transaction(bench.connection):
        raise_alarm(bench.connection, AlarmCode.DELIVERY_DEAD, now, subject="1")
    assert only(bench).causes == (HoldCause.GIVEN_UP,)
    assert release_dead_deliveries(bench.connection, Channel.FORWARD, now) == 0
    assert release_dead_deliveries(bench.connection, Channel.TELEMETRY, now) == 1
    assert release_dead_deliveries(bench.connection, Channel.TELEMETRY, now) == 0
    assert only(bench).causes == ()
    assert standing_alarms(bench.connection) == ()
    assert resend_dead_deliveries(bench.connection, Channel.TELEMETRY, now) == 1
    bench.set_deliveries("DEAD")
    assert only(bench).causes == (HoldCause.GIVEN_UP,)


def test_a_promise_by_storage_commitment_keeps_a_study(bench: RetentionBench) -> None:
    bench.decided("1.2.3")
    with transaction(bench.connection):
        bench.connection.execute(
            "UPDATE study SET held_until_wall_us = ?", (bench.clock.now().wall_us + 1,)
        )
    assert only(bench).causes == (HoldCause.PROMISED,)
    bench.clock.advance(1)
    assert only(bench).causes == ()


STEP = """
INSERT INTO procedure_step (id, sop_instance_uid, state, relayed, created_wall_us, changed_wall_us,
    changed_mono_us, changed_boot_id) VALUES (:id, :uid, 'COMPLETED', 0, 0, 0, 0, 'b')
"""


def test_procedure_steps_leave_with_their_last_study_unless_they_wait_to_be_relayed(
    bench: RetentionBench,
) -> None:
    bench.decided("1.2.3")
    bench.store("1.2.4")
    for number, studies in ((1, ["1.2.3"]), (2, ["1.2.3", "1.2.4"]), (3, ["1.2.3"])):
        bench.connection.execute(STEP, {"id": number, "uid": f"9.{number}"})
        for study in studies:
            bench.connection.execute(
                "INSERT INTO procedure_step_study (study_instance_uid, step_id) VALUES (?, ?)",
                (study, number),
            )
    bench.connection.execute(
        "INSERT INTO errand (kind, state, peer, step_id, due_boot_id, due_mono_us) "
        "VALUES ('mpps_relay', 'PENDING', '', 3, 'b', 0)"
    )
    holding = read_holdings(bench.connection, bench.clock.now())[0]
    assert begin_departure(bench.connection, holding, bench.clock.now())
    left = bench.connection.execute("SELECT id FROM procedure_step ORDER BY id").fetchall()
    assert [row["id"] for row in left] == [2, 3]


def test_old_rows_that_belong_to_nothing_are_pruned(bench: RetentionBench) -> None:
    bench.store("1.2.3")
    bench.inbox.association_opened("a2", "CT01", "192.0.2.1")
    bench.inbox.association_closed("a2", released=True)
    bench.inbox.association_closed("a1", released=True)
    bench.inbox.association_opened("a3", "CT01", "192.0.2.1")
    now = bench.clock.now()
    with transaction(bench.connection):
        for subject in ("cleared", "standing"):
            raise_alarm(bench.connection, AlarmCode.MODEL_REFUSED, now, subject=subject)
        clear_alarm(bench.connection, AlarmCode.MODEL_REFUSED, "cleared", now)
    assert prune_rows(bench.connection, before_wall_us=now.wall_us) == 0
    assert prune_rows(bench.connection, before_wall_us=now.wall_us + 1) == 2
    rows = bench.connection.execute("SELECT id FROM association ORDER BY id").fetchall()
    assert [row["id"] for row in rows] == ["a1", "a3"]  # with an instance; still open
    assert [alarm.subject for alarm in standing_alarms(bench.connection)] == ["standing"]


def test_an_alarm_stands_for_each_cause_and_for_no_other(
    connection: sqlite3.Connection, clock: HandClock
) -> None:
    code, now = AlarmCode.DISK_PRESSURE, clock.now()
    show_causes(connection, code, {HoldCause.GIVEN_UP, HoldCause.UNDECIDED}, now)
    show_causes(connection, code, {HoldCause.GIVEN_UP, HoldCause.TOO_YOUNG}, now)
    assert {alarm.subject for alarm in standing_alarms(connection)} == {"given_up", "too_young"}
    show_causes(connection, code, (), now)
    assert standing_alarms(connection) == ()
    assert count_rows(connection, "alarm") == 3


def test_the_last_sweep_is_known(bench: RetentionBench) -> None:
    assert last_sweep_wall_us(bench.connection) is None
    bench.sweeper.sweep()
    assert last_sweep_wall_us(bench.connection) == bench.clock.now().wall_us

"""Retention on a real database and real spool files, with the clocks and the disk in hand."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators import killed_sweep
from simulators.hand_clock import HandClock
from simulators.killed import kill_at_every_step
from simulators.retention_bench import DAY_S, KEEP_S, LEAST_KEEP_S, RULES, RetentionBench
from simulators.scores import scored
from simulators.waiting import wait_until
from structlog.testing import capture_logs

from dicom_node.reconcile import reconcile
from edge_runtime.model.delivery import Channel
from edge_runtime.pipeline.sweeping import RetentionThread, resume_departures
from edge_runtime.store.alarms import AlarmCode, standing_alarms
from edge_runtime.store.database import transaction
from edge_runtime.store.holdings import read_holdings
from edge_runtime.store.retention import begin_departure, starting_revision

POSITIVE = scored(0.97)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RetentionBench]:
    made = RetentionBench(tmp_path)
    yield made
    made.close()


def alarms(bench: RetentionBench) -> list[tuple[AlarmCode, str]]:
    return [(alarm.code, alarm.subject) for alarm in standing_alarms(bench.connection)]


def fill_up(bench: RetentionBench, *, wanted_bytes: int = 1) -> None:
    """Let others take so much of the disk that this many bytes are missing."""
    bench.spool.foreign = 0
    bench.spool.foreign = bench.spool.free_bytes() + wanted_bytes


# ---------------------------------------------------------------- by age


def test_a_study_leaves_with_its_files_after_its_time(bench: RetentionBench) -> None:
    bench.decided("1.2.3", images=3)
    bench.clock.advance(KEEP_S - 1)
    assert bench.sweeper.sweep() == 0
    assert len(bench.files()) == 3
    bench.clock.advance(1)
    assert bench.sweeper.sweep() == 1
    assert bench.files() == set()
    assert not bench.holds("1.2.3")
    assert bench.rows("spool_removal") == 0


def test_a_study_that_still_receives_or_waits_stays_however_old(bench: RetentionBench) -> None:
    bench.store("1.2.3")
    bench.store("1.2.4")
    bench.complete("1.2.4")
    bench.sweeper.sweep()
    bench.clock.advance(100 * KEEP_S)
    assert bench.sweeper.sweep() == 0
    assert alarms(bench) == []


@pytest.mark.parametrize(
    ("state", "leaves"), [("PENDING", 0), ("DEAD", 0), ("SENT", 1), ("CONFIRMED", 1)]
)
def test_what_is_not_delivered_stays(bench: RetentionBench, state: str, leaves: int) -> None:
    bench.decided("1.2.3", channels=(Channel.STRUCTURED_REPORT,))
    if state != "PENDING":
        bench.set_deliveries("SENT")
    if state not in {"PENDING", "SENT"}:
        bench.set_deliveries(state)
    bench.clock.advance(KEEP_S)
    assert bench.sweeper.sweep() == leaves
    kept = {"PENDING": "undelivered", "DEAD": "given_up"}.get(state)
    assert alarms(bench) == ([(AlarmCode.RETENTION_OVERDUE, kept)] if kept else [])


def test_the_alarm_of_a_late_study_is_cleared_when_it_leaves(bench: RetentionBench) -> None:
    bench.decided("1.2.3", channels=(Channel.TELEMETRY,))
    bench.clock.advance(KEEP_S)
    bench.sweeper.sweep()
    assert alarms(bench) == [(AlarmCode.RETENTION_OVERDUE, "undelivered")]
    bench.set_deliveries("SENT")
    assert bench.sweeper.sweep() == 1
    assert alarms(bench) == []


def test_a_late_image_starts_the_time_anew(bench: RetentionBench) -> None:
    bench.decided("1.2.3")
    bench.clock.advance(KEEP_S - 60)
    bench.store("1.2.3")
    bench.complete("1.2.3")
    bench.decide(POSITIVE)
    bench.sweeper.sweep()
    bench.clock.advance(KEEP_S - 60)
    assert bench.sweeper.sweep() == 0
    bench.clock.advance(60)
    assert bench.sweeper.sweep() == 1


def test_a_study_of_an_earlier_release_stays_its_time_from_the_first_look_on(
    bench: RetentionBench,
) -> None:
    bench.store("1.2.3")
    bench.complete("1.2.3")
    bench.decide()
    bench.clock.advance(10 * KEEP_S)
    assert bench.sweeper.sweep() == 0
    bench.clock.advance(KEEP_S)
    assert bench.sweeper.sweep() == 1


# ---------------------------------------------------------------- clocks


def test_a_clock_set_forward_by_years_lets_nothing_go(bench: RetentionBench) -> None:
    bench.decided("1.2.3")
    bench.clock.set_back(-10 * 365 * DAY_S)
    bench.clock.instant = dataclasses.replace(bench.clock.instant, clock_synced=True)
    assert bench.sweeper.sweep() == 0
    bench.clock.reboot()
    bench.clock.instant = dataclasses.replace(bench.clock.instant, clock_synced=True)
    assert bench.sweeper.sweep() == 0
    assert bench.holds("1.2.3")


def test_a_clock_set_forward_by_years_at_a_restart_lets_nothing_go(bench: RetentionBench) -> None:
    bench.decided("1.2.3")
    bench.clock.reboot()
    bench.clock.set_back(-10 * 365 * DAY_S)
    bench.clock.instant = dataclasses.replace(bench.clock.instant, clock_synced=True)
    assert bench.sweeper.sweep() == 0
    bench.clock.advance(KEEP_S)  # but it leaves when it has run for its time
    assert bench.sweeper.sweep() == 1


def test_a_clock_set_back_delays_nothing_and_hastens_nothing(bench: RetentionBench) -> None:
    bench.decided("1.2.3")
    bench.clock.set_back(20 * DAY_S)
    bench.clock.advance(KEEP_S - 1)
    assert bench.sweeper.sweep() == 0
    bench.clock.advance(1)
    assert bench.sweeper.sweep() == 1


def test_the_time_that_a_device_is_off_counts_once_its_clock_is_synchronised(
    bench: RetentionBench,
) -> None:
    bench.decided("1.2.3")
    bench.clock.reboot()
    bench.clock.set_back(-KEEP_S)  # it was off for so long
    assert bench.sweeper.sweep() == 0  # the time service has not answered yet
    bench.clock.instant = dataclasses.replace(bench.clock.instant, clock_synced=True)
    assert bench.sweeper.sweep() == 1


# ---------------------------------------------------------------- disk pressure


def test_under_pressure_the_first_decided_goes_first_and_no_more_than_needed(
    bench: RetentionBench,
) -> None:
    for number in range(5):
        bench.decided(f"1.2.{number}", images=2)
        bench.clock.advance(1)
    bench.clock.advance(LEAST_KEEP_S)
    fill_up(bench, wanted_bytes=4 * bench.spool.used_bytes() // 10 - 1)
    assert bench.sweeper.sweep() == 2
    assert [bench.holds(f"1.2.{number}") for number in range(5)] == [False, False, *[True] * 3]
    assert alarms(bench) == []
    assert bench.sweeper.sweep() == 0


def test_under_pressure_a_study_stays_its_least_time(bench: RetentionBench) -> None:
    bench.decided("1.2.3")
    fill_up(bench)
    bench.clock.advance(LEAST_KEEP_S - 1)
    assert bench.sweeper.sweep() == 0
    assert alarms(bench) == [(AlarmCode.DISK_PRESSURE, "too_young")]
    bench.clock.advance(1)
    assert bench.sweeper.sweep() == 1
    assert alarms(bench) == []


def test_pressure_that_nothing_relieves_is_an_alarm_until_there_is_room(
    bench: RetentionBench,
) -> None:
    bench.decided("1.2.3", channels=(Channel.FORWARD,))
    bench.clock.advance(LEAST_KEEP_S)
    fill_up(bench)
    assert bench.sweeper.sweep() == 0
    assert alarms(bench) == [(AlarmCode.DISK_PRESSURE, "undelivered")]
    bench.spool.foreign = 0
    assert bench.sweeper.sweep() == 0
    assert alarms(bench) == []
    assert bench.holds("1.2.3")


def test_a_disk_that_others_fill_is_named_so(bench: RetentionBench) -> None:
    fill_up(bench)
    bench.sweeper.sweep()
    assert alarms(bench) == [(AlarmCode.DISK_PRESSURE, "other_files")]


def test_pressure_is_relieved_right_after_a_restart(bench: RetentionBench) -> None:
    bench.decided("1.2.3")
    bench.clock.advance(LEAST_KEEP_S)
    bench.sweeper.sweep()
    bench.clock.reboot()
    fill_up(bench)
    assert bench.sweeper.sweep() == 1


STATES = st.sampled_from(
    ["receiving", "queued", "running", "pending", "dead", "promised", "sent", "decided"]
)
FREE_TO_GO = {"sent", "decided"}


@settings(max_examples=40, deadline=None)
@given(
    states=st.lists(STATES, min_size=1, max_size=6),
    steps_s=st.lists(st.sampled_from([1.0, LEAST_KEEP_S, DAY_S]), min_size=6, max_size=6),
    share=st.floats(-0.5, 1.5),
    wait_s=st.sampled_from([0.0, LEAST_KEEP_S, DAY_S, KEEP_S]),
)
def test_whatever_the_mix_only_what_may_go_goes_and_no_more_than_needed(
    states: list[str], steps_s: list[float], share: float, wait_s: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = RetentionBench(Path(folder))
        with contextlib.closing(bench.connection):
            for number, (state, step_s) in enumerate(zip(states, steps_s, strict=False)):
                _bring_to(bench, f"1.2.{number}", state)
                bench.sweeper.sweep()
                bench.clock.advance(step_s)
            bench.clock.advance(wait_s)
            _sweep_and_check(bench, states, share)


def _sweep_and_check(bench: RetentionBench, states: list[str], share: float) -> None:
    wanted = int(bench.spool.used_bytes() * share)
    fill_up(bench, wanted_bytes=wanted)
    before = [number for number in range(len(states)) if bench.holds(f"1.2.{number}")]
    bench.sweeper.sweep()
    left = [number for number in before if not bench.holds(f"1.2.{number}")]
    assert {states[number] for number in left} <= FREE_TO_GO
    # Those that went are the oldest of those that might go.
    free = [number for number in before if states[number] in FREE_TO_GO]
    assert left == free[: len(left)]
    assert {row["path"] for row in bench.connection.execute("SELECT path FROM instance")} == (
        bench.files()
    )
    bench.sweeper.sweep()
    assert [n for n in before if not bench.holds(f"1.2.{n}")] == left  # the target was reached


def _bring_to(bench: RetentionBench, study: str, state: str) -> None:
    bench.store(study)
    if state == "receiving":
        return
    bench.complete(study)
    if state == "queued":
        return
    if state == "running":
        with transaction(bench.connection):
            bench.connection.execute(
                "UPDATE analysis SET state = 'RUNNING', lease_owner = 'x', lease_boot_id = 'b', "
                "lease_until_mono_us = 0 WHERE state = 'QUEUED' AND study_id = "
                "(SELECT id FROM study WHERE study_instance_uid = ?)",
                (study,),
            )
        return
    _decide(bench, study, state)


def _decide(bench: RetentionBench, study: str, state: str) -> None:
    with transaction(bench.connection):
        row = bench.connection.execute(
            "UPDATE analysis SET state = 'RUNNING', lease_owner = 'x', lease_boot_id = 'b', "
            "lease_until_mono_us = 0 WHERE state = 'QUEUED' AND study_id = "
            "(SELECT id FROM study WHERE study_instance_uid = ?) RETURNING id, study_id",
            (study,),
        ).fetchall()[0]
        bench.connection.execute(
            "UPDATE analysis SET state = 'NOT_SUSPECTED', outcome = 'NOT_SUSPECTED', "
            "probability = 0.1, threshold = 0.5, decided_wall_us = 1, lease_owner = NULL, "
            "lease_boot_id = NULL, lease_until_mono_us = NULL WHERE id = ?",
            (row["id"],),
        )
        if state in {"pending", "dead", "sent"}:
            bench.connection.execute(
                "INSERT INTO delivery (analysis_id, channel, state, due_boot_id, due_mono_us, "
                "error_code) VALUES (?, 'telemetry', ?, 'b', 0, 'X')",
                (row["id"], state.upper()),
            )
        if state == "promised":
            bench.connection.execute(
                "UPDATE study SET held_until_wall_us = ? WHERE id = ?", (1 << 60, row["study_id"])
            )


# ---------------------------------------------------------------- what else lies in the spool


def test_a_conflicting_duplicate_leaves_with_its_study(bench: RetentionBench) -> None:
    bench.store("1.2.3", number=101)
    quarantined = bench.store("1.2.3", number=101, hu=9)
    bench.complete("1.2.3")
    bench.decide()
    bench.sweeper.sweep()
    assert quarantined in bench.files()
    bench.clock.advance(KEEP_S)
    assert bench.sweeper.sweep() == 1
    assert bench.files() == set()
    assert alarms(bench) == []


def test_a_file_in_quarantine_that_no_row_knows_leaves_after_its_time(
    bench: RetentionBench,
) -> None:
    bench.decided("1.2.3")
    shard = bench.store("1.2.4")
    stray = bench.spool.quarantine(shard)
    foreign = bench.spool.root / "quarantine" / "a-note.txt"
    foreign.touch()
    bench.sweeper.sweep()
    bench.clock.advance(KEEP_S - 1)
    bench.sweeper.sweep()
    assert stray in bench.files()
    bench.clock.advance(1)
    bench.sweeper.sweep()
    assert stray not in bench.files()
    assert foreign.exists()
    assert bench.rows("stray") == bench.rows("spool_removal") == 0


def test_a_file_that_is_gone_already_stops_nothing(bench: RetentionBench) -> None:
    paths = bench.decided("1.2.3", images=2)
    bench.spool.remove(paths[0])
    bench.clock.advance(KEEP_S)
    assert bench.sweeper.sweep() == 1


def test_a_large_study_leaves_in_batches(bench: RetentionBench) -> None:
    study_id = _large_study(bench.connection, images=1_200)
    statements: list[str] = []
    bench.sweeper.sweep()
    bench.clock.advance(KEEP_S)
    bench.connection.set_trace_callback(statements.append)
    assert bench.sweeper.sweep() == 1
    bench.connection.set_trace_callback(None)
    batches = sum(line.startswith("SELECT id, path FROM instance") for line in statements)
    assert batches == 6  # 250 at a time, and a look that finds none
    assert bench.rows("instance") == 0
    assert study_id not in {row["id"] for row in bench.connection.execute("SELECT id FROM study")}


def _large_study(connection: sqlite3.Connection, *, images: int) -> int:
    with transaction(connection):
        row = connection.execute(
            "INSERT INTO study (study_key, study_instance_uid, identity, state, completion_reason,"
            " revision, received_wall_us, instances) VALUES ('s1', '1.2.9', '{}', 'COMPLETE',"
            " 'counts', 1, 0, ?) RETURNING id",
            (images,),
        ).fetchall()[0]
        connection.executemany(
            "INSERT INTO instance (study_id, revision, series_instance_uid, sop_instance_uid,"
            " header, path, file_bytes, stored_wall_us, stored_mono_us)"
            " VALUES (?, 1, '1.2.9.1', ?, '{}', ?, 1, 0, 0)",
            ((row["id"], f"1.2.9.1.{n}", f"{n % 256:02x}/{n:030x}.dcm") for n in range(images)),
        )
    return int(row["id"])


# ---------------------------------------------------------------- broken off


def test_a_kill_between_any_two_steps_leaves_all_of_a_study_or_nothing(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.mkdir()
    bench = RetentionBench(template)
    with contextlib.closing(bench.connection):
        bench.store("1.2.3", number=101)
        bench.store("1.2.3", number=101, hu=9)  # into quarantine
        bench.decided("1.2.3", images=4)
        bench.decided("1.2.4", images=2, channels=(Channel.FORWARD,))
    copies = kill_at_every_step(killed_sweep, template, tmp_path / "killed")
    assert len(copies) > 40
    outcomes = [_restart(copy) for copy in copies]
    assert outcomes == sorted(outcomes, reverse=True)  # once it has begun to leave, it leaves
    assert set(outcomes) == {True, False}


def _restart(folder: Path) -> bool:
    """Start as the node does; say whether the old study is still there."""
    bench = RetentionBench(folder)
    with contextlib.closing(bench.connection):
        resume_departures(bench.connection, bench.spool)
        report = reconcile(bench.spool, bench.inbox, bench.inbox.known_paths())
        assert (report.recorded, report.unreadable, report.missing) == (0, 0, ())
        kept, other = bench.view("1.2.3"), bench.view("1.2.4")
        assert other is not None
        assert other.instances == 2
        rows = {row["path"] for row in bench.connection.execute("SELECT path FROM instance")}
        shards = {path for path in bench.files() if not path.startswith("quarantine/")}
        assert rows == shards
        assert len(rows) == (7 if kept else 2)
        assert len(bench.files() - shards) == bench.rows("quarantine") == bool(kept)
        assert bench.rows("departing") == bench.rows("spool_removal") == 0
        assert starting_revision(bench.connection, "1.2.3") == (1 if kept else 2)
        return kept is not None


def test_a_departure_that_was_broken_off_is_finished_before_the_scan(
    bench: RetentionBench,
) -> None:
    bench.decided("1.2.3", images=3)
    bench.clock.advance(KEEP_S)
    (holding,) = read_holdings(bench.connection, bench.clock.now())
    assert begin_departure(bench.connection, holding, bench.clock.now())
    assert resume_departures(bench.connection, bench.spool) == 1
    report = reconcile(bench.spool, bench.inbox, bench.inbox.known_paths())
    assert (report.recorded, report.missing) == (0, ())
    assert bench.files() == set()


# ---------------------------------------------------------------- the thread


def test_the_thread_lets_studies_go_and_ends_with_its_block(tmp_path: Path) -> None:
    bench = RetentionBench(tmp_path)
    with contextlib.closing(bench.connection):
        bench.decided("1.2.3")
        bench.clock.advance(KEEP_S)
        with RetentionThread(bench.database, bench.spool, bench.clock, RULES):
            assert "node-retention" in {thread.name for thread in threading.enumerate()}
            wait_until(lambda: not bench.holds("1.2.3"))
        assert "node-retention" not in {thread.name for thread in threading.enumerate()}


def test_the_thread_tells_of_pressure_and_of_its_end(tmp_path: Path) -> None:
    bench = RetentionBench(tmp_path)
    with contextlib.closing(bench.connection):
        bench.decided("1.2.3", channels=(Channel.FORWARD,))
        with RetentionThread(bench.database, bench.spool, bench.clock, RULES):
            fill_up(bench)
            wait_until(lambda: alarms(bench) == [(AlarmCode.DISK_PRESSURE, "undelivered")])
            bench.spool.foreign = 0
            wait_until(lambda: alarms(bench) == [])


def test_the_thread_outlives_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    bench = RetentionBench(tmp_path)
    with contextlib.closing(bench.connection):
        broken = tmp_path / "broken.db"
        broken.write_bytes(b"no database, and long enough to be looked at" * 100)
        with (
            capture_logs() as logs,
            RetentionThread(broken, bench.spool, HandClock(), RULES),
        ):
            wait_until(lambda: [line for line in logs if line["event"] == "retention.failed"])
            assert "node-retention" in {thread.name for thread in threading.enumerate()}

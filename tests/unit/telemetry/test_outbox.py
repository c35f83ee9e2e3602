"""The outbox: durable, idempotent, bounded by class, in order."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from telemetry.errors import AlreadyOpenError, OutboxError, OutboxNewerError
from telemetry.events import AnalysisEvent, HealthEvent
from telemetry.guard import EgressGuard, EventClass
from telemetry.ledger import LedgerHead
from telemetry.outbox import MIN_CAP_BYTES, Outbox, OutboxItem, row_message


def ids(outbox: Outbox) -> list[str]:
    return [json.loads(row.payload)["id"] for row in outbox.oldest(100_000)]


def test_messages_come_out_oldest_first_and_numbered(
    outbox: Outbox, analysis: AnalysisEvent, health: HealthEvent
) -> None:
    report = outbox.put(
        [OutboxItem(event_key="a", event=analysis), OutboxItem(event_key="b", event=health)]
    )
    outbox.put([OutboxItem(event_key="c", event=analysis)])
    assert (report.accepted, report.already_there, report.dropped_keys) == (2, 0, ())
    assert [row.event_key for row in outbox.oldest(10)] == ["a", "b", "c"]
    assert [row.event_key for row in outbox.oldest(2)] == ["a", "b"]
    assert ids(outbox) == ["1-q1", "1-q2", "1-q3"]


def test_row_is_the_message_that_the_guard_sealed(
    outbox: Outbox, guard: EgressGuard, health: HealthEvent
) -> None:
    outbox.put([OutboxItem(event_key="a", event=health)])
    message = row_message(guard, outbox.oldest(1)[0])
    assert message.topic == "f/v1/d41d8cd98f00/up/tele"
    assert message.event_class is EventClass.TELEMETRY
    assert json.loads(message.payload)["type"] == "edge-triage.health.v1"


def test_same_key_put_again_changes_nothing(outbox: Outbox, analysis: AnalysisEvent) -> None:
    outbox.put([OutboxItem(event_key="a", event=analysis)])
    before = outbox.oldest(10)
    report = outbox.put(
        [
            OutboxItem(event_key="a", event=replace(analysis, revision=9)),
            OutboxItem(event_key="b", event=analysis),
            OutboxItem(event_key="b", event=analysis),
        ]
    )
    assert (report.accepted, report.already_there) == (1, 2)
    assert outbox.oldest(1) == before
    assert ids(outbox) == ["1-q1", "1-q2"]


def test_deleted_message_is_gone_and_its_bytes_are_free(
    outbox: Outbox, analysis: AnalysisEvent
) -> None:
    outbox.put([OutboxItem(event_key=key, event=analysis) for key in "abc"])
    first, second, _ = outbox.oldest(10)
    outbox.delete([first.row_id, second.row_id, 999])
    statistics = outbox.statistics()
    assert [row.event_key for row in outbox.oldest(10)] == ["c"]
    assert statistics.waiting == 1
    assert statistics.waiting_bytes < 800
    outbox.delete([outbox.oldest(1)[0].row_id])
    assert outbox.statistics().waiting_bytes == 0


def test_each_opening_begins_an_epoch_and_messages_keep_their_names(
    tmp_path: Path, guard: EgressGuard, analysis: AnalysisEvent
) -> None:
    path = tmp_path / "outbox.db"
    for epoch in (1, 2, 3):
        with Outbox(path, guard=guard) as outbox:
            assert outbox.epoch == epoch
            outbox.put([OutboxItem(event_key=f"k{epoch}", event=analysis)])
    with Outbox(path, guard=guard) as outbox:
        assert ids(outbox) == ["1-q1", "2-q1", "3-q1"]
        assert outbox.statistics().waiting == 3
        assert outbox.statistics().waiting_bytes > 3 * 300


def test_full_outbox_gives_up_the_oldest_telemetry_first(
    tmp_path: Path, guard: EgressGuard, analysis: AnalysisEvent, health: HealthEvent
) -> None:
    with Outbox(tmp_path / "o.db", guard=guard, cap_bytes=MIN_CAP_BYTES) as outbox:
        dropped: list[str] = []
        for number in range(120):
            items = [
                OutboxItem(event_key=f"t{number}", event=health),
                OutboxItem(event_key=f"e{number}", event=analysis),
            ]
            dropped += outbox.put(items).dropped_keys
        telemetry_drops = [key for key in dropped if key.startswith("t")]
        event_drops = [key for key in dropped if key.startswith("e")]
        first_event = dropped.index("e0")
        assert first_event > 100  # no event goes while telemetry is left
        assert {row.event_class for row in outbox.oldest(1_000)} == {EventClass.EVENT}
        assert telemetry_drops == [f"t{number}" for number in range(120)]
        assert event_drops == [f"e{number}" for number in range(len(event_drops))]
        statistics = outbox.statistics()
        assert statistics.waiting_bytes <= MIN_CAP_BYTES
        assert statistics.dropped == {
            EventClass.TELEMETRY: 120,
            EventClass.EVENT: len(event_drops),
        }
        assert statistics.waiting + len(dropped) == 240


def test_telemetry_never_pushes_an_event_out(
    tmp_path: Path, guard: EgressGuard, analysis: AnalysisEvent, health: HealthEvent
) -> None:
    with Outbox(tmp_path / "o.db", guard=guard, cap_bytes=MIN_CAP_BYTES) as outbox:
        outbox.put([OutboxItem(event_key=f"e{number}", event=analysis) for number in range(200)])
        full = outbox.statistics()
        report = outbox.put([OutboxItem(event_key="late", event=health)])
        assert report.dropped_keys == ("late",)
        assert outbox.statistics().waiting == full.waiting


def test_message_that_is_on_its_way_is_not_given_up(
    tmp_path: Path, guard: EgressGuard, health: HealthEvent
) -> None:
    with Outbox(tmp_path / "o.db", guard=guard, cap_bytes=MIN_CAP_BYTES) as outbox:
        outbox.put([OutboxItem(event_key="sent", event=health)])
        row = outbox.oldest(1)[0]
        outbox.mark_ledgered({row.row_id: 7}, LedgerHead(seq=7, hash="a" * 64))
        outbox.put([OutboxItem(event_key=f"t{number}", event=health) for number in range(300)])
        assert outbox.oldest(1)[0].event_key == "sent"


def test_ledger_place_and_head_are_kept(
    tmp_path: Path, guard: EgressGuard, analysis: AnalysisEvent
) -> None:
    path = tmp_path / "outbox.db"
    with Outbox(path, guard=guard) as outbox:
        assert outbox.ledger_head() is None
        outbox.put([OutboxItem(event_key=key, event=analysis) for key in "ab"])
        row_id = outbox.oldest(1)[0].row_id
        outbox.mark_ledgered({row_id: 41}, LedgerHead(seq=41, hash="f" * 64))
    with Outbox(path, guard=guard) as outbox:
        assert [row.ledger_seq for row in outbox.oldest(2)] == [41, None]
        assert outbox.ledger_head() == LedgerHead(seq=41, hash="f" * 64)


def test_second_writer_is_refused(tmp_path: Path, guard: EgressGuard) -> None:
    path = tmp_path / "outbox.db"
    with Outbox(path, guard=guard), pytest.raises(AlreadyOpenError):
        Outbox(path, guard=guard)
    Outbox(path, guard=guard).close()


def test_database_of_a_newer_version_is_left_alone(tmp_path: Path, guard: EgressGuard) -> None:
    path = tmp_path / "outbox.db"
    Outbox(path, guard=guard).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OutboxNewerError, match="schema 99"):
        Outbox(path, guard=guard)


def test_file_that_is_no_database_is_told_with_a_remedy(tmp_path: Path, guard: EgressGuard) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(OutboxError, match="move it away"):
        Outbox(path, guard=guard)


def test_database_survives_a_power_cut_as_set_up(tmp_path: Path, guard: EgressGuard) -> None:
    with Outbox(tmp_path / "outbox.db", guard=guard) as outbox:
        assert outbox._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert outbox._db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_cap_has_a_floor(tmp_path: Path, guard: EgressGuard) -> None:
    with pytest.raises(ValueError, match="cap_bytes"):
        Outbox(tmp_path / "outbox.db", guard=guard, cap_bytes=1)


def test_long_outage_stays_small_on_disk(
    tmp_path: Path, guard: EgressGuard, analysis: AnalysisEvent
) -> None:
    # A tenth of 72 h at one event per 10 s; the goal for all of it is 16 MB.
    path = tmp_path / "outbox.db"
    with Outbox(path, guard=guard) as outbox:
        for start in range(0, 2_592, 96):
            outbox.put(
                [
                    OutboxItem(event_key=f"{number:032x}", event=analysis)
                    for number in range(start, start + 96)
                ]
            )
        estimate = outbox.statistics().waiting_bytes
    assert path.stat().st_size <= 1_677_721
    assert 0.9 < estimate / path.stat().st_size < 1.3

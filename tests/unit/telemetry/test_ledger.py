"""The egress ledger: what is in it stays, and every change shows."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from telemetry.errors import AlreadyOpenError, LedgerDamagedError, LedgerWriteError
from telemetry.ledger import (
    GENESIS,
    Ledger,
    LedgerFault,
    LedgerHead,
    LedgerRecord,
    LedgerReport,
    read_entries,
    verify,
)


def record(number: int) -> LedgerRecord:
    return LedgerRecord(topic="f/v1/d/up/event", payload=b'{"number":%d}' % number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of five entries, closed."""
    with Ledger(tmp_path) as ledger:
        ledger.append([record(1), record(2)], wall_us=1_000)
        ledger.append([record(3)], wall_us=2_000)
        ledger.append([record(4), record(5)], wall_us=3_000)
    return tmp_path / "egress.jsonl"


def faults(report: LedgerReport) -> set[LedgerFault]:
    return {finding.fault for finding in report.findings}


def test_entries_are_listed_oldest_first_with_their_payloads(path: Path) -> None:
    entries = list(read_entries(path))
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert [json.loads(entry.payload)["number"] for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.wall_us for entry in entries] == [1_000, 1_000, 2_000, 3_000, 3_000]
    assert entries[0].previous == GENESIS
    assert entries[0].payload_sha256 == hashlib.sha256(b'{"number":1}').hexdigest()


def test_chain_can_be_checked_without_our_code(path: Path) -> None:
    previous = GENESIS
    for line in path.read_bytes().splitlines():
        members = json.loads(line)
        said = members.pop("hash")
        assert members["previous"] == previous
        body = json.dumps(members, separators=(",", ":")).encode()
        previous = hashlib.sha256(body).hexdigest()
        assert said == previous


def test_untouched_ledger_is_intact(path: Path) -> None:
    report = verify(path)
    assert report.is_intact
    assert (report.entries, report.findings) == (5, ())
    assert report.head is not None
    assert report.head.seq == 5


def test_reopened_ledger_continues_the_chain(path: Path) -> None:
    with Ledger(path.parent) as ledger:
        assert ledger.append([record(6)], wall_us=4_000).seq == 6
    assert verify(path).entries == 6
    assert verify(path).is_intact


def test_ledger_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert verify(tmp_path / "egress.jsonl") == LedgerReport(entries=0, head=None, findings=())
    assert list(read_entries(tmp_path / "egress.jsonl")) == []


def test_every_changed_byte_is_found(path: Path) -> None:
    good = path.read_bytes()
    second = good.index(b"\n") + 1
    third = good.index(b"\n", second) + 1
    for place in range(second, third):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert not verify(path).is_intact, place


def test_edit_with_a_new_hash_of_its_own_breaks_the_chain(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    members = json.loads(lines[2])
    del members["hash"]
    members["payload"] = "{}"
    members["payload_sha256"] = hashlib.sha256(b"{}").hexdigest()
    body = json.dumps(members, separators=(",", ":")).encode()
    digest = hashlib.sha256(body).hexdigest()
    lines[2] = body[:-1] + f',"hash":"{digest}"}}\n'.encode()
    path.write_bytes(b"".join(lines))
    report = verify(path)
    assert [(f.fault, f.line) for f in report.findings] == [(LedgerFault.BROKEN_CHAIN, 4)]


def test_member_that_was_added_is_found(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'{"seq":3', b'{"note":"x","seq":3'))
    assert faults(verify(path)) == {LedgerFault.ALTERED, LedgerFault.BROKEN_CHAIN}


def test_line_that_is_no_entry_is_found(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for garbage in (b"\n", b"[]\n", b"\xff\n", b"{}\n", b'{"seq":"1"}\n', b"[" * 50_000 + b"\n"):
        path.write_bytes(b"".join([*lines[:2], garbage, *lines[2:]]))
        report = verify(path)
        assert [(f.fault, f.line) for f in report.findings] == [(LedgerFault.UNREADABLE, 3)]
        with pytest.raises(LedgerDamagedError, match="line 3"):
            list(read_entries(path))


def test_removed_line_is_found(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for place in range(4):
        path.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
        assert LedgerFault.BROKEN_CHAIN in faults(verify(path))


def test_reordered_lines_are_found(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    path.write_bytes(b"".join(lines))
    assert faults(verify(path)) == {LedgerFault.BROKEN_CHAIN}


def test_lines_cut_off_at_the_end_are_found_with_a_head_kept_elsewhere(path: Path) -> None:
    head = verify(path).head
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    assert verify(path).is_intact
    assert faults(verify(path, at_least=head)) == {LedgerFault.CUT_SHORT}


def test_head_kept_elsewhere_may_lag_behind(path: Path) -> None:
    earlier = list(read_entries(path))[2]
    head = LedgerHead(seq=earlier.seq, hash=earlier.hash)
    assert verify(path, at_least=head).is_intact


def test_chain_written_anew_is_found_with_a_head_kept_elsewhere(path: Path) -> None:
    head = verify(path).head
    path.unlink()
    with Ledger(path.parent) as ledger:
        ledger.append([record(9)] * 7, wall_us=1)
    assert verify(path).is_intact
    assert faults(verify(path, at_least=head)) == {LedgerFault.CUT_SHORT}


def test_line_torn_at_any_byte_is_moved_aside_and_the_chain_goes_on(path: Path) -> None:
    good = path.read_bytes()
    last = good.rindex(b"\n", 0, -1) + 1
    for place in {last + 1, *range(last + 2, len(good), 7), len(good) - 1}:
        path.write_bytes(good[:place])
        torn = verify(path)
        assert torn.is_intact
        assert faults(torn) == {LedgerFault.TORN_TAIL}
        assert [entry.seq for entry in read_entries(path)] == [1, 2, 3, 4]
        with Ledger(path.parent) as ledger:
            assert ledger.head == torn.head
            ledger.append([record(5)], wall_us=4_000)
        assert verify(path).findings == ()
        (aside,) = path.parent.glob("egress.torn-*")
        assert aside.read_bytes() == good[last:place]
        aside.unlink()


def test_first_line_torn_leaves_an_empty_ledger(tmp_path: Path) -> None:
    (tmp_path / "egress.jsonl").write_bytes(b'{"seq":1,"wal')
    with Ledger(tmp_path) as ledger:
        assert ledger.head is None
        assert ledger.append([record(1)], wall_us=1).seq == 1
    assert (tmp_path / "egress.torn-0-1").read_bytes() == b'{"seq":1,"wal'


def test_second_tear_at_the_same_place_keeps_the_first(path: Path) -> None:
    for tail in (b"first", b"second"):
        with path.open("ab") as stream:
            stream.write(tail)
        Ledger(path.parent).close()
    asides = sorted(path.parent.glob("egress.torn-*"))
    assert [aside.read_bytes() for aside in asides] == [b"first", b"second"]


def test_zeros_that_a_power_cut_left_are_a_torn_tail(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(bytes(4_096))
    with Ledger(path.parent) as ledger:
        assert ledger.head is not None
        assert ledger.head.seq == 5


def test_ledger_whose_last_line_was_altered_is_not_continued(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'number\\":5', b'number\\":6'))
    with pytest.raises(LedgerDamagedError, match="egress verify"):
        Ledger(path.parent)
    with pytest.raises(LedgerDamagedError):
        Ledger(path.parent)  # the lock was given back


def test_line_longer_than_any_of_ours_is_unreadable_and_not_continued(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"x" * 3_000_000)
    assert LedgerFault.UNREADABLE in faults(verify(path))
    with pytest.raises(LedgerDamagedError):
        Ledger(path.parent)


def test_second_writer_is_refused_and_readers_are_not(path: Path) -> None:
    with Ledger(path.parent):
        with pytest.raises(AlreadyOpenError):
            Ledger(path.parent)
        assert verify(path).is_intact
    Ledger(path.parent).close()


def test_failed_write_is_told_and_the_next_append_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write

    def full_disk(handle: int, data: memoryview) -> int:
        if len(data) < 60:
            raise OSError(errno.ENOSPC, "no space left")
        return real_write(handle, data[: len(data) - 50])

    with Ledger(tmp_path) as ledger:
        ledger.append([record(1)], wall_us=1)
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full_disk)
            with pytest.raises(LedgerWriteError, match="free disk space"):
                ledger.append([record(2)], wall_us=2)
        assert ledger.append([record(3)], wall_us=3).seq == 2
    report = verify(tmp_path / "egress.jsonl")
    assert report.findings == ()
    assert report.entries == 2


def test_nothing_to_append_is_a_bug(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger, pytest.raises(ValueError, match="nothing"):
        ledger.append([], wall_us=1)

"""A fault of the journal itself, while it is made or while a segment is used again.

Nothing that was acknowledged is lost, and stores go on.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from simulators.fault_injector import (
    Step,
    failing,
    inject,
    inject_on,
    record,
    was_injected,
    why_not,
)
from simulators.inspection import journal_of
from simulators.lone_node import LoneNode, Way
from simulators.remembering_scanner import Act, Scanner, prepare, scanning
from simulators.torn import tear_file
from simulators.waiting import wait_until
from simulators.watched_store import watch

from dicom_node.errors import PeerUnreachableError
from dicom_node.journal import SEGMENTS
from dicom_node.requestor import Connection
from dicom_node.scu import outgoing_file
from dicom_node.status import StoreStatus

_WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=f"no faults: {_WHY_NOT}")

# The smallest journal; a segment of it takes five of the small instances.
_NARROW_BYTES = 4 << 20
_NARROW_RECORDS = 5
# The longest that a journal keeps a record, and some time to sync.
_JOURNAL_AGE_S = 15.0
_KILL = "signal=SIGKILL"
# What Linux's file systems answer when a disk is broken or full.
_BROKEN, _FULL = "EIO", "ENOSPC"


# ---------------------------------------------------------------- an instance is acknowledged


def test_a_record_is_forced_out_of_the_disks_cache_before_the_answer(tmp_path: Path) -> None:
    """A write past the page cache has only reached the disk; what that keeps, a sync decides."""
    with scanning(tmp_path, way=Way.JOURNAL) as scanner:
        steps = watch(scanner, Act.FIRST)
        thread = next(step.thread for step in steps if step.on == "journal")
        kinds = [(step.call, step.on) for step in steps if step.thread == thread]
        written = kinds.index(("pwrite64", "journal"))
        answered = kinds.index(("sendto", "socket"), written)
        syncs = {("fdatasync", "journal"), ("fsync", "journal")}
        assert _syncs_each_write(scanner.node) or syncs & {*kinds[written:answered]}


def _syncs_each_write(node: LoneNode) -> bool:
    """All segments are open so; their own flags tell, by proc_pid_fdinfo(5)."""
    process, found = Path(f"/proc/{node.pid}"), []
    for link in (process / "fd").iterdir():
        if link.readlink().parent == node.spool / "journal":
            _, flags = (process / "fdinfo" / link.name).read_text("ascii").split("flags:")
            found.append(int(flags.split()[0], 8))
    assert len(found) == SEGMENTS
    return all(flags & os.O_DSYNC for flags in found)


# ---------------------------------------------------------------- a segment is used again


@pytest.mark.parametrize("call", ["syncfs", "pwrite64"])
def test_killed_while_a_segment_is_made_new_the_node_keeps_what_it_acknowledged(
    call: str, tmp_path: Path
) -> None:
    with scanning(tmp_path, way=Way.JOURNAL, journal_bytes=_NARROW_BYTES) as scanner:
        steps = {step.call: step for step in _renewal(scanner)}
        assert list(steps) == ["syncfs", "pwrite64"]
        study, connection = prepare(scanner, Act.SECOND)
        one = _file_of(scanner, study.one)
        with inject(scanner.node.pid, steps[call], _KILL, scanner.folder):
            # Its answer may be lost: the journal's thread dies beside it.
            with contextlib.suppress(PeerUnreachableError):
                _seal(scanner, connection)
            scanner.node.wait_until_dead()
        assert one in _files_in_journal(scanner)
        tear_file(one)
        assert scanner.node.start()
        scanner.assert_kept()


def _renewal(scanner: Scanner) -> list[Step]:
    """What the journal's thread does when a segment is full."""
    study = scanner.draw()
    connection = scanner.associate(study)
    assert scanner.send(connection, study.one) == StoreStatus.SUCCESS
    one = _file_of(scanner, study.one)
    with record(scanner.node.pid, scanner.folder, from_thread=0) as steps:
        _seal(scanner, connection)
        _wait_until_out_of_journal(scanner, one)
    scanner.part(connection)
    thread = next(step.thread for step in steps if step.call == "syncfs")
    return [step for step in steps if step.thread == thread and step.is_on_disk]


def test_a_sync_that_fails_lets_the_journal_write_its_files_again(tmp_path: Path) -> None:
    with scanning(tmp_path, way=Way.JOURNAL, journal_bytes=_NARROW_BYTES) as scanner:
        sync = next(step for step in _renewal(scanner) if step.call == "syncfs")
        study, connection = prepare(scanner, Act.SECOND)
        one = _file_of(scanner, study.one)
        tear_file(one)  # as a kernel does that could not write the pages
        with inject(scanner.node.pid, sync, f"error={_BROKEN}", scanner.folder) as output:
            _seal(scanner, connection)
            _wait_until_out_of_journal(scanner, one)
        assert was_injected(output)
        assert b'"node.journal_rewrites_files"' in scanner.node.said()
        scanner.part(connection)
        scanner.assert_kept()


def test_a_sync_that_failed_is_not_forgotten_while_the_files_cannot_be_written_again(
    tmp_path: Path,
) -> None:
    """The kernel tells of lost pages once: the next sync succeeds, and has not written them."""
    with scanning(tmp_path, way=Way.JOURNAL, journal_bytes=_NARROW_BYTES) as scanner:
        study, connection = prepare(scanner, Act.SECOND)
        one = _file_of(scanner, study.one)
        tear_file(one)
        with failing(scanner.node.pid, "syncfs,fsync", _BROKEN, tmp_path):
            _seal(scanner, connection)
            wait_until(lambda: b'"node.journal_stuck"' in scanner.node.said(), _JOURNAL_AGE_S)
            tear_file(one)  # what was written again was lost again
        _wait_until_out_of_journal(scanner, one)
        scanner.part(connection)
        scanner.assert_kept()


def test_a_sync_that_fails_tells_of_the_files_of_later_segments_too(tmp_path: Path) -> None:
    with scanning(tmp_path, way=Way.JOURNAL, journal_bytes=_NARROW_BYTES) as scanner:
        sync = next(step for step in _renewal(scanner) if step.call == "syncfs")
        study, connection = prepare(scanner, Act.SECOND)
        one = _file_of(scanner, study.one)
        late = f"error={_BROKEN}:delay_enter=1000000"  # in microseconds
        with inject(scanner.node.pid, sync, late, scanner.folder) as output:
            later = _file_of(scanner, _seal(scanner, connection))
            tear_file(later)  # lost before the sync failed, in a segment that it was not for
            _wait_until_out_of_journal(scanner, one)
        assert was_injected(output)
        _wait_until_out_of_journal(scanner, later)  # by its age
        scanner.part(connection)
        scanner.assert_kept()


def _seal(scanner: Scanner, connection: Connection) -> Path:
    """Send until the segment that is filled has changed; the last file."""
    for _ in range(_NARROW_RECORDS):
        study = scanner.draw()
        assert scanner.send(connection, study.one) == StoreStatus.SUCCESS
    return study.one


def _file_of(scanner: Scanner, sent: Path) -> Path:
    return scanner.node.spool / scanner.look().paths[outgoing_file(sent).sop_instance_uid]


def _wait_until_out_of_journal(scanner: Scanner, file: Path) -> None:
    wait_until(lambda: file not in _files_in_journal(scanner), _JOURNAL_AGE_S)


def _files_in_journal(scanner: Scanner) -> set[Path]:
    return {scanner.node.spool / path for path in journal_of(scanner.node.spool)}


def test_a_segment_that_cannot_be_made_new_waits_while_the_others_are_used(tmp_path: Path) -> None:
    with scanning(tmp_path, way=Way.JOURNAL, journal_bytes=_NARROW_BYTES) as scanner:
        renew = next(step for step in _renewal(scanner) if step.call == "pwrite64")
        study, connection = prepare(scanner, Act.SECOND)
        one = _file_of(scanner, study.one)
        with inject(scanner.node.pid, renew, f"error={_BROKEN}", scanner.folder) as output:
            _seal(scanner, connection)
            wait_until(lambda: b'"node.journal_stuck"' in scanner.node.said(), _JOURNAL_AGE_S)
        assert was_injected(output)
        for _ in range(3):  # as many segments are left
            _seal(scanner, connection)
        _wait_until_out_of_journal(scanner, one)
        scanner.part(connection)
        scanner.assert_kept()


# ---------------------------------------------------------------- the journal is made


@pytest.mark.parametrize(
    ("call", "segment", "count"),
    [
        ("openat", 0, 1),
        ("pwrite64", 0, 1),  # an empty file is there
        ("pwrite64", 2, 2),  # a part of it
        ("fsync", 1, 1),
        ("pwrite64", 3, 3),  # its first generation
    ],
)
def test_killed_while_it_makes_its_journal_it_makes_it(
    call: str, segment: int, count: int, tmp_path: Path
) -> None:
    node = LoneNode(folder=tmp_path)
    file = node.spool / "journal" / f"{segment}.journal"
    node.prepare()
    with inject_on(node.pid, call, file, _KILL, tmp_path, count=count):
        assert not node.start()
    with node:
        assert b'"node.journal_ready"' in node.said()
        _assert_made(node)
        scanner = Scanner(node=node, folder=tmp_path)
        study = scanner.draw()
        scanner.send_all([study.one], study)
        assert len(journal_of(node.spool)) == 1
        scanner.assert_kept()


def _assert_made(node: LoneNode) -> None:
    """Each segment has all its blocks, written, so that no record changes more than its bytes."""
    segments = sorted((node.spool / "journal").iterdir())
    assert len(segments) == SEGMENTS
    for segment in segments:
        assert segment.stat().st_size == node.journal_bytes // SEGMENTS
        with segment.open("rb") as stream:  # blocks without bytes are a hole, too: lseek(2)
            assert os.lseek(stream.fileno(), 0, os.SEEK_HOLE) == segment.stat().st_size


def test_a_segment_that_cannot_be_made_leaves_no_instance_in_the_journal(tmp_path: Path) -> None:
    node = LoneNode(folder=tmp_path)
    segment = node.spool / "journal" / "2.journal"
    with contextlib.ExitStack() as stack:
        stack.callback(node.kill)
        node.prepare()
        with inject_on(node.pid, "pwrite64", segment, f"error={_FULL}", tmp_path):
            assert node.start()
        assert b'"node.journal_off"' in node.said()
        scanner = Scanner(node=node, folder=tmp_path)
        study = scanner.draw()
        scanner.send_all([study.one, study.three], study)
        wait_until(lambda: not journal_of(node.spool), _JOURNAL_AGE_S)
        scanner.assert_kept()


def test_a_segment_that_cannot_be_read_keeps_the_node_from_starting_without_it(
    tmp_path: Path,
) -> None:
    with scanning(tmp_path, way=Way.JOURNAL) as scanner:
        study = scanner.draw()
        scanner.send_all([study.one], study)
        one, node = _file_of(scanner, study.one), scanner.node
        node.kill()
        one.unlink()
        segment = node.spool / "journal" / "1.journal"
        node.prepare()
        with inject_on(node.pid, "preadv,preadv2", segment, f"error={_BROKEN}", tmp_path) as output:
            assert not node.start()
        assert b'"process.refused"' in node.said()
        assert was_injected(output)
        assert node.start()
        scanner.assert_kept()


# ---------------------------------------------------------------- a file cannot be written


def test_of_a_file_that_can_neither_be_written_nor_removed_nothing_half_is_held(
    tmp_path: Path,
) -> None:
    with scanning(tmp_path, way=Way.JOURNAL) as scanner:
        study, connection = prepare(scanner, Act.SECOND)
        with failing(scanner.node.pid, "write,unlink", _BROKEN, tmp_path):
            assert scanner.send(connection, study.three) == StoreStatus.OUT_OF_RESOURCES
        connection.echo()
        assert scanner.send(connection, study.three) == StoreStatus.SUCCESS
        scanner.part(connection)
        scanner.node.kill()
        assert scanner.node.start()
        scanner.assert_kept()

"""DESIGN.md section 3: a fault at any step of a store costs nothing that was acknowledged.

Killed there, or left by its disk there, the node holds nothing twice and nothing half, and goes on
by itself.

The steps are not listed here: each test first watches which system calls a store makes, then puts
a fault at each of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import pytest
from simulators.fault_injector import (
    Step,
    failing,
    inject,
    killed_start,
    record,
    steps_of_start,
    was_injected,
    watched_start,
    why_not,
)
from simulators.inspection import assert_held, journal_of
from simulators.lone_node import LoneNode, Way
from simulators.remembering_scanner import (
    TIMEOUTS,
    Act,
    Scanner,
    data_set_of,
    prepare,
    scanning,
)
from simulators.torn import tear_file, tear_record
from simulators.waiting import wait_until

from dicom_node.errors import PeerUnreachableError
from dicom_node.requestor import Connection
from dicom_node.scu import outgoing_file, verify_peer
from dicom_node.status import StoreStatus

_WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=f"no faults: {_WHY_NOT}")

each_way = pytest.mark.parametrize("way", Way, ids=lambda way: way.value)
# A large instance and a release go past the journal: these steps are those with a journal.
_TAKEN_BEFORE = {(Act.SECOND, Way.SYNCED), (Act.RELEASE, Way.SYNCED)}
_CASES = [(act, way) for act in Act for way in Way if (act, way) not in _TAKEN_BEFORE]
each_act = pytest.mark.parametrize(("act", "way"), _CASES, ids=lambda each: each.value)
each_store = pytest.mark.parametrize(
    ("act", "way"),
    [(act, way) for act, way in _CASES if act is not Act.RELEASE],
    ids=lambda each: each.value,
)

# A database that has grown needs a page more or less than the one that was watched, and Python
# opens other files: a few steps are not reached.
_MOST = 0.8
_MOST_KILLS = {Way.JOURNAL: 14, Way.SYNCED: 10, Way.LIBRARY: 6}
_KILL = "signal=SIGKILL"
# What Linux's file systems answer these calls with when a disk is broken, full or read-only.
_BROKEN, _FULL, _OVER_QUOTA, _READ_ONLY = "EIO", "ENOSPC", "EDQUOT", "EROFS"
_ERRORS = {
    "openat": (_BROKEN, _FULL, _OVER_QUOTA, _READ_ONLY),
    "rename": (_BROKEN, _FULL, _OVER_QUOTA, _READ_ONLY),
    "unlink": (_BROKEN, _READ_ONLY),
    "ftruncate": (_BROKEN, _READ_ONLY),
}
_WRITE_ERRORS = (_BROKEN, _FULL, _OVER_QUOTA)


def _watch(scanner: Scanner, act: Act) -> list[Step]:
    """The steps of an act, in their order."""
    study, connection = prepare(scanner, act)
    with record(scanner.node.pid, scanner.folder, from_thread=scanner.idle_threads) as steps:
        for path in study.at(act):
            assert scanner.send(connection, path) == StoreStatus.SUCCESS
        if act is Act.RELEASE:
            scanner.part(connection)
    scanner.part(connection)
    scanner.rows = scanner.assert_kept().rows
    assert "sendto" in {step.call for step in steps}
    assert act is Act.RELEASE or _went_by(scanner, act) <= {(step.call, step.on) for step in steps}
    return steps


def _went_by(scanner: Scanner, act: Act) -> set[tuple[str, str]]:
    """Steps that tell that the instance of an act went its way; ``two`` goes by no journal."""
    if scanner.node.journal_bytes and act is not Act.SECOND:
        return {("pwrite64", "journal"), ("write", "shard file")}
    return {("fdatasync", "incoming file"), ("rename", "incoming file")}


def _ends_of_runs(steps: Sequence[Step]) -> list[Step]:
    """Of steps in a row that do the same, the first, the middle one and the last."""
    chosen = []
    for _, group in groupby(steps, key=lambda step: (step.thread, step.call, step.on)):
        run = list(group)
        chosen += [run[index] for index in sorted({0, len(run) // 2, len(run) - 1})]
    return chosen


def _spread(steps: Sequence[Step], at_most: int) -> list[Step]:
    """So many of the steps, evenly spread, the first and the last among them."""
    if len(steps) <= at_most:
        return list(steps)
    return [steps[index * (len(steps) - 1) // (at_most - 1)] for index in range(at_most)]


# ---------------------------------------------------------------- killed


@each_act
def test_killed_at_a_step_the_node_keeps_what_it_acknowledged(
    act: Act, way: Way, tmp_path: Path
) -> None:
    def choose(steps: Sequence[Step]) -> list[Step]:
        return _spread(_ends_of_runs(steps), _MOST_KILLS[way])

    _survive_kills(act, tmp_path, way=way, choose=choose)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@each_act
def test_killed_at_every_step_the_node_keeps_what_it_acknowledged(
    act: Act, way: Way, tmp_path: Path
) -> None:
    _survive_kills(act, tmp_path, way=way, choose=list)


def _survive_kills(
    act: Act, folder: Path, *, way: Way, choose: Callable[[Sequence[Step]], list[Step]]
) -> None:
    with scanning(folder, way=way) as scanner:
        steps = choose(_watch(scanner, act))
        kills = sum(_kill_at(scanner, act, step) for step in steps)
        assert kills >= _MOST * len(steps)


def _kill_at(scanner: Scanner, act: Act, step: Step) -> bool:
    """Kill at one step, start again, send everything again; whether the step was reached."""
    study, connection = prepare(scanner, act)
    with inject(scanner.node.pid, step, _KILL, scanner.folder):
        is_killed = _is_killed(scanner, connection, study.at(act))
    if is_killed:
        scanner.node.wait_until_dead()
        assert scanner.node.start(), f"no start after a kill at {step}"
    scanner.assert_kept()
    sent = [*study.before(act), *study.at(act)]
    scanner.send_all(sent, study)
    held = scanner.assert_kept()
    assert held.rows - scanner.rows == len({*sent} - {study.other}), f"killed at {step}"
    assert len(held.quarantine_files) == scanner.conflicts, f"killed at {step}"
    scanner.rows = held.rows
    return is_killed


def _is_killed(scanner: Scanner, connection: Connection, paths: Sequence[Path]) -> bool:
    try:
        for path in paths:
            assert scanner.send(connection, path) == StoreStatus.SUCCESS
        connection.close()
        wait_until(lambda: not scanner.node.is_alive or scanner.is_quiet())
        # A process that is dying has few threads, too, but no voice.
        verify_peer(scanner.node.address, calling_ae_title="SCANNER", timeouts=TIMEOUTS)
    except PeerUnreachableError:
        return True
    return False


# ---------------------------------------------------------------- killed while it starts


def test_killed_while_it_starts_for_the_first_time_it_starts(tmp_path: Path) -> None:
    _survive_kills_at_first_start(tmp_path, at_most=8)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_killed_anywhere_in_its_first_start_it_starts(tmp_path: Path) -> None:
    _survive_kills_at_first_start(tmp_path, at_most=1_000)


def _survive_kills_at_first_start(folder: Path, *, at_most: int) -> None:
    record_file, killed_file = folder / "start.strace", folder / "killed.strace"
    with LoneNode(folder=_made(folder / "watched")) as watched:
        watched.stop()
        shutil.rmtree(watched.state_dir)
        assert watched.start(under=watched_start(record_file))
    steps = _ends_of_runs(steps_of_start(record_file))
    assert {"mkdir", "fdatasync", "pwrite64"} <= {step.call for step in steps}
    chosen = _spread(steps, at_most)
    kills = 0
    for number, step in enumerate(chosen):
        node = LoneNode(folder=_made(folder / str(number)))
        kills += not node.start(under=killed_start(step, killed_file))
        node.kill()
        with node:
            scanner = Scanner(node=node, folder=node.folder)
            study = scanner.draw()
            scanner.send_all([study.one], study)
            scanner.assert_kept()
        shutil.rmtree(node.folder)
    assert kills >= _MOST * len(chosen)


def test_killed_while_it_settles_a_crash_it_settles_it(tmp_path: Path) -> None:
    _survive_kills_while_settling(tmp_path, at_most=4)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_killed_anywhere_while_it_settles_a_crash_it_settles_it(tmp_path: Path) -> None:
    _survive_kills_while_settling(tmp_path, at_most=1_000)


def _survive_kills_while_settling(folder: Path, *, at_most: int) -> None:
    record_file, killed_file = folder / "start.strace", folder / "killed.strace"
    with scanning(folder, way=Way.JOURNAL) as scanner:
        _leave_a_crash(scanner)
        assert scanner.node.start(under=watched_start(record_file))
        assert b'"node.journal_replayed"' in scanner.node.said()
        scanner.assert_kept()
        steps = _ends_of_runs(steps_of_start(record_file))
        assert {"rename", "unlink", "fdatasync"} <= {step.call for step in steps}
        replay, rest = _divide(steps)
        kills = 0
        chosen = [*_spread(replay, at_most), *_spread(rest, at_most)]
        for step in chosen:
            _leave_a_crash(scanner)
            kills += not scanner.node.start(under=killed_start(step, killed_file))
            scanner.node.kill()
            assert scanner.node.start(), f"no start after a kill at {step}"
            held = scanner.assert_kept()
            assert len(held.quarantine_files) == scanner.conflicts, f"killed at {step}"
        assert kills >= _MOST * len(chosen)


def _divide(steps: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    """What the journal did, from its first step to its last, and all else."""
    of_journal = [index for index, step in enumerate(steps) if step.on == "journal"]
    begin, end = of_journal[0], of_journal[-1] + 1
    assert {"write", "fsync"} <= {step.call for step in steps[begin:end]}
    return list(steps[begin:end]), [*steps[:begin], *steps[end:]]


def _leave_a_crash(scanner: Scanner) -> None:
    """Kill the node, with files that have no row (new, known, contradicting) and an unfinished one.

    They are what a kill between the name and the row leaves, in one go. Of the files in the
    journal, one is gone and one is torn, as after a power failure, and so is a last record.
    """
    study, spool = scanner.draw(), scanner.node.spool
    scanner.send_all([study.one, study.three], study)
    scanner.node.kill()
    one, three = (
        scanner.look().paths[outgoing_file(path).sop_instance_uid]
        for path in (study.one, study.three)
    )
    assert {one, three} <= journal_of(spool).keys()
    (spool / one).unlink()
    tear_file(spool / three)
    tear_record(spool)
    for number, path in enumerate((study.one, study.two, study.other)):
        shutil.copy(path, spool / "0a" / f"{scanner.studies:028x}0{number}.dcm")
    (spool / "incoming" / "unfinished").write_bytes(b"half")
    scanner.held[outgoing_file(study.two).sop_instance_uid] = data_set_of(study.two)
    scanner.conflicts += 1


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# ---------------------------------------------------------------- the disk fails


@each_store
def test_a_disk_that_fails_at_any_step_costs_one_answer(act: Act, way: Way, tmp_path: Path) -> None:
    with scanning(tmp_path, way=way) as scanner:
        steps = [step for step in _ends_of_runs(_watch(scanner, act)) if step.is_on_disk]
        pid = scanner.node.pid
        for step in steps:
            for error in _ERRORS.get(step.call, _WRITE_ERRORS):
                _fail_at(scanner, act, step, error)
        assert scanner.node.pid == pid
        assert scanner.node.is_alive
        assert scanner.node.stop() == 0
        assert scanner.node.start()
        held = scanner.assert_kept()
        assert len(held.quarantine_files) == scanner.conflicts


def _fail_at(scanner: Scanner, act: Act, step: Step, error: str) -> None:
    study, connection = prepare(scanner, act)
    where = f"{error} at {step}"
    with inject(scanner.node.pid, step, f"error={error}", scanner.folder) as output:
        (path,) = study.at(act)
        status = scanner.send(connection, path)
    if was_injected(output):
        assert status == StoreStatus.OUT_OF_RESOURCES, where
    # The association lives on, and the very next try is taken.
    connection.echo()
    assert scanner.send(connection, path) == StoreStatus.SUCCESS, where
    assert scanner.send(connection, study.two) == StoreStatus.SUCCESS, where
    scanner.part(connection)
    held = scanner.look()
    assert held.faults == (), where
    assert held.incoming == 0, where
    assert set(held.paths.values()) <= held.files, where
    assert_held(held, scanner.node.spool, scanner.held)


@each_way
def test_a_log_that_cannot_be_written_costs_nothing(way: Way, tmp_path: Path) -> None:
    with scanning(tmp_path, way=way) as scanner:
        steps = [step for step in _watch(scanner, Act.FIRST) if step.on == "log"]
        assert steps
        for step in steps:
            study, connection = prepare(scanner, Act.FIRST)
            with inject(scanner.node.pid, step, "error=ENOSPC", scanner.folder) as output:
                assert scanner.send(connection, study.one) == StoreStatus.SUCCESS
                scanner.part(connection)
            assert was_injected(output)
        scanner.assert_kept()


@each_way
@pytest.mark.parametrize(
    ("calls", "error"),
    [
        ("fdatasync,fsync", _BROKEN),
        ("pwrite64,write,writev", _FULL),
        ("rename", _READ_ONLY),
        ("fdatasync,fsync,pwrite64,write,writev,rename,unlink,ftruncate", _BROKEN),
    ],
)
def test_while_the_disk_fails_each_store_is_refused_and_then_all_is_well(
    calls: str, error: str, way: Way, tmp_path: Path
) -> None:
    with scanning(tmp_path, way=way) as scanner:
        study, connection = prepare(scanner, Act.SECOND)
        with failing(scanner.node.pid, calls, error, tmp_path):
            for path in (study.two, study.two, study.other):
                assert scanner.send(connection, path) == StoreStatus.OUT_OF_RESOURCES
            if "pwrite64" in calls or way is not Way.JOURNAL:  # the journal needs no other call
                assert scanner.send(connection, study.three) == StoreStatus.OUT_OF_RESOURCES
            connection.echo()
        assert scanner.send(connection, study.two) == StoreStatus.SUCCESS
        assert scanner.send(connection, study.three) == StoreStatus.SUCCESS
        scanner.part(connection)
        assert scanner.node.stop() == 0
        assert scanner.node.start()
        scanner.assert_kept()

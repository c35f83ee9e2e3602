"""DESIGN.md section 3: killed at any step of a store, nothing that was acknowledged is lost.

The node then holds nothing twice and nothing half, and goes on by itself. The same is true of its
start, and of a start that settles what an earlier kill left.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from simulators.fault_injector import (
    SYNCS,
    Step,
    inject,
    record,
    why_not,
)
from simulators.inspection import journal_of
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
from simulators.watched_store import ACTS, ends_of_runs, watch

from dicom_node.errors import PeerUnreachableError
from dicom_node.requestor import Connection
from dicom_node.scu import outgoing_file, verify_peer
from dicom_node.status import StoreStatus

_WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=f"no faults: {_WHY_NOT}")

each_act = pytest.mark.parametrize(("act", "way"), ACTS, ids=lambda each: each.value)

# A database that has grown needs a page more or less than the one that was watched, and Python
# opens other files: a few steps are not reached.
_MOST = 0.8
_MOST_KILLS = {Way.JOURNAL: 14, Way.SYNCED: 10, Way.LIBRARY: 6}
_KILL = "signal=SIGKILL"


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
        changes = _after_changes(steps)
        chosen = [step for step in ends_of_runs(steps) if step in changes]
        return _spread(chosen, _MOST_KILLS[way])

    _survive_kills(act, tmp_path, way=way, choose=choose)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@each_act
def test_killed_at_every_step_the_node_keeps_what_it_acknowledged(
    act: Act, way: Way, tmp_path: Path
) -> None:
    _survive_kills(act, tmp_path, way=way, choose=list)


def _after_changes(steps: Sequence[Step]) -> list[Step]:
    """Steps before which the disk has changed, or the peer has heard something.

    Killed at another, a process leaves what it leaves when it is killed at the one before: a kill
    costs nothing that the kernel has, be it synced or not.
    """
    return [
        *steps[:1],
        *(
            step
            for before, step in pairwise(steps)
            if _changes(before) or before.thread != step.thread
        ),
    ]


def _changes(step: Step) -> bool:
    return step.on == "socket" or (step.is_on_disk and step.call not in SYNCS)


def _survive_kills(
    act: Act, folder: Path, *, way: Way, choose: Callable[[Sequence[Step]], list[Step]]
) -> None:
    with scanning(folder, way=way) as scanner:
        steps = choose(watch(scanner, act))
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
    watched = LoneNode(folder=_made(folder / "watched"))
    steps = _watch_start(watched)
    watched.kill()
    assert {"mkdir", "fdatasync", "pwrite64"} <= {step.call for step in steps}
    chosen = _spread(steps, at_most)
    kills = 0
    for number, step in enumerate(chosen):
        node = LoneNode(folder=_made(folder / str(number)))
        kills += _is_killed_at_start(node, step)
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
    with scanning(folder, way=Way.JOURNAL) as scanner:
        _leave_a_crash(scanner)
        steps = _watch_start(scanner.node)
        assert b'"node.journal_replayed"' in scanner.node.said()
        scanner.assert_kept()
        assert {"rename", "unlink", "fdatasync"} <= {step.call for step in steps}
        replay, rest = _divide(steps)
        kills = 0
        chosen = [*_spread(replay, at_most), *_spread(rest, at_most)]
        for step in chosen:
            _leave_a_crash(scanner)
            kills += _is_killed_at_start(scanner.node, step)
            assert scanner.node.start(), f"no start after a kill at {step}"
            held = scanner.assert_kept()
            assert len(held.quarantine_files) == scanner.conflicts, f"killed at {step}"
        assert kills >= _MOST * len(chosen)


def _watch_start(node: LoneNode) -> list[Step]:
    """The steps of a start, in the process's first thread."""
    node.prepare()
    with record(node.pid, node.folder, from_thread=0) as steps:
        assert node.start()
    return ends_of_runs([step for step in steps if step.is_on_disk])


def _is_killed_at_start(node: LoneNode, step: Step) -> bool:
    """Kill at one step of a start, or after it; whether the step was reached."""
    node.prepare()
    with inject(node.pid, step, _KILL, node.folder):
        is_killed = not node.start()
    node.kill()
    return is_killed


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

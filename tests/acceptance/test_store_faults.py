"""DESIGN.md section 3: left by its disk at any step of a store, a node loses nothing of it.

What was acknowledged is held, nothing twice and nothing half; the rest is refused, and the node
goes on by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from simulators.fault_injector import Step, failing, inject, was_injected, why_not
from simulators.inspection import assert_held
from simulators.lone_node import Way
from simulators.remembering_scanner import Act, Scanner, prepare, scanning
from simulators.watched_store import ACTS, ends_of_runs, watch

from dicom_node.scu import outgoing_file
from dicom_node.status import StoreStatus

_WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=f"no faults: {_WHY_NOT}")

each_way = pytest.mark.parametrize("way", Way, ids=lambda way: way.value)
each_store = pytest.mark.parametrize(
    ("act", "way"),
    [(act, way) for act, way in ACTS if act is not Act.RELEASE],
    ids=lambda each: each.value,
)

# What Linux's file systems answer these calls with when a disk is broken, full or read-only.
_BROKEN, _FULL, _OVER_QUOTA, _READ_ONLY = "EIO", "ENOSPC", "EDQUOT", "EROFS"
_ERRORS = {
    "openat": (_BROKEN, _FULL, _OVER_QUOTA, _READ_ONLY),
    "rename": (_BROKEN, _FULL, _OVER_QUOTA, _READ_ONLY),
    "unlink": (_BROKEN, _READ_ONLY),
    "ftruncate": (_BROKEN, _READ_ONLY),
}
_WRITE_ERRORS = (_BROKEN, _FULL, _OVER_QUOTA)


# ---------------------------------------------------------------- the disk fails


@each_store
def test_a_disk_that_fails_at_any_step_costs_one_answer(act: Act, way: Way, tmp_path: Path) -> None:
    """Each step fails once, and each kind of step (a call on the same thing) with each error.

    What an error of the kernel becomes depends on the kind of step alone: SQLite and
    dicom_node/incoming.py tell a full disk from any other fault, and nothing else.
    """
    _survive_faults(act, tmp_path, way=way, choose=_each_step_and_each_error_of_its_kind)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@each_store
def test_a_disk_that_fails_at_any_step_with_any_error_costs_one_answer(
    act: Act, way: Way, tmp_path: Path
) -> None:
    _survive_faults(act, tmp_path, way=way, choose=_each_step_with_each_error)


def _each_step_and_each_error_of_its_kind(steps: Sequence[Step]) -> Iterator[tuple[Step, str]]:
    kinds: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for step in steps:
        kinds[step.call, step.on].append(step)
    for (call, _), alike in kinds.items():
        errors = _errors_of(call)
        for index in range(max(len(alike), len(errors))):
            yield alike[index % len(alike)], errors[index % len(errors)]


def _each_step_with_each_error(steps: Sequence[Step]) -> Iterator[tuple[Step, str]]:
    return ((step, error) for step in steps for error in _errors_of(step.call))


def _errors_of(call: str) -> Sequence[str]:
    return _ERRORS.get(call, _WRITE_ERRORS)


def _survive_faults(
    act: Act,
    folder: Path,
    *,
    way: Way,
    choose: Callable[[Sequence[Step]], Iterable[tuple[Step, str]]],
) -> None:
    with scanning(folder, way=way) as scanner:
        steps = [step for step in ends_of_runs(watch(scanner, act)) if step.is_on_disk]
        pid = scanner.node.pid
        for step, error in choose(steps):
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
    # At the same count, SQLite may have been bringing a long log back into the database: the commit
    # before does not depend on that.
    if was_injected(output, step.on):
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
    # Of this study; what was held before is looked at when the node has started again.
    uids = {outgoing_file(each).sop_instance_uid for each in (path, study.two, *study.before(act))}
    assert_held(held, scanner.node.spool, {uid: scanner.held[uid] for uid in uids})


@each_way
def test_a_log_that_cannot_be_written_costs_nothing(way: Way, tmp_path: Path) -> None:
    with scanning(tmp_path, way=way) as scanner:
        steps = [step for step in watch(scanner, Act.FIRST) if step.on == "log"]
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
            # Elsewhere an answer would wait for a wake-up: a write, which fails here, and is none
            # to a disk (a disk that is full is asked in test_disk_faults.py).
            if "write" not in calls or way is Way.LIBRARY:
                connection.echo()
        connection.echo()
        assert scanner.send(connection, study.two) == StoreStatus.SUCCESS
        assert scanner.send(connection, study.three) == StoreStatus.SUCCESS
        scanner.part(connection)
        assert scanner.node.stop() == 0
        assert scanner.node.start()
        scanner.assert_kept()

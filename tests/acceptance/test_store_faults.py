"""DESIGN.md section 3: a fault at any step of a store costs nothing that was acknowledged.

Killed there, or left by its disk there, the node holds nothing twice and nothing half, and goes on
by itself.

The steps are not listed here: each test first watches which system calls a store makes, then puts
a fault at each of them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from pathlib import Path

import pytest
from simulators.ct_slices import write_ct_slice
from simulators.fault_injector import (
    Step,
    failing,
    inject,
    killed_start,
    record,
    steps_of_start,
    threads_of,
    was_injected,
    watched_start,
    why_not,
)
from simulators.inspection import Holdings, assert_held, assert_whole, look_at
from simulators.lone_node import LoneNode
from simulators.waiting import wait_until

from dicom_node.errors import PeerUnreachableError
from dicom_node.requestor import VERIFICATION_PAIR, Connection, RequestorTimeouts
from dicom_node.scu import outgoing_file, verify_peer
from dicom_node.status import StoreStatus

_WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=f"no faults: {_WHY_NOT}")

both_paths = pytest.mark.parametrize(
    "fast_path", [True, False], ids=["straight from the socket", "through the library"]
)

_TIMEOUTS = RequestorTimeouts(connect_s=5.0, association_s=15.0, answer_s=30.0)
# Pixels a side: no multiple of a disk's block; one fits a buffer, one needs several.
_SIZE, _LARGE_SIZE = 500, 1_300
# A database that has grown needs a page more or less than the one that was watched, and Python
# opens other files: a few steps are not reached.
_MOST = 0.8
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


class Act(Enum):
    """What the scanner does at the moment of the fault."""

    FIRST = "first instance"
    SECOND = "second instance"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    RELEASE = "release"


@dataclass(slots=True, kw_only=True)
class Study:
    """Three files of one study; ``other`` claims to be ``one`` and is not."""

    one: Path
    two: Path
    other: Path

    def before(self, act: Act) -> tuple[Path, ...]:
        """What the node has when the fault comes."""
        return () if act is Act.FIRST else (self.one,)

    def at(self, act: Act) -> tuple[Path, ...]:
        """What is sent when it comes."""
        files = {Act.FIRST: self.one, Act.SECOND: self.two, Act.DUPLICATE: self.one}
        files[Act.CONFLICT] = self.other
        return (files[act],) if act in files else ()


@dataclass(slots=True, kw_only=True)
class Scanner:
    """Sends studies, and keeps what the node has acknowledged."""

    node: LoneNode
    folder: Path
    studies: int = 0
    held: dict[str, bytes] = field(default_factory=dict)
    """By SOP Instance UID, the first of two that contradict each other."""
    rows: int = 0
    conflicts: int = 0
    """Different ones: what was sent again counts once."""
    _contradicted: set[str] = field(default_factory=set)
    idle_threads: int = field(init=False)
    """Of a node that nobody is connected to."""

    def __post_init__(self) -> None:
        self.idle_threads = len(threads_of(self.node.pid))

    def draw(self) -> Study:
        """Write the files of a new study."""
        self.studies += 1
        uid = f"1.2.{self.studies}"
        study = Study(
            one=self.folder / "one.dcm", two=self.folder / "two.dcm", other=self.folder / "else.dcm"
        )
        write_ct_slice(study.one, number=1, hu=10, study=uid, size=_SIZE)
        write_ct_slice(study.two, number=2, hu=20, study=uid, size=_LARGE_SIZE)
        write_ct_slice(study.other, number=1, hu=30, study=uid, size=_SIZE)
        return study

    def associate(self, study: Study) -> Connection:
        """Open an association."""
        return Connection(
            self.node.address,
            calling_ae_title="SCANNER",
            pairs=[outgoing_file(study.one).pair, VERIFICATION_PAIR],
            timeouts=_TIMEOUTS,
        )

    def send(self, connection: Connection, path: Path) -> int:
        """Send one file; the status."""
        outgoing = outgoing_file(path)
        status = connection.store(outgoing)
        if status == StoreStatus.SUCCESS:
            self._note(outgoing.sop_instance_uid, _data_set(path))
        return status

    def send_all(self, paths: Sequence[Path], study: Study) -> None:
        """On an association of its own, until each has Success."""
        connection = self.associate(study)
        for path in paths:
            assert self.send(connection, path) == StoreStatus.SUCCESS
        self.part(connection)

    def part(self, connection: Connection) -> None:
        """Release, and wait until the node has noted that."""
        connection.close()
        wait_until(self.is_quiet)

    def is_quiet(self) -> bool:
        """No association is left, nor anything that it had to do at its end."""
        is_idle = len(threads_of(self.node.pid)) <= self.idle_threads
        return is_idle and self.look().open_associations == 0

    def look(self) -> Holdings:
        """What the node holds."""
        return look_at(self.node.database, self.node.spool)

    def assert_kept(self) -> Holdings:
        """Everything of the contract; for a node that is quiet."""
        held = self.look()
        assert_whole(held)
        assert held.open_associations == 0
        assert_held(held, self.node.spool, self.held)
        return held

    def _note(self, uid: str, data_set: bytes) -> None:
        known = self.held.setdefault(uid, data_set)
        if known != data_set and uid not in self._contradicted:
            self._contradicted.add(uid)
            self.conflicts += 1


def _data_set(path: Path) -> bytes:
    outgoing = outgoing_file(path)
    assert not isinstance(outgoing.data_set, bytes)
    return path.read_bytes()[outgoing.data_set[1] :]


@contextlib.contextmanager
def _scanner(folder: Path, *, fast_path: bool) -> Iterator[Scanner]:
    with LoneNode(folder=folder, fast_path=fast_path) as node:
        yield Scanner(node=node, folder=folder)


def _prepare(scanner: Scanner, act: Act) -> tuple[Study, Connection]:
    study = scanner.draw()
    connection = scanner.associate(study)
    for path in study.before(act):
        assert scanner.send(connection, path) == StoreStatus.SUCCESS
    return study, connection


def _watch(scanner: Scanner, act: Act) -> list[Step]:
    """The steps of an act, in their order."""
    study, connection = _prepare(scanner, act)
    with record(scanner.node.pid, scanner.folder, from_thread=scanner.idle_threads) as steps:
        for path in study.at(act):
            assert scanner.send(connection, path) == StoreStatus.SUCCESS
        if act is Act.RELEASE:
            scanner.part(connection)
    scanner.part(connection)
    scanner.rows = scanner.assert_kept().rows
    assert "sendto" in {step.call for step in steps}
    assert act is Act.RELEASE or "rename" in {step.call for step in steps}
    return steps


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


@both_paths
@pytest.mark.parametrize("act", Act, ids=lambda act: act.value)
def test_killed_at_a_step_the_node_keeps_what_it_acknowledged(
    act: Act, fast_path: bool, tmp_path: Path
) -> None:
    def choose(steps: Sequence[Step]) -> list[Step]:
        return _spread(_ends_of_runs(steps), 20 if fast_path else 6)

    _survive_kills(act, tmp_path, fast_path=fast_path, choose=choose)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@both_paths
@pytest.mark.parametrize("act", Act, ids=lambda act: act.value)
def test_killed_at_every_step_the_node_keeps_what_it_acknowledged(
    act: Act, fast_path: bool, tmp_path: Path
) -> None:
    _survive_kills(act, tmp_path, fast_path=fast_path, choose=list)


def _survive_kills(
    act: Act, folder: Path, *, fast_path: bool, choose: Callable[[Sequence[Step]], list[Step]]
) -> None:
    with _scanner(folder, fast_path=fast_path) as scanner:
        steps = choose(_watch(scanner, act))
        kills = sum(_kill_at(scanner, act, step) for step in steps)
        assert kills >= _MOST * len(steps)


def _kill_at(scanner: Scanner, act: Act, step: Step) -> bool:
    """Kill at one step, start again, send everything again; whether the step was reached."""
    study, connection = _prepare(scanner, act)
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
        verify_peer(scanner.node.address, calling_ae_title="SCANNER", timeouts=_TIMEOUTS)
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
    _survive_kills_while_settling(tmp_path, at_most=8)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_killed_anywhere_while_it_settles_a_crash_it_settles_it(tmp_path: Path) -> None:
    _survive_kills_while_settling(tmp_path, at_most=1_000)


def _survive_kills_while_settling(folder: Path, *, at_most: int) -> None:
    record_file, killed_file = folder / "start.strace", folder / "killed.strace"
    with _scanner(folder, fast_path=True) as scanner:
        _leave_a_crash(scanner)
        assert scanner.node.start(under=watched_start(record_file))
        scanner.assert_kept()
        steps = _ends_of_runs(steps_of_start(record_file))
        assert {"rename", "unlink", "fdatasync"} <= {step.call for step in steps}
        kills = 0
        chosen = _spread(steps, at_most)
        for step in chosen:
            _leave_a_crash(scanner)
            kills += not scanner.node.start(under=killed_start(step, killed_file))
            scanner.node.kill()
            assert scanner.node.start(), f"no start after a kill at {step}"
            held = scanner.assert_kept()
            assert len(held.quarantine_files) == scanner.conflicts, f"killed at {step}"
        assert kills >= _MOST * len(chosen)


def _leave_a_crash(scanner: Scanner) -> None:
    """Kill the node, with files that have no row (new, known, contradicting) and an unfinished one.

    They are what a kill between the name and the row leaves, in one go.
    """
    study = scanner.draw()
    scanner.send_all([study.one], study)
    scanner.node.kill()
    for number, path in enumerate((study.one, study.two, study.other)):
        shutil.copy(path, scanner.node.spool / "0a" / f"{scanner.studies:028x}0{number}.dcm")
    (scanner.node.spool / "incoming" / "unfinished").write_bytes(b"half")
    scanner.held[outgoing_file(study.two).sop_instance_uid] = _data_set(study.two)
    scanner.conflicts += 1


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# ---------------------------------------------------------------- the disk fails


@both_paths
@pytest.mark.parametrize(
    "act", [Act.FIRST, Act.SECOND, Act.DUPLICATE, Act.CONFLICT], ids=lambda act: act.value
)
def test_a_disk_that_fails_at_any_step_costs_one_answer(
    act: Act, fast_path: bool, tmp_path: Path
) -> None:
    with _scanner(tmp_path, fast_path=fast_path) as scanner:
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
    study, connection = _prepare(scanner, act)
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


@both_paths
def test_a_log_that_cannot_be_written_costs_nothing(fast_path: bool, tmp_path: Path) -> None:
    with _scanner(tmp_path, fast_path=fast_path) as scanner:
        steps = [step for step in _watch(scanner, Act.FIRST) if step.on == "log"]
        assert steps
        for step in steps:
            study, connection = _prepare(scanner, Act.FIRST)
            with inject(scanner.node.pid, step, "error=ENOSPC", scanner.folder) as output:
                assert scanner.send(connection, study.one) == StoreStatus.SUCCESS
                scanner.part(connection)
            assert was_injected(output)
        scanner.assert_kept()


@both_paths
@pytest.mark.parametrize(
    ("calls", "error"),
    [
        ("fdatasync,fsync", _BROKEN),
        ("pwrite64,write,writev", _FULL),
        ("pwrite64,write,writev", _OVER_QUOTA),
        ("rename", _READ_ONLY),
        ("fdatasync,fsync,pwrite64,write,writev,rename,unlink,ftruncate", _BROKEN),
    ],
)
def test_while_the_disk_fails_each_store_is_refused_and_then_all_is_well(
    calls: str, error: str, fast_path: bool, tmp_path: Path
) -> None:
    with _scanner(tmp_path, fast_path=fast_path) as scanner:
        study, connection = _prepare(scanner, Act.SECOND)
        with failing(scanner.node.pid, calls, error, tmp_path):
            for path in (study.two, study.two, study.other):
                assert scanner.send(connection, path) == StoreStatus.OUT_OF_RESOURCES
            connection.echo()
        assert scanner.send(connection, study.two) == StoreStatus.SUCCESS
        scanner.part(connection)
        assert scanner.node.stop() == 0
        assert scanner.node.start()
        scanner.assert_kept()

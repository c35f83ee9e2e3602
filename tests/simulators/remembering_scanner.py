"""A scanner that sends studies to a lone node, and remembers what was acknowledged."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from dicom_node.requestor import VERIFICATION_PAIR, Connection, RequestorTimeouts
from dicom_node.scu import outgoing_file
from dicom_node.status import StoreStatus
from simulators.ct_slices import write_ct_slice
from simulators.fault_injector import threads_of
from simulators.inspection import Holdings, assert_held, assert_whole, look_at
from simulators.lone_node import LoneNode, Way
from simulators.waiting import wait_until

TIMEOUTS = RequestorTimeouts(connect_s=5.0, association_s=15.0, answer_s=30.0)
# Pixels a side: no multiple of a disk's block; one is a record of the journal, one is too large for
# it and for a buffer.
_SIZE, _LARGE_SIZE = 300, 1_300
# A Study Instance UID, the beginning of all others; every study has another one of this length.
_FIRST_UID = 1_000_000
_PREFIX = "1.2."


class Act(Enum):
    """What the scanner does at the moment of the fault."""

    FIRST = "first instance"
    SECOND = "second instance"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    RELEASE = "release"


@dataclass(slots=True, kw_only=True)
class Study:
    """Files of one study; ``two`` is large, ``other`` claims to be ``one`` and is not."""

    one: Path
    two: Path
    three: Path
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
        study = Study(
            one=self.folder / "one.dcm",
            two=self.folder / "two.dcm",
            three=self.folder / "three.dcm",
            other=self.folder / "else.dcm",
        )
        self._write(study.one, number=1, hu=10, size=_SIZE)
        self._write(study.two, number=2, hu=20, size=_LARGE_SIZE)
        self._write(study.three, number=3, hu=40, size=_SIZE)
        self._write(study.other, number=1, hu=30, size=_SIZE)
        return study

    def associate(self, study: Study) -> Connection:
        """Open an association."""
        return Connection(
            self.node.address,
            calling_ae_title="SCANNER",
            pairs=[outgoing_file(study.one).pair, VERIFICATION_PAIR],
            timeouts=TIMEOUTS,
        )

    def send(self, connection: Connection, path: Path) -> int:
        """Send one file; the status."""
        outgoing = outgoing_file(path)
        status = connection.store(outgoing)
        if status == StoreStatus.SUCCESS:
            self._note(outgoing.sop_instance_uid, data_set_of(path))
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

    def _write(self, path: Path, *, number: int, hu: int, size: int) -> None:
        uid = f"{_PREFIX}{_FIRST_UID + self.studies}"
        slice_of_first = _slice_of_first(number=number, hu=hu, size=size)
        path.write_bytes(slice_of_first.replace(f"{_PREFIX}{_FIRST_UID}".encode(), uid.encode()))

    def _note(self, uid: str, data_set: bytes) -> None:
        known = self.held.setdefault(uid, data_set)
        if known != data_set and uid not in self._contradicted:
            self._contradicted.add(uid)
            self.conflicts += 1


@functools.cache
def _slice_of_first(*, number: int, hu: int, size: int) -> bytes:
    """A slice of a study that is never sent; pydicom takes more time than all of a store."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slice.dcm"
        write_ct_slice(path, number=number, hu=hu, study=f"{_PREFIX}{_FIRST_UID}", size=size)
        return path.read_bytes()


def data_set_of(path: Path) -> bytes:
    """The encoded data set of a file."""
    outgoing = outgoing_file(path)
    assert not isinstance(outgoing.data_set, bytes)
    return path.read_bytes()[outgoing.data_set[1] :]


@contextlib.contextmanager
def scanning(folder: Path, *, way: Way, journal_bytes: int | None = None) -> Iterator[Scanner]:
    """Run a node and a scanner for it; ``journal_bytes`` if it is not that of the way."""
    size = way.journal_bytes if journal_bytes is None else journal_bytes
    with LoneNode(folder=folder, fast_path=way.fast_path, journal_bytes=size) as node:
        yield Scanner(node=node, folder=folder)


def prepare(scanner: Scanner, act: Act) -> tuple[Study, Connection]:
    """Let the node have what it has before an act, and keep the association."""
    study = scanner.draw()
    connection = scanner.associate(study)
    for path in study.before(act):
        assert scanner.send(connection, path) == StoreStatus.SUCCESS
    return study, connection

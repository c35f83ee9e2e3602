"""Mixed load, as a department makes it, without an end: what was acknowledged is written down.

Each ``Modality`` sends study after study on associations of its own, as fast as the node answers:
CT, MR, radiographs and small objects; some instances twice, some on an association that breaks in
the middle of a data set, some through dcmtk's ``storescu``. What got no Success goes out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from dicom_node.errors import DicomNodeError
from dicom_node.headers import scan_file
from dicom_node.requestor import (
    VERIFICATION_PAIR,
    Connection,
    Outgoing,
    PeerAddress,
    RequestorTimeouts,
)
from dicom_node.status import is_stored
from simulators.rogue_modality import Instance, Proposed, RogueModality, abort, associate_request

_AGAIN_S = 0.2
_LOOK_S = 0.1
_MOST_FILES = 40
_CONFLICTS = 0.05  # this part of the studies
_TIMEOUTS = RequestorTimeouts(connect_s=5.0, association_s=15.0, answer_s=60.0)
_STUDY, _INSTANCE = 10**9, 10**5  # numbers of one length, so that UIDs can be put into a template
_ROOT = "1.2.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of study."""

    sop_class: str
    modality: str
    rows: int
    columns: int
    fewest: int
    most: int


# Pixels of two bytes: 526 KB, 131 KB, 10 MB and 8 KB an instance.
KINDS = (
    Kind(sop_class=CTImageStorage, modality="CT", rows=512, columns=512, fewest=20, most=80),
    Kind(sop_class=MRImageStorage, modality="MR", rows=256, columns=256, fewest=30, most=120),
    Kind(
        sop_class=DigitalXRayImageStorageForPresentation,
        modality="DX",
        rows=2500,
        columns=2000,
        fewest=1,
        most=3,
    ),
    Kind(
        sop_class=ComputedRadiographyImageStorage,
        modality="CR",
        rows=64,
        columns=64,
        fewest=50,
        most=200,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A DICOM file whose UIDs are replaced for each instance."""

    kind: Kind
    file: bytes
    data_set_offset: int

    def uid(self, study: int, number: int) -> str:
        """The SOP Instance UID of one instance."""
        return f"{_ROOT}.{_STUDY + study}.{_INSTANCE + number}"

    def instance(self, study: int, number: int, *, other: bool = False) -> bytes:
        """A file; ``other`` has the same identity and other pixels."""
        data = self.file.replace(self.uid(0, 0).encode(), self.uid(study, number).encode()).replace(
            f"{_ROOT}.{_STUDY}".encode(), f"{_ROOT}.{_STUDY + study}".encode()
        )
        return data[:-2] + b"\x01\x01" if other else data


def make_template(kind: Kind, folder: Path) -> Template:
    """Write one file of a kind with pydicom."""
    dataset = Dataset()
    dataset.SOPClassUID = kind.sop_class
    dataset.SOPInstanceUID = f"{_ROOT}.{_STUDY}.{_INSTANCE}"
    dataset.StudyInstanceUID = f"{_ROOT}.{_STUDY}"
    dataset.SeriesInstanceUID = f"{_ROOT}.{_STUDY}.1"
    dataset.Modality = kind.modality
    dataset.PatientName = "Canary^Carla"
    dataset.PatientID = "CANARY-17"
    dataset.Rows, dataset.Columns = kind.rows, kind.columns
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    noise = np.random.default_rng(kind.rows).integers(0, 256, kind.rows * kind.columns * 2)
    dataset.PixelData = noise.astype(np.uint8).tobytes()[:-2] + b"\0\0"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    path = folder / f"{kind.modality}.dcm"
    path.write_bytes(buffer.getvalue())
    offset = scan_file(path).meta.data_set_offset
    return Template(kind=kind, file=buffer.getvalue(), data_set_offset=offset)


def digest_of(data_set: bytes | memoryview) -> bytes:
    """What is kept of an acknowledged instance: hours of them do not fit the memory."""
    return hashlib.blake2b(data_set, digest_size=16).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SentStudy:
    """A study, all of whose instances were acknowledged."""

    uid: str
    instances: dict[str, tuple[bytes, int]]
    """By SOP Instance UID: digest and length of the data set."""
    conflicts: int
    """Different instances that claimed to be one of them, and were acknowledged too."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What happened, summed over all modalities."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counter[str] = field(default_factory=Counter)
    echo_ms: list[float] = field(default_factory=list)

    def add(self, what: str, count: int = 1) -> None:
        """Count something."""
        with self.lock:
            self.counts[what] += count


@dataclass(slots=True, kw_only=True)
class Gate:
    """Where modalities stand while the test looks at a quiet node, or the disk is full enough."""

    _open: threading.Event = field(default_factory=threading.Event)
    _has_room: threading.Event = field(default_factory=threading.Event)
    _inside: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._open.set()
        self._has_room.set()

    def hold(self, *, is_full: bool) -> None:
        """Let nobody begin a study while the disk is full enough."""
        if is_full:
            self._has_room.clear()
        else:
            self._has_room.set()

    def close(self, deadline_s: float = 180.0) -> None:
        """Let nobody begin a study, and wait until all have ended theirs."""
        with self._changed:
            self._open.clear()
            assert self._changed.wait_for(lambda: not self._inside, deadline_s), "never quiet"

    def open(self) -> None:
        """Let them go on."""
        self._open.set()

    @contextlib.contextmanager
    def study(self, stop: threading.Event) -> Iterator[None]:
        """Stand here until the gate is open; inside while the block runs."""
        self._enter(stop)
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def _enter(self, stop: threading.Event) -> None:
        while True:
            self._has_room.wait(_LOOK_S)
            self._open.wait(_LOOK_S)
            with self._changed:
                if stop.is_set() or (self._open.is_set() and self._has_room.is_set()):
                    self._inside += 1
                    return


@dataclass(slots=True, kw_only=True)
class _StudyInHand:
    """A study that is being sent."""

    template: Template
    number: int
    sent: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def uid(self, number: int) -> str:
        """The SOP Instance UID of one instance."""
        return self.template.uid(self.number, number)

    def data_set(self, number: int, *, other: bool = False) -> bytes:
        """The encoded data set of one instance."""
        file = self.template.instance(self.number, number, other=other)
        return file[self.template.data_set_offset :]

    def note(self, number: int, data_set: bytes) -> None:
        """It was acknowledged; what is acknowledged first is held."""
        self.sent.setdefault(self.uid(number), (digest_of(data_set), len(data_set)))


@dataclass(slots=True, kw_only=True)
class Modality:
    """One sender; give each another ``number``."""

    number: int
    node: PeerAddress
    templates: Sequence[Template]
    seed: int
    tally: Tally
    gate: Gate
    on_study: Callable[[SentStudy], None]
    folder: Path
    """For the files of ``storescu``."""
    uses_dcmtk: bool = False
    rng: random.Random = field(init=False)
    _studies: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed * 1000 + self.number)

    def send_until(self, stop: threading.Event) -> None:
        """Send studies; the one that has begun is finished."""
        while not stop.is_set():
            with self.gate.study(stop):
                if stop.is_set():
                    return
                self._send_study()

    def _send_study(self) -> None:
        self._studies += 1
        study = _StudyInHand(
            template=self.rng.choice(self.templates), number=self.number * 10**7 + self._studies
        )
        kind = study.template.kind
        todo = list(range(self.rng.randint(kind.fewest, kind.most)))
        if self.uses_dcmtk:
            self._send_files(study, todo[:_MOST_FILES])
        else:
            while todo:
                with self._trying_again():
                    self._associate_and_send(study, todo)
        conflicts = self._contradict(study) if self.rng.random() < _CONFLICTS else 0
        self.tally.add("studies")
        uid = f"{_ROOT}.{_STUDY + study.number}"
        self.on_study(SentStudy(uid=uid, instances=study.sent, conflicts=conflicts))

    @contextlib.contextmanager
    def _trying_again(self) -> Iterator[None]:
        """The node is away: the caller goes on where it was."""
        try:
            yield
        except DicomNodeError:
            self.tally.add("associations lost")
            threading.Event().wait(_AGAIN_S)

    # ------------------------------------------------------------ our own sender

    def _associate_and_send(self, study: _StudyInHand, todo: list[int]) -> None:
        """Send from the front of ``todo`` until it is empty, or chance ends the association."""
        with self._association(study) as connection:
            while todo:
                if self._store(connection, study, todo[0]):
                    del todo[0]
                event = self.rng.random()
                if event < 0.01:
                    self._echo(connection)
                elif event < 0.03 and study.sent:
                    self.tally.add("duplicates")
                    self._store(connection, study, self.rng.randrange(len(study.sent)))
                elif event < 0.04 and todo:
                    self._break_off(study, todo[0])
                elif event < 0.05:
                    return

    @contextlib.contextmanager
    def _association(self, study: _StudyInHand) -> Iterator[Connection]:
        pair = (study.template.kind.sop_class, str(ExplicitVRLittleEndian))
        self.tally.add("associations")
        connection = Connection(
            self.node,
            calling_ae_title=f"MODALITY{self.number}",
            pairs=[pair, VERIFICATION_PAIR],
            timeouts=_TIMEOUTS,
        )
        try:
            yield connection
        finally:
            connection.close()

    def _store(
        self, connection: Connection, study: _StudyInHand, number: int, *, other: bool = False
    ) -> bool:
        data_set = study.data_set(number, other=other)
        status = connection.store(
            Outgoing(
                sop_class_uid=study.template.kind.sop_class,
                sop_instance_uid=study.uid(number),
                transfer_syntax_uid=str(ExplicitVRLittleEndian),
                data_set=data_set,
            )
        )
        if not is_stored(status):
            self.tally.add(f"status {status:04X}")
            threading.Event().wait(_AGAIN_S)
            return False
        self._note(study, number, data_set)
        return True

    def _note(self, study: _StudyInHand, number: int, data_set: bytes) -> None:
        study.note(number, data_set)
        self.tally.add("acknowledged")
        self.tally.add(f"acknowledged {study.template.kind.modality}")
        self.tally.add("acknowledged bytes", len(data_set))

    def _echo(self, connection: Connection) -> None:
        began_s = time.monotonic()
        connection.echo()
        self.tally.add("echoes")
        with self.tally.lock:
            self.tally.echo_ms.append((time.monotonic() - began_s) * 1000)

    def _break_off(self, study: _StudyInHand, number: int) -> None:
        """Begin to send an instance on another association, and end that in the middle."""
        sop_class = study.template.kind.sop_class
        instance = Instance(
            sop_class=sop_class, sop_instance=study.uid(number), data_set=study.data_set(number)
        )
        pieces = instance.message()
        with contextlib.suppress(OSError), RogueModality(self.node.port) as rogue:
            proposed = (Proposed(abstract_syntax=sop_class),)
            rogue.send(associate_request(proposed, called=self.node.ae_title.encode()))
            rogue.answer()
            rogue.send(*pieces[: self.rng.randrange(1, len(pieces))])
            if self.rng.random() < 0.5:
                rogue.send(abort())
            else:
                rogue.reset()
        self.tally.add("broken off")

    def _contradict(self, study: _StudyInHand) -> int:
        """Claim that one of the instances has other pixels; how often that was acknowledged."""
        number = self.rng.randrange(len(study.sent))
        is_stored_beside = False
        while not is_stored_beside:
            with self._trying_again(), self._association(study) as connection:
                is_stored_beside = self._store(connection, study, number, other=True)
        self.tally.add("conflicts")
        return 1

    # ------------------------------------------------------------ dcmtk's sender

    def _send_files(self, study: _StudyInHand, numbers: Sequence[int]) -> None:
        files = {self.folder / f"{number}.dcm": number for number in numbers}
        for path, number in files.items():
            path.write_bytes(study.template.instance(study.number, number))
        while left := [
            path for path, number in files.items() if study.uid(number) not in study.sent
        ]:
            self.tally.add("associations")
            stored = self._storescu(left)
            for path in stored:
                self._note(study, files[path], study.data_set(files[path]))
            if len(stored) < len(left):
                self.tally.add("associations lost")
                threading.Event().wait(_AGAIN_S)
        for path in files:
            path.unlink()

    def _storescu(self, paths: Sequence[Path]) -> list[Path]:
        """Run storescu; the files for which it got Success."""
        titles = ("-aet", f"MODALITY{self.number}", "-aec", self.node.ae_title)
        done = subprocess.run(
            ["storescu", "-v", *titles, self.node.host, str(self.node.port), *map(str, paths)],
            capture_output=True,
            text=True,
            check=False,
        )
        return storescu_successes(done.stdout + done.stderr)


def storescu_successes(said: str) -> list[Path]:
    """The files for which ``storescu -v`` says that it got Success."""
    stored = []
    path = None
    for line in said.splitlines():
        if "Sending file: " in line:
            path = Path(line.partition("Sending file: ")[2].strip())
        elif "Received Store Response (Success)" in line and path is not None:
            stored.append(path)
            path = None
    return stored

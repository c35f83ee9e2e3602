"""A scanner whose every attribute is a canary, and that can send each thing wrongly."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from dicom_node.requestor import Outgoing, PeerAddress
from dicom_node.scu import Sender, SendOutcome, outgoing_file, send_files
from simulators.canaries import FOREIGN_TOKEN, TOKEN, UID_ROOT, Canaries
from simulators.ct_slices import write_ct_slice

AE_TITLE = f"{TOKEN}AE"
SLICES = 8
BRIGHT_HU = 100
DARK_HU = 0
_A_ASSOCIATE_AC, _A_ASSOCIATE_RJ = b"\x02", b"\x03"


@dataclass(slots=True, kw_only=True)
class CanaryScanner:
    """Makes studies with identities everywhere; ``send`` and the others push to the node."""

    node: PeerAddress
    folder: Path
    canaries: Canaries = field(default_factory=Canaries)
    studies: int = 0

    def draw(
        self, *, hu: int = DARK_HU, slices: int = SLICES, character_set: str = "ISO_IR 192"
    ) -> list[Path]:
        """Write the files of a study; all but the last slice come when a late one is wanted."""
        self.studies += 1
        uid = f"{UID_ROOT}.{self.studies}"
        folder = self.folder / f"{TOKEN}{self.studies}"
        folder.mkdir(parents=True)
        paths = []
        for number in range(1, slices + 1):
            paths.append(folder / f"{TOKEN}-{number}.dcm")
            write_ct_slice(paths[-1], number=number, hu=hu, study=uid, images=slices)
            self._plant(paths[-1], character_set)
        return paths

    def _plant(self, path: Path, character_set: str) -> None:
        ds = dcmread(path)
        ds.SpecificCharacterSet = character_set
        ds.PatientName = self.canaries.note(f"{FOREIGN_TOKEN}^{TOKEN}NAME")
        ds.PatientID = self.canaries.note(f"{TOKEN}ID")
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            self.canaries.note(str(getattr(ds, keyword)))
        self.canaries.plant(ds)
        ds.save_as(path)

    def send(self, paths: Sequence[Path]) -> set[SendOutcome]:
        """Push files as they are."""
        return {
            answer.outcome for answer in send_files(paths, self.node, calling_ae_title=AE_TITLE)
        }

    def send_raw(self, path: Path, data_set: bytes, *, named: str | None = None) -> SendOutcome:
        """Push other bytes under a file's name, or under another one."""
        outgoing = replace(outgoing_file(path), data_set=data_set)
        return self._store(replace(outgoing, sop_instance_uid=named) if named else outgoing)

    def send_undecodable(self, paths: Sequence[Path]) -> set[SendOutcome]:
        """Push a study whose JPEG 2000 pixels are none."""
        for path in paths:
            ds = dcmread(path)
            ds.PixelData = encapsulate([f"{TOKEN}PIXELS".encode() * 20])
            ds["PixelData"].VR = "OB"
            ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
            ds.save_as(path)
        return self.send(paths)

    def send_conflicting(self, path: Path) -> set[SendOutcome]:
        """Push an instance of known UIDs with other content."""
        ds = dcmread(path)
        ds.PatientComments = self.canaries.note(f"{TOKEN}CONFLICT")
        other = path.with_name(f"{TOKEN}-other.dcm")
        ds.save_as(other)
        return self.send([other])

    def call_wrongly(self) -> None:
        """Call another AE title, with a user name and a password that nobody asked for."""
        with self._call(f"{TOKEN}CALLED") as connection:
            assert connection.recv(1) == _A_ASSOCIATE_RJ

    def talk_garbage(self) -> None:
        """Send what is no DICOM, or only its beginning."""
        for words in (
            f"{TOKEN} GARBAGE\r\n\r\n".encode() * 100,
            f"GET /{TOKEN} HTTP/1.1\r\nHost: {TOKEN}\r\n\r\n".encode(),
            b"\x01\x00\x00\x00\x00\x80\x00\x01\x00\x00" + (TOKEN * 30).encode(),
            b"\x04\x00\xff\xff\xff\xff" + (TOKEN * 30).encode(),
        ):
            with socket.create_connection((self.node.host, self.node.port), 10) as connection:
                connection.sendall(words)

    def break_off(self) -> None:
        """Break the protocol with a command that is none; then the connection within a PDU."""
        words = (TOKEN * 10).encode()
        invalid = struct.pack(">BxIIBB", 4, len(words) + 6, len(words) + 2, 1, 3) + words
        unfinished = struct.pack(">BxIIBB", 4, 65_536, 65_532, 1, 2) + words
        for pdu in (invalid, unfinished):
            with self._call(self.node.ae_title) as connection:
                assert connection.recv(65_536)[:1] == _A_ASSOCIATE_AC
                connection.sendall(pdu)

    def _call(self, called: str) -> socket.socket:
        request = A_ASSOCIATE()
        request.application_context_name = UID("1.2.840.10008.3.1.1.1")
        request.calling_ae_title = AE_TITLE
        request.called_ae_title = called
        context = build_context(CTImageStorage, ExplicitVRLittleEndian)
        context.context_id = 1
        request.presentation_context_definition_list = [context]
        length, maker, release, user = (
            MaximumLengthNotification(),
            ImplementationClassUIDNotification(),
            ImplementationVersionNameNotification(),
            UserIdentityNegotiation(),
        )
        length.maximum_length_received = 16_384
        maker.implementation_class_uid = UID(self.canaries.note(f"{UID_ROOT}.1.2.3"))
        release.implementation_version_name = self.canaries.note(f"{TOKEN}RELEASE")
        user.user_identity_type = 2
        user.primary_field = self.canaries.note(f"{TOKEN}USER").encode()
        user.secondary_field = self.canaries.note(f"{TOKEN}PASSWORD").encode()
        request.user_information = [length, maker, release, user]
        pdu = A_ASSOCIATE_RQ()
        pdu.from_primitive(request)
        connection = socket.create_connection((self.node.host, self.node.port), 30)
        connection.sendall(pdu.encode())
        return connection

    def _store(self, outgoing: Outgoing) -> SendOutcome:
        with Sender(self.node, calling_ae_title=AE_TITLE) as sender:
            return sender.store(outgoing).outcome


def data_set_of(path: Path) -> bytes:
    """Return the bytes that a C-STORE of a file carries."""
    outgoing = outgoing_file(path)
    assert isinstance(outgoing.data_set, tuple)
    file, offset = outgoing.data_set
    return file.read_bytes()[offset:]

"""Storage Commitment Push Model, both halves of the SCP (PS3.4 Annex J).

A request comes in by N-ACTION and is answered with Success once the ``CommitmentBook`` has it
durably. What became of it goes back later by N-EVENT-REPORT, on an association that the device
opens: there it is the SCP of an association that it requested, and says so (PS3.7 D.3.3.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from io import BytesIO
from typing import Protocol

from pydicom import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from dicom_node.attributes import Attributes, Shape, read_attributes
from dicom_node.contexts import NATIVE_SYNTAXES, STORAGE_COMMITMENT_CLASS
from dicom_node.errors import BadRequestError, ContextRejectedError
from dicom_node.normalized import (
    Answer,
    NormalizedRequest,
    NormalizedStatus,
    Service,
    items_at,
    service,
    uid_at,
)
from dicom_node.requestor import Connection, PeerAddress, RequestorTimeouts

COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The one instance that every request is addressed to (PS3.4 J.3.5)."""

_REQUEST = 1  # PS3.4 J.3.2: the only action type
_ALL_COMMITTED, _FAILURES_EXIST = 1, 2  # PS3.4 J.3.3: the event types
_TRANSACTION_UID = 0x00081195
_REFERENCED_SOP_SEQUENCE = 0x00081199
_REFERENCED_SOP_CLASS_UID = 0x00081150
_REFERENCED_SOP_INSTANCE_UID = 0x00081155
_SHAPE: Shape = {
    _TRANSACTION_UID: None,
    _REFERENCED_SOP_SEQUENCE: {
        _REFERENCED_SOP_CLASS_UID: None,
        _REFERENCED_SOP_INSTANCE_UID: None,
    },
}


@dataclass(frozen=True, slots=True)
class Reference:
    """One instance that a peer asks about."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)


class FailureReason(IntEnum):
    """Why an instance is not committed: (0008,1197), PS3.3 C.14.1.1."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """What a peer asks us to vouch for."""

    transaction_uid: str = field(repr=False)
    references: tuple[Reference, ...] = field(repr=False)
    """Each once, in the peer's order."""
    ae_title: str = field(repr=False)
    address: str = field(repr=False)
    """Where the request came from."""


class Booked(str, Enum):
    """What the book made of a request."""

    BOOKED = "booked"
    REPEATED = "repeated"
    """Same peer, transaction and references: the report goes out again."""
    CONFLICT = "conflict"
    """The peer has used this transaction UID for other instances."""
    NO_ROOM = "no_room"
    """More reports are owed than the device wants to owe."""


class CommitmentBook(Protocol):
    """Where requests are kept; called from one thread per association."""

    def book(self, request: CommitmentRequest) -> Booked:
        """Make a durable row for ``request``; the answer survives a power failure."""
        ...


def commitment_services(book: CommitmentBook, *, max_references: int) -> tuple[Service, ...]:
    """The handlers for ``AcceptorPolicy.services``."""

    def serve(request: NormalizedRequest) -> Answer:
        if not request.caller.rule.storage_commitment:
            return Answer(status=NormalizedStatus.NOT_AUTHORISED)
        return Answer(status=_ANSWERS[book.book(_read(request, max_references))])

    return (
        service(
            evt.EVT_N_ACTION,
            STORAGE_COMMITMENT_CLASS,
            serve,
            unreadable=NormalizedStatus.INVALID_ARGUMENT_VALUE,
        ),
    )


_ANSWERS = {
    Booked.BOOKED: NormalizedStatus.SUCCESS,
    Booked.REPEATED: NormalizedStatus.SUCCESS,
    Booked.CONFLICT: NormalizedStatus.DUPLICATE_TRANSACTION,
    Booked.NO_ROOM: NormalizedStatus.RESOURCE_LIMITATION,
}


def _read(request: NormalizedRequest, max_references: int) -> CommitmentRequest:
    """Check a request.

    Raises:
        BadRequestError: It is none that can be booked.
        DataSetUnreadableError: Its data set is broken.
    """
    if request.sop_instance_uid != COMMITMENT_INSTANCE:
        raise BadRequestError(NormalizedStatus.NO_SUCH_SOP_INSTANCE)
    if request.action_type != _REQUEST:
        raise BadRequestError(NormalizedStatus.NO_SUCH_ACTION)
    found = read_attributes(request.data_set, request.transfer_syntax_uid, _SHAPE)
    transaction_uid = uid_at(found, _TRANSACTION_UID)
    items = items_at(found, _REFERENCED_SOP_SEQUENCE)
    if transaction_uid is None or not items:
        raise BadRequestError(NormalizedStatus.INVALID_ARGUMENT_VALUE)
    if len(items) > max_references:
        raise BadRequestError(NormalizedStatus.RESOURCE_LIMITATION)
    return CommitmentRequest(
        transaction_uid=transaction_uid,
        references=tuple(dict.fromkeys(map(_reference, items))),
        ae_title=request.caller.ae_title,
        address=request.caller.address,
    )


def _reference(item: Attributes) -> Reference:
    sop_class_uid = uid_at(item, _REFERENCED_SOP_CLASS_UID)
    sop_instance_uid = uid_at(item, _REFERENCED_SOP_INSTANCE_UID)
    if sop_class_uid is None or sop_instance_uid is None:
        raise BadRequestError(NormalizedStatus.INVALID_ARGUMENT_VALUE)
    return Reference(sop_class_uid, sop_instance_uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What became of a request."""

    transaction_uid: str = field(repr=False)
    committed: Sequence[Reference] = field(repr=False)
    failed: Sequence[tuple[Reference, FailureReason]] = field(repr=False)


def send_report(
    report: CommitmentReport,
    peer: PeerAddress,
    *,
    calling_ae_title: str,
    timeouts: RequestorTimeouts,
) -> None:
    """N-EVENT-REPORT over an association of its own.

    Raises:
        PeerUnreachableError: No association, or it was lost before the answer.
        AssociationRejectedError: The peer refuses the association.
        ContextRejectedError: The peer does not take reports of storage commitment.
        RequestRefusedError: The peer answered with a failure.
    """
    pairs = [(str(STORAGE_COMMITMENT_CLASS), str(syntax)) for syntax in _SYNTAXES]
    connection = Connection(
        peer,
        calling_ae_title=calling_ae_title,
        pairs=pairs,
        timeouts=timeouts,
        scp_classes=(STORAGE_COMMITMENT_CLASS,),
    )
    try:
        accepted = next((pair for pair in pairs if pair in connection.accepted), None)
        if accepted is None:
            raise ContextRejectedError("the peer takes no reports of storage commitment")
        connection.request(_event_report(report, UID(accepted[1])), accepted)
    finally:
        connection.close()


def _event_report(report: CommitmentReport, syntax: UID) -> N_EVENT_REPORT:
    primitive = N_EVENT_REPORT()
    primitive.AffectedSOPClassUID = STORAGE_COMMITMENT_CLASS
    primitive.AffectedSOPInstanceUID = UID(COMMITMENT_INSTANCE)
    primitive.EventTypeID = _FAILURES_EXIST if report.failed else _ALL_COMMITTED
    primitive.EventInformation = BytesIO(encode_report(report, syntax))
    return primitive


# Implicit first: every peer has to take it (PS3.5 10.1).
_SYNTAXES = sorted(NATIVE_SYNTAXES, key=lambda syntax: syntax != ImplicitVRLittleEndian)


def encode_report(report: CommitmentReport, syntax: UID) -> bytes:
    """The Event Information (PS3.4 table J.3-2)."""
    ds = Dataset()
    ds.TransactionUID = report.transaction_uid
    if report.committed:
        ds.ReferencedSOPSequence = [_item(each) for each in report.committed]
    if report.failed:
        ds.FailedSOPSequence = list(_failed_items(report.failed))
    data = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian)
    if data is None:
        raise ValueError("a report of storage commitment was not encoded: a bug of ours")
    return data


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _failed_items(failed: Iterable[tuple[Reference, FailureReason]]) -> Iterable[Dataset]:
    for reference, reason in failed:
        item = _item(reference)
        item.FailureReason = int(reason)
        yield item

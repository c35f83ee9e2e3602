"""Modality Performed Procedure Step, as SCP and as the SCU that passes it on (PS3.4 Annex F).

Of a step's attributes only its state and UIDs are read; everything else, the patient's identity
among it, stays in the encoded data set. A request is answered with Success once the ``StepBook``
has it durably.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from io import BytesIO
from typing import Protocol

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_CREATE, N_SET
from pynetdicom.dsutils import decode, encode

from dicom_node.attributes import Attributes, Shape, read_attributes
from dicom_node.contexts import PROCEDURE_STEP_CLASS
from dicom_node.errors import BadRequestError, ContextRejectedError, DataSetUnreadableError
from dicom_node.normalized import (
    Answer,
    NormalizedRequest,
    NormalizedStatus,
    Service,
    items_at,
    service,
    text_at,
    uid_at,
)
from dicom_node.quiet import silence_dicom_libraries
from dicom_node.requestor import Connection, PeerAddress, RequestorTimeouts
from dicom_node.uids import is_valid_uid

NO_LONGER_UPDATED = 0xA506
"""Error ID of an N-SET for a step that has ended (PS3.4 F.7.2.2.2)."""

_STATUS = 0x00400252
_SCHEDULED_STEPS = 0x00400270
_STUDY_INSTANCE_UID = 0x0020000D
_PERFORMED_SERIES = 0x00400340
_SERIES_INSTANCE_UID = 0x0020000E
_IMAGES = 0x00081140
_NON_IMAGES = 0x00400220
_SOP_CLASS_UID = 0x00081150
_SOP_INSTANCE_UID = 0x00081155

# One step may serve several requested procedures; nobody groups more.
MAX_STUDIES = 100

_REFERENCE: Shape = {_SOP_CLASS_UID: None, _SOP_INSTANCE_UID: None}
_SERIES: Shape = {_SERIES_INSTANCE_UID: None, _IMAGES: _REFERENCE, _NON_IMAGES: _REFERENCE}
# PS3.4 table F.7.2-1: what an N-CREATE must hold with a value (type 1), sequences apart.
_REQUIRED_VALUES = (
    0x00400253,  # Performed Procedure Step ID
    0x00400241,  # Performed Station AE Title
    0x00400244,  # Performed Procedure Step Start Date
    0x00400245,  # Performed Procedure Step Start Time
    _STATUS,
    0x00080060,  # Modality
)
_SHAPE: Shape = {
    **dict.fromkeys(_REQUIRED_VALUES),
    _SCHEDULED_STEPS: {_STUDY_INSTANCE_UID: None},
    _PERFORMED_SERIES: _SERIES,
}


class StepStatus(str, Enum):
    """(0040,0252), PS3.3 C.4.14."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


class StepOperation(str, Enum):
    """What a message does to a step."""

    CREATE = "N-CREATE"
    SET = "N-SET"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReference:
    """One instance that the scanner says it made."""

    series_instance_uid: str = field(repr=False)
    sop_instance_uid: str = field(repr=False)
    is_image: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMessage:
    """One N-CREATE or N-SET."""

    operation: StepOperation
    sop_instance_uid: str = field(repr=False)
    status: StepStatus | None
    """None: the message does not say."""
    study_instance_uids: tuple[str, ...] = field(repr=False)
    """Of an N-CREATE; an N-SET cannot change them."""
    references: tuple[StepReference, ...] | None = field(repr=False)
    """All instances of the step so far; None: the message does not say."""
    transfer_syntax_uid: str
    data_set: bytes = field(repr=False)


class Noted(str, Enum):
    """What the book made of a message."""

    NOTED = "noted"
    DUPLICATE = "duplicate"
    """An N-CREATE for a step that exists."""
    UNKNOWN = "unknown"
    """An N-SET for a step that does not exist."""
    ENDED = "ended"
    """An N-SET for a step that was completed or discontinued."""
    NO_ROOM = "no_room"


class StepBook(Protocol):
    """Where steps are kept; called from one thread per association."""

    def note(self, message: StepMessage) -> Noted:
        """Make ``message`` durable; the answer survives a power failure."""
        ...


def procedure_step_services(book: StepBook) -> tuple[Service, ...]:
    """The handlers for ``AcceptorPolicy.services``."""

    def serving(
        read: Callable[[NormalizedRequest], StepMessage],
    ) -> Callable[[NormalizedRequest], Answer]:
        def serve(request: NormalizedRequest) -> Answer:
            if not request.caller.rule.may_store:
                return Answer(status=NormalizedStatus.NOT_AUTHORISED)
            return _ANSWERS[book.note(read(request))]

        return serve

    return tuple(
        service(
            event,
            PROCEDURE_STEP_CLASS,
            serving(read),
            unreadable=NormalizedStatus.INVALID_ATTRIBUTE_VALUE,
        )
        for event, read in ((evt.EVT_N_CREATE, read_creation), (evt.EVT_N_SET, read_change))
    )


_ANSWERS = {
    Noted.NOTED: Answer(status=NormalizedStatus.SUCCESS),
    Noted.DUPLICATE: Answer(status=NormalizedStatus.DUPLICATE_SOP_INSTANCE),
    Noted.UNKNOWN: Answer(status=NormalizedStatus.NO_SUCH_SOP_INSTANCE),
    Noted.ENDED: Answer(status=NormalizedStatus.PROCESSING_FAILURE, error_id=NO_LONGER_UPDATED),
    Noted.NO_ROOM: Answer(status=NormalizedStatus.RESOURCE_LIMITATION),
}


def read_creation(request: NormalizedRequest) -> StepMessage:
    """Check an N-CREATE (PS3.4 F.7.2.1).

    Raises:
        BadRequestError: It lacks what is mandatory, or does not begin a step.
        DataSetUnreadableError: Its data set is broken.
    """
    found = _read(request)
    scheduled = items_at(found, _SCHEDULED_STEPS)
    if scheduled is None or any(tag not in found for tag in _REQUIRED_VALUES):
        raise BadRequestError(NormalizedStatus.MISSING_ATTRIBUTE)
    if not scheduled or any(not text_at(found, tag) for tag in _REQUIRED_VALUES):
        raise BadRequestError(NormalizedStatus.MISSING_ATTRIBUTE_VALUE)
    if _status_of(found) is not StepStatus.IN_PROGRESS:
        raise BadRequestError(NormalizedStatus.INVALID_ATTRIBUTE_VALUE)
    studies = dict.fromkeys(_uid(item, _STUDY_INSTANCE_UID) for item in scheduled)
    if len(studies) > MAX_STUDIES:
        raise BadRequestError(NormalizedStatus.RESOURCE_LIMITATION)
    return _message(request, StepOperation.CREATE, found, tuple(studies))


def read_change(request: NormalizedRequest) -> StepMessage:
    """Check an N-SET (PS3.4 F.7.2.2).

    Raises:
        BadRequestError: It names a state or an instance that cannot be.
        DataSetUnreadableError: Its data set is broken.
    """
    return _message(request, StepOperation.SET, _read(request), ())


def _read(request: NormalizedRequest) -> Attributes:
    if not is_valid_uid(request.sop_instance_uid):
        raise BadRequestError(NormalizedStatus.INVALID_SOP_INSTANCE)
    return read_attributes(request.data_set, request.transfer_syntax_uid, _SHAPE)


def _message(
    request: NormalizedRequest,
    operation: StepOperation,
    found: Attributes,
    studies: tuple[str, ...],
) -> StepMessage:
    series = items_at(found, _PERFORMED_SERIES)
    return StepMessage(
        operation=operation,
        sop_instance_uid=request.sop_instance_uid,
        status=_status_of(found),
        study_instance_uids=studies,
        references=None if series is None else tuple(_references(series)),
        transfer_syntax_uid=request.transfer_syntax_uid,
        data_set=request.data_set,
    )


def _status_of(found: Attributes) -> StepStatus | None:
    text = text_at(found, _STATUS)
    if text is None:
        return None
    try:
        return StepStatus(text)
    except ValueError:
        raise BadRequestError(NormalizedStatus.INVALID_ATTRIBUTE_VALUE) from None


def _references(series: Iterable[Attributes]) -> Iterable[StepReference]:
    for item in series:
        for tag in (_IMAGES, _NON_IMAGES):
            for reference in items_at(item, tag) or ():
                yield StepReference(
                    series_instance_uid=_uid(item, _SERIES_INSTANCE_UID),
                    sop_instance_uid=_uid(reference, _SOP_INSTANCE_UID),
                    is_image=tag == _IMAGES,
                )


def _uid(found: Attributes, tag: int) -> str:
    if tag not in found:
        raise BadRequestError(NormalizedStatus.MISSING_ATTRIBUTE)
    uid = uid_at(found, tag)
    if uid is None:
        raise BadRequestError(NormalizedStatus.INVALID_ATTRIBUTE_VALUE)
    return uid


def send_step(
    message: StepMessage,
    peer: PeerAddress,
    *,
    calling_ae_title: str,
    timeouts: RequestorTimeouts,
) -> None:
    """Pass a message on, byte for byte if the peer takes its transfer syntax.

    Raises:
        PeerUnreachableError: No association, or it was lost before the answer.
        AssociationRejectedError: The peer refuses the association.
        ContextRejectedError: The peer does not take procedure steps.
        DataSetUnreadableError: It would have to be encoded anew, and cannot be.
        RequestRefusedError: The peer answered with a failure.
    """
    as_it_came = (str(PROCEDURE_STEP_CLASS), message.transfer_syntax_uid)
    pairs = list(dict.fromkeys((as_it_came, (str(PROCEDURE_STEP_CLASS), ImplicitVRLittleEndian))))
    connection = Connection(peer, calling_ae_title=calling_ae_title, pairs=pairs, timeouts=timeouts)
    try:
        accepted = next((pair for pair in pairs if pair in connection.accepted), None)
        if accepted is None:
            raise ContextRejectedError("the peer takes no procedure steps")
        data_set = message.data_set if accepted == as_it_came else _encoded_anew(message)
        connection.request(_primitive(message, data_set), accepted)
    finally:
        connection.close()


def _primitive(message: StepMessage, data_set: bytes) -> N_CREATE | N_SET:
    instance_uid = UID(message.sop_instance_uid)
    if message.operation is StepOperation.CREATE:
        creation = N_CREATE()
        creation.AffectedSOPClassUID = PROCEDURE_STEP_CLASS
        creation.AffectedSOPInstanceUID = instance_uid
        creation.AttributeList = BytesIO(data_set)
        return creation
    change = N_SET()
    change.RequestedSOPClassUID = PROCEDURE_STEP_CLASS
    change.RequestedSOPInstanceUID = instance_uid
    change.ModificationList = BytesIO(data_set)
    return change


def _encoded_anew(message: StepMessage) -> bytes:
    """The same data set in implicit VR little endian."""
    silence_dicom_libraries()
    syntax = UID(message.transfer_syntax_uid)
    try:
        ds = decode(BytesIO(message.data_set), syntax.is_implicit_VR, syntax.is_little_endian)
        data = encode(ds, is_implicit_vr=True, is_little_endian=True)
    except Exception:  # noqa: BLE001  the peer's bytes may break pydicom in any way
        # Not chained: pydicom's texts quote values.
        raise DataSetUnreadableError("the step cannot be encoded anew") from None
    if data is None:
        raise DataSetUnreadableError("the step cannot be encoded anew")
    return data

"""What every service of DIMSE-N needs on our side (PS3.7 10): a request in, a status out.

Handlers run in the association's thread. Whatever goes wrong becomes a status; no exception, and
no value of a data set, reaches pynetdicom or a log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from io import BytesIO
from typing import Any, cast

import structlog
from pydicom import Dataset
from pynetdicom import evt

from dicom_node.attributes import Attributes
from dicom_node.errors import BadRequestError, DataSetError
from dicom_node.reception import Caller
from dicom_node.uids import is_valid_uid
from dicom_node.values import codes_of

_log = structlog.get_logger()

Handler = Callable[[evt.Event], tuple[Dataset, None]]
Service = tuple[evt.EventType, Handler]


class NormalizedStatus(IntEnum):
    """The statuses of DIMSE-N that we answer with (PS3.7 Annex C)."""

    SUCCESS = 0x0000
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    INVALID_ARGUMENT_VALUE = 0x0115
    INVALID_SOP_INSTANCE = 0x0117
    NO_SUCH_SOP_CLASS = 0x0118
    MISSING_ATTRIBUTE = 0x0120
    MISSING_ATTRIBUTE_VALUE = 0x0121
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORISED = 0x0124
    DUPLICATE_TRANSACTION = 0x0131
    RESOURCE_LIMITATION = 0x0213


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request is answered with."""

    status: NormalizedStatus
    error_id: int | None = None
    """(0000,0903), where the service defines one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizedRequest:
    """One request as it came; the data set is not decoded."""

    caller: Caller = field(repr=False)
    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    action_type: int | None
    transfer_syntax_uid: str
    data_set: bytes = field(repr=False)


def service(
    event: evt.EventType,
    sop_class_uid: str,
    serve: Callable[[NormalizedRequest], Answer],
    *,
    unreadable: NormalizedStatus,
) -> Service:
    """Bind ``serve`` to a request of one SOP class, for ``AcceptorPolicy.services``.

    Args:
        event: Which request, such as ``evt.EVT_N_ACTION``.
        sop_class_uid: Of both the request and its presentation context; else NO_SUCH_SOP_CLASS.
        serve: Answers; a ``BadRequestError`` becomes its status.
        unreadable: What a data set is answered with that cannot be read.
    """

    def handle(found: evt.Event) -> tuple[Dataset, None]:
        answer = _answer(found, sop_class_uid, serve, unreadable)
        if answer.status is NormalizedStatus.SUCCESS:
            _log.info("node.request_served", request=event.name)
        else:
            _log.warning("node.request_refused", request=event.name, status=f"{answer.status:04X}")
        return _encoded(answer), None

    return event, handle


def _answer(
    event: evt.Event,
    sop_class_uid: str,
    serve: Callable[[NormalizedRequest], Answer],
    unreadable: NormalizedStatus,
) -> Answer:
    try:
        request = _request_of(event)
        if not request.sop_class_uid == str(event.context.abstract_syntax) == sop_class_uid:
            return Answer(status=NormalizedStatus.NO_SUCH_SOP_CLASS)
        return serve(request)
    except BadRequestError as error:
        return Answer(status=NormalizedStatus(error.status))
    except DataSetError:
        return Answer(status=unreadable)
    except Exception as error:  # noqa: BLE001  boundary: the peer gets a status in any case
        # The text of a foreign error may hold values, so only its type is logged.
        _log.error("node.request_failed", error=type(error).__name__)
        return Answer(status=NormalizedStatus.PROCESSING_FAILURE)


def _request_of(event: evt.Event) -> NormalizedRequest:
    primitive = cast("Any", event.request)
    is_create = event.event is evt.EVT_N_CREATE
    prefix = "Affected" if is_create else "Requested"
    data_set = cast("BytesIO | None", getattr(primitive, _DATA_SETS[event.event]))
    return NormalizedRequest(
        caller=cast("Any", event.assoc).caller,
        sop_class_uid=str(getattr(primitive, f"{prefix}SOPClassUID") or ""),
        sop_instance_uid=str(getattr(primitive, f"{prefix}SOPInstanceUID") or ""),
        action_type=getattr(primitive, "ActionTypeID", None),
        transfer_syntax_uid=str(event.context.transfer_syntax),
        data_set=data_set.getvalue() if data_set is not None else b"",
    )


_DATA_SETS: dict[evt.EventType, str] = {
    evt.EVT_N_ACTION: "ActionInformation",
    evt.EVT_N_CREATE: "AttributeList",
    evt.EVT_N_SET: "ModificationList",
}


def _encoded(answer: Answer) -> Dataset:
    """The status as pynetdicom takes it."""
    encoded = Dataset()
    encoded.Status = int(answer.status)
    if answer.error_id is not None:
        encoded.ErrorID = answer.error_id
    return encoded


def text_at(found: Attributes, tag: int) -> str | None:
    """The first value of a text attribute; "" if it is empty, None if it is absent."""
    raw = found.get(tag)
    if not isinstance(raw, bytes):
        return None
    return (codes_of(raw) or ("",))[0]


def items_at(found: Attributes, tag: int) -> list[Attributes] | None:
    """The items of a sequence; None if it is absent."""
    items = found.get(tag)
    return items if isinstance(items, list) else None


def uid_at(found: Attributes, tag: int) -> str | None:
    """A valid UID; None if the attribute is absent, empty or none."""
    uid = text_at(found, tag)
    return uid if uid and is_valid_uid(uid) else None

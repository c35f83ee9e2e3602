"""The Store Instances Response Module (PS3.18 Annex I) as DICOM JSON (PS3.18 Annex F); all pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from typing import Any

from dicom_node.status import StoreStatus, is_stored

RETRY_AFTER_S = 60
"""When a client may try again after the door had no room: cleaning up takes minutes."""


class FailureReason(IntEnum):
    """Reasons that C-STORE has no status for (PS3.18 Table I.2-2)."""

    PROCESSING_FAILURE = 0x0110
    TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """What became of one part of a request."""

    sop_class_uid: str
    """Valid, or "" for a part that did not say which instance it is."""
    sop_instance_uid: str = field(repr=False)
    status: int
    """A status of C-STORE, or a ``FailureReason``."""
    is_for_want_of_room: bool = False
    """It was refused for something that passes: a full disk, or a quota."""

    @property
    def is_stored(self) -> bool:
        """Whether the instance is in the spool, with or without a warning."""
        return is_stored(self.status)


def status_of(results: Sequence[PartResult], interruption: HTTPStatus | None) -> HTTPStatus:
    """Choose the status of the response (PS3.18 Table 10.5.3-1).

    Args:
        results: Of the parts that were received whole.
        interruption: Why the rest of the request could not be read; None if it was read whole.
    """
    if any(each.is_stored for each in results):
        is_all_well = all(each.status == StoreStatus.SUCCESS for each in results)
        return HTTPStatus.OK if is_all_well and interruption is None else HTTPStatus.ACCEPTED
    if interruption is not None:
        return interruption
    if all(each.is_for_want_of_room for each in results):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.CONFLICT


def encode_report(results: Sequence[PartResult], *, is_interrupted: bool) -> bytes:
    """The body of the response.

    Retrieve URL stays empty (type 2): what was stored cannot be retrieved from here.
    """
    stored = [each for each in results if each.is_stored]
    failed = [each for each in results if not each.is_stored]
    named = [_failed_item(each) for each in failed if each.sop_instance_uid]
    # Parts that did not say which instance they are, and the rest of a request that broke off.
    others = [{"00081197": _us(each.status)} for each in failed if not each.sop_instance_uid]
    if is_interrupted:
        others.append({"00081197": _us(FailureReason.PROCESSING_FAILURE)})
    report: dict[str, Any] = {"00081190": {"vr": "UR"}}
    sequences = {
        "00081198": named,
        "00081199": [_referenced_item(each) for each in stored],
        "0008119A": others,
    }
    report |= {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}
    return json.dumps(report, separators=(",", ":")).encode("ascii")


def _us(value: int) -> dict[str, Any]:
    return {"vr": "US", "Value": [int(value)]}


def _reference(result: PartResult) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [result.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [result.sop_instance_uid]},
    }


def _failed_item(result: PartResult) -> dict[str, Any]:
    return {**_reference(result), "00081197": _us(result.status)}


def _referenced_item(result: PartResult) -> dict[str, Any]:
    item = {**_reference(result), "00081190": {"vr": "UR"}}
    if result.status != StoreStatus.SUCCESS:
        item["00081196"] = _us(result.status)
    return item

from __future__ import annotations

import json
from http import HTTPStatus

import pytest
from pydicom import Dataset

from dicom_node.stow_response import FailureReason, PartResult, encode_report, status_of

CT = "1.2.840.10008.5.1.4.1.1.2"


def result(status: int, *, uid: str = "1.2.3", want_of_room: bool = False) -> PartResult:
    return PartResult(
        sop_class_uid=CT if uid else "",
        sop_instance_uid=uid,
        status=status,
        is_for_want_of_room=want_of_room,
    )


STORED, COERCED = result(0), result(0xB000)
MISMATCH, NO_ROOM = result(0xA900), result(0xA700, want_of_room=True)


@pytest.mark.parametrize(
    ("results", "interruption", "status"),
    [
        ([STORED, STORED], None, 200),
        ([STORED, COERCED], None, 202),
        ([STORED, MISMATCH], None, 202),
        ([STORED], HTTPStatus.BAD_REQUEST, 202),
        ([MISMATCH], None, 409),
        ([MISMATCH, NO_ROOM], None, 409),
        ([NO_ROOM, NO_ROOM], None, 503),
        ([MISMATCH], HTTPStatus.REQUEST_TIMEOUT, 408),
        ([], HTTPStatus.BAD_REQUEST, 400),
    ],
)
def test_the_status_tells_all_some_or_none(
    results: list[PartResult], interruption: HTTPStatus | None, status: int
) -> None:
    assert status_of(results, interruption) == status


def test_a_report_is_read_back_by_pydicom() -> None:
    results = [STORED, COERCED, MISMATCH, result(0xC000, uid="")]
    report = Dataset.from_json(encode_report(results, is_interrupted=True).decode())
    first, second = report.ReferencedSOPSequence
    assert (first.ReferencedSOPClassUID, first.ReferencedSOPInstanceUID) == (CT, "1.2.3")
    assert "WarningReason" not in first
    assert second.WarningReason == 0xB000
    (failed,) = report.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == ("1.2.3", 0xA900)
    assert [each.FailureReason for each in report.OtherFailuresSequence] == [
        0xC000,
        FailureReason.PROCESSING_FAILURE,
    ]
    assert report["RetrieveURL"].is_empty


def test_sequences_without_items_are_left_out() -> None:
    """Each is type 1C: present only if there is something to say (PS3.18 Table I.1-1)."""
    assert json.loads(encode_report([STORED], is_interrupted=False)).keys() == {
        "00081190",
        "00081199",
    }
    assert json.loads(encode_report([], is_interrupted=False)) == {"00081190": {"vr": "UR"}}


def test_no_repr_shows_an_instance() -> None:
    assert "1.2.3" not in repr(STORED)

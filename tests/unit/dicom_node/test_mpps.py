"""Procedure steps against a real association: what is noted, what is refused, what goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import decode, encode
from simulators.listening_scanner import ModalityLink, call_node, change, creation
from simulators.upstream_ris import UpstreamRis

from dicom_node.admission import PeerRule
from dicom_node.errors import (
    BadRequestError,
    ContextRejectedError,
    DataSetUnreadableError,
    PeerUnreachableError,
    RequestRefusedError,
)
from dicom_node.mpps import (
    MAX_STUDIES,
    NO_LONGER_UPDATED,
    Noted,
    StepMessage,
    StepOperation,
    StepReference,
    StepStatus,
    procedure_step_services,
    read_change,
    read_creation,
    send_step,
)
from dicom_node.normalized import NormalizedRequest
from dicom_node.reception import Caller
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from dicom_node.scp import StorageNode
from dicom_node.uids import is_valid_uid

MakeNode = Callable[..., StorageNode]
TIMEOUTS = RequestorTimeouts(connect_s=5.0, association_s=5.0, answer_s=5.0)
UID = "1.2.40.1"


class MemoryBook:
    """Keeps messages in memory and answers as told."""

    def __init__(self) -> None:
        self.messages: list[StepMessage] = []
        self.answer: Noted | Exception = Noted.NOTED

    def note(self, message: StepMessage) -> Noted:
        self.messages.append(message)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def book() -> MemoryBook:
    return MemoryBook()


@pytest.fixture
def node(start_node: MakeNode, book: MemoryBook) -> StorageNode:
    return start_node(services=procedure_step_services(book))


@pytest.fixture
def link(node: StorageNode) -> Iterator[ModalityLink]:
    with call_node(node.port) as opened:
        yield opened


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_a_creation_is_noted_with_its_study_and_its_bytes(
    node: StorageNode, book: MemoryBook, syntax: str
) -> None:
    with call_node(node.port, syntaxes=[syntax]) as link:
        assert link.create(creation("1.2.3"), UID) == 0x0000
    (message,) = book.messages
    assert message.operation is StepOperation.CREATE
    assert message.status is StepStatus.IN_PROGRESS
    assert message.sop_instance_uid == UID
    assert message.study_instance_uids == ("1.2.3",)
    assert message.references == ()
    assert message.transfer_syntax_uid == syntax
    assert message.data_set == encode(
        creation("1.2.3"), syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    )


def test_a_step_of_several_studies_names_each_once(link: ModalityLink, book: MemoryBook) -> None:
    step = creation("1.2.3")
    for uid in ("1.2.4", "1.2.3"):
        step.ScheduledStepAttributesSequence.append(
            creation(uid).ScheduledStepAttributesSequence[0]
        )
    assert link.create(step, UID) == 0x0000
    assert book.messages[0].study_instance_uids == ("1.2.3", "1.2.4")


def test_a_step_of_more_studies_than_anybody_groups_is_refused(
    link: ModalityLink, book: MemoryBook
) -> None:
    step = creation("1.2.3")
    for number in range(MAX_STUDIES):
        step.ScheduledStepAttributesSequence.append(
            creation(f"1.2.4.{number}").ScheduledStepAttributesSequence[0]
        )
    assert link.create(step, UID) == 0x0213
    assert book.messages == []


def test_a_change_names_images_and_other_objects(link: ModalityLink, book: MemoryBook) -> None:
    step = change("COMPLETED", {"1.5": ["1.5.1", "1.5.2"], "1.6": ["1.6.1"]}, reports=["1.7.1"])
    assert link.set(step, UID) == 0x0000
    (message,) = book.messages
    assert message.operation is StepOperation.SET
    assert message.status is StepStatus.COMPLETED
    assert message.references is not None
    assert [(item.series_instance_uid, item.sop_instance_uid) for item in message.references] == [
        ("1.5", "1.5.1"),
        ("1.5", "1.5.2"),
        ("1.5", "1.7.1"),
        ("1.6", "1.6.1"),
        ("1.6", "1.7.1"),
    ]
    assert StepReference(
        series_instance_uid="1.5", sop_instance_uid="1.7.1", is_image=False
    ) in set(message.references)


def test_a_change_that_says_little_says_none(link: ModalityLink, book: MemoryBook) -> None:
    step = Dataset()
    step.PerformedProcedureStepDescription = "CT HEAD, REPEATED"
    assert link.set(step, UID) == 0x0000
    assert book.messages[0].status is None
    assert book.messages[0].references is None


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Noted.NOTED, 0x0000),
        (Noted.DUPLICATE, 0x0111),
        (Noted.UNKNOWN, 0x0112),
        (Noted.NO_ROOM, 0x0213),
        (OSError("disk full: CANARY"), 0x0110),
    ],
)
def test_the_status_says_what_the_book_made_of_it(
    link: ModalityLink, book: MemoryBook, answer: Noted | Exception, status: int
) -> None:
    book.answer = answer
    assert link.create(creation(), UID) == status


def test_a_change_of_an_ended_step_is_refused_with_its_error_id(
    link: ModalityLink, book: MemoryBook
) -> None:
    book.answer = Noted.ENDED
    answer = link.set_whole(change("COMPLETED"), UID)
    assert (answer.Status, answer.ErrorID) == (0x0110, NO_LONGER_UPDATED)


def _without(keyword: str) -> Dataset:
    step = creation()
    delattr(step, keyword)
    return step


def _with(keyword: str, value: object) -> Dataset:
    step = creation()
    setattr(step, keyword, value)
    return step


def _scheduled(study: str | None) -> Dataset:
    step = creation()
    item = step.ScheduledStepAttributesSequence[0]
    if study is None:
        del item.StudyInstanceUID
    else:
        item.StudyInstanceUID = study
    return step


MANDATORY = (
    "ScheduledStepAttributesSequence",
    "PerformedProcedureStepID",
    "PerformedStationAETitle",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "PerformedProcedureStepStatus",
    "Modality",
)


@pytest.mark.parametrize(
    ("step", "status"),
    [
        *((_without(keyword), 0x0120) for keyword in MANDATORY),
        *((_with(keyword, ""), 0x0121) for keyword in MANDATORY[1:]),
        (_with("ScheduledStepAttributesSequence", []), 0x0121),
        (_with("PerformedProcedureStepStatus", "COMPLETED"), 0x0106),
        (_with("PerformedProcedureStepStatus", "PAUSED"), 0x0106),
        (_scheduled(None), 0x0120),
        (_scheduled(""), 0x0106),
    ],
)
def test_a_creation_that_lacks_or_mistakes_something_is_refused(
    link: ModalityLink, book: MemoryBook, step: Dataset, status: int
) -> None:
    assert link.create(step, UID) == status
    assert book.messages == []
    assert link.create(creation(), UID) == 0x0000


def test_attributes_that_may_be_empty_may_be(link: ModalityLink) -> None:
    step = creation()
    step.PatientName = step.PatientID = ""
    assert link.create(step, UID) == 0x0000


def test_a_change_to_a_state_that_there_is_not_is_refused(
    link: ModalityLink, book: MemoryBook
) -> None:
    assert link.set(change("PAUSED"), UID) == 0x0106
    assert book.messages == []


def test_a_step_without_a_uid_is_refused(link: ModalityLink, book: MemoryBook) -> None:
    assert link.create(creation(), "") == 0x0117
    assert book.messages == []


def test_bytes_that_are_no_data_set_are_refused(
    link: ModalityLink, book: MemoryBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pynetdicom.association.encode", lambda *_args: b"\x08\x00\x60\x00CS\xff")
    assert link.create(creation(), UID) == 0x0106
    assert book.messages == []


def test_a_peer_that_may_not_store_may_not_report_steps(
    start_node: MakeNode, book: MemoryBook
) -> None:
    node = start_node(
        services=procedure_step_services(book),
        peers=(PeerRule(ae_title="SCANNER", may_store=False),),
    )
    with call_node(node.port) as link:
        assert link.create(creation(), UID) == 0x0124
    assert book.messages == []


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 50),
    is_creation=st.booleans(),
)
def test_whatever_a_damaged_message_holds_it_is_read_or_refused(
    places: list[tuple[int, int]], cut: int, *, is_creation: bool
) -> None:
    step = creation() if is_creation else change("COMPLETED", {"1.5": ["1.5.1"]})
    encoded = encode(step, is_implicit_vr=False, is_little_endian=True)
    assert encoded is not None
    data = bytearray(encoded)
    for place, value in places:
        data[place % len(data)] = value
    request = NormalizedRequest(
        caller=Caller(ae_title="A", address="", rule=PeerRule(ae_title="A")),
        sop_class_uid="1.2.840.10008.3.1.2.3.3",
        sop_instance_uid=UID,
        action_type=None,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        data_set=bytes(data[: len(data) - cut]),
    )
    try:
        message = read_creation(request) if is_creation else read_change(request)
    except (BadRequestError, DataSetUnreadableError):
        return
    uids = [item.sop_instance_uid for item in message.references or ()]
    assert all(is_valid_uid(uid) for uid in [*uids, *message.study_instance_uids])


def test_no_value_of_a_step_is_logged(
    link: ModalityLink, book: MemoryBook, capfd: pytest.CaptureFixture[str]
) -> None:
    book.answer = OSError("CANARY^STEP")
    link.create(creation("1.2.77777"), UID)
    link.create(_with("PerformedProcedureStepStatus", "CANARY"), UID)
    written = "".join(capfd.readouterr())
    assert "node.request_failed" in written
    for secret in ("CANARY", "77777", UID, "SCANNER", "127.0.0.1"):
        assert secret not in written


# ---------------------------------------------------------------- passing on


@pytest.fixture
def ris() -> Iterator[UpstreamRis]:
    with UpstreamRis() as upstream:
        yield upstream


def _message(
    step: Dataset,
    operation: StepOperation = StepOperation.CREATE,
    *,
    syntax: str = ExplicitVRLittleEndian,
) -> StepMessage:
    data = encode(step, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    assert data is not None
    return StepMessage(
        operation=operation,
        sop_instance_uid=UID,
        status=None,
        study_instance_uids=(),
        references=None,
        transfer_syntax_uid=syntax,
        data_set=data,
    )


def _send(message: StepMessage, port: int) -> None:
    peer = PeerAddress(ae_title="RIS", host="127.0.0.1", port=port)
    send_step(message, peer, calling_ae_title="NODE", timeouts=TIMEOUTS)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_messages_go_on_byte_for_byte(ris: UpstreamRis, syntax: str) -> None:
    messages = [
        _message(creation(), syntax=syntax),
        _message(change("COMPLETED", {"1.5": ["1.5.1"]}), StepOperation.SET, syntax=syntax),
    ]
    for message in messages:
        _send(message, ris.port)
    assert ris.taken == [("N-CREATE", UID), ("N-SET", UID)]
    assert [item.data_set for item in ris.messages] == [item.data_set for item in messages]


def test_a_message_is_encoded_anew_only_where_upstream_does_not_take_its_syntax() -> None:
    message = _message(creation(), syntax=ExplicitVRBigEndian)
    with UpstreamRis(syntaxes=(ImplicitVRLittleEndian,)) as ris:
        _send(message, ris.port)
        (taken,) = ris.messages
    assert decode(BytesIO(taken.data_set), True, True) == creation()  # noqa: FBT003  pynetdicom's


def test_a_broken_message_is_not_encoded_anew() -> None:
    message = _message(creation(), syntax=ExplicitVRBigEndian)
    broken = StepMessage(
        operation=message.operation,
        sop_instance_uid=UID,
        status=None,
        study_instance_uids=(),
        references=None,
        transfer_syntax_uid=ExplicitVRBigEndian,
        data_set=message.data_set[:-3],
    )
    with (
        UpstreamRis(syntaxes=(ImplicitVRLittleEndian,)) as ris,
        pytest.raises(DataSetUnreadableError),
    ):
        _send(broken, ris.port)


def test_a_refusal_carries_its_status_and_error_id(ris: UpstreamRis) -> None:
    _send(_message(creation()), ris.port)
    with pytest.raises(RequestRefusedError) as duplicate:
        _send(_message(creation()), ris.port)
    assert (duplicate.value.status, duplicate.value.error_id) == (0x0111, None)
    _send(_message(change("DISCONTINUED"), StepOperation.SET), ris.port)
    with pytest.raises(RequestRefusedError) as ended:
        _send(_message(change("COMPLETED"), StepOperation.SET), ris.port)
    assert (ended.value.status, ended.value.error_id) == (0x0110, NO_LONGER_UPDATED)


def test_a_warning_is_no_refusal(ris: UpstreamRis) -> None:
    ris.statuses = [0x0116, 0x0001]
    _send(_message(creation()), ris.port)
    _send(_message(change("IN PROGRESS"), StepOperation.SET), ris.port)


def test_an_upstream_that_is_down_or_takes_no_steps_is_an_error(ris: UpstreamRis) -> None:
    ris.go_deaf()
    with pytest.raises(PeerUnreachableError):
        _send(_message(creation()), ris.port)
    with (
        UpstreamRis(syntaxes=("1.2.840.10008.1.2.4.70",)) as deaf,
        pytest.raises(ContextRejectedError),
    ):
        _send(_message(creation()), deaf.port)

"""Storage commitment against a real association: what is booked, what is refused, and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from simulators.listening_scanner import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    CT,
    MPPS,
    ListeningScanner,
    ModalityLink,
    call_node,
    commitment_request,
)

from dicom_node.admission import PeerRule
from dicom_node.commitment import (
    Booked,
    CommitmentReport,
    CommitmentRequest,
    FailureReason,
    Reference,
    commitment_services,
    send_report,
)
from dicom_node.errors import (
    AssociationLostError,
    AssociationRejectedError,
    ContextRejectedError,
    PeerUnreachableError,
    RequestRefusedError,
)
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from dicom_node.scp import StorageNode

MakeNode = Callable[..., StorageNode]
TIMEOUTS = RequestorTimeouts(connect_s=5.0, association_s=5.0, answer_s=5.0)
PAIRS = [(CT, f"1.2.3.{number}") for number in range(1, 4)]


class MemoryBook:
    """Keeps requests in memory and answers as told."""

    def __init__(self) -> None:
        self.requests: list[CommitmentRequest] = []
        self.answer: Booked | Exception = Booked.BOOKED

    def book(self, request: CommitmentRequest) -> Booked:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def book() -> MemoryBook:
    return MemoryBook()


@pytest.fixture
def node(start_node: MakeNode, book: MemoryBook) -> StorageNode:
    return start_node(services=commitment_services(book, max_references=100))


@pytest.fixture
def link(node: StorageNode) -> Iterator[ModalityLink]:
    with call_node(node.port) as opened:
        yield opened


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_a_request_is_booked_with_all_that_it_names(
    node: StorageNode, book: MemoryBook, syntax: str
) -> None:
    with call_node(node.port, syntaxes=[syntax]) as link:
        assert link.ask(commitment_request("1.9", PAIRS)) == 0x0000
    (request,) = book.requests
    assert request.transaction_uid == "1.9"
    assert request.references == tuple(Reference(*pair) for pair in PAIRS)
    assert (request.ae_title, request.address) == ("SCANNER", "127.0.0.1")


def test_a_reference_that_is_repeated_counts_once(link: ModalityLink, book: MemoryBook) -> None:
    assert link.ask(commitment_request("1.9", [*PAIRS, *PAIRS])) == 0x0000
    assert len(book.requests[0].references) == 3


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Booked.BOOKED, 0x0000),
        (Booked.REPEATED, 0x0000),
        (Booked.CONFLICT, 0x0131),
        (Booked.NO_ROOM, 0x0213),
        (OSError("disk full: CANARY"), 0x0110),
    ],
)
def test_the_status_says_what_the_book_made_of_it(
    link: ModalityLink, book: MemoryBook, answer: Booked | Exception, status: int
) -> None:
    book.answer = answer
    assert link.ask(commitment_request("1.9", PAIRS)) == status


def _without(keyword: str) -> Dataset:
    request = commitment_request("1.9", PAIRS)
    delattr(request, keyword)
    return request


def _with_item(**values: str) -> Dataset:
    request = commitment_request("1.9", PAIRS)
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    request.ReferencedSOPSequence.append(item)
    return request


@pytest.mark.parametrize(
    ("request_", "changes", "status"),
    [
        (commitment_request("1.9", PAIRS), {"action_type": 2}, 0x0123),
        (commitment_request("1.9", PAIRS), {"instance_uid": "1.2.840.10008.1.20.1.2"}, 0x0112),
        (commitment_request("1.9", []), {}, 0x0115),
        (commitment_request("1.9", PAIRS * 34), {}, 0x0213),
        (None, {}, 0x0115),
        (_without("TransactionUID"), {}, 0x0115),
        (_without("ReferencedSOPSequence"), {}, 0x0115),
        (_with_item(ReferencedSOPClassUID=CT), {}, 0x0115),
        (_with_item(ReferencedSOPInstanceUID="1.2"), {}, 0x0115),
        (_with_item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=""), {}, 0x0115),
    ],
)
def test_what_is_no_request_is_refused_and_the_association_goes_on(
    link: ModalityLink,
    book: MemoryBook,
    request_: Dataset | None,
    changes: dict[str, Any],
    status: int,
) -> None:
    assert link.ask(request_, **changes) == status
    assert book.requests == []
    assert link.ask(commitment_request("1.9", PAIRS)) == 0x0000


def test_a_request_on_the_context_of_another_class_is_refused(
    node: StorageNode, book: MemoryBook
) -> None:
    with call_node(node.port) as link, link.checkpoint.held():
        status, _ = link.association.send_n_action(
            commitment_request("1.9", PAIRS), 1, COMMITMENT, COMMITMENT_INSTANCE, meta_uid=MPPS
        )
    assert status.get("Status") != 0x0000
    assert book.requests == []


def test_bytes_that_are_no_data_set_are_refused(
    node: StorageNode, book: MemoryBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pynetdicom.association.encode", lambda *_args: b"\x08\x00\x95\x11garbage")
    with call_node(node.port) as link:
        assert link.ask(commitment_request("1.9", PAIRS)) == 0x0115
    assert book.requests == []


def test_a_peer_whose_commitment_is_off_negotiates_and_is_refused(
    start_node: MakeNode, book: MemoryBook
) -> None:
    node = start_node(
        services=commitment_services(book, max_references=100),
        peers=(PeerRule(ae_title="SCANNER", storage_commitment=False),),
    )
    with call_node(node.port) as link:
        assert link.ask(commitment_request("1.9", PAIRS)) == 0x0124
    assert book.requests == []


def test_a_scanner_that_negotiates_roles_is_served(node: StorageNode) -> None:
    with call_node(node.port, wants_role=True) as link:
        assert link.ask(commitment_request("1.9", PAIRS)) == 0x0000


def test_images_and_requests_share_an_association(
    node: StorageNode, book: MemoryBook, make_file: Callable[..., Any]
) -> None:
    ds = dcmread(make_file())
    syntaxes = [ds.file_meta.TransferSyntaxUID]
    with call_node(node.port, syntaxes=syntaxes, extra_classes=[ds.SOPClassUID]) as link:
        assert link.ask(commitment_request("1.8", PAIRS)) == 0x0000
        assert link.store(ds) == 0x0000
        assert link.ask(commitment_request("1.9", PAIRS)) == 0x0000
    assert [item.transaction_uid for item in book.requests] == ["1.8", "1.9"]


def test_a_request_for_5000_instances_is_booked(start_node: MakeNode, book: MemoryBook) -> None:
    node = start_node(services=commitment_services(book, max_references=5_000))
    pairs = [(CT, f"1.2.840.113619.2.55.3.2831.1.{number}") for number in range(1, 5_001)]
    with call_node(node.port) as link:
        assert link.ask(commitment_request("1.9", pairs)) == 0x0000
    assert len(book.requests[0].references) == 5_000


def test_no_value_of_a_request_is_logged(
    link: ModalityLink, book: MemoryBook, capfd: pytest.CaptureFixture[str]
) -> None:
    book.answer = OSError("CANARY 1.2.3.1")
    link.ask(commitment_request("1.2.840.77777", PAIRS))
    link.ask(_with_item(ReferencedSOPClassUID="CANARY"))
    written = "".join(capfd.readouterr())
    assert "node.request_failed" in written
    assert "node.request_refused" in written
    for secret in ("CANARY", "77777", "1.2.3.1", "SCANNER", "127.0.0.1"):
        assert secret not in written


# ---------------------------------------------------------------- reports


def _report(**changes: Any) -> CommitmentReport:
    references = [Reference(*pair) for pair in PAIRS]
    return CommitmentReport(
        **{"transaction_uid": "1.9", "committed": references, "failed": (), **changes}
    )


def _send(report: CommitmentReport, port: int) -> None:
    peer = PeerAddress(ae_title="SCANNER", host="127.0.0.1", port=port)
    send_report(report, peer, calling_ae_title="NODE", timeouts=TIMEOUTS)


@pytest.fixture
def scanner() -> Iterator[ListeningScanner]:
    with ListeningScanner() as listening:
        yield listening


def test_a_report_says_that_all_is_committed(scanner: ListeningScanner) -> None:
    _send(_report(), scanner.port)
    (report,) = scanner.reports
    assert (report.event_type, report.transaction_uid) == (1, "1.9")
    assert report.committed == tuple(PAIRS)
    assert report.failed == ()
    assert report.is_scp_negotiated


def test_a_report_names_what_failed_and_why(scanner: ListeningScanner) -> None:
    references = [Reference(*pair) for pair in PAIRS]
    _send(
        _report(
            committed=references[:1],
            failed=[
                (references[1], FailureReason.NO_SUCH_OBJECT_INSTANCE),
                (references[2], FailureReason.CLASS_INSTANCE_CONFLICT),
            ],
        ),
        scanner.port,
    )
    (report,) = scanner.reports
    assert report.event_type == 2
    assert report.committed == (PAIRS[0],)
    assert report.failed == ((PAIRS[1], 0x0112), (PAIRS[2], 0x0119))


def test_a_report_without_any_success_has_no_sequence_for_it(scanner: ListeningScanner) -> None:
    reference = Reference(*PAIRS[0])
    failed = [(reference, FailureReason.PROCESSING_FAILURE)]
    _send(_report(committed=(), failed=failed), scanner.port)
    assert scanner.reports[0].committed == ()
    assert scanner.reports[0].failed == ((PAIRS[0], 0x0110),)


def test_a_scanner_that_refuses_a_report_is_an_error_with_its_status(
    scanner: ListeningScanner,
) -> None:
    scanner.statuses = [0x0110]
    with pytest.raises(RequestRefusedError, match="0x0110"):
        _send(_report(), scanner.port)


def test_a_scanner_that_does_not_listen_is_an_error(scanner: ListeningScanner) -> None:
    scanner.go_deaf()
    with pytest.raises(PeerUnreachableError):
        _send(_report(), scanner.port)


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    servers = []

    def start(ae: AE, handlers: list[Any] | None = None) -> int:
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers or [])
        assert server is not None
        servers.append(server)
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()


def test_a_scanner_that_takes_no_reports_is_an_error(serve: Callable[..., int]) -> None:
    ae = AE("SCANNER")
    ae.add_supported_context(CT)
    with pytest.raises(ContextRejectedError):
        _send(_report(), serve(ae))


def test_a_scanner_that_refuses_the_association_is_an_error(serve: Callable[..., int]) -> None:
    ae = AE("SCANNER")
    ae.require_calling_aet = ["OTHER"]
    ae.add_supported_context(COMMITMENT)
    with pytest.raises(AssociationRejectedError):
        _send(_report(), serve(ae))


def test_a_scanner_that_knows_nothing_of_roles_is_sent_its_report(
    serve: Callable[..., int],
) -> None:
    taken: list[int] = []

    def take(event: evt.Event) -> tuple[int, None]:
        taken.append(event.event_type or 0)
        return 0x0000, None

    ae = AE("SCANNER")
    ae.add_supported_context(COMMITMENT)
    _send(_report(), serve(ae, [(evt.EVT_N_EVENT_REPORT, take)]))
    assert taken == [1]


def test_a_scanner_that_aborts_instead_of_answering_is_an_error(
    serve: Callable[..., int],
) -> None:
    def abort(event: evt.Event) -> tuple[int, None]:
        event.assoc.abort()
        return 0x0000, None

    ae = AE("SCANNER")
    ae.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
    with pytest.raises(AssociationLostError):
        _send(_report(), serve(ae, [(evt.EVT_N_EVENT_REPORT, abort)]))

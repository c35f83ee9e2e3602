"""A scanner that asks for storage commitment, reports its procedure steps, and takes reports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.requestor import ReactorCheckpoint
from simulators.closing import ALWAYS_CLOSE

AE_TITLE = "SCANNER"
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
MPPS = "1.2.840.10008.3.1.2.3.3"
CT = "1.2.840.10008.5.1.4.1.1.2"

Pair = tuple[str, str]
"""SOP class and instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One N-EVENT-REPORT as it arrived."""

    event_type: int
    transaction_uid: str
    committed: tuple[Pair, ...]
    failed: tuple[tuple[Pair, int], ...]
    is_scp_negotiated: bool
    """The device said that it is the SCP of the association that it opened."""


@dataclass(slots=True)
class ListeningScanner:
    """``with ListeningScanner()`` listens for reports; ``port`` may be closed and opened again."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    """Answers to the next reports; Success after that."""
    reports: list[Report] = field(default_factory=list)
    before_answer: Callable[[], object] = lambda: None
    """Called when a report has arrived, before it is answered."""
    _server: ThreadedAssociationServer | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> ListeningScanner:
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.go_deaf()

    def listen(self) -> None:
        ae = AE(AE_TITLE)
        ae.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
        server = ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[ALWAYS_CLOSE, (evt.EVT_N_EVENT_REPORT, self._take)],
        )
        assert server is not None
        self._server = server
        self.port = int(server.server_address[1])

    def go_deaf(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def wait_for_reports(self, count: int, deadline_s: float = 30.0) -> list[Report]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.reports) >= count, deadline_s)
            return list(self.reports)

    def _take(self, event: evt.Event) -> tuple[int, None]:
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == 0:
            with self._changed:
                self.reports.append(_report_of(event))
                self._changed.notify_all()
            self.before_answer()
        return status, None


def _report_of(event: evt.Event) -> Report:
    information = event.event_information
    roles = cast("Any", event.assoc.requestor).role_selection
    return Report(
        event_type=cast("int", event.event_type),
        transaction_uid=str(information.TransactionUID),
        committed=tuple(map(_pair, information.get("ReferencedSOPSequence", ()))),
        failed=tuple(
            (_pair(item), int(item.FailureReason))
            for item in information.get("FailedSOPSequence", ())
        ),
        is_scp_negotiated=COMMITMENT in roles and bool(roles[COMMITMENT].scp_role),
    )


def _pair(item: Dataset) -> Pair:
    return str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)


def commitment_request(transaction_uid: str, pairs: Sequence[Pair]) -> Dataset:
    """The Action Information of a request (PS3.4 table J.3-1)."""
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = [_reference(*pair) for pair in pairs]
    return request


def creation(study: str = "1.2.3", *, status: str = "IN PROGRESS") -> Dataset:
    """The Attribute List of an N-CREATE (PS3.4 table F.7.2-1), with an invented patient."""
    scheduled = Dataset()
    scheduled.StudyInstanceUID = study
    scheduled.ReferencedStudySequence = []
    scheduled.AccessionNumber = "ACC1"
    step = Dataset()
    step.ScheduledStepAttributesSequence = [scheduled]
    step.PatientName = "CANARY^STEP"
    step.PatientID = "CANARY-1"
    step.PerformedProcedureStepID = "PPS1"
    step.PerformedStationAETitle = AE_TITLE
    step.PerformedProcedureStepStartDate = "20260101"
    step.PerformedProcedureStepStartTime = "101010"
    step.PerformedProcedureStepStatus = status
    step.PerformedProcedureStepDescription = "CT HEAD"
    step.Modality = "CT"
    step.PerformedSeriesSequence = []
    return step


def change(
    status: str | None,
    series: dict[str, Sequence[str]] | None = None,
    *,
    reports: Sequence[str] = (),
) -> Dataset:
    """The Modification List of an N-SET; ``series`` are image UIDs by series UID."""
    step = Dataset()
    if status is not None:
        step.PerformedProcedureStepStatus = status
        step.PerformedProcedureStepEndDate = "20260101"
        step.PerformedProcedureStepEndTime = "101512"
    if series is not None:
        step.PerformedSeriesSequence = [_series(*item, reports) for item in series.items()]
    return step


def _series(uid: str, images: Sequence[str], reports: Sequence[str]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = uid
    item.ProtocolName = "HEAD"
    item.ReferencedImageSequence = [_reference(CT, image) for image in images]
    item.ReferencedNonImageCompositeSOPInstanceSequence = [
        _reference("1.2.840.10008.5.1.4.1.1.88.67", report) for report in reports
    ]
    return item


def _reference(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_instance
    return item


@dataclass(frozen=True, slots=True)
class ModalityLink:
    """An association of the scanner with the node.

    Its requests hold pynetdicom's own thread, which would take an answer for itself now and then.
    """

    association: Association
    checkpoint: ReactorCheckpoint

    def store(self, image: Dataset) -> int:
        with self.checkpoint.held():
            return int(self.association.send_c_store(image).Status)

    def ask(self, request: Dataset | None, **changes: Any) -> int:
        """N-ACTION; returns the status. ``changes`` are arguments of ``send_n_action``."""
        arguments = {
            "dataset": request,
            "action_type": 1,
            "class_uid": COMMITMENT,
            "instance_uid": COMMITMENT_INSTANCE,
        }
        with self.checkpoint.held():
            status, _ = self.association.send_n_action(**{**arguments, **changes})
        return int(status.Status)

    def create(self, step: Dataset, uid: str) -> int:
        with self.checkpoint.held():
            status, _ = self.association.send_n_create(step, MPPS, uid)
        return int(status.Status)

    def set(self, step: Dataset, uid: str) -> int:
        return int(self.set_whole(step, uid).Status)

    def set_whole(self, step: Dataset, uid: str) -> Dataset:
        """N-SET; returns all of the status."""
        with self.checkpoint.held():
            status, _ = self.association.send_n_set(step, MPPS, uid)
        return status


@contextmanager
def call_node(
    port: int,
    *,
    node_ae_title: str = "NODE",
    ae_title: str = AE_TITLE,
    syntaxes: Sequence[str] = (ImplicitVRLittleEndian,),
    extra_classes: Sequence[str] = (),
    wants_role: bool = False,
) -> Iterator[ModalityLink]:
    """Associate with a node on this machine for both services."""
    ae = AE(ae_title)
    for sop_class in (COMMITMENT, MPPS, *extra_classes):
        ae.add_requested_context(sop_class, list(syntaxes))
    roles = [build_role(COMMITMENT, scu_role=True, scp_role=True)] if wants_role else []
    association = ae.associate(
        "127.0.0.1",
        port,
        ae_title=node_ae_title,
        ext_neg=cast("Any", roles),
        evt_handlers=[ALWAYS_CLOSE],
    )
    assert association.is_established
    checkpoint = ReactorCheckpoint.of(association)
    try:
        yield ModalityLink(association, checkpoint)
    finally:
        with checkpoint.held():
            association.release()

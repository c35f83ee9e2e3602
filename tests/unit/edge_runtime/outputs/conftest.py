from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta, timezone
from typing import Any

import pytest
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE, evt
from simulators.reporting import CT_IMAGE, DEVICE, PACKAGE

from dicom_node.instance import InstanceHeader, StudyIdentity
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Stamp
from edge_runtime.model.delivery import Channel
from edge_runtime.model.finding import FindingScore
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.outputs.contract import ReportingDevice
from edge_runtime.store.deliveries import DecidedAnalysis, DeliveryJob, StudyInstance
from engines.package import ModelPackage

DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"


@pytest.fixture
def package() -> ModelPackage:
    return PACKAGE


@pytest.fixture
def device() -> ReportingDevice:
    return replace(DEVICE, timezone=timezone(timedelta(hours=2)))


@pytest.fixture
def make_instance() -> Callable[..., StudyInstance]:
    def make(
        number: int,
        *,
        series: int = 1,
        revision: int = 1,
        sop_class_uid: str = CT_IMAGE,
        transfer_syntax_uid: str = "1.2.840.10008.1.2.1",
        path: str = "unused",
    ) -> StudyInstance:
        header = InstanceHeader(
            study_instance_uid="1.2.3",
            series_instance_uid=f"1.2.3.{series}",
            sop_instance_uid=f"1.2.3.{series}.{number}",
            sop_class_uid=sop_class_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            has_pixel_data=sop_class_uid == CT_IMAGE,
        )
        return StudyInstance(instance_id=number, revision=revision, header=header, path=path)

    return make


@pytest.fixture
def make_analysis() -> Callable[..., DecidedAnalysis]:
    def make(
        outcome: AnalysisState = AnalysisState.SUSPECTED,
        *,
        reason: ReasonCode | None = None,
        reason_detail: str = "",
        revision: int = 1,
        probability: float | None = 0.93124,
        series_instance_uid: str | None = "1.2.3.1",
    ) -> DecidedAnalysis:
        scored = outcome in {AnalysisState.SUSPECTED, AnalysisState.NOT_SUSPECTED}
        return DecidedAnalysis(
            analysis_id=7,
            revision=revision,
            model_name="head_ct",
            model_version="1.2.3",
            outcome=outcome,
            reason=reason,
            reason_detail=reason_detail,
            probability=probability if scored else None,
            threshold=0.5 if scored else None,
            findings=(FindingScore(key="ich", probability=probability, threshold=0.5, urgency=3),)
            if scored and probability is not None
            else (),
            series_instance_uid=series_instance_uid,
            engine="onnxruntime" if scored else None,
            decided_wall_us=1_767_225_599_123_456,  # 2025-12-31 23:59:59.123456 UTC
        )

    return make


@pytest.fixture
def make_job(
    make_analysis: Callable[..., DecidedAnalysis], make_instance: Callable[..., StudyInstance]
) -> Callable[..., DeliveryJob]:
    def make(
        analysis: DecidedAnalysis | None = None,
        *,
        channel: Channel = Channel.STRUCTURED_REPORT,
        identity: StudyIdentity | None = None,
        instances: tuple[StudyInstance, ...] | None = None,
        stamps: tuple[Stamp, ...] = (),
        study_instance_uid: str = "1.2.3",
        revision: int = 1,
    ) -> DeliveryJob:
        full_identity = StudyIdentity(
            patient_name="Doe^Jane",
            patient_id="P-17",
            patient_birth_date="19700131",
            patient_sex="F",
            accession_number="A4711",
            study_id="S1",
            study_date="20251231",
            study_time="235001.5",
            study_description="CT head",
            referring_physician_name="House^Gregory",
        )
        decided = analysis or make_analysis(revision=revision)
        return DeliveryJob(
            delivery_id=3,
            channel=channel,
            attempts=1,
            study_id=5,
            study_key="k" * 24,
            study_instance_uid=study_instance_uid,
            identity=full_identity if identity is None else identity,
            analysis=decided,
            revision=decided.revision,
            instances=(
                tuple(make_instance(n) for n in range(1, 4)) if instances is None else instances
            ),
            stamps=stamps,
        )

    return make


@dataclass(slots=True)
class ScriptedPacs:
    """A storage SCP that answers as told, and keeps what it took."""

    address: PeerAddress
    statuses: dict[str, int] = field(default_factory=dict)
    """Answers by SOP Instance UID; every other instance gets Success."""
    received: list[tuple[str, bytes]] = field(default_factory=list)
    """SOP Instance UID and the encoded data set."""
    associations: int = 0
    on_store: Callable[[evt.Event], None] | None = None

    def count_association(self, _event: evt.Event) -> None:
        self.associations += 1

    def take(self, event: evt.Event) -> int:
        if self.on_store is not None:
            self.on_store(event)
        request: Any = event.request  # only C-STORE comes here
        uid = str(request.AffectedSOPInstanceUID)
        status = self.statuses.get(uid, 0x0000)
        if status == 0:
            self.received.append((uid, request.DataSet.getvalue()))
        return status


@pytest.fixture
def timeouts() -> RequestorTimeouts:
    return RequestorTimeouts(connect_s=10.0, association_s=10.0, answer_s=20.0)


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    ae = AE("PACS")
    ae.require_called_aet = True
    ae.add_supported_context(Comprehensive3DSRStorage)
    ae.add_supported_context(CT_IMAGE, ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    scripted = ScriptedPacs(PeerAddress(ae_title="PACS", host="127.0.0.1", port=port))
    server = ae.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[
            (evt.EVT_ACCEPTED, scripted.count_association),
            (evt.EVT_C_STORE, scripted.take),
        ],
    )
    assert server is not None
    try:
        yield scripted
    finally:
        server.shutdown()

"""Reports and forwarded studies at a real PACS: what arrives, and what a dead PACS means."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage
from simulators.reporting import DEVICE, PACKAGE

from dicom_node.headers import read_headers
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from edge_runtime.errors import DeliveryError
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.delivery import Channel
from edge_runtime.model.finding import FindingScore
from edge_runtime.outputs.contract import Receipt
from edge_runtime.outputs.forward import ForwardSink
from edge_runtime.outputs.report_sink import ReportSink
from edge_runtime.outputs.structured_report import render_report
from edge_runtime.store.deliveries import DecidedAnalysis, DeliveryJob, StudyInstance

pytestmark = pytest.mark.peer

TIMEOUTS = RequestorTimeouts(connect_s=10.0, association_s=20.0, answer_s=30.0)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A folder with a real CT image of pydicom's."""
    folder = tmp_path / "spool"
    folder.mkdir()
    source = get_testdata_file("CT_small.dcm")
    assert isinstance(source, str)
    (folder / "one.dcm").write_bytes(Path(source).read_bytes())
    return folder


def make_job(spool: Path, channel: Channel = Channel.STRUCTURED_REPORT) -> DeliveryJob:
    header, identity = read_headers(spool / "one.dcm")
    return DeliveryJob(
        delivery_id=1,
        channel=channel,
        attempts=1,
        study_id=1,
        study_key="k" * 24,
        study_instance_uid=header.study_instance_uid,
        identity=identity,
        analysis=DecidedAnalysis(
            analysis_id=1,
            revision=1,
            model_name="head_ct",
            model_version="1.2.3",
            outcome=AnalysisState.SUSPECTED,
            reason=None,
            reason_detail="",
            probability=0.93,
            threshold=0.5,
            findings=(FindingScore(key="ich", probability=0.93, threshold=0.5, urgency=3),),
            series_instance_uid=header.series_instance_uid,
            engine="onnxruntime",
            decided_wall_us=1_767_225_599_123_456,
        ),
        revision=1,
        instances=(StudyInstance(instance_id=1, revision=1, header=header, path="one.dcm"),),
        stamps=(),
    )


def report_sink(orthanc: Any) -> ReportSink:
    return ReportSink(
        PeerAddress(ae_title=orthanc.ae_title, host=orthanc.host, port=orthanc.dicom_port),
        calling_ae_title="EDGETRIAGE",
        device=DEVICE,
        packages={(PACKAGE.name, PACKAGE.version): PACKAGE},
        timeouts=TIMEOUTS,
    )


def forward_sink(orthanc: Any, spool: Path) -> ForwardSink:
    return ForwardSink(
        PeerAddress(ae_title=orthanc.ae_title, host=orthanc.host, port=orthanc.dicom_port),
        calling_ae_title="EDGETRIAGE",
        spool_dir=spool,
        stop=Event(),
        timeouts=TIMEOUTS,
    )


def as_written(report: Dataset) -> Dataset:
    file = BytesIO()
    report.save_as(file, enforce_file_format=True)
    return dcmread(BytesIO(file.getvalue()))


def test_a_report_comes_back_as_it_was_sent_and_is_valid(
    orthanc: Any, spool: Path, tmp_path: Path
) -> None:
    with report_sink(orthanc) as sink:
        assert sink.deliver(make_job(spool)) is Receipt.SENT

    (instance,) = orthanc.instances()
    fetched = tmp_path / "fetched.dcm"
    fetched.write_bytes(orthanc.file(instance))
    stored = dcmread(fetched)
    assert stored.SOPClassUID == Comprehensive3DSRStorage
    assert (
        stored.to_json_dict()
        == as_written(render_report(make_job(spool), PACKAGE, DEVICE)).to_json_dict()
    )

    checked = subprocess.run(
        ["dciodvfy", "-new", str(fetched)], capture_output=True, text=True, check=False
    )
    assert "Comprehensive3DSR" in checked.stderr + checked.stdout
    assert "Error" not in checked.stderr + checked.stdout
    dumped = subprocess.run(
        ["dsrdump", "+Pc", str(fetched)], capture_output=True, text=True, check=True
    )
    assert '(1386000,SCT,"Intracranial hemorrhage")=(52101004,SCT,"Present")' in dumped.stdout


def test_a_report_sent_twice_is_there_once(orthanc: Any, spool: Path) -> None:
    with report_sink(orthanc) as sink:
        sink.deliver(make_job(spool))
        first = orthanc.file(orthanc.instances()[0])
        sink.deliver(make_job(spool))
    with report_sink(orthanc) as after_a_restart:
        after_a_restart.deliver(make_job(spool))
    (instance,) = orthanc.instances()
    assert orthanc.file(instance) == first


def test_the_report_joins_the_study_of_its_images(orthanc: Any, spool: Path) -> None:
    assert forward_sink(orthanc, spool).deliver(make_job(spool, Channel.FORWARD)) is Receipt.SENT
    (image,) = orthanc.instances()
    with report_sink(orthanc) as sink:
        sink.deliver(make_job(spool))
    assert len(orthanc.instances()) == 2
    assert {orthanc.study_of(instance) for instance in orthanc.instances()} == {
        orthanc.study_of(image)
    }
    original = dcmread(spool / "one.dcm")
    assert dcmread(BytesIO(orthanc.file(image))).to_json_dict() == original.to_json_dict()


def test_a_pacs_that_goes_away_and_comes_back_gets_the_report_then(
    start_orthanc: Callable[..., AbstractContextManager[Any]], spool: Path, tmp_path: Path
) -> None:
    state = tmp_path / "orthanc"
    state.mkdir()
    with ExitStack() as stack:
        with start_orthanc(state) as orthanc:
            sink = stack.enter_context(report_sink(orthanc))
            sink.deliver(make_job(spool))
            orthanc.kill()

        with pytest.raises(DeliveryError) as caught:
            sink.deliver(make_job(spool))
        assert not caught.value.permanent

        with start_orthanc(state, dicom_port=orthanc.dicom_port) as again:
            sink.deliver(make_job(spool))
            assert len(again.instances()) == 1
            stack.close()  # Orthanc waits for open associations before it stops

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest

from dicom_node.requestor import PeerAddress, RequestorTimeouts
from edge_runtime.errors import BugError, DeliveryError
from edge_runtime.outputs.contract import Receipt, ReportingDevice, Sink
from edge_runtime.outputs.report_sink import ReportSink
from edge_runtime.outputs.structured_report import render_report
from edge_runtime.outputs.transport import DeliveryCode
from edge_runtime.store.deliveries import DeliveryJob
from engines.package import ModelPackage

MakeJob = Callable[..., DeliveryJob]
MakeSink = Callable[..., ReportSink]


@pytest.fixture
def make_sink(
    package: ModelPackage, device: ReportingDevice, timeouts: RequestorTimeouts
) -> MakeSink:
    def make(peer: PeerAddress) -> ReportSink:
        return ReportSink(
            peer,
            calling_ae_title="EDGETRIAGE",
            device=device,
            packages={(package.name, package.version): package},
            timeouts=timeouts,
        )

    return make


@pytest.fixture
def sink(make_sink: MakeSink, pacs: Any) -> Iterator[ReportSink]:
    with make_sink(pacs.address) as opened:
        yield opened


def code_of(sink: ReportSink, job: DeliveryJob) -> tuple[str, bool]:
    with pytest.raises(DeliveryError) as caught:
        sink.deliver(job)
    return caught.value.code, caught.value.permanent


def test_the_pacs_gets_the_report_as_it_was_rendered(
    sink: ReportSink,
    pacs: Any,
    make_job: MakeJob,
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    as_sink: Sink = sink
    assert as_sink.deliver(make_job()) is Receipt.SENT
    ((uid, data_set),) = pacs.received
    expected = render_report(make_job(), package, device)
    file = BytesIO()
    expected.save_as(file, enforce_file_format=True)
    assert uid == expected.SOPInstanceUID
    assert file.getvalue().endswith(data_set)
    assert len(data_set) > 1_000


def test_reports_share_one_association(sink: ReportSink, pacs: Any, make_job: MakeJob) -> None:
    for revision in (1, 2, 3):
        sink.deliver(make_job(revision=revision))
    assert len(pacs.received) == 3
    assert pacs.associations == 1


def test_a_report_sent_again_is_the_same_object(
    sink: ReportSink, pacs: Any, make_job: MakeJob
) -> None:
    sink.deliver(make_job())
    sink.deliver(make_job())
    assert pacs.received[0] == pacs.received[1]


def test_an_association_that_the_pacs_ended_is_opened_again(
    sink: ReportSink, pacs: Any, make_job: MakeJob
) -> None:
    def abort_the_second(event: Any) -> None:
        if len(pacs.received) == 1 and pacs.associations == 1:
            event.assoc.abort()

    pacs.on_store = abort_the_second
    sink.deliver(make_job())
    sink.deliver(make_job(revision=2))
    assert pacs.associations == 2


def test_a_pacs_without_room_is_tried_again(
    sink: ReportSink,
    pacs: Any,
    make_job: MakeJob,
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    uid = str(render_report(make_job(), package, device).SOPInstanceUID)
    pacs.statuses[uid] = 0xA700
    assert code_of(sink, make_job()) == (DeliveryCode.STORE_REFUSED_RESOURCES.value, False)
    pacs.statuses[uid] = 0x0000
    assert sink.deliver(make_job()) is Receipt.SENT


def test_a_report_that_the_pacs_does_not_understand_is_a_dead_letter(
    sink: ReportSink,
    pacs: Any,
    make_job: MakeJob,
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    pacs.statuses[str(render_report(make_job(), package, device).SOPInstanceUID)] = 0xC000
    assert code_of(sink, make_job()) == (DeliveryCode.STORE_REFUSED.value, True)


# pynetdicom leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_pacs_that_is_down_is_tried_again(make_sink: MakeSink, make_job: MakeJob) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses connections
        peer = PeerAddress(ae_title="PACS", host="127.0.0.1", port=taken.getsockname()[1])
        with make_sink(peer) as sink:
            assert code_of(sink, make_job()) == (DeliveryCode.PEER_UNREACHABLE.value, False)


def test_a_pacs_that_does_not_know_us_is_tried_again(
    make_sink: MakeSink, pacs: Any, make_job: MakeJob
) -> None:
    with make_sink(replace(pacs.address, ae_title="OTHER")) as sink:
        assert code_of(sink, make_job()) == (DeliveryCode.ASSOCIATION_REJECTED.value, False)


def test_a_model_that_is_gone_is_a_dead_letter(
    pacs: Any, make_job: MakeJob, device: ReportingDevice, timeouts: RequestorTimeouts
) -> None:
    with ReportSink(
        pacs.address, calling_ae_title="EDGETRIAGE", device=device, packages={}, timeouts=timeouts
    ) as sink:
        assert code_of(sink, make_job()) == (DeliveryCode.MODEL_PACKAGE_MISSING.value, True)


def test_a_job_without_a_decision_is_a_bug(sink: ReportSink, make_job: MakeJob) -> None:
    with pytest.raises(BugError):
        sink.deliver(replace(make_job(), analysis=None))

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from dicom_node.requestor import RequestorTimeouts
from edge_runtime.errors import DeliveryError
from edge_runtime.model.delivery import Channel
from edge_runtime.outputs.contract import Receipt, Sink
from edge_runtime.outputs.forward import ForwardSink
from edge_runtime.outputs.transport import DeliveryCode
from edge_runtime.store.deliveries import DeliveryJob, StudyInstance

MakeJob = Callable[..., DeliveryJob]
MakeInstance = Callable[..., StudyInstance]
MakeStored = Callable[..., StudyInstance]

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def stop() -> Event:
    return Event()


@pytest.fixture
def sink(pacs: Any, tmp_path: Path, stop: Event, timeouts: RequestorTimeouts) -> ForwardSink:
    return ForwardSink(
        pacs.address,
        calling_ae_title="EDGETRIAGE",
        spool_dir=tmp_path,
        stop=stop,
        timeouts=timeouts,
    )


@pytest.fixture
def make_stored(tmp_path: Path, make_instance: MakeInstance) -> MakeStored:
    """A real CT image of pydicom's under a UID of its own, in the spool."""
    source = get_testdata_file("CT_small.dcm")
    assert isinstance(source, str)

    def make(number: int, *, revision: int = 1, sop_class_uid: str | None = None) -> StudyInstance:
        image = dcmread(source)
        image.SOPClassUID = sop_class_uid or image.SOPClassUID
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.SOPInstanceUID = f"1.2.3.1.{number}"
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(tmp_path / f"{number}.dcm")
        return make_instance(
            number,
            revision=revision,
            sop_class_uid=str(image.SOPClassUID),
            path=f"{number}.dcm",
        )

    return make


def forward_job(make_job: MakeJob, *instances: StudyInstance, revision: int = 1) -> DeliveryJob:
    return make_job(channel=Channel.FORWARD, instances=instances, revision=revision)


def data_set_of(path: Path) -> bytes:
    """The bytes behind the file meta information (PS3.10 7.1)."""
    data = path.read_bytes()
    meta_bytes = int.from_bytes(data[140:144], "little")
    return data[144 + meta_bytes :]


def test_files_arrive_byte_for_byte_over_one_association(
    sink: ForwardSink, pacs: Any, make_job: MakeJob, make_stored: MakeStored, tmp_path: Path
) -> None:
    as_sink: Sink = sink
    job = forward_job(make_job, *(make_stored(n) for n in (1, 2, 3)))
    assert as_sink.deliver(job) is Receipt.SENT
    assert pacs.received == [
        (f"1.2.3.1.{n}", data_set_of(tmp_path / f"{n}.dcm")) for n in (1, 2, 3)
    ]
    assert pacs.associations == 1


def test_a_later_revision_sends_only_what_it_added(
    sink: ForwardSink, pacs: Any, make_job: MakeJob, make_stored: MakeStored
) -> None:
    late = forward_job(make_job, make_stored(1), make_stored(2, revision=2), revision=2)
    sink.deliver(late)
    assert [uid for uid, _ in pacs.received] == ["1.2.3.1.2"]


def test_a_refused_file_keeps_back_no_other(
    sink: ForwardSink, pacs: Any, make_job: MakeJob, make_stored: MakeStored
) -> None:
    pacs.statuses["1.2.3.1.1"] = 0xC000
    instances = (make_stored(1), make_stored(2, sop_class_uid=MR_IMAGE), make_stored(3))
    with pytest.raises(DeliveryError) as caught:
        sink.deliver(forward_job(make_job, *instances))
    assert caught.value.permanent
    assert caught.value.code == DeliveryCode.CONTEXT_REJECTED.value
    assert [uid for uid, _ in pacs.received] == ["1.2.3.1.3"]


def test_a_full_pacs_ends_this_try_at_once(
    sink: ForwardSink, pacs: Any, make_job: MakeJob, make_stored: MakeStored
) -> None:
    pacs.statuses["1.2.3.1.1"] = 0xA700
    with pytest.raises(DeliveryError) as caught:
        sink.deliver(forward_job(make_job, make_stored(1), make_stored(2)))
    assert not caught.value.permanent
    assert pacs.received == []


def test_a_class_that_the_pacs_does_not_take_costs_one_try_only(
    sink: ForwardSink, pacs: Any, make_job: MakeJob, make_stored: MakeStored
) -> None:
    instances = [make_stored(n, sop_class_uid=MR_IMAGE) for n in (1, 2, 3)]
    with pytest.raises(DeliveryError) as caught:
        sink.deliver(forward_job(make_job, *instances))
    assert caught.value.code == DeliveryCode.CONTEXT_REJECTED.value
    assert pacs.associations == 1


def test_a_file_that_left_the_spool_is_a_dead_letter(
    sink: ForwardSink, pacs: Any, make_job: MakeJob, make_stored: MakeStored, tmp_path: Path
) -> None:
    job = forward_job(make_job, make_stored(1), make_stored(2))
    (tmp_path / "1.dcm").unlink()
    with pytest.raises(DeliveryError) as caught:
        sink.deliver(job)
    assert (caught.value.code, caught.value.permanent) == (DeliveryCode.FILE_LOST.value, True)
    assert [uid for uid, _ in pacs.received] == ["1.2.3.1.2"]


def test_a_stopping_device_leaves_the_rest_for_later(
    sink: ForwardSink, pacs: Any, make_job: MakeJob, make_stored: MakeStored, stop: Event
) -> None:
    pacs.on_store = lambda _event: stop.set()
    with pytest.raises(DeliveryError) as caught:
        sink.deliver(forward_job(make_job, make_stored(1), make_stored(2)))
    assert (caught.value.code, caught.value.permanent) == (DeliveryCode.INTERRUPTED.value, False)
    assert len(pacs.received) == 1

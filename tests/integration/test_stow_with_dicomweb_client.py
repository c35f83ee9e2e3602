"""The door against dicomweb-client, the usual client of Python programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from simulators.memory_inbox import MemoryInbox
from simulators.stow_door import opened_door
from simulators.stow_sender import TOKEN

from dicom_node.stow import StowDoor

dicomweb = pytest.importorskip("dicomweb_client.api", reason="needs dicomweb-client")
requests = pytest.importorskip("requests", reason="needs dicomweb-client")

pytestmark = [pytest.mark.peer]


@pytest.fixture
def inbox() -> MemoryInbox:
    return MemoryInbox()


@pytest.fixture
def door(tmp_path: Path, inbox: MemoryInbox) -> Iterator[StowDoor]:
    with opened_door(tmp_path / "spool", inbox) as found:
        yield found


def client_of(door: StowDoor, token: str = TOKEN) -> Any:
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {token}"
    return dicomweb.DICOMwebClient(url=f"http://127.0.0.1:{door.port}/dicom-web", session=session)


def slices(count: int) -> list[Any]:
    path = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(path, str)
    found = []
    for _ in range(count):
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        found.append(ds)
    return found


def test_a_series_is_stored_and_the_answer_understood(
    door: StowDoor, inbox: MemoryInbox, tmp_path: Path
) -> None:
    sent = slices(20)
    report = client_of(door).store_instances(sent)
    told = {item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence}
    assert told == {ds.SOPInstanceUID for ds in sent} == set(inbox.rows)
    for ds in sent:
        row = inbox.rows[ds.SOPInstanceUID]
        assert dcmread(tmp_path / "spool" / row.path) == ds


def test_a_study_in_the_path_is_held_to(door: StowDoor, inbox: MemoryInbox) -> None:
    (mine,), (foreign,) = slices(1), slices(1)
    foreign.StudyInstanceUID = generate_uid()
    report = client_of(door).store_instances(
        [mine, foreign], study_instance_uid=mine.StudyInstanceUID
    )
    (failed,) = report.FailedSOPSequence
    assert failed.ReferencedSOPInstanceUID == foreign.SOPInstanceUID
    assert failed.FailureReason == 0xA900
    assert set(inbox.rows) == {mine.SOPInstanceUID}


def test_a_wrong_token_is_an_error_there(door: StowDoor, inbox: MemoryInbox) -> None:
    with pytest.raises(requests.HTTPError) as caught:
        client_of(door, token="wrong").store_instances(slices(1))
    assert caught.value.response.status_code == 401
    assert not inbox.rows

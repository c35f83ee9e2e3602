"""The door against the STOW-RS client of Orthanc's DICOMweb plugin."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from simulators.ct_slices import write_ct_slice
from simulators.memory_inbox import MemoryInbox
from simulators.orthanc import Orthanc, run_orthanc
from simulators.stow_door import data_set, opened_door
from simulators.stow_sender import TOKEN

from dicom_node.stow import StowDoor

_PLUGIN_FOLDERS = (Path("/usr/lib/orthanc"), Path("/usr/share/orthanc/plugins"))
_PLUGIN = next(
    (path for folder in _PLUGIN_FOLDERS for path in folder.glob("libOrthancDicomWeb.so*")), None
)

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(
        shutil.which("Orthanc") is None or _PLUGIN is None, reason="needs orthanc-dicomweb"
    ),
]


@pytest.fixture
def inbox() -> MemoryInbox:
    return MemoryInbox()


@pytest.fixture
def door(tmp_path: Path, inbox: MemoryInbox) -> Iterator[StowDoor]:
    with opened_door(tmp_path / "spool", inbox) as found:
        yield found


@pytest.fixture
def sender(tmp_path: Path, door: StowDoor) -> Iterator[Orthanc]:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    server = {
        "Url": f"http://127.0.0.1:{door.port}/dicom-web/",
        "HttpHeaders": {"Authorization": f"Bearer {TOKEN}"},
    }
    settings = {
        "Plugins": [str(_PLUGIN)],
        "DicomWeb": {"Enable": True, "Servers": {"device": server}},
    }
    with run_orthanc(folder, settings=settings) as found:
        yield found


def stow(sender: Orthanc, **more: object) -> dict[str, object]:
    studies = sender.rest.get("/studies").raise_for_status().json()
    answer = sender.rest.post(
        "/dicom-web/servers/device/stow", json={"Resources": studies, "Synchronous": True, **more}
    )
    told: dict[str, object] = answer.raise_for_status().json()
    return told


def upload(sender: Orthanc, path: Path) -> None:
    sender.rest.post("/instances", content=path.read_bytes()).raise_for_status()


def test_orthanc_pushes_a_study(sender: Orthanc, inbox: MemoryInbox, tmp_path: Path) -> None:
    sent = {}
    for number in range(1, 31):
        path = tmp_path / f"{number}.dcm"
        write_ct_slice(path, number=number, hu=number, images=30, size=64)
        sent[f"1.2.3.1.{number}"] = data_set(path.read_bytes())
        upload(sender, path)
    stow(sender)
    spool = tmp_path / "spool"
    held = {uid: data_set((spool / row.path).read_bytes()) for uid, row in inbox.rows.items()}
    assert held == sent
    assert {calling for _, calling, _ in inbox.opened} == {"WEBCLIENT"}
    inbox.wait_closed(len(inbox.opened))
    assert all(released for _, released in inbox.closed)


def test_orthanc_pushes_compressed_and_odd_objects(
    sender: Orthanc, inbox: MemoryInbox, tmp_path: Path
) -> None:
    names = ("JPEG2000.dcm", "MR_small_RLE.dcm", "SC_rgb_small_odd_jpeg.dcm", "rtplan.dcm")
    sent = {}
    for name in names:
        path = get_testdata_file(name, download=False)
        assert isinstance(path, str)
        upload(sender, Path(path))
        ds = dcmread(path)
        sent[str(ds.SOPInstanceUID)] = str(ds.file_meta.TransferSyntaxUID)
    stow(sender)
    held = {uid: row.header.transfer_syntax_uid for uid, row in inbox.rows.items()}
    assert held == sent
    for uid, row in inbox.rows.items():
        (instance,) = [each for each in sender.instances() if dcmread_uid(sender, each) == uid]
        stored = (tmp_path / "spool" / row.path).read_bytes()
        assert data_set(stored) == data_set(sender.file(instance))


def dcmread_uid(sender: Orthanc, instance: str) -> str:
    tags: dict[str, str] = sender.rest.get(f"/instances/{instance}/simplified-tags").json()
    return tags["SOPInstanceUID"]

"""The node against dcmtk's senders, which are what many scanners and gateways are built on."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from dicom_node.archive import FolderArchive
from dicom_node.errors import PeerUnreachableError
from dicom_node.headers import read_headers
from dicom_node.requestor import Outgoing, PeerAddress
from dicom_node.scu import outgoing_file, send_files, verify_peer
from tools.demo.ports import free_port

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("storescu") is None, reason="needs dcmtk"),
]

_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_JPEG_SV1, _JPEG_14 = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.57"
_JPEG_LS, _JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
_RLE, _DEFLATED, _BIG = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_BASELINE = "1.2.840.10008.1.2.4.50"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[FolderArchive]:
    """The node with a plain folder behind it."""
    with FolderArchive(tmp_path / "pacs", ae_title="NODE") as found:
        yield found


def _run(archive: FolderArchive, tool: str, *arguments: str | Path, called: str = "NODE") -> str:
    command = [tool, "-aet", "SCANNER", "-aec", called, "127.0.0.1", str(archive.port)]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    return told


def _ct() -> Path:
    path = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(path, str)
    return Path(path)


def _converted(tmp_path: Path, tool: str, *options: str) -> Path:
    """The CT slice, rewritten by one of dcmtk's converters."""
    path = tmp_path / f"{tool}{''.join(options)}.dcm"
    subprocess.run([tool, *options, str(_ct()), str(path)], check=True, timeout=60)
    return path


def _without_groups(ds: Dataset) -> dict[int, object]:
    """Elements by tag; dcmtk leaves out padding and may write lengths of its own."""
    return {int(each.tag): each.value for each in ds if each.tag != 0xFFFCFFFC}


def test_echoscu_is_answered(archive: FolderArchive) -> None:
    _run(archive, "echoscu")


def test_echoscu_with_a_wrong_called_title_is_told_so(archive: FolderArchive) -> None:
    with pytest.raises(AssertionError, match="Called AE Title Not Recognized"):
        _run(archive, "echoscu", called="WRONG")


@pytest.mark.parametrize(
    ("converter", "proposal", "syntax"),
    [
        (("dcmconv", "+te"), "-xe", _EXPLICIT),
        (("dcmconv", "+te"), "-x=", _EXPLICIT),
        (("dcmconv", "+ti"), "-xi", _IMPLICIT),
        (("dcmconv", "+tb"), "-xb", _BIG),
        (("dcmconv", "+td"), "-xd", _DEFLATED),
        (("dcmcjpeg", "+e1"), "-xs", _JPEG_SV1),
        (("dcmcjpls", "+el"), "-xt", _JPEG_LS),
        (("dcmcrle",), "-xr", _RLE),
    ],
)
def test_storescu_stores_in_each_syntax(
    archive: FolderArchive,
    tmp_path: Path,
    converter: tuple[str, ...],
    proposal: str,
    syntax: str,
) -> None:
    sent = _converted(tmp_path, *converter)
    _run(archive, "storescu", "-R", proposal, sent)
    (uid,) = archive.arrivals
    header, _ = read_headers(archive.path_of(uid))
    assert header.transfer_syntax_uid == syntax
    stored, original = dcmread(archive.path_of(uid)), dcmread(_ct())
    assert stored.PatientName == original.PatientName
    if syntax in {_EXPLICIT, _IMPLICIT}:
        assert _without_groups(stored) == _without_groups(original)
    else:
        assert (stored.pixel_array == original.pixel_array).all()


@pytest.mark.parametrize("preferred", ["-xb", "-xs", "-xd"])
def test_our_order_wins_where_one_context_offers_several_syntaxes(
    archive: FolderArchive, preferred: str
) -> None:
    """``+C`` puts all syntaxes into one context, the one asked for first."""
    _run(archive, "storescu", "-R", "+C", preferred, _ct())
    (uid,) = archive.arrivals
    header, _ = read_headers(archive.path_of(uid))
    assert header.transfer_syntax_uid == _EXPLICIT


@pytest.mark.parametrize("syntax_flag", ["-xs", "-xt", "-xv", "-xr", "-xy"])
def test_storescu_gets_every_compressed_context_that_it_proposes(
    archive: FolderArchive, syntax_flag: str
) -> None:
    """``storescu -xs`` proposes all storage classes it knows, 120 contexts."""
    told = _run(archive, "storescu", "-v", "-d", syntax_flag, _ct())
    answer = told.split("A-ASSOCIATE-AC", 1)[1]
    assert "(Accepted)" in answer
    assert "Transfer Syntax Not Supported" not in answer
    assert "Abstract Syntax Not Supported" not in answer


def test_dcmsend_pushes_real_compressed_files_unchanged(
    archive: FolderArchive, tmp_path: Path
) -> None:
    paths = [
        _converted(tmp_path, "dcmcjpeg", "+el"),
        *map(
            _named,
            (
                "JPEG2000.dcm",
                "MR_small_RLE.dcm",
                "SC_rgb_small_odd_jpeg.dcm",
                "JPEG-lossy.dcm",
            ),
        ),
    ]
    _run(archive, "dcmsend", "--decompress-never", *paths)
    assert len(archive.arrivals) == len(paths)
    for path in paths:
        sent = dcmread(path)
        stored = dcmread(archive.path_of(sent.SOPInstanceUID))
        assert stored.PixelData == sent.PixelData
        assert stored.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID


def _named(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path)


def test_many_slices_arrive_over_one_association(archive: FolderArchive, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    for number in range(30):
        ds = dcmread(_ct())
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.save_as(folder / f"{number}.dcm")
    _run(archive, "storescu", "-pdu", "131072", "+sd", folder)
    assert len(archive.arrivals) == 30
    assert set(archive.arrivals.values()) == {1}


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[PeerAddress, Path]]:
    """The receiver of dcmtk on a free port, and its folder."""
    folder = tmp_path / "received"
    folder.mkdir()
    port = free_port()
    command = ["storescp", "-v", "+B", "-aet", "DCMTK", "+xa", "-od", str(folder), str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        peer = PeerAddress(ae_title="DCMTK", host="127.0.0.1", port=port)
        try:
            _await(peer)
            yield peer, folder
        finally:
            process.terminate()
            process.communicate(timeout=10)


def _await(peer: PeerAddress) -> None:
    """Echo until the receiver listens."""
    deadline = time.monotonic() + 10
    while not _answers(peer):
        assert time.monotonic() < deadline


def _answers(peer: PeerAddress) -> bool:
    try:
        verify_peer(peer, calling_ae_title="US")
    except PeerUnreachableError:
        return False
    return True


def test_our_sender_delivers_to_storescp_bit_by_bit(
    storescp: tuple[PeerAddress, Path],
) -> None:
    peer, folder = storescp
    paths = [_ct(), *map(_named, ("JPEG2000.dcm", "MR_small_RLE.dcm", "rtplan.dcm"))]
    results = send_files(paths, peer, calling_ae_title="US")
    assert [each.status for each in results] == [0] * 4
    received = {dcmread(path).SOPInstanceUID: path for path in folder.iterdir()}
    for path in paths:
        sent, stored = outgoing_file(path), outgoing_file(received[dcmread(path).SOPInstanceUID])
        assert sent.transfer_syntax_uid == stored.transfer_syntax_uid
        assert _data_set(sent) == _data_set(stored)


def _data_set(item: Outgoing) -> bytes:
    assert not isinstance(item.data_set, bytes)
    path, offset = item.data_set
    return path.read_bytes()[offset:]

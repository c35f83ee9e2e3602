"""What a caller with coercions is answered, and what is stored of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from dicom_node.admission import Coercion, PeerRule
from dicom_node.requestor import PeerAddress
from dicom_node.scp import StorageNode
from dicom_node.scu import outgoing_file, send_files
from dicom_node.status import StoreStatus

_COERCIONS = (
    Coercion(keyword="InstitutionName", value="Hill Clinic"),
    Coercion(keyword="OperatorsName", value=""),
)
_PEERS = (PeerRule(ae_title="COERCED", coercions=_COERCIONS), PeerRule(ae_title="PLAIN"))

StartNode = Callable[..., StorageNode]
PeerOf = Callable[[StorageNode], PeerAddress]


@pytest.fixture
def node(start_node: StartNode) -> StorageNode:
    return start_node(peers=_PEERS, admit_unknown_peers=False)


def _sent(
    node: StorageNode, peer_of: PeerOf, path: Path, *, calling: str = "COERCED"
) -> int | None:
    (result,) = send_files([path], peer_of(node), calling_ae_title=calling)
    return result.status


def _stored(node: StorageNode) -> list[Path]:
    found = [node.spool.absolute(name) for name in node.spool.iter_files()]
    assert not any((node.spool.root / "incoming").iterdir())
    return found


def _data_set(path: Path) -> bytes:
    found = outgoing_file(path).data_set
    assert not isinstance(found, bytes)
    return found[0].read_bytes()[found[1] :]


def test_changed_instance_is_stored_and_answered_with_a_warning(
    node: StorageNode, peer_of: PeerOf, make_file: Callable[..., Path]
) -> None:
    sent = make_file()
    assert _sent(node, peer_of, sent) == StoreStatus.COERCED
    (path,) = _stored(node)
    before, after = dcmread(sent), dcmread(path)
    assert after.InstitutionName == "Hill Clinic"
    assert after.PixelData == before.PixelData
    before.InstitutionName = "Hill Clinic"
    assert after == before


def test_other_callers_are_not_touched(
    node: StorageNode, peer_of: PeerOf, make_file: Callable[..., Path]
) -> None:
    sent = make_file()
    assert _sent(node, peer_of, sent, calling="PLAIN") == StoreStatus.SUCCESS
    (path,) = _stored(node)
    assert _data_set(path) == _data_set(sent)


def test_instance_that_has_the_values_is_stored_as_it_came(
    node: StorageNode, peer_of: PeerOf, make_file: Callable[..., Path]
) -> None:
    def as_wanted(ds: Dataset) -> None:
        ds.InstitutionName = "Hill Clinic"
        ds.OperatorsName = ""

    sent = make_file(as_wanted)
    assert _sent(node, peer_of, sent) == StoreStatus.SUCCESS
    (path,) = _stored(node)
    assert _data_set(path) == _data_set(sent)


@pytest.mark.parametrize("name", ["CT_small.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm"])
def test_coerced_instance_that_comes_again_is_kept_once(
    node: StorageNode, peer_of: PeerOf, name: str
) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    for _ in range(2):
        assert _sent(node, peer_of, Path(path)) == StoreStatus.COERCED
    assert len(_stored(node)) == 1
    assert not any((node.spool.root / "quarantine").iterdir())


def test_instance_that_cannot_be_coerced_is_refused_and_the_next_one_stored(
    node: StorageNode, peer_of: PeerOf, make_file: Callable[..., Path]
) -> None:
    twice, good = make_file(), make_file()
    data = twice.read_bytes()
    institution = data.index(b"\x08\x00\x80\x00LO")
    element = data[institution : institution + 8 + data[institution + 6]]
    twice.write_bytes(data.replace(element, element * 2))
    results = send_files([twice, good], peer_of(node), calling_ae_title="COERCED")
    assert [each.status for each in results] == [
        StoreStatus.CANNOT_UNDERSTAND,
        StoreStatus.COERCED,
    ]
    assert len(_stored(node)) == 1

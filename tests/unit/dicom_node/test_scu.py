from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from pydicom import Dataset, FileDataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.acse import ACSE
from pynetdicom.presentation import build_context
from simulators.waiting import wait_until

from dicom_node.archive import FolderArchive
from dicom_node.errors import (
    AssociationRejectedError,
    ContextRejectedError,
    DataSetUnreadableError,
    PeerUnreachableError,
    StoreRefusedError,
)
from dicom_node.instance import StoredInstance
from dicom_node.requestor import PeerAddress, ReactorCheckpoint, RequestorTimeouts
from dicom_node.scp import StorageNode
from dicom_node.scu import (
    Sender,
    SendOutcome,
    SendResult,
    outgoing_file,
    send_files,
    verify_peer,
)
from tools.demo.ports import free_port

_CT = "1.2.840.10008.5.1.4.1.1.2"
_TIMEOUTS = RequestorTimeouts(connect_s=5, association_s=5, answer_s=10)

StartNode = Callable[..., StorageNode]
MakeFile = Callable[..., Path]
PeerOf = Callable[[StorageNode], PeerAddress]


class Inbox(Protocol):
    """What these tests use of ``conftest.MemoryInbox``."""

    rows: dict[str, StoredInstance]
    opened: list[tuple[str, str, str]]


def test_peer_that_is_not_there_is_unreachable(make_file: MakeFile) -> None:
    peer = PeerAddress(ae_title="GONE", host="127.0.0.1", port=free_port())
    with pytest.raises(PeerUnreachableError):
        verify_peer(peer, calling_ae_title="ME", timeouts=_TIMEOUTS)
    with pytest.raises(PeerUnreachableError):
        send_files([make_file()] * 3, peer, calling_ae_title="ME", timeouts=_TIMEOUTS)
    nowhere = PeerAddress(ae_title="GONE", host="no-such-host.invalid", port=104)
    with pytest.raises(PeerUnreachableError):
        verify_peer(nowhere, calling_ae_title="ME", timeouts=_TIMEOUTS)


def test_rejection_reaches_the_caller_with_its_reason(start_node: StartNode) -> None:
    node = start_node(admit_unknown_peers=False)
    peer = PeerAddress(ae_title="NODE", host="127.0.0.1", port=node.port)
    with pytest.raises(AssociationRejectedError) as rejected:
        verify_peer(peer, calling_ae_title="ME", timeouts=_TIMEOUTS)
    assert rejected.value.reason == "Calling AE title not recognised"


def test_a_rejection_is_read_although_the_peer_hung_up_right_behind_it(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_request = ACSE.send_request

    def send_and_be_slow(acse: ACSE) -> None:
        """As on a busy machine: this thread goes on when all has come and gone."""
        send_request(acse)
        wait_until(lambda: not acse.dul.to_user_queue.empty())
        wait_until(lambda: acse.dul.socket is None or not acse.dul.socket._is_connected)

    monkeypatch.setattr(ACSE, "send_request", send_and_be_slow)
    node = start_node(admit_unknown_peers=False)
    peer = PeerAddress(ae_title="NODE", host="127.0.0.1", port=node.port)
    with pytest.raises(AssociationRejectedError) as rejected:
        verify_peer(peer, calling_ae_title="ME", timeouts=_TIMEOUTS)
    assert rejected.value.reason == "Calling AE title not recognised"


def test_association_is_opened_once_and_kept(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    with Sender(peer_of(start_node()), calling_ae_title="ME") as sender:
        for _ in range(3):
            assert sender.store_file(make_file()).outcome is SendOutcome.STORED
        assert len(inbox.opened) == 1


def test_association_that_the_peer_ended_is_opened_again(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node = start_node()
    with Sender(peer_of(node), calling_ae_title="ME") as sender:
        sender.store_file(make_file())
        for association in node.associations:
            association.end()
            association.join(10)
        assert sender.store_file(make_file()).status == 0
    assert len(inbox.opened) == 2
    assert len(inbox.rows) == 2


def test_new_class_or_syntax_opens_an_association_that_has_it(
    start_node: StartNode, peer_of: PeerOf, ct_path: Path, inbox: Inbox
) -> None:
    rle = get_testdata_file("MR_small_RLE.dcm", download=False)
    assert isinstance(rle, str)
    with Sender(peer_of(start_node()), calling_ae_title="ME") as sender:
        sender.store_file(ct_path)
        sender.store_file(Path(rle))
        sender.store_file(ct_path)
    assert len(inbox.opened) == 2
    assert {row.header.transfer_syntax_uid for row in inbox.rows.values()} == {
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.5",
    }


def test_refusal_is_a_result_and_an_error_on_demand(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile
) -> None:
    with Sender(peer_of(start_node(min_free_bytes=1 << 62)), calling_ae_title="ME") as sender:
        result = sender.store_file(make_file())
    assert (result.outcome, result.status) == (SendOutcome.REFUSED, 0xA700)
    with pytest.raises(StoreRefusedError) as refused:
        result.raise_for_refusal()
    assert refused.value.status == 0xA700


def test_data_set_from_memory_is_sent_in_explicit_little_endian(
    start_node: StartNode, peer_of: PeerOf, ct_path: Path, inbox: Inbox
) -> None:
    made = Dataset()
    made.update(dict(dcmread(ct_path).items()))
    made.SOPInstanceUID = uid = generate_uid()
    node = start_node()
    with Sender(peer_of(node), calling_ae_title="ME") as sender:
        assert sender.store_dataset(made).status == 0
        with pytest.raises(DataSetUnreadableError):
            sender.store_dataset(Dataset())
    assert inbox.rows[uid].header.transfer_syntax_uid == "1.2.840.10008.1.2.1"


def _implicit_only_scp(received: list[FileDataset | Dataset]) -> tuple[AE, int]:
    def keep(event: evt.Event) -> int:
        received.append(event.dataset)
        return 0

    ae, port = AE("OLD"), free_port()
    ae.start_server(
        ("127.0.0.1", port),
        block=False,
        contexts=[build_context(_CT, ImplicitVRLittleEndian)],
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )
    return ae, port


def test_peer_that_knows_only_implicit_vr_gets_the_data_set_written_anew(
    ct_path: Path, make_file: MakeFile
) -> None:
    received: list[FileDataset | Dataset] = []
    ae, port = _implicit_only_scp(received)
    peer = PeerAddress(ae_title="OLD", host="127.0.0.1", port=port)
    rle = get_testdata_file("MR_small_RLE.dcm", download=False)
    assert isinstance(rle, str)
    try:
        with Sender(peer, calling_ae_title="ME", timeouts=_TIMEOUTS) as sender:
            assert sender.store_file(ct_path).status == 0
            assert sender.store_dataset(dcmread(make_file())).status == 0
            with pytest.raises(ContextRejectedError):
                sender.store_file(Path(rle))
    finally:
        ae.shutdown()
    assert received[0].PixelData == dcmread(ct_path).PixelData
    assert received[0].PatientName == dcmread(ct_path).PatientName


def test_each_file_has_a_result_in_order_whatever_it_is(
    tmp_path: Path, make_file: MakeFile
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no DICOM file")
    paths = [make_file(), text, tmp_path / "absent.dcm", make_file()]
    seen: list[SendResult] = []
    with FolderArchive(tmp_path / "pacs", ae_title="PACS") as archive:
        peer = PeerAddress(ae_title="PACS", host="127.0.0.1", port=archive.port)
        results = send_files(
            paths, peer, calling_ae_title="ME", associations=2, on_result=seen.append
        )
    assert [each.path for each in results] == paths
    assert [each.outcome.value for each in results] == [
        "stored",
        "unreadable",
        "unreadable",
        "stored",
    ]
    assert sorted(map(repr, seen)) == sorted(map(repr, results))


def test_archive_keeps_plain_files_by_uid_and_counts_arrivals(
    tmp_path: Path, make_file: MakeFile
) -> None:
    path = make_file()
    uid = outgoing_file(path).sop_instance_uid
    with FolderArchive(tmp_path / "pacs", ae_title="PACS") as archive:
        peer = PeerAddress(ae_title="PACS", host="127.0.0.1", port=archive.port)
        send_files([path, path, make_file()], peer, calling_ae_title="ME")
        assert archive.wait_for(2, timeout_s=5)
        assert not archive.wait_for(3, timeout_s=0.01)
        assert archive.arrivals[uid] == 2
        with pytest.raises(ValueError, match="UID"):
            archive.path_of("../escape")
    assert dcmread(archive.path_of(uid)).SOPInstanceUID == uid
    assert len(list((tmp_path / "pacs").iterdir())) == 2


def test_every_real_file_is_stored_with_an_identical_data_set_or_refused_with_a_status(
    tmp_path: Path, real_files: list[Path]
) -> None:
    with ExitStack() as stack:
        archive = stack.enter_context(FolderArchive(tmp_path / "pacs", ae_title="PACS"))
        peer = PeerAddress(ae_title="PACS", host="127.0.0.1", port=archive.port)
        results = send_files(real_files, peer, calling_ae_title="ME", associations=2)
    stored: dict[str, set[bytes]] = {}
    for result in results:
        assert result.path is not None
        if result.outcome is SendOutcome.REFUSED:
            assert result.status == 0xC000
        if result.outcome is SendOutcome.STORED:
            item = outgoing_file(result.path)
            stored.setdefault(item.sop_instance_uid, set()).add(_data_set(result.path))
    assert len(stored) >= 50
    assert set(archive.arrivals) == set(stored)
    for uid, sent in stored.items():
        assert _data_set(archive.path_of(uid)) in sent


def _data_set(path: Path) -> bytes:
    source = outgoing_file(path).data_set
    assert not isinstance(source, bytes)
    return path.read_bytes()[source[1] :]


def test_a_held_thread_takes_nothing_until_it_may_go_on() -> None:
    passed: list[None] = []
    done = threading.Event()

    def pass_by() -> None:
        while not done.is_set():
            checkpoint.wait()
            passed.append(None)

    thread = threading.Thread(target=pass_by, name="passer-by")
    checkpoint = ReactorCheckpoint(thread.is_alive)
    thread.start()
    try:
        for _ in range(500):
            checkpoint.hold()
            before = len(passed)
            assert not done.wait(0.0002)  # time in which it would go on if it could
            assert len(passed) == before
            checkpoint.set()
    finally:
        done.set()
        checkpoint.set()
        thread.join()
    checkpoint.hold()
    assert passed

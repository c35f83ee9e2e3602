from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID
from structlog.testing import capture_logs

from dicom_node.admission import PeerRule
from dicom_node.errors import (
    AssociationLostError,
    AssociationRejectedError,
    ContextRejectedError,
    NodeStartError,
)
from dicom_node.instance import StoredInstance
from dicom_node.requestor import Connection, Outgoing, PeerAddress, RequestorTimeouts, _message
from dicom_node.scp import StorageNode
from dicom_node.scu import SendOutcome, outgoing_file, send_files, verify_peer
from dicom_node.status import StoreStatus

_CT, _MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
_EXPLICIT = "1.2.840.10008.1.2.1"
_PRIVATE = "1.3.12.2.1107.5.9.1"

StartNode = Callable[..., StorageNode]
MakeFile = Callable[..., Path]
PeerOf = Callable[[StorageNode], PeerAddress]


class Inbox(Protocol):
    """What these tests use of ``conftest.MemoryInbox``."""

    rows: dict[str, StoredInstance]
    opened: list[tuple[str, str, str]]
    closed: list[tuple[str, bool]]
    failures_left: int

    def wait_closed(self, count: int = 1) -> None: ...


def _connect(
    peer: PeerAddress, *pairs: tuple[str, str], calling: str = "SCANNER", answer_s: float = 10
) -> Connection:
    return Connection(
        peer,
        calling_ae_title=calling,
        pairs=pairs or [(_CT, _EXPLICIT)],
        timeouts=RequestorTimeouts(connect_s=5, association_s=5, answer_s=answer_s),
    )


def _data_set(path: Path) -> bytes:
    source = outgoing_file(path).data_set
    assert not isinstance(source, bytes)
    return path.read_bytes()[source[1] :]


def _files(node: StorageNode) -> list[Path]:
    return [node.spool.absolute(path) for path in node.spool.iter_files()]


def _unfinished(node: StorageNode) -> list[Path]:
    return list((node.spool.root / "incoming").iterdir())


def test_success_means_a_durable_file_with_the_same_data_set_and_a_row(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node, path = start_node(), make_file()
    (result,) = send_files([path], peer_of(node), calling_ae_title="SCANNER")
    assert result.status == StoreStatus.SUCCESS
    (row,) = inbox.rows.values()
    stored = node.spool.absolute(row.path)
    assert _data_set(stored) == _data_set(path)
    assert row.file_bytes == stored.stat().st_size
    assert row.calling_ae_title == "SCANNER"
    assert row.header.transfer_syntax_uid == _EXPLICIT
    assert stored.read_bytes()[:128] == bytes(128)
    assert _unfinished(node) == []
    assert dcmread(stored).SOPInstanceUID == row.header.sop_instance_uid


def test_names_in_the_spool_say_nothing_about_the_patient(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node = start_node()
    send_files([make_file()], peer_of(node), calling_ae_title="SCANNER")
    ((uid, row),) = inbox.rows.items()
    assert uid not in row.path
    assert "SCANNER" not in row.path


def test_index_hears_of_an_association_at_its_first_store_and_at_its_end(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node = start_node()
    verify_peer(peer_of(node), calling_ae_title="SCANNER")
    send_files([make_file(), make_file()], peer_of(node), calling_ae_title="SCANNER")
    inbox.wait_closed()
    ((association_id, calling, address),) = inbox.opened
    assert (calling, address) == ("SCANNER", "127.0.0.1")
    assert inbox.closed == [(association_id, True)]
    assert {row.association_id for row in inbox.rows.values()} == {association_id}


@pytest.mark.parametrize(
    ("settings", "called", "calling", "reason"),
    [
        ({}, "WRONG", "SCANNER", "Called AE title not recognised"),
        ({"admit_unknown_peers": False}, "NODE", "SCANNER", "Calling AE title not recognised"),
    ],
)
def test_rejection_names_the_right_reason(
    start_node: StartNode,
    settings: dict[str, object],
    called: str,
    calling: str,
    reason: str,
) -> None:
    node = start_node(**settings)
    peer = PeerAddress(ae_title=called, host="127.0.0.1", port=node.port)
    with pytest.raises(AssociationRejectedError) as rejected:
        _connect(peer, calling=calling)
    assert rejected.value.reason == reason
    assert not rejected.value.transient


def test_nobody_slips_in_when_the_admission_itself_fails(
    start_node: StartNode, peer_of: PeerOf
) -> None:
    node = start_node()
    node._admission = None  # type: ignore[assignment]  # a bug, as far as the node can tell
    with pytest.raises(AssociationRejectedError):
        verify_peer(peer_of(node), calling_ae_title="SCANNER")


def test_association_beyond_the_limit_is_told_to_come_back(
    start_node: StartNode, peer_of: PeerOf
) -> None:
    node = start_node(max_associations=25)
    with ExitStack() as stack:
        for _ in range(25):
            stack.enter_context(closing(_connect(peer_of(node))))
        with pytest.raises(AssociationRejectedError) as rejected:
            _connect(peer_of(node))
    assert rejected.value.reason == "Local limit exceeded"
    assert rejected.value.transient


def test_connections_that_say_nothing_do_not_use_up_the_limit(
    start_node: StartNode, peer_of: PeerOf
) -> None:
    node = start_node(max_associations=2)
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as raw:
            raw.shutdown(socket.SHUT_WR)
            assert raw.recv(1) == b""
    for association in node.associations:
        association.join(5)
    verify_peer(peer_of(node), calling_ae_title="SCANNER")


def test_peer_that_may_only_echo_gets_not_authorised(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node = start_node(peers=(PeerRule(ae_title="ECHO", may_store=False),))
    verify_peer(peer_of(node), calling_ae_title="ECHO")
    (result,) = send_files([make_file()], peer_of(node), calling_ae_title="ECHO")
    assert result.status == StoreStatus.NOT_AUTHORISED
    assert not inbox.rows
    assert _unfinished(node) == []


def test_command_and_data_set_that_disagree_are_a_mismatch(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node, good = start_node(), outgoing_file(make_file())
    for sop_class, instance in ((_CT, "1.2.3.4"), (_MR, good.sop_instance_uid)):
        wrong = Outgoing(
            sop_class_uid=sop_class,
            sop_instance_uid=instance,
            transfer_syntax_uid=_EXPLICIT,
            data_set=good.data_set,
        )
        with closing(_connect(peer_of(node), wrong.pair)) as connection:
            assert connection.store(wrong) == StoreStatus.DATA_SET_MISMATCH
    assert not inbox.rows
    assert _files(node) == _unfinished(node) == []


@pytest.mark.parametrize("data", [b"garbage!" * 1000, b"\0", bytes(4096)])
def test_garbage_is_not_understood_and_the_association_lives_on(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox, data: bytes
) -> None:
    node, good = start_node(), outgoing_file(make_file())
    garbage = Outgoing(
        sop_class_uid=_CT,
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=_EXPLICIT,
        data_set=data,
    )
    with closing(_connect(peer_of(node))) as connection:
        assert connection.store(garbage) == StoreStatus.CANNOT_UNDERSTAND
        assert connection.store(good) == StoreStatus.SUCCESS
    assert len(inbox.rows) == len(_files(node)) == 1


@pytest.mark.parametrize("instance", ["1.2.../../../etc/passwd", "not a uid", "1..2"])
def test_command_with_an_invalid_uid_is_not_understood(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, instance: str
) -> None:
    node, good = start_node(), outgoing_file(make_file())
    wrong = Outgoing(
        sop_class_uid=_CT,
        sop_instance_uid=instance,
        transfer_syntax_uid=_EXPLICIT,
        data_set=good.data_set,
    )
    with closing(_connect(peer_of(node))) as connection:
        assert connection.store(wrong) == StoreStatus.CANNOT_UNDERSTAND
    assert _files(node) == _unfinished(node) == []


def test_class_of_another_context_is_not_supported(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile
) -> None:
    node, good = start_node(), outgoing_file(make_file())
    with closing(_connect(peer_of(node), (_MR, _EXPLICIT))) as connection:
        connection.accepted = {good.pair: connection.accepted[_MR, _EXPLICIT]}
        assert connection.store(good) == StoreStatus.SOP_CLASS_NOT_SUPPORTED


def test_private_class_is_stored_where_the_site_asks_for_it(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    def change(ds: Dataset) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(_PRIVATE)

    path = make_file(change)
    (result,) = send_files([path], peer_of(start_node()), calling_ae_title="SCANNER")
    assert result.outcome is SendOutcome.NO_CONTEXT
    node = start_node(private_sop_classes=(_PRIVATE,))
    (result,) = send_files([path], peer_of(node), calling_ae_title="SCANNER")
    assert result.status == StoreStatus.SUCCESS
    (row,) = inbox.rows.values()
    assert row.header.sop_class_uid == _PRIVATE


def test_disk_at_its_reserve_is_out_of_resources_until_there_is_room_again(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node = start_node(min_free_bytes=1 << 62)
    with closing(_connect(peer_of(node))) as connection:
        for _ in range(2):
            status = connection.store(outgoing_file(make_file()))
            assert status == StoreStatus.OUT_OF_RESOURCES
        verify_peer(peer_of(node), calling_ae_title="SCANNER")
        node.spool._min_free_bytes = 0
        assert connection.store(outgoing_file(make_file())) == StoreStatus.SUCCESS
    assert len(inbox.rows) == 1


def test_instance_beyond_the_bound_is_out_of_resources_and_the_next_one_is_stored(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile
) -> None:
    def enlarge(ds: Dataset) -> None:
        ds.Rows, ds.PixelData = 256, ds.PixelData * 2

    node = start_node(max_instance_bytes=50_000, max_pdu_bytes=16_384)
    with closing(_connect(peer_of(node))) as connection:
        large, small = outgoing_file(make_file(enlarge)), outgoing_file(make_file())
        assert connection.store(large) == StoreStatus.OUT_OF_RESOURCES
        assert connection.store(small) == StoreStatus.SUCCESS
    assert len(_files(node)) == 1
    assert _unfinished(node) == []


def test_index_that_fails_is_out_of_resources_and_the_file_waits_for_the_scan(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node, item = start_node(), outgoing_file(make_file())
    inbox.failures_left = 1
    with closing(_connect(peer_of(node))) as connection:
        assert connection.store(item) == StoreStatus.OUT_OF_RESOURCES
        assert len(_files(node)) == 1
        assert connection.store(item) == StoreStatus.SUCCESS
    assert len(inbox.rows) == 1


def test_same_instance_again_is_a_success_and_leaves_one_file(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node, path = start_node(), make_file()
    results = send_files([path, path], peer_of(node), calling_ae_title="SCANNER")
    assert [each.status for each in results] == [0, 0]
    (row,) = inbox.rows.values()
    assert _files(node) == [node.spool.absolute(row.path)]


def test_same_uid_with_other_bytes_is_kept_in_quarantine_with_an_alarm(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    def blacken(ds: Dataset) -> None:
        ds.PixelData = bytes(len(ds.PixelData))

    node = start_node()
    first, second = make_file(new_uid=False), make_file(blacken, new_uid=False)
    with capture_logs() as logs:
        results = send_files([first, second], peer_of(node), calling_ae_title="SCANNER")
        inbox.wait_closed()
    assert [each.status for each in results] == [0, 0]
    (row,) = inbox.rows.values()
    assert _files(node) == [node.spool.absolute(row.path)]
    assert _data_set(node.spool.absolute(row.path)) == _data_set(first)
    (kept,) = (node.spool.root / "quarantine").iterdir()
    assert _data_set(kept) == _data_set(second)
    alarms = [each for each in logs if each["event"] == "node.instance_quarantined"]
    assert [each["log_level"] for each in alarms] == ["error"]


def _send_half(connection: Connection, item: Outgoing) -> socket.socket:
    """Send a command and a part of its data set on the raw connection."""
    transport = connection._association.dul.socket
    assert transport is not None
    assert transport.socket is not None
    context_id = connection.accepted[item.pair]
    for index, part in enumerate(_message(item, 1).encode_msg(context_id, 16_384)):
        ((number, data),) = part.presentation_data_value_list
        head = struct.pack(">BBLLB", 4, 0, len(data) + 5, len(data) + 1, number)
        transport.socket.sendall(head + data)
        if index == 1:
            break
    return transport.socket


def test_newcomer_whose_rival_leaves_at_this_moment_takes_its_place(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    """Retention may take a study between two looks; what came then is neither lost nor refused."""
    node = start_node()
    send_files([make_file(new_uid=False)], peer_of(node), calling_ae_title="SCANNER")
    (rival,) = inbox.rows.values()
    same_data_set = node.spool.have_same_data_set

    def compare_and_leave(one: str, other: str) -> bool:
        is_same = same_data_set(one, other)
        inbox.rows.clear()
        return is_same

    node.spool.have_same_data_set = compare_and_leave  # type: ignore[method-assign]  # a moment in time
    newcomer = make_file(lambda ds: setattr(ds, "InstanceNumber", 77), new_uid=False)
    (result,) = send_files([newcomer], peer_of(node), calling_ae_title="SCANNER")
    assert result.status == StoreStatus.SUCCESS
    (row,) = inbox.rows.values()
    assert row.path != rival.path
    assert row.header.instance_number == 77


def test_row_whose_file_is_lost_takes_the_one_that_comes_again(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node, path = start_node(), make_file()
    send_files([path], peer_of(node), calling_ae_title="SCANNER")
    (lost,) = inbox.rows.values()
    node.spool.absolute(lost.path).unlink()
    (result,) = send_files([path], peer_of(node), calling_ae_title="SCANNER")
    assert result.status == StoreStatus.SUCCESS
    (row,) = inbox.rows.values()
    assert _files(node) == [node.spool.absolute(row.path)]


def test_quota_of_one_peer_holds_up_no_other(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    rules = (PeerRule(ae_title="SMALL", quota_bytes=1), PeerRule(ae_title="LARGE"))
    node = start_node(admit_unknown_peers=False, peers=rules)
    with closing(_connect(peer_of(node), calling="SMALL")) as connection:
        assert connection.store(outgoing_file(make_file())) == StoreStatus.SUCCESS
        for _ in range(2):
            assert connection.store(outgoing_file(make_file())) == StoreStatus.OUT_OF_RESOURCES
        (other,) = send_files([make_file()], peer_of(node), calling_ae_title="LARGE")
        assert other.status == StoreStatus.SUCCESS
        inbox.rows.clear()  # its studies have left
        assert connection.store(outgoing_file(make_file())) == StoreStatus.SUCCESS


def test_transfer_that_breaks_off_leaves_nothing(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node = start_node()
    connection = _connect(peer_of(node))
    assert connection.store(outgoing_file(make_file())) == StoreStatus.SUCCESS
    _send_half(connection, outgoing_file(make_file())).shutdown(socket.SHUT_RDWR)
    inbox.wait_closed()
    assert [released for _, released in inbox.closed] == [False]
    assert len(inbox.rows) == len(_files(node)) == 1
    assert _unfinished(node) == []


def test_peer_that_stalls_in_a_pdu_is_cut_off(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node = start_node(stalled_timeout_s=0.2)
    connection = _connect(peer_of(node))
    assert connection.store(outgoing_file(make_file())) == StoreStatus.SUCCESS
    raw = _send_half(connection, outgoing_file(make_file()))
    raw.sendall(struct.pack(">BBL", 4, 0, 1000) + b"x")
    inbox.wait_closed()
    assert _unfinished(node) == []


def test_node_that_stops_ends_its_associations_and_has_no_file_half_done(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node = start_node(stop_grace_s=1.0)
    silent = socket.create_connection(("127.0.0.1", node.port))
    connection = _connect(peer_of(node))
    assert connection.store(outgoing_file(make_file())) == StoreStatus.SUCCESS
    _send_half(connection, outgoing_file(make_file()))
    node.__exit__(None, None, None)
    inbox.wait_closed()
    assert _unfinished(node) == []
    with pytest.raises(AssociationLostError):
        connection.store(outgoing_file(make_file()))
    silent.close()


@pytest.mark.parametrize(
    "pdu",
    [
        struct.pack(">BBL", 1, 0, 0xFFFFFFFF),
        struct.pack(">BBL", 4, 0, 0xFFFFFFFF) + bytes(100),
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        struct.pack(">BBL", 1, 0, 10) + b"0123456789",
        b"\x01",
    ],
)
def test_bytes_that_are_no_association_request_end_the_connection_only(
    start_node: StartNode, peer_of: PeerOf, pdu: bytes
) -> None:
    node = start_node(association_timeout_s=1.0)
    with socket.create_connection(("127.0.0.1", node.port)) as raw:
        raw.settimeout(10)
        raw.sendall(pdu)
        raw.shutdown(socket.SHUT_WR)
        try:
            while raw.recv(4096):
                pass
        except ConnectionError:
            pass  # a reset ends it just as well
    verify_peer(peer_of(node), calling_ae_title="SCANNER")


@pytest.mark.parametrize(
    "fragment",
    [
        b"\x03" + b"no command set at all",
        b"\x03" + struct.pack("<HHIH", 0, 0x0100, 2, 0x7777),
        b"\x01" + bytes(100_000),
    ],
)
def test_message_that_makes_no_sense_aborts_its_association_only(
    start_node: StartNode, peer_of: PeerOf, fragment: bytes
) -> None:
    node = start_node()
    connection = _connect(peer_of(node))
    transport = connection._association.dul.socket
    assert transport is not None
    assert transport.socket is not None
    (context_id,) = connection.accepted.values()
    head = struct.pack(">BBLLB", 4, 0, len(fragment) + 5, len(fragment) + 1, context_id)
    transport.socket.sendall(head + fragment)
    connection._association.join(10)
    assert not connection.is_open
    verify_peer(peer_of(node), calling_ae_title="SCANNER")


def test_four_associations_store_at_the_same_time(
    start_node: StartNode, peer_of: PeerOf, make_file: MakeFile, inbox: Inbox
) -> None:
    node, paths = start_node(), [make_file() for _ in range(24)]
    results = send_files(paths, peer_of(node), calling_ae_title="SCANNER", associations=4)
    assert {each.outcome for each in results} == {SendOutcome.STORED}
    assert len(inbox.rows) == len(_files(node)) == 24
    assert len(inbox.opened) == 4


def test_port_that_is_taken_is_explained(start_node: StartNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NodeStartError, match=f"port {port}.*another port"):
            start_node(port=port)


def test_class_that_is_no_storage_is_not_offered(start_node: StartNode, peer_of: PeerOf) -> None:
    find = ("1.2.840.10008.5.1.4.1.2.2.1", _EXPLICIT)
    with pytest.raises(ContextRejectedError), closing(_connect(peer_of(start_node()), find)) as one:
        one.store(
            Outgoing(
                sop_class_uid=find[0],
                sop_instance_uid="1.2",
                transfer_syntax_uid=find[1],
                data_set=b"",
            )
        )


@pytest.fixture
def output(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """All that was logged at any level, or printed."""
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text + "".join(capfd.readouterr())


def test_no_log_and_no_output_holds_what_a_peer_sent(
    start_node: StartNode,
    peer_of: PeerOf,
    make_file: MakeFile,
    inbox: Inbox,
    output: Callable[[], str],
) -> None:
    def mark(ds: Dataset) -> None:
        ds.PatientName, ds.PatientID = "CANARY^NAME", "CANARYID"
        ds.StudyInstanceUID = ds.SOPInstanceUID = UID("1.2.777.888")

    node, item = start_node(), outgoing_file(make_file(mark, new_uid=False))
    variants: list[dict[str, Any]] = [
        {"sop_instance_uid": item.sop_instance_uid, "data_set": item.data_set},
        {"sop_instance_uid": "1.2.777.888.9", "data_set": item.data_set},
        {"sop_instance_uid": "CANARY..1", "data_set": item.data_set},
        {"sop_instance_uid": "1.2.777.888", "data_set": b"CANARY" * 100},
    ]
    inbox.failures_left = 1
    with capture_logs() as logs, closing(_connect(peer_of(node), calling="CANARYAE")) as one:
        for variant in (*variants, variants[0]):
            one.store(Outgoing(sop_class_uid=_CT, transfer_syntax_uid=_EXPLICIT, **variant))
    told = repr(logs) + output()
    assert "node.instance_stored" in told
    assert "node.store_failed" in told
    assert "CANARY" not in told
    assert "777.888" not in told

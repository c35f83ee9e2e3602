"""The node on its TLS port, called by our own requestor."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset
from simulators.certificates import HOST, Authority, Identity
from simulators.memory_inbox import MemoryInbox
from simulators.rogue_modality import associate_request, pdu
from simulators.waiting import wait_until
from structlog.testing import capture_logs

from dicom_node.admission import Call, PeerRule, Reason, RefusalReason
from dicom_node.errors import (
    AssociationRejectedError,
    HandshakeError,
    HandshakeFault,
    NodeStartError,
    PeerUnreachableError,
    TlsFileError,
)
from dicom_node.requestor import VERIFICATION_PAIR, Connection, PeerAddress, RequestorTimeouts
from dicom_node.scp import StorageNode, TlsPort
from dicom_node.scu import SendOutcome, outgoing_file, send_files, verify_peer
from dicom_node.tls import RequestorTls, ServerCertificates, ServerTls
from dicom_node.transport import cut

StartNode = Callable[..., StorageNode]
MakeFile = Callable[..., Path]
_TIMEOUTS = RequestorTimeouts(connect_s=5, association_s=5, answer_s=10)


class Site:
    """An authority and what it signed; starts nodes and calls them."""

    def __init__(self, folder: Path, start_node: StartNode) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.node_identity = self.authority.issue("node")
        self.scanner = self.authority.issue("scanner")
        self.certificates = ServerCertificates(
            certificate_file=self.node_identity.certificate_file,
            key_file=self.node_identity.key_file,
            ca_file=self.authority.ca_file,
        )
        self._start_node = start_node

    def start(
        self, *, tls_port: int = 0, is_only_port: bool = False, **settings: object
    ) -> StorageNode:
        tls = TlsPort(certificates=self.certificates, port=tls_port, is_only_port=is_only_port)
        return self._start_node(tls=tls, **settings)

    def tls(self, identity: Identity | None) -> RequestorTls:
        if identity is None:
            return RequestorTls(ca_file=self.authority.ca_file)
        return RequestorTls(
            ca_file=self.authority.ca_file,
            certificate_file=identity.certificate_file,
            key_file=identity.key_file,
        )

    def peer(self, node: StorageNode) -> PeerAddress:
        return PeerAddress(
            ae_title="NODE", host=HOST, port=node.tls_port, tls=self.tls(self.scanner)
        )


@pytest.fixture
def site(tmp_path: Path, start_node: StartNode) -> Site:
    return Site(tmp_path, start_node)


def _echo(peer: PeerAddress, calling: str = "SCANNER") -> None:
    verify_peer(peer, calling_ae_title=calling, timeouts=_TIMEOUTS)


def test_instances_come_over_tls_as_they_do_in_clear_text(
    site: Site, make_file: MakeFile, inbox: MemoryInbox
) -> None:
    def enlarge(ds: Dataset) -> None:
        ds.Rows = 128 * 40
        ds.PixelData = bytes(ds.PixelData) * 40

    node = site.start()
    paths = [make_file(), make_file(enlarge), make_file()]
    results = send_files(paths, site.peer(node), calling_ae_title="SCANNER", timeouts=_TIMEOUTS)
    assert {each.outcome for each in results} == {SendOutcome.STORED}
    for path, row in zip(paths, inbox.rows.values(), strict=True):
        stored = node.spool.absolute(row.path)
        assert _data_set(stored) == _data_set(path)


def _data_set(path: Path) -> bytes:
    source = outgoing_file(path).data_set
    assert not isinstance(source, bytes)
    return path.read_bytes()[source[1] :]


def test_clear_text_is_for_peers_that_are_allowed_it(site: Site) -> None:
    node = site.start(
        admit_unknown_peers=False,
        peers=(PeerRule(ae_title="NEW"), PeerRule(ae_title="OLD", clear_text=True)),
    )
    clear = PeerAddress(ae_title="NODE", host=HOST, port=node.port)
    _echo(clear, "OLD")
    for peer, calling in ((site.peer(node), "NEW"), (site.peer(node), "OLD")):
        _echo(peer, calling)
    with pytest.raises(AssociationRejectedError, match="Calling AE title not recognised"):
        _echo(clear, "NEW")


def test_a_title_can_be_bound_to_one_certificate(site: Site) -> None:
    other = site.authority.issue("other")
    node = site.start(
        admit_unknown_peers=False,
        peers=(PeerRule(ae_title="CT", certificate_sha256=site.scanner.sha256),),
    )
    _echo(site.peer(node), "CT")
    with pytest.raises(AssociationRejectedError):
        _echo(replace(site.peer(node), tls=site.tls(other)), "CT")


def test_without_clear_text_there_is_one_port(site: Site) -> None:
    node = site.start(is_only_port=True)
    _echo(site.peer(node))
    with pytest.raises(RuntimeError, match="does not listen"):
        _ = node.port


def test_without_a_certificate_there_is_one_port(start_node: StartNode) -> None:
    node = start_node()
    with pytest.raises(RuntimeError, match="does not listen"):
        _ = node.tls_port


def test_both_ports_share_one_limit_of_associations(site: Site) -> None:
    node = site.start(max_associations=4, peers=(PeerRule(ae_title="OLD", clear_text=True),))
    clear = PeerAddress(ae_title="NODE", host=HOST, port=node.port)
    with ExitStack() as stack:
        for peer in (clear, site.peer(node)) * 2:
            connection = Connection(
                peer, calling_ae_title="OLD", pairs=[VERIFICATION_PAIR], timeouts=_TIMEOUTS
            )
            stack.enter_context(closing(connection))
        for peer in (clear, site.peer(node)):
            with pytest.raises(AssociationRejectedError) as rejected:
                _echo(peer, "OLD")
            assert rejected.value.transient


def test_silent_connections_to_the_tls_port_hold_up_nobody(site: Site) -> None:
    node = site.start()
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection((HOST, node.tls_port)))
        _echo(site.peer(node))


def test_a_renewed_certificate_is_shown_and_open_associations_live_on(
    site: Site, make_file: MakeFile
) -> None:
    node = site.start()
    item = outgoing_file(make_file())
    with closing(
        Connection(
            site.peer(node), calling_ae_title="SCANNER", pairs=[item.pair], timeouts=_TIMEOUTS
        )
    ) as connection:
        assert connection.store(item) == 0
        elsewhere = Authority(site.folder, "elsewhere")
        elsewhere.issue("node")
        with pytest.raises(HandshakeError) as refused:
            _echo(site.peer(node))
        assert refused.value.fault is HandshakeFault.UNTRUSTED_CERTIFICATE
        trusting = replace(site.tls(site.scanner), ca_file=elsewhere.ca_file)
        _echo(replace(site.peer(node), tls=trusting))
        assert connection.store(outgoing_file(make_file())) == 0


def test_who_asks_hears_of_every_refused_call_and_its_reason(site: Site) -> None:
    heard: list[tuple[Call, Reason]] = []
    node = site.start(
        admit_unknown_peers=False,
        peers=(PeerRule(ae_title="CT"),),
        on_refused=lambda call, reason: heard.append((call, reason)),
    )
    clear = PeerAddress(ae_title="NODE", host=HOST, port=node.port)
    wrong = replace(site.peer(node), ae_title="WRONG")
    for peer, calling in ((clear, "CT"), (site.peer(node), "X"), (wrong, "CT")):
        with pytest.raises(AssociationRejectedError):
            _echo(peer, calling)
    _echo(site.peer(node), "CT")
    assert [reason for _, reason in heard] == [
        RefusalReason.CLEAR_TEXT,
        RefusalReason.CALLING_AE_TITLE,
        RefusalReason.CALLED_AE_TITLE,
    ]
    (clear_call, _), (unknown, _), (_, _) = heard
    assert (clear_call.calling_ae_title, clear_call.is_encrypted) == ("CT", False)
    assert unknown.is_encrypted
    assert unknown.certificate_sha256 == site.scanner.sha256


def test_a_call_that_fails_at_tls_is_heard_of_by_its_address_and_probes_are_not(
    site: Site,
) -> None:
    heard: list[tuple[Call, Reason]] = []
    node = site.start(on_refused=lambda call, reason: heard.append((call, reason)))
    socket.create_connection((HOST, node.tls_port)).close()
    stranger = Authority(site.folder, "other").issue("stranger")
    with capture_logs() as logs:
        for identity in (None, stranger):
            with pytest.raises(HandshakeError):
                _echo(replace(site.peer(node), tls=site.tls(identity)))
        wait_until(lambda: len(heard) == 2)
    nobody = Call(calling_ae_title="", called_ae_title="", address=HOST)
    assert heard == [
        (nobody, HandshakeFault.NO_CERTIFICATE),
        (nobody, HandshakeFault.UNTRUSTED_CERTIFICATE),
    ]
    reasons = [each["reason"] for each in logs if each["event"] == "node.tls_refused"]
    assert {"no_certificate", "untrusted_certificate"} <= set(reasons)
    assert HOST not in repr(logs)


def test_a_listener_that_fails_costs_the_caller_nothing_and_nothing_is_told(
    site: Site,
) -> None:
    def fail(call: Call, reason: Reason) -> None:
        raise ValueError(f"{call.calling_ae_title} {reason}")

    node = site.start(admit_unknown_peers=False, on_refused=fail)
    with capture_logs() as logs, pytest.raises(AssociationRejectedError, match="Calling"):
        _echo(site.peer(node), "CANARY")
    assert "node.refusal_not_noted" in {each["event"] for each in logs}
    assert "CANARY" not in repr(logs)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"certificate_file": None, "key_file": None}, HandshakeFault.REFUSED_BY_PEER),
        ({"server_name": "pacs.example.org"}, HandshakeFault.WRONG_NAME),
        ({"ca_file": None}, HandshakeFault.UNTRUSTED_CERTIFICATE),
    ],
)
def test_a_requestor_says_why_there_is_no_tls_connection(
    site: Site, change: dict[str, object], fault: HandshakeFault
) -> None:
    node = site.start()
    tls = replace(site.tls(site.scanner), **change)  # type: ignore[arg-type]  # a mix of kinds
    with pytest.raises(HandshakeError) as refused:
        _echo(replace(site.peer(node), tls=tls))
    assert refused.value.fault is fault


def test_the_name_in_the_certificate_may_be_another_than_the_host(site: Site) -> None:
    site.authority.issue("node", host="node.example.org")
    node = site.start()
    with pytest.raises(HandshakeError):
        _echo(site.peer(node))
    named = replace(site.tls(site.scanner), server_name="node.example.org")
    _echo(replace(site.peer(node), tls=named))


def test_a_requestor_that_meets_clear_text_where_it_wants_tls_says_so(
    site: Site, start_node: StartNode
) -> None:
    node = start_node(association_timeout_s=1.0)
    peer = PeerAddress(ae_title="NODE", host=HOST, port=node.port, tls=site.tls(site.scanner))
    with pytest.raises(PeerUnreachableError):
        _echo(peer)


def test_a_requestor_whose_own_files_are_broken_names_them(site: Site) -> None:
    node = site.start()
    peer = site.peer(node)
    site.scanner.key_file.unlink()
    with pytest.raises(TlsFileError, match=r"scanner\.key\.pem cannot be read"):
        _echo(peer)


def test_a_node_without_a_usable_certificate_does_not_start(site: Site) -> None:
    site.node_identity.key_file.unlink()
    with pytest.raises(NodeStartError, match=r"node\.key\.pem cannot be read"):
        site.start()


def test_a_port_that_is_taken_leaves_no_listener_behind(site: Site) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NodeStartError, match="set another port"):
            site.start(port=port)
        with pytest.raises(NodeStartError, match="set another port"):
            site.start(tls_port=port)
    _echo(site.peer(site.start()))


def test_stopping_ends_tls_associations_too(site: Site) -> None:
    node = site.start(stop_grace_s=1.0)
    with (
        closing(
            Connection(
                site.peer(node),
                calling_ae_title="SCANNER",
                pairs=[VERIFICATION_PAIR],
                timeouts=_TIMEOUTS,
            )
        ) as connection,
        socket.create_connection((HOST, node.tls_port)),
    ):
        node.__exit__(None, None, None)
        wait_until(lambda: not connection.is_open, 10)


def test_the_end_of_an_association_is_the_end_of_tls_too(site: Site) -> None:
    """Without close_notify a peer cannot tell the end from a cut (RFC 8446 6.1)."""
    node = site.start()
    context = site.tls(site.scanner).context()
    raw = socket.create_connection((HOST, node.tls_port), timeout=10)
    with context.wrap_socket(raw, server_hostname=HOST, suppress_ragged_eofs=False) as connection:
        connection.sendall(associate_request())
        assert connection.recv(1) == b"\x02"  # A-ASSOCIATE-AC
        connection.sendall(pdu(0x05, bytes(4)))  # A-RELEASE-RQ
        while connection.recv(4096):
            pass


def test_nothing_is_read_in_clear_text_after_a_connection_was_cut(site: Site) -> None:
    """What is left in the kernel's buffer is encrypted, and must not pass for the peer's words."""
    tls = ServerTls(site.certificates)
    context = site.tls(site.scanner).context()
    with socket.create_server((HOST, 0)) as listener:
        raw = socket.create_connection(listener.getsockname(), timeout=10)
        accepted: list[ssl.SSLSocket] = []
        door = threading.Thread(
            target=lambda: accepted.append(tls.accept(listener.accept()[0], 10))
        )
        door.start()
        with context.wrap_socket(raw, server_hostname=HOST) as connection:
            door.join(10)
            connection.sendall(b"secret")
            with accepted[0] as server:
                wait_until(lambda: select.select([server], [], [], 0)[0])
                cut(server)
                assert server.recv(6) == b"secret"
                assert server.recv(4096) == b""

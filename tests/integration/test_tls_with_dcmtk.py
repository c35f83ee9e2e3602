"""TLS between the node and what others have: dcmtk both ways, and OpenSSL's own client."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from simulators.certificates import HOST, Authority, Identity, KeyKind
from simulators.memory_inbox import MemoryInbox
from simulators.waiting import wait_until

from dicom_node.admission import PeerRule
from dicom_node.errors import (
    AssociationLostError,
    AssociationRejectedError,
    HandshakeError,
    HandshakeFault,
)
from dicom_node.requestor import Connection, PeerAddress, RequestorTimeouts
from dicom_node.scp import NodeSettings, StorageNode, TlsPort
from dicom_node.scu import SendOutcome, outgoing_file, send_files, verify_peer
from dicom_node.tls import RequestorTls, ServerCertificates

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("storescu") is None, reason="needs dcmtk"),
]

_DEADLINE_S = 60
_TIMEOUTS = RequestorTimeouts(connect_s=5, association_s=5, answer_s=10)


class Site:
    """An authority, a node with a certificate of it, and callers."""

    def __init__(self, folder: Path, stack: ExitStack, *, fast_path: bool) -> None:
        self.folder = folder
        self.inbox = MemoryInbox()
        self.authority = Authority(folder)
        self.identity = self.authority.issue("node", kind=KeyKind.RSA)
        self.scanner = self.authority.issue("scanner", kind=KeyKind.RSA)
        self._fast_path = fast_path
        self._stack = stack

    @property
    def certificates(self) -> ServerCertificates:
        return ServerCertificates(
            certificate_file=self.identity.certificate_file,
            key_file=self.identity.key_file,
            ca_file=self.authority.ca_file,
        )

    def start(self, *peers: PeerRule) -> StorageNode:
        """Start the node; without ``peers`` it admits everyone who has a trusted certificate."""
        settings = NodeSettings(
            ae_title="NODE",
            bind_address=HOST,
            port=0,
            tls=TlsPort(certificates=self.certificates, port=0),
            peers=peers,
            admit_unknown_peers=not peers,
            min_free_bytes=0,
            fast_path=self._fast_path,
        )
        node = StorageNode(settings, spool_folder=self.folder / "spool", inbox=self.inbox)
        return self._stack.enter_context(node)

    def tls_options(self, identity: Identity) -> list[str]:
        return [
            *("+tls", str(identity.key_file), str(identity.certificate_file)),
            *("+cf", str(self.authority.ca_file)),
        ]


@pytest.fixture(params=[True, False], ids=["fast", "stock"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack, fast_path=bool(request.param))


def _run(*command: str, told_to: str = "") -> tuple[bool, str]:
    """Run a tool; whether it succeeded, and what it said."""
    done = subprocess.run(
        command, input=told_to, capture_output=True, text=True, check=False, timeout=_DEADLINE_S
    )
    return done.returncode == 0, done.stdout + done.stderr


def _dcmtk(tool: str, port: int, options: list[str], *files: Path) -> tuple[bool, str]:
    return _run(
        *(tool, "-v", "-aet", "SCANNER", "-aec", "NODE", *options, HOST, str(port)),
        *map(str, files),
    )


def _ct() -> Path:
    path = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(path, str)
    return Path(path)


def test_storescu_stores_over_tls(site: Site) -> None:
    node = site.start()
    stored, told = _dcmtk(
        "storescu", node.tls_port, ["-R", "-xe", *site.tls_options(site.scanner)], _ct()
    )
    assert stored, told
    (row,) = site.inbox.rows.values()
    found = dcmread(node.spool.absolute(row.path))
    assert found.PixelData == dcmread(_ct()).PixelData


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_every_profile_of_dcmtk_that_is_not_retired_gets_in(site: Site, profile: str) -> None:
    """PS3.15 B.10, B.9 and B.11, the forerunners of B.12."""
    node = site.start()
    echoed, told = _dcmtk("echoscu", node.tls_port, [profile, *site.tls_options(site.scanner)])
    assert echoed, told


def test_the_retired_profile_of_unencrypted_tls_does_not_get_in(site: Site) -> None:
    node = site.start()
    echoed, told = _dcmtk("echoscu", node.tls_port, ["+pn", *site.tls_options(site.scanner)])
    assert not echoed, told


@pytest.mark.parametrize(
    ("suite", "is_taken"),
    [
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", True),
        ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", True),
        ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", False),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", False),
        ("TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", False),
        ("TLS_RSA_WITH_AES_128_GCM_SHA256", False),
    ],
)
def test_suites_of_tls_1_2_are_those_of_bcp_195(site: Site, suite: str, is_taken: bool) -> None:
    node = site.start()
    taken, told = _s_client(site, node, "-tls1_2", "-cipher", _OPENSSL_NAMES[suite])
    assert taken is is_taken, told


_OPENSSL_NAMES = {
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256": "DHE-RSA-AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
}


def _s_client(
    site: Site, node: StorageNode, *options: str, told_to: str = "Q\n"
) -> tuple[bool, str]:
    """Connect with OpenSSL's client as the scanner; ``told_to`` are its commands."""
    done, told = _run(
        *("openssl", "s_client", "-connect", f"{HOST}:{node.tls_port}"),
        *("-CAfile", str(site.authority.ca_file), "-verify_return_error"),
        *("-cert", str(site.scanner.certificate_file), "-key", str(site.scanner.key_file)),
        *options,
        told_to=told_to,
    )
    return done and "Cipher is (NONE)" not in told, told


@pytest.mark.parametrize(
    ("version", "is_taken"),
    [("-tls1_3", True), ("-tls1_2", True), ("-tls1_1", False), ("-tls1", False)],
)
def test_versions_are_those_of_bcp_195(site: Site, version: str, is_taken: bool) -> None:
    node = site.start()
    old = [] if is_taken else ["-cipher", "ALL:@SECLEVEL=0"]
    taken, told = _s_client(site, node, version, *old)
    assert taken is is_taken, told


def test_nothing_is_compressed_resumed_or_renegotiated(site: Site) -> None:
    node = site.start()
    _, told = _s_client(site, node, "-tls1_2", told_to="R\nQ\n")
    assert "Compression: NONE" in told
    assert "Secure Renegotiation IS supported" in told  # RFC 5746: the attack, not the feature
    assert "no renegotiation" in told
    assert "TLS session ticket" not in told


@pytest.mark.parametrize("kind", [KeyKind.RSA, KeyKind.ECDSA])
def test_both_kinds_of_keys_are_shown(site: Site, kind: KeyKind) -> None:
    site.identity = site.authority.issue("node", kind=kind)
    node = site.start()
    for version in ("-tls1_2", "-tls1_3"):
        taken, told = _s_client(site, node, version)
        assert taken, told


def test_callers_without_a_trusted_certificate_do_not_get_in(site: Site, tmp_path: Path) -> None:
    node = site.start()
    trust = ["+cf", str(site.authority.ca_file)]
    expired = site.authority.issue("expired", kind=KeyKind.RSA, valid_days=-1)
    stranger = Authority(tmp_path, "other").issue("stranger", kind=KeyKind.RSA)
    for options in (
        ["+tla", *trust],
        site.tls_options(expired),
        site.tls_options(stranger),
        ["-tls"],  # clear text to the port for TLS
    ):
        echoed, told = _dcmtk("echoscu", node.tls_port, ["-ta", "5", "-to", "5", *options])
        assert not echoed, told
    echoed, told = _dcmtk("echoscu", node.tls_port, site.tls_options(site.scanner))
    assert echoed, told


def test_a_scanner_does_not_talk_to_a_node_of_another_authority(site: Site, tmp_path: Path) -> None:
    node = site.start()
    other = Authority(tmp_path, "other")
    options = [
        *("+tls", str(site.scanner.key_file), str(site.scanner.certificate_file)),
        *("+cf", str(other.ca_file)),
    ]
    echoed, told = _dcmtk("echoscu", node.tls_port, options)
    assert not echoed, told


def test_clear_text_is_for_peers_that_are_allowed_it(site: Site) -> None:
    node = site.start(PeerRule(ae_title="OLD", clear_text=True), PeerRule(ae_title="SCANNER"))
    echoed, told = _dcmtk("echoscu", node.port, [])
    assert not echoed
    assert "Calling AE Title Not Recognized" in told
    echoed, told = _run("echoscu", "-aet", "OLD", "-aec", "NODE", HOST, str(node.port))
    assert echoed, told


def test_a_title_is_bound_to_its_certificate(site: Site) -> None:
    other = site.authority.issue("other", kind=KeyKind.RSA)
    node = site.start(PeerRule(ae_title="SCANNER", certificate_sha256=site.scanner.sha256))
    echoed, told = _dcmtk("echoscu", node.tls_port, site.tls_options(site.scanner))
    assert echoed, told
    echoed, told = _dcmtk("echoscu", node.tls_port, site.tls_options(other))
    assert not echoed
    assert "Calling AE Title Not Recognized" in told


def test_a_client_that_says_nothing_does_not_hold_up_the_others(site: Site) -> None:
    node = site.start()
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection((HOST, node.tls_port)))
        echoed, told = _dcmtk("echoscu", node.tls_port, site.tls_options(site.scanner))
    assert echoed, told


def test_a_renewed_certificate_is_shown_without_a_restart(site: Site) -> None:
    node = site.start()
    item = outgoing_file(_ct())
    tls = RequestorTls(
        ca_file=site.authority.ca_file,
        certificate_file=site.scanner.certificate_file,
        key_file=site.scanner.key_file,
    )
    peer = PeerAddress(ae_title="NODE", host=HOST, port=node.tls_port, tls=tls)
    before = site.identity.sha256
    with closing(
        Connection(peer, calling_ae_title="SCANNER", pairs=[item.pair], timeouts=_TIMEOUTS)
    ) as connection:
        assert connection.store(item) == 0
        renewed = site.authority.issue("node", kind=KeyKind.RSA)
        assert renewed.sha256 != before
        assert _shown(site, node) == renewed.sha256
        assert connection.store(item) == 0


def _shown(site: Site, node: StorageNode) -> str:
    """The fingerprint of the certificate that the node shows."""
    taken, told = _s_client(site, node, "-showcerts")
    assert taken, told
    shown = site.folder / "shown.pem"
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    shown.write_text(f"{begin}{told.split(begin)[1].split(end)[0]}{end}\n")
    return Identity(certificate_file=shown, key_file=shown).sha256


@contextmanager
def _storescp(site: Site, folder: Path, *options: str) -> Iterator[PeerAddress]:
    """The receiver of dcmtk on a free port, as a PACS with a certificate of the authority."""
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
    pacs = site.authority.issue("pacs", kind=KeyKind.RSA)
    command = ["storescp", "+B", "-aet", "PACS", "+xa", "-od", str(folder)]
    command += [*site.tls_options(pacs), *options, str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _listens(port))
            yield PeerAddress(ae_title="PACS", host=HOST, port=port)
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


MakeTls = Callable[[Site], RequestorTls]


def _ours(site: Site) -> RequestorTls:
    return RequestorTls(
        ca_file=site.authority.ca_file,
        certificate_file=site.identity.certificate_file,
        key_file=site.identity.key_file,
    )


def _anonymous(site: Site) -> RequestorTls:
    return RequestorTls(ca_file=site.authority.ca_file)


def _with_another_name(site: Site) -> RequestorTls:
    return RequestorTls(ca_file=site.authority.ca_file, server_name="pacs.example.org")


def _trusting_others(site: Site) -> RequestorTls:
    return RequestorTls(ca_file=Authority(site.folder, "other").ca_file)


@pytest.mark.parametrize("profile", ["+py", "+px"])
def test_our_sender_delivers_to_storescp_over_tls(site: Site, tmp_path: Path, profile: str) -> None:
    folder = tmp_path / "received"
    folder.mkdir()
    with _storescp(site, folder, profile) as pacs:
        peer = PeerAddress(ae_title="PACS", host=HOST, port=pacs.port, tls=_ours(site))
        results = send_files([_ct()] * 3, peer, calling_ae_title="US", timeouts=_TIMEOUTS)
    assert {each.outcome for each in results} == {SendOutcome.STORED}
    (received,) = folder.iterdir()
    assert dcmread(received).PixelData == dcmread(_ct()).PixelData


@pytest.mark.parametrize("when", ["--abort-during", "--abort-after", "--refuse"])
def test_a_pacs_that_breaks_off_is_told_at_once(site: Site, tmp_path: Path, when: str) -> None:
    ds = dcmread(_ct())
    ds.Rows, ds.PixelData = 128 * 300, ds.PixelData * 300
    large = tmp_path / "large.dcm"
    ds.save_as(large)
    folder = tmp_path / "received"
    folder.mkdir()
    with _storescp(site, folder, when) as pacs:
        peer = PeerAddress(ae_title="PACS", host=HOST, port=pacs.port, tls=_ours(site))
        patient = replace(_TIMEOUTS, answer_s=3600)  # whoever waited for that would not end
        with pytest.raises((AssociationLostError, AssociationRejectedError)):
            send_files([large], peer, calling_ae_title="US", timeouts=patient)


@pytest.mark.parametrize(
    ("make_tls", "fault"),
    [
        (_anonymous, HandshakeFault.REFUSED_BY_PEER),
        (_with_another_name, HandshakeFault.WRONG_NAME),
        (_trusting_others, HandshakeFault.UNTRUSTED_CERTIFICATE),
    ],
)
def test_our_sender_says_why_it_does_not_deliver(
    site: Site, tmp_path: Path, make_tls: MakeTls, fault: HandshakeFault
) -> None:
    with _storescp(site, tmp_path) as pacs:
        peer = PeerAddress(ae_title="PACS", host=HOST, port=pacs.port, tls=make_tls(site))
        with pytest.raises(HandshakeError) as refused:
            verify_peer(peer, calling_ae_title="US", timeouts=_TIMEOUTS)
    assert refused.value.fault is fault


def test_our_sender_never_falls_back_to_clear_text(site: Site) -> None:
    heard: list[bytes] = []

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(4096))
            connection.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x01")  # A-ABORT

    with socket.create_server((HOST, 0)) as listener:
        pacs = threading.Thread(target=answer, args=(listener,))
        pacs.start()
        port = listener.getsockname()[1]
        peer = PeerAddress(ae_title="PACS", host=HOST, port=port, tls=_ours(site))
        with pytest.raises(HandshakeError) as refused:
            verify_peer(peer, calling_ae_title="US", timeouts=_TIMEOUTS)
        pacs.join(_DEADLINE_S)
    assert refused.value.fault is HandshakeFault.NO_TLS
    assert heard[0][:1] == b"\x16"  # a TLS handshake (RFC 8446 5.1)
    assert b"PACS" not in heard[0]

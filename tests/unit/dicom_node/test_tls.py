"""TLS on plain sockets: who gets in, what a changed file does, what a refusal is called."""

from __future__ import annotations

import contextlib
import queue
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from simulators.certificates import HOST, Authority, Identity, KeyKind, Purpose
from structlog.testing import capture_logs

from dicom_node.errors import HandshakeError, HandshakeFault, TlsFileError
from dicom_node.tls import (
    TLS_1_2_SUITES,
    RequestorTls,
    ServerCertificates,
    ServerTls,
    certificate_sha256,
    fault_of,
)

_DEADLINE_S = 10.0
Configure = Callable[[ssl.SSLContext], None]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def certificates(authority: Authority) -> ServerCertificates:
    node = authority.issue("node")
    return ServerCertificates(
        certificate_file=node.certificate_file, key_file=node.key_file, ca_file=authority.ca_file
    )


@pytest.fixture
def scanner(authority: Authority) -> Identity:
    return authority.issue("scanner")


class Door:
    """Accepts connections as the node does: each handshake in a thread of its own."""

    def __init__(self, tls: ServerTls, timeout_s: float = _DEADLINE_S) -> None:
        self.tls = tls
        self.timeout_s = timeout_s
        self.guests: queue.SimpleQueue[ssl.SSLSocket | HandshakeFault] = queue.SimpleQueue()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._welcome, args=(connection,)))
            self._threads[-1].start()

    def _welcome(self, connection: socket.socket) -> None:
        try:
            self.guests.put(self.tls.accept(connection, self.timeout_s))
        except HandshakeError as error:
            self.guests.put(error.fault)

    def guest(self) -> ssl.SSLSocket:
        """Return the next one who got in."""
        found = self.guests.get(timeout=_DEADLINE_S)
        assert isinstance(found, ssl.SSLSocket), found
        return found

    def refused(self) -> HandshakeFault:
        """Return why the next one did not get in."""
        found = self.guests.get(timeout=_DEADLINE_S)
        assert isinstance(found, HandshakeFault)
        return found

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(_DEADLINE_S)
        while not self.guests.empty():
            left = self.guests.get()
            if isinstance(left, ssl.SSLSocket):
                left.close()


@pytest.fixture
def open_door() -> Iterator[Callable[..., Door]]:
    with contextlib.ExitStack() as stack:

        def open_one(given: ServerCertificates, timeout_s: float = _DEADLINE_S) -> Door:
            return stack.enter_context(contextlib.closing(Door(ServerTls(given), timeout_s)))

        yield open_one


def call(
    door: Door,
    authority: Authority,
    identity: Identity | None,
    configure: Configure = lambda _: None,
) -> ssl.SSLSocket:
    """Call as a scanner does that trusts ``authority`` and shows ``identity``."""
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    if identity is not None:
        context.load_cert_chain(identity.certificate_file, identity.key_file)
    configure(context)
    raw = socket.create_connection((HOST, door.port), timeout=_DEADLINE_S)
    try:
        return context.wrap_socket(raw, server_hostname=HOST)
    except OSError:
        raw.close()
        raise


@contextlib.contextmanager
def refused_call(
    door: Door,
    authority: Authority,
    identity: Identity | None,
    configure: Configure = lambda _: None,
) -> Iterator[None]:
    """Call; whether the caller hears of its failure at once depends on the version of TLS."""
    with contextlib.suppress(OSError), call(door, authority, identity, configure) as connection:
        connection.recv(1)
    yield


def test_who_is_in_is_known_by_the_fingerprint_of_its_certificate(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
) -> None:
    door = open_door(certificates)
    with call(door, authority, scanner) as connection, door.guest() as guest:
        assert certificate_sha256(guest) == scanner.sha256
        assert connection.version() == "TLSv1.3"
        connection.sendall(b"C-ECHO")
        assert guest.recv(6) == b"C-ECHO"


@pytest.mark.parametrize("suite", TLS_1_2_SUITES)
def test_each_suite_of_the_profile_is_taken_with_tls_1_2(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
    suite: str,
) -> None:
    rsa = authority.issue("node", kind=KeyKind.RSA if "RSA" in suite else KeyKind.ECDSA)
    assert certificates.certificate_file == rsa.certificate_file

    def configure(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(suite)

    door = open_door(certificates)
    with call(door, authority, scanner, configure) as connection, door.guest():
        assert connection.cipher() == (suite, "TLSv1.2", 256 if "256-GCM" in suite else 128)
        assert connection.compression() is None
        assert connection.session is not None
        assert not connection.session.has_ticket


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_connection_proves_its_certificate_anew(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
    version: ssl.TLSVersion,
) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    context.load_cert_chain(scanner.certificate_file, scanner.key_file)
    context.minimum_version = context.maximum_version = version
    door = open_door(certificates)
    session = None
    for _ in range(2):
        raw = socket.create_connection((HOST, door.port), timeout=_DEADLINE_S)
        with (
            context.wrap_socket(raw, server_hostname=HOST, session=session) as connection,
            door.guest() as guest,
        ):
            guest.sendall(b"x")
            assert connection.recv(1) == b"x"
            assert not connection.session_reused
            session = connection.session


@pytest.mark.parametrize(
    "suite",
    [
        "ECDHE-ECDSA-AES128-SHA256",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "AES128-GCM-SHA256",
        "DHE-RSA-AES128-GCM-SHA256",
    ],
)
def test_suites_beside_the_profile_are_refused(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
    suite: str,
) -> None:
    def configure(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(suite)

    door = open_door(certificates)
    with refused_call(door, authority, scanner, configure):
        assert door.refused() is HandshakeFault.NO_SHARED_SUITE


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TLS 1.1 is what this is about
def test_tls_1_1_is_refused(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
) -> None:
    def configure(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    door = open_door(certificates)
    with refused_call(door, authority, scanner, configure):
        assert door.refused() is HandshakeFault.OLD_VERSION


def test_a_caller_without_a_certificate_is_refused(
    open_door: Callable[..., Door], certificates: ServerCertificates, authority: Authority
) -> None:
    door = open_door(certificates)
    with refused_call(door, authority, None):
        assert door.refused() is HandshakeFault.NO_CERTIFICATE


def test_a_caller_of_another_authority_is_refused(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    tmp_path: Path,
) -> None:
    stranger = Authority(tmp_path, "other").issue("stranger")
    door = open_door(certificates)
    with refused_call(door, authority, stranger):
        assert door.refused() is HandshakeFault.UNTRUSTED_CERTIFICATE


def test_a_caller_whose_certificate_has_expired_is_refused(
    open_door: Callable[..., Door], certificates: ServerCertificates, authority: Authority
) -> None:
    door = open_door(certificates)
    with refused_call(door, authority, authority.issue("old", valid_days=-1)):
        assert door.refused() is HandshakeFault.EXPIRED
    with call(door, authority, authority.issue("nearly", valid_days=0.1)), door.guest():
        pass


def test_a_caller_whose_certificate_is_for_servers_only_is_refused(
    open_door: Callable[..., Door], certificates: ServerCertificates, authority: Authority
) -> None:
    door = open_door(certificates)
    with refused_call(door, authority, authority.issue("server", purpose=Purpose.SERVER)):
        assert door.refused() is HandshakeFault.WRONG_PURPOSE


def test_a_caller_whose_key_is_too_short_is_refused(
    open_door: Callable[..., Door], certificates: ServerCertificates, authority: Authority
) -> None:
    def configure(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        weak = authority.issue("weak", kind=KeyKind.WEAK_RSA)
        context.load_cert_chain(weak.certificate_file, weak.key_file)

    door = open_door(certificates)
    with refused_call(door, authority, None, configure):
        assert door.refused() is HandshakeFault.UNTRUSTED_CERTIFICATE


def test_callers_may_come_without_a_certificate_where_the_site_says_so(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
) -> None:
    for given in (
        replace(certificates, require_client_certificate=False),
        replace(certificates, require_client_certificate=False, ca_file=None),
    ):
        door = open_door(given)
        with call(door, authority, None), door.guest() as guest:
            assert certificate_sha256(guest) is None
    door = open_door(replace(certificates, require_client_certificate=False))
    with call(door, authority, scanner), door.guest() as guest:
        assert certificate_sha256(guest) == scanner.sha256


@pytest.mark.parametrize(
    "said",
    [
        b"\x01\x00\x00\x00\x00\xcd" + bytes(205),  # an A-ASSOCIATE-RQ in clear text
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x05garbage",
    ],
)
def test_a_caller_that_speaks_no_tls_is_told_apart(
    open_door: Callable[..., Door], certificates: ServerCertificates, said: bytes
) -> None:
    door = open_door(certificates)
    with socket.create_connection((HOST, door.port)) as raw:
        raw.sendall(said)
        fault = door.refused()
    assert fault in {HandshakeFault.NO_TLS, HandshakeFault.OTHER}
    assert (fault is HandshakeFault.OTHER) == said.endswith(b"garbage")


def test_a_caller_that_hangs_up_during_the_handshake_costs_nothing(
    open_door: Callable[..., Door], certificates: ServerCertificates
) -> None:
    door = open_door(certificates)
    socket.create_connection((HOST, door.port)).close()
    assert door.refused() is HandshakeFault.CLOSED


def test_a_silent_caller_is_dropped_at_the_deadline_and_holds_up_nobody(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
) -> None:
    door = open_door(certificates, timeout_s=1.0)
    with socket.create_connection((HOST, door.port), timeout=_DEADLINE_S) as silent:
        with call(door, authority, scanner), door.guest():
            pass  # got in while the other one was silent
        assert door.refused() is HandshakeFault.SILENT
        assert silent.recv(1) == b""


def test_a_caller_that_drips_bytes_is_dropped_at_the_same_deadline(
    open_door: Callable[..., Door], certificates: ServerCertificates
) -> None:
    door = open_door(certificates, timeout_s=0.5)
    pause = threading.Event()
    with socket.create_connection((HOST, door.port)) as raw, contextlib.suppress(OSError):
        raw.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        while door.guests.empty():
            raw.sendall(b"\x00")
            pause.wait(0.1)
    assert door.refused() is HandshakeFault.SILENT


def test_a_renewed_certificate_is_shown_to_the_next_caller_and_open_connections_live_on(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
) -> None:
    door = open_door(certificates)
    with call(door, authority, scanner) as before, door.guest() as guest:
        first = before.getpeercert(binary_form=True)
        with capture_logs() as logs:
            authority.issue("node")
            with call(door, authority, scanner) as after, door.guest():
                assert after.getpeercert(binary_form=True) != first
        assert [each["event"] for each in logs] == ["node.tls_certificates_loaded"]
        guest.sendall(b"still here")
        assert before.recv(10) == b"still here"


def test_a_new_file_of_authorities_counts_from_the_next_call_on(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
    tmp_path: Path,
) -> None:
    door = open_door(certificates)
    with call(door, authority, scanner), door.guest():
        pass
    other = Authority(tmp_path, "other")
    shutil.copy(other.ca_file, authority.ca_file.with_suffix(".new"))
    trusted = authority.ca_file.read_bytes()
    authority.ca_file.with_suffix(".new").replace(authority.ca_file)
    keeper = Authority(tmp_path, "keeper")
    keeper.ca_file.write_bytes(trusted)  # the caller's own trust is as it was
    with refused_call(door, keeper, scanner):
        assert door.refused() is HandshakeFault.UNTRUSTED_CERTIFICATE
    with call(door, keeper, other.issue("newcomer")), door.guest():
        pass


def test_a_broken_new_file_leaves_the_old_certificate_in_use_and_is_logged_once(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
) -> None:
    door = open_door(certificates)
    with call(door, authority, scanner) as connection, door.guest():
        first = connection.getpeercert(binary_form=True)
    good = certificates.certificate_file.read_bytes()
    with capture_logs() as logs:
        certificates.certificate_file.write_text("half a file")
        for _ in range(3):
            with call(door, authority, scanner) as connection, door.guest():
                assert connection.getpeercert(binary_form=True) == first
        certificates.certificate_file.unlink()
        with call(door, authority, scanner), door.guest():
            pass
        certificates.certificate_file.write_bytes(good)
        with call(door, authority, scanner), door.guest():
            pass
    assert [each["event"] for each in logs] == [
        "node.tls_certificates_refused",
        "node.tls_certificates_refused",
        "node.tls_certificates_loaded",
    ]
    assert str(certificates.certificate_file) in logs[0]["remedy"]


def test_a_certificate_that_comes_before_its_key_waits_for_it(
    open_door: Callable[..., Door],
    certificates: ServerCertificates,
    authority: Authority,
    scanner: Identity,
    tmp_path: Path,
) -> None:
    door = open_door(certificates)
    (tmp_path / "later").mkdir()
    later = authority.issue("node", folder=tmp_path / "later")
    later.certificate_file.replace(certificates.certificate_file)
    with capture_logs() as logs, call(door, authority, scanner), door.guest():
        pass
    assert "is not the key of" in logs[0]["remedy"]
    later.key_file.replace(certificates.key_file)
    with call(door, authority, scanner) as connection, door.guest():
        shown = connection.getpeercert(binary_form=True)
    assert shown == ssl.PEM_cert_to_DER_cert(certificates.certificate_file.read_text())


def test_files_that_cannot_be_used_are_named_with_what_to_do(
    certificates: ServerCertificates, authority: Authority, tmp_path: Path
) -> None:
    other = authority.issue("other")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    for change, words in (
        ({"certificate_file": tmp_path / "none.pem"}, "none.pem cannot be read: No such file"),
        ({"key_file": tmp_path}, "cannot be read: Is a directory"),
        ({"key_file": other.key_file}, "is not the key of"),
        ({"certificate_file": nonsense}, "have to be PEM files"),
        ({"ca_file": nonsense}, "holds no certificate"),
        ({"ca_file": None}, "set ca_file, or require_client_certificate = false"),
    ):
        with pytest.raises(TlsFileError, match=words):
            ServerTls(replace(certificates, **change))


@pytest.mark.timeout(20)
def test_a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked_for_it(
    certificates: ServerCertificates,
) -> None:
    node = Identity(certificate_file=certificates.certificate_file, key_file=certificates.key_file)
    node.lock_key(b"secret")
    with pytest.raises(TlsFileError, match="without a pass phrase"):
        ServerTls(certificates)


def test_no_text_of_a_fault_is_missing() -> None:
    assert all(": " in fault.value for fault in HandshakeFault)
    assert fault_of(ConnectionResetError()) is HandshakeFault.CLOSED
    assert fault_of(ssl.SSLError("whatever")) is HandshakeFault.OTHER


def test_a_requestor_needs_certificate_and_key_together(scanner: Identity) -> None:
    with pytest.raises(TlsFileError, match="go together"):
        RequestorTls(certificate_file=scanner.certificate_file)

"""TLS for calls from peers and to peers, by PS3.15 B.12 (BCP 195: RFC 8996 and RFC 9325).

TLS 1.3, and TLS 1.2 with the suites of RFC 9325 4.2; nothing older, no compression, no
renegotiation, and no resumption: every connection proves its certificate anew, so that what a new
file of authorities takes away is gone with the next call.

Certificates are read again when their files change. A file that cannot be used is never worse than
the one before: the node goes on with what it had, and says so.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog

from dicom_node.errors import HandshakeError, HandshakeFault, TlsFileError

_log = structlog.get_logger()

TLS_1_2_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""RFC 9325 4.2, as OpenSSL calls them; TLS 1.3 has only good ones."""
# At least 112 bits: RSA from 2048 bits on, SHA-256 in certificates (RFC 9325 4.5).
_SECURITY_LEVEL = "@SECLEVEL=2"

FileState = tuple[int, ...]
"""What changes when a file is written, replaced or given other rights; () where it is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificates:
    """What the node proves itself with, and whose certificates it trusts.

    Raises:
        TlsFileError: Callers have to show a certificate, and nothing says whose are trusted.
    """

    certificate_file: Path
    """Our certificate and the authorities between it and a root, PEM."""
    key_file: Path
    """Its private key, PEM, without a pass phrase."""
    ca_file: Path | None = None
    """The authorities whose certificates callers may show, PEM."""
    require_client_certificate: bool = True

    def __post_init__(self) -> None:
        if self.require_client_certificate and self.ca_file is None:
            raise TlsFileError(
                "callers have to show a certificate, but no ca_file says whose are trusted; "
                "set ca_file, or require_client_certificate = false"
            )

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            TlsFileError: One is missing, unreadable, or not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _harden(context)
        context.num_tickets = 0
        _load_identity(context, self.certificate_file, self.key_file)
        if self.ca_file is not None:
            _load_authorities(context, self.ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
        if self.require_client_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def state(self) -> tuple[FileState, ...]:
        """What the files are now; differs once one of them is another."""
        files = (self.certificate_file, self.key_file, self.ca_file)
        return tuple(_state_of(path) for path in files if path is not None)


class ServerTls:
    """Takes TLS connections, with the newest certificates that could be used."""

    def __init__(self, certificates: ServerCertificates) -> None:
        """Read the certificates.

        Raises:
            TlsFileError: They cannot be used.
        """
        self._certificates = certificates
        self._lock = threading.Lock()
        self._state = certificates.state()
        self._context = certificates.context()

    def accept(self, connection: socket.socket, timeout_s: float) -> ssl.SSLSocket:
        """Shake hands; from then on only the returned socket may be used.

        Args:
            connection: Just accepted; closed if this fails.
            timeout_s: For the whole handshake; it stays the socket's timeout.

        Raises:
            HandshakeError: It did not come about, and why.
        """
        with self._lock:
            context = self._newest()
        encrypted: ssl.SSLSocket | None = None
        try:
            connection.settimeout(timeout_s)
            encrypted = context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
            encrypted.do_handshake()  # Python counts its timeout over all its messages
        except (OSError, ValueError) as error:
            (encrypted or connection).close()
            raise HandshakeError(fault_of(error)) from error
        return encrypted

    def _newest(self) -> ssl.SSLContext:
        state = self._certificates.state()
        if state != self._state:
            self._state = state  # read before the files: what changes meanwhile is seen next time
            try:
                self._context = self._certificates.context()
            except TlsFileError as error:
                _log.warning("node.tls_certificates_refused", remedy=str(error))
            else:
                _log.info("node.tls_certificates_loaded")
        return self._context


def certificate_sha256(connection: socket.socket) -> str | None:
    """The fingerprint of the certificate that the peer has proved; None if it showed none."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    certificate = connection.getpeercert(binary_form=True)
    return hashlib.sha256(certificate).hexdigest() if certificate else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestorTls:
    """How we call a peer by TLS; its certificate and its name are always checked.

    Raises:
        TlsFileError: A certificate without its key, or the reverse.
    """

    ca_file: Path | None = None
    """The authorities of the peer's certificate, PEM; None: those of the system."""
    certificate_file: Path | None = None
    """Ours, PEM; None: we show none."""
    key_file: Path | None = None
    server_name: str | None = None
    """The name in the peer's certificate; None: the host that is called."""

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise TlsFileError("certificate_file and key_file go together; set both or neither")

    def context(self) -> RequestorContext:
        """Read the files, anew for each connection.

        Raises:
            TlsFileError: One is missing, unreadable, or not what it should be.
        """
        context = RequestorContext(ssl.PROTOCOL_TLS_CLIENT)
        _harden(context)
        if self.ca_file is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            _load_authorities(context, self.ca_file)
        if self.certificate_file is not None and self.key_file is not None:
            _load_identity(context, self.certificate_file, self.key_file)
        return context


class _RequestorSocket(ssl.SSLSocket):
    """Tells its context what went wrong: pynetdicom tells nobody.

    With TLS 1.3 the peer judges our certificate after the handshake has ended for us, so its word
    may come with the first bytes read.
    """

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  the library's
        """See ``ssl.SSLSocket.do_handshake``."""
        try:
            super().do_handshake(block)
        except OSError as error:
            self._note(error)
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """See ``ssl.SSLSocket.recv``."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            self._note(error)
            raise

    def _note(self, error: OSError) -> None:
        cast("RequestorContext", self.context).fault = fault_of(error)


class RequestorContext(ssl.SSLContext):
    """The context of one connection to a peer."""

    sslsocket_class = _RequestorSocket
    fault: HandshakeFault | None = None
    """Why there is no connection, once there is none."""


def fault_of(error: Exception) -> HandshakeFault:
    """Say what is wrong by the library's codes; its texts may name what a peer sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_FAULTS.get(error.verify_code, HandshakeFault.UNTRUSTED_CERTIFICATE)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return HandshakeFault.CLOSED
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or ""
        if "_ALERT_" in reason:
            return HandshakeFault.REFUSED_BY_PEER
        return _REASON_FAULTS.get(reason, HandshakeFault.OTHER)
    if isinstance(error, TimeoutError):
        return HandshakeFault.SILENT
    return HandshakeFault.CLOSED


# Codes of X509_verify_cert; the others mean that no trusted authority stands behind it.
_VERIFY_FAULTS = {
    9: HandshakeFault.NOT_YET_VALID,
    10: HandshakeFault.EXPIRED,
    26: HandshakeFault.WRONG_PURPOSE,
    62: HandshakeFault.WRONG_NAME,
    64: HandshakeFault.WRONG_NAME,
}
# Reasons of OpenSSL 3.
_REASON_FAULTS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": HandshakeFault.NO_CERTIFICATE,
    "UNSUPPORTED_PROTOCOL": HandshakeFault.OLD_VERSION,
    "NO_SHARED_CIPHER": HandshakeFault.NO_SHARED_SUITE,
    "NO_SHARED_SIGNATURE_ALGORITHMS": HandshakeFault.NO_SHARED_SUITE,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": HandshakeFault.NO_SHARED_SUITE,
    "WRONG_VERSION_NUMBER": HandshakeFault.NO_TLS,
    "WRONG_SSL_VERSION": HandshakeFault.NO_TLS,
    "HTTP_REQUEST": HandshakeFault.NO_TLS,
    "RECORD_LAYER_FAILURE": HandshakeFault.NO_TLS,
    "UNEXPECTED_EOF_WHILE_READING": HandshakeFault.CLOSED,
}


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join((*TLS_1_2_SUITES, _SECURITY_LEVEL)))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET


def _load_identity(context: ssl.SSLContext, certificate_file: Path, key_file: Path) -> None:
    _check_readable(certificate_file)
    _check_readable(key_file)
    try:
        # A pass phrase would be asked for on the terminal, and the node would stand still.
        context.load_cert_chain(certificate_file, key_file, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFileError(
                f"{key_file} is not the key of {certificate_file}; put the two together"
            ) from error
        raise TlsFileError(
            f"{certificate_file} with {key_file} cannot be used ({error.reason or 'no reason'}); "
            "both have to be PEM files, the key without a pass phrase, RSA from 2048 bits or ECDSA"
        ) from error


def _load_authorities(context: ssl.SSLContext, ca_file: Path) -> None:
    _check_readable(ca_file)
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError as error:
        raise TlsFileError(
            f"{ca_file} holds no certificate; it has to be a PEM file of authorities"
        ) from error


def _check_readable(path: Path) -> None:
    """The library does not say which of its files it could not open."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise TlsFileError(
            f"{path} cannot be read: {error.strerror}; put it there, or give the user that runs "
            "the device the right to read it"
        ) from error


def _state_of(path: Path) -> FileState:
    try:
        found = os.stat(path)  # noqa: PTH116  follows links: what they lead to may change
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

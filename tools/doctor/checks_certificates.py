"""The node's certificate for TLS, its key, and the authorities whose certificates callers show.

What it finds out about the certificate it learns from a TLS handshake with itself, in memory: that
is how a scanner meets it, and the standard library tells nothing of a file otherwise.
"""

from __future__ import annotations

import ssl
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import TlsFileError
from edge_runtime.app.node import server_certificates
from edge_runtime.config.node_settings import NodeTlsSettings
from tools.doctor.findings import Context, Finding, failed, fine, warning, worst

EXPIRES_SOON_DAYS = 30
_DAY_S = 86_400
_NAME = "doctor"  # nobody checks it
# Codes of X509_verify_cert.
_NOT_YET_VALID, _EXPIRED, _WRONG_PURPOSE = 9, 10, 26


def check_node_certificates(context: Context) -> Finding:
    """Can the node show its certificate, and for how long?"""
    tls = context.settings.node.tls
    if tls is None:
        return fine("none is used: the node speaks clear text only (node.tls)")
    try:
        server = server_certificates(tls).context()
    except TlsFileError as error:
        return failed(
            f"the node cannot use its files for TLS; one that runs goes on with what it had: "
            f"{error}",
            "correct node.tls.certificate_file, node.tls.key_file and node.tls.ca_file, or what "
            "lies there",
        )
    return worst([_judge_certificate(server, tls), *_judge_authorities(tls), _judge_key(tls)])


def _judge_certificate(server: ssl.SSLContext, tls: NodeTlsSettings) -> Finding:
    file = tls.certificate_file
    try:
        ends = _shake_hands(server, file)
    except ssl.SSLCertVerificationError as error:
        return _judge_refusal(error, file)
    except ssl.SSLError as error:
        return failed(
            f"no TLS connection comes about with {file} ({error.reason})",
            "have a certificate made with an RSA key from 2048 bits on, or an ECDSA key",
        )
    return judge_end(
        _days_until(ends),
        f"the node's certificate {file}",
        "put the renewed certificate and its key into node.tls.certificate_file and "
        "node.tls.key_file; the node takes them at the next call",
    )


def _judge_refusal(error: ssl.SSLCertVerificationError, file: Path) -> Finding:
    renew = (
        "put a renewed certificate and its key into node.tls.certificate_file and "
        "node.tls.key_file; if it is new, set the device's clock"
    )
    if error.verify_code == _EXPIRED:
        return failed(f"the node's certificate {file} has expired: scanners refuse it", renew)
    if error.verify_code == _NOT_YET_VALID:
        return failed(f"the node's certificate {file} is not valid yet", renew)
    if error.verify_code == _WRONG_PURPOSE:
        return failed(
            f"the node's certificate {file} is not for servers: scanners refuse it",
            "have one made for server and client authentication (extended key usage)",
        )
    return failed(
        f"the node's certificate {file} is not accepted: {error.verify_message}",
        "have a new one made",
    )


@dataclass(frozen=True, slots=True)
class _Wire:
    """Two ends that hand each other what they have to say."""

    to_server: ssl.MemoryBIO
    to_client: ssl.MemoryBIO


def _shake_hands(server: ssl.SSLContext, certificate_file: Path) -> str:
    """Return the end of the certificate's validity, as OpenSSL writes it.

    Raises:
        ssl.SSLError: a scanner that trusts exactly this certificate would not take it.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cafile=certificate_file)
    server.verify_mode = ssl.CERT_NONE
    wire = _Wire(ssl.MemoryBIO(), ssl.MemoryBIO())
    caller = client.wrap_bio(wire.to_client, wire.to_server)
    node = server.wrap_bio(wire.to_server, wire.to_client, server_side=True)
    while not (_advance(caller) & _advance(node)):
        pass
    return str((caller.getpeercert() or {})["notAfter"])


def _advance(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _judge_authorities(tls: NodeTlsSettings) -> list[Finding]:
    if tls.ca_file is None:
        return []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(cafile=tls.ca_file)
    authorities = context.get_ca_certs()
    if not authorities:
        return [
            failed(
                f"{tls.ca_file} holds certificates, but none of an authority: every caller is "
                "refused",
                "put the certificates of the authorities that sign for scanners into "
                "node.tls.ca_file",
            )
        ]
    return [
        judge_end(
            min(_days_until(str(each["notAfter"])) for each in authorities),
            f"a certificate in {tls.ca_file}",
            "put the authority's new certificate into node.tls.ca_file; callers that it signed "
            "for are refused otherwise",
        )
    ]


def _judge_key(tls: NodeTlsSettings) -> Finding:
    mode = tls.key_file.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warning(
            f"other users may read or change the key {tls.key_file} (mode {mode & 0o777:03o})",
            f"`chmod 600 {tls.key_file}`, owned by the user that runs the device",
        )
    return fine("the key is the device's alone")


def judge_end(days_left: float, what: str, remedy: str) -> Finding:
    """Judge how long a certificate is still valid."""
    if days_left <= 0:
        return failed(f"{what} has expired", f"{remedy}; if it is new, set the device's clock")
    if days_left <= EXPIRES_SOON_DAYS:
        return warning(f"{what} expires in {days_left:.0f} days", remedy)
    return fine(f"{what} is valid for {days_left:.0f} more days")


def _days_until(moment: str) -> float:
    return (ssl.cert_time_to_seconds(moment) - time.time()) / _DAY_S

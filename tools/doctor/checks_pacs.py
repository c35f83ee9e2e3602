"""The PACS that the device calls: C-ECHO, and whether it takes what we send."""

from __future__ import annotations

import contextlib

from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from dicom_node.errors import (
    AssociationLostError,
    AssociationRejectedError,
    ContextRejectedError,
    DicomNodeError,
    HandshakeError,
    HandshakeFault,
    PeerUnreachableError,
    TlsFileError,
)
from dicom_node.requestor import VERIFICATION_PAIR, Connection, ContextPair
from edge_runtime.app.courier import peer_address
from edge_runtime.config.peers import PeerSettings
from edge_runtime.config.settings import Settings
from tools.doctor.checks_ports import ECHO_TIMEOUTS
from tools.doctor.findings import Context, Finding, failed, fine

_REPORT_PAIR: ContextPair = (str(Comprehensive3DSRStorage), str(ExplicitVRLittleEndian))


def check_report_pacs(context: Context) -> Finding:
    """Does the PACS answer, and does it take structured reports?"""
    peer = context.settings.outputs.structured_report.peer
    if peer is None:
        return fine("not set (outputs.structured_report.peer): no reports are sent")
    return _echo(peer, "outputs.structured_report.peer", context.settings, (_REPORT_PAIR,))


def check_forward_pacs(context: Context) -> Finding:
    """Does the PACS answer to which studies are forwarded?"""
    peer = context.settings.outputs.forward.peer
    if peer is None:
        return fine("not set (outputs.forward.peer): studies are not forwarded")
    return _echo(peer, "outputs.forward.peer", context.settings, ())


def _echo(
    peer: PeerSettings, key: str, settings: Settings, wanted: tuple[ContextPair, ...]
) -> Finding:
    where = f"{peer.ae_title} at {peer.host} port {peer.port}"
    try:
        with contextlib.closing(
            Connection(
                peer_address(peer, settings.node.tls),
                calling_ae_title=settings.node.ae_title,
                pairs=[VERIFICATION_PAIR, *wanted],
                timeouts=ECHO_TIMEOUTS,
            )
        ) as connection:
            if any(pair not in connection.accepted for pair in wanted):
                return failed(
                    f"{where} answers, but does not take Comprehensive 3D structured reports",
                    f"have the PACS accept the SOP class {Comprehensive3DSRStorage} in explicit VR "
                    f"little endian from {settings.node.ae_title}, or set another {key}",
                )
            if VERIFICATION_PAIR in connection.accepted:
                connection.echo()
    except DicomNodeError as error:
        return _no_echo(error, where, key, settings)
    return fine(f"{where} answers")


def _no_echo(error: DicomNodeError, where: str, key: str, settings: Settings) -> Finding:
    ours = settings.node.ae_title
    if isinstance(error, AssociationRejectedError):
        return failed(
            f"{where} is there, but rejects the association: {error.reason}",
            _rejection_remedy(error, key, ours),
        )
    if isinstance(error, ContextRejectedError):
        return failed(
            f"{where} is there, but accepts none of the SOP classes that we need",
            f"have it accept C-ECHO and storage from {ours}, or set another {key}",
        )
    if isinstance(error, (HandshakeError, TlsFileError)):
        return _no_tls(error, where, key)
    if isinstance(error, AssociationLostError):
        return failed(
            f"{where} is there, but gives no answer to C-ECHO",
            f"look into the log of the PACS, and whether {key} is the port of its DICOM service",
        )
    if isinstance(error, PeerUnreachableError):
        return failed(
            f"{where} does not answer: results wait on this device",
            f"start the PACS; check {key}.host and {key}.port, and that no firewall lies between "
            f"(`echoscu -aet {ours} HOST PORT` asks the same)",
        )
    return failed(f"{where}: {error}", f"check {key}")


def _no_tls(error: HandshakeError | TlsFileError, where: str, key: str) -> Finding:
    if isinstance(error, TlsFileError):
        return failed(
            f"{where} was not called: the device's own certificates cannot be used", str(error)
        )
    return failed(
        f"{where} is there, but there is no TLS connection with it", _tls_remedy(error, key)
    )


def _tls_remedy(error: HandshakeError, key: str) -> str:
    if error.fault is HandshakeFault.NO_TLS:
        return f"set {key}.port to the TLS port of the PACS, or {key}.tls = false"
    if error.fault is HandshakeFault.UNTRUSTED_CERTIFICATE:
        return f"set {key}.ca_file to the authority of its certificate"
    if error.fault is HandshakeFault.WRONG_NAME:
        return f"set {key}.host to a name that stands in its certificate, or {key}.tls_name to one"
    if error.fault is HandshakeFault.REFUSED_BY_PEER:
        return (
            "have the PACS trust the authority of this device's certificate "
            "(node.tls.certificate_file); its log says what it minds"
        )
    return str(error.fault.value)


def _rejection_remedy(error: AssociationRejectedError, key: str, ours: str) -> str:
    reason = error.reason.lower()
    if "called" in reason:
        return f"set {key}.ae_title to the PACS's own title; upper and lower case count"
    if "calling" in reason:
        return (
            f"have the PACS's administrator enter this device: AE title {ours} (node.ae_title) "
            "and its address"
        )
    if error.transient:
        return "the PACS is busy: try again later, or have it accept more associations"
    return (
        f"compare {key}.ae_title with the PACS's own title, and have its administrator enter "
        f"{ours} (node.ae_title)"
    )

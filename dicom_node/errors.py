"""Errors of the DICOM side, grouped by who is at fault.

No error carries a value of a data set: texts can be logged.
"""

from __future__ import annotations

from enum import Enum


class DicomNodeError(Exception):
    """Base of everything that this package raises on purpose."""


# ---------------------------------------------------------------- the peer is at fault


class PeerError(DicomNodeError):
    """A peer sent something bad, refused, or does not answer."""


class DataSetError(PeerError):
    """A data set cannot be taken as it is."""


class DataSetUnreadableError(DataSetError):
    """The bytes are no data set, or lack an attribute that identifies the instance."""


class DataSetMismatchError(DataSetError):
    """The data set is not the instance that the C-STORE command announced."""


class SopClassNotNegotiatedError(DataSetError):
    """The C-STORE came on a presentation context of another SOP class (PS3.7 9.1.1.1.9)."""


class InstanceTooLargeError(DataSetError):
    """The data set is larger than the node accepts; raise ``max_instance_bytes`` if it is real."""


class NotADicomFileError(DataSetError):
    """The file is not in the DICOM File Format (PS3.10 7.1); nothing says how to read it."""


class ProtocolViolationError(PeerError):
    """The peer does what PS3.7 or PS3.8 forbid; the association ends."""


class MultipartError(PeerError):
    """The body of a request is no multipart message (RFC 2046 5.1), or is beyond its bounds."""


class TooManyPartsError(MultipartError):
    """One request carries more instances than the node takes; send the study in several."""


class NotAuthorisedError(PeerError):
    """The peer may call the node but may not store; see the node's list of peers."""


class QuotaReachedError(PeerError):
    """The node holds as many bytes of this peer as it may; older studies have to leave first."""


class BadRequestError(PeerError):
    """A request of DIMSE-N cannot be served; the peer is told why.

    Attributes:
        status: What it is answered with (PS3.7 Annex C).
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"the request is answered with status 0x{status:04X}")
        self.status = status


class PeerUnreachableError(PeerError):
    """No association came about: wrong host or port, peer down, or a firewall between."""


class HandshakeFault(Enum):
    """Why there is no TLS connection, and what to do about it."""

    NO_TLS = "it does not speak TLS on this port: compare the ports on both sides"
    OLD_VERSION = "it speaks no TLS 1.2 or later: update it, or allow it clear text"
    NO_SHARED_SUITE = "no cipher suite of BCP 195 fits both: turn on ECDHE with AES-GCM there"
    NO_CERTIFICATE = "it shows no certificate: give it one"
    UNTRUSTED_CERTIFICATE = "no authority in ca_file stands behind its certificate: add that one"
    EXPIRED = "its certificate has expired: renew it, and check the clocks on both sides"
    NOT_YET_VALID = "its certificate is not valid yet: check the clocks on both sides"
    WRONG_PURPOSE = "its certificate is for another purpose: have one made for client and server"
    WRONG_NAME = "its certificate is for another name: correct the host, or set tls_name"
    REFUSED_BY_PEER = "it refuses our certificate or our TLS: its log says why"
    SILENT = "it did not finish the handshake in time: look at the network, and at its load"
    CLOSED = "it closed the connection: its log says why"
    OTHER = "TLS failed for a reason that has no name: compare the TLS settings on both sides"


class HandshakeError(PeerUnreachableError):
    """A TLS connection did not come about.

    Attributes:
        fault: Why.
    """

    def __init__(self, fault: HandshakeFault) -> None:
        super().__init__(f"no TLS connection with the peer: {fault.value}")
        self.fault = fault


class AssociationLostError(PeerUnreachableError):
    """The peer aborted, or the connection broke, before the answer came."""


class AssociationRejectedError(PeerError):
    """The peer refused the association.

    Attributes:
        reason: The peer's reason in words (PS3.8 9.3.4).
        transient: The peer says that trying again later can help.
    """

    def __init__(self, reason: str, *, transient: bool) -> None:
        remedy = "try again later" if transient else "compare AE titles and addresses on both sides"
        super().__init__(f"association rejected: {reason}; {remedy}")
        self.reason = reason
        self.transient = transient


class ContextRejectedError(PeerError):
    """The peer accepts neither the SOP class in its transfer syntax nor a native one instead."""


class StoreRefusedError(PeerError):
    """The peer answered a C-STORE with a failure.

    Attributes:
        status: The peer's status, for example 0xA700 (PS3.4 B.2.3).
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"the peer refused the instance with status 0x{status:04X}")
        self.status = status


class RequestRefusedError(PeerError):
    """The peer answered a request of DIMSE-N with a failure.

    Attributes:
        status: The peer's status, for example 0x0110 (PS3.7 Annex C).
        error_id: The peer's (0000,0903), if it sent one.
    """

    def __init__(self, status: int, error_id: int | None = None) -> None:
        super().__init__(f"the peer refused the request with status 0x{status:04X}")
        self.status = status
        self.error_id = error_id


# ---------------------------------------------------------------- our device is at fault


class DeviceError(DicomNodeError):
    """This device failed; the peer should keep its data and try again."""


class SpoolFullError(DeviceError):
    """The spool's file system has no room left above the reserve; free space or lower it."""


class SpoolFailedError(DeviceError):
    """The spool's file system failed; see the system's log for the disk."""


class NodeStartError(DeviceError):
    """The node cannot listen; another program has the port, or the address is not ours."""


class CoercionNotAllowedError(NodeStartError):
    """The settings coerce what must stay as the sender wrote it, or to what cannot be written."""


class TlsFileError(DeviceError):
    """Certificates or keys of this device cannot be used; the text names the file."""

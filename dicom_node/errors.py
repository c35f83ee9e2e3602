"""Errors of the DICOM side, grouped by who is at fault.

No error carries a value of a data set: texts can be logged.
"""

from __future__ import annotations


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


class NotAuthorisedError(PeerError):
    """The peer may call the node but may not store; see the node's list of peers."""


class PeerUnreachableError(PeerError):
    """No association came about: wrong host or port, peer down, or a firewall between."""


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


# ---------------------------------------------------------------- our device is at fault


class DeviceError(DicomNodeError):
    """This device failed; the peer should keep its data and try again."""


class SpoolFullError(DeviceError):
    """The spool's file system has no room left above the reserve; free space or lower it."""


class SpoolFailedError(DeviceError):
    """The spool's file system failed; see the system's log for the disk."""


class NodeStartError(DeviceError):
    """The node cannot listen; another program has the port, or the address is not ours."""

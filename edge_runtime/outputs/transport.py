"""What a refusal by a DICOM peer means: a stable code, and whether trying again can help."""

from __future__ import annotations

from enum import Enum

from dicom_node.errors import (
    AssociationLostError,
    AssociationRejectedError,
    ContextRejectedError,
    DicomNodeError,
    HandshakeError,
    PeerUnreachableError,
    RequestRefusedError,
    StoreRefusedError,
    TlsFileError,
)
from edge_runtime.errors import DeliveryError


class DeliveryCode(str, Enum):
    """Stable codes of ``DeliveryError``: stored, shown to people and sent in telemetry."""

    PEER_UNREACHABLE = "PEER_UNREACHABLE"
    ASSOCIATION_LOST = "ASSOCIATION_LOST"
    TLS_FAILED = "TLS_FAILED"
    ASSOCIATION_REJECTED = "ASSOCIATION_REJECTED"
    CONTEXT_REJECTED = "CONTEXT_REJECTED"
    STORE_REFUSED_RESOURCES = "STORE_REFUSED_RESOURCES"
    STORE_REFUSED = "STORE_REFUSED"
    FILE_LOST = "FILE_LOST"
    FILE_UNREADABLE = "FILE_UNREADABLE"
    DATA_SET_INVALID = "DATA_SET_INVALID"
    MODEL_PACKAGE_MISSING = "MODEL_PACKAGE_MISSING"
    INTERRUPTED = "INTERRUPTED"
    REQUEST_REFUSED_RESOURCES = "REQUEST_REFUSED_RESOURCES"
    REQUEST_REFUSED = "REQUEST_REFUSED"


_PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.14: says nothing about the object
_RESOURCE_LIMITATION = 0x0213  # PS3.7 C.5.25
_OUT_OF_RESOURCES = 0xA7  # PS3.4 B.2.3: 0xA7xx


def delivery_error(error: DicomNodeError | OSError) -> DeliveryError:
    """Translate an error of ``dicom_node`` or of the disk; raise the result ``from`` it.

    A refused association is no reason to give up: the PACS may be starting, or someone may be
    about to enter our AE title. A peer that understood the object and refuses it stays with that.
    """
    if isinstance(error, OSError):
        return _file_error(error)
    if isinstance(error, StoreRefusedError):
        return _refused(error.status)
    if isinstance(error, RequestRefusedError):
        return _request_refused(error)
    for kind, code in _RETRYABLE:
        if isinstance(error, kind):
            return _error(str(error), code)
    if isinstance(error, ContextRejectedError):
        return _error(
            f"{error}; add the class and syntax to what the peer accepts, then send again",
            DeliveryCode.CONTEXT_REJECTED,
            permanent=True,
        )
    return _error(str(error), DeliveryCode.DATA_SET_INVALID, permanent=True)


# The first that fits: a lost association, or none by TLS, is a kind of unreachable peer.
_RETRYABLE: tuple[tuple[type[DicomNodeError], DeliveryCode], ...] = (
    (AssociationRejectedError, DeliveryCode.ASSOCIATION_REJECTED),
    (AssociationLostError, DeliveryCode.ASSOCIATION_LOST),
    (HandshakeError, DeliveryCode.TLS_FAILED),
    (TlsFileError, DeliveryCode.TLS_FAILED),
    (PeerUnreachableError, DeliveryCode.PEER_UNREACHABLE),
)


def _refused(status: int) -> DeliveryError:
    text = f"the peer refused the object with status 0x{status:04X}"
    if status >> 8 == _OUT_OF_RESOURCES or status == _PROCESSING_FAILURE:
        return _error(f"{text}; it may be full or overloaded", DeliveryCode.STORE_REFUSED_RESOURCES)
    return _error(
        f"{text}; its log says why, and then the delivery can be sent again",
        DeliveryCode.STORE_REFUSED,
        permanent=True,
    )


def _request_refused(error: RequestRefusedError) -> DeliveryError:
    if error.status in (_PROCESSING_FAILURE, _RESOURCE_LIMITATION):
        return _error(f"{error}; it may be overloaded", DeliveryCode.REQUEST_REFUSED_RESOURCES)
    return _error(
        f"{error}; its log says why, and then it can be sent again",
        DeliveryCode.REQUEST_REFUSED,
        permanent=True,
    )


def _file_error(error: OSError) -> DeliveryError:
    if isinstance(error, FileNotFoundError):
        return _error(
            "a file of the study is no longer in the spool", DeliveryCode.FILE_LOST, permanent=True
        )
    # Not the text of the error: it names the path.
    return _error(
        "a file of the study cannot be read; check the disk", DeliveryCode.FILE_UNREADABLE
    )


def _error(message: str, code: DeliveryCode, *, permanent: bool = False) -> DeliveryError:
    return DeliveryError(message, code=code.value, permanent=permanent)

from __future__ import annotations

import errno

import pytest

from dicom_node.errors import (
    AssociationLostError,
    AssociationRejectedError,
    ContextRejectedError,
    DataSetUnreadableError,
    DicomNodeError,
    HandshakeError,
    HandshakeFault,
    NotADicomFileError,
    PeerUnreachableError,
    RequestRefusedError,
    StoreRefusedError,
    TlsFileError,
)
from edge_runtime.outputs.transport import DeliveryCode, delivery_error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PeerUnreachableError("down"), DeliveryCode.PEER_UNREACHABLE),
        (AssociationLostError("gone"), DeliveryCode.ASSOCIATION_LOST),
        (HandshakeError(HandshakeFault.EXPIRED), DeliveryCode.TLS_FAILED),
        (TlsFileError("no key"), DeliveryCode.TLS_FAILED),
        (AssociationRejectedError("no", transient=True), DeliveryCode.ASSOCIATION_REJECTED),
        (AssociationRejectedError("no", transient=False), DeliveryCode.ASSOCIATION_REJECTED),
        (StoreRefusedError(0xA700), DeliveryCode.STORE_REFUSED_RESOURCES),
        (StoreRefusedError(0xA7FF), DeliveryCode.STORE_REFUSED_RESOURCES),
        (StoreRefusedError(0x0110), DeliveryCode.STORE_REFUSED_RESOURCES),
        (RequestRefusedError(0x0110), DeliveryCode.REQUEST_REFUSED_RESOURCES),
        (RequestRefusedError(0x0213), DeliveryCode.REQUEST_REFUSED_RESOURCES),
        (OSError(errno.EIO, "disk"), DeliveryCode.FILE_UNREADABLE),
    ],
)
def test_what_may_pass_is_tried_again(error: DicomNodeError | OSError, code: DeliveryCode) -> None:
    translated = delivery_error(error)
    assert (translated.code, translated.permanent) == (code.value, False)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ContextRejectedError("no"), DeliveryCode.CONTEXT_REJECTED),
        (StoreRefusedError(0xA900), DeliveryCode.STORE_REFUSED),
        (StoreRefusedError(0xC000), DeliveryCode.STORE_REFUSED),
        (StoreRefusedError(0x0124), DeliveryCode.STORE_REFUSED),
        (RequestRefusedError(0x0112), DeliveryCode.REQUEST_REFUSED),
        (DataSetUnreadableError("odd"), DeliveryCode.DATA_SET_INVALID),
        (NotADicomFileError("odd"), DeliveryCode.DATA_SET_INVALID),
        (FileNotFoundError(errno.ENOENT, "gone"), DeliveryCode.FILE_LOST),
    ],
)
def test_what_will_not_pass_ends_the_retries(
    error: DicomNodeError | OSError, code: DeliveryCode
) -> None:
    translated = delivery_error(error)
    assert (translated.code, translated.permanent) == (code.value, True)


def test_the_text_of_a_file_error_names_no_path() -> None:
    error = PermissionError(errno.EACCES, "denied", "canary/path")
    assert "canary" not in str(delivery_error(error))


def test_codes_are_their_own_names_so_that_they_stay_stable() -> None:
    assert all(code.value == code.name for code in DeliveryCode)

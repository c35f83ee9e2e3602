"""What the node accepts and answers, from the tables of ``dicom_node``.

Each table of words is keyed by the enum that it explains, so a status or a fault without words
breaks the generator instead of missing from the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.uid import UID

from dicom_node import commitment, mpps
from dicom_node.admission import RefusalReason, Refused, Rejection
from dicom_node.coercion import EMPTIABLE, SETTABLE
from dicom_node.contexts import (
    NORMALIZED_CLASSES,
    RETIRED_STORAGE_CLASSES,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    VERIFICATION_CLASS,
    supported_contexts,
)
from dicom_node.errors import DicomNodeError, HandshakeFault
from dicom_node.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.headers import _Tag as HeaderTag
from dicom_node.normalized import NormalizedStatus
from dicom_node.reception import _STATUS_OF as STATUS_OF
from dicom_node.scp import NodeSettings
from dicom_node.status import StoreStatus
from dicom_node.stow_response import FailureReason
from dicom_node.tls import TLS_1_2_SUITES
from tools.conformance.markdown import code, table

# Younger than the dictionary of pydicom.
_NAMES = {
    "1.2.840.10008.5.1.4.1.1.9.100.1": "Waveform Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.2": "Waveform Acquisition Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}


def _name(uid: UID) -> str:
    return _NAMES.get(uid, uid.name)


def identification() -> str:
    """What the A-ASSOCIATE-AC says of us, and the stored files too."""
    return table(
        ("Implementation Class UID", "Implementation Version Name"),
        [(code(IMPLEMENTATION_CLASS_UID), code(IMPLEMENTATION_VERSION_NAME))],
    )


def storage_classes() -> str:
    """Every storage class."""
    retired = set(RETIRED_STORAGE_CLASSES)
    return table(
        ("SOP Class", "UID", ""),
        (
            (_name(each), code(each), "retired" if each in retired else "")
            for each in STORAGE_CLASSES
        ),
    )


def transfer_syntaxes() -> str:
    """For storage, in our order."""
    return table(
        ("", "Transfer Syntax", "UID"),
        ((str(n), _name(each), code(each)) for n, each in enumerate(TRANSFER_SYNTAXES, start=1)),
    )


def service_contexts() -> str:
    """What is not storage, with its own transfer syntaxes."""
    services = {VERIFICATION_CLASS, *NORMALIZED_CLASSES}
    return table(
        ("SOP Class", "UID", "Transfer Syntaxes, in our order"),
        (
            (
                _name(UID(str(each.abstract_syntax))),
                code(str(each.abstract_syntax)),
                ", ".join(_name(syntax) for syntax in each.transfer_syntax),
            )
            for each in supported_contexts()
            if each.abstract_syntax in services
        ),
    )


_STORE_MEANINGS: Mapping[StoreStatus, tuple[str, str]] = {
    StoreStatus.SUCCESS: (
        "Success",
        "File and index row are durable: both survive a power failure from this answer on.",
    ),
    StoreStatus.SOP_CLASS_NOT_SUPPORTED: (
        "Refused: SOP Class not supported",
        "The Affected SOP Class UID is not the abstract syntax of the presentation context.",
    ),
    StoreStatus.NOT_AUTHORISED: (
        "Refused: Not authorized",
        "The caller is listed for verification only (`may_store = false`).",
    ),
    StoreStatus.OUT_OF_RESOURCES: (
        "Refused: Out of Resources",
        (
            "The disk has reached its reserve, or failed, or the index cannot be written; the "
            "caller's quota is used up; the instance is larger than `max_instance_bytes`. The "
            "association stays, and stores succeed again as soon as there is room."
        ),
    ),
    StoreStatus.DATA_SET_MISMATCH: (
        "Error: Data Set does not match SOP Class",
        (
            "SOP Class or SOP Instance UID of the data set differ from those of the command, or "
            "(by STOW-RS) its Study Instance UID from that of the path."
        ),
    ),
    StoreStatus.COERCED: (
        "Warning: Coercion of Data Elements",
        "Stored, as durably as with Success, after at least one attribute was coerced.",
    ),
    StoreStatus.CANNOT_UNDERSTAND: (
        "Error: Cannot understand",
        (
            "The command names no valid UIDs or comes without a data set; the data set cannot be "
            "parsed, lacks a valid Study, Series, SOP Instance or SOP Class UID, or cannot be "
            "coerced as the settings ask."
        ),
    ),
}


def store_statuses() -> str:
    """C-STORE: every status, and what leads to it."""
    causes: dict[StoreStatus, list[str]] = {}
    for error, status in STATUS_OF.items():
        causes.setdefault(status, []).append(_label(error))
    rows = []
    for status in StoreStatus:
        meaning, when = _STORE_MEANINGS[status]
        rows.append((code(f"{status:04X}"), meaning, when, ", ".join(causes.get(status, []))))
    return table(("Status", "Meaning", "When", "In the log"), rows)


def _label(error: type[DicomNodeError]) -> str:
    return code(error.__name__)


_REJECTION_CASES: Mapping[Rejection, str] = {
    Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED: "Another application context than DICOM's.",
    Rejection.CALLING_AE_NOT_RECOGNISED: "",
    Rejection.CALLED_AE_NOT_RECOGNISED: "",
    Rejection.LOCAL_LIMIT_EXCEEDED: "`max_associations` are open; trying again later helps.",
}
_REFUSALS: Mapping[RefusalReason, str] = {
    RefusalReason.CALLED_AE_TITLE: "The Called AE Title is not ours (`require_called_ae_title`).",
    RefusalReason.CALLING_AE_TITLE: "The Calling AE Title is not listed.",
    RefusalReason.ADDRESS: "The title is listed, but not for the address that it calls from.",
    RefusalReason.CLEAR_TEXT: "The node has a certificate, and this caller must use TLS.",
    RefusalReason.CERTIFICATE: "The title is bound to a client certificate that was not shown.",
}


def rejections() -> str:
    """A-ASSOCIATE-RJ: each with its cases."""
    rows = []
    for rejection in Rejection:
        result, source, reason = rejection.value
        cases = [
            _REFUSALS[each] for each in RefusalReason if Refused(reason=each).rejection is rejection
        ]
        text = " ".join(filter(None, [_REJECTION_CASES[rejection], *cases]))
        name = rejection.name.lower().replace("_", " ")
        rows.append((str(result), str(source), str(reason), name, text))
    return table(("Result", "Source", "Reason", "Meaning", "When"), rows)


_NORMALIZED_MEANINGS: Mapping[NormalizedStatus, str] = {
    NormalizedStatus.SUCCESS: "Success",
    NormalizedStatus.INVALID_ATTRIBUTE_VALUE: "Invalid attribute value",
    NormalizedStatus.PROCESSING_FAILURE: "Processing failure",
    NormalizedStatus.DUPLICATE_SOP_INSTANCE: "Duplicate SOP Instance",
    NormalizedStatus.NO_SUCH_SOP_INSTANCE: "No such SOP Instance",
    NormalizedStatus.INVALID_ARGUMENT_VALUE: "Invalid argument value",
    NormalizedStatus.INVALID_SOP_INSTANCE: "Invalid SOP Instance UID",
    NormalizedStatus.NO_SUCH_SOP_CLASS: "No such SOP Class",
    NormalizedStatus.MISSING_ATTRIBUTE: "Missing attribute",
    NormalizedStatus.MISSING_ATTRIBUTE_VALUE: "Missing attribute value",
    NormalizedStatus.NO_SUCH_ACTION: "No such action type",
    NormalizedStatus.NOT_AUTHORISED: "Not authorized",
    NormalizedStatus.DUPLICATE_TRANSACTION: "Duplicate transaction UID",
    NormalizedStatus.RESOURCE_LIMITATION: "Resource limitation",
}
_EVERYWHERE: Mapping[NormalizedStatus, str] = {
    NormalizedStatus.NO_SUCH_SOP_CLASS: "The request is for another class than its context.",
    NormalizedStatus.PROCESSING_FAILURE: "The device failed; its log says where.",
}
_COMMITMENT: Mapping[NormalizedStatus, str] = {
    NormalizedStatus.SUCCESS: "The request is durable; a report will follow.",
    NormalizedStatus.NO_SUCH_SOP_INSTANCE: "It is not addressed to the well-known instance.",
    NormalizedStatus.NO_SUCH_ACTION: "Another action type than 1.",
    NormalizedStatus.INVALID_ARGUMENT_VALUE: "No valid Transaction UID or no valid references, or "
    "a data set that cannot be read.",
    NormalizedStatus.NOT_AUTHORISED: "Commitment is off for this caller "
    "(`storage_commitment = false`).",
    NormalizedStatus.DUPLICATE_TRANSACTION: "The caller used this Transaction UID for other "
    "instances.",
    NormalizedStatus.RESOURCE_LIMITATION: "More references than `max_references`, or more reports "
    "owed than `max_open`.",
}
_STEPS: Mapping[NormalizedStatus, str] = {
    NormalizedStatus.SUCCESS: "The message is durable.",
    NormalizedStatus.INVALID_ATTRIBUTE_VALUE: "A state that may not be there, an invalid UID, or a "
    "data set that cannot be read.",
    NormalizedStatus.PROCESSING_FAILURE: "N-SET of a step that has ended, with Error ID "
    f"{mpps.NO_LONGER_UPDATED:04X}; or the device failed.",
    NormalizedStatus.DUPLICATE_SOP_INSTANCE: "N-CREATE of a step that exists.",
    NormalizedStatus.NO_SUCH_SOP_INSTANCE: "N-SET of a step that does not exist.",
    NormalizedStatus.INVALID_SOP_INSTANCE: "The SOP Instance UID is none.",
    NormalizedStatus.MISSING_ATTRIBUTE: "A mandatory attribute is absent.",
    NormalizedStatus.MISSING_ATTRIBUTE_VALUE: "A mandatory attribute is empty.",
    NormalizedStatus.NOT_AUTHORISED: "The caller is listed for verification only.",
    NormalizedStatus.RESOURCE_LIMITATION: "`max_steps` are kept, and none of them may go.",
}


def commitment_statuses() -> str:
    """N-ACTION."""
    return _statuses(_COMMITMENT)


def procedure_step_statuses() -> str:
    """N-CREATE and N-SET."""
    return _statuses(_STEPS)


def _statuses(cases: Mapping[NormalizedStatus, str]) -> str:
    left_out = set(NormalizedStatus) - {*_COMMITMENT, *_STEPS, *_EVERYWHERE}
    if left_out:
        raise LookupError(f"statuses without words: {left_out}")
    rows = sorted({**_EVERYWHERE, **cases}.items())
    return table(
        ("Status", "Meaning", "When"),
        ((code(f"{status:04X}"), _NORMALIZED_MEANINGS[status], when) for status, when in rows),
    )


_COMMITMENT_FAILURES: Mapping[commitment.FailureReason, str] = {
    commitment.FailureReason.PROCESSING_FAILURE: "Its row is there, but its file is not whole.",
    commitment.FailureReason.NO_SUCH_OBJECT_INSTANCE: "It is not held, also after `patience_s`.",
    commitment.FailureReason.CLASS_INSTANCE_CONFLICT: "It is held with another SOP Class.",
}


def commitment_failures() -> str:
    """Failure reasons in the N-EVENT-REPORT."""
    return table(
        ("Failure Reason (0008,1197)", "Meaning", "When"),
        (
            (code(f"{each:04X}"), _words(each.name), _COMMITMENT_FAILURES[each])
            for each in commitment.FailureReason
        ),
    )


_STOW_FAILURES: Mapping[FailureReason, str] = {
    FailureReason.PROCESSING_FAILURE: "The rest of a request that broke off.",
    FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED: "The part's transfer syntax is not in the list.",
}


def stow_failures() -> str:
    """Failure reasons beyond the statuses of C-STORE."""
    return table(
        ("Failure Reason (0008,1197)", "Meaning", "When"),
        ((code(f"{each:04X}"), _words(each.name), _STOW_FAILURES[each]) for each in FailureReason),
    )


def _words(name: str) -> str:
    return name.capitalize().replace("_", " ")


def attributes_read() -> str:
    """What is read of an instance."""
    return table(
        ("Tag", "Attribute", "VR"),
        (
            (code(f"({tag >> 16:04X},{tag & 0xFFFF:04X})"), dictionary_description(tag), _vr(tag))
            for tag in sorted(HeaderTag)
        ),
    )


def coercions() -> str:
    """What a site may have set or emptied."""
    rows = [
        (each, _tag_of(each, _tag_text), _tag_of(each, _vr), may)
        for keywords, may in ((SETTABLE, "set or emptied"), (EMPTIABLE, "emptied"))
        for each in keywords
    ]
    return table(("Attribute", "Tag", "VR", "May be"), rows)


def _tag_of(keyword: str, tell: Callable[[int], str]) -> str:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(f"no such keyword: {keyword}")
    return tell(tag)


def _tag_text(tag: int) -> str:
    return code(f"({tag >> 16:04X},{tag & 0xFFFF:04X})")


def _vr(tag: int) -> str:
    return str(dictionary_VR(tag))


def character_sets() -> str:
    """Defined Terms of (0008,0005) that are decoded."""
    return ", ".join(code(each) for each in python_encoding if each)


def tls_suites() -> str:
    """For TLS 1.2."""
    return ", ".join(map(code, TLS_1_2_SUITES))


def handshake_faults() -> str:
    """Why a TLS connection does not come about."""
    return table(
        ("In the log (`node.tls_refused`)", "What it means, and what helps"),
        ((code(each.name.lower()), each.value) for each in HandshakeFault),
    )


def count_of_classes() -> str:
    """How many storage classes there are, retired ones among them."""
    return f"{len(STORAGE_CLASSES)} ({len(RETIRED_STORAGE_CLASSES)} of them retired)"


def node_timeouts() -> str:
    """What ends a connection that does nothing; those without a key cannot be set."""
    defaults = {each.name: each.default for each in fields(NodeSettings)}
    rows = (
        (
            "From connection to A-ASSOCIATE-RQ (ARTIM), and for a TLS handshake",
            defaults["association_timeout_s"],
            "",
        ),
        ("A peer that stops in the middle of a PDU", defaults["stalled_timeout_s"], ""),
        (
            "An association on which nothing happens",
            defaults["idle_timeout_s"],
            "node.idle_timeout_s",
        ),
    )
    return table(("What", "Seconds", "Key"), ((what, f"{s:g}", code(key)) for what, s, key in rows))

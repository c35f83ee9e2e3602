"""Preamble and File Meta Information (PS3.10 7.1), written and read by hand.

Written by hand, because these are nine elements for every instance that arrives. The preamble is
always zeros: a preamble that is an executable never reaches the disk.
"""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass, field

from dicom_node.errors import NotADicomFileError

# UUID-derived (PS3.5 B.2): version 5 of the name "edge-triage" in the DNS name space.
IMPLEMENTATION_CLASS_UID = "2.25.69712578236015749168674660097428836302"
IMPLEMENTATION_VERSION_NAME = "EDGE_TRIAGE"

_PREAMBLE = bytes(128) + b"DICM"
_GROUP = 0x0002
_LONG_VRS = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR"})
_SHORT_HEADER = struct.Struct("<HH2sH")
_LONG_LENGTH = struct.Struct("<I")
# A real file meta group has some 200 bytes; private information may add to it.
MAX_META_BYTES = 64 * 1024

_SOP_CLASS, _SOP_INSTANCE, _SYNTAX, _SOURCE_AE = 0x0002, 0x0003, 0x0010, 0x0016


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """What the file says about its data set; values are "" when absent."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    transfer_syntax_uid: str
    source_ae_title: str = field(repr=False)
    data_set_offset: int
    """Bytes from the start of the file to the first element of the data set."""


def encode_file_meta(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    source_ae_title: str,
) -> bytes:
    """Everything that stands before the data set in a stored file.

    The source AE title (0002,0016) lets the start-up scan say who sent an instance.
    """
    group = b"".join(
        (
            _SHORT_HEADER.pack(_GROUP, 0x0001, b"OB", 0) + _LONG_LENGTH.pack(2) + b"\0\1",
            _element(_SOP_CLASS, b"UI", sop_class_uid),
            _element(_SOP_INSTANCE, b"UI", sop_instance_uid),
            _element(_SYNTAX, b"UI", transfer_syntax_uid),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _element(_SOURCE_AE, b"AE", source_ae_title) if source_ae_title else b"",
        )
    )
    length = _SHORT_HEADER.pack(_GROUP, 0x0000, b"UL", 4) + _LONG_LENGTH.pack(len(group))
    return _PREAMBLE + length + group


def _element(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return _SHORT_HEADER.pack(_GROUP, element, vr, len(value)) + value


def read_file_meta(descriptor: int, head: bytes = b"") -> FileMeta:
    """Read the File Meta Information of an open file; see ``parse_file_meta``.

    Args:
        descriptor: of the file.
        head: its first bytes, where they have been read; they are read again if they end too early.
    """
    with contextlib.suppress(NotADicomFileError):
        meta = parse_file_meta(head)
        if meta.data_set_offset + _SHORT_HEADER.size <= len(head):
            return meta
    return parse_file_meta(os.pread(descriptor, MAX_META_BYTES, 0))


def parse_file_meta(head: bytes) -> FileMeta:
    """Read the File Meta Information at the start of a file.

    The group length (0002,0000) is not believed: some writers get it wrong.

    Args:
        head: The first ``MAX_META_BYTES`` of the file, or all of a shorter one.

    Raises:
        NotADicomFileError: The file has no DICM prefix or a broken meta group.
    """
    if head[128:132] != b"DICM":
        raise NotADicomFileError("no DICM prefix: convert it with a tool that knows its origin")
    values, offset = _walk(head)
    return FileMeta(
        sop_class_uid=_text(values.get(_SOP_CLASS)),
        sop_instance_uid=_text(values.get(_SOP_INSTANCE)),
        transfer_syntax_uid=_text(values.get(_SYNTAX)),
        source_ae_title=_text(values.get(_SOURCE_AE)),
        data_set_offset=offset,
    )


def _walk(head: bytes) -> tuple[dict[int, bytes], int]:
    values: dict[int, bytes] = {}
    offset = len(_PREAMBLE)
    while offset + _SHORT_HEADER.size <= len(head):
        group, element, vr, length = _SHORT_HEADER.unpack_from(head, offset)
        if group != _GROUP:
            break
        start = offset + 8
        if vr in _LONG_VRS:
            if start + 4 > len(head):
                raise NotADicomFileError("the file ends inside its meta information")
            (length,) = _LONG_LENGTH.unpack_from(head, start)
            start += 4
        if start + length > len(head):
            raise NotADicomFileError("the file meta information is longer than it may be")
        values[element] = head[start : start + length]
        offset = start + length
    return values, offset


def _text(value: bytes | None) -> str:
    return (value or b"").decode("ascii", "replace").strip(" \0")

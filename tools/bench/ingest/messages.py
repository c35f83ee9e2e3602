"""The few messages that a sender needs, as bytes; pure.

The sender must cost next to nothing, because it shares the cores with the receiver. So a store is
encoded once, and sent again and again with other UIDs written over the placeholders, which have the
same length. The data of all large objects beyond their first bytes is one block, sent many times.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from dicom_node.file_meta import IMPLEMENTATION_CLASS_UID
from tools.bench.ingest.errors import ProtocolError

CONTEXT_ID = 1
"""The only presentation context that the sender proposes."""
OUR_MAX_PDU_BYTES = 16_384
"""What a receiver may send us at a time; its answers have some 100 bytes."""
LARGEST_PDU_BYTES = 131_072
"""We send no larger ones, whatever the receiver takes; so does dcmtk."""

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_PDU = struct.Struct(">BxI")
_PDV = struct.Struct(">IBB")
_ELEMENT = struct.Struct("<HHI")
_COMMAND, _LAST = 0x01, 0x02
_BLOCK_BYTES = 16 * 1024 * 1024  # one block of the repeated part; 2 GB are 128 of them

RELEASE_REQUEST = _PDU.pack(5, 4) + bytes(4)
PDU_HEADER_BYTES = _PDU.size


class PduType(int, Enum):
    """What a receiver may answer with (PS3.8 9.3)."""

    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RP = 6
    ABORT = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One object as it goes over the wire: ``first``, ``block`` so many times, ``last``."""

    first: bytes
    block: bytes
    repeats: int
    last: bytes


def encode_association_request(*, called: str, calling: str, sop_class_uid: str) -> bytes:
    """Return an A-ASSOCIATE-RQ for one SOP class in explicit little endian (PS3.8 9.3.2)."""
    context = _item(
        0x20,
        bytes([CONTEXT_ID, 0, 0, 0])
        + _item(0x30, sop_class_uid.encode())
        + _item(0x40, _EXPLICIT_LITTLE_ENDIAN.encode()),
    )
    user = _item(
        0x50,
        _item(0x51, struct.pack(">I", OUR_MAX_PDU_BYTES))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + _item(0x55, b"BENCH_INGEST"),
    )
    titles = called.ljust(16).encode() + calling.ljust(16).encode()
    body = (
        b"\x00\x01\x00\x00"
        + titles
        + bytes(32)
        + _item(0x10, _APPLICATION_CONTEXT.encode())
        + context
        + user
    )
    return _PDU.pack(1, len(body)) + body


def read_pdu_header(header: bytes) -> tuple[int, int]:
    """Return type and length of the PDU that begins with these bytes."""
    kind, length = _PDU.unpack(header)
    return kind, length


def read_acceptance(body: bytes) -> int:
    """Return the largest PDU that the receiver takes, from an A-ASSOCIATE-AC (PS3.8 9.3.3).

    Raises:
        ProtocolError: the receiver does not take our presentation context.
    """
    is_accepted = False
    max_pdu_bytes = LARGEST_PDU_BYTES
    for kind, value in _items(body[68:]):
        if kind == 0x21:  # noqa: PLR2004 - item types and results are those of PS3.8
            is_accepted = is_accepted or (value[0] == CONTEXT_ID and value[2] == 0)
        elif kind == 0x50:  # noqa: PLR2004
            asked = dict(_items(value)).get(0x51, bytes(4))
            max_pdu_bytes = int.from_bytes(asked, "big") or LARGEST_PDU_BYTES
    if not is_accepted:
        raise ProtocolError("the receiver refused the presentation context of this load")
    return min(max_pdu_bytes, LARGEST_PDU_BYTES)


def encode_store_command(*, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Return the command set of a C-STORE-RQ (PS3.7 9.3.1.1), implicit little endian."""
    elements = (
        _element(0x0002, _uid(sop_class_uid))
        + _element(0x0100, struct.pack("<H", 0x0001))
        + _element(0x0110, struct.pack("<H", 1))
        + _element(0x0700, struct.pack("<H", 0))
        + _element(0x0800, struct.pack("<H", 1))
        + _element(0x1000, _uid(sop_instance_uid))
    )
    return _element(0x0000, struct.pack("<I", len(elements))) + elements


def encode_store(
    command: bytes, head: bytes, pixel_bytes: int, noise: bytes, max_pdu_bytes: int
) -> Parts:
    """Return a C-STORE-RQ as P-DATA-TFs of the given size.

    Args:
        command: its command set.
        head: the encoded data set up to the value of Pixel Data.
        pixel_bytes: length of that value.
        noise: what the value is made of; at least one block long where it is longer than a block.
        max_pdu_bytes: as the receiver asked for.
    """
    room = max_pdu_bytes - _PDV.size
    fill = min(-len(head) % room, pixel_bytes)
    left = pixel_bytes - fill
    first = _pdus(command, room, _COMMAND, is_whole=True) + _pdus(
        head + noise[:fill], room, 0, is_whole=left == 0
    )
    block_bytes = max(_BLOCK_BYTES // room, 1) * room
    repeats = max(left - 1, 0) // block_bytes
    return Parts(
        first=first,
        block=_pdus(noise[:block_bytes], room, 0, is_whole=False) if repeats else b"",
        repeats=repeats,
        last=_pdus(noise[: left - repeats * block_bytes], room, 0, is_whole=True),
    )


def encode_plain(head: bytes, pixel_bytes: int, noise: bytes) -> Parts:
    """Return the same bytes behind their length, as the plain receiver wants them."""
    repeats = pixel_bytes // _BLOCK_BYTES
    return Parts(
        first=struct.pack("<Q", len(head) + pixel_bytes) + head,
        block=noise[:_BLOCK_BYTES] if repeats else b"",
        repeats=repeats,
        last=noise[: pixel_bytes - repeats * _BLOCK_BYTES],
    )


def noise_bytes(pixel_bytes: int) -> int:
    """Return how much noise an object with so many bytes of pixels needs."""
    return min(pixel_bytes, _BLOCK_BYTES)


def find_all(data: bytes, placeholder: bytes) -> tuple[int, ...]:
    """Return every offset at which the placeholder stands."""
    found = []
    at = data.find(placeholder)
    while at >= 0:
        found.append(at)
        at = data.find(placeholder, at + 1)
    return tuple(found)


def read_status(body: bytes) -> int | None:
    """Return the status in the last fragment of a C-STORE-RSP, or None if more fragments follow.

    Raises:
        ProtocolError: the fragment has no status.
    """
    at = 0
    while at < len(body):
        length, _context, control = _PDV.unpack_from(body, at)
        if control & _COMMAND and control & _LAST:
            return _status_of(body[at + _PDV.size : at + 4 + length])
        at += 4 + length
    return None


def _status_of(command: bytes) -> int:
    at = 0
    while at + _ELEMENT.size <= len(command):
        group, element, length = _ELEMENT.unpack_from(command, at)
        at += _ELEMENT.size
        if (group, element) == (0x0000, 0x0900):
            return int.from_bytes(command[at : at + length], "little")
        at += length
    raise ProtocolError("the receiver's answer has no status")


def _pdus(data: bytes, room: int, control: int, *, is_whole: bool) -> bytes:
    """Cut into P-DATA-TFs with one PDV each; ``is_whole`` marks the last one as the last."""
    pieces: list[bytes] = []
    for start in range(0, len(data), room):
        piece = data[start : start + room]
        is_last = is_whole and start + room >= len(data)
        pieces += (
            _PDU.pack(PduType.DATA, len(piece) + _PDV.size),
            _PDV.pack(len(piece) + 2, CONTEXT_ID, control | (_LAST if is_last else 0)),
            piece,
        )
    return b"".join(pieces)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at], data[at + 4 : at + 4 + length]
        at += 4 + length


def _element(number: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0x0000, number, len(value)) + value


def _uid(text: str) -> bytes:
    encoded = text.encode()
    return encoded + bytes(len(encoded) % 2)

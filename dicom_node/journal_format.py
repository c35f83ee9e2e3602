"""What stands in a segment of the journal; pure.

A segment is a page with its generation, then records: a page with a header, then the bytes of one
file, filled up to a whole page. Records of one segment are written at the same time by several
threads, so a crash can leave a torn one before a whole one: the reader looks at every page. It
takes a record only if the header names the segment's generation, which is drawn anew each time a
segment is used again, and if both checksums hold. No peer knows a generation, so none can write a
record into the pixels of an image.

Checksums are XXH3, 64 bits: they tell torn writes, not attackers, who cannot write here.
"""

from __future__ import annotations

import re
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

PAGE_BYTES = 4096
GENERATION_BYTES = 16
_MAGIC = b"ETJRNL1\0"
_SEGMENT = struct.Struct("<8s16sQ")
# Magic, generation, name, length of the content, its checksum, checksum of all before.
_RECORD = struct.Struct("<8s16s16sQQQ")
_SUM_BYTES = 8
_PATH = re.compile(r"([0-9a-f]{2})/([0-9a-f]{30})\.dcm", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """One file, as a segment holds it."""

    path: str
    """Relative to the spool folder."""
    content: memoryview


def record_bytes(content_bytes: int) -> int:
    """What a record of so many bytes takes in a segment."""
    return PAGE_BYTES + -(-content_bytes // PAGE_BYTES) * PAGE_BYTES


def new_generation() -> bytes:
    """One that no record has been written with."""
    return secrets.token_bytes(GENERATION_BYTES)


def encode_segment_header(generation: bytes) -> bytes:
    """The beginning of a segment's first page."""
    head = _SEGMENT.pack(_MAGIC, generation, 0)[:-_SUM_BYTES]
    return head + xxh3_64_intdigest(head).to_bytes(_SUM_BYTES, "little")


def encode_record_header(generation: bytes, path: str, content: memoryview) -> bytes:
    """The beginning of a record's first page.

    Raises:
        ValueError: ``path`` is none of the spool's.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise ValueError("not a path of the spool")
    name = bytes.fromhex(found[1] + found[2])
    content_sum = xxh3_64_intdigest(content)
    head = _RECORD.pack(_MAGIC, generation, name, len(content), content_sum, 0)[:-_SUM_BYTES]
    return head + xxh3_64_intdigest(head).to_bytes(_SUM_BYTES, "little")


def records_of(segment: memoryview) -> Iterator[Record]:
    """Every whole record of a segment, of its present generation, in the order of the bytes."""
    generation = _generation_of(segment)
    if generation is None:
        return
    position = PAGE_BYTES
    while position + PAGE_BYTES <= len(segment):
        record = _record_at(segment, position, generation)
        if record is None:
            position += PAGE_BYTES
        else:
            yield record
            position += record_bytes(len(record.content))


def _generation_of(segment: memoryview) -> bytes | None:
    head = bytes(segment[: _SEGMENT.size])
    if len(head) < _SEGMENT.size or not _is_whole(head):
        return None
    magic, generation, _ = _SEGMENT.unpack(head)
    return generation if magic == _MAGIC else None


def _record_at(segment: memoryview, position: int, generation: bytes) -> Record | None:
    if segment[position : position + len(_MAGIC)] != _MAGIC:
        return None
    head = bytes(segment[position : position + _RECORD.size])
    _, written_with, name, length, content_sum, _ = _RECORD.unpack(head)
    begin = position + PAGE_BYTES
    if written_with != generation or not _is_whole(head) or length > len(segment) - begin:
        return None
    content = segment[begin : begin + length]
    if xxh3_64_intdigest(content) != content_sum:
        return None
    digits = name.hex()
    return Record(f"{digits[:2]}/{digits[2:]}.dcm", content)


def _is_whole(head: bytes) -> bool:
    found = int.from_bytes(head[-_SUM_BYTES:], "little")
    return xxh3_64_intdigest(head[:-_SUM_BYTES]) == found

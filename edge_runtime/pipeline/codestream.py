"""The size that a compressed frame itself promises, read before any decoder believes it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# ISO/IEC 10918-1 B.1.1.3 and ISO/IEC 14495-1 C.1.1: start-of-frame markers carry the size.
# C4, C8 and CC in that range are other things (tables, reserved, arithmetic conditioning).
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
# Markers without a length field: fill bytes, TEM, RSTn, SOI, EOI.
BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xDA)})
START_OF_SCAN = 0xDA
# ISO/IEC 15444-1 A.5.1: SOC, then SIZ as the first segment.
JPEG2000_START = b"\xff\x4f\xff\x51"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodestreamSize:
    """Samples that the frame promises."""

    rows: int
    columns: int
    components: int


def jpeg_size(frame: bytes) -> CodestreamSize | None:
    """Size in a JPEG or JPEG-LS frame's start-of-frame segment; None when there is none."""
    offset = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while offset + 4 <= len(frame) and frame[offset] == 0xFF:  # noqa: PLR2004 - marker prefix
        marker = frame[offset + 1]
        if marker == 0xFF:  # noqa: PLR2004 - fill byte (B.1.1.2)
            offset += 1
        elif marker in BARE_MARKERS:
            offset += 2
        elif marker in START_OF_FRAME and offset + 10 <= len(frame):
            rows, columns, components = struct.unpack_from(">HHB", frame, offset + 5)
            return CodestreamSize(rows=rows, columns=columns, components=components)
        elif marker == START_OF_SCAN:
            return None
        else:
            offset += 2 + int.from_bytes(frame[offset + 2 : offset + 4], "big")
    return None


def jpeg2000_size(frame: bytes) -> CodestreamSize | None:
    """Size in a JPEG 2000 code stream's SIZ segment; None when it does not start with one."""
    if not frame.startswith(JPEG2000_START) or len(frame) < 42:  # noqa: PLR2004 - up to Csiz
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, 8)
    (components,) = struct.unpack_from(">H", frame, 40)
    return CodestreamSize(rows=bottom - top, columns=right - left, components=components)

"""What a correct receiver may publish of a stream of PDUs: a model of PS3.8 9.3 and Annex E.

It is a few lines long, so that it can be seen to be right. It knows nothing of commands: it says
which data sets came whole, in order and on one context, up to the first violation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum, auto

_P_DATA_TF = 4
_COMMAND, _LAST = 1, 2


class _Awaits(Enum):
    COMMAND = auto()
    REST_OF_COMMAND = auto()
    DATA_SET = auto()
    """Or another command, if this one has no data set."""
    REST_OF_DATA_SET = auto()


def whole_data_sets(stream: bytes) -> list[bytes]:
    """The data sets of the complete messages in ``stream``, which begins after an association."""
    found: list[bytes] = []
    awaits, context, data = _Awaits.COMMAND, 0, b""
    for number, control, piece in _values(stream):
        is_last = bool(control & _LAST)
        if control & _COMMAND:
            if awaits is _Awaits.REST_OF_DATA_SET or (
                awaits is _Awaits.REST_OF_COMMAND and number != context
            ):
                return found
            awaits, context = (_Awaits.DATA_SET if is_last else _Awaits.REST_OF_COMMAND), number
            data = b""
            continue
        if awaits in (_Awaits.COMMAND, _Awaits.REST_OF_COMMAND) or number != context:
            return found
        data += piece
        awaits = _Awaits.REST_OF_DATA_SET
        if is_last:
            found.append(data)
            awaits = _Awaits.COMMAND
    return found


def _values(stream: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Context, control header and bytes of each whole value, up to the first thing that is none."""
    at = 0
    while at + 6 <= len(stream):
        kind, _, length = struct.unpack_from(">BBI", stream, at)
        if kind != _P_DATA_TF:
            return
        at += 6
        end = at + length
        while at < end:
            if at + 6 > len(stream):
                return
            size, context, control = struct.unpack_from(">IBB", stream, at)
            if size < 2 or at + 4 + size > min(end, len(stream)):
                return
            yield context, control, stream[at + 6 : at + 4 + size]
            at += 4 + size

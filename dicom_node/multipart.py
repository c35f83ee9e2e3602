"""A bounded reader of multipart messages (RFC 2046 5.1) that never holds a part.

Invariants:

* What the sink is told does not depend on how the body was cut into pieces.
* Held between two pieces are at most the headers of one part, or a possible start of a delimiter.
* Preamble, epilogue, padding and headers have bounds; beyond one of them the message is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Protocol

from dicom_node.errors import MultipartError

MAX_HEADERS_BYTES = 8 * 1024
MAX_PREAMBLE_BYTES = MAX_EPILOGUE_BYTES = 64 * 1024
# RFC 2046 allows white space after a delimiter, "added by gateways".
_MAX_PADDING_BYTES = 128
_NEW_LINE = b"\r\n"
_END_OF_HEADERS = b"\r\n\r\n"
# RFC 2046 5.1.1: of these characters, the last one no space. It allows 70; Orthanc sends 73.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,199}[0-9A-Za-z'()+_,\-./:=?]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n\0]*)")
_FOLD = re.compile(rb"\r\n[ \t]+")


def is_valid_boundary(text: str) -> bool:
    """Whether ``text`` may delimit parts."""
    return _BOUNDARY.fullmatch(text) is not None


class PartSink(Protocol):
    """What the parts of a message are told to, in order."""

    def part_began(self, headers: Mapping[str, str]) -> None:
        """A part begins; names of headers are in lower case."""
        ...

    def part_data(self, data: bytes) -> None:
        """Take a piece of the part's content."""
        ...

    def part_ended(self) -> None:
        """All of the part was told."""
        ...


class _State(Enum):
    PREAMBLE = auto()
    AFTER_DELIMITER = auto()
    HEADERS = auto()
    DATA = auto()
    EPILOGUE = auto()


class MultipartReader:
    """Takes the body of one message in pieces."""

    def __init__(self, boundary: str, sink: PartSink) -> None:
        self._sink = sink
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        # The delimiter owns the line break before it; the very first one may do without.
        self._buffer = _NEW_LINE
        self._at = 0
        self._state = _State.PREAMBLE
        self._idle_bytes = 0
        """Of preamble and epilogue."""
        self._data_from = 0
        """How many bytes at ``_at`` are the line break that ended the headers."""
        self._steps: Mapping[_State, Callable[[], bool]] = {
            _State.PREAMBLE: self._skip_preamble,
            _State.AFTER_DELIMITER: self._take_delimiter_end,
            _State.HEADERS: self._take_headers,
            _State.DATA: self._take_data,
            _State.EPILOGUE: self._skip_epilogue,
        }

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            MultipartError: The message is malformed or beyond a bound.
        """
        self._buffer = self._buffer[self._at :] + data
        self._at = 0
        while self._steps[self._state]():
            pass

    def finish(self) -> None:
        """Take note that the body has ended.

        Raises:
            MultipartError: It has no closing delimiter.
        """
        if self._state is not _State.EPILOGUE:
            raise MultipartError("the body ends before its closing delimiter; send it again")

    def _skip_preamble(self) -> bool:
        found = self._buffer.find(self._delimiter, self._at)
        if found >= 0:
            self._at = found + len(self._delimiter)
            self._state = _State.AFTER_DELIMITER
            return True
        self._skip(self._undecided_from(), MAX_PREAMBLE_BYTES)
        return False

    def _skip_epilogue(self) -> bool:
        self._skip(len(self._buffer), MAX_EPILOGUE_BYTES)
        return False

    def _skip(self, to: int, bound: int) -> None:
        self._idle_bytes += to - self._at
        self._at = to
        if self._idle_bytes > bound:
            raise MultipartError("too many bytes outside of the parts; is the boundary right?")

    def _undecided_from(self) -> int:
        """Where a delimiter may have begun that is not whole yet; else the end."""
        earliest = max(self._at, len(self._buffer) - len(self._delimiter) + 1)
        found = self._buffer.find(b"\r", earliest)
        return len(self._buffer) if found < 0 else found

    def _take_delimiter_end(self) -> bool:
        """After a delimiter stands a line break, or two hyphens if it is the last."""
        rest = self._buffer[self._at : self._at + _MAX_PADDING_BYTES]
        if rest.startswith(b"--"):
            self._at += 2
            self._idle_bytes = 0
            self._state = _State.EPILOGUE
            return True
        text = rest.lstrip(b" \t")
        if text.startswith(_NEW_LINE):
            self._at += len(rest) - len(text) + len(_NEW_LINE)
            self._state = _State.HEADERS
            return True
        if len(rest) == _MAX_PADDING_BYTES or (text not in {b"", b"\r"} and rest != b"-"):
            raise MultipartError("a delimiter is followed by other text; use another boundary")
        return False

    def _take_headers(self) -> bool:
        if self._buffer.startswith(_NEW_LINE, self._at):
            end = self._at
        else:
            end = self._buffer.find(_END_OF_HEADERS, self._at)
        if end < 0 and len(self._buffer) - self._at <= MAX_HEADERS_BYTES:
            return False
        if end < 0 or end - self._at > MAX_HEADERS_BYTES:
            raise MultipartError("the headers of a part are too long; send only Content-Type")
        headers = _parse_headers(self._buffer[self._at : end])
        # The blank line may also be the delimiter's: then the part is empty (RFC 2046 5.1.1).
        self._at = end if end == self._at else end + len(_NEW_LINE)
        self._data_from = len(_NEW_LINE)
        self._state = _State.DATA
        self._sink.part_began(headers)
        return True

    def _take_data(self) -> bool:
        found = self._buffer.find(self._delimiter, self._at)
        end = self._undecided_from() if found < 0 else found
        begin = self._at + self._data_from
        if begin <= end:
            self._data_from = 0
        if begin < end:
            self._sink.part_data(self._buffer[begin:end])
        if found < 0:
            self._at = end
            return False
        self._at = found + len(self._delimiter)
        self._state = _State.AFTER_DELIMITER
        self._sink.part_ended()
        return True


def _parse_headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in _FOLD.sub(b" ", block).split(_NEW_LINE) if block else ():
        found = _HEADER.fullmatch(line)
        if found is None:
            raise MultipartError("a header of a part is malformed; send 'name: value' lines")
        name, value = (each.decode("latin-1") for each in found.groups())
        if name.lower() in headers:
            raise MultipartError("a header of a part stands there twice; send it once")
        headers[name.lower()] = value.strip()
    return headers

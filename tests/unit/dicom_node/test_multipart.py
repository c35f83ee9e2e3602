from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.errors import MultipartError
from dicom_node.multipart import (
    MAX_EPILOGUE_BYTES,
    MAX_HEADERS_BYTES,
    MAX_PREAMBLE_BYTES,
    MultipartReader,
    is_valid_boundary,
)

BOUNDARY = "b0"
Parts = list[tuple[dict[str, str], bytes]]


class Collector:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.parts: Parts = []
        self.ended = 0

    def part_began(self, headers: Mapping[str, str]) -> None:
        assert self.ended == len(self.parts)
        self.parts.append((dict(headers), b""))

    def part_data(self, data: bytes) -> None:
        assert data
        headers, so_far = self.parts[-1]
        self.parts[-1] = (headers, so_far + data)

    def part_ended(self) -> None:
        self.ended += 1
        assert self.ended == len(self.parts)


def read(*pieces: bytes) -> Parts:
    collector = Collector()
    reader = MultipartReader(BOUNDARY, collector)
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    assert collector.ended == len(collector.parts)
    return collector.parts


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({min(each, len(body)) for each in places} | {0, len(body)})
    return [body[begin:end] for begin, end in itertools.pairwise(ends)]


# Bytes of which delimiters are made stand close together.
near_delimiters = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", b"\r\n--b", b"b0", b"x", b"\0\xff"]),
    max_size=12,
).map(b"".join)


@given(
    contents=st.lists(near_delimiters.filter(lambda data: b"--b0" not in data), max_size=4),
    preamble=st.sampled_from([b"", b"\r\n", b"read this with something newer\r\n"]),
    epilogue=st.sampled_from([b"", b"\r\n", b"\r\n--b0\r\n\r\nnot a part"]),
    places=st.lists(st.integers(0, 400), max_size=20),
)
def test_what_is_told_does_not_depend_on_how_the_body_is_cut(
    contents: list[bytes], preamble: bytes, epilogue: bytes, places: list[int]
) -> None:
    parts = b"".join(b"--b0\r\nA: 1\r\n\r\n" + data + b"\r\n" for data in contents)
    body = preamble + parts + b"--b0--" + epilogue
    expected = [({"a": "1"}, data) for data in contents]
    assert read(*cut(body, places)) == expected
    assert read(*(body[at : at + 1] for at in range(len(body)))) == expected


@given(st.lists(near_delimiters, max_size=10))
def test_no_body_breaks_the_reader(pieces: list[bytes]) -> None:
    """Any bytes are read or refused, and no more than a delimiter or one part's head is held."""
    collector = Collector()
    reader = MultipartReader(BOUNDARY, collector)
    try:
        for piece in pieces:
            reader.feed(piece)
            assert len(reader._buffer) - reader._at <= MAX_HEADERS_BYTES
        reader.finish()
    except MultipartError:
        return
    assert collector.ended == len(collector.parts)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b"--b0--", []),
        (b"--b0\r\n\r\n\r\n--b0--", [({}, b"")]),
        (b"--b0\r\n\r\n--b0--", [({}, b"")]),
        (b"--b0\r\nA: 1\r\n\r\n--b0--", [({"a": "1"}, b"")]),
        (b"--b0 \t \r\n\r\nx\r\n--b0\t\r\n\r\ny\r\n--b0-- ", [({}, b"x"), ({}, b"y")]),
        (b"--b0\r\nA:1\r\n  2\r\nB:\r\n\r\nx\r\n--b0--", [({"a": "1 2", "b": ""}, b"x")]),
        (b"--b0\r\n\r\n\r\n--b\r\n--b0--", [({}, b"\r\n--b")]),
    ],
    ids=["none", "empty", "emptier", "only headers", "padding", "folded", "nearly"],
)
def test_messages_of_every_shape(body: bytes, parts: Parts) -> None:
    assert read(body) == parts
    assert read(*(body[at : at + 1] for at in range(len(body)))) == parts


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b0",
        b"--b0\r\n",
        b"--b0\r\n\r\nx",
        b"--b0\r\n\r\nx\r\n--b0",
        b"--b0\r\n\r\nx\r\n--b0-",
        b"--b0x\r\n\r\n",
        b"--b0-x\r\n\r\n",
        b"--b0\r\nno header\r\n\r\n",
        b"--b0\r\nA: 1\r\na: 1\r\n\r\n",
        b"--b0\r\nA: \0\r\n\r\n",
        b"--b0\r\nA: a\nb\r\n\r\n",
        b"--b0" + b" " * 1_000 + b"\r\n\r\n",
        b"--b0\r\nA: " + b"x" * MAX_HEADERS_BYTES,
        b"--b0\r\nA: " + b"x" * MAX_HEADERS_BYTES + b"\r\n\r\n",
        b"x" * (MAX_PREAMBLE_BYTES + 100),
        b"--b0--" + b"x" * (MAX_EPILOGUE_BYTES + 1),
    ],
)
def test_what_is_malformed_or_beyond_a_bound_is_refused(body: bytes) -> None:
    for pieces in ([body], cut(body, range(0, len(body), 50))):
        with pytest.raises(MultipartError):
            read(*pieces)


@pytest.mark.parametrize("text", ["b", "b" * 200, "a b", "'()+_,-./:=?"])
def test_boundaries_that_may_be(text: str) -> None:
    assert is_valid_boundary(text)


@pytest.mark.parametrize("text", ["", "b" * 201, "b ", "a\r\nb", "a;b", 'a"b', "ä", "b\n"])
def test_boundaries_that_may_not_be(text: str) -> None:
    assert not is_valid_boundary(text)

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.journal_format import (
    PAGE_BYTES,
    encode_record_header,
    encode_segment_header,
    new_generation,
    record_bytes,
    records_of,
)

_SEGMENT_BYTES = 64 * PAGE_BYTES


def _path(number: int) -> str:
    return f"{number % 256:02x}/{number:030x}.dcm"


def _segment(generation: bytes, contents: Sequence[bytes]) -> tuple[bytearray, list[int]]:
    """A segment with a record for each content, and where each begins."""
    segment, places, end = bytearray(_SEGMENT_BYTES), [], PAGE_BYTES
    head = encode_segment_header(generation)
    segment[: len(head)] = head
    for number, content in enumerate(contents):
        head = encode_record_header(generation, _path(number), memoryview(content))
        segment[end : end + len(head)] = head
        segment[end + PAGE_BYTES : end + PAGE_BYTES + len(content)] = content
        places.append(end)
        end += record_bytes(len(content))
    return segment, places


def _found(segment: bytearray) -> list[tuple[str, bytes]]:
    return [(record.path, bytes(record.content)) for record in records_of(memoryview(segment))]


_contents = st.lists(st.binary(max_size=3 * PAGE_BYTES), max_size=10)


@given(_contents)
def test_what_was_written_is_read(contents: list[bytes]) -> None:
    segment, _ = _segment(new_generation(), contents)
    assert _found(segment) == [(_path(number), each) for number, each in enumerate(contents)]


@given(_contents.filter(bool), st.data())
def test_a_torn_record_is_none_and_hides_no_other(
    contents: list[bytes], data: st.DataObject
) -> None:
    segment, places = _segment(new_generation(), contents)
    torn = data.draw(st.integers(0, len(contents) - 1))
    size = PAGE_BYTES + len(contents[torn])
    # Of the header's page only the header counts; a flip in what fills the page up is none.
    flipped = data.draw(st.integers(0, size - 1).filter(lambda at: at < 64 or at >= PAGE_BYTES))
    segment[places[torn] + flipped] ^= 1 << data.draw(st.integers(0, 7))
    kept = [(_path(number), each) for number, each in enumerate(contents) if number != torn]
    assert _found(segment) == kept


def test_records_of_an_earlier_generation_are_void() -> None:
    segment, _ = _segment(new_generation(), [b"old", b"older"])
    head = encode_segment_header(new_generation())
    segment[: len(head)] = head
    assert _found(segment) == []


def test_a_record_inside_the_bytes_of_another_is_none() -> None:
    generation = new_generation()
    inner, _ = _segment(generation, [b"inner"])
    segment, _ = _segment(generation, [bytes(inner[: 4 * PAGE_BYTES])])
    assert [path for path, _ in _found(segment)] == [_path(0)]


def test_a_torn_record_does_not_let_a_forged_one_in() -> None:
    """A peer that knows the format, and writes a record into its pixels, knows no generation."""
    forged, _ = _segment(new_generation(), [b"forged"])
    segment, (place,) = _segment(new_generation(), [bytes(forged[: 4 * PAGE_BYTES])])
    segment[place] ^= 1
    assert _found(segment) == []


@pytest.mark.parametrize("size", [0, 10, PAGE_BYTES - 1, PAGE_BYTES, 3 * PAGE_BYTES])
def test_no_segment_is_too_short_to_be_read(size: int) -> None:
    segment, _ = _segment(new_generation(), [b"one"])
    assert len(_found(segment[:size])) == (1 if size == 3 * PAGE_BYTES else 0)


@given(st.binary(max_size=4 * PAGE_BYTES))
def test_any_bytes_are_a_segment_without_records(noise: bytes) -> None:
    assert _found(bytearray(noise)) == []


def test_a_length_that_lies_is_no_record() -> None:
    segment, _ = _segment(new_generation(), [b"x" * (_SEGMENT_BYTES - 2 * PAGE_BYTES)])
    assert len(_found(segment)) == 1
    assert _found(segment[:-PAGE_BYTES]) == []


def test_a_foreign_path_gets_no_record() -> None:
    with pytest.raises(ValueError, match="spool"):
        encode_record_header(new_generation(), "../../etc/passwd", memoryview(b""))

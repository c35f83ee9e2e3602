"""Bounds what a protobuf file holds before it is parsed.

Two bytes make an empty message, and the parsed message takes a hundred: half a gigabyte of them is
more than any device has. Contents of bytes and packed numbers are stepped over, so that weights
take no time. What is malformed is left to the parser.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engines.errors import ModelFileError

LENGTH = 2
"""The wire type of messages, texts, bytes and packed numbers."""
_VARINT = 0
_FIXED_BYTES = {1: 8, 5: 4}
"""By wire type."""
_MAX_VARINT_BYTES = 10
_MORE = 0x80
"""Set in each byte of a varint but the last."""


def check_bounds(content: bytes, descriptor: Any, *, max_fields: int, max_text_bytes: int) -> None:
    """Checks how much ``content`` holds, at every depth together.

    Args:
        content: A serialised message.
        descriptor: Of its type, as ``Message.DESCRIPTOR``.
        max_fields: Messages, texts and numbers; packed numbers are one field.
        max_text_bytes: Of each name or text.

    Raises:
        ModelFileError: It holds more.
    """
    left = max_fields
    stack = [(0, len(content), descriptor)]
    while stack:
        place, end, kind = stack.pop()
        fields = kind.fields_by_number
        for number, wire, start, stop in fields_of(content, place, end):
            left -= 1
            if left < 0:
                raise ModelFileError(f"model.onnx holds more than {max_fields} fields")
            field = fields.get(number) if wire == LENGTH else None
            if field is None:
                continue
            if field.message_type is not None:
                stack.append((start, min(stop, end), field.message_type))
            elif field.type == field.TYPE_STRING:
                _check_text(stop - start, max_text_bytes)


def fields_of(content: bytes, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields the fields of the message that lies from ``place`` to ``end``, in order.

    Yields:
        Number, wire type, and where the content lies. What is malformed may say that it ends beyond
        the message, and is the last; so is a wire type that is none.
    """
    while place < end:
        tag, place = _varint(content, place)
        wire, start = tag & 7, place
        if wire == LENGTH:
            size, start = _varint(content, place)
            place = start + size
        elif wire == _VARINT:
            _, place = _varint(content, place)
        else:
            # The rest of what has no known size cannot be read.
            place += _FIXED_BYTES.get(wire, end)
        yield tag >> 3, wire, start, place


def _check_text(size: int, limit: int) -> None:
    if size > limit:
        raise ModelFileError(f"model.onnx holds a name or text of more than {limit} bytes")


def _varint(content: bytes, place: int) -> tuple[int, int]:
    if place < len(content) and content[place] < _MORE:
        return content[place], place + 1
    value = 0
    for index, byte in enumerate(content[place : place + _MAX_VARINT_BYTES]):
        value |= (byte & ~_MORE) << (7 * index)
        if byte < _MORE:
            return value, place + index + 1
    return value, place + _MAX_VARINT_BYTES

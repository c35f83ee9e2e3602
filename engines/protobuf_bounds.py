"""Bounds what a protobuf file holds before it is parsed.

Two bytes make an empty message, and the parsed message takes a hundred: half a gigabyte of them is
more than any device has. Contents of bytes and packed numbers are stepped over, so that weights
take no time. What is malformed is left to the parser.
"""

from __future__ import annotations

from typing import Any

from engines.errors import ModelFileError

_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
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
        while place < end:
            left -= 1
            if left < 0:
                raise ModelFileError(f"model.onnx holds more than {max_fields} fields")
            tag, place = _varint(content, place)
            wire = tag & 7
            if wire == _LENGTH:
                size, place = _varint(content, place)
                field = fields.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    stack.append((place, min(place + size, end), field.message_type))
                elif field is not None and field.type == field.TYPE_STRING:
                    _check_text(size, max_text_bytes)
                place += size
            elif wire == _VARINT:
                _, place = _varint(content, place)
            elif wire in (_FIXED_64, _FIXED_32):
                place += 8 if wire == _FIXED_64 else 4
            else:
                break


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

"""A bounded reader of the few attributes that a request of DIMSE-N has to name (PS3.7 10.1).

Unlike ``scanner``, it goes into the sequences that the caller names. The bytes are in memory and
bounded already; here nothing that the peer wrote can make the reader recurse deeper than the
caller's own shape, or visit more than ``MAX_ELEMENTS`` elements.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Union

from pydicom.uid import UID

from dicom_node.errors import DataSetUnreadableError
from dicom_node.scanner import Encoding

Shape = Mapping[int, Union["Shape", None]]
"""Wanted tags (group << 16 | element): None for a value, a shape for the items of a sequence."""
Value = Union[bytes, "list[Attributes]"]
Attributes = dict[int, Value]
"""What was found of a shape; a tag that is absent is not in it."""

# 50,000 references are 150,000 elements.
MAX_ELEMENTS = 1_000_000
MAX_VALUE_BYTES = 4096

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITERS = 0xFFFE
_UNDEFINED = 0xFFFFFFFF
# PS3.5 7.1.2: these VRs have two reserved bytes and a 32-bit length.
_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_BROKEN = "the data set breaks off or is not encoded as its transfer syntax says"


def read_attributes(data: bytes, transfer_syntax_uid: str, shape: Shape) -> Attributes:
    """Read the wanted attributes of an encoded data set.

    Raises:
        DataSetUnreadableError: The bytes are no data set, or hold more elements than any request.
    """
    syntax = UID(transfer_syntax_uid)
    encoding = Encoding(implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    found, _ = _Reader(data, encoding).read_elements(
        0, len(data), shape, implicit=encoding.implicit_vr
    )
    return found


class _Reader:
    """Reads one data set; positions count from its first byte."""

    def __init__(self, data: bytes, encoding: Encoding) -> None:
        self._data = data
        order = "<" if encoding.little_endian else ">"
        self._tag = struct.Struct(order + "HH")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "I")
        self._left = MAX_ELEMENTS

    def read_elements(
        self, at: int, end: int | None, shape: Shape, *, implicit: bool
    ) -> tuple[Attributes, int]:
        """Read the elements from ``at`` to ``end`` (None: to the item's delimiter).

        Returns:
            What was found, and where the next element begins.
        """
        found: Attributes = {}
        while end is None or at < end:
            tag, vr, length, value_at = self._header(at, implicit=implicit)
            if end is None and tag == _ITEM_END:
                return found, value_at
            inner = shape.get(tag)
            if inner is not None:
                implicit_items = implicit or vr == b"UN"  # PS3.5 6.2.2
                found[tag], at = self._read_items(value_at, length, inner, implicit=implicit_items)
            elif length == _UNDEFINED:
                at = self._skip_undefined(value_at, implicit=implicit or vr == b"UN")
            else:
                at = self._end_of(value_at, length)
                if tag in shape:
                    found[tag] = self._data[value_at : min(at, value_at + MAX_VALUE_BYTES)]
        return found, at

    def _read_items(
        self, at: int, length: int, shape: Shape, *, implicit: bool
    ) -> tuple[list[Attributes], int]:
        end = None if length == _UNDEFINED else self._end_of(at, length)
        items: list[Attributes] = []
        while end is None or at < end:
            tag, _, item_length, value_at = self._header(at, implicit=implicit)
            if end is None and tag == _SEQUENCE_END:
                return items, value_at
            if tag != _ITEM:
                raise DataSetUnreadableError(_BROKEN)
            item_end = None if item_length == _UNDEFINED else self._end_of(value_at, item_length)
            item, at = self.read_elements(value_at, item_end, shape, implicit=implicit)
            items.append(item)
        return items, at

    def _skip_undefined(self, at: int, *, implicit: bool) -> int:
        """Step over what has an undefined length; sequences of defined length in one step."""
        stack = [implicit]
        while stack:
            tag, vr, length, value_at = self._header(at, implicit=stack[-1])
            at = value_at
            if tag in (_ITEM_END, _SEQUENCE_END):
                stack.pop()
            elif length == _UNDEFINED:
                stack.append(stack[-1] or vr == b"UN")
            else:
                at = self._end_of(value_at, length)
        return at

    def _header(self, at: int, *, implicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, VR, length and where the value begins."""
        self._left -= 1
        if self._left < 0:
            raise DataSetUnreadableError("the data set holds more elements than any request")
        try:
            group, number = self._tag.unpack_from(self._data, at)
            tag = group << 16 | number
            if implicit or group == _DELIMITERS:
                return tag, b"", self._long.unpack_from(self._data, at + 4)[0], at + 8
            vr = self._data[at + 4 : at + 6]
            if vr in _LONG_VRS:
                return tag, vr, self._long.unpack_from(self._data, at + 8)[0], at + 12
            return tag, vr, self._short.unpack_from(self._data, at + 6)[0], at + 8
        except struct.error as error:
            raise DataSetUnreadableError(_BROKEN) from error

    def _end_of(self, value_at: int, length: int) -> int:
        end = value_at + length
        if end > len(self._data):
            raise DataSetUnreadableError(_BROKEN)
        return end

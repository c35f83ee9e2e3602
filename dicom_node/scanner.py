"""A bounded walk over the elements of an encoded data set (PS3.5 7).

Values are not decoded here, pixel data is never read, and nothing that the peer writes can make
the walk recurse, allocate by a declared length, or run for long:

* a value is captured up to ``MAX_VALUE_BYTES``;
* sequences are walked with an explicit stack of at most ``MAX_NESTING`` levels;
* at most ``MAX_ELEMENTS`` elements are visited.

At a bound, or where the structure breaks, the walk stops, and what was found so far stands.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from dicom_node.lookalikes import Lookalikes, Recognised, Span, head_of

MAX_VALUE_BYTES = 4096
MAX_NESTING = 64
# A multi-frame object with 10,000 frames has about 400,000 elements in its functional groups.
MAX_ELEMENTS = 500_000
# Longer per-frame groups of defined length are stepped over: they hold no single value.
_MAX_GROUPS_BYTES = 1 << 20

PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
SHARED_GROUPS, PER_FRAME_GROUPS = 0x52009229, 0x52009230
_GROUP_TAGS = frozenset({SHARED_GROUPS, PER_FRAME_GROUPS})

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
# What the walk goes into, or ends at.
_THOUGHTFUL_TAGS = _PIXEL_TAGS | _GROUP_TAGS | {_ITEM, _ITEM_END, _SEQUENCE_END}
# PS3.5 7.1.2: these VRs have two reserved bytes and a 32-bit length.
_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
BLOCK_BYTES = 16 * 1024
"""What is read at a time: as much as most headers have."""
_SHORTEST_HEADER = 8
_LONGEST_HEADER = 12

ReadAt = Callable[[int, int], bytes]
"""``(offset, length)`` to at most that many bytes; fewer at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How elements are written."""

    implicit_vr: bool
    little_endian: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelElement:
    """Where the pixels stand; offsets count from the start of the scanned bytes."""

    tag: int
    """Pixel Data, or one of the floating point ones."""
    offset: int
    length: int | None
    """None: encapsulated (PS3.5 A.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a walk found."""

    encoding: Encoding
    """As found; it may differ from what was negotiated."""
    values: Mapping[int, bytes] = field(repr=False)
    """Tag to raw value, for the wanted tags of the top level."""
    grouped: Mapping[int, frozenset[bytes]] = field(repr=False)
    """Tag to its distinct raw values within the functional groups, two at most."""
    pixels: PixelElement | None
    complete: bool
    """The walk reached the pixel data or the end without meeting a bound or a broken element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementPlace:
    """Where one element of the top level stands; offsets count from the start of the data set."""

    tag: int
    offset: int
    """Of its tag."""
    value_at: int
    length: int | None
    """As declared, unchecked; None: undefined."""


class _Layout:
    """How numbers and headers are packed in one byte order."""

    def __init__(self, order: str) -> None:
        self.tag = struct.Struct(order + "HH")
        self.short = struct.Struct(order + "H")
        self.long = struct.Struct(order + "I")
        self.explicit = struct.Struct(order + "I2sH")
        self.implicit = struct.Struct(order + "II")


_LITTLE_ENDIAN, _BIG_ENDIAN = _Layout("<"), _Layout(">")


@lru_cache(maxsize=8)
def _notable_tags(
    wanted: frozenset[int],
    little_endian: bool,  # noqa: FBT001  the cache is faster without keywords
) -> dict[int, int | None]:
    """The tags at which a skim has something to do, each as one number in the order of its bytes.

    Returns:
        Such a number to the tag whose value is wanted; to None where the careful walk must go on.
    """
    tags: dict[int, int | None] = {tag: tag for tag in wanted}
    tags.update(dict.fromkeys(_THOUGHTFUL_TAGS))
    if not little_endian:
        return tags
    return {(tag & 0xFFFF) << 16 | tag >> 16: meaning for tag, meaning in tags.items()}


class _Window:
    """Random access in blocks: most headers need one read."""

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._start = 0
        self._block = b""
        self._is_last = False

    def view(self, offset: int, length: int) -> bytes:
        begin = offset - self._start
        if begin < 0 or (begin + length > len(self._block) and not self._is_last):
            asked = max(length, BLOCK_BYTES)
            self._block = self._read_at(offset, asked)
            self._is_last = len(self._block) < asked
            self._start, begin = offset, 0
        return self._block[begin : begin + length]


@dataclass(slots=True, kw_only=True)
class _Frame:
    """One open sequence or item."""

    end: int | None
    """None: until its delimiter."""
    is_item: bool
    implicit_vr: bool
    in_groups: bool
    is_fragments: bool = False


@dataclass(slots=True)
class _Element:
    tag: int
    vr: bytes
    length: int
    value_at: int


def _place(offset: int, element: _Element) -> ElementPlace:
    return ElementPlace(
        tag=element.tag,
        offset=offset,
        value_at=element.value_at,
        length=None if element.length == _UNDEFINED else element.length,
    )


@dataclass(slots=True)
class _Walk:
    window: _Window
    size: int
    encoding: Encoding
    wanted: frozenset[int]
    stack: list[_Frame] = field(default_factory=list)
    values: dict[int, bytes] = field(default_factory=dict)
    grouped: dict[int, set[bytes]] = field(default_factory=dict)
    pixels: PixelElement | None = None
    note: Callable[[ElementPlace], None] | None = None
    head_spans: list[Span] = field(default_factory=list)
    """Of the first block, of which offsets count from the start then."""
    layout: _Layout = field(init=False)

    def __post_init__(self) -> None:
        self.layout = _LITTLE_ENDIAN if self.encoding.little_endian else _BIG_ENDIAN

    def run(self) -> bool:
        """Walk to the pixel data or the end; whether nothing was broken."""
        position, visited = self._skim() if self.note is None else (0, 0)
        while visited < MAX_ELEMENTS and len(self.stack) < MAX_NESTING:
            while self.stack and self._ends_at(self.stack[-1], position):
                self.stack.pop()
            if position >= self.size:
                return not self.stack
            element = self._element_at(position)
            if element is None:
                return False
            if self.note is not None and not self.stack:
                self.note(_place(position, element))
            step = self._take(element)
            if step is None:
                return self.pixels is not None
            position = step
            visited += 1
        return False

    def _skim(self) -> tuple[int, int]:
        """Step over the elements that need no thought: nearly all there are.

        Returns:
            Where the careful walk goes on, and how many elements lie before.
        """
        position, visited, is_done = 0, 0, False
        while not is_done and visited < MAX_ELEMENTS:
            begin = position
            position, spans, is_done = self._skim_block(begin)
            visited += len(spans)
            self.head_spans = self.head_spans or spans
            is_done = is_done or position == begin
        return position, visited

    def _skim_block(self, start: int) -> tuple[int, list[Span], bool]:
        """Step over the elements of one block.

        Returns:
            Where the first one begins that is not of this block, or needs thought; where the values
            lie before; and whether it needs thought.
        """
        block = self.window.view(start, BLOCK_BYTES)
        read_long, is_implicit = self.layout.long.unpack_from, self.encoding.implicit_vr
        read = (self.layout.implicit if is_implicit else self.layout.explicit).unpack_from
        notable = _notable_tags(self.wanted, self.encoding.little_endian)
        values: dict[int, bytes] = self.values
        spans: list[Span] = []
        position, end, last = 0, 0, len(block) - _LONGEST_HEADER
        while end <= last:
            position = end
            if is_implicit:
                word, length = read(block, end)
                end += 8 + length
            else:
                word, vr, length = read(block, end)
                if vr in _LONG_VRS:
                    (length,) = read_long(block, end + 8)
                    end += 4
                end += 8 + length
            if word in notable:
                tag = notable[word]
                if tag is None or length > MAX_VALUE_BYTES:
                    return start + position, spans, True
                if end > len(block):
                    return start + position, spans, False
                values.setdefault(tag, block[end - length : end])
                spans.append((tag, end - length, end))
            elif length == _UNDEFINED:
                return start + position, spans, True
            else:
                spans.append((None, end - length, end))
        is_beyond = start + end > self.size
        return start + (position if is_beyond else end), spans, is_beyond

    @staticmethod
    def _ends_at(frame: _Frame, position: int) -> bool:
        return frame.end is not None and position >= frame.end

    def _element_at(self, position: int) -> _Element | None:
        """The header at ``position``; None if there is no whole header."""
        head = self.window.view(position, 12)
        if len(head) < _SHORTEST_HEADER:
            return None
        group, number = self.layout.tag.unpack_from(head, 0)
        tag = group << 16 | number
        implicit = self.stack[-1].implicit_vr if self.stack else self.encoding.implicit_vr
        if implicit or group == 0xFFFE:  # noqa: PLR2004  delimiters have no VR
            return _Element(tag, b"", self.layout.long.unpack_from(head, 4)[0], position + 8)
        vr = head[4:6]
        if vr not in _LONG_VRS:
            return _Element(tag, vr, self.layout.short.unpack_from(head, 6)[0], position + 8)
        if len(head) < 12:  # noqa: PLR2004  the long header
            return None
        return _Element(tag, vr, self.layout.long.unpack_from(head, 8)[0], position + 12)

    def _take(self, element: _Element) -> int | None:
        """Note the element and return where the next one begins; None ends the walk."""
        if element.tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
            return self._take_delimiter(element)
        if element.tag in _PIXEL_TAGS and not self.stack:
            undefined = element.length == _UNDEFINED
            self.pixels = PixelElement(
                tag=element.tag,
                offset=element.value_at,
                length=None if undefined else element.length,
            )
            return None
        if self._opens(element):
            return element.value_at
        end = element.value_at + element.length
        if element.length == _UNDEFINED or end > self.size:
            return None
        self._capture(element)
        return end

    def _take_delimiter(self, element: _Element) -> int | None:
        top = self.stack[-1] if self.stack else None
        if element.tag == _ITEM:
            if top is None:
                return None
            if top.is_fragments:
                return element.value_at + element.length
            end = None if element.length == _UNDEFINED else element.value_at + element.length
            self.stack.append(
                _Frame(
                    end=end,
                    is_item=True,
                    implicit_vr=top.implicit_vr,
                    in_groups=top.in_groups,
                )
            )
        elif element.tag == _ITEM_END:
            if top is not None and top.is_item:
                self.stack.pop()
        else:
            while self.stack and self.stack.pop().is_item:
                pass
        return element.value_at

    def _opens(self, element: _Element) -> bool:
        """Push a frame if the walk has to go into the element."""
        top = self.stack[-1] if self.stack else None
        implicit = top.implicit_vr if top else self.encoding.implicit_vr
        in_groups = top.in_groups if top else element.tag in _GROUP_TAGS
        if element.length == _UNDEFINED:
            self.stack.append(
                _Frame(
                    end=None,
                    is_item=False,
                    # PS3.5 6.2.2: UN of undefined length holds implicit VR little endian.
                    implicit_vr=implicit or element.vr == b"UN",
                    in_groups=in_groups,
                    is_fragments=element.vr in (b"OB", b"OW") or element.tag in _PIXEL_TAGS,
                )
            )
            return True
        is_sequence = element.tag in _GROUP_TAGS or element.tag in _GROUP_SEQUENCES
        if not (in_groups and is_sequence) or element.length > _MAX_GROUPS_BYTES:
            return False
        end = element.value_at + element.length
        self.stack.append(_Frame(end=end, is_item=False, implicit_vr=implicit, in_groups=in_groups))
        return True

    def _capture(self, element: _Element) -> None:
        if element.tag not in self.wanted:
            return
        in_groups = bool(self.stack) and self.stack[-1].in_groups
        if self.stack and not in_groups:
            return
        raw = self.window.view(element.value_at, min(element.length, MAX_VALUE_BYTES))
        if not self.stack:
            self.values.setdefault(element.tag, raw)
        elif len(known := self.grouped.setdefault(element.tag, set())) < 2:  # noqa: PLR2004  enough
            known.add(raw)


_GROUP_SEQUENCES = frozenset(
    {
        0x00189114,  # MR Echo
        0x00189329,  # CT Image Frame Type
        0x00189226,  # MR Image Frame Type
        0x00189314,  # CT Reconstruction
        0x00189301,  # CT Acquisition Type
        0x00189304,  # CT Acquisition Details
        0x00209111,  # Frame Content
        0x00209113,  # Plane Position
        0x00209116,  # Plane Orientation
        0x00289110,  # Pixel Measures
        0x00289132,  # Frame VOI LUT
        0x00289145,  # Pixel Value Transformation
    }
)


def scan_data_set(
    read_at: ReadAt,
    size: int,
    encoding: Encoding,
    wanted: frozenset[int],
    lookalikes: Lookalikes | None = None,
) -> Scan:
    """Walk an encoded data set.

    Args:
        read_at: Access to the bytes of the data set, offset 0 being its first element.
        size: Length of the data set in bytes.
        encoding: As the transfer syntax says; the VR form is checked against the first element,
            since some devices negotiate one and send the other.
        wanted: Tags (group << 16 | element) whose values are captured.
        lookalikes: Data sets of which the same tags were wanted; one that is laid out like one of
            them is not walked.
    """
    window = _Window(read_at)
    block = window.view(0, BLOCK_BYTES)
    found = _observed(encoding, block[:_SHORTEST_HEADER])
    known = None if lookalikes is None else lookalikes.find(block, implicit_vr=found.implicit_vr)
    if known is not None:
        return _like(known, found)
    walk = _Walk(window, size, found, wanted)
    complete = walk.run()
    if lookalikes is not None:
        _remember(walk, block, lookalikes)
    return Scan(
        encoding=found,
        values=walk.values,
        grouped={tag: frozenset(raws) for tag, raws in walk.grouped.items()},
        pixels=walk.pixels,
        complete=complete,
    )


def _like(known: Recognised, encoding: Encoding) -> Scan:
    return Scan(
        encoding=encoding,
        values=known.values,
        grouped={},
        pixels=PixelElement(
            tag=PIXEL_DATA, offset=known.head.pixels_at, length=known.head.pixels_length
        ),
        complete=True,
    )


def _remember(walk: _Walk, block: bytes, lookalikes: Lookalikes) -> None:
    """A head of which every element was skimmed, and lies before native pixels."""
    pixels, spans = walk.pixels, walk.head_spans
    if pixels is None or pixels.tag != PIXEL_DATA or pixels.length is None or not spans:
        return
    # No room for an element between the last one that was skimmed and the pixels.
    is_whole = pixels.offset - spans[-1][2] <= _LONGEST_HEADER and pixels.offset <= len(block)
    if is_whole and walk.encoding.little_endian:
        lookalikes.add(
            block,
            head_of(
                block,
                implicit_vr=walk.encoding.implicit_vr,
                pixels_at=pixels.offset,
                pixels_length=pixels.length,
                spans=spans,
                own_tags=lookalikes.own_tags,
            ),
        )


def walk_top_level(
    read_at: ReadAt, size: int, encoding: Encoding, note: Callable[[ElementPlace], None]
) -> tuple[Encoding, bool]:
    """Walk an encoded data set up to its pixel data, and tell of each element of the top level.

    Args:
        read_at: As for ``scan_data_set``, and so are ``size`` and ``encoding``.
        note: Called with each element in the order of the bytes, the one that breaks the walk too.

    Returns:
        The encoding as found, and whether the walk met neither a bound nor a broken element.
    """
    window = _Window(read_at)
    found = _observed(encoding, window.view(0, 8))
    walk = _Walk(window, size, found, frozenset(), note=note)
    complete = walk.run()
    return found, complete


def _observed(encoding: Encoding, head: bytes) -> Encoding:
    """The encoding with the VR form that the first element really has."""
    if len(head) < _SHORTEST_HEADER:  # no element at all
        return encoding
    has_vr = head[4:6].isalpha() and head[4:6].isupper()
    if has_vr == (not encoding.implicit_vr):
        return encoding
    return Encoding(implicit_vr=not has_vr, little_endian=encoding.little_endian)
